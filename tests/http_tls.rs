//! The server behind TLS, with curl at the other end.

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use support::{Records, Wire, program};
use tidegate::http::{ExchangeContext, Handler, Intake, Reply, Request, RequestBody, Server};
use tidegate::net::Listeners;
use tidegate::net::tls::ServerTls;
use tidegate::poller::Reason;
use tidegate::record::{Sink, Sinks};
use tidegate::task::Series;
use tidegate_meter::scratch::{self, Scratch};

/// Sends back what arrives, while it does; or says hello.
#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    fn intake(&self, _: &Request) -> Intake {
        Intake::Stream { max_bytes: u64::MAX }
    }

    fn handle(&self, exchange: &mut Series<ExchangeContext>) {
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
    let records = Records::default();
    let listeners = Listeners::bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
    let sinks = Sinks::new([Arc::new(records.clone()) as Arc<dyn Sink>]);
    let server = Server::builder(Echo).sinks(sinks).tls(&tls).start(listeners).unwrap();

    let url = format!("https://localhost:{}/", server.address().port());
    let curl = || {
        let mut curl = program("curl");
        curl.args(["-sS", "--max-time", "60", "--ipv4", "--cacert"]).arg(path("chain.pem")).arg(&url);
        curl
    };
    assert_eq!(run(&mut curl()), b"hello\n");
    scratch::make_file(&path("file"), 3_000_000).unwrap();
    let sent = run(curl().args(["-H", "Transfer-Encoding: chunked", "-T"]).arg(path("file")));
    assert!(sent == fs::read(path("file")).unwrap());

    // Plain HTTP where TLS is spoken: an end, soon.
    let mut plain = Wire::connect(server.address());
    plain.ask("/", "");
    plain.drain();
    assert_eq!(run(&mut curl()), b"hello\n");

    let (exchanges, connections) = records.connections(4);
    assert_eq!(exchanges.len(), 3);
    assert!(exchanges.iter().all(|record| record.end.reason == Reason::Ok));
    let turned_away = connections.iter().filter(|entry| entry.exchanges == 0).count();
    assert_eq!(turned_away, 1);
    let large = connections.iter().find(|entry| entry.record.plain_in > 3_000_000).unwrap();
    assert!(large.record.wire_in > large.record.plain_in && large.record.wire_out > large.record.plain_out);
    server.handles().shutdown(Duration::ZERO);
    server.join().unwrap();
}
