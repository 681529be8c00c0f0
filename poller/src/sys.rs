//! The kernel's calls that neither the standard library nor mio offers, and every `unsafe` of this package.
//!
//! Each function is one call, or one small thing made of two or three: it keeps no state and takes no decision. A
//! descriptor is borrowed for the length of the call, so it cannot be closed meanwhile. Results are
//! `io::Result`; would-block is an error of that kind, as with the standard library.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::size_of;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::moment::{Moment, NANOS_PER_SEC};
use crate::record::{Role, TcpFigures};
use crate::tcp_info::TcpInfo;

/// The kernel refuses longer lists.
const IOV_MAX: usize = 1024;
/// The default read-ahead of the kernel, in which the page cache is mostly filled: one probe finds out about so much.
const READ_AHEAD: u64 = 128 << 10;
/// How far ahead of the reads the disk is kept busy.
const WARM_AHEAD: u64 = 2 << 20;
/// How often a walk of a path that raced with a rename is tried again.
const OPEN_TRIES: usize = 16;

/// The time. The loop calls it for a turn's moment and before it sleeps; what it drives is told. Others call it where
/// no turn's moment is at hand (a handle on another thread) or where a turn's length matters.
pub fn now() -> Moment {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec for the kernel to fill. The clock exists on every Linux, so the call
    // cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Moment::from_nanos(time.tv_sec as u64 * NANOS_PER_SEC + time.tv_nsec as u64)
}

/// Writes the slices (the first 1,024 of them) to a socket; says how many bytes it took. `more`: others follow
/// at once, so a last segment that is not full may wait for them. Raises no `SIGPIPE`.
pub fn send_vectored(socket: impl AsFd, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    let flags = if more { libc::MSG_NOSIGNAL | libc::MSG_MORE } else { libc::MSG_NOSIGNAL };
    // SAFETY: a msghdr is integers and pointers, for all of which zero is a value: no name, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slices.as_ptr().cast::<libc::iovec>().cast_mut();
    message.msg_iovlen = slices.len().min(IOV_MAX) as _;
    // SAFETY: `msg_iov` points to `msg_iovlen` live `IoSlice`s, which the standard library promises to be laid
    // out as iovec; sendmsg only reads from them and from `message`.
    size(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &message, flags) })
}

/// Writes bytes to a socket, as [`send_vectored`] does: the kernel has less to look at.
pub fn send(socket: impl AsFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    let flags = if more { libc::MSG_NOSIGNAL | libc::MSG_MORE } else { libc::MSG_NOSIGNAL };
    let (fd, none) = (socket.as_fd().as_raw_fd(), std::ptr::null::<libc::c_void>());
    // Not by `libc::send`: glibc lets a thread be cancelled there, and says so by two locked writes a call.
    // SAFETY: the pointer and the length are those of a live slice, which the call only reads; there is no address.
    let sent = unsafe { libc::syscall(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, none, none) };
    size(sent as libc::ssize_t)
}

/// Reads from a socket; zero is the peer's FIN.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (fd, none) = (socket.as_fd().as_raw_fd(), std::ptr::null::<libc::c_void>());
    // As for `send`.
    // SAFETY: the pointer and the length are those of a live slice, which the call fills; no address is asked for.
    let came =
        unsafe { libc::syscall(libc::SYS_recvfrom, fd, buffer.as_mut_ptr(), buffer.len(), 0, none, none) };
    size(came as libc::ssize_t)
}

/// Whether a read of this socket would give bytes, its end, or an error. Takes none of them.
pub fn has_unread(socket: impl AsFd) -> bool {
    let (mut byte, flags) = ([0_u8], libc::MSG_PEEK | libc::MSG_DONTWAIT);
    // SAFETY: the pointer is that of a live array of one byte, which the call may write to.
    let peeked = size(unsafe { libc::recv(socket.as_fd().as_raw_fd(), byte.as_mut_ptr().cast(), 1, flags) });
    !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Writes up to `len` bytes of a file from `offset` to a socket; says how many it took. Zero: the file ends there.
/// Blocks on a cold file (see [`file_is_warm`]), and raises `SIGPIPE` where that is not ignored (Rust ignores it).
pub fn send_file(socket: impl AsFd, file: impl AsFd, offset: u64, len: usize) -> io::Result<usize> {
    let mut offset = offset_from(offset)?;
    let (socket, file) = (socket.as_fd().as_raw_fd(), file.as_fd().as_raw_fd());
    // SAFETY: `offset` is a live integer that the kernel reads and advances; there are no other pointers.
    size(unsafe { libc::sendfile64(socket, file, &mut offset, len) })
}

/// Reads from a file at an offset into the slices (the first 1,024 of them); says how many bytes came. Zero: the file
/// ends there, or nothing was asked for. Blocks: not for the poller's thread.
pub fn read_vectored_at(file: impl AsFd, slices: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
    let count = slices.len().min(IOV_MAX) as libc::c_int;
    let first = slices.as_mut_ptr().cast::<libc::iovec>();
    // SAFETY: `first` points to `count` live `IoSliceMut`s, which the standard library promises to be laid out as
    // iovec; they are borrowed mutably, so the kernel alone writes to what they name.
    size(unsafe { libc::preadv64(file.as_fd().as_raw_fd(), first, count, offset_from(offset)?) })
}

/// Writes the slices (the first 1,024 of them) to a file at an offset; says how many bytes it took. Blocks: not for
/// the poller's thread.
pub fn write_vectored_at(file: impl AsFd, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    let count = slices.len().min(IOV_MAX) as libc::c_int;
    let first = slices.as_ptr().cast::<libc::iovec>();
    // SAFETY: `first` points to `count` live `IoSlice`s, which the standard library promises to be laid out as iovec;
    // the kernel only reads from them.
    size(unsafe { libc::pwritev64(file.as_fd().as_raw_fd(), first, count, offset_from(offset)?) })
}

/// How far apart a range of a file is probed. What is dropped from memory goes in stretches; a probe is a system call.
const PROBE_STEP: usize = 512 * 1024;

/// Whether a range of a file is in the page cache, so that sending it will not wait for the disk. Probes a byte at
/// each end and every 512 KiB between. `true` where the file system cannot say.
pub fn file_is_warm(file: impl AsFd, offset: u64, len: u64) -> io::Result<bool> {
    let file = file.as_fd().as_raw_fd();
    let Some(last) = len.checked_sub(1).map(|rest| offset.saturating_add(rest)) else { return Ok(true) };
    for at in (offset..last).step_by(PROBE_STEP).chain([last]) {
        match read_without_waiting(file, at) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::EOPNOTSUPP | libc::ENOSYS) => Ok(true),
                    _ => Err(error),
                };
            }
        }
    }
    Ok(true)
}

/// Brings a range of a file into the page cache and waits for it. Blocks: not for the poller's thread.
pub fn warm_file(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let end = offset.saturating_add(len);
    let mut buffer = vec![0; READ_AHEAD.min(len) as usize];
    let (mut at, mut asked) = (offset, offset);
    while at < end {
        while asked < end.min(at.saturating_add(WARM_AHEAD)) {
            // The kernel cuts a longer wish short. This one is advice: what it did not bring, the read waits for.
            let _ = advise(file.as_raw_fd(), asked, READ_AHEAD, libc::POSIX_FADV_WILLNEED);
            asked = asked.saturating_add(READ_AHEAD);
        }
        let wanted = buffer.len().min((end - at) as usize);
        match file.read_at(&mut buffer[..wanted], at) {
            Ok(0) => break,
            Ok(read) => at += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts a range of a file out of the page cache, as far as it is on the disk already and nobody maps it: for
/// tests and benchmarks of cold files.
pub fn chill_file(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    advise(file.as_fd().as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED)
}

/// What the kernel knows of a TCP connection. `peer_finished`: we have read the peer's FIN.
///
/// The kernel counts SYN and FIN as a byte each. They are taken off, which is what `role` and `peer_finished` are
/// needed for.
pub fn tcp_info(socket: impl AsFd, role: Role, peer_finished: bool) -> io::Result<TcpFigures> {
    let mut info = TcpInfo::default();
    let mut len = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: `info` is `len` live bytes of plain integers, so whatever the kernel writes there is a value; it
    // writes no more than `len`, and puts in `len` how much that was.
    check(unsafe {
        let info = (&raw mut info).cast();
        libc::getsockopt(socket.as_fd().as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info, &mut len)
    })?;
    Ok(info.figures(len as usize, role, peer_finished))
}

/// Bytes in the kernel that the peer's has not acknowledged (TCP) or taken (Unix), sent or not.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is a live int, which is what this request fills.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &mut bytes) })?;
    Ok(bytes.cast_unsigned())
}

/// Sends small segments at once instead of waiting for an acknowledgement (`TCP_NODELAY`).
pub fn set_nodelay(socket: impl AsFd, on: bool) -> io::Result<()> {
    set_option(socket.as_fd().as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, &libc::c_int::from(on))
}

/// Calls the socket writable only while less than `bytes` in the kernel wait to be sent (`TCP_NOTSENT_LOWAT`).
pub fn set_notsent_lowat(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    set_option(socket.as_fd().as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &bytes)
}

/// Lets the kernel pace the socket (`SO_MAX_PACING_RATE`), in bytes per second; `None` takes the limit off. Zero
/// would stop TCP for good, so it becomes one.
pub fn set_max_pacing_rate(socket: impl AsFd, rate: Option<u64>) -> io::Result<()> {
    let rate = rate.map_or(u64::MAX, |rate| rate.max(1));
    set_option(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &rate)
}

/// Fixes the kernel's buffers, in bytes, instead of leaving them to its tuning. The kernel doubles the figure for
/// its own bookkeeping and caps it.
pub fn set_buffers(socket: impl AsFd, send: Option<u32>, receive: Option<u32>) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_fd();
    for (name, bytes) in [(libc::SO_SNDBUF, send), (libc::SO_RCVBUF, receive)] {
        if let Some(bytes) = bytes {
            set_option(socket, libc::SOL_SOCKET, name, &bytes.min(i32::MAX as u32))?;
        }
    }
    Ok(())
}

/// Makes the close send RST and drop what is unsent (`SO_LINGER` 0).
pub fn set_linger_reset(socket: impl AsFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// A listening TCP socket that does not block. `reuse_port`: several of them share the address, and the kernel
/// shares the callers out among them. The kernel caps `backlog` at `net.core.somaxconn`.
pub fn listen_tcp(address: SocketAddr, backlog: u32, reuse_port: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let raw = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the call above just made this descriptor, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let on: libc::c_int = 1;
    set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
    if reuse_port {
        set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEPORT, &on)?;
    }
    match address {
        SocketAddr::V4(address) => bind(
            raw,
            &libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            },
        )?,
        SocketAddr::V6(address) => bind(
            raw,
            &libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            },
        )?,
    }
    let backlog = libc::c_int::try_from(backlog).unwrap_or(libc::c_int::MAX);
    // SAFETY: no pointers.
    check(unsafe { libc::listen(raw, backlog) })?;
    Ok(socket.into())
}

/// Opens what is at `path` for reading, seen from the directory `root` and never outside it: neither `..`, nor an
/// absolute path, nor a symbolic link leads out (`openat2`, Linux 5.6). A pipe or a device does not block the
/// opening; the caller looks what it got.
///
/// `cached_only`: fails with would-block instead of going to the disk for the path (on a kernel before 5.12:
/// always).
pub fn open_beneath(root: impl AsFd, path: &Path, cached_only: bool) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let cached = if cached_only { libc::RESOLVE_CACHED } else { 0 };
    let how = OpenHow {
        flags: (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64,
        mode: 0,
        resolve: libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | cached,
    };
    let root = root.as_fd().as_raw_fd();
    let mut tries = 0;
    loop {
        // SAFETY: `path` ends in NUL and `how` is as long as said; both live, and the kernel only reads them.
        let opened = check(unsafe {
            libc::syscall(libc::SYS_openat2, root, path.as_ptr(), &how, size_of::<OpenHow>()) as libc::c_int
        });
        let error = match opened {
            // SAFETY: the call above just made this descriptor, and nobody else knows it.
            Ok(raw) => return Ok(unsafe { File::from_raw_fd(raw) }),
            Err(error) => error,
        };
        tries += 1;
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // A rename raced with a `..` in the path.
            Some(libc::EAGAIN) if !cached_only && tries < OPEN_TRIES => {}
            // The kernel does not know RESOLVE_CACHED.
            Some(libc::EINVAL) if cached_only => return Err(io::ErrorKind::WouldBlock.into()),
            _ => return Err(error),
        }
    }
}

/// Has reads and writes of a descriptor wait: what was opened not to wait for its other end may do so from then on.
pub fn set_blocking(descriptor: impl AsFd) -> io::Result<()> {
    let raw = descriptor.as_fd().as_raw_fd();
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(raw, libc::F_GETFL) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(raw, libc::F_SETFL, flags & !libc::O_NONBLOCK) })?;
    Ok(())
}

/// Raises the process's soft limit of open descriptors to the hard one; says what it is then.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live and the kernel fills it.
    check(unsafe { libc::getrlimit64(libc::RLIMIT_NOFILE, &mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit64 { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: `raised` is live and only read.
        if check(unsafe { libc::setrlimit64(libc::RLIMIT_NOFILE, &raised) }).is_ok() {
            limit = raised;
        }
    }
    Ok(limit.rlim_cur)
}

/// A timer that wakes epoll to the microsecond, where epoll's own timeout counts milliseconds.
#[derive(Debug)]
pub struct TimerFd(File);

impl TimerFd {
    /// A timer that is not armed.
    pub fn new() -> io::Result<TimerFd> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointers.
        let raw = check(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        // SAFETY: the call above just made this descriptor, and nobody else knows it.
        Ok(TimerFd(unsafe { File::from_raw_fd(raw) }))
    }

    /// Makes it readable at a moment, or at once if that has passed. Takes the place of what was armed before,
    /// and of a firing that nobody cleared.
    pub fn arm(&self, at: Moment) -> io::Result<()> {
        self.set(at.as_nanos())
    }

    /// Makes it not readable.
    pub fn disarm(&self) -> io::Result<()> {
        self.set(0)
    }

    /// Takes note that it fired: not readable until armed again.
    pub fn clear(&self) -> io::Result<()> {
        match io::Read::read(&mut &self.0, &mut [0; size_of::<u64>()]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    fn set(&self, nanos: u64) -> io::Result<()> {
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let time = libc::itimerspec {
            it_interval: none,
            it_value: libc::timespec {
                tv_sec: (nanos / NANOS_PER_SEC) as _,
                tv_nsec: (nanos % NANOS_PER_SEC) as _,
            },
        };
        let (raw, nowhere) = (self.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: `time` is live and only read; the old setting is not asked for.
        check(unsafe { libc::timerfd_settime(raw, libc::TFD_TIMER_ABSTIME, &time, nowhere) })?;
        Ok(())
    }
}

impl AsRawFd for TimerFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A descriptor kept in reserve. When the process has none left, a listener gives it up, accepts the caller in its
/// place, closes it and takes the reserve back: the caller learns at once, and the listener does not spin.
#[derive(Debug)]
pub struct Reserve(Option<File>);

impl Reserve {
    /// Not taken yet.
    pub const fn new() -> Reserve {
        Reserve(None)
    }

    /// Whether it is there.
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }

    /// Gives it up.
    pub fn release(&mut self) {
        self.0 = None;
    }

    /// Takes it, if it is not there.
    pub fn reopen(&mut self) -> io::Result<()> {
        if self.0.is_none() {
            self.0 = Some(File::open("/dev/null")?);
        }
        Ok(())
    }
}

impl Default for Reserve {
    fn default() -> Reserve {
        Reserve::new()
    }
}

/// Reads one byte if that needs no waiting for the disk; the byte itself does not matter.
fn read_without_waiting(file: RawFd, at: u64) -> io::Result<usize> {
    let mut byte = 0u8;
    let iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: `iov` is one live iovec that names one live byte for the kernel to fill.
    size(unsafe { libc::preadv2(file, &iov, 1, offset_from(at)?, libc::RWF_NOWAIT) })
}

fn advise(file: RawFd, offset: u64, len: u64, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    match unsafe { libc::posix_fadvise(file, offset_from(offset)?, offset_from(len)?, advice) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn bind<T: Copy>(socket: RawFd, address: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `address` is `len` live bytes, which the kernel only reads, and knows by the family they begin with.
    check(unsafe { libc::bind(socket, std::ptr::from_ref(address).cast(), len) })?;
    Ok(())
}

fn set_option<T: Copy>(socket: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` live bytes, which the kernel only reads.
    check(unsafe { libc::setsockopt(socket, level, name, std::ptr::from_ref(value).cast(), len) })?;
    Ok(())
}

/// -1 of a call becomes the error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for a call that says how many bytes.
fn size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn offset_from(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// `struct open_how` of linux/openat2.h.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}
