//! URLs: where a request goes, and where a redirect leads. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// An `http` or `https` URL, read and made canonical: the host in lower case, the path never empty, no fragment. It is shown
/// without the name and the password that may be written in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    host: String,
    port: u16,
    /// Path and query, as they go into the request.
    target: String,
    user: Option<(String, String)>,
}

/// What a URL's server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP over TCP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Why a text is no URL of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl(&'static str);

/// What people write in paths although it has to be escaped.
const LOOSE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl Url {
    /// What its server speaks.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A name in lower case or an address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, that of the scheme if none is written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as a request says them.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The path.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The last part of the path, unescaped; empty where that ends with a slash.
    pub fn file_name(&self) -> String {
        let last = self.path().rsplit('/').next().unwrap_or_default();
        percent_decode_str(last).decode_utf8_lossy().into_owned()
    }

    /// Name and password, where they are written in it.
    pub fn user(&self) -> Option<(&str, &str)> {
        self.user.as_ref().map(|(name, password)| (name.as_str(), password.as_str()))
    }

    /// What the Host field says: the port only where it is not the scheme's (RFC 9110, section 7.2).
    pub fn authority(&self) -> String {
        if self.port == self.scheme.port() { bracketed(&self.host) } else { self.host_and_port() }
    }

    /// Host and port, both always, as CONNECT says them.
    pub(super) fn host_and_port(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }

    /// Whether the other one leads to the same server, by scheme, host and port.
    pub fn same_origin(&self, other: &Url) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// Where a reference in a page of this URL leads (RFC 3986, section 5.2).
    ///
    /// # Errors
    /// It is no URL, or one of a scheme other than `http` and `https`.
    pub fn join(&self, reference: &str) -> Result<Url, BadUrl> {
        let reference = reference.trim();
        let reference = reference.split('#').next().unwrap_or_default();
        let named = reference.find([':', '/', '?']).is_some_and(|at| reference[at..].starts_with(':'));
        if named {
            return reference.parse();
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return format!("{}://{rest}", self.scheme.as_str()).parse();
        }
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (reference, None),
        };
        let target = match path {
            "" if query.is_none() => self.target.clone(),
            "" => self.path().to_owned(),
            absolute if absolute.starts_with('/') => without_dots(absolute),
            relative => {
                let folder = &self.path()[..=self.path().rfind('/').unwrap_or_default()];
                without_dots(&format!("{folder}{relative}"))
            }
        };
        let target = match query {
            Some(query) => format!("{target}?{query}"),
            None => target,
        };
        Ok(Url { target: escaped(&target), user: None, ..self.clone() })
    }

    /// The same, with the other one's name and password where it has none itself.
    pub(super) fn with_user_of(self, other: &Url) -> Url {
        Url { user: self.user.or_else(|| other.user.clone()), ..self }
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Url, BadUrl> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl("a URL starts with http:// or https://"))?;
        let scheme = match () {
            () if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            () if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            () => return Err(BadUrl("only http:// and https:// are known here")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?', '\\']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (user, place) = user_and_place(authority);
        let (host, port) = host_and_port(place)?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Url { scheme, host, port: port.unwrap_or(scheme.port()), target: escaped(&target), user })
    }
}

impl BadUrl {
    pub(super) fn new(why: &'static str) -> BadUrl {
        BadUrl(why)
    }
}

/// Takes name and password, where they are written, off what else stands before the path.
pub(super) fn user_and_place(authority: &str) -> (Option<(String, String)>, &str) {
    let Some((user, place)) = authority.rsplit_once('@') else { return (None, authority) };
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    (Some((plain(name), plain(password))), place)
}

/// Reads `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
pub(super) fn host_and_port(place: &str) -> Result<(String, Option<u16>), BadUrl> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) =
                rest.split_once(']').ok_or(BadUrl("the bracket of the address is not closed"))?;
            if !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
                return Err(BadUrl("only an IPv6 address stands in brackets"));
            }
            (host, port)
        }
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let port = match port.strip_prefix(':') {
        // "http://host:/" is allowed, and means the scheme's.
        Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| BadUrl("a port is a number up to 65535"))?)
        }
        None if port.is_empty() => None,
        _ => return Err(BadUrl("after the host comes a colon and a port, or the path")),
    };
    let sound = |b: u8| b.is_ascii_alphanumeric() || b"-._~:".contains(&b);
    match host {
        "" => Err(BadUrl("there is no host in it")),
        _ if !host.is_ascii() => Err(BadUrl("write the host in its ASCII form (xn--...)")),
        _ if !host.bytes().all(sound) => Err(BadUrl("the host has a character that no host name has")),
        _ => Ok((host.to_ascii_lowercase(), port)),
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn escaped(target: &str) -> String {
    utf8_percent_encode(target, LOOSE).to_string()
}

/// RFC 3986, section 5.2.4, for a path that starts with a slash.
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with("/.") || path.ends_with("/..") {
        clean.push_str(if clean.ends_with('/') { "" } else { "/" });
    }
    clean
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without name and password.
        write!(f, "Url({self})")
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.target)
    }
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadUrl {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_read() {
        for (text, shown, host, port) in [
            ("http://Example.ORG", "http://example.org/", "example.org", 80),
            ("HTTPS://x:443/a?b#c", "https://x/a?b", "x", 443),
            ("http://x:8080?q", "http://x:8080/?q", "x", 8080),
            ("http://[::1]:81/", "http://[::1]:81/", "::1", 81),
            ("http://[::1]", "http://[::1]/", "::1", 80),
            ("http://x:/y", "http://x/y", "x", 80),
            (" http://x/a b/\u{e4} ", "http://x/a%20b/%C3%A4", "x", 80),
            ("http://x/%41%zz", "http://x/%41%zz", "x", 80),
        ] {
            let url: Url = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.to_string().as_str(), url.host(), url.port()), (shown, host, port));
        }
        let url: Url = "http://us%65r:p%40ss@x/dir/a%20b.txt?x".parse().unwrap();
        assert_eq!((url.user(), url.to_string().contains("ss@")), (Some(("user", "p@ss")), false));
        assert_eq!((url.file_name().as_str(), url.path()), ("a b.txt", "/dir/a%20b.txt"));
        for text in [
            "",
            "x",
            "x:80/y",
            "ftp://x/",
            "http://",
            "http:///x",
            "http://x:99999/",
            "http://x:y/",
            "http://[::1/",
            "http://[x]/",
            "http://b\u{fc}cher.example/",
            "http://a b/",
            "http://a\r\nHost: b/",
            "http://1:2:3/",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn references_lead_where_the_standard_says() {
        // RFC 3986, section 5.4.
        let base: Url = "http://a/b/c/d;p?q".parse().unwrap();
        for (reference, target) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/..", "http://a/"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("https://B/x", "https://b/x"),
            ("g?x/../y:z", "http://a/b/c/g?x/../y:z"),
        ] {
            assert_eq!(base.join(reference).unwrap().to_string(), target, "{reference:?}");
        }
        assert!(base.join("mailto:x").is_err() && base.join("javascript:alert(1)").is_err());
    }

    proptest! {
        #[test]
        fn no_text_puts_a_space_or_a_line_into_a_request(text in "[ -~\r\n\t\u{e4}]{0,30}") {
            let base: Url = "http://x/y".parse().unwrap();
            for url in [format!("http://{text}").parse(), base.join(&text)].into_iter().flatten() {
                let said = format!("{}{}", url.target(), url.authority());
                prop_assert!(said.bytes().all(|b| b > b' ' && b < 0x7f), "{said:?}");
                prop_assert!(url.target().starts_with('/'));
            }
        }
    }
}
