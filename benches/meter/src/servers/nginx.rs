//! nginx, one worker, with a configuration and a prefix of our own.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{LOOK_AGAIN, Running, START_WITHIN, Wish, missing};
use crate::scratch::Scratch;
use crate::sys::{self, Tell};

pub(super) fn start(wish: &Wish) -> io::Result<Running> {
    // A free port is free only until another takes it: try again then.
    let mut tries = 0;
    loop {
        tries += 1;
        match start_once(wish) {
            Err(error) if tries < 3 => eprintln!("meter: {error}; once more"),
            other => return other,
        }
    }
}

pub(super) fn version() -> io::Result<String> {
    let out =
        Command::new("nginx").arg("-v").output().map_err(|error| missing("nginx", "nginx-light", &error))?;
    Ok(String::from_utf8_lossy(&out.stderr).trim().trim_start_matches("nginx version: ").to_owned())
}

fn start_once(wish: &Wish) -> io::Result<Running> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let scratch = Scratch::new("nginx")?;
    let config = scratch.path().join("nginx.conf");
    fs::write(&config, configuration(scratch.path(), address, wish))?;
    let errors = scratch.path().join("error.log");
    let mut child = Command::new("nginx")
        .arg("-p")
        .arg(scratch.path())
        .arg("-c")
        .arg(&config)
        .arg("-e")
        .arg(&errors)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| missing("nginx", "nginx-light", &error))?;
    let deadline = Instant::now() + START_WITHIN;
    while TcpStream::connect(address).is_err() {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() >= deadline {
            if ended.is_none() {
                sys::tell(child.id(), Tell::Kill)?;
                child.wait()?;
            }
            let log = fs::read_to_string(&errors).unwrap_or_default();
            return Err(io::Error::other(format!("nginx does not start: {}", log.trim())));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(Running { child, address, name: "nginx", _scratch: Some(scratch) })
}

/// One worker, sendfile, no access log, connections kept for ever; the rest is nginx's default.
fn configuration(prefix: &Path, address: SocketAddr, wish: &Wish) -> String {
    let prefix = prefix.display();
    let mut text = String::new();
    if sys::is_root() {
        // Or its worker would become a user that may not read our folder.
        text.push_str("user root;\n");
    }
    let files = sys::raise_open_files();
    let _ = write!(
        text,
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile {files};\npid {prefix}/pid;\n\
         error_log {prefix}/error.log;\n\
         events {{ worker_connections {}; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n",
        files.saturating_sub(100)
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "  {kind}_temp_path {prefix}/{kind};");
    }
    if wish.share_open_files {
        text.push_str("  open_file_cache max=100;\n");
    }
    if let Some(rate) = wish.rate {
        let _ = writeln!(text, "  limit_rate {rate};");
    }
    let root = wish.root.display();
    let mut listen = format!("listen {address} backlog=4096");
    if let Some(certificate) = &wish.certificate {
        let (chain, key) = (certificate.chain.display(), certificate.key.display());
        let _ = write!(listen, " ssl; ssl_certificate {chain}; ssl_certificate_key {key}");
        // What the client will ask for has to be among what is offered.
        listen.push_str("; ssl_protocols TLSv1.3");
    }
    let hello = "location = /hello { default_type text/plain; return 200 'Hello, World!'; }";
    let _ = write!(text, "  server {{ {listen}; root {root}; {hello} }}\n}}\n");
    text
}
