//! The real programs that the server has to get on with.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tidegate_meter::scratch::Scratch;
use tidegate_meter::sys::{self, Tell};

use super::await_that;

/// A program that has to be installed; without it the test fails and says how to get it.
pub(crate) fn program(name: &str) -> Command {
    let found = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    let package = if name == "nginx" { "nginx-light" } else { name };
    let path = found.unwrap_or_else(|| {
        panic!("{name} is not installed: run tests/run, which installs it, or: apt-get install {package}")
    });
    Command::new(path)
}

/// nginx: as a proxy in front of a server, or as a server.
pub(crate) struct Nginx {
    child: Child,
    address: SocketAddr,
    // Removed after `drop` has stopped the process.
    scratch: Scratch,
}

impl Nginx {
    /// Passes everything on to `to`, over connections that are kept.
    pub(crate) fn in_front_of(to: SocketAddr) -> Nginx {
        Nginx::start(
            &format!("upstream up {{ server {to}; keepalive 4; }}"),
            "location / { proxy_pass http://up; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_buffering off; proxy_request_buffering off;\n\
             client_max_body_size 0; }",
        )
    }

    /// With these lines beside its server, and in it. `root` is a folder of its own, to be filled by [`Nginx::root`].
    pub(crate) fn start(http: &str, server: &str) -> Nginx {
        let scratch = Scratch::new("nginx").expect("a scratch folder");
        let prefix = scratch.path().display();
        std::fs::create_dir(scratch.path().join("html")).expect("a folder to serve");
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let address = address.expect("a free port");
        let user = if sys::is_root() { "user root;" } else { "" };
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {prefix}/{kind}; "))
            .concat();
        let config = format!(
            "daemon off; worker_processes 1; pid {prefix}/pid; error_log {prefix}/error.log; {user}\n\
             events {{ }}\n\
             http {{ access_log off; {paths}\n{http}\n\
             server {{ listen {address}; root {prefix}/html; {server} }} }}\n"
        );
        let path = scratch.path().join("nginx.conf");
        std::fs::write(&path, config).expect("the configuration");
        let log = scratch.path().join("error.log");
        let mut command = program("nginx");
        command.arg("-p").arg(scratch.path()).arg("-c").arg(&path).arg("-e").arg(&log);
        let mut child = command.stdin(Stdio::null()).spawn().expect("nginx starts");
        await_that("nginx listens", || {
            if let Some(status) = child.try_wait().expect("our child") {
                panic!("nginx: {status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            TcpStream::connect(address).ok()
        });
        Nginx { child, address, scratch }
    }

    /// The folder that is served.
    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.scratch.path().join("html")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The worker goes with its parent only if that is asked to stop, not if it is killed.
        let _ = sys::tell(self.child.id(), Tell::Terminate);
        let _ = self.child.wait();
    }
}
