//! Which coding a client gets (RFC 9110, section 12.5.3), and for what.
//!
//! Pure: fields in, a choice out.

use crate::http::codec::request::Request;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// What a file in it has at the end of its name.
    pub fn extension(self) -> &'static str {
        match self {
            Coding::Zstd => ".zst",
            Coding::Brotli => ".br",
            Coding::Gzip => ".gz",
        }
    }

    /// As fields name it.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
}

/// The first wins among those that the client likes alike: the one that takes least time for what it saves.
const PREFERRED: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

/// What the client likes better than the body as it is, best first. Where it is said to take neither that nor any of ours,
/// it gets the body as it is all the same: better than none.
pub fn accepted(request: &Request) -> impl Iterator<Item = Coding> {
    let fields: Vec<&[u8]> = request.header_all("accept-encoding").collect();
    let least = identity(&fields).max(1);
    let mut liked = PREFERRED.map(|coding| (coding, weight(&fields, coding.name())));
    // Stable: of those with one weight, the first stays first.
    liked.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    liked.into_iter().filter(move |(_, weight)| *weight >= least).map(|(coding, _)| coding)
}

/// Thousandths, as the grammar has three digits. A coding that is not named is what the star says, or refused.
fn weight(fields: &[&[u8]], coding: &str) -> u16 {
    let gzip = coding == "gzip";
    let named = find(fields, |name| {
        name.eq_ignore_ascii_case(coding.as_bytes()) || gzip && name.eq_ignore_ascii_case(b"x-gzip")
    });
    named.or_else(|| find(fields, |name| name == b"*")).unwrap_or(0)
}

/// The body as it is is taken, if need be, unless that is refused.
fn identity(fields: &[&[u8]]) -> u16 {
    find(fields, |name| name.eq_ignore_ascii_case(b"identity")).unwrap_or(0)
}

fn find(fields: &[&[u8]], is_it: impl Fn(&[u8]) -> bool) -> Option<u16> {
    let items = fields.iter().flat_map(|list| list.split(|&b| b == b','));
    items.map(parted).find(|(name, _)| is_it(name)).map(|(_, weight)| weight)
}

fn parted(item: &[u8]) -> (&[u8], u16) {
    let mut parts = item.split(|&b| b == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| match part {
        [b'q' | b'Q', rest @ ..] => Some(thousandths(rest.trim_ascii_start().strip_prefix(b"=")?)),
        _ => None,
    });
    (name, weight.unwrap_or(1_000))
}

/// A weight that is none counts as nothing: the client did not say that it takes this.
fn thousandths(text: &[u8]) -> u16 {
    let (whole, digits) = match text.trim_ascii() {
        [whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (*whole, digits),
        _ => return 0,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let part = (0..3).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| u16::from(digit - b'0')));
    (u16::from(whole - b'0') * 1_000 + part).min(1_000)
}

/// Whether bodies of a media type get smaller. What is packed already does not, and what is not known is left alone.
pub fn gets_smaller(media: &[u8]) -> bool {
    let media = media.split(|&b| b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let Ok(media) = std::str::from_utf8(&media) else { return false };
    const TYPES: [&str; 18] = [
        "application/javascript",
        "application/json",
        "application/manifest+json",
        "application/rtf",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-sh",
        "application/x-tar",
        "application/xml",
        "application/yaml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/svg+xml",
        "image/vnd.microsoft.icon",
        "image/x-icon",
    ];
    media.starts_with("text/")
        || media.ends_with("+json")
        || media.ends_with("+xml")
        || TYPES.contains(&media)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::codec::request::{HeadLimits, Parsed, parse};

    fn chosen(said: &str) -> Option<Coding> {
        let lines: String = said.split('|').map(|value| format!("Accept-Encoding: {value}\r\n")).collect();
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let mut request = Request::default();
        assert!(matches!(parse(text.as_bytes(), &HeadLimits::default(), &mut request), Parsed::Head { .. }));
        accepted(&request).next()
    }

    #[test]
    fn choices() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accepted, expected) in [
            ("", None),
            ("gzip", Some(Gzip)),
            ("GZip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("deflate", None),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Brotli)),
            ("gzip|br", Some(Brotli)),
            ("*", Some(Zstd)),
            ("zstd;q=0, *", Some(Brotli)),
            ("zstd;q=0,br;q=0,*;q=0.1", Some(Gzip)),
            ("gzip;q=1.0, br;q=0.9", Some(Gzip)),
            ("gzip;q=0.001, br;q=0", Some(Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.000", None),
            ("gzip ; Q = 0.5 , br ; q=0.4", Some(Gzip)),
            ("identity", None),
            ("identity, gzip", Some(Gzip)),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=1", Some(Gzip)),
            ("identity;q=0", None),
            ("identity;q=0, *;q=0", None),
            ("gzip;q=2, br;q=0.1", Some(Brotli)),
            ("gzip;q=0.1234", None),
            ("gzip;q=-1", None),
            ("gzip;level=9;q=0.5", Some(Gzip)),
            ("gzip;q=1.9", Some(Gzip)),
        ] {
            assert_eq!(chosen(accepted), expected, "{accepted}");
        }
    }

    #[test]
    fn types() {
        for media in [
            "text/html; charset=utf-8",
            "TEXT/CSS",
            "application/json",
            "application/ld+json",
            "image/svg+xml",
            "application/wasm",
        ] {
            assert!(gets_smaller(media.as_bytes()), "{media}");
        }
        for media in [
            "",
            "image/png",
            "video/mp4",
            "application/zip",
            "application/octet-stream",
            "font/woff2",
            "textual",
        ] {
            assert!(!gets_smaller(media.as_bytes()), "{media}");
        }
    }

    proptest! {
        #[test]
        fn no_field_is_a_panic_and_none_that_is_refused_is_chosen(accepted in "[gzipbrstd*;,=q01. ]{0,40}") {
            let chosen = chosen(&accepted);
            let named = accepted.split(',').any(|item| item.trim_start().starts_with(chosen.map_or("", Coding::name)));
            prop_assert!(chosen.is_none() || named || accepted.contains('*'), "{}", accepted);
        }
    }
}
