//! `tidegate serve`.

use std::io;
use std::path::Path;
use std::process::Command;

use super::{Running, Wish, listening};

pub(super) fn start(program: &Path, arguments: &[String], wish: &Wish) -> io::Result<Running> {
    let mut command = Command::new(program);
    command.arg("serve").arg(&wish.root).args(["--listen", "127.0.0.1:0"]);
    if let Some(rate) = wish.rate {
        command.arg("--rate").arg(rate.to_string());
    }
    if let Some(rate) = wish.client_rate {
        command.arg("--client-rate").arg(rate.to_string());
    }
    if let Some(certificate) = &wish.certificate {
        command.arg("--tls-cert").arg(&certificate.chain).arg("--tls-key").arg(&certificate.key);
    }
    command.args(arguments);
    listening::start(command, "tidegate")
}

pub(super) fn version(program: &Path) -> io::Result<String> {
    let out = Command::new(program).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
