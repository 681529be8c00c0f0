//! Programs that say `listening on http://IP:PORT` on their standard output when they are ready.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use super::{Running, START_WITHIN};
use crate::sys::{self, Tell};

/// Starts the program and waits for that line.
pub(super) fn start(mut command: Command, name: &'static str) -> io::Result<Running> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let program = command.get_program().to_owned();
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
        .and_then(|line| parse(&line));
    match address {
        Ok(address) => Ok(Running { child, address, name, _scratch: None }),
        Err(error) => {
            let _ = sys::tell(child.id(), Tell::Kill);
            let status = child.wait()?;
            Err(io::Error::other(format!("{}: {error} ({status})", program.display())))
        }
    }
}

fn parse(line: &str) -> io::Result<SocketAddr> {
    line.strip_prefix("listening on ")
        .and_then(|url| url.strip_prefix("http://").or(url.strip_prefix("https://")))
        .and_then(|address| address.trim().parse().ok())
        .ok_or_else(|| io::Error::other(format!("not where it listens: {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_where() {
        assert_eq!(parse("listening on http://127.0.0.1:80").unwrap().port(), 80);
        assert_eq!(parse("listening on https://[::1]:443").unwrap().port(), 443);
        assert!(parse("listening on 127.0.0.1:80").is_err());
    }
}
