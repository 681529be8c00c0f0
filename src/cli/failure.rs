//! What went wrong, and what to do about it.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::net::ListenError;

/// A message for the person at the terminal: what failed, and a way out.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    /// What the command line says is wrong.
    usage: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    /// Anything else.
    pub(super) fn other(what: &str, error: impl fmt::Display) -> Failure {
        Failure::new(format!("{what}: {error}"))
    }

    /// The command line makes no sense.
    pub(super) fn usage(message: &str) -> Failure {
        Failure { message: message.to_owned(), usage: true }
    }

    /// What the program exits with.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.usage { ExitCode::from(2) } else { ExitCode::FAILURE }
    }

    fn new(message: String) -> Failure {
        Failure { message, usage: false }
    }

    /// The folder cannot be served.
    pub(super) fn root(path: &Path, error: &io::Error) -> Failure {
        let shown = path.display();
        Failure::new(match error.kind() {
            io::ErrorKind::NotFound => {
                format!("there is no folder {shown}; name one that is there: tidegate serve FOLDER")
            }
            io::ErrorKind::NotADirectory => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new(".")).display();
                format!("{shown} is no folder; serve the one it is in: tidegate serve {parent}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("no permission to read {shown}; check who may with: ls -ld {shown}")
            }
            _ => format!("cannot open the folder {shown}: {error}"),
        })
    }

    /// Certificates and keys come in pairs.
    pub(super) fn tls_pairs(certificates: usize, keys: usize) -> Failure {
        Failure::usage(&format!(
            "each --tls-cert needs its --tls-key, in the same order; there are {certificates} of the first and {keys} of the second"
        ))
    }

    /// The access log cannot be opened.
    pub(super) fn access_log(path: &Path, error: &io::Error) -> Failure {
        let shown = path.display();
        Failure::new(match error.kind() {
            io::ErrorKind::NotFound => {
                format!(
                    "cannot open the access log {shown}: its folder is not there; make it, or log to stdout with --access-log -"
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!(
                    "no permission to write the access log {shown}; choose another path, or stdout with --access-log -"
                )
            }
            io::ErrorKind::IsADirectory => {
                format!(
                    "the access log {shown} is a folder; name a file in it: --access-log {}",
                    path.join("access.log").display()
                )
            }
            _ if error.raw_os_error() == Some(libc::ENXIO) => {
                format!("nobody reads the pipe {shown}; start its reader first, or log to a file")
            }
            _ => format!("cannot open the access log {shown}: {error}"),
        })
    }

    /// The address cannot be listened on.
    pub(super) fn listen(error: &ListenError) -> Failure {
        let address = error.address();
        Failure::new(match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "{address} is in use by another program; choose another port with --listen {}:PORT, \
                 or port 0 to have a free one picked",
                host_of(address)
            ),
            io::ErrorKind::PermissionDenied => format!(
                "no permission to listen on {address}; ports below 1024 are for the system, \
                 take a higher one: --listen {}:8080",
                host_of(address)
            ),
            io::ErrorKind::AddrNotAvailable => format!(
                "this machine has no address {}; listen on all of its addresses with --listen 0.0.0.0:{port}, \
                 or on itself only with --listen 127.0.0.1:{port}",
                address.ip(),
                port = address.port()
            ),
            _ => error.to_string(),
        })
    }
}

fn host_of(address: std::net::SocketAddr) -> String {
    match address.ip() {
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip @ std::net::IpAddr::V4(_) => ip.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::net::Listeners;

    #[test]
    fn messages_say_what_to_do() {
        let missing = Failure::root(Path::new("no/such"), &io::ErrorKind::NotFound.into()).to_string();
        assert!(missing.contains("no/such") && missing.contains("tidegate serve FOLDER"), "{missing}");
        let file = Failure::root(Path::new("file"), &io::ErrorKind::NotADirectory.into()).to_string();
        assert!(file.contains("tidegate serve ."), "{file}");

        let taken = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
        let error = Listeners::bind(taken.address(), 2).unwrap_err();
        let text = Failure::listen(&error).to_string();
        assert!(text.contains("in use") && text.contains("--listen 127.0.0.1:PORT"), "{text}");
        let error = Listeners::bind(SocketAddr::from(([192, 0, 2, 1], 8080)), 1).unwrap_err();
        let text = Failure::listen(&error).to_string();
        assert!(text.contains("no address 192.0.2.1") && text.contains("0.0.0.0:8080"), "{text}");
    }
}
