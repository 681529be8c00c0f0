//! Real programs at the other end: openssl, python and curl, each with TLS 1.3 and 1.2.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use tidegate::net::tls::ClientTls;
use tidegate::poller::{ConnectionRecord, End, Limit, PollerSettings, Reason};

use crate::pki::{Pki, pair};
use crate::poller::{Part, Running, Told, pattern};

/// A program that has to be installed; without it the test fails and says how to get it.
fn program(name: &str) -> Command {
    let found = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .any(|folder| folder.join(name).is_file());
    assert!(found, "{name} is not installed: run tests/run, which installs it, or: apt-get install {name}");
    Command::new(name)
}

/// A program that is stopped at the end of the test.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> (Program, BufReader<ChildStdout>) {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        (Program(child), stdout)
    }

    /// What it said on standard error until its end.
    fn errors(&mut self) -> String {
        let mut errors = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn line(from: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

fn s_client(address: std::net::SocketAddr, ca: &Path) -> Command {
    let mut command = program("openssl");
    command.args(["s_client", "-brief", "-verify_return_error", "-servername", "localhost"]);
    command.args(["-alpn", "other,echo/1"]).arg("-connect").arg(address.to_string()).arg("-CAfile").arg(ca);
    command
}

#[test]
fn openssl_speaks_with_our_server_and_takes_its_session_up_again() {
    let pki = Pki::new("s_client");
    let serving = Running::serve(&pair(&pki).0, Part::Echo);
    for version in ["-tls1_3", "-tls1_2"] {
        let session = pki.path(version);
        for (resumed, flag) in [(false, "-sess_out"), (true, "-sess_in")] {
            let mut command = s_client(serving.address, &pki.ca());
            let (mut openssl, mut out) = Program::start(command.args([version, flag]).arg(&session));
            let mut stdin = openssl.0.stdin.take().unwrap();
            stdin.write_all(b"hello\n").unwrap();
            assert_eq!(line(&mut out), "hello\n");
            drop(stdin);
            let errors = openssl.errors();
            let record = serving.record();
            let handshake = record.handshake.clone().unwrap();
            assert_eq!(handshake.resumed, resumed, "{version}: {errors}");
            let said = format!("Protocol version: {}", handshake.version.unwrap());
            assert!(errors.contains(&said) && errors.contains("Verification: OK"), "{errors}");
            assert_eq!(handshake.protocol.as_deref(), Some("echo/1"));
            assert_eq!((record.plain_in, record.plain_out), (6, 6));
            assert_eq!((record.end, handshake.truncated), (End::peer(Reason::Ok), false));
        }
    }
}

/// Sends so many bytes in pieces, reads them back, says goodbye (or not) and prints what it knows.
const PYTHON: &str = r#"
import hashlib, select, socket, ssl, sys
port, ca, version, length, goodbye = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
context = ssl.create_default_context(cafile=ca)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
context.set_alpn_protocols(["echo/0"])
content = bytes((i * i >> 3) & 255 for i in range(length))
wire = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
# Both ways at once, by one thread: two must not use one connection of OpenSSL's.
wire.setblocking(False)
digest, came, went = hashlib.sha256(), 0, 0
while came < length:
    idle = True
    try:
        piece = wire.recv(65536)
        if not piece:
            sys.exit("ended after %d bytes" % came)
        digest.update(piece)
        came += len(piece)
        idle = False
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass
    try:
        if went < length:
            went += wire.send(content[went:went + 7919])
            idle = False
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass
    if idle:
        select.select([wire], [wire] if went < length else [], [], 10)
wire.setblocking(True)
if digest.digest() != hashlib.sha256(content).digest():
    sys.exit("not what was sent")
print(wire.version(), wire.cipher()[0], wire.selected_alpn_protocol(), came, flush=True)
if goodbye == "yes":
    wire.unwrap()
wire.close()
"#;

fn python(
    serving: &Running,
    pki: &Pki,
    version: &str,
    len: u64,
    goodbye: &str,
) -> (String, ConnectionRecord) {
    let mut command = program("python3");
    command.args(["-c", PYTHON, &serving.address.port().to_string()]).arg(pki.ca());
    let (mut python, mut out) = Program::start(command.args([version, &len.to_string(), goodbye]));
    let said = line(&mut out);
    let errors = python.errors();
    assert!(python.0.wait().unwrap().success(), "{errors}");
    (said, serving.record())
}

#[test]
fn python_and_our_server_count_the_same_bytes() {
    let pki = Pki::new("python");
    let serving = Running::serve(&pair(&pki).0, Part::Echo);
    for (version, name) in [("TLSv1_3", "TLSv1.3"), ("TLSv1_2", "TLSv1.2")] {
        for (len, goodbye) in [(1_000_003, "yes"), (1, "yes"), (300_000, "no")] {
            let (said, record) = python(&serving, &pki, version, len, goodbye);
            assert!(said.starts_with(name) && said.contains(&format!("echo/0 {len}")), "{said}");
            assert_eq!((record.plain_in, record.plain_out), (len, len));
            let handshake = record.handshake.unwrap();
            assert_eq!((handshake.version, handshake.protocol.as_deref()), (Some(name), Some("echo/0")));
            assert_eq!(handshake.truncated, goodbye == "no");
            assert_eq!(record.end, End::peer(Reason::Ok));
            // Every byte below TLS is counted: the kernel has the same sum.
            let tcp = record.tcp.unwrap();
            assert_eq!(tcp.received_bytes, Some(record.wire_in));
        }
    }
}

#[test]
fn curl_gets_a_file() {
    let pki = Pki::new("curl");
    let content = pattern(3_000_000, 5);
    std::fs::write(pki.path("content"), &content).unwrap();
    let file = Arc::new(std::fs::File::open(pki.path("content")).unwrap());
    let identity = pki.server("server", &["localhost"]);
    let tls = tidegate::net::tls::ServerTls::builder()
        .certificate(identity.chain, identity.key)
        .alpn(["http/1.1"])
        .build()
        .unwrap();
    let serving = Running::serve(&tls, Part::Answers(file, content.len() as u64));
    let port = serving.address.port();
    for version in ["1.3", "1.2"] {
        let mut command = program("curl");
        command.args(["--silent", "--show-error", "--tls-max", version]).arg("--cacert").arg(pki.ca());
        command.args(["--resolve", &format!("localhost:{port}:127.0.0.1")]);
        command.arg("--write-out").arg("%{stderr}%{size_header} %{size_download} %{size_request}");
        let output = command.arg(format!("https://localhost:{port}/")).output().unwrap();
        let figures = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{figures}");
        assert!(output.stdout == content);
        let sizes: Vec<u64> = figures.split(' ').map(|size| size.parse().unwrap()).collect();
        let record = serving.record();
        assert_eq!(record.plain_out, sizes[0] + sizes[1]);
        assert_eq!(record.plain_in, sizes[2]);
        assert_eq!(record.handshake.unwrap().protocol.as_deref(), Some("http/1.1"));
    }
    // Not believed: curl says so to us.
    let mut command = program("curl");
    let output = command.args(["--silent", &format!("https://127.0.0.1:{port}/")]).output().unwrap();
    assert_eq!(output.status.code(), Some(60));
    let record = serving.record();
    assert_eq!((record.end, record.phase), (End::peer(Reason::TransportError), "handshake"));
}

#[test]
fn our_client_speaks_with_openssl() {
    let pki = Pki::new("s_server");
    let (identity, own) = (pki.server("server", &["localhost"]), pki.client("own"));
    for version in ["-tls1_3", "-tls1_2"] {
        let mut command = program("openssl");
        command.args(["s_server", "-rev", "-accept", "127.0.0.1:0", "-Verify", "1", "-verify_return_error"]);
        command.args(["-alpn", "rev", version]).arg("-cert").arg(&identity.chain);
        command.arg("-key").arg(&identity.key).arg("-CAfile").arg(pki.ca());
        let (_openssl, mut out) = Program::start(&mut command);
        let address = loop {
            let said = line(&mut out);
            assert!(!said.is_empty(), "openssl ended");
            if let Some(address) = said.strip_prefix("ACCEPT ") {
                break address.trim().parse().unwrap();
            }
        };
        let client = ClientTls::builder()
            .authorities(pki.ca_pem())
            .certificate(own.chain.clone(), own.key.clone())
            .alpn(["rev"])
            .build()
            .unwrap();
        let words = Arc::new(b"drawer\n".to_vec());
        let asking = Running::connect(address, &client, "localhost", Part::Says(words));
        let handshake = asking.ready();
        assert_eq!(handshake.version, Some(if version == "-tls1_3" { "TLSv1.3" } else { "TLSv1.2" }));
        assert_eq!(handshake.protocol.as_deref(), Some("rev"));
        let mut came = Vec::new();
        while came.len() < 7 {
            came.extend_from_slice(&asking.wait(|told| match told {
                Told::Bytes(bytes) => Some(bytes),
                Told::Closed(record) => panic!("{record:?}"),
                _ => None,
            }));
        }
        assert_eq!(came, b"reward\n");
    }
}

#[test]
fn keys_are_changed_in_the_middle_of_a_paced_transfer() {
    const LEN: usize = 1_500_000;
    let pki = Pki::new("keys");
    let content = pattern(LEN, 11);
    std::fs::write(pki.path("content"), &content).unwrap();
    let file = Arc::new(std::fs::File::open(pki.path("content")).unwrap());
    let limit = Some(Limit::new("given", Some(1_000_000)));
    let part = Part::GivesAndStays(file, LEN as u64);
    let serving = Running::serve_with(&pair(&pki).0, part, limit, PollerSettings::default());
    let log = pki.path("messages");
    let mut command = s_client(serving.address, &pki.ca());
    command.args(["-tls1_3", "-msg", "-msgfile"]).arg(&log);
    let (mut openssl, mut out) = Program::start(&mut command);
    let mut stdin = openssl.0.stdin.take().unwrap();
    let mut came = vec![0; LEN];
    for (place, piece) in came.chunks_mut(LEN / 10).enumerate() {
        out.read_exact(piece).unwrap();
        // `K` has both ends change their keys, `k` only openssl's.
        stdin.write_all(if place % 3 == 2 { b"k\n" } else { b"K\n" }).unwrap();
    }
    assert!(came == content);
    drop(stdin);
    let errors = openssl.errors();
    let record = serving.record();
    assert_eq!((record.end, record.plain_out), (End::peer(Reason::Ok), LEN as u64), "{errors}");
    let said = std::fs::read_to_string(&log).unwrap();
    let told =
        |way: &str| said.lines().filter(|line| line.starts_with(way) && line.contains("KeyUpdate")).count();
    assert!(told(">>>") >= 8 && told("<<<") >= 4, "{} and {}: {errors}", told(">>>"), told("<<<"));
    let took = record.last_out.unwrap() - record.first_out.unwrap();
    let rate = record.wire_out as f64 / took.as_secs_f64();
    // Roughly: other tests run beside it.
    assert!((900_000.0..1_150_000.0).contains(&rate), "{rate}");
}

#[test]
fn bytes_come_whole_through_changed_keys_both_ways() {
    let pki = Pki::new("keys-echo");
    let serving = Running::serve(&pair(&pki).0, Part::Echo);
    let mut command = s_client(serving.address, &pki.ca());
    let (mut openssl, mut out) = Program::start(command.arg("-tls1_3"));
    let mut stdin = openssl.0.stdin.take().unwrap();
    for round in 0..20 {
        stdin.write_all(if round % 2 == 0 { b"K\n" } else { b"k\n" }).unwrap();
        let words = format!("words of round {round}\n");
        // Alone in its write: openssl takes a letter for a command only at the start of one.
        await_update(&mut openssl, round);
        stdin.write_all(words.as_bytes()).unwrap();
        assert_eq!(line(&mut out), words);
    }
    drop(stdin);
    assert_eq!(serving.record().end, End::peer(Reason::Ok));
}

/// Waits until openssl says that it changes its keys.
fn await_update(openssl: &mut Program, round: usize) {
    let stderr = openssl.0.stderr.as_mut().unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"KEYUPDATE\n") {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "round {round}: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
}

#[test]
fn who_wants_to_negotiate_again_is_refused_and_recorded() {
    let pki = Pki::new("again");
    let serving = Running::serve(&pair(&pki).0, Part::Echo);
    let mut command = s_client(serving.address, &pki.ca());
    let (mut openssl, mut out) = Program::start(command.arg("-tls1_2"));
    let mut stdin = openssl.0.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(line(&mut out), "hello\n");
    stdin.write_all(b"R\n").unwrap();
    let errors = openssl.errors();
    assert!(errors.contains("RENEGOTIATING") && errors.contains("no renegotiation"), "{errors}");
    let record = serving.record();
    assert_eq!((record.end, record.phase), (End::peer(Reason::TransportError), "open"));
    assert!(record.handshake.unwrap().fault.unwrap().contains("alert"));
    // The next is served.
    let (said, _) = python(&serving, &pki, "TLSv1_2", 10, "yes");
    assert!(said.contains("10"), "{said}");
}
