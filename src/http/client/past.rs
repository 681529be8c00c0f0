//! Which hosts are asked without a proxy: what `no_proxy` says. Pure.
//!
//! curl and Go read it a little differently; what both understand means here what it means there.

use std::net::IpAddr;

use super::url::{BadUrl, Url};

/// Hosts that are asked without a proxy: one entry of `no_proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// `*`: every one.
    All,
    /// A name, and all below it.
    Name(String, Option<u16>),
    Address(IpAddr, Option<u16>),
    /// The addresses that begin with the same so many bits.
    Block(IpAddr, u8),
}

impl Past {
    /// Reads `NAME`, `.NAME`, `*.NAME`, `ADDRESS`, `ADDRESS/BITS` or `*`. All but a block and `*` may have a port.
    pub(super) fn new(entry: &str) -> Result<Past, BadUrl> {
        if entry == "*" {
            return Ok(Past::All);
        }
        if let Some((address, bits)) = entry.split_once('/') {
            return block(address, bits);
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let port = port.parse().map_err(|_| BadUrl::new("a port is a number up to 65535"))?;
                (host, Some(port))
            }
            _ => (entry, None),
        };
        if let Ok(address) = without_brackets(host).parse::<IpAddr>() {
            return Ok(Past::Address(address.to_canonical(), port));
        }
        let name = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let name = name.trim_start_matches('.').trim_end_matches('.');
        let sound = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        if name.is_empty() || !name.bytes().all(sound) {
            return Err(BadUrl::new("it is no name, address, block of addresses (10.0.0.0/8) or *"));
        }
        Ok(Past::Name(name.to_ascii_lowercase(), port))
    }

    /// Whether the server of this URL is one of them.
    pub(super) fn covers(&self, url: &Url) -> bool {
        let host = url.host().trim_end_matches('.');
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let of_port = |port: &Option<u16>| port.is_none_or(|port| port == url.port());
        match self {
            Past::All => true,
            Past::Name(name, port) => {
                let below = host.strip_suffix(name.as_str());
                let named = below.is_some_and(|below| below.is_empty() || below.ends_with('.'));
                address.is_none() && named && of_port(port)
            }
            Past::Address(one, port) => address == Some(*one) && of_port(port),
            Past::Block(network, bits) => address.is_some_and(|address| is_within(address, *network, *bits)),
        }
    }
}

fn block(address: &str, bits: &str) -> Result<Past, BadUrl> {
    let network: IpAddr =
        without_brackets(address).parse().map_err(|_| BadUrl::new("before the slash stands an address"))?;
    let most = if network.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse().ok().filter(|bits| *bits <= most);
    let bits =
        bits.ok_or(BadUrl::new("after the slash stands how many bits are the same: up to 32, or 128"))?;
    Ok(Past::Block(network, bits))
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    // How far the first bit that differs is from the front.
    let same = match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return false,
    };
    same >= u32::from(bits)
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_cover_what_curl_and_go_have_them_cover() {
        for (entry, covered, others) in [
            (
                "x.org",
                &["http://x.org/", "http://a.x.org/", "http://X.org./"][..],
                &["http://ax.org/", "http://x.org.uk/"][..],
            ),
            ("X.ORG.", &["http://x.org/"], &["http://org/"]),
            (".x.org", &["http://a.x.org/", "http://x.org/"], &["http://ax.org/"]),
            ("*.x.org", &["http://a.x.org/", "https://x.org/"], &["http://ax.org/"]),
            (
                "x.org:81",
                &["http://x.org:81/", "http://a.x.org:81/"],
                &["http://x.org/", "http://x.org:8181/"],
            ),
            ("x.org:443", &["https://x.org/"], &["http://x.org/"]),
            ("localhost", &["http://localhost:8080/"], &["http://127.0.0.1/"]),
            ("*", &["http://anything/", "http://127.0.0.1/", "http://[::1]/"], &[]),
            (
                "127.0.0.1",
                &["http://127.0.0.1:5/", "http://[::ffff:127.0.0.1]/"],
                &["http://1.127.0.0.1/", "http://127.0.0.2/"],
            ),
            ("127.0.0.1:5", &["http://127.0.0.1:5/"], &["http://127.0.0.1/"]),
            // No name is below an address, and no address below a name.
            ("0.0.1", &[], &["http://127.0.0.1/"]),
            ("[::1]", &["http://[::1]/", "http://[0:0:0:0:0:0:0:1]:9/"], &["http://[::2]/"]),
            ("::1", &["http://[::1]/"], &["http://[::2]/"]),
            ("[::1]:81", &["http://[::1]:81/"], &["http://[::1]/"]),
            (
                "10.0.0.0/8",
                &["http://10.0.0.1/", "http://10.255.255.255:9/"],
                &["http://11.0.0.0/", "http://9.255.255.255/", "http://ten/"],
            ),
            ("10.1.2.3/8", &["http://10.9.9.9/"], &["http://11.0.0.0/"]),
            ("192.168.4.0/22", &["http://192.168.7.255/"], &["http://192.168.8.0/", "http://192.168.3.255/"]),
            ("1.2.3.4/32", &["http://1.2.3.4/"], &["http://1.2.3.5/"]),
            ("0.0.0.0/0", &["http://1.2.3.4/"], &["http://[::1]/", "http://name/"]),
            ("fd00::/8", &["http://[fd12:3456::1]/"], &["http://[fc00::1]/", "http://10.0.0.1/"]),
            ("[fd00::]/8", &["http://[fd12::1]/"], &["http://[fe00::1]/"]),
            ("::1/128", &["http://[::1]/"], &["http://[::2]/"]),
        ] {
            let past = Past::new(entry).unwrap_or_else(|error| panic!("{entry}: {error}"));
            for (urls, covers) in [(covered, true), (others, false)] {
                for url in urls {
                    assert_eq!(past.covers(&url.parse().unwrap()), covers, "{entry} {url}");
                }
            }
        }
    }

    #[test]
    fn what_is_none_of_these_is_refused() {
        for entry in [
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/x",
            "10.0.0.0/",
            "10.0/8",
            "x.org/8",
            "::1/129",
            "10.0.0.0/8:80",
            "x.org:",
            "x.org:99999",
            "x.org:http",
            "[::1]:x",
            "*x",
            "a.*.b",
            "**",
            ".",
            "",
            "a b",
            "x@y",
        ] {
            assert!(Past::new(entry).is_err(), "{entry:?}: {:?}", Past::new(entry));
        }
    }

    proptest! {
        #[test]
        fn a_block_covers_what_begins_with_its_bits(network: [u8; 4], address: [u8; 4], bits in 0u8..=32) {
            let past = Past::new(&format!("{}/{bits}", IpAddr::from(network))).unwrap();
            let url = format!("http://{}/", IpAddr::from(address)).parse().unwrap();
            let front = |bytes: [u8; 4]| {
                let bits_of = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
                bits_of.take(usize::from(bits)).collect::<Vec<_>>()
            };
            prop_assert_eq!(past.covers(&url), front(network) == front(address));
        }

        #[test]
        fn no_entry_panics(entry in "[ -~\u{e4}]{0,20}") {
            if let Ok(past) = Past::new(&entry) {
                past.covers(&"http://x/".parse().unwrap());
            }
        }
    }
}
