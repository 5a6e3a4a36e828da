//! Input for tests that fuzz: lawful samples, changed as an accident or an attacker would change them.
//!
//! Such a test runs some thousands of cases with the others. `PROPTEST_CASES=5000000` makes it run as long as one likes.

use proptest::prelude::*;

/// Longest input that is made.
const LONGEST: usize = 64 * 1024;

/// What stands where it should not, in texts and in binary forms.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\x7f",
    b"\xc3\xa9",
    b"\xe2\x82",
    b"\xef\xbb\xbf",
    b"\x1b[31m",
    b"\r\n",
    b"\n",
    b"\t",
    b" ",
    b"\"",
    b"'",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"/",
    b"//",
    b"..",
    b"%2e%2e",
    b"%00",
    b"%",
    b"#",
    b"+",
    b"$",
    b"${",
    b"}",
    b"{",
    b"[",
    b"]",
    b"(",
    b")",
    b",",
    b":",
    b": ",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!binary ",
    b"|\n",
    b"? ",
    b"0",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"0.0000001",
    b"null",
    b"true",
    b"~",
    b".",
    b"=",
    b"@",
    b"|",
    b"?",
    b"def f: f; f",
    b"reduce ",
    b"{{",
    b"}}",
    b"null,",
    b"{\"\":",
    b"[[[[[[[[",
    b"((((((((",
];

/// How many cases a test runs: this many, or as many as `PROPTEST_CASES` says.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if asked { default } else { ProptestConfig { cases, ..default } }
}

/// A sample with some changes. Fewer changes are simpler.
pub(crate) fn mutated(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<u8>(), any::<u32>(), any::<u16>());
    (any::<prop::sample::Index>(), prop::collection::vec(edit, 0..12)).prop_map(move |(sample, edits)| {
        let mut data = samples[sample.index(samples.len())].clone();
        for (kind, at, what) in edits {
            change(&mut data, kind, at as usize, usize::from(what), &samples);
            data.truncate(LONGEST);
        }
        data
    })
}

fn change(data: &mut Vec<u8>, kind: u8, at: usize, what: usize, samples: &[Vec<u8>]) {
    let at = at % (data.len() + 1);
    let piece = PIECES[what % PIECES.len()];
    let end = |len: usize| (at + len).min(data.len());
    match kind % 10 {
        0 | 1 if at < data.len() => data[at] ^= 1 << (what % 8),
        2 if at < data.len() => data[at] = what as u8,
        3 | 4 => drop(data.splice(at..at, piece.iter().copied())),
        5 => drop(data.splice(at..end(piece.len()), piece.iter().copied())),
        6 => drop(data.drain(at..end(1 + what % 32))),
        7 => {
            let part = data[at..end(1 + what % 64)].to_vec();
            let part = part.repeat(1 + what / 256 % 64);
            data.splice(at..at, part);
        }
        8 => {
            let other = &samples[what % samples.len()];
            let from = what % (other.len() + 1);
            let part = other[from..(from + 48).min(other.len())].to_vec();
            data.splice(at..at, part);
        }
        9 if what.is_multiple_of(4) => data.truncate(at),
        _ => {}
    }
}
