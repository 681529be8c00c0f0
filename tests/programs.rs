//! The server with programs that everybody has: curl, wrk, nginx in front of it.
#![cfg(feature = "cli")]

mod support;

use std::process::Output;

use support::{Nginx, Serve, Wire, end, number, program};
use tidegate_meter::scratch::pattern;

fn curl(arguments: &[&str]) -> Output {
    let output =
        program("curl").args(["--silent", "--show-error", "--max-time", "60"]).args(arguments).output();
    let output = output.expect("curl runs");
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn curl_obeys_our_limit_and_the_log_says_so() {
    let serve = Serve::start(&["--rate", "500kB"]);
    serve.file("file", 1_000_000);
    let format = "%{size_download} %{size_header} %{time_total} %{local_port}";
    let output = curl(&["--output", "/dev/null", "--write-out", format, &serve.url("/file")]);
    let text = String::from_utf8(output.stdout).unwrap();
    let [size, header, time, port] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!(size, "1000000");
    let time: f64 = time.parse().unwrap();
    assert!((1.7..3.0).contains(&time), "1 MB at 500 kB/s in {time} s");

    let log = serve.stop().log();
    let from = format!("127.0.0.1:{port}").parse().unwrap();
    let exchange = log.exchange(from);
    assert_eq!(number(exchange, "resp_body_bytes"), 1_000_000);
    assert_eq!(number(exchange, "resp_header_bytes").to_string(), header);
    assert!(number(exchange, "throttled_us") > 1_500_000, "{exchange:#}");
    assert_eq!(end(log.connection(from)), "client/ok");
}

#[test]
fn curl_that_limits_itself_is_blocked_not_throttled() {
    let serve = Serve::start(&[]);
    // The kernel's buffers take ten megabytes or so at once; the rest has to wait for curl.
    serve.file("file", 40_000_000);
    curl(&["--output", "/dev/null", "--limit-rate", "20M", &serve.url("/file")]);
    let log = serve.stop().log();
    assert_eq!(log.connections.len(), 1);
    assert_eq!(number(&log.exchanges[0], "throttled_us"), 0);
    assert_eq!(number(&log.exchanges[0], "throttle_count"), 0);
    assert!(number(&log.exchanges[0], "blocked_us") > 100_000, "{:#}", log.exchanges[0]);
}

#[test]
fn curl_resumes_where_it_was_cut() {
    let serve = Serve::start(&[]);
    serve.file("file", 500_000);
    let path = serve.scratch().join("resumed");
    std::fs::write(&path, pattern(0, 123_456)).unwrap();
    curl(&["--continue-at", "-", "--output", path.to_str().unwrap(), &serve.url("/file")]);
    assert!(std::fs::read(&path).unwrap() == pattern(0, 500_000));
    let range = curl(&["--range", "1000-1999", &serve.url("/file")]);
    assert!(range.stdout == pattern(1000, 1000));
    let log = serve.stop().log();
    assert!(log.exchanges.iter().all(|line| line["status"] == 206), "{:#?}", log.exchanges);
}

#[test]
fn curl_keeps_its_connection_for_many_files() {
    let serve = Serve::start(&[]);
    let urls: Vec<String> = (0..20)
        .map(|nth| {
            serve.file(&format!("f{nth}"), nth * 1000);
            serve.url(&format!("/f{nth}"))
        })
        .collect();
    let output = curl(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    let expected: Vec<u8> = (0..20).flat_map(|nth| pattern(0, nth * 1000)).collect();
    assert!(output.stdout == expected);
    let log = serve.stop().log();
    assert_eq!((log.connections.len(), log.exchanges.len()), (1, 20));
}

#[test]
fn wrk_finds_no_error_and_every_request_is_in_the_log() {
    let serve = Serve::start(&[]);
    serve.file("file", 2000);
    let output =
        program("wrk").args(["-t1", "-c16", "-d1s", &serve.url("/file")]).output().expect("wrk runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
    let requests: usize = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .unwrap_or_else(|| panic!("no count in {text}"));
    let log = serve.stop().log();
    // wrk stops counting in the middle of the last ones.
    assert!(
        (requests..=requests + 16).contains(&log.exchanges.len()),
        "{} of {requests}",
        log.exchanges.len()
    );
    // It tries the address with a connection of its own first.
    assert!((16..=18).contains(&log.connections.len()), "{}", log.connections.len());
    assert!(log.own.is_empty(), "{:?}", log.own);
}

#[test]
fn nginx_in_front_gets_and_passes_on_every_byte() {
    let serve = Serve::start(&[]);
    serve.file("file", 3_000_000);
    let nginx = Nginx::in_front_of(serve.address());
    for _ in 0..3 {
        let mut wire = Wire::connect(nginx.address());
        assert!(wire.get("/file").body == pattern(0, 3_000_000));
    }
    drop(nginx);
    let log = serve.stop().log();
    assert_eq!(log.exchanges.len(), 3);
    assert_eq!(log.connections.len(), 1, "nginx kept its connection");
}
