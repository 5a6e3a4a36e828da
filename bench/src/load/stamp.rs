//! The stamp: the number of an event, at the beginning of its payload, and how it is found again in what a
//! server sends, without a parser of its protocol.

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem::Finder;

use super::PAYLOAD;

/// Digits of a stamp. With base64 they become 16 characters.
const DIGITS: usize = 12;
/// The longest piece of a stream that must be kept to find a stamp that two reads cut.
const MAX_CUT: usize = 64;

/// Bytes that payloads are filled up from.
const POOL: usize = 1 << 20;

/// The payload of an event: `seq`, its number, filled up with letters that do not compress.
pub(crate) fn payload(number: u64) -> [u8; PAYLOAD] {
    static LETTERS: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let letter = || {
            // xorshift64*
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            b'A' + (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as u8 % 26
        };
        std::iter::repeat_with(letter).take(POOL).collect()
    });
    let from = number.wrapping_mul(7919) as usize % (POOL - PAYLOAD);
    let mut payload = [0; PAYLOAD];
    payload.copy_from_slice(&LETTERS[from..from + PAYLOAD]);
    payload[..3].copy_from_slice(b"seq");
    payload[3..3 + DIGITS].copy_from_slice(&digits(number));
    payload
}

fn digits(number: u64) -> [u8; DIGITS] {
    let (mut digits, mut rest) = ([b'0'; DIGITS], number);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// In which form a server sends payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Plain,
    /// In base64, in the JSON of a trigger's message.
    Trigger,
}

impl Form {
    /// What stands before the number of each event.
    fn marker(self) -> &'static [u8] {
        match self {
            Self::Plain => b"seq",
            // The beginning of base64 of "seq".
            Self::Trigger => b"\"payload\":\"c2Vx",
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Plain => DIGITS,
            Self::Trigger => DIGITS / 3 * 4,
        }
    }

    /// Bytes after a number in which the next cannot begin: the rest of the payload, and of an event's JSON its
    /// metadata.
    fn gap(self) -> usize {
        match self {
            Self::Plain => PAYLOAD - DIGITS - 3,
            Self::Trigger => 380,
        }
    }

    fn read(self, bytes: &[u8]) -> u64 {
        let mut plain = [0; DIGITS];
        let digits = match self {
            Self::Plain => bytes,
            Self::Trigger => match STANDARD.decode_slice(bytes, &mut plain) {
                Ok(_) => &plain[..],
                Err(_) => return u64::MAX,
            },
        };
        digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit.wrapping_sub(b'0')))
    }
}

/// Finds stamps in streams of one form.
#[derive(Debug)]
pub(crate) struct Stamps {
    form: Form,
    finder: Finder<'static>,
}

/// Where a stream stands between two reads.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    /// The end of the last read, which may hold the beginning of a stamp.
    kept: Vec<u8>,
    /// Bytes of the next read in which no stamp begins.
    skip: usize,
}

impl Stamps {
    pub(crate) fn new(form: Form) -> Self {
        Self { form, finder: Finder::new(form.marker()) }
    }

    /// Calls `each` with every event's number in `bytes`, which follow what `cut` has seen.
    pub(crate) fn scan(&self, cut: &mut Cut, bytes: &[u8], mut each: impl FnMut(u64)) {
        let whole = self.form.marker().len() + self.form.len();
        let mut from = 0;
        if !cut.kept.is_empty() {
            let old = cut.kept.len();
            let mut joined = [0; 2 * MAX_CUT];
            let new = bytes.len().min(whole - 1);
            joined[..old].copy_from_slice(&cut.kept);
            joined[old..old + new].copy_from_slice(&bytes[..new]);
            let joined = &joined[..old + new];
            match self.finder.find(joined).filter(|at| *at < old) {
                Some(at) => match joined.get(at + self.form.marker().len()..at + whole) {
                    Some(number) => {
                        each(self.form.read(number));
                        from = at + whole - old + self.form.gap();
                    }
                    None => {
                        cut.kept.extend_from_slice(bytes);
                        return;
                    }
                },
                // Too little has come to tell.
                None if bytes.len() < self.form.marker().len() - 1 => {
                    let keep = joined.len().min(self.form.marker().len() - 1);
                    cut.kept = joined[joined.len() - keep..].to_vec();
                    return;
                }
                None => {}
            }
            cut.kept.clear();
        }
        from += std::mem::take(&mut cut.skip);
        loop {
            let Some(rest) = bytes.get(from..) else {
                cut.skip = from - bytes.len();
                return;
            };
            let Some(at) = self.finder.find(rest) else {
                // The marker may begin here.
                let keep = rest.len().min(self.form.marker().len() - 1);
                cut.kept.extend_from_slice(&rest[rest.len() - keep..]);
                return;
            };
            let Some(number) = rest.get(at + self.form.marker().len()..at + whole) else {
                cut.kept.extend_from_slice(&rest[at..]);
                return;
            };
            each(self.form.read(number));
            from += at + whole + self.form.gap();
        }
    }
}

/// What a server wrote for one event or batch, to be written again by another with other numbers in it.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
    form: Form,
    /// Where the numbers stand.
    numbers: Vec<usize>,
}

impl Frame {
    /// Takes `bytes` as they came from the socket; they must hold so many events.
    pub(crate) fn new(bytes: Vec<u8>, form: Form, events: usize) -> Result<Self> {
        let marker = form.marker();
        let numbers: Vec<usize> =
            memchr::memmem::find_iter(&bytes, marker).map(|at| at + marker.len()).collect();
        ensure!(numbers.len() == events, "a frame of {} events holds {}", events, numbers.len());
        Ok(Self { bytes, form, numbers })
    }

    /// The WebSocket frame of one plain payload.
    pub(crate) fn plain() -> Self {
        let mut bytes = vec![0x81, 126, 0, PAYLOAD as u8];
        bytes.extend_from_slice(&payload(0));
        Self { bytes, form: Form::Plain, numbers: vec![7] }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The frame for the events from `first` on.
    pub(crate) fn stamped(&mut self, first: u64) -> &[u8] {
        for (number, at) in (first..).zip(&self.numbers) {
            let place = &mut self.bytes[*at..*at + self.form.len()];
            match self.form {
                Form::Plain => place.copy_from_slice(&digits(number)),
                Form::Trigger => {
                    let text = STANDARD.encode(digits(number));
                    place.copy_from_slice(text.as_bytes());
                }
            }
        }
        &self.bytes
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(form: Form) -> Vec<u8> {
        let mut one = match form {
            Form::Plain => Frame::plain(),
            Form::Trigger => {
                let payload = STANDARD.encode(payload(0));
                let metadata = "x".repeat(300);
                let json = format!("{{\"event_metadata\":\"{metadata}\",\"payload\":\"{payload}\"}}");
                Frame::new(json.into_bytes(), form, 1).unwrap_or_else(|error| panic!("{error}"))
            }
        };
        (0..50).flat_map(|number| one.stamped(number * 1000).to_vec()).collect()
    }

    #[test]
    fn every_stamp_is_found_once_wherever_reads_cut_the_stream() {
        for form in [Form::Plain, Form::Trigger] {
            let stream = stream(form);
            let stamps = Stamps::new(form);
            for size in (1..70).chain([100, 473, 474, 1000, 100_000]) {
                let (mut cut, mut found) = (Cut::default(), Vec::new());
                for piece in stream.chunks(size) {
                    stamps.scan(&mut cut, piece, |number| found.push(number));
                }
                let expected: Vec<u64> = (0..50).map(|number| number * 1000).collect();
                assert_eq!(found, expected, "{form:?} in pieces of {size}");
            }
        }
    }
}
