//! What permessage-deflate does with the payload of a message (RFC 7692 section 7.2). Pure.
//!
//! Every message stands alone (no context takeover), so a batch is compressed once for all clients, and nothing is kept
//! for a connection between two messages.

use std::sync::{Mutex, PoisonError};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Messages below this length stay as they are: little is won, and a small message leaves at once.
pub(super) const LEAST: usize = 1024;
/// How hard it tries: the least. The next level takes three times as long to make messages 3 % shorter.
const LEVEL: u32 = 1;
/// What every compressed message ends with, and what is left out of it (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// A last block with nothing in it. Behind a message that is whole it ends the stream.
const END: [u8; 2] = [0x03, 0x00];
/// Bytes that are unpacked at a time.
const SCRATCH: usize = 4 * 1024;
/// Last blocks in a message, with our own: to begin anew costs far more than the two bytes that ask for it.
const MOST_ENDS: usize = 4;
/// Compressors that are kept for the next batch. One takes some 300 KiB, which are not made anew for each.
const IDLE: usize = 4;

/// Compressors that nobody uses just now.
static COMPRESSORS: Mutex<Vec<Compress>> = Mutex::new(Vec::new());

fn idle() -> std::sync::MutexGuard<'static, Vec<Compress>> {
    COMPRESSORS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The payload of a compressed message; `None` if the text is too short, or does not become shorter.
pub(super) fn deflate(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() < LEAST {
        return None;
    }
    let known = idle().pop();
    let mut compress = known.unwrap_or_else(|| Compress::new(Compression::new(LEVEL), false));
    // One that has become longer than its text is of no use, so there is never need for more room.
    let mut out = Vec::with_capacity(text.len());
    let done = compress.compress_vec(text, &mut out, FlushCompress::Sync);
    let is_whole = done.is_ok() && compress.total_in() == text.len() as u64 && out.len() < out.capacity();
    compress.reset();
    let mut idle = idle();
    if idle.len() < IDLE {
        idle.push(compress);
    }
    drop(idle);
    if !is_whole || !out.ends_with(&TAIL) {
        return None;
    }
    out.truncate(out.len() - TAIL.len());
    Some(out)
}

/// Why a compressed message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InflateError {
    /// It would be longer than a message may be.
    TooBig,
    /// It is not what DEFLATE makes.
    Corrupt,
}

/// The text of a compressed message, at most `most` bytes. What it takes grows with what comes out, so a message that
/// promises more costs no more than that.
pub(super) fn inflate(payload: &[u8], most: usize) -> Result<Vec<u8>, InflateError> {
    let mut decompress = Decompress::new(false);
    // What is written to is cleared by every call, so it is small whatever comes out.
    let mut scratch = [0; SCRATCH];
    let mut out = Vec::with_capacity((4 * payload.len()).max(64).min(most));
    let (mut ends, mut is_end) = (0, false);
    for mut part in [payload, &TAIL, &END] {
        loop {
            let (read, written) = (decompress.total_in(), decompress.total_out());
            let status = decompress.decompress(part, &mut scratch, FlushDecompress::Sync);
            let status = status.map_err(|_| InflateError::Corrupt)?;
            let read = (decompress.total_in() - read) as usize;
            let written = (decompress.total_out() - written) as usize;
            if out.len() + written > most {
                return Err(InflateError::TooBig);
            }
            out.extend_from_slice(&scratch[..written]);
            part = &part[read..];
            is_end = status == Status::StreamEnd;
            if is_end {
                // A last block may be followed by others (section 7.2.3.4).
                ends += 1;
                if ends > MOST_ENDS {
                    return Err(InflateError::Corrupt);
                }
                decompress.reset(false);
            } else if !part.is_empty() && read + written == 0 {
                return Err(InflateError::Corrupt);
            }
            // When all of it is written to there may be more to come out.
            if part.is_empty() && (is_end || written < SCRATCH) {
                break;
            }
        }
    }
    if is_end { Ok(out) } else { Err(InflateError::Corrupt) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 131_072;

    /// Another's inflater, which knows nothing of messages: it wants an end, and may be given one.
    fn inflate_elsewhere(payload: &[u8]) -> Vec<u8> {
        let whole = [payload, &TAIL, &END].concat();
        let mut out = vec![0; 1 << 20];
        let config = zlib_rs::InflateConfig { window_bits: -15 };
        let (text, code) = zlib_rs::decompress_slice(&mut out, &whole, config);
        assert_eq!(code, zlib_rs::ReturnCode::Ok);
        text.to_vec()
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        for payload in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            // Without compression.
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            // With a last block.
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            // In two blocks.
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflate(payload, 5).as_deref(), Ok(&b"Hello"[..]), "{payload:02x?}");
            assert_eq!(inflate(payload, 4), Err(InflateError::TooBig), "{payload:02x?}");
        }
        assert_eq!(inflate(&[0x00], 5).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn what_is_cut_or_broken_is_refused() {
        let whole = deflate(&b"a message that is long enough to be compressed ".repeat(40)).unwrap();
        for len in 0..whole.len() {
            assert_eq!(inflate(&whole[..len], MOST), Err(InflateError::Corrupt), "{len}");
        }
        assert_eq!(inflate(&[0xff; 40], MOST), Err(InflateError::Corrupt));
        assert_eq!(inflate(&[], MOST), Err(InflateError::Corrupt));
    }

    #[test]
    fn a_bomb_is_refused_as_soon_as_there_is_too_much() {
        let bomb = deflate(&vec![0; 100 << 20]).unwrap();
        assert!(bomb.len() > 32_768, "it is more than one frame may hold: {}", bomb.len());
        assert_eq!(inflate(&bomb[..32_768], MOST), Err(InflateError::TooBig));
        let fits = deflate(&[0; MOST]).unwrap();
        assert_eq!(inflate(&fits, MOST).map(|text| text.len()), Ok(MOST));
        assert_eq!(inflate(&fits, MOST - 1), Err(InflateError::TooBig));
    }

    #[test]
    fn a_message_of_many_last_blocks_is_refused() {
        // Behind a last block another one begins, of which the end is cut off as always.
        let ends = |count| [END.repeat(count), vec![0]].concat();
        assert_eq!(inflate(&ends(65_536), MOST), Err(InflateError::Corrupt));
        assert_eq!(inflate(&ends(MOST_ENDS), MOST), Err(InflateError::Corrupt));
        assert_eq!(inflate(&ends(MOST_ENDS - 1), MOST), Ok(Vec::new()));
    }

    #[test]
    fn short_and_random_texts_stay_as_they_are() {
        assert_eq!(deflate(&[b'x'; LEAST - 1]), None);
        assert!(deflate(&[b'x'; LEAST]).is_some());
        let random: Vec<u8> = (0..5000).map(|_| rand::random()).collect();
        assert_eq!(deflate(&random), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_compressed_comes_back_the_same(words in prop::collection::vec("[a-z]{1,12}|.{0,40}", 60..1000)) {
            let text = words.join(" ").into_bytes();
            if let Some(payload) = deflate(&text) {
                prop_assert!(payload.len() < text.len());
                prop_assert_eq!(&inflate_elsewhere(&payload), &text);
                prop_assert_eq!(inflate(&payload, text.len()), Ok(text));
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_within_the_bound(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(text) = inflate(&payload, 1000) {
                prop_assert!(text.len() <= 1000);
            }
        }
    }
}
