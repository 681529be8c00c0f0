//! wrk as a client: started with a load, stopped after a span, its report read.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::scratch::Scratch;
use crate::servers::missing;
use crate::sys::{self, Tell};

/// What wrk does.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The server.
    pub to: SocketAddr,
    /// What is asked for.
    pub path: &'a str,
    /// How many connections.
    pub connections: usize,
    /// What follows what on them.
    pub asking: Asking,
    /// For how long.
    pub span: Duration,
}

/// What follows what on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// The same request again and again.
    Again,
    /// Each request another, by its path and a field: nothing that was learned from one can be used for the next.
    Another,
    /// The server is asked to close after each reply.
    Anew,
}

/// Makes each request another.
const ANOTHER: &str = "local n = 0
request = function()
  n = n + 1
  return wrk.format('GET', wrk.path .. '?' .. n, { ['X-Request-Id'] = n })
end
";

/// What wrk says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Replies that came.
    pub requests: u64,
    /// In this time.
    pub seconds: f64,
    /// The median latency.
    pub p50_ms: f64,
    /// The latency that 99 of 100 replies had at most.
    pub p99_ms: f64,
    /// Replies with a status of 400 and above.
    pub refused: u64,
    /// Connections that could not be made, broke, or waited for more than two seconds.
    pub errors: u64,
}

/// Runs wrk on the CPU we run on, with one thread.
pub fn run(load: &Load<'_>) -> io::Result<Report> {
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--latency", "--connections"]).arg(load.connections.to_string());
    // It counts whole seconds only, and is stopped before they are over.
    command.arg("--duration").arg(format!("{}s", load.span.as_secs() + 10));
    if load.asking == Asking::Anew {
        command.args(["--header", "Connection: close"]);
    }
    // It goes when wrk has ended.
    let scripts = Scratch::new("wrk")?;
    if load.asking == Asking::Another {
        let script = scripts.path().join("another.lua");
        std::fs::write(&script, ANOTHER)?;
        command.arg("--script").arg(script);
    }
    command.arg(format!("http://{}{}", load.to, load.path));
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| missing("wrk", "wrk", &error))?;
    std::thread::sleep(load.span);
    // Interrupted, it stops and reports. One that has ended before has failed, and says why.
    let told = sys::tell(child.id(), Tell::Interrupt);
    let out = child.wait_with_output()?;
    told?;
    let text = String::from_utf8_lossy(&out.stdout);
    parse(&text).filter(|_| out.status.success()).ok_or_else(|| {
        io::Error::other(format!(
            "wrk failed: {}{}",
            text.trim(),
            String::from_utf8_lossy(&out.stderr).trim()
        ))
    })
}

/// Reads the report; `None` if it is none.
fn parse(text: &str) -> Option<Report> {
    let mut report = Report::default();
    let mut complete = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["50%", latency] => report.p50_ms = milliseconds(latency)?,
            ["99%", latency] => report.p99_ms = milliseconds(latency)?,
            [requests, "requests", "in", span, ..] => {
                report.requests = requests.parse().ok()?;
                report.seconds = milliseconds(span.trim_end_matches(','))? / 1e3;
                complete = true;
            }
            ["Socket", "errors:", ref counts @ ..] => {
                report.errors =
                    counts.iter().filter_map(|count| count.trim_end_matches(',').parse::<u64>().ok()).sum();
            }
            ["Non-2xx", .., count] => report.refused = count.parse().ok()?,
            _ => {}
        }
    }
    complete.then_some(report)
}

/// `230.00us`, `1.05ms`, `1.10s`, `1.00m`.
fn milliseconds(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit].parse().ok()?;
    let factor = match &text[unit..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        _ => return None,
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "Running 18s test @ http://127.0.0.1:8080/\n  1 threads and 64 connections\n  Thread Stats   Avg\n    \
                    Latency   390.80us  655.01us\n  Latency Distribution\n     50%  231.00us\n     75%  400.00us\n     \
                    99%    1.20ms\n  726604 requests in 6.10s, 92.16MB read\n  Socket errors: connect 0, read 3, write 0, \
                    timeout 2\n  Non-2xx or 3xx responses: 17\nRequests/sec: 119115.00\n";
        let report = parse(text).unwrap();
        let expected =
            Report { requests: 726_604, seconds: 6.1, p50_ms: 0.231, p99_ms: 1.2, refused: 17, errors: 5 };
        assert_eq!(report, expected);
        assert_eq!(parse("unable to connect to 127.0.0.1:1 Connection refused\n"), None);
    }

    #[test]
    fn spans_have_units() {
        assert_eq!(
            ["250.00us", "1.50ms", "2.00s", "1.00m"].map(|text| milliseconds(text).unwrap()),
            [0.25, 1.5, 2e3, 60e3]
        );
        assert_eq!(milliseconds("5"), None);
    }
}
