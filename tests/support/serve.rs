//! `tidegate serve` as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use tidegate_meter::scratch::{self, Scratch};
use tidegate_meter::sys::{self, Tell};

use super::{Log, PATIENCE, await_that};

/// A running server with a folder of its own. It is killed when dropped.
pub(crate) struct Serve {
    child: Child,
    address: SocketAddr,
    scheme: String,
    stdout: mpsc::Receiver<String>,
    /// What it said so far on standard error, and who reads it.
    heard: Arc<Mutex<Vec<u8>>>,
    stderr: Option<JoinHandle<()>>,
    log: Option<PathBuf>,
    scratch: Scratch,
}

/// What a server left behind.
pub(crate) struct Stopped {
    pub(crate) status: ExitStatus,
    pub(crate) log: Log,
    /// Lines on standard output after the first.
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: String,
}

impl Serve {
    /// With a JSON access log, two pollers, and these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Serve {
        Serve::start_with(true, arguments)
    }

    /// With these arguments only, but for the address and the folder.
    pub(crate) fn start_bare(arguments: &[&str]) -> Serve {
        Serve::start_with(false, arguments)
    }

    fn start_with(json_log: bool, arguments: &[&str]) -> Serve {
        let scratch = Scratch::new("serve").expect("a scratch folder");
        let root = scratch.path().join("root");
        std::fs::create_dir(&root).expect("the folder to serve");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("serve").arg(&root).args(["--listen", "127.0.0.1:0"]);
        let log = json_log.then(|| scratch.path().join("access.log"));
        if let Some(log) = &log {
            command.args(["--log-format", "json", "--access-log"]).arg(log);
            if !arguments.contains(&"--pollers") {
                command.args(["--pollers", "2"]);
            }
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");

        let (sender, stdout) = mpsc::channel();
        let pipe = child.stdout.take().expect("a pipe");
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut pipe = child.stderr.take().expect("a pipe");
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let hears = heard.clone();
        let stderr = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut piece) {
                hears.lock().unwrap().extend_from_slice(&piece[..n]);
            }
        });

        // Made before anything can fail, so that the process is stopped and its words are shown then.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let (scheme, stderr) = (String::new(), Some(stderr));
        let mut serve = Serve { child, address: nowhere, scheme, stdout, heard, stderr, log, scratch };
        let line = serve.stdout.recv_timeout(PATIENCE).expect("a line that says where it listens");
        let place = line.strip_prefix("listening on ").and_then(|rest| rest.split_once("://"));
        serve.scheme = place.map_or("", |(scheme, _)| scheme).to_owned();
        let address = place.and_then(|(_, address)| address.trim().parse().ok());
        serve.address = address.unwrap_or_else(|| panic!("not where it listens: {line:?}"));
        serve
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the folder that is served is.
    pub(crate) fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    /// A folder for the test's own files, not served.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Puts a file of so many bytes of the pattern into the folder that is served.
    pub(crate) fn file(&self, name: &str, bytes: u64) {
        scratch::make_file(&self.root().join(name), bytes).expect("a file to serve");
    }

    /// Where the JSON log is.
    pub(crate) fn log_path(&self) -> &Path {
        self.log.as_deref().expect("started with a log")
    }

    /// Waits until the log says what is looked for, and returns it as it is then.
    pub(crate) fn await_log(&self, what: &str, mut said: impl FnMut(&Log) -> bool) -> Log {
        await_that(what, || {
            let log = Log::read(self.log_path());
            said(&log).then_some(log)
        })
    }

    /// Waits for the next line on standard output.
    pub(crate) fn next_line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("a line on standard output")
    }

    /// Waits until it has said something on standard error.
    pub(crate) fn await_said(&self, text: &str) {
        await_that(text, || self.heard().contains(text).then_some(()));
    }

    pub(crate) fn tell(&self, what: Tell) {
        sys::tell(self.child.id(), what).expect("the process is there");
    }

    /// Asks it to stop, waits for it, and takes what it left.
    pub(crate) fn stop(self) -> Stopped {
        self.tell(Tell::Terminate);
        self.await_end()
    }

    /// Waits until it has ended by itself or by an earlier signal.
    pub(crate) fn await_end(mut self) -> Stopped {
        let status = await_that("the server ends", || self.child.try_wait().expect("our child"));
        let log = self.log.as_deref().map(Log::read).unwrap_or_default();
        // Its end closed the pipes, which ends the threads that read them.
        let stderr = self.said();
        assert!(!stderr.contains("panicked"), "the server panicked: {stderr}");
        let stdout = self.stdout.iter().collect();
        Stopped { status, log, stdout, stderr }
    }
}

impl Serve {
    /// What it said on standard error, once it has ended.
    fn said(&mut self) -> String {
        if let Some(reader) = self.stderr.take() {
            let _ = reader.join();
        }
        self.heard()
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

impl Stopped {
    /// The log, of a server that ended well.
    pub(crate) fn log(self) -> Log {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        self.log
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log =
                self.log.as_deref().and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
            eprintln!("--- the server's words\n{}--- its log\n{log}---", self.said());
        }
    }
}
