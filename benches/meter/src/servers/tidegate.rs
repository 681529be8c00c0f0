//! `tidegate serve`.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use super::{Running, START_WITHIN, Wish};
use crate::sys::{self, Tell};

pub(super) fn start(program: &Path, arguments: &[String], wish: &Wish) -> io::Result<Running> {
    let mut command = Command::new(program);
    command.arg("serve").arg(&wish.root).args(["--listen", "127.0.0.1:0"]);
    if let Some(rate) = wish.rate {
        command.arg("--rate").arg(rate.to_string());
    }
    if let Some(rate) = wish.client_rate {
        command.arg("--client-rate").arg(rate.to_string());
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe to the server"))?;

    // Reading a pipe has no deadline, so it is done beside. The thread goes on until the server ends, so that the
    // server never writes to a closed pipe.
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let address = receiver
        .recv_timeout(START_WITHIN)
        .map_err(|_| io::Error::other("the server did not say where it listens"))
        .and_then(|line| parse_listening(&line));
    match address {
        Ok(address) => Ok(Running { child, address, name: "tidegate", _scratch: None }),
        Err(error) => {
            let _ = sys::tell(child.id(), Tell::Kill);
            let status = child.wait()?;
            Err(io::Error::other(format!("{}: {error} ({status})", program.display())))
        }
    }
}

pub(super) fn version(program: &Path) -> io::Result<String> {
    let out = Command::new(program).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn parse_listening(line: &str) -> io::Result<SocketAddr> {
    line.strip_prefix("listening on http://")
        .and_then(|address| address.trim().parse().ok())
        .ok_or_else(|| io::Error::other(format!("not where it listens: {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_where() {
        assert_eq!(parse_listening("listening on http://127.0.0.1:80").unwrap().port(), 80);
        assert!(parse_listening("listening on 127.0.0.1:80").is_err());
    }
}
