//! Text that comes in pieces, masked as clients send it: whether it is still UTF-8. Pure; used by the scanner of input.

/// Bytes that are unmasked at a time; a multiple of the mask's length.
const BLOCK: usize = 1024;
/// Longest start of a code point that is not whole.
const MOST_BEGUN: usize = 3;

/// Remembers the code point that the last piece has begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    begun: [u8; MOST_BEGUN],
    begun_len: usize,
}

impl Utf8 {
    /// Whether `payload` goes on as UTF-8 from `from`; what is before has been looked at.
    pub(super) fn goes_on(&mut self, payload: &[u8], mask: [u8; 4], from: usize) -> bool {
        let rest = payload.get(from..).unwrap_or_default();
        let mut mask = mask;
        mask.rotate_left(from % 4);
        rest.chunks(BLOCK).all(|piece| self.piece(piece, mask))
    }

    /// Whether no code point is begun.
    pub(super) fn is_whole(&self) -> bool {
        self.begun_len == 0
    }

    fn piece(&mut self, piece: &[u8], mask: [u8; 4]) -> bool {
        let mut block = [0; MOST_BEGUN + BLOCK];
        let begun = self.begun_len;
        block[..begun].copy_from_slice(&self.begun[..begun]);
        for ((plain, masked), key) in block[begun..].iter_mut().zip(piece).zip(mask.iter().cycle()) {
            *plain = masked ^ key;
        }
        let text = &block[..begun + piece.len()];
        let rest = match std::str::from_utf8(text) {
            Ok(_) => &[],
            Err(error) if error.error_len().is_none() => &text[error.valid_up_to()..],
            Err(_) => return false,
        };
        self.begun_len = rest.len();
        self.begun[..rest.len()].copy_from_slice(rest);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(bytes: &[u8], mask: [u8; 4]) -> Vec<u8> {
        bytes.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect()
    }

    /// Gives the bytes one at a time, as they come in one frame; tells after how many they are refused.
    fn refused_at(bytes: &[u8]) -> Option<usize> {
        let (mask, mut utf8) = ([7, 99, 0, 254], Utf8::default());
        let payload = masked(bytes, mask);
        (0..bytes.len()).find(|at| !utf8.goes_on(&payload[..=*at], mask, *at))
    }

    #[test]
    fn text_is_refused_at_the_first_byte_that_no_text_could_have() {
        for (bytes, at) in [
            (&b"\xff"[..], 0),
            (b"a\x80", 1),
            (b"\xc0\x80", 0),          // longer than it need be
            (b"\xe0\x80\x80", 1),      // the same
            (b"\xed\xa0\x80", 1),      // half of a surrogate pair
            (b"\xf4\x90\x80\x80", 1),  // behind the last code point
            (b"\xf5\x80\x80\x80", 0),  // the same
            (b"\xce\xba\xe1\xbda", 4), // a code point that breaks off
            (b"\xf0\x9f\x98\xf0", 3),  // the same
        ] {
            assert_eq!(refused_at(bytes), Some(at), "{bytes:x?}");
        }
    }

    #[test]
    fn a_code_point_that_is_begun_is_not_whole() {
        for (bytes, is_whole) in
            [(&b""[..], true), (b"a", true), (b"\xe2\x82", false), ("€".as_bytes(), true)]
        {
            let mut utf8 = Utf8::default();
            assert!(utf8.goes_on(bytes, [0; 4], 0));
            assert_eq!(utf8.is_whole(), is_whole, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_judged_like_the_whole(
            text in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                "\\PC{0,30}".prop_map(String::into_bytes),
                (1000usize..1100, "[aü€😀]{1,60}").prop_map(|(len, end)| format!("{}{end}", "x".repeat(len)).into_bytes()),
            ],
            mask: [u8; 4],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let payload = masked(&text, mask);
            let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            ends.push(text.len());
            ends.sort_unstable();
            let (mut utf8, mut from) = (Utf8::default(), 0);
            let is_well = ends.iter().all(|end| {
                let goes_on = utf8.goes_on(&payload[..*end], mask, from);
                from = *end;
                goes_on
            });
            prop_assert_eq!(is_well && utf8.is_whole(), std::str::from_utf8(&text).is_ok());
        }
    }
}
