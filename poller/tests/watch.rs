//! Descriptors that the poller watches and does not read, and sockets called between turns.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::Write;
use std::net::UdpSocket;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use tidegate_poller::{ConnectionRecord, End, Io, Poller, PollerSettings, Ready, Reason, Role, Session};

const PATIENCE: Duration = Duration::from_secs(10);

fn turn_until(poller: &mut Poller, so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain");
        poller.turn(Some(Duration::from_millis(10))).unwrap();
    }
}

fn pair() -> (UdpSocket, UdpSocket) {
    let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    a.set_nonblocking(true).unwrap();
    b.connect(a.local_addr().unwrap()).unwrap();
    (a, b)
}

#[test]
fn an_owner_is_told_until_it_is_no_longer_watched() {
    let mut poller = Poller::new(PollerSettings::default()).unwrap();
    let (watched, peer) = pair();
    let told = Rc::new(RefCell::new(Vec::<Ready>::new()));
    let tell = told.clone();
    let id = poller.watch(&watched, move |ready| tell.borrow_mut().push(ready)).unwrap();
    // What is ready already is told at the start.
    turn_until(&mut poller, || told.borrow().iter().any(|ready| ready.writable));
    peer.send(b"one").unwrap();
    turn_until(&mut poller, || told.borrow().iter().any(|ready| ready.readable));
    poller.unwatch(id);
    assert_eq!(Rc::strong_count(&told), 1, "it was dropped");
    // Its place is used again, its name is not.
    let (other, other_peer) = pair();
    let count = Rc::new(Cell::new(0));
    let tell = count.clone();
    let _other =
        poller.watch(&other, move |ready| tell.set(tell.get() + usize::from(ready.readable))).unwrap();
    poller.unwatch(id);
    peer.send(b"two").unwrap();
    other_peer.send(b"three").unwrap();
    turn_until(&mut poller, || count.get() > 0);
    drop(poller);
    assert_eq!(Rc::strong_count(&count), 1, "dropped with the poller");
}

#[test]
fn a_panic_in_what_watches_harms_nobody() {
    let mut poller = Poller::new(PollerSettings::default()).unwrap();
    let (watched, _peer) = pair();
    let told = Rc::new(Cell::new(0));
    let tell = told.clone();
    poller
        .watch(&watched, move |_| {
            tell.set(tell.get() + 1);
            panic!("as planned");
        })
        .unwrap();
    turn_until(&mut poller, || told.get() > 0);
    assert_eq!(poller.handle().figures().panics, 1);
}

#[test]
fn a_plain_file_cannot_be_watched() {
    let mut poller = Poller::new(PollerSettings::default()).unwrap();
    let file = File::open("/proc/self/exe").unwrap();
    assert!(poller.watch(&file, |_| ()).is_err());
}

struct Says(Rc<Cell<u32>>);

impl Session for Says {
    fn received(&mut self, _: &mut Io<'_>, _: &[u8]) {}
    fn closed(self: Box<Self>, _: ConnectionRecord) {
        self.0.set(100);
    }
}

#[test]
fn a_socket_is_called_at_once_while_it_is_there() {
    let mut poller = Poller::new(PollerSettings::default()).unwrap();
    let mut other = Poller::new(PollerSettings::default()).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let said = Rc::new(Cell::new(0));
    let session = Box::new(Says(said.clone()));
    let socket = poller.adopt(tidegate_poller::Plain::Unix(ours), Role::Server, session).unwrap();
    let call = |poller: &mut Poller| {
        poller.call(&socket, |session, io| {
            let says = (session as &mut dyn Any).downcast_mut::<Says>().unwrap();
            says.0.set(says.0.get() + 1);
            io.send("hello");
        })
    };
    assert!(call(&mut poller));
    assert_eq!(said.get(), 1);
    assert!(!call(&mut other), "it is not one of its own");
    poller.turn(Some(Duration::ZERO)).unwrap();
    let mut bytes = [0; 5];
    std::io::Read::read_exact(&mut theirs, &mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    assert!(poller.call(&socket, |_, io| io.abort(End::local(Reason::LocalClose))));
    assert!(!call(&mut poller), "it is about to go");
    poller.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(said.get(), 100);
    assert!(!call(&mut poller), "it is gone");
    let _ = theirs.flush();
}
