//! Header fields that go out, in the form in which they go.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use ::http::{HeaderMap, HeaderName, HeaderValue};

/// Field lines, ready for the wire.
///
/// What frames a message and keeps its connection (`Content-Length`, `Transfer-Encoding`, `Connection` and their like)
/// is the session's to say: such a field is not taken, so that no handler can frame a message wrongly. Nor can a value
/// add a line: a control character in it becomes a space.
#[derive(Clone, Default)]
pub struct Fields {
    lines: Vec<u8>,
    /// Fields that the session adds unless they are here.
    pub(in crate::http) has_date: bool,
    pub(in crate::http) has_server: bool,
}

/// What the fields of a file's reply take together: one allocation instead of five.
const FIELDS_BYTES: usize = 192;

/// What the session says.
const RESERVED: [&str; 7] =
    ["content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "upgrade", "te"];

impl Fields {
    /// Adds a field, beside others of this name.
    pub fn add(&mut self, name: impl AsRef<str>, value: impl FieldValue) {
        let name = name.as_ref();
        if !self.takes(name) {
            return;
        }
        if self.lines.is_empty() {
            self.lines.reserve(FIELDS_BYTES);
        }
        self.lines.extend_from_slice(name.as_bytes());
        self.lines.extend_from_slice(b": ");
        let start = self.lines.len();
        value.append_to(&mut self.lines);
        self.end_line(start);
    }

    /// Sets a field: those of this name go.
    pub fn set(&mut self, name: impl AsRef<str>, value: impl FieldValue) {
        self.remove(name.as_ref());
        self.add(name, value);
    }

    /// Takes away all fields of this name.
    pub fn remove(&mut self, name: impl AsRef<str>) {
        let name = name.as_ref();
        if self.get(name).is_none() {
            return;
        }
        let mut kept = Fields::default();
        for (other, value) in self.iter().filter(|(other, _)| !other.eq_ignore_ascii_case(name)) {
            kept.add(other, value);
        }
        *self = kept;
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: impl AsRef<str>) -> Option<&[u8]> {
        let name = name.as_ref();
        self.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Name and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines.split(|&b| b == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = line.iter().position(|&b| b == b':')?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, line.get(colon + 2..)?))
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// As they go on the wire, each line with its end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.lines
    }

    fn takes(&mut self, name: &str) -> bool {
        if !is_token(name.as_bytes()) || is_reserved(name) {
            log::debug!("the field {name:?} is not taken: it is the session's, or no name");
            return false;
        }
        // By length first: most names are neither.
        self.has_date |= name.len() == 4 && name.eq_ignore_ascii_case("date");
        self.has_server |= name.len() == 6 && name.eq_ignore_ascii_case("server");
        true
    }

    fn end_line(&mut self, start: usize) {
        let value = &mut self.lines[start..];
        // Hardly any has one, and to look is cheaper than to write.
        if value.iter().fold(false, |has, byte| has | byte.is_ascii_control()) {
            for byte in value.iter_mut().filter(|byte| byte.is_ascii_control() && **byte != b'\t') {
                *byte = b' ';
            }
        }
        self.lines.extend_from_slice(b"\r\n");
    }

    /// None, in memory that others were in before.
    pub(in crate::http) fn in_memory(mut lines: Vec<u8>) -> Fields {
        lines.clear();
        Fields { lines, ..Fields::default() }
    }

    /// The memory that they are in; they are gone.
    pub(in crate::http) fn take_memory(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }
}

/// By length first: hardly any name is as long as one of these.
fn is_reserved(name: &str) -> bool {
    matches!(name.len(), 2 | 7 | 10 | 14 | 16 | 17)
        && RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// RFC 9110, section 5.6.2.
pub(in crate::http) fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && all_among(name, &TOKEN)
}

const TOKEN: [bool; 256] = letters(b"!#$%&'*+-.^_`|~");

/// Which bytes are letters or digits of ASCII, or one of these.
pub(in crate::http) const fn letters(further: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < further.len() {
        table[further[at] as usize] = true;
        at += 1;
    }
    table
}

/// Whether all of `bytes` are in the table. To look at each costs less than to stop at the first that is not.
pub(in crate::http) fn all_among(bytes: &[u8], table: &[bool; 256]) -> bool {
    bytes.iter().fold(true, |all, &byte| all & table[usize::from(byte)])
}

/// What the value of a field is made from: text, bytes, a number. Anything else that can be shown is one by
/// `format_args!("{it}")`.
pub trait FieldValue {
    /// Appends the value to what goes on the wire. A control character in it will be made a space.
    fn append_to(&self, line: &mut Vec<u8>);
}

impl<V: FieldValue + ?Sized> FieldValue for &V {
    fn append_to(&self, line: &mut Vec<u8>) {
        V::append_to(self, line);
    }
}

/// The formatter of `std` takes longer for a short text than all the rest of its field.
macro_rules! is_bytes {
    ($($value:ty),*) => {$(
        impl FieldValue for $value {
            fn append_to(&self, line: &mut Vec<u8>) {
                let bytes: &[u8] = self.as_ref();
                line.extend_from_slice(bytes);
            }
        }
    )*};
}

is_bytes!(str, String, [u8], Vec<u8>, HeaderValue);

impl FieldValue for Cow<'_, str> {
    fn append_to(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(self.as_bytes());
    }
}

macro_rules! is_shown {
    ($($value:ty),*) => {$(
        impl FieldValue for $value {
            fn append_to(&self, line: &mut Vec<u8>) {
                // Writing to memory does not fail; what a value says of itself is its own affair.
                let _ = write!(Text(line), "{self}");
            }
        }
    )*};
}

is_shown!(fmt::Arguments<'_>, u8, u16, u32, u64, usize, i32, i64);

/// Text that is written goes into bytes.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in map {
            fields.add(name, value);
        }
        fields
    }
}

impl From<&Fields> for HeaderMap {
    fn from(fields: &Fields) -> HeaderMap {
        let pairs = fields.iter().filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
        });
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value);
        }
        map
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)));
        f.debug_map().entries(pairs).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_found_and_removed() {
        let mut fields = Fields::default();
        fields.add(::http::header::ETAG, "\"x\"");
        fields.add("Set-Cookie", "a=1");
        fields.add("set-cookie", "b=2");
        assert_eq!(fields.get("SET-COOKIE"), Some(&b"a=1"[..]));
        fields.set("Set-Cookie", "c=3");
        assert_eq!(fields.as_bytes(), b"etag: \"x\"\r\nSet-Cookie: c=3\r\n");
        fields.remove("etag");
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("Set-Cookie", &b"c=3"[..])]);
        let map = HeaderMap::from(&fields);
        assert_eq!(map["set-cookie"], "c=3");
        assert_eq!(Fields::from(&map).as_bytes(), b"set-cookie: c=3\r\n");
    }

    #[test]
    fn nothing_adds_a_line_or_frames_a_message() {
        let mut fields = Fields::default();
        fields.add("Location", "/a\r\nSet-Cookie: x\0");
        fields.add("X\r\nY", "z");
        fields.add("", "z");
        for name in RESERVED {
            fields.add(name.to_uppercase(), "1");
        }
        assert_eq!(fields.as_bytes(), b"Location: /a  Set-Cookie: x \r\n");
    }
}
