//! The server with real programs at the other end: bodies and streams as they send and understand them.
#![cfg(feature = "http")]

mod support;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Host, Nginx, program};
use tidegate::http::{
    Exchange, Fields, Handler, Intake, Reply, Request, RequestBody, StatusCode, body_stream,
};
use tidegate::poller::Reason;
use tidegate_meter::scratch::{self, Scratch};

/// `/echo` sends back what arrives, while it does; `/whole` once it is there; `/trailers` says something behind its body.
#[derive(Clone)]
struct Several;

impl Handler for Several {
    fn intake(&self, request: &Request) -> Intake {
        match request.target() {
            b"/whole" => Intake::Whole { max_bytes: 100_000_000 },
            b"/small" => Intake::Whole { max_bytes: 1_000 },
            _ => Intake::Stream { max_bytes: u64::MAX },
        }
    }

    fn handle(&self, exchange: &mut Exchange) {
        let body = std::mem::take(&mut exchange.context.body);
        exchange.context.reply = match (exchange.context.request().target(), body) {
            (b"/trailers", _) => {
                let (writer, body) = body_stream(1_000);
                let mut trailers = Fields::default();
                trailers.add("X-Sum", 42);
                // There is room for it, and it goes before the end.
                let _ = writer.try_send("some\n");
                writer.finish_with(trailers);
                Reply::text(body)
            }
            (_, RequestBody::Stream(reader)) => Reply::text(reader.into_body()),
            (_, RequestBody::Whole(bytes)) => Reply::text(bytes),
            (_, RequestBody::None) => Reply::error(StatusCode::BAD_REQUEST),
        };
    }
}

/// Runs a program to its end, with something on its standard input; what it wrote.
fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("it ends")
    });
    assert!(output.status.success(), "{command:?}: {}", output.status);
    output.stdout
}

fn curl(host: &Host, path: &str) -> Command {
    let mut curl = program("curl");
    curl.args(["-sS", "--max-time", "60"]).arg(host.url(path));
    curl
}

#[test]
fn curl_sends_by_length_and_by_chunks_and_waits_to_be_asked() {
    let host = Host::new(Several);
    let scratch = Scratch::new("peers").unwrap();
    let file = scratch.path().join("file");
    scratch::make_file(&file, 5_000_000).unwrap();
    let content = fs::read(&file).unwrap();
    for path in ["/echo", "/whole"] {
        let started = Instant::now();
        let chunked = run(curl(&host, path).args(["-T", "-", "-H", "Transfer-Encoding: chunked"]), &content);
        assert!(chunked == content, "{path}");
        let mut data = curl(&host, path);
        // Where it is not asked, it waits for so long.
        data.args(["-H", "Expect: 100-continue", "--expect100-timeout", "30", "--data-binary"]);
        let asked = run(data.arg(format!("@{}", file.display())), b"");
        assert!(asked == content, "{path}");
        assert!(started.elapsed() < Duration::from_secs(25), "it was asked to send");
    }
    let mut refused = curl(&host, "/small");
    refused.args(["-o", "/dev/null", "-w", "%{http_code} %{size_upload}", "-H", "Expect: 100-continue"]);
    refused.args(["--expect100-timeout", "30", "--data-binary"]).arg(format!("@{}", file.display()));
    assert_eq!(String::from_utf8(run(&mut refused, b"")).unwrap(), "413 0");
    let records = host.records.exchanges(5);
    assert!(records.iter().take(4).all(|record| record.end.reason == Reason::Ok), "{records:#?}");
    host.end();
}

#[test]
fn curl_understands_trailers_and_keeps_the_connection() {
    let host = Host::new(Several);
    let mut twice = curl(&host, "/trailers");
    twice.arg(host.url("/trailers")).args(["-D", "-"]);
    let text = String::from_utf8(run(&mut twice, b"")).unwrap();
    assert_eq!((text.matches("X-Sum: 42").count(), text.matches("some\n").count()), (2, 2), "{text}");
    let (_, connections) = host.records.connections(1);
    assert_eq!(connections[0].exchanges, 2);
    host.end();
}

#[test]
fn pythons_client_sends_and_takes_chunks() {
    let host = Host::new(Several);
    let script = "
import http.client, sys
connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=30)
for path in ('/echo', '/whole', '/echo'):
    pieces = [bytes([n]) * 1000 * n for n in range(1, 60)]
    connection.request('POST', path, body=iter(pieces), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'})
    reply = connection.getresponse()
    assert reply.status == 200, reply.status
    assert reply.read() == b''.join(pieces), path
connection.request('POST', '/whole', body=b'x' * 300000)
assert connection.getresponse().read() == b'x' * 300000
connection.request('GET', '/trailers')
assert connection.getresponse().read() == b'some\\n'
print('well')
";
    let mut python = program("python3");
    let said = run(python.args(["-c", script]).arg(host.address.port().to_string()), b"");
    assert_eq!(String::from_utf8(said).unwrap(), "well\n");
    let (_, connections) = host.records.connections(1);
    assert_eq!(connections[0].exchanges, 5);
    host.end();
}

#[test]
fn nginx_in_front_passes_chunks_both_ways() {
    let host = Host::new(Several);
    let nginx = Nginx::in_front_of(host.address);
    let scratch = Scratch::new("peers").unwrap();
    let file = scratch.path().join("file");
    scratch::make_file(&file, 3_000_000).unwrap();
    let content = fs::read(&file).unwrap();
    for path in ["/whole", "/echo"] {
        for sends in [&["-T", "-", "-H", "Transfer-Encoding: chunked"][..], &["--data-binary", "@-"]] {
            let mut curl = program("curl");
            curl.args(["-sS", "--max-time", "60"]).arg(format!("http://{}{path}", nginx.address()));
            assert!(run(curl.args(sends), &content) == content, "{path} {sends:?}");
        }
    }
    let mut curl = program("curl");
    curl.args(["-sS", "--max-time", "60"]).arg(format!("http://{}/trailers", nginx.address()));
    assert_eq!(run(&mut curl, b""), b"some\n");
    let records = host.records.exchanges(5);
    assert!(records.iter().all(|record| record.end.reason == Reason::Ok), "{records:#?}");
    assert!(records[0].req_body_bytes > 3_000_000, "in chunks");
    drop(nginx);
    host.end();
}
