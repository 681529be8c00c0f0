//! Exchanges that leave nothing behind, because nobody records: on the wire they are like any others.
#![cfg(feature = "http")]

mod support;

use std::time::{Duration, Instant};

use support::{Host, Wire};
use tidegate::http::{Exchange, Reply, ServerSettings, StatusCode, body_stream};
use tidegate::net::Pacing;
use tidegate::task::go;

/// All manners of replies: at once and later, short and long, kept and closing.
fn handle(exchange: &mut Exchange) {
    let context = &mut exchange.context;
    let target = String::from_utf8_lossy(context.request().target()).into_owned();
    context.reply = match target.as_str() {
        "/nothing" => Reply::new(StatusCode::NO_CONTENT),
        "/not-modified" => Reply::new(StatusCode::NOT_MODIFIED).header("ETag", "\"1\""),
        "/short" => Reply::text("short\n".to_owned()),
        "/4096" => Reply::text(vec![b'x'; 4096]),
        "/4097" => Reply::text(vec![b'y'; 4097]),
        "/long" => Reply::text(vec![b'z'; 300_000]),
        "/close" => Reply::text("bye\n").closing(),
        "/after" => Reply::text("after\n").rate_after(1_000_000),
        "/missing" => Reply::error(StatusCode::NOT_FOUND),
        "/panic" => panic!("of this handler"),
        "/interim" => Reply::new(StatusCode::CONTINUE),
        "/emptied" => Reply::new(StatusCode::RESET_CONTENT).body("nothing of this goes"),
        "/stream" => {
            let (writer, body) = body_stream(1_000);
            let _ = writer.try_send(b"streamed\n".to_vec());
            writer.finish();
            Reply::text(body)
        }
        "/later" => {
            exchange.push(go(|| "later\n"), |text, exchange| Ok(exchange.context.reply = Reply::text(text)));
            return;
        }
        "/refused-later" => {
            exchange.push(go(|| ()), |(), _| Err("no".into()));
            return;
        }
        _ => Reply::text(format!("{target}\n")),
    };
}

/// What came, without what differs from one moment to the next; a long row of one letter is its length.
fn in_short(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut short = String::new();
    for line in text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")) {
        let letter = line.chars().next().filter(|letter| matches!(letter, 'x' | 'y' | 'z'));
        let row = letter.map_or(0, |letter| line.len() - line.trim_start_matches(letter).len());
        // How many zeros are before the size of a chunk depends on how large it could have been.
        let is_size = line.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit());
        let line = if is_size { line.trim_start_matches('0') } else { line };
        if row > 0 {
            short.push_str(&format!("({row})"));
        }
        short.push_str(&line[row..]);
    }
    short
}

/// Some requests, one after another, the last of which closes.
fn conversation(random: &mut fastrand::Rng) -> Vec<u8> {
    const TARGETS: [&str; 15] = [
        "/nothing",
        "/not-modified",
        "/short",
        "/4096",
        "/4097",
        "/long",
        "/after",
        "/missing",
        "/stream",
        "/later",
        "/refused-later",
        "/another",
        "/panic",
        "/interim",
        "/emptied",
    ];
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..12) {
        let target = TARGETS[random.usize(..TARGETS.len())];
        let host = "Host: test\r\n";
        let request = match random.usize(..10) {
            0 => format!("HEAD {target} HTTP/1.1\r\n{host}\r\n"),
            1 => format!("POST {target} HTTP/1.1\r\n{host}Content-Length: 4\r\n\r\nbody"),
            2 => format!(
                "POST {target} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
            ),
            3 => format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            4 => format!("\r\nGET {target} HTTP/1.1\r\n{host}\r\n"),
            5 => format!("TRACE {target} HTTP/1.1\r\n{host}\r\n"),
            _ => format!("GET {target} HTTP/1.1\r\n{host}A-Field: with some value\r\n\r\n"),
        };
        bytes.extend_from_slice(request.as_bytes());
    }
    bytes.extend_from_slice(match random.usize(..4) {
        0 => b"GET /close HTTP/1.1\r\nHost: test\r\n\r\n",
        1 => b"GET / HTTP/1.1\r\n\r\n",
        2 => b"garbage\r\n\r\n",
        _ => b"GET /short HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
    });
    bytes
}

/// Sends it in pieces, cut where `random` says, and takes all that comes.
fn converse(host: &Host, bytes: &[u8], mut random: fastrand::Rng) -> String {
    let mut client = host.connect();
    let mut sender = client.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut rest = bytes;
            while !rest.is_empty() {
                // Often just as far as a request goes, as clients do that wait for their answer.
                let whole =
                    rest.windows(4).position(|end| end == b"\r\n\r\n").map_or(rest.len(), |at| at + 4);
                let piece = if random.bool() { whole } else { random.usize(1..=rest.len()) };
                let (now, later) = rest.split_at(piece.min(rest.len()));
                if std::io::Write::write_all(&mut sender, now).is_err() {
                    return;
                }
                rest = later;
                std::thread::yield_now();
            }
        });
        in_short(&client.drain())
    })
}

#[test]
fn what_goes_on_the_wire_is_the_same_whether_anybody_records_or_not() {
    let seed = fastrand::u64(..);
    let limited = || Pacing::builder().connection(1 << 40).total(1 << 40);
    let paced =
        || ServerSettings { pacing: limited().build(), rate_after: 1_000, ..ServerSettings::default() };
    let hosts = [
        Host::with(ServerSettings::default(), handle),
        Host::unrecorded(ServerSettings::default(), handle),
        Host::unrecorded(ServerSettings { pacing: limited().build(), ..ServerSettings::default() }, handle),
        Host::unrecorded(paced(), handle),
    ];
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..150 {
        let bytes = conversation(&mut random);
        let cuts = random.fork();
        let [first, others @ ..] = hosts.each_ref().map(|host| converse(host, &bytes, cuts.clone()));
        for other in others {
            let asked = String::from_utf8_lossy(&bytes);
            assert_eq!(first, other, "seed {seed}, round {round}, asked {asked:?}");
        }
    }
}

#[test]
fn a_panic_costs_its_own_exchange_only() {
    let host = Host::unrecorded(ServerSettings::default(), handle);
    let (mut other, mut client) = (host.connect(), host.connect());
    assert_eq!(other.get("/short").body_text(), "short\n");
    assert_eq!(client.get("/panic").head.status, 500);
    assert_eq!(client.get("/short").body_text(), "short\n");
    assert_eq!(other.get("/short").body_text(), "short\n");
    host.end();
}

/// Gives connections so little that a reply takes long.
fn slow(rate: u64, idle_timeout: Duration) -> ServerSettings {
    let pacing = Pacing::builder().connection(rate).build();
    ServerSettings { pacing, idle_timeout, ..ServerSettings::default() }
}

#[test]
fn a_reply_that_takes_longer_than_a_client_may_be_idle_goes_whole() {
    let host = Host::unrecorded(slow(3_000, Duration::from_millis(200)), handle);
    let mut client = host.connect();
    let started = Instant::now();
    assert_eq!(client.get("/4096").body.len(), 4096);
    assert!(started.elapsed() > Duration::from_millis(600), "{:?}", started.elapsed());
    // And then its time runs.
    assert!(client.await_close());
    host.end();
}

#[test]
fn a_reply_that_is_going_when_the_server_stops_goes_whole() {
    let host = Host::unrecorded(slow(2_000, Duration::from_secs(75)), handle);
    let mut client = host.connect();
    client.ask("/4096", "");
    // Longer ago than a quiet connection is waited for.
    let first = client.take(2_500);
    host.stop(Duration::from_secs(20));
    let rest = client.drain();
    let all = [first, rest].concat();
    assert!(all.ends_with(&[b'x'; 4096]), "{} bytes", all.len());
    host.end();
}

#[test]
fn bytes_that_one_reply_made_free_are_not_the_next_ones() {
    let host = Host::unrecorded(slow(4_000, Duration::from_secs(75)), handle);
    let mut client: Wire = host.connect();
    let started = Instant::now();
    client.get("/after");
    assert!(started.elapsed() < Duration::from_millis(500));
    let started = Instant::now();
    client.get("/4096");
    assert!(started.elapsed() > Duration::from_millis(600), "{:?}", started.elapsed());
    host.end();
}
