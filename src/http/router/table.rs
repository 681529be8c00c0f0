//! Which route a request takes.
//!
//! Pure: paths and methods in, numbers of routes and groups out. A request pays one look-up in one trie, whatever its
//! method; who asks for what is not here pays one more, for the group whose pages it gets.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::http::Method;

/// The paths, and what is behind them.
#[derive(Default)]
pub(super) struct Table {
    trie: matchit::Router<usize>,
    places: Vec<Place>,
    by_pattern: HashMap<String, usize>,
    /// Prefix and number of each group; what is asked for below it, and is not there, is the group's.
    groups: Vec<(String, usize)>,
}

/// A path, and what its methods do.
struct Place {
    group: usize,
    names: Arc<[Box<str>]>,
    methods: Vec<(Method, usize)>,
    /// For any method that has no route of its own.
    any: Option<usize>,
    allow: String,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) group: usize,
    pub(super) way: Way,
    pub(super) parameters: Option<Box<Parameters>>,
}

/// Where it goes from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To this route.
    Route(usize),
    /// The path is there: it is asked what may be done with it.
    Options(usize),
    /// The path is there, but not for this method.
    NotAllowed(usize),
    /// Nowhere.
    Missing,
}

/// The parameters of a path, still as they were written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    path: Box<str>,
    values: Vec<Range<u32>>,
    names: Arc<[Box<str>]>,
}

/// Why a route cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    pattern: String,
    why: String,
}

impl RouteError {
    pub(super) fn new(pattern: String, why: impl Into<String>) -> RouteError {
        RouteError { pattern, why: why.into() }
    }
}

impl Table {
    /// Adds a route; `None` is every method that has no other.
    pub(super) fn add(
        &mut self,
        method: Option<Method>,
        pattern: &str,
        group: usize,
        route: usize,
    ) -> Result<(), RouteError> {
        let fail = |why: String| RouteError::new(pattern.to_owned(), why);
        if !pattern.starts_with('/') {
            return Err(fail("a path starts with a slash".into()));
        }
        let pattern = &written(pattern);
        let index = match self.by_pattern.get(pattern) {
            Some(index) => *index,
            None => {
                let index = self.places.len();
                self.trie.insert(pattern.clone(), index).map_err(|error| fail(error.to_string()))?;
                let names = names(pattern);
                let (methods, any, allow) = (Vec::new(), None, String::new());
                self.places.push(Place { group, names, methods, any, allow });
                self.by_pattern.insert(pattern.clone(), index);
                index
            }
        };
        let place = &mut self.places[index];
        let taken = match &method {
            Some(method) => place.methods.iter().any(|(other, _)| other == method),
            None => place.any.is_some(),
        };
        if taken {
            let method = method.as_ref().map_or("any method", Method::as_str);
            return Err(fail(format!("{method} has a route already")));
        }
        match method {
            Some(method) => place.methods.push((method, route)),
            None => place.any = Some(route),
        }
        place.allow = place.allowed();
        Ok(())
    }

    /// Adds a group.
    pub(super) fn add_group(&mut self, prefix: &str, group: usize) {
        self.groups.push((written(prefix), group));
    }

    /// The way of a request. Of a path with escapes those are undone that need not be there (RFC 3986, section 6.2.2.2);
    /// `None`: one of them is broken.
    pub(super) fn find(&self, method: &Method, path: &str) -> Option<Found> {
        if !path.contains('%') {
            return Some(self.find_plain(method, path));
        }
        Some(self.find_plain(method, &without_needless_escapes(path)?))
    }

    fn find_plain(&self, method: &Method, path: &str) -> Found {
        let Ok(matched) = self.trie.at(path) else {
            return Found { group: self.group_of(path), way: Way::Missing, parameters: None };
        };
        let index = *matched.value;
        let place = &self.places[index];
        let way = match place.route(method) {
            Some(route) => Way::Route(route),
            None if *method == Method::OPTIONS => Way::Options(index),
            None => Way::NotAllowed(index),
        };
        let parameters = (!matched.params.is_empty()).then(|| {
            let start = path.as_ptr() as usize;
            let span = |value: &str| {
                // A value is a part of the path, and a path is at most 8 KiB long.
                let from = (value.as_ptr() as usize - start) as u32;
                from..from + value.len() as u32
            };
            let values = matched.params.iter().map(|(_, value)| span(value)).collect();
            Box::new(Parameters { path: path.into(), values, names: place.names.clone() })
        });
        Found { group: place.group, way, parameters }
    }

    /// What the methods of a path are, for the Allow field.
    pub(super) fn allow(&self, place: usize) -> &str {
        &self.places[place].allow
    }

    /// The innermost group that a path lies in.
    fn group_of(&self, path: &str) -> usize {
        let inside = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let groups = self.groups.iter().filter(|(prefix, _)| inside(prefix));
        // Of groups with one prefix, the first.
        groups.rev().max_by_key(|(prefix, _)| prefix.len()).map_or(0, |(_, group)| *group)
    }
}

impl Place {
    fn route(&self, method: &Method) -> Option<usize> {
        let of =
            |method: &Method| self.methods.iter().find(|(other, _)| other == method).map(|(_, route)| *route);
        of(method).or_else(|| (*method == Method::HEAD).then(|| of(&Method::GET)).flatten()).or(self.any)
    }

    fn allowed(&self) -> String {
        let mut names: Vec<&str> = self.methods.iter().map(|(method, _)| method.as_str()).collect();
        names.extend([("HEAD", self.route(&Method::HEAD)), ("OPTIONS", Some(0))].iter().filter_map(
            |(name, there)| {
                there.filter(|_| !self.methods.iter().any(|(m, _)| m.as_str() == *name)).map(|_| *name)
            },
        ));
        names.sort_unstable();
        names.join(", ")
    }
}

impl Parameters {
    /// A parameter as it was written.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.values.iter().map(|span| &self.path[span.start as usize..span.end as usize]);
        self.names.iter().map(|name| &**name).zip(values)
    }
}

/// The names of the parameters of a pattern, in order.
fn names(pattern: &str) -> Arc<[Box<str>]> {
    let mut names = Vec::new();
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        rest = &rest[open + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            rest = after;
            continue;
        }
        let Some(close) = rest.find('}') else { break };
        names.push(rest[..close].trim_start_matches('*').into());
        rest = &rest[close + 1..];
    }
    names.into()
}

/// A pattern as a client writes it: what is not ASCII is escaped.
fn written(pattern: &str) -> String {
    let mut written = String::with_capacity(pattern.len());
    for character in pattern.chars() {
        if character.is_ascii() {
            written.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                push_escape(&mut written, byte);
            }
        }
    }
    written
}

/// Escapes of what needs none are undone, others written in one way. `None`: one is broken.
fn without_needless_escapes(path: &str) -> Option<String> {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))?;
        match u8::from_str_radix(digits, 16).ok()? {
            0 => return None,
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => plain.push(char::from(byte)),
            byte => push_escape(&mut plain, byte),
        }
        rest = &rest[at + 3..];
    }
    plain.push_str(rest);
    Some(plain)
}

fn push_escape(text: &mut String, byte: u8) {
    text.push('%');
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no route {:?}: {}", self.pattern, self.why)
    }
}

impl std::error::Error for RouteError {}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
