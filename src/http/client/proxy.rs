//! Which requests go through a proxy. Pure: the environment is an argument.

use std::fmt;
use std::sync::Arc;

use super::past::Past;
use super::url::{self, BadUrl, Scheme, Url};

/// The proxies of a client, and what goes past them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Way,
    https: Way,
    past: Vec<Past>,
}

/// How requests to URLs of a scheme go.
#[derive(Clone, Debug, Default)]
enum Way {
    /// To the server.
    #[default]
    Straight,
    Through(Arc<Proxy>),
    /// Nowhere: a proxy is wanted, and this is none. Without it the request would go where it should not.
    Barred(BadProxy),
}

/// A setting that should name a proxy, and does not. The requests that it is for fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadProxy {
    setting: String,
    why: BadUrl,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// What the Proxy-Authorization field says.
    pub(super) authorization: Option<String>,
}

impl Proxies {
    /// None: every request goes straight to its server.
    pub fn none() -> Proxies {
        Proxies::default()
    }

    /// This one for everything: `[http://][USER:PASSWORD@]HOST[:PORT]`, the port 1080 if none is written, as curl has it. What
    /// may follow, a slash or a path, means nothing.
    ///
    /// # Errors
    /// Where it is something else. Proxies are spoken to in plain HTTP only: not by TLS (`https://`), nor by SOCKS.
    pub fn all(url: &str) -> Result<Proxies, BadUrl> {
        let proxy = Arc::new(Proxy::new(url)?);
        Ok(Proxies { http: Way::Through(proxy.clone()), https: Way::Through(proxy), past: Vec::new() })
    }

    /// Also goes past the proxies: these hosts, separated by commas or blanks, as in `no_proxy`. Each is
    ///
    /// - a name, which stands for all below it, too, with or without a dot or `*.` in front: `example.org`, `.example.org`;
    /// - an address, IPv6 in brackets or not: `127.0.0.1`, `[::1]`;
    /// - a block of addresses: `10.0.0.0/8`, `fd00::/8`;
    /// - `*`, which stands for everything.
    ///
    /// With a port (`example.org:8080`) a name or an address is meant at this port only. Addresses and blocks are for URLs in
    /// which an address is written: no name is looked up for them. What is none of these is logged, and left out.
    #[must_use]
    pub fn except(mut self, hosts: &str) -> Proxies {
        for host in hosts.split([',', ' ', '\t']).filter(|host| !host.is_empty()) {
            match Past::new(host) {
                Ok(past) => self.past.push(past),
                Err(error) => log::warn!("{host:?} goes past no proxy: {error}"),
            }
        }
        self
    }

    /// What the environment says, as curl reads it: `http_proxy`, `https_proxy`, `all_proxy` for those of both that are not
    /// set, and `no_proxy` (see [`Proxies::except`]). Capitals do as well, save for `HTTP_PROXY`: what runs below a web
    /// server would find a request's Proxy field there.
    ///
    /// Where a value is no proxy that can be used (see [`Proxies::all`]), the requests it is for fail
    /// ([`ClientError::BadProxy`](super::ClientError::BadProxy)): they do not go straight to their servers.
    pub fn from_env() -> Proxies {
        Proxies::from_variables(|name| std::env::var(name).ok())
    }

    /// The same, from anywhere.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Proxies {
        let set = |name: String| Some((get(&name).filter(|value| !value.trim().is_empty())?, name));
        let either = |name: &str| set(name.to_owned()).or_else(|| set(name.to_ascii_uppercase()));
        let all = either("all_proxy");
        let proxies = Proxies {
            http: Way::of(set("http_proxy".to_owned()).or_else(|| all.clone())),
            https: Way::of(either("https_proxy").or(all)),
            past: Vec::new(),
        };
        proxies.except(&either("no_proxy").map(|(hosts, _)| hosts).unwrap_or_default())
    }

    /// Through which one a request to this URL goes.
    pub(super) fn of(&self, url: &Url) -> Result<Option<Arc<Proxy>>, BadProxy> {
        let way = match url.scheme() {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        match way {
            Way::Straight => Ok(None),
            _ if self.past.iter().any(|past| past.covers(url)) => Ok(None),
            Way::Through(proxy) => Ok(Some(proxy.clone())),
            Way::Barred(error) => Err(error.clone()),
        }
    }
}

impl Way {
    /// As a variable of this name says, and its value before it.
    fn of(variable: Option<(String, String)>) -> Way {
        let Some((value, setting)) = variable else { return Way::Straight };
        match Proxy::new(&value) {
            Ok(proxy) => Way::Through(Arc::new(proxy)),
            Err(why) => Way::Barred(BadProxy { setting, why }),
        }
    }
}

impl Proxy {
    fn new(text: &str) -> Result<Proxy, BadUrl> {
        /// Where curl finds a proxy whose port is not written.
        const PORT: u16 = 1080;
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => {
                return Err(BadUrl::new(
                    "proxies are spoken to in plain HTTP, not by TLS: write http://HOST:PORT",
                ));
            }
            socks if socks.starts_with("socks") => {
                return Err(BadUrl::new(
                    "SOCKS is not spoken, only HTTP: name an HTTP proxy, http://HOST:PORT",
                ));
            }
            _ => return Err(BadUrl::new("a proxy is written http://HOST:PORT")),
        }
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (user, place) = url::user_and_place(&rest[..end]);
        let (host, port) = url::host_and_port(place)?;
        let authorization = user.map(|(name, password)| basic(&name, &password));
        Ok(Proxy { host, port: port.unwrap_or(PORT), authorization })
    }
}

/// The value of an authorization field (RFC 7617).
pub(super) fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{name}:{password}").as_bytes()))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let number =
            three.iter().fold(0u32, |number, &byte| number << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

impl fmt::Display for BadProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the value: there may be a password in it.
        write!(f, "{}: {}", self.setting, self.why)
    }
}

impl std::error::Error for BadProxy {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.why)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password.
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxy of a URL, or in words why there is none.
    fn of(variables: &[(&str, &str)], url: &str) -> String {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        };
        match Proxies::from_variables(get).of(&url.parse().unwrap()) {
            Ok(None) => "none".to_owned(),
            Ok(Some(proxy)) => format!("{}:{}", proxy.host, proxy.port),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_environment_is_read_as_curl_reads_it() {
        for (variables, url, proxy) in [
            (&[("http_proxy", "http://p:3128")][..], "http://x/", "p:3128"),
            (&[("http_proxy", "p:3128")], "https://x/", "none"),
            (&[("HTTP_PROXY", "p:3128")], "http://x/", "none"),
            (&[("HTTPS_PROXY", "p:3128")], "https://x/", "p:3128"),
            (&[("https_proxy", "p:1"), ("HTTPS_PROXY", "p:2")], "https://x/", "p:1"),
            (&[("all_proxy", "p:3128")], "https://x/", "p:3128"),
            (&[("all_proxy", "p:3128"), ("http_proxy", "q")], "http://x/", "q:1080"),
            (&[("all_proxy", "p:3128"), ("http_proxy", " ")], "http://x/", "p:3128"),
            (&[("http_proxy", "")], "http://x/", "none"),
            (&[("http_proxy", "p:1"), ("no_proxy", "y, .x.org\tz")], "http://a.x.org/", "none"),
            (&[("http_proxy", "p:1"), ("NO_PROXY", "10.0.0.0/8")], "http://10.1.2.3/", "none"),
            (&[("http_proxy", "p:1"), ("no_proxy", "10.0.0.0/99,x")], "http://10.1.2.3/", "p:1"),
            (&[("http_proxy", "p:1"), ("no_proxy", "10.0.0.0/99,x")], "http://x/", "none"),
            (&[("http_proxy", "socks5://p:1"), ("no_proxy", "x")], "http://x/", "none"),
        ] {
            assert_eq!(of(variables, url), proxy, "{variables:?} {url}");
        }
    }

    #[test]
    fn proxies_are_read_as_they_are_written() {
        for (text, read) in [
            ("p", "p:1080"),
            ("p:3128", "p:3128"),
            ("p:3128/", "p:3128"),
            ("P.example:3128/path", "p.example:3128"),
            ("p:3128/path?query:9#x", "p:3128"),
            ("http://p:3128/path:4", "p:3128"),
            ("HTTP://p:80", "p:80"),
            ("http://p", "p:1080"),
            ("http://p:", "p:1080"),
            ("http://u:1@p", "p:1080"),
            ("http://u:pa:ss@p:3128/x@y:7", "p:3128"),
            ("[::1]:3128", "::1:3128"),
            ("http://[::1]/", "::1:1080"),
            (" p:3128 ", "p:3128"),
        ] {
            assert_eq!(of(&[("http_proxy", text)], "http://x/"), read, "{text:?}");
        }
        for (text, words) in [
            ("socks5://p:1080", "SOCKS is not spoken"),
            ("socks5h://u:p@p:1080", "SOCKS is not spoken"),
            ("SOCKS4://p", "SOCKS is not spoken"),
            ("socks4a://p", "SOCKS is not spoken"),
            ("https://p:3128", "not by TLS"),
            ("ftp://p:21", "http://HOST:PORT"),
            ("://p", "http://HOST:PORT"),
            ("http://", "no host"),
            (":3128", "no host"),
            ("p:99999", "number up to 65535"),
            ("p:port", "a colon and a port"),
            ("p:31 28", "a colon and a port"),
            ("a b:3128", "no host name has"),
            ("::1", "a colon and a port"),
            ("[::1", "bracket"),
            ("http://p:1\r\nX: y", "a colon and a port"),
        ] {
            for (name, url) in [("http_proxy", "http://x/"), ("ALL_PROXY", "https://x/")] {
                let said = of(&[(name, text)], url);
                assert!(said.starts_with(&format!("{name}: ")) && said.contains(words), "{text:?}: {said}");
            }
            assert!(Proxies::all(text).unwrap_err().to_string().contains(words), "{text:?}");
        }
    }

    #[test]
    fn passwords_are_said_in_base64_and_never_shown() {
        // RFC 7617, section 2; RFC 4648, section 10.
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
        let proxies = Proxies::all("http://u:secret@p:1").unwrap();
        let proxy = proxies.of(&"http://x/".parse().unwrap()).unwrap().unwrap();
        assert_eq!(proxy.authorization, Some(basic("u", "secret")));
        assert!(!format!("{proxies:?}").contains("secret"));
        assert!(!of(&[("http_proxy", "socks5://u:secret@p")], "http://x/").contains("secret"));
    }
}
