//! Requests as they come: one after another, ahead of time, in pieces, with bodies, and what is none.

use tidegate::poller::record::{Reason, Who};
use tidegate_meter::scratch::pattern;

use crate::support::Site;

#[test]
fn keep_alive_serves_one_after_another() {
    let site = Site::new();
    site.folder.file("a", "first");
    site.folder.file("b", "second");
    let mut client = site.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/a").body_text(), "first");
        assert_eq!(client.get("/none").head.status, 404);
        assert_eq!(client.get("/b").body_text(), "second");
    }
    client.send("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let response = client.reply();
    assert_eq!(response.field("connection"), "close");
    client.expect_end();
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!(exchanges.len(), 16);
    assert!(exchanges.iter().enumerate().all(|(index, record)| record.exchange_id == index as u64 + 1));
    assert_eq!(connections[0].exchanges, 16);
    assert_eq!(exchanges.iter().map(|record| record.wire_out).sum::<u64>(), client.received);
    assert_eq!(exchanges.iter().map(|record| record.wire_in).sum::<u64>(), client.sent);
}

#[test]
fn old_clients_get_what_they_ask_for() {
    let site = Site::new();
    site.folder.file("a", "old");
    let mut client = site.connect();
    client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.reply().field("connection"), "keep-alive");
    client.send("GET /a HTTP/1.0\r\n\r\n");
    let response = client.reply();
    assert_eq!((response.body_text().as_str(), response.field("connection")), ("old", "close"));
    client.expect_end();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::new();
    let files: Vec<_> = (0..60).map(|n| pattern(0, n * 3_000)).collect();
    for (n, content) in files.iter().enumerate() {
        site.folder.file(&format!("f{n}"), content);
    }
    let mut client = site.connect();
    let requests: String = (0..60)
        .map(|n| format!("GET /f{n} HTTP/1.1\r\nHost: x\r\n\r\n{}", if n % 7 == 0 { "\r\n" } else { "" }))
        .collect();
    client.send(&requests);
    for content in &files {
        let response = client.reply();
        assert_eq!(response.head.status, 200);
        assert!(response.body == *content);
    }
    let records = site.records.exchanges(60);
    assert_eq!(records.iter().map(|record| record.wire_out).sum::<u64>(), client.received);
    // The line end after the last request is nobody's.
    assert_eq!(records.iter().map(|record| record.wire_in).sum::<u64>(), client.sent);
    assert!(records.windows(2).all(|pair| pair[0].exchange_id + 1 == pair[1].exchange_id));
}

#[test]
fn a_flood_of_pipelined_requests_is_held_back_not_buffered() {
    let site = Site::new();
    site.folder.file("big", vec![7; 1_000_000]);
    let mut client = site.connect();
    // Nobody reads the replies: the server must stop reading requests, so that this client is stopped too.
    let requests = "GET /big HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let mut sent = 0;
    while client.try_send(requests.as_bytes()) {
        sent += requests.len();
        assert!(sent < 200_000_000, "it goes on taking requests: {sent}");
    }
}

#[test]
fn a_request_that_comes_in_pieces_is_put_together() {
    let site = Site::new();
    site.folder.file("a", "whole");
    let mut client = site.connect();
    let requests = "GET /a HTTP/1.1\r\nHost: x\r\nX-Long: y\r\n\r\nHEAD /a HTTP/1.1\r\nHost: x\r\n\r\n";
    for piece in requests.as_bytes().chunks(3) {
        client.send(piece);
        std::thread::yield_now();
    }
    assert_eq!(client.reply().body_text(), "whole");
    assert_eq!(client.bodiless().field("content-length"), "5");
    let records = site.records.exchanges(2);
    assert_eq!(records[0].wire_in + records[1].wire_in, client.sent);
}

#[test]
fn head_options_and_others() {
    let site = Site::new();
    site.folder.file("a.html", "<p>");
    let mut client = site.connect();
    client.send("HEAD /a.html HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\n\r\n");
    let head = client.bodiless();
    assert_eq!((head.head.status, head.field("content-length")), (200, "3"));
    assert_eq!(head.field("content-type"), "text/html; charset=utf-8");
    client.send("HEAD /none HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.bodiless().head.status, 404);
    for target in ["*", "/a.html"] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let options = client.reply();
        assert_eq!((options.head.status, options.field("allow")), (204, "GET, HEAD, OPTIONS"));
    }
    for method in ["POST", "PUT", "DELETE", "BREW"] {
        client.send(format!("{method} /a.html HTTP/1.1\r\nHost: x\r\n\r\n"));
        let response = client.reply();
        assert_eq!((response.head.status, response.field("allow")), (405, "GET, HEAD, OPTIONS"), "{method}");
    }
    client.send("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reply().head.status, 501);
    let records = site.records.exchanges(9);
    assert_eq!((records[0].resp_body_bytes, records[1].resp_body_bytes), (0, 0));
}

#[test]
fn bodies_are_skipped_refused_or_the_end() {
    let site = Site::new();
    site.folder.file("a", "a");
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n");
    for chunk in vec![b'z'; 60_000].chunks(7_000) {
        client.send(chunk);
    }
    assert_eq!(client.reply().body_text(), "a");
    client.send(
        "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(client.reply().head.status, 405);
    assert_eq!(client.reply().body_text(), "a");
    let records = site.records.exchanges(3);
    assert_eq!(
        (records[0].req_body_bytes, records[1].req_body_bytes, records[2].req_body_bytes),
        (60_000, 3, 0)
    );
    assert_eq!(records.iter().map(|record| record.wire_in).sum::<u64>(), client.sent);
    for (request, status) in [
        ("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", 413),
        ("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", 405),
        ("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 405),
        ("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 200),
        ("GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
        ("GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
    ] {
        let response = site.ask(request);
        assert_eq!((response.head.status, response.field("connection")), (status, "close"), "{request}");
    }
}

#[test]
fn garbage_is_answered_recorded_and_closed() {
    let site = Site::new();
    site.folder.file("a", "a");
    for (garbage, status, reason) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], 400, Reason::ProtocolError),
        (b"HELO example.com\r\n", 400, Reason::ProtocolError),
        (b"\0\0\0\0\0\0", 400, Reason::ProtocolError),
        (b"GET / HTTP/1.1\r\n\r\n", 400, Reason::ProtocolError),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", 400, Reason::ProtocolError),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, Reason::ProtocolError),
    ] {
        let site = Site::new();
        let response = site.ask(garbage);
        assert_eq!((response.head.status, response.field("connection")), (status, "close"));
        let (exchanges, connections) = site.records.connections(1);
        assert_eq!((exchanges.len(), connections[0].exchanges), (1, 1));
        assert_eq!((exchanges[0].status, exchanges[0].phase), (Some(status), "request"));
        assert_eq!((exchanges[0].end.who, exchanges[0].end.reason), (Who::Local, reason));
        assert_eq!(connections[0].record.wire_in, garbage.len() as u64);
        assert_eq!((connections[0].record.end.reason, connections[0].record.phase), (reason, "request"));
    }
    // What came before the garbage is answered first.
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\nnonsense here\r\n");
    assert_eq!(client.reply().body_text(), "a");
    assert_eq!(client.reply().head.status, 400);
    client.expect_end();
}

#[test]
fn heads_have_a_limit() {
    let site = Site::new();
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(17_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(101)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9_000)), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)), 414),
    ] {
        let site_response = site.ask(&request);
        assert_eq!(site_response.head.status, status, "{}", &request[..40]);
    }
    let records = site.records.exchanges(4);
    assert!(records.iter().all(|record| record.end.reason == Reason::Denied && record.phase == "request"));
    // Slowly too: no newline for a long time, and then many small pieces.
    let mut client = site.connect();
    client.send("GET /");
    for _ in 0..170 {
        client.send([b'a'; 100]);
    }
    assert_eq!(client.reply().head.status, 414);
}

#[test]
fn no_answer_to_head_has_a_body_not_even_a_refusal() {
    let site = Site::new();
    site.folder.file("a", "a");
    let long = "a".repeat(17_000);
    for (request, status) in [
        ("HEAD /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 404),
        ("HEAD /a HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("HEAD /a HTTP/1.1\r\nHost: x\r\nnot a field\r\n\r\n".to_owned(), 400),
        ("HEAD /a HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(), 505),
        (format!("HEAD /a HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"), 431),
        (format!("HEAD /{long} HTTP/1.1\r\n"), 414),
    ] {
        let mut client = site.connect();
        client.send(&request);
        assert_eq!(client.bodiless().head.status, status, "{}", &request[..20]);
        client.expect_end();
    }
}
