//! `tidegate serve` over TLS, with curl at the other end.
#![cfg(feature = "cli")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::CertifiedKey;
use support::{Serve, Wire, await_that, end};
use tidegate_meter::scratch::Scratch;
use tidegate_meter::sys::Tell;

const MIB: u64 = 1024 * 1024;

/// A certificate for `localhost` that vouches for itself, as two files.
fn certificate(folder: &Path, name: &str) -> [String; 2] {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([String::from("localhost")]).expect("a certificate");
    let [chain, key] = ["pem", "key"].map(|end| folder.join(format!("{name}.{end}")));
    std::fs::write(&chain, cert.pem()).expect("the certificate");
    std::fs::write(&key, signing_key.serialize_pem()).expect("the key");
    [chain, key].map(|path| path.display().to_string())
}

fn serve(certificate: &[String; 2], more: &[&str]) -> Serve {
    let [chain, key] = certificate;
    let mut arguments = vec!["--tls-cert", chain, "--tls-key", key];
    arguments.extend(more);
    Serve::start(&arguments)
}

fn curl(serve: &Serve, authority: &str, path: &str) -> Output {
    asking(serve, authority, path).output().expect("curl runs; apt-get install curl")
}

fn asking(serve: &Serve, authority: &str, path: &str) -> Command {
    let port = serve.address().port();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60", "--cacert", authority])
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .arg(format!("https://localhost:{port}{path}"));
    curl
}

#[test]
fn files_go_over_tls_byte_for_byte_at_the_rate_and_into_the_log() {
    let scratch = Scratch::new("serve-tls").unwrap();
    let identity = certificate(scratch.path(), "one");
    let serve = serve(&identity, &["--rate", "2MB/s"]);
    serve.file("big", 3 * MIB);
    let started = std::time::Instant::now();
    let fetched = curl(&serve, &identity[0], "/big");
    let took = started.elapsed();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(fetched.stdout == std::fs::read(serve.root().join("big")).unwrap());
    assert!(took.as_secs_f64() >= 1.4, "3 MiB at 2 MB/s in {took:?}");
    let log = serve.stop().log();
    let exchange = &log.exchanges[0];
    assert_eq!(
        (exchange["status"].as_u64(), exchange["resp_body_bytes"].as_u64()),
        (Some(200), Some(3 * MIB))
    );
    let connection = &log.connections[0];
    assert_eq!(connection["tls"]["version"], "TLSv1.3");
    assert_eq!(connection["tls"]["alpn"], "http/1.1");
    assert_eq!(connection["tls"]["sni"], "localhost");
    let sent = exchange["resp_header_bytes"].as_u64().unwrap() + 3 * MIB;
    let wire = connection["wire_out"].as_u64().unwrap();
    // A record of at most 16 KiB has 22 bytes of its own.
    assert!(wire > sent + 3 * MIB / (16 * 1024) * 22 && wire < sent + sent / 20, "{wire} for {sent}");
}

#[test]
fn a_hangup_has_the_certificate_read_anew_and_a_bad_one_changes_nothing() {
    let scratch = Scratch::new("serve-tls").unwrap();
    let (used, next) = (certificate(scratch.path(), "used"), certificate(scratch.path(), "next"));
    let first = format!("{}.first", used[0]);
    std::fs::copy(&used[0], &first).unwrap();
    let serve = serve(&used, &[]);
    serve.file("a", 10);
    assert!(curl(&serve, &first, "/a").status.success());

    std::fs::write(&used[0], "no certificate").unwrap();
    serve.tell(Tell::HangUp);
    serve.await_said("stay as they were");
    assert!(curl(&serve, &first, "/a").status.success(), "the old one stays");

    for (from, to) in next.iter().zip(&used) {
        std::fs::copy(from, to).unwrap();
    }
    serve.tell(Tell::HangUp);
    support::await_that("the new certificate is used", || {
        curl(&serve, &next[0], "/a").status.success().then_some(())
    });
    assert!(!curl(&serve, &first, "/a").status.success());
    serve.stop().log();
}

#[test]
fn plain_http_on_the_tls_port_is_turned_away_and_recorded() {
    let scratch = Scratch::new("serve-tls").unwrap();
    let identity = certificate(scratch.path(), "one");
    let serve = serve(&identity, &[]);
    serve.file("a", 10);
    let mut plain = TcpStream::connect(serve.address()).unwrap();
    let from = plain.local_addr().unwrap();
    plain.set_read_timeout(Some(support::PATIENCE)).unwrap();
    plain.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://x/a"), "{answer}");
    assert!(curl(&serve, &identity[0], "/a").status.success());
    let log = serve.stop().log();
    assert_eq!(log.connections.len(), 2, "{:#?}", log.connections);
    let refused = log.connection(from);
    assert_eq!(
        (&refused["end_phase"], &refused["end_reason"]),
        (&"handshake".into(), &"transport_error".into())
    );
}

#[test]
fn certificates_without_their_keys_are_refused_with_a_word_of_advice() {
    for (arguments, said) in [
        (&["--tls-cert", "a.pem"][..], "--tls-key"),
        (&["--tls-cert", "a.pem", "--tls-cert", "b.pem", "--tls-key", "a.key"], "in the same order"),
        (&["--tls-cert", "no-such.pem", "--tls-key", "no-such.key"], "no-such.pem"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn whatever_ends_a_connection_over_tls_its_records_are_there() {
    let scratch = Scratch::new("serve-tls").unwrap();
    let identity = certificate(scratch.path(), "one");
    let serve = serve(&identity, &["--rate", "100kB/s", "--shutdown-timeout", "600ms"]);
    serve.file("big", 30 * MIB);
    let silent = Wire::connect(serve.address());
    let mut begins = Wire::connect(serve.address());
    begins.send(b"\x16\x03\x01\x02\x00\x01\x00");
    let mut downloads = ["killed", "cut"].map(|name| {
        let file = scratch.path().join(name);
        let mut curl = asking(&serve, &identity[0], "/big");
        let child = curl.arg("--output").arg(&file).stderr(Stdio::null()).spawn().expect("curl runs");
        await_that("the download begins", || file.metadata().ok().filter(|found| found.len() > 0));
        child
    });
    downloads[0].kill().unwrap();
    downloads[0].wait().unwrap();
    serve.await_log("the one who left", |log| log.connections.len() == 1);
    let asked = Instant::now();
    serve.tell(Tell::Terminate);
    let log = serve.await_end().log();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(!downloads[1].wait().unwrap().success());
    assert_eq!((log.connections.len(), log.exchanges.len()), (4, 2));
    for hand in [&silent, &begins] {
        let connection = log.connection(hand.local());
        assert_eq!(
            (end(connection).as_str(), connection["end_phase"].as_str()),
            ("server/shutdown", Some("handshake"))
        );
    }
    assert_eq!(
        (end(&log.exchanges[0]).as_str(), end(&log.exchanges[1]).as_str()),
        ("client/abort", "server/shutdown")
    );
    for exchange in &log.exchanges {
        let connection = log.connections.iter().find(|line| line["conn_id"] == exchange["conn_id"]).unwrap();
        let [sent, wire] = [exchange, connection].map(|line| line["wire_out"].as_u64().unwrap());
        assert!(sent > 0 && sent < wire, "{sent} of {wire}");
        assert_eq!(exchange["wire_out"], connection["tls"]["plain_out"]);
        assert_eq!(end(connection), end(exchange));
    }
}
