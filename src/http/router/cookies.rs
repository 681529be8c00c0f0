//! Cookies (RFC 6265), read and set.

use std::fmt;

use cookie::Cookie;

use crate::http::codec::request::Request;
use crate::http::{Reply, header};

/// The cookies of a request.
#[derive(Clone, Copy)]
pub struct Cookies<'a> {
    request: &'a Request,
}

impl<'a> Cookies<'a> {
    pub(super) fn of(request: &'a Request) -> Cookies<'a> {
        Cookies { request }
    }

    /// The value of the first cookie of this name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Name and value of each, as they were sent; what is no cookie is passed over.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let lines =
            self.request.header_all(&header::COOKIE).filter_map(|line| std::str::from_utf8(line).ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.trim(), unquoted(value.trim()))).filter(|(name, _)| !name.is_empty())
    }
}

/// With the feature `router`: cookies.
impl Reply {
    /// Sets a cookie.
    ///
    /// ```
    /// use tidegate::http::Reply;
    /// use tidegate::http::router::Cookie;
    ///
    /// let reply = Reply::text("hello").cookie(Cookie::build(("theme", "dark")).http_only(true).path("/"));
    /// assert_eq!(reply.headers.get("set-cookie"), Some(&b"theme=dark; HttpOnly; Path=/"[..]));
    /// ```
    #[must_use]
    pub fn cookie<'c>(self, cookie: impl Into<Cookie<'c>>) -> Reply {
        self.header("Set-Cookie", format_args!("{}", cookie.into()))
    }

    /// Has the client forget a cookie. Path and domain have to be those it was set with.
    #[must_use]
    pub fn remove_cookie<'c>(self, cookie: impl Into<Cookie<'c>>) -> Reply {
        let mut cookie = cookie.into();
        cookie.make_removal();
        self.cookie(cookie)
    }
}

/// A value may stand in quotes, which are no part of it.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

impl fmt::Debug for Cookies<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the values: they may be secrets.
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::codec::request::{HeadLimits, Parsed, parse};

    #[test]
    fn cookies_are_found_among_what_is_none() {
        let text = "GET / HTTP/1.1\r\nHost: x\r\nCookie: a=1; b=\"2 3\";c; =x; a=4\r\nCookie: d=5=6\r\n\r\n";
        let mut request = Request::default();
        assert!(matches!(parse(text.as_bytes(), &HeadLimits::default(), &mut request), Parsed::Head { .. }));
        let cookies = Cookies::of(&request);
        let all = [("a", "1"), ("b", "2 3"), ("a", "4"), ("d", "5=6")];
        assert_eq!(cookies.iter().collect::<Vec<_>>(), all);
        assert_eq!((cookies.get("a"), cookies.get("c")), (Some("1"), None));
        assert_eq!(format!("{cookies:?}"), r#"["a", "b", "a", "d"]"#);
    }

    #[test]
    fn a_cookie_is_removed_by_one_of_the_past() {
        let reply = Reply::text("").remove_cookie(Cookie::build(("a", "")).path("/x"));
        let field = String::from_utf8(reply.headers.get("set-cookie").unwrap().to_vec()).unwrap();
        assert!(
            field.starts_with("a=; ") && field.contains("Path=/x") && field.contains("Max-Age=0"),
            "{field}"
        );
    }
}
