//! The chunked coding (RFC 9112, section 7.1), on the way in.
//!
//! Pure and incremental: however the bytes are cut, the same comes out. It is strict where another reader on the way might
//! see another end of the message: a line ends with CRLF and nothing else, a size is hexadecimal digits and nothing else.
//! Extensions are passed over, trailers are kept apart from the head's fields, and both are bounded.

use std::fmt;

use crate::http::codec::fields::{Fields, is_token};

/// Digits of a chunk's size, leading zeros included: as many as the largest 64-bit number has.
const DIGITS_MAX: u32 = 16;
/// Bytes of extensions in a whole message. Nobody is known to send any; who sends more than this wants us to work for
/// nothing.
pub const EXTENSIONS_MAX: usize = 16 * 1024;
/// Bytes of all trailer fields, line ends included.
pub const TRAILERS_MAX: usize = 8 * 1024;
/// The most trailer fields.
pub const TRAILER_FIELDS_MAX: usize = 64;

/// Takes the chunked coding off a body.
#[derive(Debug, Default)]
pub struct Dechunker {
    state: State,
    /// The size being read, then what is left of the chunk.
    left: u64,
    digits: u32,
    extensions: usize,
    /// The trailer line at hand.
    line: Vec<u8>,
    trailer_bytes: usize,
    trailer_count: usize,
    trailers: Option<Fields>,
}

/// What comes next. A line end is two states: it may be cut in the middle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// Blanks between a size and its extension.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    End,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Of the body, never empty.
    Data(&'a [u8]),
    /// Framing so far; more has to come.
    More,
    /// The body is complete; what follows is not its own.
    End,
}

/// Why a chunked body cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// A size is no number, or none that 64 bits can hold.
    Size,
    /// A line does not end with CRLF, or not where it should.
    LineEnd,
    /// A trailer is no header field.
    Trailer,
    /// Extensions or trailers have more bytes than are taken.
    TooMuch,
}

impl ChunkError {
    /// A line for the person at the other end.
    pub fn as_str(self) -> &'static str {
        match self {
            ChunkError::Size => "The size of a chunk is not a hexadecimal number.",
            ChunkError::LineEnd => "A line end in the chunked body is not CRLF.",
            ChunkError::Trailer => "A field behind the chunked body is broken.",
            ChunkError::TooMuch => "The chunked body has more extensions or trailers than are taken.",
        }
    }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for ChunkError {}

impl Dechunker {
    /// Takes the next piece from the front of `input`, and the framing before it.
    ///
    /// # Errors
    /// When what comes is not the chunked coding: the end of the message cannot be found any more.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, ChunkError> {
        loop {
            if self.state == State::Data {
                let part = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
                if part == 0 {
                    return Ok(Piece::More);
                }
                let (data, rest) = input.split_at(part);
                *input = rest;
                self.left -= part as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Piece::Data(data));
            }
            if self.state == State::End {
                return Ok(Piece::End);
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(Piece::More) };
            *input = rest;
            self.state = self.framing(byte)?;
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// The fields that followed the body, those that may not stand there left out.
    pub fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    fn framing(&mut self, byte: u8) -> Result<State, ChunkError> {
        Ok(match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() => {
                self.digits += 1;
                if self.digits > DIGITS_MAX {
                    return Err(ChunkError::Size);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.left = self.left << 4 | u64::from(digit);
                State::Size
            }
            (State::Size, _) if self.digits == 0 => return Err(ChunkError::Size),
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::Blank, b' ' | b'\t') => self.passed_over(State::Blank)?,
            (State::Size | State::Blank, b';') => self.passed_over(State::Extension)?,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.passed_over(State::Extension)?,
            (State::Size | State::Blank, b'\n') | (State::Extension, _) => return Err(ChunkError::LineEnd),
            (State::Size | State::Blank, _) => return Err(ChunkError::Size),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                if self.left > 0 { State::Data } else { State::Trailer }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, b'\n') | (State::SizeLf | State::DataCr | State::DataLf, _) => {
                return Err(ChunkError::LineEnd);
            }
            (State::Trailer, byte) => {
                self.trailer_bytes += 1;
                if self.trailer_bytes > TRAILERS_MAX {
                    return Err(ChunkError::TooMuch);
                }
                self.line.push(byte);
                State::Trailer
            }
            (State::TrailerLf, b'\n') if self.line.is_empty() => State::End,
            (State::TrailerLf, b'\n') => {
                self.end_trailer()?;
                State::Trailer
            }
            (State::TrailerLf, _) => return Err(ChunkError::LineEnd),
            (State::Data | State::End, _) => self.state,
        })
    }

    fn passed_over(&mut self, next: State) -> Result<State, ChunkError> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS_MAX { Err(ChunkError::TooMuch) } else { Ok(next) }
    }

    fn end_trailer(&mut self) -> Result<(), ChunkError> {
        self.trailer_count += 1;
        if self.trailer_count > TRAILER_FIELDS_MAX {
            return Err(ChunkError::TooMuch);
        }
        let colon = self.line.iter().position(|&byte| byte == b':').ok_or(ChunkError::Trailer)?;
        let (name, value) = (&self.line[..colon], self.line[colon + 1..].trim_ascii());
        let name = std::str::from_utf8(name).ok().filter(|name| is_token(name.as_bytes()));
        let name = name.ok_or(ChunkError::Trailer)?;
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(ChunkError::Trailer);
        }
        if !is_forbidden(name) {
            self.trailers.get_or_insert_default().add(name, value);
        }
        self.line.clear();
        Ok(())
    }
}

/// What must not come so late, since somebody has acted without it by then (RFC 9110, section 6.5.1): framing, routing,
/// what asks or grants, what says how the body is to be read. [`Fields`] refuses further ones.
fn is_forbidden(name: &str) -> bool {
    const NAMES: [&str; 22] = [
        "host",
        "trailer",
        "expect",
        "range",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "if-range",
        "authorization",
        "proxy-authorization",
        "www-authenticate",
        "proxy-authenticate",
        "cookie",
        "set-cookie",
        "cache-control",
        "max-forwards",
        "age",
        "location",
        "content-encoding",
        "content-type",
        "content-range",
    ];
    NAMES.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes to the end: the body, the bytes left over, the trailers as they would go.
    fn decode(text: &[u8]) -> Result<(Vec<u8>, usize, Vec<u8>), Option<ChunkError>> {
        decode_in(&[text])
    }

    fn decode_in(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, Vec<u8>), Option<ChunkError>> {
        let (mut dechunker, mut body) = (Dechunker::default(), Vec::new());
        for (at, piece) in pieces.iter().enumerate() {
            let mut rest = *piece;
            loop {
                match dechunker.next(&mut rest).map_err(Some)? {
                    Piece::Data(data) => body.extend_from_slice(data),
                    Piece::More => break,
                    Piece::End => {
                        let later: usize = pieces[at + 1..].iter().map(|piece| piece.len()).sum();
                        let trailers = dechunker
                            .take_trailers()
                            .map_or(Vec::new(), |trailers| trailers.as_bytes().to_vec());
                        return Ok((body, rest.len() + later, trailers));
                    }
                }
            }
        }
        Err(None)
    }

    #[test]
    fn what_is_chunked_is_put_together() {
        for (text, body, left, trailers) in [
            ("0\r\n\r\n", "", 0, ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0, ""),
            ("005\r\nhello\r\n1\r\n!\r\n000\r\n\r\nGET", "hello!", 3, ""),
            ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", 0, ""),
            ("5;a=b\r\nhello\r\n0;c=\"d;e\"\r\n\r\n", "hello", 0, ""),
            ("5 ;a\r\nhello\r\n0\t;\r\n\r\n", "hello", 0, ""),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", 0, ""),
            ("0\r\nA: b\r\nc:d \r\n\r\nX", "", 1, "A: b\r\nc: d\r\n"),
            (
                "0\r\nContent-Length: 5\r\nHost: x\r\nSum: 1\r\nTransfer-Encoding: x\r\n\r\n",
                "",
                0,
                "Sum: 1\r\n",
            ),
        ] {
            let (decoded, rest, fields) = decode(text.as_bytes()).unwrap();
            assert_eq!(decoded, body.as_bytes(), "{text:?}");
            assert_eq!((rest, String::from_utf8(fields).unwrap().as_str()), (left, trailers), "{text:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (text, error) in [
            ("\r\n", ChunkError::Size),
            ("x\r\n", ChunkError::Size),
            ("-1\r\n", ChunkError::Size),
            ("+1\r\n", ChunkError::Size),
            ("0x5\r\nhello\r\n", ChunkError::Size),
            (" 5\r\nhello\r\n", ChunkError::Size),
            ("5_0\r\n", ChunkError::Size),
            ("5 5\r\n", ChunkError::Size),
            ("5 \r\nhello\r\n", ChunkError::Size),
            ("10000000000000000\r\n", ChunkError::Size),
            ("00000000000000005\r\nhello\r\n", ChunkError::Size),
            (";a=b\r\n", ChunkError::Size),
            ("5\nhello\r\n", ChunkError::LineEnd),
            ("5\r\r\n", ChunkError::LineEnd),
            ("5;a\nhello\r\n", ChunkError::LineEnd),
            ("5;a\0\r\nhello\r\n", ChunkError::LineEnd),
            ("5\r\nhello\n", ChunkError::LineEnd),
            ("5\r\nhelloX\r\n", ChunkError::LineEnd),
            ("5\r\nhello0\r\n\r\n", ChunkError::LineEnd),
            ("5\r\nhello\rX", ChunkError::LineEnd),
            ("0\r\n\n", ChunkError::LineEnd),
            ("0\n\r\n", ChunkError::LineEnd),
            ("0\r\nA: b\n\r\n", ChunkError::LineEnd),
            ("0\r\n\rX", ChunkError::LineEnd),
            ("0\r\nno colon\r\n\r\n", ChunkError::Trailer),
            ("0\r\nA : b\r\n\r\n", ChunkError::Trailer),
            ("0\r\n: b\r\n\r\n", ChunkError::Trailer),
            ("0\r\nA: b\r\n folded\r\n\r\n", ChunkError::Trailer),
            ("0\r\nA: b\0\r\n\r\n", ChunkError::Trailer),
        ] {
            assert_eq!(decode(text.as_bytes()), Err(Some(error)), "{text:?}");
        }
        assert_eq!(decode(b"ffffffffffffffff\r\nx"), Err(None), "as large as it can be");
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = |bytes: usize| format!("0;{}\r\n\r\n", "a".repeat(bytes - 1));
        assert!(decode(long(EXTENSIONS_MAX).as_bytes()).is_ok());
        assert_eq!(decode(long(EXTENSIONS_MAX + 1).as_bytes()), Err(Some(ChunkError::TooMuch)));
        let many = "1;aaaaaaa\r\nx\r\n".repeat(EXTENSIONS_MAX / 8 + 1);
        assert_eq!(decode(many.as_bytes()), Err(Some(ChunkError::TooMuch)));
        let trailer = |bytes: usize| format!("0\r\nA:{}\r\n\r\n", "a".repeat(bytes - 2));
        assert!(decode(trailer(TRAILERS_MAX).as_bytes()).is_ok());
        assert_eq!(decode(trailer(TRAILERS_MAX + 1).as_bytes()), Err(Some(ChunkError::TooMuch)));
        let fields = |count| format!("0\r\n{}\r\n", "A:b\r\n".repeat(count));
        assert!(decode(fields(TRAILER_FIELDS_MAX).as_bytes()).is_ok());
        assert_eq!(decode(fields(TRAILER_FIELDS_MAX + 1).as_bytes()), Err(Some(ChunkError::TooMuch)));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            trailers in 0usize..3,
            broken in proptest::option::of((0usize..200, any::<u8>())),
            cuts in proptest::collection::vec(0usize..400, 0..30),
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x};e\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n");
            text.extend_from_slice("A: b\r\n".repeat(trailers).as_bytes());
            text.extend_from_slice(b"\r\nrest");
            match broken {
                Some((at, byte)) if at < text.len() => text[at] = byte,
                _ => prop_assert_eq!(decode(&text).unwrap().0, chunks.concat()),
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(decode_in(&pieces), decode(&text));
        }

        #[test]
        fn no_bytes_panic(text in "([0-9a-fA-F]{0,3}(;[ -~]{0,3})?\r?\n?[ -~]{0,4}){0,8}") {
            let _ = decode(text.as_bytes());
        }
    }
}
