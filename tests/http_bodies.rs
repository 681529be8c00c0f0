//! Request bodies: framed by length or by chunks, taken whole, read as a stream, or thrown away.
#![cfg(feature = "http")]

mod support;

use std::io::{ErrorKind, Write as _};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use support::{Host, PATIENCE, Waits, Wire};
use tidegate::http::{
    Body, BodyError, BodyReader, Exchange, Handler, Intake, Reply, Request, RequestBody, ServerSettings,
    StatusCode,
};
use tidegate::poller::Reason;
use tidegate::runtime::RuntimeHandle;
use tidegate::task::{Series, sleep};

/// Says what came. The first letter of the path says how the body is wanted: whole, as a stream, or not at all.
#[derive(Clone)]
struct Tells {
    max_bytes: u64,
}

impl Handler for Tells {
    fn intake(&self, request: &Request) -> Intake {
        let max_bytes = self.max_bytes;
        match request.target().get(1) {
            Some(b's') => Intake::Stream { max_bytes },
            Some(b'd') => Intake::Discard { max_bytes },
            _ => Intake::Whole { max_bytes },
        }
    }

    fn handle(&self, exchange: &mut Exchange) {
        let trailers = exchange.context.trailers().map_or(0, |fields| fields.iter().count());
        match std::mem::take(&mut exchange.context.body) {
            RequestBody::None => tell(exchange, None, trailers),
            RequestBody::Whole(bytes) => tell(exchange, Some(&bytes), trailers),
            RequestBody::Stream(reader) => {
                exchange.push(reader.collect(u64::MAX), move |bytes, exchange| {
                    tell(exchange, Some(&bytes?), 0);
                    Ok(())
                });
            }
        }
    }
}

fn tell(exchange: &mut Exchange, body: Option<&[u8]>, trailers: usize) {
    let request = exchange.context.request();
    let text = told(request.method_text(), request.target(), body, trailers);
    exchange.context.reply.body = text.into();
}

/// What is said of a request.
fn told(method: &[u8], target: &[u8], body: Option<&[u8]>, trailers: usize) -> String {
    let (method, target) = (String::from_utf8_lossy(method), String::from_utf8_lossy(target));
    match body {
        None => format!("{method} {target} none\n"),
        Some(bytes) => format!("{method} {target} {} {:x} {trailers}\n", bytes.len(), sum(bytes)),
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn chunked(body: &[u8], step: usize, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(step.max(1)) {
        let _ = write!(out, "{:x}\r\n", chunk.len());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    let _ = write!(out, "0\r\n{trailers}\r\n");
    out
}

fn post(target: &str, fields: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

#[test]
fn a_body_is_the_same_by_length_and_by_chunks_and_its_bytes_are_counted_as_sent() {
    let host = Host::new(Tells { max_bytes: 1 << 20 });
    let body: Vec<u8> = (0..100_000).map(|n| (n % 251) as u8).collect();
    let mut client = host.connect();
    let (mut count, mut sizes) = (0, Vec::new());
    for target in ["/w", "/s", "/d"] {
        for (fields, bytes, trailers) in [
            (format!("Content-Length: {}\r\n", body.len()), body.clone(), 0),
            (CHUNKED.to_owned(), chunked(&body, 3_000, ""), 0),
            (CHUNKED.to_owned(), chunked(&body, 99, "A: b\r\nHost: evil\r\nC: d\r\n"), 2),
            (CHUNKED.to_owned(), chunked(b"", 1, ""), 0),
        ] {
            client.send(post(target, &fields));
            client.send(&bytes);
            let seen = if bytes.len() > 5 { &body[..] } else { b"" };
            let expected = match target {
                "/d" => told(b"POST", b"/d", None, 0),
                "/s" => told(b"POST", b"/s", Some(seen), 0),
                _ => told(b"POST", b"/w", Some(seen), trailers),
            };
            assert_eq!(client.reply().body_text(), expected);
            sizes.push(bytes.len() as u64);
            count += 1;
        }
    }
    let records = host.records.exchanges(count);
    assert_eq!(records.iter().map(|record| record.req_body_bytes).collect::<Vec<_>>(), sizes);
    assert_eq!(records.iter().map(|record| record.wire_in).sum::<u64>(), client.sent);
    assert_eq!(records.iter().map(|record| record.wire_out).sum::<u64>(), client.received);
    host.end();
}

#[test]
fn what_is_too_large_is_refused_unread_or_as_soon_as_it_shows() {
    let host = Host::new(Tells { max_bytes: 1_000 });
    for target in ["/w", "/s", "/d"] {
        let reply = host.ask(post(target, "Content-Length: 1001\r\n"));
        assert_eq!((reply.head.status, reply.field("connection")), (413, "close"), "{target}");
        // Not at its end: the rest never comes.
        let mut request = post(target, CHUNKED).into_bytes();
        request.extend_from_slice(&chunked(&[b'x'; 1_001], 500, "")[..1_018]);
        let reply = host.ask(request);
        assert_eq!((reply.head.status, reply.field("connection")), (413, "close"), "{target}");
        let mut client = host.connect();
        client.send(post(target, "Content-Length: 1000\r\n") + &"x".repeat(1_000));
        assert_eq!(client.reply().head.status, 200);
    }
    assert!(
        host.records
            .exchanges(9)
            .iter()
            .all(|record| record.status != Some(413) || record.end.reason == Reason::Denied)
    );
}

#[test]
fn broken_framing_is_the_end_and_nothing_behind_it_is_a_request() {
    let host = Host::new(Tells { max_bytes: 1 << 20 });
    const BEHIND: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for target in ["/w", "/s", "/d"] {
        for (fields, body) in [
            (CHUNKED, "5\nhello\n0\n\n"),
            (CHUNKED, "5\r\nhelloX0\r\n\r\n"),
            (CHUNKED, "ffffffffffffffff1\r\n"),
            (CHUNKED, "0x5\r\nhello\r\n0\r\n\r\n"),
            (CHUNKED, "-1\r\n"),
            (CHUNKED, "0\r\nA b\r\n\r\n"),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            ("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"),
            ("Content-Length: 5, 5\r\n", "hello"),
            ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
            ("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ] {
            let reply = host.ask(post(target, fields) + body + BEHIND);
            assert_eq!(
                (reply.head.status, reply.field("connection")),
                (400, "close"),
                "{target} {fields} {body:?}"
            );
        }
        let reply = host.ask(post(target, "Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n" + BEHIND);
        assert_eq!((reply.head.status, reply.field("connection")), (501, "close"));
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(host.ask(old).head.status, 400);
    let records = host.records.exchanges(43);
    assert_eq!(records.len(), 43, "one request on each connection");
    host.end();
}

/// What the handlers of a test do, and what it tells them.
type Script = Arc<dyn Fn(&mut Exchange) + Send + Sync>;

/// Reads bodies as streams.
#[derive(Clone)]
struct Streams(Script);

impl Handler for Streams {
    fn intake(&self, _: &Request) -> Intake {
        Intake::Stream { max_bytes: u64::MAX }
    }

    fn handle(&self, exchange: &mut Exchange) {
        (self.0)(exchange);
    }
}

fn streams(script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Streams {
    Streams(Arc::new(script))
}

fn take_reader(exchange: &mut Exchange) -> Option<BodyReader> {
    match std::mem::take(&mut exchange.context.body) {
        RequestBody::Stream(reader) => Some(reader),
        _ => None,
    }
}

#[test]
fn a_reader_that_waits_stops_the_sender() {
    let (give, readers) = mpsc::channel();
    let give = Mutex::new(give);
    let host = Host::new(streams(move |exchange| {
        let request = exchange.context.request().clone();
        let _ = give.lock().unwrap().send((take_reader(exchange), request));
        // The reply is there before the body is read.
        exchange.context.reply = Reply::text("early\n");
    }));
    const LENGTH: usize = 40_000_000;
    let mut client = host.connect();
    client.send(post("/", &format!("Content-Length: {LENGTH}\r\n")));
    let (reader, request) = readers.recv_timeout(PATIENCE).unwrap();
    let reader = reader.unwrap();
    assert_eq!(request.body_length(), Some(LENGTH as u64));
    assert_eq!(client.reply().body_text(), "early\n");
    let body = vec![7_u8; 100_000];
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    let stuck = loop {
        match client.stream.write(&body) {
            Ok(n) => sent += n,
            Err(error) => break error,
        }
        assert!(sent < LENGTH / 2, "nobody reads, and yet it can be sent");
    };
    assert!(matches!(stuck.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{stuck}");
    let runtime = tidegate::runtime::Runtime::new().unwrap();
    let collects = runtime.spawn(reader.collect(u64::MAX));
    client.stream.set_write_timeout(None).unwrap();
    while sent < LENGTH {
        sent += client.stream.write(&body[..body.len().min(LENGTH - sent)]).unwrap();
    }
    let collected = collects.wait_for(PATIENCE).unwrap().unwrap().unwrap();
    assert!(collected.len() == LENGTH && collected.iter().all(|byte| *byte == 7));
    // The exchange was recorded once its body was there.
    assert_eq!(host.records.exchanges(1)[0].req_body_bytes, LENGTH as u64);
    client.ask("/", "");
    assert_eq!(client.reply().body_text(), "early\n");
    host.end();
}

/// Takes a `100 Continue`.
fn expect_continue(client: &mut Wire) {
    assert_eq!(client.head().0.status, 100);
}

const EXPECT: &str = "Expect: 100-continue\r\nContent-Length: 5\r\n";

#[test]
fn a_body_that_waits_to_be_asked_for_is_asked_for_when_it_is_wanted() {
    let host = Host::new(Tells { max_bytes: 1_000 });
    let mut client = host.connect();
    for target in ["/w", "/s"] {
        client.send(post(target, EXPECT));
        expect_continue(&mut client);
        client.send("hello");
        assert_eq!(client.reply().body_text(), told(b"POST", target.as_bytes(), Some(b"hello"), 0));
        // Who does not wait is not told.
        client.send(post(target, EXPECT) + "hello");
        let (head, _) = client.head();
        if head.status == 100 {
            assert_eq!(target, "/w", "the body was here already");
            client.head();
        }
        let length = told(b"POST", target.as_bytes(), Some(b"hello"), 0).len();
        client.take(length);
    }
    let records = host.records.exchanges(4);
    assert_eq!(records.iter().map(|record| record.wire_out).sum::<u64>(), client.received);
    assert!(
        records.iter().all(|record| record.wire_out == record.resp_header_bytes + record.resp_body_bytes)
    );
    // Refused without a word of it: not wanted, or too large.
    for (target, fields, status) in
        [("/d", EXPECT, 200), ("/w", "Expect: 100-continue\r\nContent-Length: 5000\r\n", 413)]
    {
        let reply = host.ask(post(target, fields));
        assert_eq!((reply.head.status, reply.field("connection")), (status, "close"));
    }
    host.end();
}

#[test]
fn a_stream_is_asked_for_at_the_first_read_and_not_at_all_after_the_answer() {
    let (give, readers) = mpsc::channel();
    let (waits, waiting) = Waits::new();
    let asks = Mutex::new((give, waits));
    let host = Host::new(streams(move |exchange| {
        let reader = take_reader(exchange);
        match exchange.context.request().target() {
            b"/refuse" => exchange.context.reply = Reply::error(StatusCode::UNAUTHORIZED),
            _ => {
                let (give, waits) = &*asks.lock().unwrap();
                let _ = give.send(reader);
                exchange.push(waits.clone(), |(), _| Ok(()));
            }
        }
    }));
    let reply = host.ask(post("/refuse", EXPECT));
    assert_eq!((reply.head.status, reply.field("connection")), (401, "close"));
    let mut client = host.connect();
    client.send(post("/read", EXPECT));
    let reader = readers.recv_timeout(PATIENCE).unwrap().unwrap();
    client.expect_silence(Duration::from_millis(10));
    let runtime = tidegate::runtime::Runtime::new().unwrap();
    let collects = runtime.spawn(reader.collect(10));
    expect_continue(&mut client);
    client.send("hello");
    assert_eq!(collects.wait_for(PATIENCE).unwrap().unwrap().unwrap(), b"hello");
    waiting.recv_timeout(PATIENCE).unwrap().complete(()).unwrap();
    assert_eq!(client.reply().head.status, 200);
    host.end();
}

#[test]
fn what_nobody_reads_is_drained_if_it_is_short_and_else_the_end() {
    let host = Host::new(streams(|exchange| exchange.context.reply = Reply::text("no thanks\n")));
    let mut client = host.connect();
    for (fields, body) in [
        ("Content-Length: 60000\r\n", vec![b'x'; 60_000]),
        (CHUNKED, chunked(&[b'x'; 60_000], 7_000, "A: b\r\n")),
        ("Content-Length: 1\r\n", b"x".to_vec()),
    ] {
        client.send(post("/", fields));
        // The reply does not wait for the body.
        assert_eq!(client.reply().body_text(), "no thanks\n");
        client.send(body);
    }
    assert_eq!(client.get("/").body_text(), "no thanks\n");
    let reply = host.ask(post("/", "Content-Length: 100000\r\n"));
    assert_eq!((reply.body_text().as_str(), reply.field("connection")), ("no thanks\n", "close"));
    let mut client = host.connect();
    client.send(post("/", CHUNKED));
    assert_eq!(client.reply().body_text(), "no thanks\n");
    let body = chunked(&[b'x'; 500_000], 50_000, "");
    let _ = client.stream.write_all(&body);
    client.await_close();
    let records = host.records.exchanges(6);
    assert!(records.iter().all(|record| record.end.reason == Reason::Ok), "{records:#?}");
    host.end();
}

#[test]
fn a_reply_can_be_made_of_the_body_while_it_arrives() {
    let host = Host::new(streams(|exchange| {
        if let Some(reader) = take_reader(exchange) {
            exchange.context.reply = Reply::text(reader.into_body());
        }
    }));
    for fields in ["", "Connection: close\r\n", "Expect: 100-continue\r\n"] {
        let mut client = host.connect();
        client.send(post("/", &format!("{CHUNKED}{fields}")));
        if fields.starts_with("Expect") {
            expect_continue(&mut client);
        }
        let (head, _) = client.head();
        assert_eq!(head.status, 200);
        let (mut body, mut dechunker) = (Vec::new(), Default::default());
        for round in 1..=5 {
            client.send("6\r\nround\n\r\n");
            assert!(!client.chunks_until(&mut body, &mut dechunker, 6 * round));
        }
        client.send("0\r\nSum: 1\r\n\r\n");
        assert!(client.chunks_until(&mut body, &mut dechunker, usize::MAX));
        assert_eq!(body, "round\n".repeat(5).as_bytes());
        assert_eq!(dechunker.take_trailers().unwrap().get("sum"), Some(&b"1"[..]));
        if fields.starts_with("Connection") {
            client.expect_end();
        } else {
            client.ask("/next", "");
            assert_eq!(client.reply().head.status, 200);
        }
    }
    host.end();
}

#[test]
fn a_body_has_its_own_time_between_its_pieces_and_in_all() {
    let short = Duration::from_millis(150);
    let settings = ServerSettings { body_timeout: short, ..ServerSettings::default() };
    let host = Host::with(settings, Tells { max_bytes: 1_000 });
    for target in ["/w", "/s", "/d"] {
        let mut client = host.connect();
        let started = Instant::now();
        client.send(post(target, "Content-Length: 5\r\n") + "ab");
        let reply = client.reply();
        assert_eq!((reply.head.status, reply.field("connection")), (408, "close"), "{target}");
        client.expect_end();
        assert!(started.elapsed() >= short);
        // Longer in all, and never that long between two.
        let mut client = host.connect();
        client.send(post(target, "Content-Length: 5\r\n"));
        for byte in ["h", "e", "l", "l", "o"] {
            client.expect_silence(short / 3);
            client.send(byte);
        }
        assert_eq!(client.reply().head.status, 200, "{target}");
    }
    let settings = ServerSettings { request_timeout: Some(short), ..ServerSettings::default() };
    let host = Host::with(settings, Tells { max_bytes: 1_000 });
    let mut client = host.connect();
    client.send(post("/w", "Content-Length: 100\r\n"));
    while client.send_if_open(b"x", Duration::from_millis(20)) {}
    assert_eq!(host.records.exchanges(1)[0].status, Some(408));
}

#[test]
fn a_reader_learns_why_its_body_does_not_come() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let settings = ServerSettings { body_timeout: Duration::from_millis(100), ..ServerSettings::default() };
    let host = Host::with(
        settings,
        streams(move |exchange| {
            let Some(reader) = take_reader(exchange) else { return };
            let tell = tell.lock().unwrap().clone();
            let runtime = RuntimeHandle::of_poller().unwrap();
            // Aside, so that the exchange's end does not end it.
            runtime
                .start(Series::new(()).then(reader.collect(u64::MAX), move |collected, _| {
                    let _ = tell.send(collected.map(|_| ()));
                    Ok(())
                }))
                .detach();
            exchange.push(sleep(PATIENCE), |(), _| Ok(()));
        }),
    );
    for (body, then, error) in [
        ("5\r\nhel", "wait", BodyError::TimedOut),
        ("x\r\n", "wait", BodyError::Malformed),
        ("5\r\nhel", "half-close", BodyError::Disconnected),
        ("5\r\nhel", "reset", BodyError::Disconnected),
    ] {
        let mut client = host.connect();
        client.send(post("/", CHUNKED) + body);
        match then {
            "half-close" => client.half_close(),
            "reset" => client.reset(),
            _ => {}
        }
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Err(error), "{body:?} {then}");
    }
    let (exchanges, mut connections) = host.records.connections(4);
    assert_eq!(
        exchanges.iter().map(|record| record.status).collect::<Vec<_>>(),
        [Some(408), Some(400), None, None]
    );
    // In the order in which they began: those that were answered linger, and may end last.
    connections.sort_by_key(|entry| entry.record.conn_id);
    assert!(connections[2..].iter().all(|entry| entry.record.end.reason == Reason::Abort));
    host.end();
}

#[test]
fn the_last_of_so_many_requests_says_so() {
    let settings = ServerSettings { max_requests: Some(3), ..ServerSettings::default() };
    let host = Host::with(settings, Tells { max_bytes: 10 });
    let mut client = host.connect();
    for nth in 1..=3 {
        let reply = client.get("/w");
        assert_eq!(reply.field("connection"), if nth == 3 { "close" } else { "" });
    }
    client.expect_end();
    let (exchanges, connections) = host.records.connections(1);
    assert_eq!((exchanges.len(), connections[0].record.end.reason), (3, Reason::Ok));
}

/// One request of a random conversation: its bytes, and what is to be answered.
fn random_request(random: &mut fastrand::Rng) -> (Vec<u8>, String) {
    let target = ["/w", "/s", "/d"][random.usize(..3)];
    let method = ["POST", "PUT", "QUERY", "GET"][random.usize(..4)];
    let length = [0, 1, 10, 1_000, 70_000][random.usize(..5)];
    let body: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
    let (fields, bytes, trailers) = match random.u8(..3) {
        0 => (String::new(), Vec::new(), None),
        1 => (format!("Content-Length: {length}\r\n"), body.clone(), Some(0)),
        _ => {
            let count = random.usize(..3);
            let step = [1, 13, 5_000][random.usize(..3)];
            (CHUNKED.to_owned(), chunked(&body, step, &"A: b\r\n".repeat(count)), Some(count))
        }
    };
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes();
    request.extend_from_slice(&bytes);
    let has_body = trailers.is_some() && !bytes.is_empty();
    let seen = match (target, has_body) {
        ("/d", _) | (_, false) => told(method.as_bytes(), target.as_bytes(), None, 0),
        ("/s", true) => told(method.as_bytes(), target.as_bytes(), Some(&body), 0),
        (_, true) => told(method.as_bytes(), target.as_bytes(), Some(&body), trailers.unwrap_or(0)),
    };
    (request, seen)
}

#[test]
fn however_a_conversation_is_cut_each_request_gets_its_answer() {
    let seed =
        std::env::var("TIDEGATE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let host = Host::new(Tells { max_bytes: 1 << 20 });
    let mut count = 0;
    for _ in 0..40 {
        let (requests, answers): (Vec<_>, Vec<_>) =
            (0..random.usize(1..8)).map(|_| random_request(&mut random)).unzip();
        count += answers.len();
        let client = host.connect();
        let all = requests.concat();
        let mut rest = all.as_slice();
        let mut sender = client.stream.try_clone().unwrap();
        let pieces: Vec<&[u8]> = std::iter::from_fn(|| {
            let most = [1, 7, 100, 5_000, 100_000][random.usize(..5)];
            let (piece, left) = rest.split_at(random.usize(1..=most).min(rest.len()));
            rest = left;
            (!piece.is_empty()).then_some(piece)
        })
        .take(2_000)
        .collect();
        let mut client = client;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for piece in pieces {
                    sender.write_all(piece).unwrap();
                }
                sender.write_all(rest).unwrap();
            });
            for answer in &answers {
                let reply = client.reply();
                assert_eq!((reply.head.status, reply.body_text()), (200, answer.clone()));
            }
        });
    }
    let records = host.records.exchanges(count);
    assert!(records.iter().all(|record| record.end.reason == Reason::Ok));
    host.end();
}

#[test]
fn an_empty_reply_has_no_body() {
    let host = Host::new(|exchange: &mut Exchange| exchange.context.reply.body = Body::Empty);
    let mut client = host.connect();
    assert_eq!(client.get("/").field("content-length"), "0");
    host.end();
}
