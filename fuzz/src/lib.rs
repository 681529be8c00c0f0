//! What each fuzz target does with some bytes, and what must hold whatever they are. Also run by `tests/fuzz.rs`, with the
//! seed corpora and what random changes make of them.

use tidegate::http::Method;
use tidegate::http::codec::dechunk::{ChunkError, Dechunker, Piece};
use tidegate::http::codec::request::{HeadLimits, Parsed, Request, parse};
use tidegate::http::codec::response::{self, Decoder, Fault};
use tidegate::http::codec::target::Target;
use tidegate::sse::{Event, Message, Parser, ParserLimits, TooLong};

/// A request head: where it ends does not depend on what follows, it owns what it tells, and no part of it is one.
pub fn request(data: &[u8]) {
    let limits = HeadLimits::default();
    let mut request = Request::default();
    if let Parsed::Head { consumed } = parse(data, &limits, &mut request) {
        assert!(consumed <= data.len() && request.head_len() <= limits.bytes);
        assert!(request.target().len() <= limits.target && request.header_lines().count() <= limits.fields);
        for (name, value) in request.header_lines() {
            assert!(
                !name.is_empty() && !name.iter().chain(value).any(|byte| matches!(byte, b'\r' | b'\n' | 0))
            );
        }
        let mut again = Request::default();
        assert!(
            matches!(parse(&data[..consumed], &limits, &mut again), Parsed::Head { consumed: same } if same == consumed)
        );
        assert!(matches!(parse(&data[..consumed - 1], &limits, &mut again), Parsed::Partial));
        assert_eq!((request.body_length(), request.keep_alive()), {
            parse(&data[..consumed], &limits, &mut again);
            (again.body_length(), again.keep_alive())
        });
    }
}

/// A response, after a byte that says what was asked: the same comes at once and byte by byte, no more is used than there
/// is, and nothing of what follows its end.
pub fn response(data: &[u8]) {
    let Some((asked, reply)) = data.split_first() else { return };
    let method = if asked % 2 == 0 { Method::GET } else { Method::HEAD };
    let whole = receive(method.clone(), std::iter::once(reply));
    let cut = receive(method, reply.chunks(1));
    if let (Ok(whole), Ok(cut)) = (&whole, &cut) {
        assert_eq!(whole, cut);
        assert!(whole.used <= reply.len() && whole.body.len() <= whole.used);
    }
    // A line is looked at when it is whole, so that what is cut may still be waited for.
    let waits = cut.as_ref().is_ok_and(|cut| !cut.ended);
    assert!(whole.is_ok() == cut.is_ok() || waits, "{whole:?} {cut:?}");
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Received {
    statuses: Vec<u16>,
    body: Vec<u8>,
    used: usize,
    ended: bool,
    until_close: bool,
}

fn receive<'a>(method: Method, pieces: impl Iterator<Item = &'a [u8]>) -> Result<Received, Fault> {
    let (mut decoder, mut received) = (Decoder::new(method, 400), Received::default());
    for mut piece in pieces {
        while !received.ended {
            let (used, what) = decoder.next(piece)?;
            assert!(used <= piece.len());
            (piece, received.used) = (&piece[used..], received.used + used);
            match what {
                response::Piece::Nothing => break,
                response::Piece::Interim(status) => received.statuses.push(status.as_u16()),
                response::Piece::Head(head) => received.statuses.push(head.status.as_u16()),
                response::Piece::Data(data) => received.body.extend_from_slice(data),
                response::Piece::End(_) => received.ended = true,
            }
        }
        assert!(received.ended || piece.is_empty(), "all is used");
    }
    assert!(decoder.has_ended() == received.ended);
    received.until_close = decoder.ends_with_connection();
    Ok(received)
}

/// A chunked body: the same comes out at once and byte by byte, never more than went in.
pub fn chunks(data: &[u8]) {
    let whole = decode(std::iter::once(data));
    assert_eq!(whole, decode(data.chunks(1)));
    assert!(whole.0.len() <= data.len());
}

/// The body, how many bytes were used, and how it ended.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, usize, Result<bool, ChunkError>) {
    let (mut dechunker, mut body, mut used) = (Dechunker::default(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = piece;
        loop {
            match dechunker.next(&mut rest) {
                Ok(Piece::Data(data)) => body.extend_from_slice(data),
                Ok(Piece::More) => break,
                Ok(Piece::End) => {
                    used += piece.len() - rest.len();
                    return (body, used, Ok(true));
                }
                // How far it was read then does not matter.
                Err(error) => return (body, 0, Err(error)),
            }
        }
        used += piece.len();
    }
    (body, used, Ok(false))
}

/// A target that names a path: it stays below the root, and its redirect stays on this host.
pub fn path(data: &[u8]) {
    if let Ok(target) = Target::parse(data) {
        let path = target.path();
        assert!(!path.starts_with(b"/") && !path.contains(&0));
        assert!(
            path.is_empty()
                || path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
        );
        let location = target.directory_location();
        assert!(location.starts_with('/') && !location.starts_with("//") && !location.starts_with("/\\"));
        assert!(location.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

/// A stream of events: the same come at once and byte by byte; encoded again, they are the same events.
pub fn events(data: &[u8]) {
    let whole = messages(std::iter::once(data));
    assert_eq!(whole, messages(data.chunks(1)));
    for message in whole.0 {
        let event = Event::data(message.data.clone()).with_name(message.event.clone());
        let (again, _) = messages(std::iter::once(event.to_text().as_bytes()));
        // A lone NUL in a name becomes a blank, and a name may be longer than a line with its field.
        if let [again] = &again[..] {
            assert_eq!(again.data, message.data);
        }
    }
}

fn messages<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Message>, Option<TooLong>) {
    let mut parser = Parser::new(ParserLimits { line_bytes: 200, event_bytes: 400 });
    let mut messages = Vec::new();
    let mut failed = None;
    for piece in pieces {
        failed = failed.or(parser.feed(piece, |message| messages.push(message)).err());
    }
    (messages, failed)
}
