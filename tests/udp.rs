//! UDP over loopback: datagrams of all sizes, timeouts, cancels, and a runtime that goes away.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket as Plain};
use std::time::{Duration, Instant};

use tidegate::net::UdpSocket;
use tidegate::runtime::{Runtime, RuntimeHandle};
use tidegate::task::{Series, WaitError, sleep};

const PATIENCE: Duration = Duration::from_secs(10);
/// The most that goes over IPv4.
const IPV4_MAX: usize = 65_507;

fn here() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn bind(runtime: &RuntimeHandle) -> UdpSocket {
    UdpSocket::bind(runtime, here()).unwrap()
}

fn random_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|_| fastrand::u8(..)).collect()
}

#[test]
fn datagrams_of_all_sizes_come_whole() {
    let runtime = Runtime::new().unwrap();
    let (a, b) = (bind(&runtime.handle()), bind(&runtime.handle()));
    for length in [0, 1, 1_472, 1_473, 9_000, 40_000, IPV4_MAX] {
        let bytes = random_bytes(length);
        let waiting = runtime.spawn(b.receive().timeout(PATIENCE));
        runtime.run(a.send_to(bytes.clone(), b.address())).unwrap().unwrap();
        let datagram = waiting.wait_for(PATIENCE).unwrap().unwrap().unwrap();
        assert_eq!((datagram.from, datagram.bytes.len()), (a.address(), length));
        assert!(datagram.bytes == bytes);
    }
    let error = runtime.run(a.send_to(random_bytes(70_000), b.address())).unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
}

#[test]
fn what_has_come_before_is_received_at_once_and_in_order() {
    let runtime = Runtime::new().unwrap();
    let socket = bind(&runtime.handle());
    let plain = Plain::bind(here()).unwrap();
    for n in 0..10u8 {
        plain.send_to(&[n], socket.address()).unwrap();
    }
    for n in 0..10u8 {
        let datagram = runtime.run(socket.receive()).unwrap().unwrap();
        assert_eq!((datagram.from, &datagram.bytes[..]), (plain.local_addr().unwrap(), &[n][..]));
    }
}

#[test]
fn tasks_that_wait_are_served_one_datagram_each() {
    let runtime = Runtime::builder().pollers(2).build().unwrap();
    let socket = bind(&runtime.handle());
    let waiting: Vec<_> = (0..200).map(|_| runtime.spawn(socket.receive())).collect();
    let plain = Plain::bind(here()).unwrap();
    for n in 0..200u8 {
        plain.send_to(&[n], socket.address()).unwrap();
    }
    let mut seen = HashSet::new();
    for waiting in waiting {
        seen.insert(waiting.wait_for(PATIENCE).unwrap().unwrap().unwrap().bytes[0]);
    }
    assert_eq!(seen.len(), 200);
}

#[test]
fn receiving_times_out_and_loses_nothing() {
    let runtime = Runtime::new().unwrap();
    let socket = bind(&runtime.handle());
    let began = Instant::now();
    let error = runtime.run(socket.receive().timeout(Duration::from_millis(30))).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() >= Duration::from_millis(30));
    Plain::bind(here()).unwrap().send_to(b"later", socket.address()).unwrap();
    assert_eq!(runtime.run(socket.receive().timeout(PATIENCE)).unwrap().unwrap().bytes, b"later");
}

#[test]
fn a_cancelled_task_takes_no_datagram() {
    let runtime = Runtime::new().unwrap();
    let socket = bind(&runtime.handle());
    let first = runtime.spawn(socket.receive());
    let second = runtime.spawn(socket.receive());
    first.cancel();
    assert_eq!(first.wait_for(PATIENCE).unwrap().unwrap_err(), WaitError::Dropped);
    Plain::bind(here()).unwrap().send_to(b"one", socket.address()).unwrap();
    assert_eq!(second.wait_for(PATIENCE).unwrap().unwrap().unwrap().bytes, b"one");

    // Before it starts: the series was cancelled while another task ran.
    let (socket_2, runtime_2) = (socket.clone(), runtime.handle());
    let series = Series::new(()).then(sleep(PATIENCE), |_, _| Ok(())).then(socket_2.receive(), |_, _| Ok(()));
    let handle = runtime_2.start(series);
    handle.cancel();
    assert!(handle.wait_for(PATIENCE).unwrap().unwrap().outcome.is_err());
    // After it is done: nothing happens.
    Plain::bind(here()).unwrap().send_to(b"two", socket.address()).unwrap();
    let done = runtime.spawn(socket.receive());
    while !done.is_done() {
        std::thread::yield_now();
    }
    done.cancel();
    assert_eq!(done.wait_for(PATIENCE).unwrap().unwrap().unwrap().bytes, b"two");
}

#[test]
fn a_runtime_that_goes_away_ends_what_waits() {
    let runtime = Runtime::new().unwrap();
    let socket = bind(&runtime.handle());
    let waiting = runtime.spawn(socket.receive());
    // Not started on this runtime, so not cut with what runs on it.
    let other = Runtime::new().unwrap();
    let foreign = other.spawn(socket.receive());
    drop(runtime);
    assert_eq!(waiting.wait_for(PATIENCE).unwrap().unwrap_err(), WaitError::Dropped);
    assert_eq!(foreign.wait_for(PATIENCE).unwrap().unwrap_err(), WaitError::Dropped);
    assert_eq!(other.run(socket.receive()).unwrap().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn the_last_handle_closes_the_socket() {
    let runtime = Runtime::new().unwrap();
    let socket = bind(&runtime.handle());
    let address = socket.address();
    let waiting = runtime.spawn(socket.receive());
    drop(socket);
    Plain::bind(here()).unwrap().send_to(b"still open", address).unwrap();
    assert_eq!(waiting.wait_for(PATIENCE).unwrap().unwrap().unwrap().bytes, b"still open");
    let deadline = Instant::now() + PATIENCE;
    while Plain::bind(address).is_err() {
        assert!(Instant::now() < deadline, "the port is free in the end");
        std::thread::yield_now();
    }
}
