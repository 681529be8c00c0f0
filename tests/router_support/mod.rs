//! A router that serves in this process, and real clients.

// Each test binary uses its part of this.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use tidegate::http::router::{Router, Routes};
use tidegate::http::{Server, Settings, serve};
use tidegate::net::Listeners;
use tidegate::poller::Config;
use tidegate::record::Sinks;

use crate::support::{Reply, Wire, program};

/// A router that serves. It stops with the test.
pub(crate) struct Web {
    server: Option<Server>,
    pub(crate) address: SocketAddr,
}

impl Web {
    pub(crate) fn of(describe: impl FnOnce(&mut Routes<'_>)) -> Web {
        Web::with(Settings::default(), describe)
    }

    pub(crate) fn with(settings: Settings, describe: impl FnOnce(&mut Routes<'_>)) -> Web {
        let router = Router::build(describe).unwrap();
        let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2).unwrap();
        let server = serve(router, listeners, settings, Sinks::default(), 1_000, &Config::default()).unwrap();
        Web { address: server.address(), server: Some(server) }
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, "", "")
    }

    /// One request on a connection of its own. `fields` are whole lines.
    pub(crate) fn ask(&self, method: &str, target: &str, fields: &str, body: &str) -> Reply {
        let mut wire = Wire::connect(self.address);
        let length = match body.is_empty() {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        wire.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{fields}\r\n{body}"
        ));
        if method == "HEAD" { wire.bodiless() } else { wire.reply() }
    }

    /// What curl says, which must succeed.
    pub(crate) fn curl(&self, arguments: &[&str], target: &str) -> Vec<u8> {
        let output = self.try_curl(arguments, target);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub(crate) fn try_curl(&self, arguments: &[&str], target: &str) -> Output {
        let mut curl = program("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60"]).args(arguments).arg(self.url(target));
        curl.output().unwrap()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.handles().shutdown(Duration::ZERO);
            let ended = server.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// Status and body.
pub(crate) fn both(reply: &Reply) -> (u16, String) {
    (reply.head.status, reply.body_text())
}
