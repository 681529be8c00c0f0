//! A poller on a thread of its own, with sessions that tell the test what they see.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate::net::tls::{ClientTls, PeerName, ServerTls};
use tidegate::poller::{
    Acceptor, Admission, ConnectionRecord, Direction, End, Handshake, Io, Limit, Peer, Plain, Poller,
    PollerHandle, PollerSettings, Reason, Session, Wire,
};

/// How long a test waits for what must happen. Reached only by a failing test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a session saw.
#[derive(Debug)]
pub(crate) enum Told {
    Opened { gate: String },
    Ready(Option<Handshake>),
    Bytes(Vec<u8>),
    Finished { truncated: bool },
    Closed(Box<ConnectionRecord>),
}

/// What a session does.
#[derive(Clone)]
pub(crate) enum Part {
    /// Sends back what comes, and closes when the peer has.
    Echo,
    /// Queues this when it is opened, before the handshake, and closes when the peer has.
    Says(Arc<Vec<u8>>),
    /// Queues this when it is opened and closes behind it.
    SaysAndCloses(Arc<Vec<u8>>),
    /// Sends a file once it is ready, and closes behind it.
    Gives(Arc<std::fs::File>, u64),
    /// The same, and closes when the peer has.
    GivesAndStays(Arc<std::fs::File>, u64),
    /// Answers an HTTP request with a file, and closes behind it.
    Answers(Arc<std::fs::File>, u64),
    /// Takes what comes at this rate, and sends it back, or not.
    Takes { limit: Limit, echoes: bool },
}

pub(crate) struct Actor {
    part: Part,
    egress: Option<Limit>,
    tell: Sender<Told>,
}

impl Actor {
    pub(crate) fn session(part: Part, egress: Option<Limit>, tell: &Sender<Told>) -> Box<dyn Session> {
        Box::new(Actor { part, egress, tell: tell.clone() })
    }

    fn tell(&self, told: Told) {
        let _ = self.tell.send(told);
    }
}

impl Session for Actor {
    fn opened(&mut self, io: &mut Io<'_>) {
        io.set_limit(Direction::Egress, self.egress.as_ref());
        match &self.part {
            Part::Echo | Part::Gives(..) | Part::GivesAndStays(..) | Part::Answers(..) => {}
            Part::Takes { limit, .. } => {
                io.set_limit(Direction::Ingress, Some(limit));
            }
            Part::Says(words) => io.send(words.to_vec()),
            Part::SaysAndCloses(words) => {
                io.send(words.to_vec());
                io.finish(End::local(Reason::Ok));
            }
        }
        self.tell(Told::Opened { gate: io.gate_state() });
    }

    fn ready(&mut self, io: &mut Io<'_>) {
        self.tell(Told::Ready(io.handshake()));
        if let Part::Gives(file, len) | Part::GivesAndStays(file, len) = &self.part {
            io.send_file(file.clone(), 0, *len);
        }
        if let Part::Gives(..) = &self.part {
            io.finish(End::local(Reason::Ok));
        }
    }

    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        match &self.part {
            Part::Answers(file, len) if bytes.ends_with(b"\r\n\r\n") => {
                io.send(
                    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n")
                        .into_bytes(),
                );
                io.send_file(file.clone(), 0, *len);
                io.finish(End::local(Reason::Ok));
            }
            Part::Echo | Part::Takes { echoes: true, .. } => {
                let mut buffer = io.buffer();
                buffer.extend_from_slice(bytes);
                io.send(buffer);
                if io.above_high() {
                    io.pause_reading();
                }
            }
            _ => self.tell(Told::Bytes(bytes.to_vec())),
        }
    }

    fn drained(&mut self, io: &mut Io<'_>) {
        io.resume_reading();
    }

    fn peer_finished(&mut self, io: &mut Io<'_>) {
        self.tell(Told::Finished { truncated: io.is_truncated() });
        io.finish(End::peer(Reason::Ok));
    }

    fn closed(self: Box<Self>, record: ConnectionRecord) {
        self.tell(Told::Closed(Box::new(record)));
    }
}

struct Door {
    tls: ServerTls,
    part: Part,
    egress: Option<Limit>,
    tell: Sender<Told>,
}

impl Acceptor for Door {
    fn accept(&mut self, _peer: &Peer) -> Admission {
        Admission::Admit(Actor::session(self.part.clone(), self.egress.clone(), &self.tell))
    }

    fn transport(&mut self, plain: Plain) -> Wire {
        self.tls.transport(plain)
    }

    fn refused(&mut self, record: ConnectionRecord) {
        let _ = self.tell.send(Told::Closed(Box::new(record)));
    }
}

/// A poller that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) handle: PollerHandle,
    pub(crate) address: SocketAddr,
    pub(crate) told: Receiver<Told>,
    tell: Sender<Told>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// A server.
    pub(crate) fn serve(tls: &ServerTls, part: Part) -> Running {
        Running::serve_with(tls, part, None, PollerSettings::default())
    }

    pub(crate) fn serve_with(
        tls: &ServerTls,
        part: Part,
        egress: Option<Limit>,
        config: PollerSettings,
    ) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = channel();
        let door = Door { tls: tls.clone(), part, egress, tell: tell.clone() };
        Running::start(config, address, tell, told, move |poller| {
            poller.listen(listener, Box::new(door)).unwrap();
        })
    }

    /// A client of `address`.
    pub(crate) fn connect(address: SocketAddr, tls: &ClientTls, name: &str, part: Part) -> Running {
        Running::connect_with(address, tls, name, part, PollerSettings::default())
    }

    pub(crate) fn connect_with(
        address: SocketAddr,
        tls: &ClientTls,
        name: &str,
        part: Part,
        config: PollerSettings,
    ) -> Running {
        let (tell, told) = channel();
        let running = Running::start(config, address, tell, told, |_| ());
        running.connect_again(tls, name, part);
        running
    }

    /// Another connection of the same client.
    pub(crate) fn connect_again(&self, tls: &ClientTls, name: &str, part: Part) {
        let (tls, name, tell) = (tls.clone(), PeerName::new(name).unwrap(), self.tell.clone());
        let address = self.address;
        let connect = move |poller: &mut Poller| {
            let session = Actor::session(part, None, &tell);
            poller.connect_with(address, session, |plain| tls.transport(plain, &name));
        };
        self.handle.submit(connect).unwrap();
    }

    fn start(
        config: PollerSettings,
        address: SocketAddr,
        tell: Sender<Told>,
        told: Receiver<Told>,
        setup: impl FnOnce(&mut Poller) + Send + 'static,
    ) -> Running {
        let (give, take) = channel();
        let thread = std::thread::spawn(move || {
            let mut poller = Poller::new(config).unwrap();
            setup(&mut poller);
            give.send(poller.handle()).unwrap();
            poller.run().unwrap();
        });
        let handle = take.recv_timeout(PATIENCE).unwrap();
        Running { handle, address, told, tell, thread: Some(thread) }
    }

    pub(crate) fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("nothing was told in time")
    }

    /// Waits for what `find` wants, and drops what comes before.
    pub(crate) fn wait<T>(&self, mut find: impl FnMut(Told) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(found) = find(self.told.recv_timeout(left).expect("not told in time")) {
                return found;
            }
        }
    }

    pub(crate) fn ready(&self) -> Handshake {
        self.wait(|told| match told {
            Told::Ready(handshake) => handshake,
            Told::Closed(record) => panic!("closed before it was ready: {record:?}"),
            _ => None,
        })
    }

    /// The next connection's record.
    pub(crate) fn record(&self) -> ConnectionRecord {
        self.wait(|told| match told {
            Told::Closed(record) => Some(*record),
            _ => None,
        })
    }

    /// The bytes of the next connection until its end, and its record.
    pub(crate) fn bytes(&self) -> (Vec<u8>, ConnectionRecord) {
        let mut all = Vec::new();
        let record = self.wait(|told| match told {
            Told::Bytes(bytes) => {
                all.extend_from_slice(&bytes);
                None
            }
            Told::Closed(record) => Some(*record),
            _ => None,
        });
        (all, record)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::ZERO);
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            if !std::thread::panicking() {
                outcome.unwrap();
            }
        }
    }
}

/// Bytes that show when one is missing or in the wrong place.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}
