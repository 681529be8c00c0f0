//! Every way in which a connection can end: one record of it and one of each exchange, with the bytes that its client counted
//! and a true word on who ended it, where and why.
#![cfg(feature = "http")]

mod ends_support;
mod support;

use std::time::Duration;

use ends_support::{BIG, CHUNKED, GET, Ways, adds_up, patient, post, said, sends_behind};
use support::{Host, Wire};
use tidegate::http::ServerSettings;

const TIMEOUT: Duration = Duration::from_millis(250);

fn impatient() -> ServerSettings {
    let [header_timeout, body_timeout, idle_timeout, send_timeout] = [TIMEOUT; 4];
    ServerSettings { header_timeout, body_timeout, idle_timeout, send_timeout, ..ServerSettings::default() }
}

/// What a client knows when its connection is over.
struct Counted {
    sent: u64,
    received: u64,
    /// It saw all that came, to the other's end.
    all: bool,
}

/// Waits for the other end's end.
fn stays(mut client: Wire) -> Counted {
    client.drain();
    Counted { sent: client.sent, received: client.received, all: true }
}

/// Says that it asks no more, and waits for the end.
fn half_closes(mut client: Wire) -> Counted {
    client.half_close();
    stays(client)
}

/// Goes, with a reset.
fn resets(client: Wire) -> Counted {
    let (sent, received) = (client.sent, client.received);
    client.reset();
    Counted { sent, received, all: false }
}

/// Goes, having read all that was sent.
fn goes(client: Wire) -> Counted {
    Counted { sent: client.sent, received: client.received, all: true }
}

/// Has a client do something, and looks at what is left of it. `ends`: status, `who/phase/reason` and body bytes (in, out; out
/// `None`: whatever) of each exchange, then that of the connection; `or` where it depends on what comes first.
#[track_caller]
fn leaves(
    what: &str,
    settings: ServerSettings,
    acts: impl FnOnce(Wire) -> Counted,
    exchanges: &[(u16, &str, u64, Option<u64>)],
    connection: &str,
) {
    let host = Host::with(settings, Ways::default());
    let counted = acts(Wire::connect_with_window(host.address, 65_536));
    let (records, connections) = host.records.connections(1);
    let seen: Vec<_> = records.iter().map(|record| said(record)).collect();
    let expected: Vec<_> = exchanges.iter().map(|(status, end, ..)| (*status, (*end).to_owned())).collect();
    assert_eq!(seen, expected, "{what}: {records:#?}");
    let record = &connections[0].record;
    let end =
        format!("{}/{}/{}", record.role.name_of(record.end.who), record.phase, record.end.reason.as_str());
    assert!(connection.split(" or ").any(|expected| expected == end), "{what}: the connection: {end}");
    adds_up(what, &records, &connections[0]);
    for (record, (_, _, body_in, body_out)) in records.iter().zip(exchanges) {
        assert_eq!(record.req_body_bytes, *body_in, "{what}: body in {record:#?}");
        assert!(body_out.is_none_or(|bytes| bytes == record.resp_body_bytes), "{what}: body out {record:#?}");
    }
    assert_eq!(record.wire_in, counted.sent, "{what}: what was sent was read");
    assert!(record.wire_out >= counted.received, "{what}: {} < {}", record.wire_out, counted.received);
    if counted.all {
        assert_eq!(record.wire_out, counted.received, "{what}: what went was received");
    }
    host.end();
}

/// The FIN may come before the reply has gone, or after it.
const SOON: &str = "client/reply/ok or client/idle/ok";

const WELL: (u16, &str, u64, Option<u64>) = (200, "server/reply/ok", 0, Some(5));

#[test]
fn a_client_that_leaves_while_it_asks_is_said_to_have() {
    let part = post("/ww", "Content-Length: 9\r\n", "some");
    let chunk = post("/ww", CHUNKED, "4\r\nsome\r\n");
    let streamed = post("/as", "Content-Length: 9\r\n", "some");
    let unread = post("/xs", "Content-Length: 9\r\n", "some");
    for (what, more, body) in [
        ("a head", "GET / HTTP/1.1\r\nHos".to_owned(), 0),
        ("a body", part, 4),
        ("chunks", chunk, 9),
        ("a body that is read meanwhile", streamed, 4),
    ] {
        for (how, leave) in [("FIN", half_closes as fn(Wire) -> Counted), ("RST", resets)] {
            leaves(
                &format!("{how} in {what}"),
                patient(),
                |mut client| {
                    sends_behind(&mut client, &more);
                    leave(client)
                },
                &[WELL, (0, "client/request/abort", body, Some(0))],
                "client/request/abort",
            );
        }
    }
    // It was answered, and owes the rest of what nobody reads.
    for (how, leave) in [("FIN", half_closes as fn(Wire) -> Counted), ("RST", resets)] {
        leaves(
            &format!("{how} in a body that was answered"),
            patient(),
            |mut client| {
                client.send(&unread);
                client.reply();
                leave(client)
            },
            &[(200, "server/reply/ok", 4, Some(5))],
            "client/reply/abort",
        );
    }
}

#[test]
fn a_client_that_leaves_while_it_is_answered_is_said_to_have() {
    let asks = |target: &'static str, leave: fn(Wire) -> Counted| {
        move |mut client: Wire| {
            sends_behind(&mut client, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
            if target != "/h" {
                client.take(300);
            }
            leave(client)
        }
    };
    leaves(
        "RST while the handler works",
        patient(),
        asks("/h", resets),
        &[WELL, (0, "client/handler/abort", 0, Some(0))],
        "client/handler/abort",
    );
    for target in ["/b", "/q", "/v"] {
        leaves(
            &format!("RST in the reply {target}"),
            patient(),
            asks(target, resets),
            &[WELL, (200, "client/reply/abort", 0, None)],
            "client/reply/abort",
        );
    }
    leaves(
        "it goes in the middle of a stream that has nothing to say",
        patient(),
        |mut client| {
            sends_behind(&mut client, "GET /v HTTP/1.1\r\nHost: x\r\n\r\n");
            client.take(1_000);
            let (sent, received) = (client.sent, client.received);
            Counted { sent, received, all: false }
        },
        &[WELL, (200, "client/reply/abort", 0, None)],
        "client/reply/abort",
    );
}

#[test]
fn a_client_that_only_asks_no_more_gets_all_of_it() {
    let asks = |target: &'static str| {
        move |mut client: Wire| {
            client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
            half_closes(client)
        }
    };
    for (target, bytes) in
        [("/", 5), ("/b", BIG as u64), ("/p", 50_000), ("/w", 7), ("/n", 0), ("/m", 0), ("/u", 0)]
    {
        let status = match target {
            "/n" => 204,
            "/m" => 304,
            "/u" => 205,
            _ => 200,
        };
        leaves(
            &format!("FIN behind a request for {target}"),
            patient(),
            asks(target),
            &[(status, "server/reply/ok", 0, Some(bytes))],
            SOON,
        );
    }
    // 1,000 bytes, framed as they were made: one chunk, and the last.
    leaves("FIN behind one for chunks", patient(), asks("/c"), &[(200, "server/reply/ok", 0, None)], SOON);
    leaves("FIN and no request", patient(), half_closes, &[], "client/idle/ok");
    leaves(
        "FIN behind several",
        patient(),
        |mut client| {
            client.send(GET.repeat(3) + "GET /p HTTP/1.1\r\nHost: x\r\n\r\n" + GET);
            half_closes(client)
        },
        &[WELL, WELL, WELL, (200, "server/reply/ok", 0, Some(50_000)), WELL],
        SOON,
    );
    leaves(
        "it goes when it has all",
        patient(),
        |mut client| {
            sends_behind(&mut client, "");
            goes(client)
        },
        &[WELL],
        "client/idle/ok",
    );
    leaves(
        "it resets when it has all",
        patient(),
        |mut client| {
            sends_behind(&mut client, "");
            resets(client)
        },
        &[WELL],
        "client/idle/abort",
    );
}

#[test]
fn each_timeout_is_named_for_what_it_waited_for() {
    leaves("nothing comes", impatient(), stays, &[], "server/idle/timeout");
    leaves(
        "nothing more comes",
        impatient(),
        |mut client| {
            sends_behind(&mut client, "");
            stays(client)
        },
        &[WELL],
        "server/idle/timeout",
    );
    for (what, more, body) in [
        ("a head", "GET / HTTP/1.1\r\nHos".to_owned(), 0),
        ("a body", post("/ww", "Content-Length: 9\r\n", "some"), 4),
        ("chunks", post("/ww", CHUNKED, "4\r\nsome\r\n0\r\nA: b"), 16),
        ("a body that is read meanwhile", post("/as", "Content-Length: 9\r\n", "some"), 4),
        ("a body that is thrown away", post("/xd", "Content-Length: 9\r\n", "some"), 4),
    ] {
        leaves(
            &format!("{what} stops coming"),
            impatient(),
            |mut client| {
                sends_behind(&mut client, &more);
                stays(client)
            },
            &[WELL, (408, "server/request/timeout", body, None)],
            "server/request/timeout",
        );
    }
    leaves(
        "a body stops coming that was answered",
        impatient(),
        |mut client| {
            client.send(post("/xs", "Content-Length: 9\r\n", "some"));
            stays(client)
        },
        &[(200, "server/reply/ok", 4, Some(5))],
        "server/reply/timeout",
    );
    leaves(
        "nobody takes the reply",
        impatient(),
        |mut client| {
            sends_behind(&mut client, "GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
            client.take(300);
            // Not read any more, until the server has given it up.
            client.await_left();
            let (sent, received) = (client.sent, client.received);
            Counted { sent, received, all: false }
        },
        &[WELL, (200, "server/reply/timeout", 0, None)],
        "server/reply/timeout",
    );
}

#[test]
fn what_is_refused_is_answered_and_said() {
    let long = "a".repeat(20_000);
    let protocol = "server/request/protocol_error";
    for (what, request, status, end, body) in [
        ("garbage", "\x16\x03\x01\x02\r\n\r\n".to_owned(), 400, protocol, 0),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400, protocol, 0),
        ("two hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n".to_owned(), 400, protocol, 0),
        ("a user name", "GET http://me@x/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400, protocol, 0),
        ("a bad chunk", post("/ww", CHUNKED, "x\r\n"), 400, protocol, 1),
        ("another version", "GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(), 505, protocol, 0),
        (
            "a long target",
            format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            414,
            "server/request/denied",
            0,
        ),
        (
            "long fields",
            format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"),
            431,
            "server/request/denied",
            0,
        ),
        ("a long body", post("/ww", "Content-Length: 1001\r\n", ""), 413, "server/request/denied", 0),
        ("a long stream", post("/as", "Content-Length: 1001\r\n", ""), 413, "server/request/denied", 0),
        (
            "a coding",
            post("/ww", "Transfer-Encoding: gzip, chunked\r\n", ""),
            501,
            "server/request/local_close",
            0,
        ),
        ("an expectation", post("/ww", "Expect: a miracle\r\n", ""), 417, "server/request/local_close", 0),
    ] {
        // Alone, and behind one that is answered.
        leaves(
            what,
            patient(),
            |mut client| {
                client.send(&request);
                stays(client)
            },
            &[(status, end, body, None)],
            end,
        );
        leaves(
            &format!("{what} behind another"),
            patient(),
            |mut client| {
                sends_behind(&mut client, &request);
                stays(client)
            },
            &[WELL, (status, end, body, None)],
            end,
        );
    }
    leaves(
        "a client that was refused resets",
        patient(),
        |mut client| {
            sends_behind(&mut client, post("/ww", "Content-Length: 1001\r\n", ""));
            client.reply();
            resets(client)
        },
        &[WELL, (413, "server/request/denied", 0, None)],
        "server/request/denied",
    );
}

#[test]
fn a_body_is_asked_for_in_bytes_that_are_counted() {
    const EXPECT: &str = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    for target in ["/ww", "/as"] {
        leaves(
            "it is wanted",
            patient(),
            |mut client| {
                client.send(post(target, EXPECT, ""));
                assert_eq!(client.head().0.status, 100);
                client.send("hello");
                client.reply();
                goes(client)
            },
            &[(200, "server/reply/ok", 5, Some(if target == "/as" { 8 } else { 7 }))],
            "client/idle/ok",
        );
        for (how, leave) in [("FIN", half_closes as fn(Wire) -> Counted), ("RST", resets)] {
            leaves(
                &format!("{how} in place of the body of {target}"),
                patient(),
                |mut client| {
                    client.send(post(target, EXPECT, ""));
                    assert_eq!(client.head().0.status, 100);
                    leave(client)
                },
                &[(0, "client/request/abort", 0, Some(0))],
                "client/request/abort",
            );
        }
    }
    for target in ["/rs", "/rd"] {
        leaves(
            &format!("it is not wanted of {target}"),
            patient(),
            |mut client| {
                client.send(post(target, EXPECT, ""));
                assert_eq!(client.reply().head.status, 401);
                stays(client)
            },
            &[(401, "server/reply/ok", 0, None)],
            "server/reply/ok",
        );
    }
    leaves(
        "fields behind chunks",
        patient(),
        |mut client| {
            client.send(post("/ww", CHUNKED, "5\r\nhello\r\n0\r\nA: b\r\n\r\n"));
            client.reply();
            goes(client)
        },
        &[(200, "server/reply/ok", 21, Some(7))],
        "client/idle/ok",
    );
}

#[test]
fn the_server_ends_where_it_said_so() {
    let closes = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (what, request, settings, exchange) in [
        ("the client says so", closes.to_owned(), patient(), WELL),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n".to_owned(), patient(), WELL),
        ("one request each", GET.to_owned(), ServerSettings { max_requests: Some(1), ..patient() }, WELL),
        (
            "CONNECT",
            "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n".to_owned(),
            patient(),
            (501, "server/reply/ok", 0, None),
        ),
        ("HEAD", closes.replace("GET", "HEAD"), patient(), (200, "server/reply/ok", 0, Some(0))),
    ] {
        leaves(
            what,
            settings,
            |mut client| {
                client.send(&request);
                stays(client)
            },
            &[exchange],
            "server/reply/ok",
        );
    }
    leaves(
        "what is sent behind the last request is nobody's",
        ServerSettings { max_requests: Some(2), ..patient() },
        |mut client| {
            client.send(GET.repeat(4));
            stays(client)
        },
        &[WELL, WELL],
        "server/reply/ok",
    );
    leaves(
        "a source fails",
        patient(),
        |mut client| {
            client.ask("/f", "");
            client.drain();
            Counted { sent: client.sent, received: 0, all: false }
        },
        &[(200, "server/reply/source_failed", 0, None)],
        "server/reply/source_failed",
    );
    leaves(
        "an interim status is no answer",
        patient(),
        |mut client| {
            sends_behind(&mut client, "GET /i HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(client.reply().head.status, 500);
            assert_eq!(client.get("/").body_text(), "well\n");
            goes(client)
        },
        &[WELL, (500, "server/reply/ok", 0, None), WELL],
        "client/idle/ok",
    );
}
