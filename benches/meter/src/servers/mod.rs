//! Starting and stopping the servers that are compared. A server is stopped by its process id when dropped,
//! whatever happened in between.

mod bare;
mod listening;
mod nginx;
mod raw;
mod tidegate;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::account;
use crate::scratch::Scratch;
use crate::sys::{self, Tell};

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// `tidegate serve`, with arguments beyond those that [`Wish`] makes.
    Tidegate {
        /// The program.
        program: PathBuf,
        /// Further arguments.
        arguments: Vec<String>,
    },
    /// A loop that only sends, so many connections at such an interval: what pacing costs at least.
    Bare {
        /// How many.
        connections: usize,
        /// How far apart a connection's writes are.
        interval: Duration,
    },
    /// A program that says where it listens and answers whatever it is asked: our `hello`, or a peer's.
    Program {
        /// Its name.
        name: &'static str,
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// Epoll and one constant reply: what an answered request costs at least.
    Raw,
    /// nginx as it is installed, one worker, with its files in a folder of our own.
    Nginx,
}

/// What the server shall do. Rates are plain bytes per second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The folder to serve.
    pub root: PathBuf,
    /// The limit of each connection.
    pub rate: Option<u64>,
    /// The limit of all connections of one client together. nginx has no such thing.
    pub client_rate: Option<u64>,
    /// Thousands of connections at once on one file: nginx, which opens it for each, is told to open it once, or
    /// it would run out of descriptors.
    pub share_open_files: bool,
    /// Serve over TLS, with this certificate.
    pub certificate: Option<Certificate>,
}

/// A certificate, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, and those that lead to a trusted one.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    address: SocketAddr,
    name: &'static str,
    // Dropped after `drop` has stopped the process that writes there.
    _scratch: Option<Scratch>,
}

impl Server {
    /// Starts the server and waits until it takes connections.
    pub fn start(&self, wish: &Wish) -> io::Result<Running> {
        match self {
            Server::Tidegate { program, arguments } => tidegate::start(program, arguments, wish),
            Server::Bare { connections, interval } => bare::start(*connections, *interval, wish),
            Server::Program { name, program, arguments } => {
                let mut command = Command::new(program);
                command.args(arguments);
                listening::start(command, name)
            }
            Server::Raw => raw::start(),
            Server::Nginx => nginx::start(wish),
        }
    }

    /// The name and the version it calls itself.
    pub fn version(&self) -> io::Result<String> {
        match self {
            Server::Tidegate { program, .. } => tidegate::version(program),
            Server::Bare { .. } => Ok(String::from("bare loop")),
            Server::Program { name, .. } => Ok((*name).to_owned()),
            Server::Raw => Ok(String::from("raw epoll")),
            Server::Nginx => nginx::version(),
        }
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its processes, the first one first.
    pub fn processes(&self) -> Vec<u32> {
        account::process_tree(self.child.id())
    }

    /// Asks it to stop, waits, and kills it if it does not.
    fn stop(&mut self) -> io::Result<()> {
        let processes = self.processes();
        if self.child.try_wait()?.is_some() {
            return Err(io::Error::other(format!("{} had ended before it was told to", self.name)));
        }
        sys::tell(self.child.id(), Tell::Terminate)?;
        let deadline = Instant::now() + STOP_WITHIN;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                eprintln!("meter: {} did not stop in {STOP_WITHIN:?} and is killed", self.name);
                // Its children first: without their parent nobody would know them.
                for &pid in processes.iter().rev() {
                    let _ = sys::tell(pid, Tell::Kill);
                }
                self.child.wait()?;
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("meter: stopping {}: {error}", self.name);
        }
    }
}

/// Becomes the server that this process was started for, if it was; then it returns only with an error.
pub fn become_it_if_told() -> Option<io::Error> {
    bare::become_it_if_told().or_else(raw::become_it_if_told)
}

/// A program that is not installed should say how to get it.
pub(crate) fn missing(program: &str, package: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{program}: {error}; install it with: apt-get install {package}"))
}

const START_WITHIN: Duration = Duration::from_secs(10);
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often a process is asked whether it has ended, or a port whether it answers: there is nothing to wait on.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
