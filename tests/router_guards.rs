//! What runs before a handler is asked before anybody takes the body in.
#![cfg(feature = "http")]

mod support;

use std::io::Write as _;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use support::{Host, PATIENCE, Wire};
use tidegate::http::router::{BasicUser, HttpError, Router, Routes};
use tidegate::http::{Exchange, Reply, RequestBody, StatusCode};
use tidegate::poller::Reason;
use tidegate::task::{Continuation, Parked, Task, go};

/// `ann:secret`.
const KNOWN: &str = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
const EXPECT: &str = "Expect: 100-continue\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Says how many bytes came, their sum, and how many fields followed them.
fn tell(exchange: &mut Exchange) -> Result<String, HttpError> {
    let trailers = exchange.context.trailers().map_or(0, |fields| fields.iter().count());
    match &exchange.context.body {
        RequestBody::Whole(bytes) => Ok(told(bytes, trailers)),
        other => Err(HttpError::explained(StatusCode::INTERNAL_SERVER_ERROR, format!("{other:?}"))),
    }
}

fn told(bytes: &[u8], trailers: usize) -> String {
    format!("{} {} {trailers}\n", bytes.len(), bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>())
}

fn guarded(more: impl FnOnce(&mut Routes<'_>)) -> Host {
    let router = Router::build(|routes| {
        routes.group("/in", |inside| {
            inside.basic_auth("in", |name, word| (name, word) == ("ann", "secret"));
            inside.put("/file", tell).whole(8_000_000);
            inside.put("/none", |_| "none\n").discard(50_000);
        });
        routes.put("/open", tell).whole(8_000_000);
        more(routes);
    });
    Host::new(router.unwrap())
}

fn put(target: &str, fields: &str) -> String {
    format!("PUT {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 253) as u8).collect()
}

#[test]
fn who_is_turned_away_is_so_at_the_head() {
    let host = guarded(|_| ());
    for fields in [
        "Content-Length: 7000000\r\n",
        CHUNKED,
        "Content-Length: 7000000\r\nExpect: 100-continue\r\n",
        "Content-Length: 10\r\nExpect: 100-continue\r\n",
        "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
    ] {
        let mut client = host.connect();
        client.send(put("/in/file", fields));
        // Not a byte of it is here, nor asked for.
        assert_eq!(client.reply().head.status, 401, "{fields}");
    }
    assert_eq!(host.ask(put("/in/none", &format!("{EXPECT}Content-Length: 10\r\n"))).head.status, 401);
    // What is not long is read, and the connection goes on.
    let mut client = host.connect();
    for length in [10, 16_384, 50_000] {
        client.send(put("/in/file", &format!("Content-Length: {length}\r\n")));
        client.send(body(length));
        let reply = client.reply();
        assert_eq!((reply.head.status, reply.field("connection")), (401, ""), "{length}");
    }
    host.end();
}

#[test]
fn a_large_upload_without_a_word_of_who_sends_it_is_not_taken_in() {
    let host = guarded(|_| ());
    let mut client = host.connect();
    client.send(put("/in/file", "Content-Length: 7000000\r\n"));
    let reply = client.reply();
    assert_eq!((reply.head.status, reply.field("connection")), (401, "close"));
    // It sends all the same, and has the answer, not a reset in its place.
    let _ = client.stream.write_all(&body(7_000_000));
    drop(client);
    let mut client = host.connect();
    client.send(put("/in/file", CHUNKED));
    assert_eq!(client.reply().head.status, 401);
    let piece = [b"10000\r\n".as_slice(), &body(65_536), b"\r\n"].concat();
    while client.stream.write_all(&piece).is_ok() {}
    let (records, _) = host.records.connections(2);
    for record in records {
        assert!(record.req_body_bytes < 300_000, "{record:?}");
        assert_eq!((record.status, record.end.reason), (Some(401), Reason::Ok));
    }
    host.end();
}

#[test]
fn who_is_let_in_is_read_to_the_end() {
    let host = guarded(|_| ());
    let mut client = host.connect();
    for target in ["/in/file", "/open"] {
        for length in [0, 1, 16_384, 16_385, 3_000_000] {
            let bytes = body(length);
            client.send(put(target, &format!("{KNOWN}Content-Length: {length}\r\n")));
            client.send(&bytes);
            let expected = if length == 0 { NONE.to_owned() } else { told(&bytes, 0) };
            assert_eq!(client.reply().body_text(), expected, "{target} {length}");
            client.send(put(target, &format!("{KNOWN}{CHUNKED}")));
            for chunk in bytes.chunks(100_000) {
                client.send(format!("{:x}\r\n", chunk.len()));
                client.send(chunk);
                client.send("\r\n");
            }
            client.send("0\r\nA: b\r\nC: d\r\n\r\n");
            assert_eq!(client.reply().body_text(), told(&bytes, 2), "{target} {length}");
        }
        let asks = format!("{KNOWN}{EXPECT}Content-Length: 5\r\n");
        client.send(put(target, &asks));
        assert_eq!(client.head().0.status, 100);
        client.send("hello");
        assert_eq!(client.reply().body_text(), told(b"hello", 0));
    }
    let records = host.records.exchanges(22);
    assert_eq!(records.iter().map(|record| record.wire_in).sum::<u64>(), client.sent);
    assert_eq!(records.iter().map(|record| record.wire_out).sum::<u64>(), client.received);
    host.end();
}

/// What is said of a request that has no body.
const NONE: &str = "500 Internal Server Error\nNone\n";

#[test]
fn what_is_wrong_with_a_body_is_said_whoever_collects_it() {
    let host = guarded(|_| ());
    for target in ["/in/file", "/open"] {
        let large = format!("{KNOWN}Content-Length: 8000001\r\n");
        assert_eq!(host.ask(put(target, &large)).head.status, 413, "{target}");
        let chunked = put(target, &format!("{KNOWN}{CHUNKED}"));
        assert_eq!(host.ask(chunked.clone() + "x\r\n").head.status, 400, "{target}");
        let mut client = host.connect();
        client.send(&chunked);
        let piece = [b"100000\r\n".as_slice(), &body(0x10_0000), b"\r\n"].concat();
        let mut sender = client.stream.try_clone().unwrap();
        let reply = std::thread::scope(|scope| {
            scope.spawn(move || while sender.write_all(&piece).is_ok() {});
            let reply = client.reply();
            client.stream.shutdown(Shutdown::Both).unwrap();
            reply
        });
        assert_eq!(reply.head.status, 413, "{target}");
    }
    host.end();
}

/// Waits until somebody takes it.
#[derive(Clone)]
struct Wait(Arc<Mutex<mpsc::Sender<Parked<()>>>>);

impl Task for Wait {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        let _ = self.0.lock().unwrap().send(done.park());
    }
}

#[test]
fn a_body_waits_for_a_guard_that_takes_its_time() {
    let (wait, waiting) = mpsc::channel();
    let wait = Wait(Arc::new(Mutex::new(wait)));
    let host = guarded(|routes| {
        routes.group("/slow", |slow| {
            slow.before(move |exchange: &mut Exchange| {
                let known = exchange.context.request().header("authorization").is_some();
                exchange.push(wait.clone(), move |(), exchange| {
                    if !known {
                        exchange.context.refuse(StatusCode::FORBIDDEN.into());
                    }
                    Ok(())
                });
            });
            slow.put("/file", tell).whole(8_000_000);
        });
    });
    let bytes = body(2_000_000);
    for (fields, expected) in [(KNOWN, told(&bytes, 0)), ("", String::from("403"))] {
        let mut client = host.connect();
        client.send(put("/slow/file", &format!("{fields}{EXPECT}Content-Length: 2000000\r\n")));
        let parked = waiting.recv_timeout(PATIENCE).unwrap();
        client.expect_silence(Duration::from_millis(20));
        parked.complete(()).unwrap();
        let reply = match expected.as_str() {
            "403" => client.reply(),
            _ => {
                assert_eq!(client.head().0.status, 100);
                client.send(&bytes);
                client.reply()
            }
        };
        assert!(reply.body_text().starts_with(&expected), "{}", reply.body_text());
    }
    // The client leaves meanwhile.
    let mut client = host.connect();
    client.send(put("/slow/file", "Content-Length: 2000000\r\n"));
    let parked = waiting.recv_timeout(PATIENCE).unwrap();
    client.reset();
    host.records.connections(3);
    assert!(!parked.is_waiting());
    host.end();
}

#[test]
fn what_runs_before_has_what_it_found_and_no_body() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let host = guarded(move |routes| {
        routes.group("/who", |who| {
            who.basic_auth("who", |_, _| true);
            who.before(move |exchange: &mut Exchange| {
                count.fetch_add(1, Ordering::Relaxed);
                assert!(matches!(exchange.context.body, RequestBody::None));
            });
            who.put("/file", |exchange| {
                let name = exchange.context.data.get::<BasicUser>().map(|user| user.0.clone());
                let length = tell(exchange)?;
                // Tasks of the handler come behind those that collected.
                exchange.push(go(move || length), move |length, exchange| {
                    exchange.context.reply = Reply::text(format!("{name:?} {length}"));
                    Ok(())
                });
                Ok::<_, HttpError>(())
            });
            who.group("/early", |early| {
                early.before(|exchange: &mut Exchange| exchange.context.json::<u32>().map(drop));
                early.put("/json", |exchange| exchange.context.json::<u32>().map(|n| n.to_string()));
            });
        });
    });
    let mut client = host.connect();
    for length in [5, 100_000] {
        client.send(put("/who/file", &format!("{KNOWN}Content-Length: {length}\r\n")));
        client.send(body(length));
        assert_eq!(client.reply().body_text(), format!("Some(\"ann\") {}", told(&body(length), 0)));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let json = format!("{KNOWN}Content-Type: application/json\r\nContent-Length: 1\r\n");
    client.send(put("/who/early/json", &json) + "7");
    assert_eq!(client.reply().head.status, 500, "the body is the handler's");
    host.end();
}

#[test]
fn who_asks_for_nothing_more_after_a_refusal_may_ask_again() {
    let host = guarded(|_| ());
    let mut client = Wire::connect(host.address);
    // A browser asks without, is told, and asks again with; on the same connection, where it had not begun to send much.
    client.send(put("/in/file", "Content-Length: 40000\r\n"));
    assert_eq!(client.reply().head.status, 401);
    client.send(body(40_000));
    client.send(put("/in/file", &format!("{KNOWN}Content-Length: 40000\r\n")));
    client.send(body(40_000));
    assert_eq!(client.reply().body_text(), told(&body(40_000), 0));
    host.end();
}
