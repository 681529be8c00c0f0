//! A poller on a thread of its own, sessions that follow a script, and what they report.
#![allow(dead_code, unreachable_pub)]

use std::any::Any;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_poller::{
    Acceptor, Admission, ConnectionRecord, Io, Listening, Passed, Peer, Poller, PollerFigures, PollerHandle,
    PollerSettings, Reason, Refusal, Session, SocketHandle, sys,
};

/// How long a test waits for what must happen. Reached only by a failing test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a session reports.
pub enum Told {
    Opened(SocketHandle),
    Received(Vec<u8>),
    Drained(u64),
    Passed(Passed),
    Timer(u32),
    PeerFinished,
    Offloaded(Box<dyn Any + Send>),
    Shutdown,
    Note(String),
    Closed(ConnectionRecord),
    Refused(ConnectionRecord),
}

type Call = Box<dyn FnMut(&mut Io<'_>) + Send>;
type CallWith<T> = Box<dyn FnMut(&mut Io<'_>, T) + Send>;
type CallWithBytes = Box<dyn FnMut(&mut Io<'_>, &[u8]) + Send>;

/// What a scripted session does when it is called. What is not set does nothing but report.
#[derive(Default)]
pub struct Script {
    opened: Option<Call>,
    ready: Option<Call>,
    received: Option<CallWithBytes>,
    drained: Option<Call>,
    passed: Option<CallWith<Passed>>,
    timer: Option<CallWith<u32>>,
    peer_finished: Option<Call>,
    closed: Option<Box<dyn FnMut() + Send>>,
    quiet: bool,
}

impl Script {
    pub fn new() -> Script {
        Script::default()
    }
    pub fn opened(mut self, call: impl FnMut(&mut Io<'_>) + Send + 'static) -> Script {
        self.opened = Some(Box::new(call));
        self
    }
    pub fn ready(mut self, call: impl FnMut(&mut Io<'_>) + Send + 'static) -> Script {
        self.ready = Some(Box::new(call));
        self
    }
    pub fn received(mut self, call: impl FnMut(&mut Io<'_>, &[u8]) + Send + 'static) -> Script {
        self.received = Some(Box::new(call));
        self
    }
    pub fn drained(mut self, call: impl FnMut(&mut Io<'_>) + Send + 'static) -> Script {
        self.drained = Some(Box::new(call));
        self
    }
    pub fn passed(mut self, call: impl FnMut(&mut Io<'_>, Passed) + Send + 'static) -> Script {
        self.passed = Some(Box::new(call));
        self
    }
    pub fn timer(mut self, call: impl FnMut(&mut Io<'_>, u32) + Send + 'static) -> Script {
        self.timer = Some(Box::new(call));
        self
    }
    pub fn peer_finished(mut self, call: impl FnMut(&mut Io<'_>) + Send + 'static) -> Script {
        self.peer_finished = Some(Box::new(call));
        self
    }
    pub fn closed(mut self, call: impl FnMut() + Send + 'static) -> Script {
        self.closed = Some(Box::new(call));
        self
    }
    /// Does not report received bytes.
    pub fn quiet(mut self) -> Script {
        self.quiet = true;
        self
    }
    pub fn session(self, tell: &Sender<Told>) -> Box<dyn Session> {
        Box::new(Scripted { script: self, tell: tell.clone() })
    }
}

struct Scripted {
    script: Script,
    tell: Sender<Told>,
}

impl Scripted {
    fn tell(&self, told: Told) {
        let _ = self.tell.send(told);
    }
}

impl Session for Scripted {
    fn opened(&mut self, io: &mut Io<'_>) {
        self.tell(Told::Opened(io.socket()));
        if let Some(call) = &mut self.script.opened {
            call(io);
        }
    }
    fn ready(&mut self, io: &mut Io<'_>) {
        if let Some(call) = &mut self.script.ready {
            call(io);
        }
    }
    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        if !self.script.quiet {
            self.tell(Told::Received(bytes.to_vec()));
        }
        if let Some(call) = &mut self.script.received {
            call(io, bytes);
        }
    }
    fn drained(&mut self, io: &mut Io<'_>) {
        self.tell(Told::Drained(io.queued()));
        if let Some(call) = &mut self.script.drained {
            call(io);
        }
    }
    fn passed(&mut self, io: &mut Io<'_>, mark: Passed) {
        self.tell(Told::Passed(mark));
        if let Some(call) = &mut self.script.passed {
            call(io, mark);
        }
    }
    fn timer(&mut self, io: &mut Io<'_>, reason: u32) {
        self.tell(Told::Timer(reason));
        if let Some(call) = &mut self.script.timer {
            call(io, reason);
        }
    }
    fn peer_finished(&mut self, io: &mut Io<'_>) {
        self.tell(Told::PeerFinished);
        match &mut self.script.peer_finished {
            Some(call) => call(io),
            None => io.finish(tidegate_poller::End::peer(Reason::Ok)),
        }
    }
    fn offloaded(&mut self, _io: &mut Io<'_>, result: Box<dyn Any + Send>) {
        self.tell(Told::Offloaded(result));
    }
    fn shutdown(&mut self, io: &mut Io<'_>) {
        self.tell(Told::Shutdown);
        io.finish(tidegate_poller::End::local(Reason::Shutdown));
    }
    fn phase(&self) -> &'static str {
        "scripted"
    }
    fn closed(mut self: Box<Self>, record: ConnectionRecord) {
        self.tell(Told::Closed(record));
        if let Some(call) = &mut self.script.closed {
            call();
        }
    }
}

/// Admits everybody with a script.
pub struct Door<F> {
    pub script: F,
    pub tell: Sender<Told>,
    pub refuse: Option<Reason>,
}

impl<F: FnMut() -> Script> Acceptor for Door<F> {
    fn accept(&mut self, _peer: &Peer) -> Admission {
        match self.refuse {
            Some(reason) => Admission::Refuse(Refusal(reason)),
            None => Admission::Admit((self.script)().session(&self.tell)),
        }
    }
    fn refused(&mut self, record: ConnectionRecord) {
        let _ = self.tell.send(Told::Refused(record));
    }
}

/// A running poller that serves a script.
pub struct Rig {
    pub handle: PollerHandle,
    pub address: SocketAddr,
    pub tell: Sender<Told>,
    pub told: Receiver<Told>,
    early: VecDeque<Told>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Rig {
    pub fn start(script: impl FnMut() -> Script + Send + 'static) -> Rig {
        Rig::with(PollerSettings::default(), script)
    }

    pub fn with(settings: PollerSettings, script: impl FnMut() -> Script + Send + 'static) -> Rig {
        let listener = sys::listen_tcp("127.0.0.1:0".parse().unwrap(), 256, false).unwrap();
        let address = listener.local_addr().unwrap();
        let mut rig = Rig::on(settings, listener, None, script);
        rig.address = address;
        rig
    }

    pub fn on(
        settings: PollerSettings,
        listener: impl Into<Listening> + Send + 'static,
        refuse: Option<Reason>,
        script: impl FnMut() -> Script + Send + 'static,
    ) -> Rig {
        let (tell, told) = channel();
        let (handle_out, handle_in) = channel();
        let tell_door = tell.clone();
        let thread = std::thread::spawn(move || {
            let mut poller = Poller::new(settings)?;
            poller.listen(listener, Box::new(Door { script, tell: tell_door, refuse }))?;
            handle_out.send(poller.handle()).unwrap();
            poller.run()
        });
        let handle = handle_in.recv().unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        Rig { handle, address, tell, told, early: VecDeque::new(), thread: Some(thread) }
    }

    pub fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The next report that `pick` takes; others wait for later calls.
    pub fn next<T>(&mut self, mut pick: impl FnMut(&Told) -> Option<T>) -> T {
        if let Some((place, found)) =
            self.early.iter().enumerate().find_map(|(place, told)| pick(told).map(|found| (place, found)))
        {
            self.early.remove(place);
            return found;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(told) => match pick(&told) {
                    Some(found) => return found,
                    None => self.early.push_back(told),
                },
                Err(error) => panic!("nothing came: {error}; {:?}", self.handle.figures()),
            }
        }
    }

    pub fn opened(&mut self) -> SocketHandle {
        self.next(|told| match told {
            Told::Opened(socket) => Some(socket.clone()),
            _ => None,
        })
    }

    pub fn record(&mut self) -> ConnectionRecord {
        self.next(|told| match told {
            Told::Closed(record) => Some(record.clone()),
            _ => None,
        })
    }

    pub fn refused(&mut self) -> ConnectionRecord {
        self.next(|told| match told {
            Told::Refused(record) => Some(record.clone()),
            _ => None,
        })
    }

    pub fn passed(&mut self) -> Passed {
        self.next(|told| match told {
            Told::Passed(passed) => Some(*passed),
            _ => None,
        })
    }

    pub fn note(&mut self) -> String {
        self.next(|told| match told {
            Told::Note(note) => Some(note.clone()),
            _ => None,
        })
    }

    /// The gate's state, in words, as the session sees it.
    pub fn gate(&mut self, socket: &SocketHandle) -> String {
        let tell = self.tell.clone();
        socket
            .submit(move |_, io| {
                let _ = tell.send(Told::Note(io.gate_state()));
            })
            .unwrap();
        self.note()
    }

    /// Waits until the gate's state contains a word.
    pub fn gate_becomes(&mut self, socket: &SocketHandle, word: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.gate(socket);
            if state.contains(word) {
                return state;
            }
            assert!(Instant::now() < deadline, "never {word}: {state}");
            std::thread::yield_now();
        }
    }

    /// Waits for figures that satisfy.
    pub fn figures(&self, enough: impl Fn(&PollerFigures) -> bool) -> PollerFigures {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let figures = self.handle.figures();
            if enough(&figures) {
                return figures;
            }
            assert!(Instant::now() < deadline, "{figures:?}");
            std::thread::yield_now();
        }
    }

    /// Stops the poller and asserts that no further record came.
    pub fn stop(mut self) -> Vec<ConnectionRecord> {
        self.handle.shutdown(Duration::ZERO);
        self.thread.take().unwrap().join().unwrap().unwrap();
        drop(self.tell);
        let mut records = Vec::new();
        let rest =
            self.early.drain(..).chain(std::iter::from_fn(|| match self.told.recv_timeout(PATIENCE) {
                Ok(told) => Some(told),
                Err(RecvTimeoutError::Disconnected) => None,
                Err(RecvTimeoutError::Timeout) => panic!("a session outlived its poller"),
            }));
        for told in rest {
            if let Told::Closed(record) | Told::Refused(record) = told {
                records.push(record);
            }
        }
        records
    }

    /// Stops the poller; no session may be left without having been asked for its record.
    pub fn stop_clean(self) {
        let records = self.stop();
        assert!(records.is_empty(), "{records:?}");
    }

    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

/// Bytes that tell their place.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// A file that removes itself.
pub struct TempFile {
    pub path: PathBuf,
    pub file: Arc<File>,
}

impl TempFile {
    pub fn new(bytes: &[u8]) -> TempFile {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("tidegate-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let mut file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        file.write_all(bytes).unwrap();
        TempFile { path, file: Arc::new(file) }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub fn read_exact(stream: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

pub fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A listener whose accepted sockets have small buffers on the caller's side too.
pub fn small_listener() -> TcpListener {
    sys::listen_tcp("127.0.0.1:0".parse().unwrap(), 16, false).unwrap()
}

impl Rig {
    /// Whether the listener is closed.
    pub fn dial_fails(&self) -> bool {
        TcpStream::connect(self.address).is_err()
    }
}
