//! The Range field (RFC 9110, section 14).
//!
//! Pure. One range is answered with that part. Several ranges are answered with the whole file: the RFC allows
//! it, no downloader needs more, and overlapping ranges are an old way to make a server work hard.

use std::ops::Range;

/// What a Range field asks of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All of it: no range, several, an unknown unit, or a field that means nothing.
    Whole,
    /// These bytes; never empty.
    Part(Range<u64>),
    /// Bytes that are not there.
    Nothing,
}

/// Reads a Range field for a file of `length` bytes.
pub fn parse(field: &[u8], length: u64) -> Asked {
    let Some((unit, set)) = split_once(field, b'=') else { return Asked::Whole };
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return Asked::Whole;
    }
    let mut specs = set.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else { return Asked::Whole };
    let Some((first, last)) = split_once(spec, b'-') else { return Asked::Whole };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Asked::Whole,
        (Some(first), Some(last)) => part(first, last.saturating_add(1).min(length), length),
        (Some(first), None) if last.is_empty() => part(first, length, length),
        (None, Some(suffix)) if first.is_empty() => part(length.saturating_sub(suffix), length, length),
        _ => Asked::Whole,
    }
}

fn part(start: u64, end: u64, length: u64) -> Asked {
    if start >= length || start >= end { Asked::Nothing } else { Asked::Part(start..end) }
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = bytes.iter().position(|&b| b == at)?;
    Some((&bytes[..index], &bytes[index + 1..]))
}

/// Digits as a number; one too large to count is as large as can be.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |sum: u64, &digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        use Asked::{Nothing, Part, Whole};
        let cases: &[(&str, u64, Asked)] = &[
            ("bytes=0-0", 10, Part(0..1)),
            ("bytes=0-9", 10, Part(0..10)),
            ("bytes=0-99", 10, Part(0..10)),
            ("bytes=2-5", 10, Part(2..6)),
            ("bytes=2-", 10, Part(2..10)),
            ("bytes=9-", 10, Part(9..10)),
            ("bytes=10-", 10, Nothing),
            ("bytes=10-20", 10, Nothing),
            ("bytes=-3", 10, Part(7..10)),
            ("bytes=-10", 10, Part(0..10)),
            ("bytes=-11", 10, Part(0..10)),
            ("bytes=-0", 10, Nothing),
            ("bytes=0-", 0, Nothing),
            ("bytes=-5", 0, Nothing),
            ("Bytes=0-0", 10, Part(0..1)),
            ("bytes = 0-0", 10, Part(0..1)),
            ("bytes= 0-0 ", 10, Part(0..1)),
            ("bytes=0-0,", 10, Part(0..1)),
            ("bytes=,0-0", 10, Part(0..1)),
            ("bytes=99999999999999999999999-", 10, Nothing),
            ("bytes=0-99999999999999999999999", 10, Part(0..10)),
            ("bytes=18446744073709551615-18446744073709551615", u64::MAX, Nothing),
            ("bytes=-99999999999999999999999", 10, Part(0..10)),
            ("bytes=5-2", 10, Whole),
            ("bytes=0-0,2-3", 10, Whole),
            ("bytes=0-0,-1", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=1-b", 10, Whole),
            ("bytes=0x1-2", 10, Whole),
            ("bytes=1--2", 10, Whole),
            ("bytes=--2", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1 -2", 10, Whole),
            ("bytes 0-0", 10, Whole),
            ("lines=0-0", 10, Whole),
            ("0-0", 10, Whole),
            ("", 10, Whole),
        ];
        for (field, length, asked) in cases {
            assert_eq!(parse(field.as_bytes(), *length), *asked, "{field} of {length}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_inside(field in "bytes=[0-9]{0,4}-[0-9]{0,4}", length in 0u64..2_000) {
            if let Asked::Part(range) = parse(field.as_bytes(), length) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }

        #[test]
        fn any_bytes(field in proptest::collection::vec(any::<u8>(), 0..40), length: u64) {
            let _ = parse(&field, length);
        }
    }
}
