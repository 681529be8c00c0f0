//! Which requests go through a proxy. Pure: the environment is an argument.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::url::{BadUrl, Scheme, Url};

/// The proxies of a client, and what goes past them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Arc<Proxy>>,
    https: Option<Arc<Proxy>>,
    /// Suffixes of names, and addresses; `*` is all.
    past: Vec<String>,
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

    /// This one for everything.
    pub fn all(url: &str) -> Result<Proxies, BadUrl> {
        let proxy = Arc::new(Proxy::new(url)?);
        Ok(Proxies { http: Some(proxy.clone()), https: Some(proxy), past: Vec::new() })
    }

    /// Also goes past the proxies: these hosts and those below them, separated by commas, as in `no_proxy`.
    #[must_use]
    pub fn except(mut self, hosts: &str) -> Proxies {
        let hosts =
            hosts.split([',', ' ']).map(|host| host.trim().trim_start_matches('.').to_ascii_lowercase());
        self.past.extend(hosts.filter(|host| !host.is_empty()));
        self
    }

    /// What the environment says, as curl reads it: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`. Capitals do as
    /// well, save for `HTTP_PROXY`: what runs below a web server would find a request's Proxy field there. A value that
    /// is no URL of a proxy is logged, and left out.
    pub fn from_env() -> Proxies {
        Proxies::from_variables(|name| std::env::var(name).ok())
    }

    /// The same, from anywhere.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Proxies {
        let set = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let either = |name: &str| set(name).or_else(|| set(&name.to_ascii_uppercase()));
        let proxy = |value: Option<String>| {
            let value = value?;
            Proxy::new(&value)
                .map(Arc::new)
                .inspect_err(|error| log::warn!("a proxy is left out: {error}"))
                .ok()
        };
        let all = either("all_proxy");
        let proxies = Proxies {
            http: proxy(set("http_proxy").or_else(|| all.clone())),
            https: proxy(either("https_proxy").or(all)),
            past: Vec::new(),
        };
        proxies.except(&either("no_proxy").unwrap_or_default())
    }

    /// Through which one a request to this URL goes.
    pub(super) fn of(&self, url: &Url) -> Option<Arc<Proxy>> {
        let proxy = match url.scheme() {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        proxy.clone().filter(|_| !self.past.iter().any(|past| goes_past(past, url)))
    }
}

fn goes_past(past: &str, url: &Url) -> bool {
    let host = url.host();
    let (name, port) = match past.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse().ok()),
        _ => (past, None),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']').trim_start_matches('.');
    let of_this_port = port.is_none_or(|port: u16| port == url.port());
    let below = || host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    name == "*" || of_this_port && if host.parse::<IpAddr>().is_ok() { host == name } else { below() }
}

impl Proxy {
    /// `http://[USER:PASSWORD@]HOST[:PORT]`; the scheme may be left out, the port is 1080 then as curl has it.
    fn new(text: &str) -> Result<Proxy, BadUrl> {
        let text = text.trim();
        let url: Url = if text.contains("://") { text.parse()? } else { format!("http://{text}").parse()? };
        if url.scheme() == Scheme::Https {
            return Err(BadUrl::new("a proxy is spoken to in plain HTTP here: write http://"));
        }
        let port_written =
            text.trim_end_matches('/').rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authorization = url.user().map(|(name, password)| basic(name, password));
        let port = if port_written { url.port() } else { 1080 };
        Ok(Proxy { host: url.host().to_owned(), port, authorization })
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

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password.
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        };
        Proxies::from_variables(get).of(&url.parse().unwrap()).map(|proxy| format!("{proxy:?}"))
    }

    #[test]
    fn the_environment_is_read_as_curl_reads_it() {
        let proxy = Some("Proxy(p:3128)".to_owned());
        assert_eq!(of(&[("http_proxy", "http://p:3128")], "http://x/"), proxy);
        assert_eq!(of(&[("http_proxy", "p:3128/")], "http://x/"), proxy);
        assert_eq!(of(&[("http_proxy", "p:3128")], "https://x/"), None);
        assert_eq!(of(&[("HTTP_PROXY", "p:3128")], "http://x/"), None);
        assert_eq!(of(&[("HTTPS_PROXY", "p:3128")], "https://x/"), proxy);
        assert_eq!(of(&[("all_proxy", "p:3128")], "https://x/"), proxy);
        assert_eq!(
            of(&[("all_proxy", "p:3128"), ("http_proxy", "q")], "http://x/"),
            Some("Proxy(q:1080)".into())
        );
        assert_eq!(of(&[("http_proxy", "https://p:3128")], "http://x/"), None);
        assert_eq!(of(&[("http_proxy", "")], "http://x/"), None);
    }

    #[test]
    fn some_hosts_go_past() {
        for (past, url, goes) in [
            ("x.org", "http://x.org/", true),
            ("x.org", "http://a.x.org/", true),
            (".x.org", "http://a.x.org/", true),
            ("x.org", "http://ax.org/", false),
            ("x.org:81", "http://x.org/", false),
            ("y,x.org:81", "http://x.org:81/", true),
            ("*", "http://anything/", true),
            ("127.0.0.1", "http://127.0.0.1:5/", true),
            ("0.0.1", "http://127.0.0.1/", false),
            ("[::1]", "http://[::1]/", true),
            ("::1", "http://[::1]/", true),
            ("", "http://x/", false),
        ] {
            let proxies = Proxies::all("p:1").unwrap().except(past);
            assert_eq!(proxies.of(&url.parse().unwrap()).is_none(), goes, "{past:?} {url}");
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
        assert!(proxies.http.as_ref().unwrap().authorization.is_some());
        assert!(!format!("{proxies:?}").contains("secret"));
    }
}
