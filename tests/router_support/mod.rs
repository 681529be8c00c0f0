//! A router that serves in this process, and real clients.

// Each test binary uses its part of this.
#![allow(dead_code)]

use std::ops::Deref;
use std::process::Output;

use tidegate::http::ServerSettings;
use tidegate::http::router::{Router, Routes};

use crate::support::{Host, Reply, program};

/// A [`Host`] of a router. Nobody keeps its records, which would cost memory where that is measured.
pub(crate) struct Web(Host);

impl Web {
    pub(crate) fn of(describe: impl FnOnce(&mut Routes<'_>)) -> Web {
        Web::with(ServerSettings::default(), describe)
    }

    pub(crate) fn with(settings: ServerSettings, describe: impl FnOnce(&mut Routes<'_>)) -> Web {
        let router = Router::build(describe).unwrap();
        Web(Host::unrecorded(settings, router))
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, "", "")
    }

    /// One request on a connection of its own. `fields` are whole lines.
    pub(crate) fn ask(&self, method: &str, target: &str, fields: &str, body: &str) -> Reply {
        let mut wire = self.connect();
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

impl Deref for Web {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
    }
}

/// Status and body.
pub(crate) fn both(reply: &Reply) -> (u16, String) {
    (reply.head.status, reply.body_text())
}
