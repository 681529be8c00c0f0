//! Bytes a stranger chose, made safe to stand in a log line.

use std::borrow::Cow;
use std::fmt::Write as _;

/// For a JSON string: valid UTF-8 stays (the serialiser escapes what JSON must), other bytes become `\xHH`.
pub(super) fn for_json(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut text = String::with_capacity(bytes.len() + 16);
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                for byte in chunk.invalid() {
                    let _ = write!(text, "\\x{byte:02X}");
                }
            }
            Cow::Owned(text)
        }
    }
}

/// For a quoted word of the combined format, as nginx does it: quotes, backslashes and what is not printable ASCII
/// become `\xHH`.
pub(super) fn for_combined(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if matches!(byte, b'"' | b'\\') || !(0x20..0x7f).contains(&byte) {
            out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_that_are_no_text() {
        assert_eq!(for_json(b"/a\xffb\xc3"), "/a\\xFFb\\xC3");
        assert_eq!(for_json("/ä\n".as_bytes()), "/ä\n");
        let mut out = Vec::new();
        for_combined(&mut out, b"/a\"b\\c\x1b\n\xff\x7f ");
        assert_eq!(out, b"/a\\x22b\\x5Cc\\x1B\\x0A\\xFF\\x7F ");
    }

    proptest! {
        #[test]
        fn a_combined_word_has_no_quote_and_no_line_end(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut out = Vec::new();
            for_combined(&mut out, &bytes);
            prop_assert!(out.iter().all(|b| (0x20..0x7f).contains(b) && *b != b'"'));
        }
    }
}
