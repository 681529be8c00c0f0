//! The HTTP client over TLS: straight, through a proxy's tunnel, and with servers that are not who they should be.
#![cfg(feature = "tls")]

mod client_support;
mod support;
// Certificates made for the test.
#[allow(dead_code)]
#[path = "tls/pki.rs"]
mod pki;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use client_support::{Asks, server};
use pki::Pki;
use support::Nginx;
use tidegate::http::ClientError;
use tidegate::http::client::Proxies;
use tidegate::net::Waited;
use tidegate::net::tls::ClientTls;
use tidegate::poller::Reason;
use tidegate::task::Parallel;
use tidegate_meter::scratch::{make_file, pattern};

/// nginx with a certificate for `localhost`, and where it speaks TLS.
fn nginx(pki: &Pki) -> (Nginx, SocketAddr) {
    let identity = pki.server("server", &["localhost", "127.0.0.1"]);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (chain, key) = (identity.chain.display(), identity.key.display());
    let lines = format!("listen {address} ssl; ssl_certificate {chain}; ssl_certificate_key {key};");
    let nginx = Nginx::start("", &lines);
    make_file(&nginx.root().join("a"), 700_000).unwrap();
    (nginx, address)
}

fn trusting(pki: &Pki) -> ClientTls {
    ClientTls::builder().authorities(pki.ca_pem()).alpn(["http/1.1"]).build().unwrap()
}

#[test]
fn pages_come_over_tls_and_are_counted_above_and_below() {
    let pki = Pki::new("ours");
    let (_nginx, address) = nginx(&pki);
    let asks = Asks::with(|settings| settings.tls = Some(trusting(&pki)));
    for (host, reused) in [("localhost", false), ("localhost", true), ("127.0.0.1", false)] {
        let response = asks.get(&format!("https://{host}:{}/a", address.port())).unwrap();
        assert!(response.bytes() == pattern(0, 700_000));
        let record = response.record().unwrap();
        let facts = record.client.as_deref().unwrap();
        assert_eq!((facts.reused, facts.tls.is_some(), facts.connect.is_some()), (reused, !reused, !reused));
        assert_eq!(record.resp_body_bytes, 700_000);
        assert!(record.wire_in > 700_000 + record.resp_header_bytes, "{record:?}");
    }
    let requests: Parallel<_> =
        (0..8).map(|_| asks.client.get(format!("https://localhost:{}/a", address.port()))).collect();
    for response in asks.runtime.run(requests).unwrap() {
        assert!(response.unwrap().unwrap().bytes() == pattern(0, 700_000));
    }
}

#[test]
fn servers_that_cannot_prove_who_they_are_get_no_request() {
    let (ours, theirs) = (Pki::new("ours"), Pki::new("theirs"));
    let (_nginx, address) = nginx(&ours);
    let url = format!("https://localhost:{}/a", address.port());
    let asks = Asks::with(|settings| settings.tls = Some(trusting(&theirs)));
    assert!(matches!(asks.get(&url), Err(ClientError::Tls(_))));
    let kept = asks.keeps.counts(1, 1);
    assert_eq!((kept.exchanges[0].phase, kept.exchanges[0].wire_out), ("handshake", 0));
    let anybody = ClientTls::builder().danger_accept_any_certificate().build().unwrap();
    let asks = Asks::with(|settings| settings.tls = Some(anybody));
    assert!(asks.get(&url).is_ok());
    // Garbage, and silence, where TLS should be.
    let plain = server(|number, caller| {
        if number == 0 {
            caller.say("HTTP/1.1 400 Plain\r\n\r\n");
        }
        caller.is_left();
    });
    let asks = Asks::with(|settings| settings.tls_timeout = Duration::from_millis(100));
    let url = format!("https://{}/", plain.address);
    assert!(matches!(asks.get(&url), Err(ClientError::Tls(_))));
    assert!(matches!(asks.get(&url), Err(ClientError::Timeout(Waited::Tls))));
}

#[test]
fn a_server_that_goes_in_the_handshake_may_be_back() {
    for reads in [true, false] {
        let server = server(move |_, caller| {
            let mut hello = [0; 10_000];
            // Unread, it makes the close a reset.
            let _ = if reads { caller.stream.read(&mut hello) } else { caller.stream.peek(&mut hello) };
        });
        let asks = Asks::with(|settings| settings.max_retries = 1);
        let error = asks.get(&format!("https://{}/", server.address)).unwrap_err();
        assert!(error.is_passing(), "reads: {reads}: {error}");
        assert!(matches!(error, ClientError::Connect(Reason::Abort)), "reads: {reads}: {error}");
        let kept = asks.keeps.counts(2, 2);
        for exchange in kept.exchanges {
            assert_eq!((exchange.phase, exchange.end.reason), ("handshake", Reason::Abort));
        }
    }
}

/// A proxy that makes tunnels to where it is asked, or answers with this.
fn tunnels(refusal: Option<&'static str>) -> client_support::Scripted {
    server(move |_, caller| {
        let Some(head) = caller.request() else { return };
        assert!(head.starts_with("CONNECT localhost:"), "{head}");
        if let Some(refusal) = refusal {
            caller.say(refusal);
            return;
        }
        let port: u16 = head.split([' ', ':']).nth(2).unwrap().parse().unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
        caller.say("HTTP/1.1 200 Connection established\r\n\r\n");
        let (mut from, mut to) = (caller.stream.try_clone().unwrap(), server.try_clone().unwrap());
        let back = std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                to.write_all(&buffer[..n]).unwrap();
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
        let _ = std::io::copy(&mut server, &mut caller.stream);
        let _ = caller.stream.shutdown(std::net::Shutdown::Both);
        back.join().unwrap();
    })
}

#[test]
fn tls_goes_through_a_proxys_tunnel() {
    let pki = Pki::new("ours");
    let (_nginx, address) = nginx(&pki);
    let proxy = tunnels(None);
    let asks = Asks::with(|settings| {
        settings.tls = Some(trusting(&pki));
        settings.proxies = Proxies::all(&proxy.address.to_string()).unwrap();
    });
    for _ in 0..3 {
        let response = asks.get(&format!("https://localhost:{}/a", address.port())).unwrap();
        assert!(response.bytes() == pattern(0, 700_000));
    }
    assert_eq!(proxy.callers(), 1, "the tunnel is kept");
    for (refusal, expected) in [
        ("HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n", "407"),
        ("HTTP/1.1 200 OK\r\n\r\nhere is more", "more than"),
        ("nonsense\r\n\r\n", "HTTP"),
        ("", "cannot connect"),
    ] {
        let proxy = tunnels(Some(refusal));
        let asks =
            Asks::with(|settings| settings.proxies = Proxies::all(&proxy.address.to_string()).unwrap());
        let error = asks.get(&format!("https://localhost:{}/a", address.port())).unwrap_err().to_string();
        assert!(error.contains(expected), "{refusal:?}: {error}");
        asks.keeps.counts(1, 1);
    }
}

#[test]
fn a_body_that_tls_does_not_see_the_end_of_is_cut() {
    // Until the close, and the close is not TLS's: somebody on the way may have cut it.
    let pki = Pki::new("ours");
    let identity = pki.server("server", &["localhost"]);
    let script = "import socket, ssl, sys\n\
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
        context.load_cert_chain(sys.argv[1], sys.argv[2])\n\
        listener = socket.create_server(('127.0.0.1', 0))\n\
        print(listener.getsockname()[1], flush=True)\n\
        connection = context.wrap_socket(listener.accept()[0], server_side=True, suppress_ragged_eofs=True)\n\
        connection.recv(4096)\n\
        connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\nhalf of it')\n\
        raw = connection.detach()\n\
        socket.socket(fileno=raw).shutdown(socket.SHUT_WR)\n\
        sys.stdin.read()\n";
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(&identity.chain).arg(&identity.key);
    let mut python =
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(python.stdout.take().unwrap()), &mut line)
        .unwrap();
    let asks = Asks::with(|settings| settings.tls = Some(trusting(&pki)));
    let result = asks.get(&format!("https://localhost:{}/", line.trim()));
    drop(python.stdin.take());
    let _ = python.wait();
    assert!(matches!(result, Err(ClientError::Closed(_))), "{result:?}");
}

#[test]
fn fetch_checks_who_it_speaks_to() {
    let pki = Pki::new("ours");
    let (_nginx, address) = nginx(&pki);
    let scratch = tidegate_meter::scratch::Scratch::new("fetch").unwrap();
    let url = format!("https://localhost:{}/a", address.port());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("fetch").arg(&url).args(arguments).current_dir(scratch.path());
        command.env_remove("https_proxy").env_remove("all_proxy").output().unwrap()
    };
    let refused = run(&[]);
    assert_eq!(refused.status.code(), Some(5), "{}", String::from_utf8_lossy(&refused.stderr));
    let ca = pki.ca().display().to_string();
    let trusted = run(&["--cacert", &ca, "--json"]);
    let line: serde_json::Value = serde_json::from_slice(&trusted.stdout).unwrap();
    assert_eq!((&line["ok"], line["tls_us"].is_u64()), (&true.into(), true), "{line}");
    assert!(std::fs::read(scratch.path().join("a")).unwrap() == pattern(0, 700_000));
    assert_eq!(run(&["-k"]).status.code(), Some(0));
}
