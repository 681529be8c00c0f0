use proptest::prelude::*;

use super::*;

fn table(routes: &[(&str, &str)]) -> Table {
    let mut table = Table::default();
    for (index, (method, pattern)) in routes.iter().enumerate() {
        let method = (*method != "*").then(|| method.parse().unwrap());
        table.add(method, pattern, 0, index).unwrap();
    }
    table
}

fn way(table: &Table, method: &str, path: &str) -> Way {
    table.find(&method.parse().unwrap(), path).unwrap().way
}

#[test]
fn methods() {
    let table =
        table(&[("GET", "/a"), ("POST", "/a"), ("HEAD", "/b"), ("GET", "/b"), ("*", "/c"), ("PUT", "/c")]);
    for (method, path, expected) in [
        ("GET", "/a", Way::Route(0)),
        ("HEAD", "/a", Way::Route(0)),
        ("POST", "/a", Way::Route(1)),
        ("PUT", "/a", Way::NotAllowed(0)),
        ("OPTIONS", "/a", Way::Options(0)),
        ("HEAD", "/b", Way::Route(2)),
        ("GET", "/c", Way::Route(4)),
        ("HEAD", "/c", Way::Route(4)),
        ("OPTIONS", "/c", Way::Route(4)),
        ("PUT", "/c", Way::Route(5)),
        ("BREW", "/c", Way::Route(4)),
        ("GET", "/d", Way::Missing),
        ("OPTIONS", "/d", Way::Missing),
        ("GET", "/a/", Way::Missing),
    ] {
        assert_eq!(way(&table, method, path), expected, "{method} {path}");
    }
    assert_eq!(table.allow(0), "GET, HEAD, OPTIONS, POST");
    assert_eq!(table.allow(1), "GET, HEAD, OPTIONS");
}

#[test]
fn parameters_are_as_they_were_written() {
    let table = table(&[("GET", "/{user}/files/{*rest}"), ("GET", "/a-{n}.txt"), ("GET", "/{{x}}/{y}")]);
    for (path, expected) in [
        ("/ann/files/a/b", &[("user", "ann"), ("rest", "a/b")][..]),
        ("/%C3%BC/files/x%2Fy", &[("user", "%C3%BC"), ("rest", "x%2Fy")]),
        ("/%41nn/files/%7e", &[("user", "Ann"), ("rest", "~")]),
        ("/a-7.txt", &[("n", "7")]),
        ("/{x}/1", &[("y", "1")]),
    ] {
        let parameters = table.find(&Method::GET, path).unwrap().parameters.expect(path);
        assert_eq!(parameters.iter().collect::<Vec<_>>(), expected, "{path}");
        assert_eq!(parameters.get(expected[0].0), Some(expected[0].1));
        assert_eq!(parameters.get("other"), None);
    }
}

#[test]
fn one_path_has_many_spellings() {
    let table = table(&[("GET", "/café"), ("GET", "/a b"), ("GET", "/a~b")]);
    for (path, expected) in [
        ("/caf%C3%A9", Way::Route(0)),
        ("/%63af%c3%a9", Way::Route(0)),
        ("/a~b", Way::Route(2)),
        ("/a%7Eb", Way::Route(2)),
        ("/a%2Fb", Way::Missing),
    ] {
        assert_eq!(way(&table, "GET", path), expected, "{path}");
    }
    for broken in ["/%", "/%4", "/%zz", "/%+1", "/a%00", "/%é"] {
        assert_eq!(table.find(&Method::GET, broken), None, "{broken}");
    }
}

#[test]
fn routes_that_cannot_be() {
    let mut table = table(&[("GET", "/a/{x}"), ("*", "/b")]);
    for (method, pattern, why) in [
        (Some(Method::GET), "/a/{x}", "GET has a route already"),
        (None, "/b", "any method has a route already"),
        (Some(Method::GET), "/a/{y}", "conflict"),
        (Some(Method::GET), "a", "starts with a slash"),
        (Some(Method::GET), "", "starts with a slash"),
        (Some(Method::GET), "/{", ""),
        (Some(Method::GET), "/{*rest}/x", ""),
    ] {
        let error = table.add(method, pattern, 0, 9).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(pattern), "{error}");
    }
    table.add(Some(Method::POST), "/a/{x}", 0, 9).unwrap();
    assert_eq!(way(&table, "POST", "/a/1"), Way::Route(9));
}

#[test]
fn what_is_missing_is_missed_by_the_innermost_group() {
    let mut table = table(&[("GET", "/api/v1/x")]);
    for (group, prefix) in [(1, "/api"), (2, "/api/v1"), (3, "/other"), (4, "/api/v1")] {
        table.add_group(prefix, group);
    }
    for (path, group) in [
        ("/", 0),
        ("/apis", 0),
        ("/api", 1),
        ("/api/v2", 1),
        ("/api/v1", 2),
        ("/api/v1/y/z", 2),
        ("/other/", 3),
        ("", 0),
    ] {
        let found = table.find(&Method::GET, path).unwrap();
        assert_eq!((found.way, found.group), (Way::Missing, group), "{path}");
    }
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Fixed(String),
    One,
    Rest,
}

/// What a path should find, by trying: fixed parts before parameters, and those before the rest.
fn expected<'a>(routes: &[(usize, &'a [Part])], parts: &[&str]) -> Option<usize> {
    let Some((first, others)) = parts.split_first() else {
        return routes.iter().find(|(_, pattern)| pattern.is_empty()).map(|(route, _)| *route);
    };
    let below = |part: &Part| -> Vec<(usize, &'a [Part])> {
        let starts = routes.iter().filter(|(_, pattern)| pattern.first() == Some(part));
        starts.map(|(route, pattern)| (*route, &pattern[1..])).collect()
    };
    let fixed = expected(&below(&Part::Fixed((*first).to_owned())), others);
    let one = || (!first.is_empty()).then(|| expected(&below(&Part::One), others)).flatten();
    let rest = || {
        let found = routes.iter().find(|(_, pattern)| pattern.first() == Some(&Part::Rest));
        found.filter(|_| !parts.join("/").is_empty()).map(|(route, _)| *route)
    };
    fixed.or_else(one).or_else(rest)
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![4 => "[ab]{1,2}".prop_map(Part::Fixed), 2 => Just(Part::One)]
}

fn pattern() -> impl Strategy<Value = Vec<Part>> {
    (proptest::collection::vec(part(), 0..4), any::<bool>()).prop_map(|(mut parts, rest)| {
        if rest || parts.is_empty() {
            parts.push(Part::Rest);
        }
        parts
    })
}

proptest! {
    #[test]
    fn a_route_is_found_as_by_trying(
        patterns in proptest::collection::vec(pattern(), 1..10),
        paths in proptest::collection::vec(proptest::collection::vec("[ab]{0,2}", 1..5), 1..20),
    ) {
        let mut table = Table::default();
        let mut routes: Vec<(usize, &[Part])> = Vec::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let text: String = pattern.iter().map(|part| match part {
                Part::Fixed(text) => format!("/{text}"),
                Part::One => "/{x}".replace('x', &format!("x{}", 0)),
                Part::Rest => "/{*rest}".into(),
            }).collect();
            // Two parameters of one name are refused by nobody; that two ways are one and the same is.
            if table.add(Some(Method::GET), &text, 0, index).is_ok() {
                routes.push((index, pattern));
            }
        }
        for parts in &paths {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let path = format!("/{}", parts.join("/"));
            let way = match expected(&routes, &parts) {
                Some(route) => Way::Route(route),
                None => Way::Missing,
            };
            prop_assert_eq!(table.find(&Method::GET, &path).unwrap().way, way, "{} in {:?}", path, routes);
        }
    }

    #[test]
    fn no_path_is_a_panic(path in "\\PC*|[/%a-f0-9{}*é]{0,30}") {
        let table = table(&[("GET", "/"), ("GET", "/{a}/é{b}"), ("GET", "/x/{*c}"), ("GET", "/{a}")]);
        if let Some(found) = table.find(&Method::GET, &path)
            && let Some(parameters) = found.parameters
        {
            prop_assert!(parameters.iter().count() > 0);
        }
    }
}
