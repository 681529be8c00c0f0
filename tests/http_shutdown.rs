//! A shutdown, with exchanges in every state: it ends in its time and leaves their records.
#![cfg(feature = "http")]

mod ends_support;
mod support;

use std::time::{Duration, Instant};

use ends_support::{Ways, adds_up, patient, said, sends_behind};
use support::{Host, PATIENCE, Wire, await_that};

const GRACE: Duration = Duration::from_millis(500);

/// What a shutdown finds, and what it leaves.
const UNDER_WAY: [(&str, &str, Option<&str>, &str); 10] = [
    ("nothing yet", "", None, "server/idle/shutdown"),
    ("half a head", "GET / HTTP/1.1\r\nHos", Some("server/request/shutdown"), "server/request/shutdown"),
    (
        "half a body",
        "POST /ww HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nsome",
        Some("server/request/shutdown"),
        "server/request/shutdown",
    ),
    (
        "half a body that is read meanwhile",
        "POST /as HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nsome",
        Some("server/request/shutdown"),
        "server/request/shutdown",
    ),
    (
        "a handler that ends",
        "GET /k HTTP/1.1\r\nHost: x\r\n\r\n",
        Some("server/reply/ok"),
        "server/reply/shutdown or server/idle/shutdown",
    ),
    (
        "a handler that does not",
        "GET /h HTTP/1.1\r\nHost: x\r\n\r\n",
        Some("server/handler/shutdown"),
        "server/handler/shutdown",
    ),
    (
        "a stream that does not end",
        "GET /v HTTP/1.1\r\nHost: x\r\n\r\n",
        Some("server/reply/shutdown"),
        "server/reply/shutdown",
    ),
    (
        "a reply that nobody takes",
        "GET /b HTTP/1.1\r\nHost: x\r\n\r\n",
        Some("server/reply/shutdown"),
        "server/reply/shutdown",
    ),
    (
        "a reply that a limit pauses",
        "GET /q HTTP/1.1\r\nHost: x\r\n\r\n",
        Some("server/reply/shutdown"),
        "server/reply/shutdown",
    ),
    (
        "a request behind another",
        "GET /q HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        Some("server/reply/shutdown"),
        "server/reply/shutdown",
    ),
];

#[test]
fn a_shutdown_ends_whatever_is_under_way_and_leaves_its_records() {
    let ways = Ways::default();
    let host = Host::with(patient(), ways.clone());
    let mut clients: Vec<Wire> = UNDER_WAY
        .iter()
        .map(|(_, request, ..)| {
            let mut client = Wire::connect_with_window(host.address, 4_096);
            sends_behind(&mut client, request);
            client
        })
        .collect();
    let told = await_that("the handler waits", || ways.waiting.lock().unwrap().pop());
    let asked = Instant::now();
    host.stop(GRACE);
    // The idle one hears of it; who is on the other poller, at about the same time.
    clients[0].drain();
    told.complete(()).unwrap();
    let (exchanges, connections) = host.records.connections(UNDER_WAY.len());
    assert!(asked.elapsed() < PATIENCE / 4, "{:?}", asked.elapsed());
    for (client, (what, _, exchange, connection)) in clients.into_iter().zip(UNDER_WAY) {
        let local = client.local().to_string();
        let entry = connections.iter().find(|entry| entry.record.peer.to_string() == local).unwrap();
        let record = &entry.record;
        let end = format!(
            "{}/{}/{}",
            record.role.name_of(record.end.who),
            record.phase,
            record.end.reason.as_str()
        );
        assert!(connection.split(" or ").any(|expected| expected == end), "{what}: {end}");
        let mine: Vec<_> = exchanges.iter().filter(|one| one.conn_id == record.conn_id).cloned().collect();
        adds_up(what, &mine, entry);
        assert_eq!(record.wire_in, client.sent, "{what}");
        let ends: Vec<_> = mine.iter().map(|one| said(one).1).collect();
        let expected: Vec<_> = [Some("server/reply/ok"), exchange].into_iter().flatten().collect();
        assert_eq!(ends, expected, "{what}");
    }
    host.end();
}
