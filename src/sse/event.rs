//! One event, and how it goes on the wire (WHATWG HTML, section 9.2.5).
//!
//! Pure. Whatever text it is given, an event stays one event: no value can add a field, a line or another event.

use std::time::Duration;

/// An event to be sent.
///
/// ```
/// use tidegate::sse::Event;
///
/// let event = Event::data("first line\nsecond line").with_name("note").with_id("7");
/// assert_eq!(event.to_text(), "id: 7\nevent: note\ndata: first line\ndata: second line\n\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    id: Option<String>,
    name: Option<String>,
    data: Option<String>,
    comment: Option<String>,
    retry: Option<Duration>,
    key: Option<String>,
}

impl Event {
    /// An event without anything. A client is told of an event only if it has data.
    pub fn new() -> Event {
        Event::default()
    }

    /// An event with this data. CR, LF and CRLF in it each end a line; the client gets them all as LF.
    pub fn data(data: impl Into<String>) -> Event {
        Event { data: Some(data.into()), ..Event::default() }
    }

    /// A comment, which no client's program sees.
    pub fn comment(text: impl Into<String>) -> Event {
        Event { comment: Some(text.into()), ..Event::default() }
    }

    /// Has clients wait so long before they connect again, in whole milliseconds.
    pub fn retry(wait: Duration) -> Event {
        Event { retry: Some(wait), ..Event::default() }
    }

    /// With a name: what a browser's `addEventListener` is told; without one it is `message`. Line ends and NUL in it
    /// become blanks.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Event {
        self.name = Some(one_line(name.into()));
        self
    }

    /// With an id, which the client gives back as `Last-Event-ID` when it connects again. Line ends and NUL in it
    /// become blanks, and blanks around it are taken off, because a header field loses them on the way back. An empty one
    /// has the client forget the one before.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Event {
        self.id = Some(one_line(id.into()).trim().to_owned());
        self
    }

    /// With data.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<String>) -> Event {
        self.data = Some(data.into());
        self
    }

    /// With a comment before it.
    #[must_use]
    pub fn with_comment(mut self, text: impl Into<String>) -> Event {
        self.comment = Some(text.into());
        self
    }

    /// With a time to wait before connecting again.
    #[must_use]
    pub fn with_retry(mut self, wait: Duration) -> Event {
        self.retry = Some(wait);
        self
    }

    /// With a key, which is not sent: where a queue [conflates](crate::sse::Policy::Conflate), a later event of a key takes
    /// the place of an earlier one. Without, its name is its key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Event {
        self.key = Some(key.into());
        self
    }

    /// Its id, as it is sent.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Its name, as it is sent.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What it conflates by.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref().or(self.name.as_deref())
    }

    /// As it goes on the wire.
    pub fn to_text(&self) -> String {
        let mut out = Vec::new();
        if let Some(id) = &self.id {
            append_id(&mut out, id);
        }
        self.append_rest(&mut out);
        // Made of texts and nothing else.
        String::from_utf8(out).unwrap_or_default()
    }

    /// All but the id.
    pub(super) fn append_rest(&self, out: &mut Vec<u8>) {
        let data = self.data.as_deref();
        out.reserve(32 + data.map_or(0, str::len) + self.name.as_ref().map_or(0, String::len));
        if let Some(comment) = &self.comment {
            lines(comment).for_each(|line| append_line(out, b": ", line));
        }
        if let Some(retry) = self.retry {
            append_line(out, b"retry: ", &retry.as_millis().to_string());
        }
        if let Some(name) = &self.name {
            append_line(out, b"event: ", name);
        }
        if let Some(data) = data {
            lines(data).for_each(|line| append_line(out, b"data: ", line));
        }
        out.push(b'\n');
    }
}

/// The line that says an id.
pub(super) fn append_id(out: &mut Vec<u8>, id: &str) {
    append_line(out, b"id: ", id);
}

fn append_line(out: &mut Vec<u8>, field: &[u8], value: &str) {
    out.extend_from_slice(field);
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// The lines of a text, whatever ends them; at least one.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else {
            return rest.take();
        };
        let after = &text[end..];
        let ends = if after.starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&after[ends..]);
        Some(&text[..end])
    })
}

/// An id with NUL is ignored by clients; a line end would be the end of the field.
fn one_line(text: String) -> String {
    match text.contains(['\r', '\n', '\0']) {
        true => text.replace(['\r', '\n', '\0'], " "),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_as_they_go() {
        let ms = Duration::from_millis;
        let cases = [
            (Event::data("x"), "data: x\n\n"),
            (Event::data(""), "data: \n\n"),
            (Event::data("a\nb\rc\r\nd\n"), "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
            (Event::data("\n\r"), "data: \ndata: \ndata: \n\n"),
            (Event::data(" x").with_name("n").with_id("1"), "id: 1\nevent: n\ndata:  x\n\n"),
            (Event::comment("a\nb"), ": a\n: b\n\n"),
            (Event::retry(ms(1_500)), "retry: 1500\n\n"),
            (Event::data("x").with_comment("c").with_retry(ms(2)), ": c\nretry: 2\ndata: x\n\n"),
            (Event::new().with_id(""), "id: \n\n"),
            (Event::new(), "\n"),
        ];
        for (event, text) in cases {
            assert_eq!(event.to_text(), text, "{event:?}");
        }
    }

    #[test]
    fn no_value_adds_a_line() {
        let event = Event::data("x").with_name("a\ndata: evil\n\nb\0c").with_id(" 1\r\nretry: 0\0 ");
        assert_eq!(event.to_text(), "id: 1  retry: 0\nevent: a data: evil  b c\ndata: x\n\n");
        assert_eq!((event.id(), event.name()), (Some("1  retry: 0"), Some("a data: evil  b c")));
    }

    #[test]
    fn the_key_is_the_name_unless_said() {
        assert_eq!(Event::data("x").key(), None);
        assert_eq!(Event::data("x").with_name("price").key(), Some("price"));
        assert_eq!(Event::data("x").with_name("price").with_key("ABC").key(), Some("ABC"));
    }
}
