//! Clients that leave, callers beyond the bound, and the end of the server.

use std::time::Duration;

use tidegate::http::ServerSettings;
use tidegate::poller::record::{Reason, Who};
use tidegate_meter::scratch::pattern;

use crate::support::{Site, Wire};

#[test]
fn a_client_that_leaves_in_the_middle_is_recorded() {
    let site = Site::new();
    site.folder.file("big", vec![1; 60_000_000]);
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    client.bodiless();
    client.take(100_000);
    client.reset();
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!(exchanges.len() as u64, connections[0].exchanges);
    let record = &exchanges[0];
    assert_eq!((record.end.who, record.end.reason, record.phase), (Who::Peer, Reason::Abort, "reply"));
    assert!(record.transfer.is_none() && record.resp_body_bytes >= 100_000);
    assert_eq!(record.wire_out, connections[0].record.wire_out);
    assert_eq!((connections[0].record.end.who, connections[0].record.phase), (Who::Peer, "reply"));
}

#[test]
fn a_client_that_leaves_in_a_head_is_recorded() {
    let site = Site::new();
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHos");
    let sent = client.sent;
    drop(client);
    let (exchanges, connections) = site.records.connections(1);
    let record = &exchanges[0];
    assert_eq!((record.status, record.end.who, record.end.reason), (None, Who::Peer, Reason::Abort));
    assert_eq!((record.phase, record.wire_in, record.wire_out), ("request", sent, 0));
    assert_eq!((connections[0].record.end.reason, connections[0].exchanges), (Reason::Abort, 1));
}

#[test]
fn a_half_closed_client_gets_all_it_asked_for() {
    let site = Site::new();
    let content = pattern(0, 2_000_000);
    site.folder.file("big", &content);
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\nGET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    client.half_close();
    assert!(client.reply().body == content);
    assert!(client.reply().body == content);
    client.expect_end();
    let (exchanges, connections) = site.records.connections(1);
    assert!(exchanges.iter().all(|record| record.end.reason == Reason::Ok));
    assert_eq!((connections[0].record.end.who, connections[0].record.end.reason), (Who::Peer, Reason::Ok));
}

#[test]
fn a_full_server_says_so() {
    let site = Site::with(ServerSettings::default(), 1, 2);
    site.folder.file("a", "a");
    let (mut first, mut second) = (site.connect(), site.connect());
    assert_eq!((first.get("/a").head.status, second.get("/a").head.status), (200, 200));
    let mut third = site.connect();
    let response = third.reply();
    assert_eq!((response.head.status, response.field("retry-after")), (503, "1"));
    third.expect_end();
    drop(third);
    let (_, connections) = site.records.connections(1);
    assert_eq!((connections[0].record.end.reason, connections[0].record.phase), (Reason::Denied, "accept"));
    drop(first);
    site.records.connections(2);
    assert_eq!(site.get("/a").head.status, 200);
}

#[test]
fn several_pollers_share_one_port() {
    let site = Site::with(ServerSettings::default(), 3, 100);
    site.folder.file("a", "a");
    let mut clients: Vec<Wire> = (0..40).map(|_| site.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/a").body_text(), "a");
    }
    drop(clients);
    let (_, connections) = site.records.connections(40);
    let mut ids: Vec<_> = connections.iter().map(|entry| entry.record.conn_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}

#[test]
fn shutdown_answers_what_had_arrived() {
    let mut site = Site::new();
    site.folder.file("a", "a");
    let mut clients: Vec<Wire> = (0..20).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.get("/a");
    }
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    site.stop(Duration::from_secs(10));
    for client in &mut clients {
        assert_eq!(client.reply().body_text(), "a");
        client.expect_end();
    }
    site.join();
}

#[test]
fn shutdown_lets_the_busy_finish_and_the_idle_go() {
    let mut site = Site::new();
    let content = pattern(0, 20_000_000);
    site.folder.file("big", &content);
    site.folder.file("a", "a");
    let (mut idle, mut busy, mut fresh) = (site.connect(), site.connect(), site.connect());
    idle.get("/a");
    fresh.get("/a");
    busy.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let length = busy.bodiless().field("content-length").parse().unwrap();
    fresh.send("GET /a HTTP/1.1\r\nHost");
    // Until the server has seen it there is nothing to finish.
    fresh.await_read();
    site.stop(Duration::from_secs(10));
    idle.expect_end();
    fresh.send(": x\r\n\r\n");
    let last = fresh.reply();
    assert_eq!((last.body_text().as_str(), last.field("connection")), ("a", "close"));
    fresh.expect_end();
    assert!(busy.take(length) == content);
    busy.expect_end();
    site.join();
    let (exchanges, connections) = site.records.connections(3);
    assert!(exchanges.iter().all(|record| record.end.reason == Reason::Ok));
    assert!(connections.iter().all(|entry| entry.record.end.reason == Reason::Shutdown), "{connections:?}");
}

#[test]
fn shutdown_cuts_what_does_not_finish() {
    let mut site = Site::new();
    site.folder.file("big", vec![1; 60_000_000]);
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    client.bodiless();
    site.stop(Duration::from_secs(60));
    // Asked again, the shorter grace counts.
    site.stop(Duration::from_millis(50));
    site.join();
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!((exchanges[0].end.reason, exchanges[0].end.who), (Reason::Shutdown, Who::Local));
    assert_eq!(exchanges[0].wire_out, connections[0].record.wire_out);
    assert!(connections[0].record.dropped_out > 0);
}
