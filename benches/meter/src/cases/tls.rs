//! A large file over TLS: what each gigabyte costs the server.
//!
//! The client is curl, which takes the bytes and drops them. All contestants have the same certificate and the same
//! cipher, so that what differs is the server.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use super::{BIG, Bench, Measured, Sample};
use crate::account::{Account, Memory};
use crate::figures::Window;
use crate::scratch::Scratch;
use crate::servers::{Certificate, Server, Wish, missing};

/// Downloads the file a few times, each on a new connection.
pub fn run(bench: &Bench, server: &Server, label: &str) -> io::Result<Vec<Sample>> {
    let folder = Scratch::new("certificate")?;
    let certificate = certificate(&folder)?;
    let running = bench.start(server, Wish { certificate: Some(certificate), ..Wish::default() })?;
    let pids = running.processes();
    let (rounds, most) = if bench.quick { (1, QUICK_BYTES) } else { (3, BIG.1) };
    let mut samples = Vec::new();
    for round in 0..=rounds {
        let before = Account::read(&pids)?;
        let (bytes, seconds) = download(running.address(), most)?;
        let spent = Account::read(&pids)?.since(&before, bench.server_cpu, bench.client_cpu);
        let window = Window { from: 0, to: (seconds * 1e9) as u64 };
        let measured = Measured { window, spent, memory: Memory::read(&pids)?, stall: Duration::ZERO };
        let mut figures = measured.figures(bytes);
        figures.remove("stall_ms");
        // The first is for the memory of the machine to warm up.
        if round > 0 {
            samples.push(Sample { label: label.to_owned(), figures, bins: Vec::new() });
        }
    }
    Ok(samples)
}

/// The first `most` bytes of the file; how many came, in how many seconds.
fn download(from: SocketAddr, most: u64) -> io::Result<(u64, f64)> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--insecure", "--http1.1", "--output", "/dev/null"]);
    command.args(["--tlsv1.3", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256", "--max-time", "120"]);
    command.args(["--write-out", "%{size_download} %{time_total}"]);
    if most < BIG.1 {
        command.arg("--range").arg(format!("0-{}", most - 1));
    }
    command.arg(format!("https://{from}/{}", BIG.0));
    let out = succeed(command.output().map_err(|error| missing("curl", "curl", &error))?, "curl")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let (bytes, seconds) = text.split_once(' ').unwrap_or_default();
    match (bytes.parse(), seconds.parse()) {
        (Ok(bytes), Ok(seconds)) if bytes == most => Ok((bytes, seconds)),
        _ => Err(io::Error::other(format!("curl got {text:?}, not {most} bytes"))),
    }
}

/// A certificate for the loopback address, signed by itself, for as long as the folder is there.
fn certificate(folder: &Scratch) -> io::Result<Certificate> {
    let (chain, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&chain);
    succeed(command.output().map_err(|error| missing("openssl", "openssl", &error))?, "openssl")?;
    Ok(Certificate { chain, key })
}

fn succeed(out: Output, program: &str) -> io::Result<Output> {
    if out.status.success() {
        return Ok(out);
    }
    Err(io::Error::other(format!("{program} failed: {}", String::from_utf8_lossy(&out.stderr).trim())))
}

/// What is downloaded to see that it works.
const QUICK_BYTES: u64 = 16 << 20;
