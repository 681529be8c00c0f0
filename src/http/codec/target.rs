//! From a request target to a path below the root.
//!
//! Pure. The rules, in this order, each applied once:
//!
//! 1. `http://host/path` becomes `/path`; what is after `?` is the query and no part of the path.
//! 2. Percent-escapes are decoded, once: `%252e` is a file name with `%2e` in it, never a dot.
//! 3. The path is split at `/` (a decoded one splits too: no file name has one). Empty parts and `.` go, `..`
//!    takes its parent away and stops at the root.
//! 4. A part that starts with a dot is hidden and not served; only `/.well-known/` is (RFC 8615).
//!
//! What comes out never starts with `/` and has no `..`; opening it below a directory handle is the second lock
//! on the same door.

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// A target that names a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    path: Vec<u8>,
    slash: bool,
    hidden: bool,
    straight: bool,
    query: Option<&'a [u8]>,
}

/// Why a target names none: a line for the error page.
pub type Malformed = &'static str;

impl<'a> Target<'a> {
    /// Reads a request target.
    pub fn parse(target: &'a [u8]) -> Result<Target<'a>, Malformed> {
        let (path, query) = split(target)?;
        let decoded = decode(path)?;
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut slash = true;
        // An escaped slash parts what was written as one.
        let mut straight = slashes(&decoded) == slashes(path);
        for (place, part) in decoded.split(|&b| b == b'/').enumerate() {
            // Empty is only what stands before the first slash and behind the last.
            straight &= !slash || place <= 1;
            slash = matches!(part, b"" | b"." | b"..");
            match part {
                b"" => {}
                b"." => straight = false,
                b".." => {
                    straight = false;
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        let hidden = parts
            .iter()
            .enumerate()
            .any(|(depth, part)| part.starts_with(b".") && !(depth == 0 && *part == b".well-known"));
        Ok(Target { path: parts.join(&b'/'), slash, hidden, straight, query })
    }

    /// The path below the root, decoded, without a slash at either end; empty for the root itself.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Takes a folder at its start away, given decoded and without slashes around it; false where it is not there.
    pub fn strip_folder(&mut self, folder: &[u8]) -> bool {
        if folder.is_empty() {
            return true;
        }
        match self.path.strip_prefix(folder) {
            Some([]) => self.path.clear(),
            Some([b'/', rest @ ..]) => self.path = rest.to_vec(),
            _ => return false,
        }
        true
    }

    /// Whether it was written as a directory, with a slash at its end.
    pub fn names_directory(&self) -> bool {
        self.slash
    }

    /// Whether a part of it starts with a dot.
    pub fn is_hidden(&self) -> bool {
        self.hidden
    }

    /// Whether it was written as the path that it names: no dots, empty parts or escaped slashes were resolved.
    pub fn is_straight(&self) -> bool {
        self.straight
    }

    /// What stands after the `?`, as it came.
    pub fn query(&self) -> Option<&'a [u8]> {
        self.query
    }

    /// Where this directory is: the path with a slash at its end, and the query. It starts with exactly one
    /// slash and a part that is not empty, so no browser can take it for another host.
    pub fn directory_location(&self) -> String {
        let mut location = encode_path(&self.path);
        if !location.ends_with('/') {
            location.push('/');
        }
        if let Some(query) = self.query {
            location.push('?');
            location.extend(percent_encode(query, QUERY));
        }
        location
    }
}

/// The path of a target, and the query after its `?`, both as they were written.
pub fn split(target: &[u8]) -> Result<(&[u8], Option<&[u8]>), Malformed> {
    let (_, target) = split_authority(target)?;
    if target.contains(&b'#') {
        return Err("A fragment (#) is for the browser and cannot stand in a request.");
    }
    match target.iter().position(|&b| b == b'?') {
        Some(at) => Ok((&target[..at], Some(&target[at + 1..]))),
        None => Ok((target, None)),
    }
}

/// The path, encoded, with a slash before it.
pub fn encode_path(path: &[u8]) -> String {
    let mut encoded = String::with_capacity(path.len() + 8);
    encoded.push('/');
    encoded.extend(percent_encode(path, PATH));
    encoded
}

/// One part of a path, encoded; a slash in it too.
pub fn encode_part(part: &[u8]) -> String {
    percent_encode(part, PART).to_string()
}

/// What is encoded in a path: all but the unreserved characters and what cannot mislead a reader.
const PATH: &AsciiSet = &PART.remove(b'/');
const PART: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'+')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// A query comes from the client already encoded; only what cannot stand in a header field is.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\');

/// The host and port that a target names, if it is absolute: `http://host:80/path`.
pub fn authority(target: &[u8]) -> Option<&[u8]> {
    split_authority(target).ok()?.0
}

/// `http://host/path` is for proxies, but every server has to understand it.
fn split_authority(target: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Malformed> {
    if target.first() == Some(&b'/') {
        return Ok((None, target));
    }
    let scheme_end = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(<[u8]>::len)
        .ok_or("The request target has to start with a slash.")?;
    let rest = &target[scheme_end..];
    let path_start = rest.iter().position(|&b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    if path_start == 0 {
        return Err("The request target names no host.");
    }
    // "http://host?q" has an empty path, which is the root: the split at slashes treats both alike.
    let (authority, path) = rest.split_at(path_start);
    Ok((Some(authority), path))
}

const ZERO: Malformed = "The path has a zero byte, which no file name has.";

fn decode(path: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == 0 {
            return Err(ZERO);
        }
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (after.first().and_then(hex), after.get(1).and_then(hex)) else {
            return Err("A percent sign in the path is not followed by two hexadecimal digits.");
        };
        match high << 4 | low {
            0 => return Err(ZERO),
            byte => decoded.push(byte),
        }
        rest = &after[2..];
    }
    Ok(decoded)
}

fn slashes(path: &[u8]) -> usize {
    path.iter().filter(|&&byte| byte == b'/').count()
}

fn hex(digit: &u8) -> Option<u8> {
    char::from(*digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// (target, path, ends in a slash, hidden)
    const TABLE: &[(&str, &str, bool, bool)] = &[
        ("/", "", true, false),
        ("//", "", true, false),
        ("/.", "", true, false),
        ("/..", "", true, false),
        ("/a", "a", false, false),
        ("/a/", "a", true, false),
        ("/a/b.txt", "a/b.txt", false, false),
        ("/a//b", "a/b", false, false),
        ("//a", "a", false, false),
        ("///a///b///", "a/b", true, false),
        ("/a/.", "a", true, false),
        ("/a/./b", "a/b", false, false),
        ("/a/..", "", true, false),
        ("/a/../b", "b", false, false),
        ("/a/b/../..", "", true, false),
        ("/../x", "x", false, false),
        ("/../../../../etc/passwd", "etc/passwd", false, false),
        ("/a/../../../etc/passwd", "etc/passwd", false, false),
        ("/%2e%2e/etc/passwd", "etc/passwd", false, false),
        ("/%2E%2E/%2e%2E/etc/passwd", "etc/passwd", false, false),
        ("/.%2e/etc/passwd", "etc/passwd", false, false),
        ("/%2e./etc/passwd", "etc/passwd", false, false),
        ("/..%2fetc%2fpasswd", "etc/passwd", false, false),
        ("/%2e%2e%2fetc/passwd", "etc/passwd", false, false),
        ("/a/..%2F..%2F..%2Fetc/passwd", "etc/passwd", false, false),
        ("/%2fetc/passwd", "etc/passwd", false, false),
        ("/%2f%2fetc/passwd", "etc/passwd", false, false),
        ("/a%2fb", "a/b", false, false),
        // Decoded once: these name odd files, not parents.
        ("/%252e%252e/etc/passwd", "%2e%2e/etc/passwd", false, false),
        ("/%25", "%", false, false),
        ("/%252f..%252f", "%2f..%2f", false, false),
        // A backslash is a letter of a name here.
        ("/..\\..\\etc\\passwd", "..\\..\\etc\\passwd", false, true),
        ("/..%5c..%5cetc", "..\\..\\etc", false, true),
        ("/a\\..\\b", "a\\..\\b", false, false),
        // Longer dots and overlong UTF-8 are names.
        ("/.../x", ".../x", false, true),
        ("/....//x", "..../x", false, true),
        ("/%20", " ", false, false),
        ("/a%0ab", "a\nb", false, false),
        ("/+x", "+x", false, false),
        ("/;/../x", "x", false, false),
        ("/..;/x", "..;/x", false, true),
        ("/.git/config", ".git/config", false, true),
        ("/a/.env", "a/.env", false, true),
        ("/a/%2eenv", "a/.env", false, true),
        ("/.hidden/../x", "x", false, false),
        ("/.well-known/acme", ".well-known/acme", false, false),
        ("/.well-known", ".well-known", false, false),
        ("/a/.well-known/x", "a/.well-known/x", false, true),
        ("/.well-known/.x", ".well-known/.x", false, true),
        ("/.well-knownx", ".well-knownx", false, true),
        ("/a?b=/../c", "a", false, false),
        ("/a/?", "a", true, false),
        ("/?/x", "", true, false),
        ("http://h/a/b", "a/b", false, false),
        ("HTTP://h:80/a/../b/", "b", true, false),
        ("https://h", "", true, false),
        ("http://h?x", "", true, false),
        ("http://h//etc", "etc", false, false),
        ("http://u@h/a", "a", false, false),
        ("/http://h/a", "http:/h/a", false, false),
    ];

    #[test]
    fn spellings() {
        for &(target, path, slash, hidden) in TABLE {
            let parsed = Target::parse(target.as_bytes()).unwrap_or_else(|why| panic!("{target}: {why}"));
            assert_eq!(String::from_utf8_lossy(parsed.path()), path, "{target}");
            assert_eq!(parsed.names_directory(), slash, "{target}");
            assert_eq!(parsed.is_hidden(), hidden, "{target}");
        }
        let overlong = Target::parse(b"/%c0%ae%c0%ae/x").unwrap();
        assert_eq!(overlong.path(), b"\xc0\xae\xc0\xae/x");
    }

    #[test]
    fn what_is_written_in_a_roundabout_way_is_not_straight() {
        for target in ["/", "/a", "/a/", "/a/b.c", "/%61/b?x=/../", "http://h", "http://h/a", "/a..b/...c/.d"]
        {
            assert!(Target::parse(target.as_bytes()).unwrap().is_straight(), "{target}");
        }
        for target in
            ["//", "//a", "/a//b", "/a//", "/./a", "/a/.", "/a/..", "/x/../a", "/%2e%2e/a", "/a%2fb", "/a%2F"]
        {
            assert!(!Target::parse(target.as_bytes()).unwrap().is_straight(), "{target}");
        }
    }

    #[test]
    fn malformed_ones() {
        for target in [
            "",
            "a",
            "a/b",
            "*",
            "?x",
            "#",
            "host:80",
            "%2f",
            "\\x",
            "/%",
            "/%2",
            "/%zz",
            "/a%2/",
            "/%0",
            "/%00",
            "/a%00.txt",
            "/a\0.txt",
            "/a/%00/..",
            "/#",
            "/a#b",
            "/%g0",
            "/%+1",
            "http://",
            "http:///x",
            "http:/x",
            "ftp://h/x",
        ] {
            assert!(Target::parse(target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn locations_stay_on_this_host() {
        let table = [
            ("/a", "/a/"),
            ("/a?q=1&r=%20", "/a/?q=1&r=%20"),
            ("//evil.example/..", "/"),
            ("//evil.example", "/evil.example/"),
            ("/%2f%2fevil.example", "/evil.example/"),
            ("/\\evil.example", "/%5Cevil.example/"),
            ("/%5c%5cevil.example", "/%5C%5Cevil.example/"),
            ("/%09/evil", "/%09/evil/"),
            ("/a%0d%0aSet-Cookie:x", "/a%0D%0ASet-Cookie%3Ax/"),
            ("/http:%2f%2fevil", "/http%3A/evil/"),
            ("/a?%0d%0a", "/a/?%0d%0a"),
            ("/a b", "/a%20b/"),
            ("/a%ff", "/a%FF/"),
            ("http://evil/a", "/a/"),
        ];
        for (target, location) in table {
            assert_eq!(Target::parse(target.as_bytes()).unwrap().directory_location(), location, "{target}");
        }
        assert_eq!(Target::parse(b"/a?\xff\"<").unwrap().directory_location(), "/a/?%FF%22%3C");
    }

    proptest! {
        #[test]
        fn no_target_escapes(target in "/([./%\\\\a2eEfF50cC?#]|%2e|%2f|\\.\\.|//){0,40}") {
            if let Ok(parsed) = Target::parse(target.as_bytes()) {
                let path = parsed.path();
                prop_assert!(!path.starts_with(b"/") && !path.contains(&0));
                prop_assert!(path.is_empty() || path.split(|&b| b == b'/').all(|part| !matches!(part, b"" | b"." | b"..")));
                let location = parsed.directory_location();
                prop_assert!(location.starts_with('/') && !location.starts_with("//") && !location.starts_with("/\\"));
                prop_assert!(location.bytes().all(|b| b.is_ascii_graphic()));
            }
        }

        #[test]
        fn a_location_names_the_same_directory(target in "/[a-z%25 .+?;:@/]{0,20}") {
            if let Ok(parsed) = Target::parse(target.as_bytes()) {
                let location = parsed.directory_location();
                let again = Target::parse(location.as_bytes()).unwrap();
                prop_assert_eq!(again.path(), parsed.path());
                prop_assert!(again.names_directory());
            }
        }

        #[test]
        fn any_bytes(target in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Target::parse(&target);
        }
    }
}
