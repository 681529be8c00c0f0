//! The calls of `sys` against the kernel: real sockets, files and timers.

use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use tidegate_poller::record::{Role, TcpFigures};
use tidegate_poller::sys;

const PATIENCE: Duration = Duration::from_secs(10);

/// A connection over loopback: the connecting end and the accepted one.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (client, server)
}

/// A directory of one test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sys-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> File {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn counting_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn the_clock_goes_forward_as_the_standard_library_s() {
    let (moment, instant) = (sys::now(), Instant::now());
    while instant.elapsed() < Duration::from_millis(2) {}
    let passed = sys::now() - moment;
    assert!(passed >= Duration::from_millis(2) && passed < PATIENCE, "{passed:?}");
}

#[test]
fn slices_arrive_in_order_and_a_long_list_is_cut() {
    let (client, mut server) = pair();
    let bytes = counting_bytes(3_000);
    let slices: Vec<IoSlice<'_>> = bytes.chunks(2).map(IoSlice::new).collect();
    assert_eq!(sys::send_vectored(&client, &slices, true).unwrap(), 2_048, "1,024 slices");
    assert_eq!(sys::send_vectored(&client, &slices[1_024..], false).unwrap(), 952);
    let mut received = vec![0; bytes.len()];
    server.read_exact(&mut received).unwrap();
    assert_eq!(received, bytes);
}

#[test]
fn a_full_socket_would_block_and_a_gone_peer_is_an_error() {
    let (client, server) = pair();
    client.set_nonblocking(true).unwrap();
    let bytes = counting_bytes(1 << 16);
    let error = std::iter::repeat_with(|| sys::send_vectored(&client, &[IoSlice::new(&bytes)], false))
        .find_map(Result::err)
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(server);
    let error = sys::send_vectored(&client, &[IoSlice::new(&bytes)], false).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
}

#[test]
fn a_file_range_is_sent_and_its_end_is_zero() {
    let folder = Folder::new("send");
    let bytes = counting_bytes(10_000);
    let file = folder.file("f", &bytes);
    let (client, mut server) = pair();
    assert_eq!(sys::send_file(&client, &file, 4_000, 1_000).unwrap(), 1_000);
    assert_eq!(sys::send_file(&client, &file, 9_990, 1_000).unwrap(), 10);
    assert_eq!(sys::send_file(&client, &file, 10_000, 1_000).unwrap(), 0);
    assert_eq!(sys::send_file(&client, &file, u64::MAX, 1).unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut received = vec![0; 1_010];
    server.read_exact(&mut received).unwrap();
    assert_eq!(received, [&bytes[4_000..5_000], &bytes[9_990..]].concat());
}

#[test]
fn a_cold_file_is_told_and_warmed() {
    let folder = Folder::new("warm");
    let len = 3 << 20;
    let file = folder.file("f", &counting_bytes(len as usize));
    assert!(sys::file_is_warm(&file, 0, len).unwrap(), "just written");
    assert!(sys::file_is_warm(&file, 0, 0).unwrap());
    // A page may be on its way through the kernel's own lists just then, so a chill can need another.
    let mut cold = false;
    for _ in 0..100 {
        sys::chill_file(&file, 0, len).unwrap();
        cold = !sys::file_is_warm(&file, 0, len).unwrap();
        if cold {
            break;
        }
    }
    if !cold {
        eprintln!("this file system keeps its files in memory, or cannot say: nothing to test");
        return;
    }
    sys::warm_file(&file, 1_000_000, 1_000_000).unwrap();
    assert!(sys::file_is_warm(&file, 1_000_000, 1_000_000).unwrap());
    sys::warm_file(&file, 0, u64::MAX).unwrap();
    assert!(sys::file_is_warm(&file, 0, len).unwrap());
    assert!(sys::file_is_warm(&file, len + 1, 10).unwrap(), "there is nothing to wait for after the end");
}

/// Asks until the figures are as wanted: acknowledgements may come a little later.
fn figures_when(
    socket: &TcpStream,
    role: Role,
    finished: bool,
    wanted: impl Fn(&TcpFigures) -> bool,
) -> TcpFigures {
    let start = Instant::now();
    loop {
        let figures = sys::tcp_info(socket, role, finished).unwrap();
        if wanted(&figures) || start.elapsed() > PATIENCE {
            return figures;
        }
        std::thread::yield_now();
    }
}

#[track_caller]
fn assert_bytes(socket: &TcpStream, role: Role, finished: bool, acked: u64, received: u64) {
    let expected = (Some(acked), Some(received));
    let figures = figures_when(socket, role, finished, |figures| {
        (figures.acked_bytes, figures.received_bytes) == expected
    });
    assert_eq!((figures.acked_bytes, figures.received_bytes), expected);
}

#[test]
fn the_kernel_s_figures_are_bytes_on_both_ends() {
    let (mut client, mut server) = pair();
    assert_bytes(&client, Role::Client, false, 0, 0);
    assert_bytes(&server, Role::Server, false, 0, 0);

    client.write_all(&[1; 1_000]).unwrap();
    server.read_exact(&mut [0; 1_000]).unwrap();
    server.write_all(&[2; 300]).unwrap();
    client.read_exact(&mut [0; 300]).unwrap();
    assert_bytes(&client, Role::Client, false, 1_000, 300);
    assert_bytes(&server, Role::Server, false, 300, 1_000);

    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    assert_bytes(&client, Role::Client, false, 1_000, 300);
    assert_bytes(&server, Role::Server, true, 300, 1_000);

    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_bytes(&client, Role::Client, true, 1_000, 300);
    assert_bytes(&server, Role::Server, true, 300, 1_000);
}

#[test]
fn the_kernel_s_figures_are_bytes_after_a_reset() {
    let (mut client, mut server) = pair();
    client.write_all(&[1; 1_000]).unwrap();
    server.read_exact(&mut [0; 1_000]).unwrap();
    server.write_all(&[2; 300]).unwrap();
    client.read_exact(&mut [0; 300]).unwrap();
    assert_bytes(&client, Role::Client, false, 1_000, 300);
    sys::set_linger_reset(&server).unwrap();
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_bytes(&client, Role::Client, false, 1_000, 300);
}

#[test]
fn what_a_slow_peer_leaves_is_unsent_and_not_acknowledged() {
    let (client, server) = pair();
    client.set_nonblocking(true).unwrap();
    let bytes = counting_bytes(1 << 16);
    let written: u64 = std::iter::repeat_with(|| sys::send_vectored(&client, &[IoSlice::new(&bytes)], false))
        .map_while(Result::ok)
        .map(|n| n as u64)
        .sum();
    client.shutdown(Shutdown::Write).unwrap();
    let whole = |figures: &TcpFigures| {
        figures.unacked_segments == 0
            && figures.acked_bytes.unwrap() + u64::from(figures.unsent_bytes.unwrap()) == written
    };
    let figures = figures_when(&client, Role::Client, false, whole);
    assert!(whole(&figures), "{written} were written: {figures:?}");
    assert!(figures.unsent_bytes > Some(0) && figures.segment_size > 0 && figures.congestion_window > 0);
    assert_eq!(sys::tcp_info(&server, Role::Server, false).unwrap().received_bytes, figures.acked_bytes);
}

#[test]
fn a_unix_socket_has_no_tcp_figures() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(sys::tcp_info(&one, Role::Client, false).is_err());
}

#[test]
fn options_are_taken() {
    let (client, _server) = pair();
    for on in [true, false] {
        sys::set_nodelay(&client, on).unwrap();
        assert_eq!(client.nodelay().unwrap(), on);
    }
    sys::set_notsent_lowat(&client, 16 << 10).unwrap();
    sys::set_buffers(&client, Some(64 << 10), None).unwrap();
    sys::set_buffers(&client, None, Some(u32::MAX)).unwrap();
    for rate in [Some(0), Some(1_000_000), Some(20_000_000_000), None] {
        sys::set_max_pacing_rate(&client, rate).unwrap();
    }
}

#[test]
fn a_listener_does_not_block_and_shares_its_port_only_if_asked() {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let first = sys::listen_tcp(any, 16, true).unwrap();
    let address = first.local_addr().unwrap();
    assert_eq!(first.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let second = sys::listen_tcp(address, 16, true).unwrap();
    assert_eq!(second.local_addr().unwrap(), address);
    assert_eq!(sys::listen_tcp(address, 16, false).unwrap_err().kind(), ErrorKind::AddrInUse);

    let alone = sys::listen_tcp(any, u32::MAX, false).unwrap();
    let client = TcpStream::connect(alone.local_addr().unwrap()).unwrap();
    let (_, peer) = alone.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[test]
fn a_listener_takes_ipv6() {
    match sys::listen_tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), 16, false) {
        Ok(listener) => {
            let address = listener.local_addr().unwrap();
            assert_eq!((address.ip(), address.port() > 0), (Ipv6Addr::LOCALHOST.into(), true));
            TcpStream::connect(address).unwrap();
        }
        Err(error) => eprintln!("no IPv6 here, nothing to test: {error}"),
    }
}

#[test]
fn a_timer_wakes_the_poll_within_its_millisecond_and_each_time_anew() {
    let timer = sys::TimerFd::new().unwrap();
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(4);
    poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), Token(0), Interest::READABLE).unwrap();
    let mut wait = |patience| {
        poll.poll(&mut events, Some(patience)).unwrap();
        (sys::now(), events.iter().count())
    };
    for round in 0..6 {
        let at = sys::now().plus_nanos(300_000);
        timer.arm(at).unwrap();
        let (woken, fired) = wait(PATIENCE);
        assert_eq!(fired, 1);
        assert!(woken >= at, "never early");
        if round % 2 == 0 {
            timer.clear().unwrap();
        }
    }
    timer.arm(sys::now().plus_nanos(5_000_000)).unwrap();
    timer.disarm().unwrap();
    assert_eq!(wait(Duration::from_millis(10)).1, 0, "disarmed");
    timer.arm(tidegate_poller::moment::Moment::FIRST).unwrap();
    assert_eq!(wait(PATIENCE).1, 1, "what is past fires at once");
    timer.clear().unwrap();
    timer.clear().unwrap();
}

#[test]
fn a_descriptor_made_blocking_waits() {
    let (client, server) = pair();
    client.set_nonblocking(true).unwrap();
    assert_eq!((&client).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    sys::set_blocking(&client).unwrap();
    let sender = std::thread::spawn(move || (&server).write_all(b"x").unwrap());
    assert_eq!((&client).read(&mut [0]).unwrap(), 1);
    sender.join().unwrap();
}

#[test]
fn the_reserve_is_given_up_and_taken_back() {
    let mut reserve = sys::Reserve::new();
    for _ in 0..2 {
        assert!(!reserve.is_held());
        reserve.reopen().unwrap();
        reserve.reopen().unwrap();
        assert!(reserve.is_held());
        reserve.release();
    }
}

#[test]
fn nothing_outside_the_root_is_opened() {
    let folder = Folder::new("open");
    let root = folder.0.join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(folder.0.join("secret"), "secret").unwrap();
    fs::write(root.join("sub/page"), "page").unwrap();
    std::os::unix::fs::symlink("sub/page", root.join("inside")).unwrap();
    std::os::unix::fs::symlink("../secret", root.join("outside")).unwrap();
    std::os::unix::fs::symlink(folder.0.join("secret"), root.join("absolute")).unwrap();
    std::os::unix::fs::symlink("/proc/self/cwd", root.join("magic")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    let root = File::open(root).unwrap();
    let open = |path: &str| sys::open_beneath(&root, Path::new(path), false);

    for path in ["sub/page", "./sub/../sub/page", "inside"] {
        let mut text = String::new();
        open(path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "page", "{path}");
    }
    assert!(open("sub").unwrap().metadata().unwrap().is_dir());
    assert!(open(".").unwrap().metadata().unwrap().is_dir());
    assert!(!open("pipe").unwrap().metadata().unwrap().is_file(), "a pipe without a writer does not block");
    for path in ["../secret", "sub/../../secret", "outside", "absolute", "/etc/passwd", "magic/x", ".."] {
        assert!(open(path).is_err(), "{path}");
    }
    assert_eq!(open("missing").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(open("").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(open("sub\0/page").unwrap_err().kind(), ErrorKind::InvalidInput);
    // The path was just walked, so it is cached, where the kernel can say.
    match sys::open_beneath(&root, Path::new("sub/page"), true) {
        Ok(file) => assert!(file.metadata().unwrap().is_file()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
}

#[test]
fn what_waits_to_be_read_is_seen_and_not_taken() {
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(!sys::has_unread(&ours));
    theirs.write_all(b"ab").unwrap();
    let mut byte = [0];
    for expected in b"ab" {
        assert!(sys::has_unread(&ours) && sys::has_unread(&ours));
        ours.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], *expected);
    }
    assert!(!sys::has_unread(&ours));
    drop(theirs);
    assert!(sys::has_unread(&ours), "an end is something to read");
}
