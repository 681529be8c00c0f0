//! The chunked coding (RFC 9112, section 7.1), on the way out.

use crate::http::codec::fields::Fields;

/// The most that a chunk of up to `u32::MAX` bytes takes beside its data: eight digits and two line ends.
pub const OVERHEAD_MAX: usize = 12;

/// Appends a chunk of at most `max` bytes, overhead included, its data written by `fill`, which is told how many bytes it
/// may append. Appends nothing where `fill` appends nothing.
///
/// # Panics
/// If `max` does not exceed [`OVERHEAD_MAX`], or `fill` appends too much.
pub fn append_chunk<R>(out: &mut Vec<u8>, max: usize, fill: impl FnOnce(usize, &mut Vec<u8>) -> R) -> R {
    let room = max.min(u32::MAX as usize) - OVERHEAD_MAX;
    // As many digits as the largest possible size has: then the data need not be moved when its size is known. Leading
    // zeros are allowed.
    let digits = room.max(1).ilog2() as usize / 4 + 1;
    let start = out.len();
    out.resize(start + digits + 2, b'0');
    let data = out.len();
    let result = fill(room, out);
    let mut size = out.len() - data;
    if size == 0 {
        out.truncate(start);
        return result;
    }
    assert!(size <= room, "a source made more than it was asked for");
    for digit in out[start..start + digits].iter_mut().rev() {
        *digit = b"0123456789abcdef"[size % 16];
        size /= 16;
    }
    out[data - 2..data].copy_from_slice(b"\r\n");
    out.extend_from_slice(b"\r\n");
    result
}

/// Appends the last chunk, and the fields that follow it.
pub fn append_end(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        out.extend_from_slice(trailers.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_say_their_size() {
        let mut out = Vec::new();
        for (max, data) in [(13, "a"), (100, "hello"), (100_000, "0123456789abcdef")] {
            append_chunk(&mut out, max, |room, out| {
                assert!(data.len() <= room);
                out.extend_from_slice(data.as_bytes());
            });
        }
        append_chunk(&mut out, 100, |_, _| ());
        let mut trailers = Fields::default();
        trailers.add("X", 1);
        append_end(&mut out, Some(&trailers));
        let expected = "1\r\na\r\n05\r\nhello\r\n00010\r\n0123456789abcdef\r\n0\r\nX: 1\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
