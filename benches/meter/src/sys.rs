//! The few calls to the system that the standard library does not have, behind safe functions.
//!
//! Owns no state but the flag that says whether somebody asked us to stop.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

/// A monotonic clock that counts nanoseconds from its making.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Nanoseconds since the clock was made.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// Runs the calling thread, and every process it starts from now on, on one CPU only.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// The CPUs that the calling thread may run on, lowest first.
pub fn allowed_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
        Err(_) => vec![0],
    }
}

/// Raises our limit of open files, and that of the processes we start, to the most we may. Returns it.
pub fn raise_open_files() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match rustix::process::setrlimit(Resource::Nofile, most) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Lowers the limit of open files of a running process: from now on it gets EMFILE beyond `most`.
pub fn limit_open_files(pid: u32, most: u64) -> io::Result<()> {
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::prlimit(Some(pid_of(pid)?), Resource::Nofile, limit)?;
    Ok(())
}

/// A signal that a server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// SIGTERM: finish and stop.
    Terminate,
    /// SIGINT: the same, from a keyboard.
    Interrupt,
    /// SIGKILL.
    Kill,
    /// SIGUSR1: open the logs again.
    Reopen,
    /// SIGHUP: read the certificates again.
    HangUp,
    /// SIGSTOP: stand still.
    Freeze,
    /// SIGCONT: go on.
    Thaw,
}

/// Sends a signal to one process.
pub fn tell(pid: u32, what: Tell) -> io::Result<()> {
    let signal = match what {
        Tell::Terminate => Signal::TERM,
        Tell::Interrupt => Signal::INT,
        Tell::Kill => Signal::KILL,
        Tell::Reopen => Signal::USR1,
        Tell::HangUp => Signal::HUP,
        Tell::Freeze => Signal::STOP,
        Tell::Thaw => Signal::CONT,
    };
    Ok(rustix::process::kill_process(pid_of(pid)?, signal)?)
}

/// Starts to connect without waiting. The socket is non-blocking.
pub fn start_connect(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// What became of a connect: an error if it failed.
pub fn connect_result(socket: impl AsFd) -> io::Result<()> {
    match sockopt::socket_error(socket)? {
        Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Closing this socket will send RST in place of FIN and drop what is unsent.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}

/// Connects with a small receive buffer, set before the connect so that the window is small from the start: a
/// peer that stops reading is felt soon.
pub fn connect_with_small_window(to: SocketAddr, bytes: usize) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// Whether we run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// From now on SIGINT and SIGTERM do not kill us but make [`stop_asked`] true, so that servers are stopped first.
pub fn catch_stop() -> io::Result<()> {
    let flag = stop_flag();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second one kills at once: the way out if the first is not honoured.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(flag))?;
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Whether somebody asked us to stop.
pub fn stop_asked() -> bool {
    stop_flag().load(Ordering::Relaxed)
}

fn stop_flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

fn pid_of(pid: u32) -> io::Result<Pid> {
    Pid::from_raw(pid as i32).ok_or_else(|| io::Error::other("process id 0"))
}
