//! The server behind TLS, with curl at the other end.

// Shared with the other tests of TLS, which use all of it.
#[allow(dead_code)]
#[path = "tls/pki.rs"]
mod pki;
#[allow(dead_code)]
#[path = "tls/raw.rs"]
mod raw;
mod support;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use pki::{Pki, pair};
use raw::RawClient;
use support::{Host, program};
use tidegate::http::{Exchange, Handler, Intake, Reply, Request, RequestBody, Server, ServerSettings};
use tidegate::net::tls::ServerTls;
use tidegate::poller::{End, PollerSettings, Reason};
use tidegate_meter::scratch::{self, Scratch};

/// Sends back what arrives, while it does; or says hello.
#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    fn intake(&self, _: &Request) -> Intake {
        Intake::Stream { max_bytes: u64::MAX }
    }

    fn handle(&self, exchange: &mut Exchange) {
        exchange.context.reply = match std::mem::take(&mut exchange.context.body) {
            RequestBody::Stream(reader) => Reply::text(reader.into_body()),
            _ => Reply::text("hello\n"),
        };
    }
}

fn run(curl: &mut Command) -> Vec<u8> {
    let output = curl.stdin(Stdio::null()).output().expect("curl runs");
    assert!(output.status.success(), "{curl:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn curl_is_served_behind_tls_and_who_speaks_no_tls_is_turned_away() {
    let scratch = Scratch::new("https").unwrap();
    let path = |name: &str| scratch.path().join(name);
    let made = rcgen::generate_simple_self_signed([String::from("localhost")]).unwrap();
    fs::write(path("chain.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let tls = ServerTls::builder()
        .certificate(path("chain.pem"), path("key.pem"))
        .alpn(["http/1.1"])
        .build()
        .unwrap();
    let host =
        Host::of(ServerSettings::default(), 1, |settings| Server::builder(Echo).tls(&tls).settings(settings));
    let url = format!("https://localhost:{}/", host.address.port());
    let curl = || {
        let mut curl = program("curl");
        curl.args(["-sS", "--max-time", "60", "--ipv4", "--cacert"]).arg(path("chain.pem")).arg(&url);
        curl
    };
    assert_eq!(run(&mut curl()), b"hello\n");
    scratch::make_file(&path("file"), 3_000_000).unwrap();
    let sent = run(curl().args(["-H", "Transfer-Encoding: chunked", "-T"]).arg(path("file")));
    assert!(sent == fs::read(path("file")).unwrap());

    // Plain HTTP where TLS is spoken: a word, and the end.
    let mut plain = host.connect();
    plain.ask("/a?b", "");
    let told = plain.reply();
    plain.expect_end();
    assert_eq!((told.head.status, told.field("connection")), (400, "close"));
    assert!(told.body_text().ends_with(" Try https://test/a?b\n"), "{}", told.body_text());
    assert_eq!(run(&mut curl()), b"hello\n");

    let (exchanges, connections) = host.records.connections(4);
    assert_eq!(exchanges.len(), 3);
    assert!(exchanges.iter().all(|record| record.end.reason == Reason::Ok));
    let turned_away: Vec<_> = connections.iter().filter(|entry| entry.exchanges == 0).collect();
    assert_eq!(turned_away.len(), 1);
    let record = &turned_away[0].record;
    assert_eq!((record.end, record.phase), (End::peer(Reason::TransportError), "handshake"));
    assert_eq!((record.wire_out, record.plain_out), (plain.received, 0));
    assert!(record.handshake.as_ref().unwrap().fault.as_ref().unwrap().contains("not TLS"));
    let figures = tls.figures();
    assert_eq!((figures.ready, figures.failed, figures.answered_plainly), (3, 1, 1));
    let large = connections.iter().find(|entry| entry.record.plain_in > 3_000_000).unwrap();
    assert!(large.record.wire_in > large.record.plain_in && large.record.wire_out > large.record.plain_out);
}

#[test]
fn the_first_head_has_its_own_time_after_a_handshake_that_has_its_own() {
    let ms = Duration::from_millis;
    let pki = Pki::new("slow");
    let settings = ServerSettings { header_timeout: ms(800), ..ServerSettings::default() };
    let config = PollerSettings { handshake_timeout: Some(ms(2_500)), ..PollerSettings::default() };
    let tls = pair(&pki).0;
    let builder = |settings| Server::builder(Echo).settings(settings).poller_settings(config).tls(&tls);
    let host = Host::of(settings, 1, builder);

    // Slow, each in its time, which is longer together than a head may take.
    let slowly = || {
        let mut client = RawClient::connect(host.address, &pki);
        let hello = client.words();
        let (first, rest) = hello.split_at(100);
        client.stream.write_all(first).unwrap();
        client.stream.set_read_timeout(Some(ms(900))).unwrap();
        assert!(client.stream.peek(&mut [0]).is_err(), "the server has nothing to say to half a hello");
        client.stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        client.stream.write_all(rest).unwrap();
        client.shake_hands();
        client
    };
    let mut served = slowly();
    served.say(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let reply = String::from_utf8(served.rest().unwrap()).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("hello\n"), "{reply}");
    let (exchanges, connections) = host.records.connections(1);
    assert_eq!((exchanges[0].end.reason, connections[0].record.end.reason), (Reason::Ok, Reason::Ok));
    assert!(connections[0].record.handshake.as_ref().unwrap().took.unwrap() >= ms(850));

    // One whose head does not come is given up, the handshake not counted; and so is half a head.
    for words in [&b""[..], b"GET / HT"] {
        let mut silent = slowly();
        let begun = std::time::Instant::now();
        silent.say(words);
        let told = String::from_utf8(silent.rest().unwrap()).unwrap();
        assert!((ms(700)..ms(2_000)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert_eq!(told.starts_with("HTTP/1.1 408 "), !words.is_empty(), "{told}");
    }
    // One that leaves in the middle of its head: the account of that begins after the handshake.
    let mut leaves = slowly();
    leaves.say(b"GET / HT");
    leaves.leave();
    leaves.rest().unwrap();
    // A handshake that never ends.
    let mut never = RawClient::connect(host.address, &pki);
    let hello = never.words();
    never.stream.write_all(&hello[..50]).unwrap();
    let mut end = Vec::new();
    std::io::Read::read_to_end(&mut never.stream, &mut end).unwrap();
    assert!(end.is_empty());
    let (exchanges, connections) = host.records.connections(5);
    let ends: Vec<_> =
        connections.iter().skip(1).map(|entry| (entry.record.end.reason, entry.record.phase)).collect();
    assert_eq!(
        ends,
        [
            (Reason::Timeout, "idle"),
            (Reason::Timeout, "request"),
            (Reason::Abort, "request"),
            (Reason::Timeout, "handshake")
        ]
    );
    assert_eq!((exchanges[1].end.reason, exchanges[2].end.reason), (Reason::Timeout, Reason::Abort));
    assert!(exchanges[2].total < ms(500), "{:?}", exchanges[2].total);
}
