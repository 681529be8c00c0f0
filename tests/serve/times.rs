//! Timeouts, each from its own moment, and the times of records.

use std::time::{Duration, Instant};

use tidegate::http::ServerSettings;
use tidegate::net::Pacing;
use tidegate::poller::record::{Reason, Who};
use tidegate_meter::scratch::pattern;

use crate::support::Site;

#[test]
fn the_gap_of_a_reply_is_its_own() {
    let pacing = Pacing::builder().connection(100_000).build();
    let site = Site::with(ServerSettings { pacing, ..ServerSettings::default() }, 1, 100);
    site.folder.file("a", pattern(0, 2_000));
    let mut client = site.connect();
    // Paused in the middle of this many; then several of them go in one write.
    client.send(
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4) + &"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(60),
    );
    for _ in 0..4 {
        client.reply();
    }
    for _ in 0..60 {
        client.bodiless();
    }
    for record in site.records.exchanges(64) {
        let gap = Duration::from_nanos(record.pauses.longest_gap_ns);
        let transfer = record.transfer.unwrap();
        let throttled = Duration::from_nanos(record.pauses.throttled_ns);
        assert!(gap <= record.total, "{record:?}");
        // Nothing of a reply that went in one piece was ever waited for, except for its first byte.
        assert!(gap <= throttled + transfer, "{record:?}");
    }
}

#[test]
fn a_request_sent_while_a_reply_is_under_way_starts_when_it_is_sent() {
    let site = Site::new();
    site.folder.file("big", vec![1; 30_000_000]);
    site.folder.file("a", "a");
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let length: usize = client.bodiless().field("content-length").parse().unwrap();
    // What is measured: the time between the two requests, in which the first reply is under way.
    std::thread::sleep(Duration::from_millis(200));
    client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.take(length).len(), length);
    assert_eq!(client.reply().body_text(), "a");
    let records = site.records.exchanges(2);
    let apart = records[1].started.duration_since(records[0].started).unwrap();
    assert!(apart >= Duration::from_millis(190), "{apart:?}");
    assert!(records[0].pauses.blocked_ns >= 150_000_000 && records[1].pauses.blocked_ns < 100_000_000);
}

fn impatient() -> ServerSettings {
    ServerSettings {
        header_timeout: Duration::from_millis(150),
        body_timeout: Duration::from_millis(150),
        idle_timeout: Duration::from_millis(250),
        ..ServerSettings::default()
    }
}

#[test]
fn a_slow_head_is_given_up() {
    let site = Site::with(impatient(), 1, 100);
    let started = Instant::now();
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHos");
    let response = client.reply();
    assert_eq!((response.head.status, response.field("connection")), (408, "close"));
    client.expect_end();
    assert!(started.elapsed() >= Duration::from_millis(150));
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!(
        (exchanges[0].status, exchanges[0].end.reason, exchanges[0].phase),
        (Some(408), Reason::Timeout, "request")
    );
    assert_eq!((exchanges[0].end.who, exchanges[0].wire_in), (Who::Local, client.sent));
    assert_eq!((connections[0].record.end.reason, connections[0].record.phase), (Reason::Timeout, "request"));
}

#[test]
fn a_slow_second_head_has_its_own_time() {
    let site = Site::with(impatient(), 1, 100);
    site.folder.file("a", "a");
    let mut client = site.connect();
    client.get("/a");
    // Most of the time that a connection's first head would have.
    client.expect_silence(Duration::from_millis(120));
    let started = Instant::now();
    client.send("GET /a HT");
    assert_eq!(client.reply().head.status, 408);
    assert!(started.elapsed() >= Duration::from_millis(145), "{:?}", started.elapsed());
    let record = site.records.exchanges(2).remove(1);
    assert!(record.total < Duration::from_millis(1_000) && record.total >= Duration::from_millis(145));
}

#[test]
fn a_request_that_comes_in_pieces_behind_a_long_reply_has_its_time() {
    const TIMEOUT: Duration = Duration::from_millis(700);
    for (first, rest, status) in [
        ("GET /a HT", "TP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234", "56789", 200),
        ("GET /a HT", "", 408),
    ] {
        let site = Site::with(
            ServerSettings { header_timeout: TIMEOUT, body_timeout: TIMEOUT, ..ServerSettings::default() },
            1,
            100,
        );
        site.folder.file("big", vec![1; 30_000_000]);
        site.folder.file("a", "a");
        let mut client = site.connect();
        client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
        let length: usize = client.bodiless().field("content-length").parse().unwrap();
        // Nothing more is read until there is room for another reply: the client could not send the rest.
        client.send(first);
        // The long reply itself: nobody takes it for longer than either timeout.
        std::thread::sleep(TIMEOUT + Duration::from_millis(100));
        let resumed = Instant::now();
        client.discard(length);
        client.send(rest);
        assert_eq!(client.reply().head.status, status, "{first}");
        assert!(status == 200 || resumed.elapsed() >= TIMEOUT);
    }
}

#[test]
fn a_silent_caller_is_closed_without_a_word() {
    let site = Site::with(impatient(), 1, 100);
    let mut client = site.connect();
    client.expect_end();
    let (exchanges, connections) = site.records.connections(1);
    assert!(exchanges.is_empty());
    assert_eq!((connections[0].record.end.reason, connections[0].record.phase), (Reason::Timeout, "idle"));
    assert_eq!(connections[0].exchanges, 0);
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let site = Site::with(impatient(), 1, 100);
    site.folder.file("a", "a");
    let mut client = site.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/a").body_text(), "a");
        // Longer than the header timeout, shorter than the idle one.
        client.expect_silence(Duration::from_millis(180));
    }
    let quiet = Instant::now();
    client.expect_end();
    assert!(quiet.elapsed() < Duration::from_secs(5));
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!(exchanges.len(), 3);
    assert_eq!(
        (connections[0].record.end.who, connections[0].record.end.reason),
        (Who::Local, Reason::Timeout)
    );
    assert_eq!(connections[0].record.phase, "idle");
}

#[test]
fn a_slow_body_is_given_up() {
    let site = Site::with(impatient(), 1, 100);
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome");
    assert_eq!(client.reply().head.status, 408);
    client.expect_end();
    let record = site.records.exchanges(1).remove(0);
    assert_eq!((record.req_body_bytes, record.end.reason), (4, Reason::Timeout));
}

#[test]
fn a_reader_that_stops_is_timed_out_and_counted_to_the_byte() {
    let settings = ServerSettings { send_timeout: Duration::from_millis(200), ..ServerSettings::default() };
    let site = Site::with(settings, 1, 100);
    site.folder.file("big", vec![1; 40_000_000]);
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let (exchanges, connections) = site.records.connections(1);
    let record = &exchanges[0];
    assert_eq!((record.status, record.phase, record.end.who), (Some(200), "reply", Who::Local));
    assert_eq!(record.end.reason, Reason::Timeout);
    assert!(record.first_byte.is_some() && record.transfer.is_none());
    assert!(record.resp_body_bytes < 40_000_000 && record.pauses.blocked_ns >= 190_000_000, "{record:?}");
    assert_eq!(record.wire_out, connections[0].record.wire_out);
    assert_eq!(record.wire_out, record.resp_header_bytes + record.resp_body_bytes);
}
