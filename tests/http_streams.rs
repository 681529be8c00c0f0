//! Replies that are made while they are sent: framing, ends good and bad, clients that leave, and the pace of one reply.
#![cfg(feature = "http")]

mod support;

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use support::{Host, PATIENCE, Waits, Wire, await_that};
use tidegate::http::body::{BodySource, BodyWaker};
use tidegate::http::codec::dechunk::{Dechunker, Piece};
use tidegate::http::{
    BodyWriter, Exchange, Fields, Handler, Reply, ServerSettings, StatusCode, StreamBody, body_stream,
};
use tidegate::net::Pacing;
use tidegate::poller::budget::KeyedBudgets;
use tidegate::poller::{Budget, Limit, Pull, Reason, Who};
use tidegate::runtime::Runtime;
use tidegate::task::sleep;

/// A handler that streams, and the writers of its streams.
fn streaming(
    make: impl Fn(&mut Exchange, StreamBody) + Clone + Send + 'static,
) -> (impl Handler + Clone + Send + 'static, mpsc::Receiver<BodyWriter>) {
    let (give, writers) = mpsc::channel();
    let handler = move |exchange: &mut Exchange| {
        let (writer, body) = body_stream(64 * 1024);
        make(exchange, body);
        let _ = give.send(writer);
    };
    (handler, writers)
}

fn plain(exchange: &mut Exchange, body: StreamBody) {
    exchange.context.reply = Reply::text(body);
}

fn next(writers: &mpsc::Receiver<BodyWriter>) -> BodyWriter {
    writers.recv_timeout(PATIENCE).expect("the handler is called")
}

#[test]
fn a_stream_is_framed_as_its_client_understands_it() {
    let (handler, writers) = streaming(|exchange, body| {
        let body = match exchange.context.request().target() {
            b"/length" => body.with_len(10),
            _ => body,
        };
        exchange.context.reply = Reply::text(body);
    });
    let host = Host::new(handler);
    let runtime = Runtime::new().unwrap();
    let write = |writer: BodyWriter| {
        runtime.run(writer.send("hello")).unwrap().unwrap();
        runtime.run(writer.send("world")).unwrap().unwrap();
        let mut trailers = Fields::default();
        trailers.add("Sum", 7);
        trailers.add("Content-Length", 7);
        writer.finish_with(trailers);
    };
    let mut client = host.connect();
    client.ask("/", "");
    write(next(&writers));
    let (reply, trailers) = client.chunked_reply();
    assert_eq!((reply.body_text().as_str(), trailers.as_slice()), ("helloworld", &b"Sum: 7\r\n"[..]));
    client.ask("/length", "");
    write(next(&writers));
    let reply = client.reply();
    assert_eq!((reply.body_text().as_str(), reply.field("content-length")), ("helloworld", "10"));
    // HEAD wants only the head; the stream is over before it began.
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.bodiless().field("transfer-encoding"), "chunked");
    let unread = next(&writers);
    runtime.run(unread.closed()).unwrap();
    // An older client learns the end by the end.
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    write(next(&writers));
    let reply = client.reply();
    assert_eq!((reply.body_text().as_str(), reply.field("transfer-encoding")), ("helloworld", ""));
    assert_eq!(reply.field("connection"), "close");
    client.expect_end();
    let records = host.records.exchanges(4);
    assert_eq!(records.iter().map(|record| record.wire_out).sum::<u64>(), client.received);
    // A chunk or two, the last one, and what is behind it, as sent: a size may have leading zeros.
    assert!((20..60).contains(&records[0].resp_body_bytes), "{}", records[0].resp_body_bytes);
    assert_eq!(
        (records[1].resp_body_bytes, records[2].resp_body_bytes, records[3].resp_body_bytes),
        (10, 0, 10)
    );
    host.end();
}

#[test]
fn what_has_no_body_takes_none_of_the_stream() {
    let (handler, writers) = streaming(|exchange, body| {
        let status = match exchange.context.request().target() {
            b"/204" => StatusCode::NO_CONTENT,
            _ => StatusCode::NOT_MODIFIED,
        };
        exchange.context.reply = Reply::new(status).body(body);
    });
    let host = Host::new(handler);
    let mut client = host.connect();
    let runtime = Runtime::new().unwrap();
    for path in ["/204", "/304"] {
        client.ask(path, "");
        let reply = client.bodiless();
        assert_eq!((reply.field("transfer-encoding"), reply.field("content-length")), ("", ""));
        runtime.run(next(&writers).closed()).unwrap();
    }
    host.end();
}

/// Sends what it is told to, a little at a time.
struct Counts {
    left: u64,
    fails: bool,
}

impl BodySource for Counts {
    fn attach(&mut self, _: BodyWaker) {}

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let part = self.left.min(max as u64);
        out.resize(out.len() + part as usize, b'x');
        self.left -= part;
        match self.left {
            0 if self.fails => Pull::Failed,
            0 => Pull::End,
            _ => Pull::More,
        }
    }
}

#[test]
fn a_source_is_pulled_as_fast_as_the_client_takes_it() {
    const BYTES: u64 = 30_000_000;
    let host = Host::new(|exchange: &mut Exchange| {
        exchange.context.reply =
            Reply::text(StreamBody::new(Counts { left: BYTES, fails: false }).with_len(BYTES));
    });
    let mut client = Wire::connect_with_window(host.address, 8_192);
    client.ask("/", "");
    let (head, _) = client.head();
    assert_eq!(head.length, Some(BYTES));
    // The slowness itself.
    std::thread::sleep(Duration::from_millis(100));
    client.discard(BYTES as usize);
    let record = &host.records.exchanges(1)[0];
    assert_eq!((record.resp_body_bytes, record.end.reason), (BYTES, Reason::Ok));
    assert!(record.pauses.blocked_ns > 50_000_000, "{record:?}");
    host.end();
}

#[test]
fn a_stream_that_fails_or_is_given_up_is_cut() {
    for version in ["1.1", "1.0"] {
        let host = Host::new(|exchange: &mut Exchange| {
            exchange.context.reply = Reply::text(StreamBody::new(Counts { left: 5_000, fails: true }));
        });
        let (handler, writers) = streaming(plain);
        let other = Host::new(handler);
        for (host, given_up) in [(host, false), (other, true)] {
            let mut client = host.connect();
            client.send(format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"));
            if given_up {
                let writer = next(&writers);
                writer.try_send("some").unwrap();
                assert_eq!(client.head().0.status, 200);
                drop(writer);
            }
            assert!(!client.await_close(), "a reset: FIN would say that it was all");
            let (exchanges, connections) = host.records.connections(1);
            let end = exchanges[0].end;
            assert_eq!(
                (end.who, end.reason, exchanges[0].phase),
                (Who::Local, Reason::SourceFailed, "reply")
            );
            assert_eq!(connections[0].record.end, end);
            assert_eq!(exchanges[0].wire_out, connections[0].record.wire_out);
        }
    }
}

#[test]
fn who_makes_a_stream_learns_at_once_that_its_client_has_left() {
    let (handler, writers) = streaming(plain);
    let host = Host::new(handler);
    let runtime = Runtime::new().unwrap();
    for how in ["closes", "resets"] {
        let mut client = host.connect();
        client.ask("/", "");
        let writer = next(&writers);
        writer.try_send("some").unwrap();
        client.head();
        // All of it has come: from then on there is nothing to send.
        client.chunks_until(&mut Vec::new(), &mut Dechunker::default(), 4);
        let closed = runtime.spawn(writer.closed());
        assert!(!closed.is_done());
        if how == "resets" {
            client.reset()
        } else {
            drop(client)
        }
        // Nothing is written meanwhile: the stream is starved.
        closed.wait_for(PATIENCE).unwrap().unwrap();
        assert!(writer.is_closed());
    }
    let (exchanges, _) = host.records.connections(2);
    for record in exchanges {
        assert_eq!((record.end.who, record.end.reason, record.phase), (Who::Peer, Reason::Abort, "reply"));
        assert!(record.pauses.starved_ns > 0, "{record:?}");
    }
    host.end();
}

#[test]
fn who_works_on_an_answer_is_stopped_when_its_client_has_left() {
    struct Tells(mpsc::Sender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (tell, told) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let host = Host::new(move |exchange: &mut Exchange| {
        let tells = Tells(tell.clone());
        let _ = begin.send(());
        exchange.push(sleep(PATIENCE * 10), move |(), _| {
            drop(tells);
            Ok(())
        });
    });
    for how in ["closes", "resets"] {
        let mut client = host.connect();
        client.ask("/", "");
        begun.recv_timeout(PATIENCE).unwrap();
        if how == "resets" {
            client.reset()
        } else {
            drop(client)
        }
        told.recv_timeout(PATIENCE).expect("the series ends");
    }
    let (exchanges, _) = host.records.connections(2);
    assert!(exchanges.iter().all(|record| (record.end.who, record.end.reason) == (Who::Peer, Reason::Abort)));
    host.end();
}

#[test]
fn a_client_that_only_asks_no_more_is_served() {
    let (waits, waiting) = Waits::new();
    let (handler, writers) = streaming(move |exchange, body| {
        exchange.push(waits.clone(), |(), exchange| {
            exchange.context.reply = Reply::text(body);
            Ok(())
        });
    });
    let host = Host::new(handler);
    let runtime = Runtime::new().unwrap();
    for (version, early) in [("1.1", true), ("1.1", false), ("1.0", true), ("1.0", false)] {
        let mut client = host.connect();
        client.send(format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"));
        let answer = waiting.recv_timeout(PATIENCE).unwrap();
        if early {
            // Before the reply: it may have left, for all that is known.
            client.half_close();
            client.await_read();
        }
        answer.complete(()).unwrap();
        let writer = next(&writers);
        runtime.run(writer.send("first ")).unwrap().unwrap();
        let mut head = client.head();
        if version == "1.1" && early {
            assert_eq!(head.0.status, 100, "a word that means nothing, to see whether it is there");
            head = client.head();
        }
        assert_eq!(head.0.status, 200);
        if !early {
            client.half_close();
            // A stream to HTTP/1.0 has no byte to ask with: its end of the connection is not looked at meanwhile.
            if version == "1.1" {
                client.await_read();
            }
        }
        runtime.run(writer.send("second")).unwrap().unwrap();
        writer.finish();
        let all = client.drain();
        let body = if version == "1.0" {
            all
        } else {
            let (mut rest, mut body) = (all.as_slice(), Vec::new());
            let mut dechunker = Dechunker::default();
            while let Piece::Data(data) = dechunker.next(&mut rest).unwrap() {
                body.extend_from_slice(data);
            }
            assert!(dechunker.is_done() && rest.is_empty());
            body
        };
        assert_eq!(String::from_utf8(body).unwrap(), "first second");
    }
    let (exchanges, connections) = host.records.connections(4);
    assert!(exchanges.iter().all(|record| record.end.reason == Reason::Ok), "{exchanges:#?}");
    for (exchange, connection) in exchanges.iter().zip(&connections) {
        assert_eq!(exchange.wire_out, connection.record.wire_out);
    }
    host.end();
}

#[test]
fn a_stream_with_nothing_to_say_outlives_the_send_timeout_and_what_is_behind_it_waits() {
    let (handler, writers) = streaming(|exchange, body| match exchange.context.request().target() {
        b"/stream" => plain(exchange, body),
        _ => exchange.context.reply = Reply::text("behind\n"),
    });
    let short = Duration::from_millis(100);
    let settings = ServerSettings {
        send_timeout: short,
        idle_timeout: short,
        header_timeout: short,
        ..ServerSettings::default()
    };
    let host = Host::with(settings, handler);
    let mut client = host.connect();
    client.ask("/stream", "");
    client.ask("/behind", "");
    let writer = next(&writers);
    writer.try_send("a").unwrap();
    assert_eq!(client.head().0.status, 200);
    let (mut body, mut dechunker) = (Vec::new(), Default::default());
    client.chunks_until(&mut body, &mut dechunker, 1);
    client.expect_silence(short * 4);
    writer.try_send("b").unwrap();
    writer.finish();
    client.chunks_until(&mut body, &mut dechunker, usize::MAX);
    assert_eq!(body, b"ab");
    assert_eq!(client.reply().body_text(), "behind\n");
    let records = host.records.exchanges(2);
    assert!(records[0].pauses.starved_ns >= 300_000_000, "{:?}", records[0]);
    assert!(records[1].pauses.starved_ns < 100_000_000 && records[1].started < records[0].started + short);
    host.end();
}

#[test]
fn a_full_stream_stops_whoever_writes_it() {
    let (handler, writers) = streaming(plain);
    let host = Host::new(handler);
    let mut client = Wire::connect_with_window(host.address, 8_192);
    client.ask("/", "");
    let writer = next(&writers);
    let mut sent = 0_usize;
    let deadline = Instant::now() + PATIENCE;
    // Full for a while, and not only until the poller has had its turn.
    let mut full_since = None;
    while full_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(200)) {
        match writer.try_send(vec![b'x'; 10_000]) {
            Ok(()) => (sent, full_since) = (sent + 10_000, None),
            Err(_) => _ = full_since.get_or_insert_with(Instant::now),
        }
        assert!(sent < 50_000_000 && Instant::now() < deadline);
    }
    writer.finish();
    assert_eq!(client.chunked_reply().0.body.len(), sent);
    host.end();
}

#[test]
fn one_reply_has_a_pace_and_the_next_one_the_connections_own() {
    let limit = Limit::new("reply", Some(400_000));
    let budget = Budget::builder("route").rate(400_000).build();
    let (of_reply, of_route) = (limit.clone(), budget.clone());
    let host = Host::new(move |exchange: &mut Exchange| {
        let reply = Reply::text(vec![b'x'; 200_000]);
        exchange.context.reply = match exchange.context.request().target() {
            b"/limit" => reply.limit(&of_reply),
            b"/budget" => reply.budget(&of_route),
            b"/both" => reply.budget(&of_route).limit(&of_reply).rate_after(150_000),
            b"/after" => reply.limit(&of_reply).rate_after(1_000_000),
            b"/accel" => {
                let mut reply = reply.header("X-Accel-Limit-Rate", 400_000);
                reply.obey_accel();
                reply
            }
            _ => reply,
        };
    });
    let mut client = host.connect();
    // All at once: none waits for its own, nor goes with another's.
    let paths = ["/", "/limit", "/", "/budget", "/", "/both", "/after", "/accel", "/"];
    for path in paths {
        client.ask(path, "");
    }
    for _ in paths {
        assert_eq!(client.reply().body.len(), 200_000);
    }
    let records = host.records.exchanges(paths.len());
    for (path, record) in paths.iter().zip(records) {
        let took = record.transfer.unwrap();
        let throttled = Duration::from_nanos(record.pauses.throttled_ns);
        match *path {
            "/limit" | "/budget" | "/accel" | "/both" => {
                assert!(
                    took > Duration::from_millis(250) && throttled > Duration::from_millis(200),
                    "{path} {record:?}"
                );
            }
            _ => assert!(throttled < Duration::from_millis(50), "{path} {record:?}"),
        }
    }
    host.end();
}

#[test]
fn the_connections_own_limit_is_back_after_a_reply_without() {
    let free = Limit::new("free", None);
    let pacing = Pacing::builder().connection(400_000).build();
    let settings = ServerSettings { pacing, ..ServerSettings::default() };
    let host = Host::with(settings, move |exchange: &mut Exchange| {
        let reply = Reply::text(vec![b'x'; 200_000]);
        exchange.context.reply = match exchange.context.request().target() {
            b"/free" => reply.limit(&free),
            _ => reply,
        };
    });
    let mut client = host.connect();
    for path in ["/free", "/", "/free", "/"] {
        assert_eq!(client.get(path).body.len(), 200_000);
    }
    let took: Vec<_> = host.records.exchanges(4).iter().map(|record| record.transfer.unwrap()).collect();
    for pair in took.chunks(2) {
        assert!(pair[0] < Duration::from_millis(200) && pair[1] > Duration::from_millis(300), "{took:?}");
    }
    host.end();
}

#[test]
fn a_key_in_the_head_has_a_budget_that_its_connections_share() {
    let keys = KeyedBudgets::new("key", Some(600_000), None, Duration::from_secs(60));
    let of_keys = keys.clone();
    let host = Host::new(move |exchange: &mut Exchange| {
        let key = exchange.context.request().header("x-api-key").map(<[u8]>::to_vec);
        let reply = Reply::text(vec![b'x'; 200_000]);
        let now = exchange.context.now();
        exchange.context.reply = match key {
            Some(key) => reply.budget(&of_keys.get(&String::from_utf8_lossy(&key).into_owned(), now)),
            None => Reply::error(StatusCode::UNAUTHORIZED),
        };
    });
    let download = |key: &str, connections: usize| {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| {
                    let mut client = host.connect();
                    client.ask("/", &format!("X-Api-Key: {key}\r\n"));
                    assert_eq!(client.reply().body.len(), 200_000);
                });
            }
        });
        started.elapsed()
    };
    let (shared, alone) = (download("a", 3), download("b", 1));
    assert!(shared > Duration::from_millis(700), "{shared:?}");
    assert!(alone < Duration::from_millis(600), "{alone:?}");
    assert_eq!(host.connect().get("/").head.status, 401);
    host.end();
}

#[test]
fn a_shutdown_is_told_to_streams_and_cuts_those_that_do_not_end() {
    let (handler, writers) = streaming(plain);
    let host = Host::new(handler);
    let runtime = Runtime::new().unwrap();
    let mut clients: Vec<Wire> = (0..2).map(|_| host.connect()).collect();
    let mut streams = Vec::new();
    for client in &mut clients {
        client.ask("/", "");
        let writer = next(&writers);
        writer.try_send("some ").unwrap();
        assert_eq!(client.head().0.status, 200);
        streams.push(writer);
    }
    let (keeps, ends) = (streams.remove(0), streams.remove(0));
    let told = runtime.spawn(ends.shutting_down());
    assert!(!told.is_done() && !ends.is_shutting_down());
    host.stop(Duration::from_millis(400));
    told.wait_for(PATIENCE).unwrap().unwrap();
    assert!(ends.is_shutting_down() && !ends.is_closed());
    ends.try_send("last").unwrap();
    ends.finish();
    let mut client = clients.remove(1);
    let (mut body, mut dechunker) = (Vec::new(), Default::default());
    assert!(client.chunks_until(&mut body, &mut dechunker, usize::MAX));
    assert_eq!(body, b"some last");
    client.expect_end();
    runtime.run(keeps.closed()).unwrap();
    assert!(!clients.remove(0).await_close());
    let (exchanges, _) = host.records.connections(2);
    let mut reasons: Vec<_> = exchanges.iter().map(|record| record.end.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["ok", "shutdown"]);
}

#[test]
fn a_server_lives_on_a_runtime_that_is_there_already() {
    use tidegate::http::Server;
    use tidegate::net::Listeners;
    let runtime = Runtime::builder().pollers(2).build().unwrap();
    let bind = || Listeners::bind(([127, 0, 0, 1], 0).into(), 2).unwrap();
    let handler = |exchange: &mut Exchange| exchange.context.reply = Reply::text("here\n");
    let serving = Server::builder(handler).start_on(&runtime.handle(), bind()).unwrap();
    let other = Server::builder(handler).start_on(&runtime.handle(), bind()).unwrap();
    let (mut client, mut beside) = (Wire::connect(serving.address()), Wire::connect(other.address()));
    assert_eq!(client.get("/").body_text(), "here\n");
    serving.close();
    await_that("the listeners are closed", || std::net::TcpStream::connect(serving.address()).err());
    // Who is in stays in.
    assert_eq!(
        (client.get("/").body_text(), beside.get("/").body_text()),
        ("here\n".into(), "here\n".into())
    );
    let seen = Arc::new(Mutex::new(None));
    let (tell, handle) = (seen.clone(), runtime.handle());
    let starts = move || {
        *tell.lock().unwrap() = Some(Server::builder(handler).start_on(&handle, bind()).is_err());
    };
    runtime.run(tidegate::task::go(starts)).unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(true), "it would wait for itself");
    runtime.shutdown(PATIENCE).unwrap();
    client.expect_end();
}
