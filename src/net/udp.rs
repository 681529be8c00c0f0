//! Datagrams: a UDP socket whose sending and receiving are tasks.
//!
//! The kernel's queue is the queue: a task that finds it ready is done at once, on its own thread; one that does not
//! waits in line here, and the poller that watches the socket serves the line when the kernel says so. Nothing is
//! received that no task asked for, so nothing is lost but what the kernel itself drops.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket as Socket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tidegate_poller::{Poller, Ready, WatchId, sys};

use crate::runtime::work::Later;
use crate::runtime::{RuntimeHandle, RuntimeTimer};
use crate::task::{Continuation, Task};

/// The most bytes a datagram can have; over IPv4, 20 less go.
pub const DATAGRAM_MAX: usize = 65_527;

/// Tasks that may wait in each of the two lines of a socket.
const WAITING_MAX: usize = 16_384;

/// A bound UDP socket; cheap to clone. It is closed when the last clone is dropped and no task waits for it.
///
/// ```
/// use std::time::Duration;
/// use tidegate::net::UdpSocket;
/// use tidegate::runtime::Runtime;
///
/// let runtime = Runtime::new()?;
/// let here = UdpSocket::bind(&runtime.handle(), "127.0.0.1:0".parse()?)?;
/// let there = UdpSocket::bind(&runtime.handle(), "127.0.0.1:0".parse()?)?;
/// let received = runtime.spawn(there.receive().timeout(Duration::from_secs(5)));
/// runtime.run(here.send_to("hello", there.address()))??;
/// let datagram = received.wait()??;
/// assert_eq!((&datagram.bytes[..], datagram.from), (&b"hello"[..], here.address()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct UdpSocket(Arc<Owner>);

/// What came in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// What it says; may be nothing.
    pub bytes: Vec<u8>,
}

impl UdpSocket {
    /// A socket at `address`; with port 0 the kernel picks one. One of the runtime's pollers will watch it.
    ///
    /// Fails as the kernel does: the address is in use, or not one of this machine's.
    pub fn bind(runtime: &RuntimeHandle, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = Socket::bind(address)?;
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let poller = runtime.poller_here_or_next();
        let inner = Arc::new(Inner {
            socket,
            poller,
            runtime: runtime.clone(),
            state: Mutex::default(),
            refused: AtomicU64::new(0),
        });
        let watched = Watched(inner.clone());
        runtime.submit_to(poller, Box::new(move |poller| watched.begin(poller)));
        Ok(UdpSocket(Arc::new(Owner { inner, local })))
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.0.local
    }

    /// Receives the next datagram. Tasks that wait are served in their order.
    pub fn receive(&self) -> Receive {
        Receive { socket: self.clone(), timeout: None }
    }

    /// Sends a datagram.
    pub fn send_to(&self, bytes: impl Into<Vec<u8>>, to: SocketAddr) -> SendTo {
        SendTo { socket: self.clone(), bytes: bytes.into(), to, timeout: None }
    }

    /// Tasks that were turned away because too many waited already.
    pub fn refused(&self) -> u64 {
        self.0.inner.refused.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UdpSocket({})", self.0.local)
    }
}

/// See [`UdpSocket::receive`]. Its errors are the kernel's, `TimedOut`, `ResourceBusy` when 16,384 tasks wait already, and
/// `NotConnected` when the runtime has ended.
#[derive(Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct Receive {
    socket: UdpSocket,
    timeout: Option<Duration>,
}

impl Receive {
    /// Waits for at most so long.
    pub fn timeout(self, timeout: Duration) -> Receive {
        Receive { timeout: Some(timeout), ..self }
    }
}

impl Task for Receive {
    type Output = io::Result<Datagram>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        let inner = self.socket.0.inner.clone();
        inner.start(self.socket, (), done, self.timeout);
    }
}

/// See [`UdpSocket::send_to`]. Done when the kernel has taken the datagram; its errors are those of [`Receive`].
#[derive(Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct SendTo {
    socket: UdpSocket,
    bytes: Vec<u8>,
    to: SocketAddr,
    timeout: Option<Duration>,
}

impl SendTo {
    /// Waits for at most so long.
    pub fn timeout(self, timeout: Duration) -> SendTo {
        SendTo { timeout: Some(timeout), ..self }
    }
}

impl Task for SendTo {
    type Output = io::Result<()>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        let inner = self.socket.0.inner.clone();
        inner.start(self.socket, (self.bytes, self.to), done, self.timeout);
    }
}

/// Closes the socket when it is dropped.
struct Owner {
    inner: Arc<Inner>,
    local: SocketAddr,
}

struct Inner {
    socket: Socket,
    /// Which of the runtime's pollers watches it.
    poller: usize,
    runtime: RuntimeHandle,
    /// Held for a system call at most. Nothing is completed or dropped under it.
    state: Mutex<State>,
    refused: AtomicU64,
}

#[derive(Default)]
struct State {
    receivers: Line<()>,
    senders: Line<(Vec<u8>, SocketAddr)>,
    buffer: Vec<u8>,
    watch: Option<WatchId>,
    closed: bool,
}

/// Tasks in the order in which they came. One that is cancelled or out of time leaves no trace.
struct Line<A: Attempt> {
    waiting: BTreeMap<u64, Waiting<A>>,
    next: u64,
}

struct Waiting<A: Attempt> {
    attempt: A,
    done: Continuation<io::Result<A::Done>>,
    timer: Option<RuntimeTimer>,
    /// The socket stays open for it.
    _socket: UdpSocket,
}

/// What is tried when the kernel may be ready for it.
trait Attempt: Send + Sized + 'static {
    type Done: Send + 'static;

    fn line(state: &mut State) -> &mut Line<Self>;

    fn attempt(&mut self, socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<Self::Done>;
}

impl Attempt for () {
    type Done = Datagram;

    fn line(state: &mut State) -> &mut Line<()> {
        &mut state.receivers
    }

    fn attempt(&mut self, socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<Datagram> {
        buffer.resize(DATAGRAM_MAX, 0);
        let (length, from) = uninterrupted(|| socket.recv_from(buffer))?;
        Ok(Datagram { from, bytes: buffer[..length].to_vec() })
    }
}

impl Attempt for (Vec<u8>, SocketAddr) {
    type Done = ();

    fn line(state: &mut State) -> &mut Line<Self> {
        &mut state.senders
    }

    fn attempt(&mut self, socket: &Socket, _: &mut Vec<u8>) -> io::Result<()> {
        uninterrupted(|| socket.send_to(&self.0, self.1)).map(drop)
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// What came of a task at once.
enum Started {
    Done,
    Waits(u64),
}

impl Inner {
    fn start<A: Attempt>(
        self: &Arc<Inner>,
        socket: UdpSocket,
        attempt: A,
        mut done: Continuation<io::Result<A::Done>>,
        timeout: Option<Duration>,
    ) {
        let cancellation = done.cancellation();
        let Started::Waits(id) = self.attempt_or_wait(socket, attempt, done) else { return };
        let reached = Arc::downgrade(self);
        cancellation.on_cancel(move || drop(remove::<A>(&reached, id)));
        if let Some(timeout) = timeout {
            self.start_timer::<A>(id, timeout);
        }
    }

    fn attempt_or_wait<A: Attempt>(
        &self,
        socket: UdpSocket,
        mut attempt: A,
        done: Continuation<io::Result<A::Done>>,
    ) -> Started {
        let mut guard = self.lock();
        let state = &mut *guard;
        let result = if state.closed {
            Err(io::Error::new(io::ErrorKind::NotConnected, "the runtime that watched the socket has ended"))
        } else if !A::line(state).waiting.is_empty() {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            let mut buffer = std::mem::take(&mut state.buffer);
            let result = attempt.attempt(&self.socket, &mut buffer);
            state.buffer = buffer;
            result
        };
        let line = A::line(state);
        let result = match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if line.waiting.len() < WAITING_MAX {
                    let id = line.next;
                    line.next += 1;
                    line.waiting.insert(id, Waiting { attempt, done, timer: None, _socket: socket });
                    return Started::Waits(id);
                }
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "too many tasks wait for the socket"))
            }
            result => result,
        };
        drop(guard);
        done.complete(result);
        Started::Done
    }

    fn start_timer<A: Attempt>(self: &Arc<Inner>, id: u64, timeout: Duration) {
        let reached = Arc::downgrade(self);
        let fire = Later(move || {
            if let Some(waiting) = remove::<A>(&reached, id) {
                waiting.done.complete(Err(io::ErrorKind::TimedOut.into()));
            }
        });
        let timer = self.runtime.start_keyed_timer(sys::now() + timeout, Box::new(fire));
        let waits = {
            let mut state = self.lock();
            let waiting = A::line(&mut state).waiting.get_mut(&id);
            waiting.map(|waiting| waiting.timer = Some(timer)).is_some()
        };
        if !waits {
            self.runtime.cancel_timer(timer);
        }
    }

    /// Serves a line until the kernel has no more.
    fn serve<A: Attempt>(&self) {
        loop {
            let mut guard = self.lock();
            let state = &mut *guard;
            let mut buffer = std::mem::take(&mut state.buffer);
            let first = A::line(state).waiting.first_entry();
            let served = first.and_then(|mut first| {
                match first.get_mut().attempt.attempt(&self.socket, &mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                    result => Some((first.remove(), result)),
                }
            });
            state.buffer = buffer;
            drop(guard);
            let Some((waiting, result)) = served else { return };
            if let Some(timer) = waiting.timer {
                self.runtime.cancel_timer(timer);
            }
            waiting.done.complete(result);
        }
    }

    /// Ends all tasks that wait.
    fn close(&self) -> Option<WatchId> {
        let mut state = self.lock();
        state.closed = true;
        let receivers = std::mem::take(&mut state.receivers.waiting);
        let senders = std::mem::take(&mut state.senders.waiting);
        let watch = state.watch.take();
        drop(state);
        drop((receivers, senders));
        watch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Attempt> Default for Line<A> {
    fn default() -> Line<A> {
        Line { waiting: BTreeMap::new(), next: 0 }
    }
}

/// Takes a task out of its line, if it is still there.
fn remove<A: Attempt>(inner: &Weak<Inner>, id: u64) -> Option<Waiting<A>> {
    let inner = inner.upgrade()?;
    let waiting = A::line(&mut inner.lock()).waiting.remove(&id)?;
    if let Some(timer) = waiting.timer {
        inner.runtime.cancel_timer(timer);
    }
    Some(waiting)
}

/// What the poller holds: dropped with it, it ends the tasks that wait.
struct Watched(Arc<Inner>);

impl Watched {
    fn begin(self, poller: &mut Poller) {
        let inner = self.0.clone();
        if inner.lock().closed {
            return;
        }
        let watching = poller.watch(&inner.socket, move |ready: Ready| {
            if ready.readable {
                self.0.serve::<()>();
            }
            if ready.writable {
                self.0.serve::<(Vec<u8>, SocketAddr)>();
            }
        });
        match watching {
            Ok(watch) => {
                let mut state = inner.lock();
                if !state.closed {
                    state.watch = Some(watch);
                    return;
                }
                drop(state);
                // Closed by another thread meanwhile, which did not know of it.
                poller.unwatch(watch);
            }
            // What watches was dropped, and the tasks with it.
            Err(error) => log::error!("cannot watch a UDP socket: {error}"),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(watch) = self.inner.close() {
            let job = Box::new(move |poller: &mut Poller| poller.unwatch(watch));
            self.inner.runtime.submit_to(self.inner.poller, job);
        }
    }
}
