//! `tidegate fetch` as a person runs it, against our own server, nginx, and servers that break off.

mod client_support;
mod fetch_support;
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use client_support::{ok, server};
use fetch_support::{Fetch, code, said};
use support::{Nginx, Serve};
use tidegate_meter::scratch::{make_file, pattern};

#[test]
fn files_come_whole_and_are_told_of() {
    let serve = Serve::start(&[]);
    serve.file("a.bin", 3_000_000);
    serve.file("b.bin", 10);
    let fetch = Fetch::new();
    let output = fetch.run(&[&serve.url("/a.bin"), &serve.url("/b.bin"), &serve.url("/b.bin")]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(fetch.holds("a.bin", &pattern(0, 3_000_000)));
    assert_eq!(fetch.names(), ["a.bin", "b.bin", "b.bin.1"]);
    let text = said(&output);
    assert!(text.contains("3.00 MB in a.bin") && text.contains("first byte"), "{text}");
    assert!(!text.contains('\x1b'), "no bar where there is no terminal");

    let (code, lines) = fetch.json(&[&serve.url("/a.bin"), "-o", "into/"]);
    assert_eq!((code, lines.len()), (0, 1));
    let line = &lines[0];
    assert_eq!(
        (&line["ok"], &line["bytes"], &line["status"]),
        (&true.into(), &3_000_000.into(), &200.into())
    );
    assert_eq!((&line["resp_body_bytes"], &line["file"]), (&3_000_000.into(), &"into/a.bin".into()));
    let us = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"));
    assert!(us("ttfb_us") + us("transfer_us") <= us("total_us") + 1 && us("connect_us") <= us("total_us"));
    assert!(
        line.get("dns_us").is_none() && line.get("tls_us").is_none(),
        "what did not happen is absent: {line}"
    );
}

#[test]
fn bytes_go_to_stdout() {
    let serve = Serve::start(&[]);
    serve.file("a", 500_000);
    let output = Fetch::new().run(&[&serve.url("/a"), "-o", "-"]);
    assert_eq!(code(&output), 0);
    assert!(output.stdout == pattern(0, 500_000));
    assert!(said(&output).contains("500 kB in -"));
    let quiet = Fetch::new().run(&[&serve.url("/a"), "-o", "-", "-q"]);
    assert!(quiet.stderr.is_empty());
}

#[test]
fn rates_are_kept_by_each_and_by_all() {
    let serve = Serve::start(&[]);
    serve.file("a", 1_000_000);
    let fetch = Fetch::new();
    let timed = |arguments: &[&str]| {
        let began = Instant::now();
        let (code, lines) = fetch.json(arguments);
        assert_eq!(code, 0, "{lines:?}");
        (began.elapsed().as_secs_f64(), lines)
    };
    let url = serve.url("/a");
    let (took, lines) = timed(&[&url, "--rate", "1MB"]);
    assert!((0.85..2.0).contains(&took), "{took}");
    assert!(lines[0]["read_throttled_us"].as_u64().unwrap() > 500_000);
    let (took, _) = timed(&[&url, &url, &url, "--rate", "1MB", "--total-rate", "2MB"]);
    assert!((1.27..2.5).contains(&took), "{took}");
    assert!(fetch.holds("a.2", &pattern(0, 1_000_000)));
}

#[test]
fn a_file_that_changed_is_fetched_from_the_start() {
    let nginx = Nginx::start("", "");
    make_file(&nginx.root().join("a"), 100_000).unwrap();
    let fetch = Fetch::new();
    let url = nginx.url("/a");
    for (note, resumed) in [
        (
            format!(
                "{{\"url\":\"{url}\",\"total\":100000,\"etag\":\"\\\"other\\\"\",\"last_modified\":null}}"
            ),
            0,
        ),
        // Nothing but the size tells: it is the same, and then it is not.
        (format!("{{\"url\":\"{url}\",\"total\":100000,\"etag\":null,\"last_modified\":null}}"), 1_000),
        (format!("{{\"url\":\"{url}\",\"total\":99999,\"etag\":null,\"last_modified\":null}}"), 0),
        ("{\"url\":\"http://other/\",\"total\":100000,\"etag\":null,\"last_modified\":null}".to_owned(), 0),
        ("broken".to_owned(), 0),
    ] {
        std::fs::write(fetch.path("a.part"), pattern(0, 1_000)).unwrap();
        std::fs::write(fetch.path("a.part.json"), &note).unwrap();
        let (code, lines) = fetch.json(&[&url, "--resume"]);
        assert_eq!((code, lines[0]["resumed_from"].as_u64()), (0, Some(resumed)), "{note}");
        assert!(fetch.holds("a", &pattern(0, 100_000)), "{note}");
        std::fs::remove_file(fetch.path("a")).unwrap();
    }
}

#[test]
fn a_transfer_that_breaks_goes_on_by_itself() {
    let body = pattern(0, 300_000);
    let whole = body.clone();
    let server = server(move |number, caller| {
        let Some(head) = caller.request() else { return };
        let from = head.to_lowercase().lines().find_map(|line| {
            line.strip_prefix("range: bytes=")
                .and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok())
        });
        assert_eq!(from.is_some(), number > 0, "{head}");
        let from = from.unwrap_or(0);
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let rest = &whole[from..];
        let range = format!("Content-Range: bytes {from}-{}/{}\r\n", whole.len() - 1, whole.len());
        let range = if from > 0 { range } else { String::new() };
        caller.say(format!(
            "HTTP/1.1 {status}\r\nETag: \"x\"\r\n{range}Content-Length: {}\r\n\r\n",
            rest.len()
        ));
        caller.say(if number < 2 { &rest[..rest.len() / 2] } else { rest });
    });
    let fetch = Fetch::new();
    let (code, lines) = fetch.json(&[&server.url("/a"), "--retry", "2"]);
    assert_eq!((code, lines[0]["resumed_from"].as_u64()), (0, Some(225_000)), "{lines:?}");
    assert!(fetch.holds("a", &body) && server.callers() == 3);
}

#[test]
fn files_are_sent() {
    let nginx = Nginx::start(
        "",
        "client_max_body_size 20m; location /in/ { dav_methods PUT; create_full_put_path on; }",
    );
    let fetch = Fetch::new();
    make_file(&fetch.path("up"), 1_500_000).unwrap();
    let began = Instant::now();
    let (code, lines) = fetch.json(&[&nginx.url("/in/a"), "--upload", "up", "--rate", "1MB"]);
    assert_eq!((code, &lines[0]["status"], &lines[0]["req_body_bytes"]), (0, &201.into(), &1_500_000.into()));
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    assert!(std::fs::read(nginx.root().join("in/a")).unwrap() == pattern(0, 1_500_000));
}

#[test]
fn the_exit_status_says_what_kind_of_failure_it_was() {
    let server = server(|_, caller| {
        while let Some(head) = caller.request() {
            match head.split(' ').nth(1).unwrap() {
                "/silent" => drop(caller.is_left()),
                "/stalls" => {
                    caller.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
                    caller.is_left();
                }
                "/cut" => {
                    caller.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
                    return;
                }
                "/garbage" => drop(caller.say("garbage\r\n\r\n")),
                "/missing" => {
                    caller.say("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone");
                }
                _ => {
                    caller.say(ok("here"));
                }
            }
        }
    });
    let fetch = Fetch::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}/");
    let url = |path: &str| server.url(path);
    for (expected, arguments) in [
        (2, vec!["gopher://x/".to_owned()]),
        (2, vec![url("/x"), "--rate".into(), "fast".into()]),
        (2, vec![url("/x"), url("/y"), "-o".into(), "one".into()]),
        (3, vec!["http://no-such-host.invalid/".to_owned()]),
        (4, vec![closed]),
        (6, vec![url("/silent"), "--first-byte-timeout".into(), "50ms".into()]),
        (6, vec![url("/stalls"), "--stall-timeout".into(), "50ms".into()]),
        (6, vec![url("/silent"), "--timeout".into(), "50ms".into()]),
        (7, vec![url("/missing")]),
        (8, vec![url("/cut")]),
        (8, vec![url("/garbage")]),
        (9, vec![url("/x"), "-o".into(), "no/such/folder/x".into()]),
        (0, vec![url("/x")]),
    ] {
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.extend(["--retry", "0"]);
        let output = fetch.run(&arguments);
        assert_eq!(code(&output), expected, "{arguments:?}: {}", said(&output));
        assert!(!said(&output).is_empty(), "{arguments:?}");
    }
    // The partial file of a cut one is told of; of others nothing is left.
    assert_eq!(fetch.names(), ["cut.part", "cut.part.json", "stalls.part", "stalls.part.json", "x"]);
    let output = fetch.run(&[&url("/cut"), "--retry", "0"]);
    assert!(said(&output).contains("5 bytes are kept in cut.part: go on with --resume"), "{}", said(&output));
}

#[test]
fn names_stay_where_they_should() {
    let server = client_support::says(ok("x"));
    let fetch = Fetch::new();
    let output = fetch.run(&[&server.url("/..%2f..%2foutside"), &server.url("/"), &server.url("/.hidden")]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!(fetch.names(), ["hidden", "index.html", "outside"]);
    assert!(!Path::new("/outside").exists());
}

/// Answers each request with the next of these: a status line with fields, and a body, which is cut where its length is
/// not the one said.
fn replies(replies: Vec<(&'static str, Vec<u8>)>) -> client_support::Scripted {
    server(move |number, caller| {
        if caller.request().is_some() {
            let (head, body) = replies.get(number).expect("no more is asked");
            caller.say(format!("HTTP/1.1 {head}\r\n\r\n"));
            caller.say(body);
        }
    })
}

fn part(fetch: &Fetch, url: &str, bytes: usize, note: &str) {
    std::fs::write(fetch.path("a.part"), pattern(0, bytes)).unwrap();
    std::fs::write(fetch.path("a.part.json"), format!("{{\"url\":\"{url}\",{note}}}")).unwrap();
}

#[test]
fn a_part_that_is_shorter_than_asked_for_is_not_taken_for_the_rest() {
    let server = replies(vec![
        (
            "206 x\r\nETag: \"x\"\r\nContent-Range: bytes 100-199/1000\r\nContent-Length: 100",
            pattern(100, 100),
        ),
        (
            "206 x\r\nETag: \"x\"\r\nContent-Range: bytes 200-999/1000\r\nContent-Length: 800",
            pattern(200, 800),
        ),
    ]);
    let (fetch, url) = (Fetch::new(), server.url("/a"));
    part(&fetch, &url, 100, "\"total\":1000,\"etag\":\"\\\"x\\\"\",\"last_modified\":null");
    let (code, lines) = fetch.json(&[&url, "--resume"]);
    assert_eq!((code, server.callers()), (0, 2), "{lines:?}");
    assert!(fetch.holds("a", &pattern(0, 1_000)));
}

#[test]
fn a_part_of_another_file_is_not_put_behind_what_is_there() {
    // The condition is overlooked, and the range given all the same.
    let server = replies(vec![
        ("206 x\r\nETag: \"new\"\r\nContent-Range: bytes 100-999/1000\r\nContent-Length: 900", vec![1; 900]),
        ("200 OK\r\nETag: \"new\"\r\nContent-Length: 1000", vec![1; 1_000]),
    ]);
    let (fetch, url) = (Fetch::new(), server.url("/a"));
    part(&fetch, &url, 100, "\"total\":1000,\"etag\":\"\\\"old\\\"\",\"last_modified\":null");
    let (code, lines) = fetch.json(&[&url, "--resume"]);
    assert_eq!(code, 0, "{lines:?}");
    assert!(fetch.holds("a", &[1; 1_000]));
}

#[test]
fn a_length_beyond_all_counting_is_a_failure_like_any_other() {
    let server = replies(vec![(
        "206 x\r\nETag: \"x\"\r\nContent-Range: bytes 100-999/*\r\nContent-Length: 18446744073709551615",
        vec![1; 100],
    )]);
    let (fetch, url) = (Fetch::new(), server.url("/a"));
    part(&fetch, &url, 100, "\"total\":null,\"etag\":\"\\\"x\\\"\",\"last_modified\":null");
    let (code, lines) = fetch.json(&[&url, "--resume", "--retry", "0"]);
    assert_eq!((code, &lines[0]["failure"]), (8, &"transfer".into()), "{lines:?}");
}

#[test]
fn only_what_can_be_asked_for_twice_goes_on_by_itself() {
    let cut = || vec![("200 OK\r\nETag: \"x\"\r\nContent-Length: 1000", vec![1; 500])];
    for options in [&["-X", "POST"][..], &["-H", "Range: bytes=0-999"], &["--compressed"]] {
        let (server, fetch) = (replies(cut()), Fetch::new());
        let (code, lines) = fetch.json(&[&[&*server.url("/a")], options].concat());
        assert_eq!((code, server.callers()), (8, 1), "{options:?} {lines:?}");
    }
}
