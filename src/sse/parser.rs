//! Reads events from a stream (WHATWG HTML, section 9.2.6).
//!
//! Pure, and fed with bytes as they come: any split of them gives the same events. Each byte is looked at once. Lines and
//! events are bounded, for the server may be anybody.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An event that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The last id that the stream said, with this event or before it; empty: none. Shared by all events of that id: a server
    /// may say a long one once and then send any number of short events.
    pub id: Arc<str>,
    /// Its name; `message` where it has none.
    pub event: String,
    /// Its data, lines separated by LF.
    pub data: String,
}

/// How long a line, and the data of an event, may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParserLimits {
    /// Bytes of one line, without its end.
    pub line_bytes: usize,
    /// Bytes of an event's data.
    pub event_bytes: usize,
}

impl Default for ParserLimits {
    /// 1 MiB and 4 MiB.
    fn default() -> ParserLimits {
        ParserLimits { line_bytes: 1 << 20, event_bytes: 4 << 20 }
    }
}

/// What the server sent goes beyond the [`ParserLimits`]. Nothing more can be made of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLong {
    /// A line, of more than so many bytes.
    Line(usize),
    /// An event, of more than so many bytes.
    Event(usize),
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TooLong::Line(max) => write!(f, "a line of the stream has more than {max} bytes"),
            TooLong::Event(max) => write!(f, "an event has more than {max} bytes of data"),
        }
    }
}

impl std::error::Error for TooLong {}

/// Finds events in what arrives.
///
/// ```
/// use tidegate::sse::Parser;
///
/// let mut parser = Parser::default();
/// let mut messages = Vec::new();
/// for part in ["id: 1\nda", "ta: hel", "lo\n\n: a comment\n"] {
///     parser.feed(part.as_bytes(), |message| messages.push(message))?;
/// }
/// assert_eq!((&*messages[0].id, messages[0].data.as_str()), ("1", "hello"));
/// # Ok::<(), tidegate::sse::TooLong>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Parser {
    limits: ParserLimits,
    /// The line at hand, as far as it came.
    line: Vec<u8>,
    /// How many bytes of a byte order mark at the start were seen; then past it.
    start: Start,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    id: Arc<str>,
    /// The id as it will be once the event at hand is complete.
    next_id: Option<Arc<str>>,
    event: String,
    data: String,
    has_data: bool,
    retry: Option<Duration>,
    failed: Option<TooLong>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Start {
    /// So many bytes of the mark.
    #[default]
    At0,
    At1,
    At2,
    Past,
}

const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

impl Parser {
    /// One with limits of its own.
    pub fn new(limits: ParserLimits) -> Parser {
        Parser { limits, ..Parser::default() }
    }

    /// Has `each` told of each event that is complete now. After an error there is nothing more to be had.
    ///
    /// # Errors
    /// A line or an event is longer than the limits allow.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Message)) -> Result<(), TooLong> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let mut rest = self.skip_mark(bytes);
        while let [first, after @ ..] = rest {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = after;
                continue;
            }
            let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
                self.extend_line(rest)?;
                break;
            };
            self.extend_line(&rest[..end])?;
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            let taken = self.take_line(&line, &mut each);
            self.line = line;
            self.line.clear();
            taken?;
        }
        Ok(())
    }

    /// The last id that the stream said, as of the last event that was complete; empty: none.
    pub fn last_event_id(&self) -> &str {
        &self.id
    }

    /// How long the server wants clients to wait before they connect again; told once, when it has said so.
    pub fn take_retry(&mut self) -> Option<Duration> {
        self.retry.take()
    }

    /// Another stream begins, which goes on after the last id. An event that is not complete is forgotten.
    pub fn restart(&mut self) {
        *self = Parser { limits: self.limits, id: std::mem::take(&mut self.id), ..Parser::default() };
    }

    /// Starts with an id that is known from before.
    pub fn set_last_event_id(&mut self, id: impl Into<String>) {
        self.id = id.into().into();
    }

    fn skip_mark<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while self.start != Start::Past {
            let [first, rest @ ..] = bytes else { return bytes };
            let (at, next) = match self.start {
                Start::At0 => (0, Start::At1),
                Start::At1 => (1, Start::At2),
                _ => (2, Start::Past),
            };
            if *first != BYTE_ORDER_MARK[at] {
                // It was none: what was held back is the beginning of the first line.
                self.line.extend_from_slice(&BYTE_ORDER_MARK[..at]);
                self.start = Start::Past;
                return bytes;
            }
            self.start = next;
            bytes = rest;
        }
        bytes
    }

    fn extend_line(&mut self, part: &[u8]) -> Result<(), TooLong> {
        if part.len() > self.limits.line_bytes.saturating_sub(self.line.len()) {
            return self.fail(TooLong::Line(self.limits.line_bytes));
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn fail(&mut self, error: TooLong) -> Result<(), TooLong> {
        self.failed = Some(error);
        (self.line, self.data) = (Vec::new(), String::new());
        Err(error)
    }

    fn take_line(&mut self, line: &[u8], each: &mut impl FnMut(Message)) -> Result<(), TooLong> {
        if line.is_empty() {
            self.complete(each);
            return Ok(());
        }
        let colon = line.iter().position(|&b| b == b':');
        let (field, value) = match colon {
            Some(0) => return Ok(()),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => return self.add_data(&String::from_utf8_lossy(value)),
            b"event" => self.event = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => self.next_id = Some(String::from_utf8_lossy(value).into()),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let number = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry = number.map(Duration::from_millis).or(self.retry);
            }
            _ => {}
        }
        Ok(())
    }

    fn add_data(&mut self, line: &str) -> Result<(), TooLong> {
        if line.len() + 1 > self.limits.event_bytes.saturating_sub(self.data.len()) {
            return self.fail(TooLong::Event(self.limits.event_bytes));
        }
        if self.has_data {
            self.data.push('\n');
        }
        self.has_data = true;
        self.data.push_str(line);
        Ok(())
    }

    fn complete(&mut self, each: &mut impl FnMut(Message)) {
        if let Some(id) = self.next_id.take() {
            self.id = id;
        }
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        if std::mem::take(&mut self.has_data) {
            let event = if event.is_empty() { String::from("message") } else { event };
            each(Message { id: self.id.clone(), event, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sse::Event;
    use crate::sse::encoded::Encoded;

    type Parsed = (Vec<(String, String, String)>, String, Option<Duration>, Option<TooLong>);

    fn parse(parts: &[&[u8]], limits: ParserLimits) -> Parsed {
        let mut parser = Parser::new(limits);
        let mut messages = Vec::new();
        let mut failed = None;
        for part in parts {
            let fed = parser
                .feed(part, |message| messages.push((message.id.to_string(), message.event, message.data)));
            failed = failed.or(fed.err());
        }
        let retry = parser.take_retry();
        (messages, parser.last_event_id().to_owned(), retry, failed)
    }

    fn messages(text: &[u8]) -> Vec<(String, String, String)> {
        parse(&[text], ParserLimits::default()).0
    }

    fn message(id: &str, event: &str, data: &str) -> (String, String, String) {
        (id.to_owned(), event.to_owned(), data.to_owned())
    }

    /// Any text, and more of what means something to a parser than there would be by chance.
    fn text() -> impl Strategy<Value = String> {
        let special = prop::sample::select(vec![
            '\r', '\n', '\0', ':', ' ', 'i', 'd', '\u{feff}', '\u{2028}', '\u{85}',
        ]);
        prop::collection::vec(prop_oneof![special, any::<char>()], 0..20).prop_map(String::from_iter)
    }

    #[test]
    fn many_events_of_a_long_id_hold_it_once() {
        let mut parser = Parser::default();
        let mut messages = Vec::new();
        parser.feed(format!("id: {}\n\n", "i".repeat(100_000)).as_bytes(), |_| ()).unwrap();
        parser.feed("data\n\n".repeat(10_000).as_bytes(), |message| messages.push(message)).unwrap();
        assert_eq!((messages.len(), messages[0].id.len()), (10_000, 100_000));
        assert!(messages.iter().all(|message| Arc::ptr_eq(&message.id, &messages[0].id)));
    }

    #[test]
    fn what_lines_mean() {
        let plain = |data| vec![message("", "message", data)];
        let cases: [(&[u8], Vec<_>); 17] = [
            (b"data: a\n\n", plain("a")),
            (b"data:a\r\n\r\n", plain("a")),
            (b"data: a\r\r", plain("a")),
            (b"data:  a\n\n", plain(" a")),
            (b"data: a\ndata: b\n\n", plain("a\nb")),
            (b"data\n\n", plain("")),
            (b"data:\ndata:\n\n", plain("\n")),
            (b"event: x\ndata: a\n\ndata: b\n\n", vec![message("", "x", "a"), message("", "message", "b")]),
            (b"event: x\n\ndata: b\n\n", plain("b")),
            (
                b"id: 1\ndata: a\n\ndata: b\n\n",
                vec![message("1", "message", "a"), message("1", "message", "b")],
            ),
            (b"id: 1\n\nid\ndata: a\n\n", plain("a")),
            (b"id: 1\0\ndata: a\n\n", plain("a")),
            (b": comment\n:\nwhat: ever\nDATA: b\ndata: a\n\n", plain("a")),
            (b"\xEF\xBB\xBFdata: a\n\n", plain("a")),
            (b"\xEF\xBB\xBF\xEF\xBB\xBFdata: a\n\n", vec![]),
            (b"data: \xFFa\n\n", plain("\u{FFFD}a")),
            (b"data: a\n", vec![]),
        ];
        for (text, expected) in cases {
            assert_eq!(messages(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn an_id_counts_once_its_event_is_complete_even_without_data() {
        assert_eq!(parse(&[b"id: 7\n"], ParserLimits::default()).1, "");
        assert_eq!(parse(&[b"id: 7\n\n"], ParserLimits::default()).1, "7");
    }

    #[test]
    fn retry_takes_digits_only() {
        let retry = |text: &[u8]| parse(&[text], ParserLimits::default()).2;
        assert_eq!(retry(b"retry: 1500\n"), Some(Duration::from_millis(1_500)));
        for text in [&b"retry: 1.5\n"[..], b"retry: -1\n", b"retry:\n", b"retry: 99999999999999999999999\n"] {
            assert_eq!(retry(text), None);
        }
    }

    #[test]
    fn long_lines_and_events_are_errors() {
        let limits = ParserLimits { line_bytes: 10, event_bytes: 8 };
        let failed = |text: &[u8]| parse(&[text, b"\n\ndata: b\n\n"], limits);
        assert_eq!(failed(b"0123456789").3, None);
        assert_eq!(failed(b"0123456789x").3, Some(TooLong::Line(10)));
        assert_eq!(failed(b"data:1234\ndata:12").3, None);
        let (messages, .., error) = failed(b"data:1234\ndata:1234");
        assert_eq!((messages, error), (vec![], Some(TooLong::Event(8))));
    }

    #[test]
    fn a_stream_that_starts_anew_keeps_the_id_only() {
        let mut parser = Parser::default();
        let mut messages = Vec::new();
        parser.feed(b"id: 4\ndata: a\n\nevent: lost\ndata: lo", |_| ()).unwrap();
        parser.restart();
        parser.feed(b"\xEF\xBB\xBFdata: b\n\n", |message| messages.push(message)).unwrap();
        assert_eq!(messages, [Message { id: "4".into(), event: "message".into(), data: "b".into() }]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "data", "event", "id", "retry", ":", ": ", " ", "\n", "\r", "\r\n", "\n\n", "x", "7", "\u{FEFF}", "é", "\0",
                ]),
                0..60,
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            line_bytes in 4_usize..40,
        ) {
            let text = pieces.concat().into_bytes();
            let limits = ParserLimits { line_bytes, event_bytes: 30 };
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(parse(&parts, limits), parse(&[&text], limits));
        }

        #[test]
        fn what_is_encoded_is_what_is_parsed(
            data in "[a-z:\\r\\n é]{0,40}", name in "[a-z: é\\n]{0,9}", id in "[a-z0-9:\\r]{0,9}",
        ) {
            let event = Event::data(data.clone()).with_name(name).with_id(id);
            let name = event.name().filter(|name| !name.is_empty()).unwrap_or("message");
            let data = data.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(messages(event.to_text().as_bytes()), vec![message(event.id().unwrap(), name, &data)]);
        }

        #[test]
        fn no_text_makes_another_field_or_event(
            data in text(), name in text(), id in text(), comment in text(), retry in 0_u64..100_000,
        ) {
            let event = Event::data(data.clone()).with_name(name).with_id(id).with_comment(comment);
            let event = event.with_retry(Duration::from_millis(retry));
            let encoded = [event.to_text().into_bytes(), Encoded::new(&event).bytes().to_vec()];
            let (name, id) = (event.name().filter(|name| !name.is_empty()).unwrap_or("message"), event.id().unwrap());
            let data = data.replace("\r\n", "\n").replace('\r', "\n");
            for bytes in encoded {
                let stream = [b"data: before\n\n", &bytes[..], b"data: after\n\n"].concat();
                let (messages, last_id, waits, failed) = parse(&[&stream], ParserLimits::default());
                let expected =
                    [message("", "message", "before"), message(id, name, &data), message(id, "message", "after")];
                prop_assert_eq!(messages, expected);
                prop_assert_eq!((last_id.as_str(), waits, failed), (id, Some(Duration::from_millis(retry)), None));
            }
        }

        #[test]
        fn garbage_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            parse(&[&bytes], ParserLimits { line_bytes: 50, event_bytes: 50 });
        }
    }
}
