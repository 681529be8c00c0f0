//! New sockets: accepted, connected, or handed over by the program.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::Interest;
use mio::net::{TcpStream, UnixStream};

use super::figures::add;
use super::socket::{Life, Socket};
use super::{Poller, SocketHandle};
use crate::due::{Due, Key};
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::record::{End, Peer, Reason, Role};
use crate::session::Session;
use crate::sys;
use crate::transport::{Plain, Wire};

impl Poller {
    /// Connects to a TCP address. The session is [opened](Session::opened) when that has succeeded; whatever
    /// happens, it gets its record in the end, at once (and this returns `None`) if connecting cannot even begin.
    pub fn connect(&mut self, address: SocketAddr, session: Box<dyn Session>) -> Option<SocketHandle> {
        self.connect_with(address, session, Wire::Plain)
    }

    /// Connects to a TCP address, to speak through the transport that `transport` makes of the socket. The session is
    /// opened when the connection is made, and [ready](Session::ready) after the transport's handshake.
    pub fn connect_with(
        &mut self,
        address: SocketAddr,
        session: Box<dyn Session>,
        transport: impl FnOnce(Plain) -> Wire,
    ) -> Option<SocketHandle> {
        let connect = || TcpStream::connect(address).map(|stream| transport(Plain::Tcp(stream)));
        self.connect_wire(connect, Peer::Inet(address), session)
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(
        &mut self,
        path: impl AsRef<Path>,
        session: Box<dyn Session>,
    ) -> Option<SocketHandle> {
        let path = path.as_ref();
        let connect = || UnixStream::connect(path).map(Wire::from);
        self.connect_wire(connect, unix_peer(Some(path)), session)
    }

    /// Takes over a connected stream, with the transport to speak through, and opens its session at once. Where a
    /// caller would be turned away (shutting down, [`PollerSettings::max_sockets`](super::PollerSettings::max_sockets)) so is this one:
    /// the session gets its record, and this returns `None`.
    pub fn adopt(
        &mut self,
        stream: impl Into<Wire>,
        role: Role,
        session: Box<dyn Session>,
    ) -> Option<SocketHandle> {
        let wire = stream.into();
        let peer = match wire.plain() {
            Plain::Tcp(stream) => stream.peer_addr().map(Peer::Inet),
            Plain::Unix(stream) => stream.peer_addr().map(|peer| unix_peer(peer.as_pathname())),
        };
        match (peer, self.refusal(role)) {
            (Ok(peer), None) => self.open(wire, peer, role, session, false),
            (peer, refusal) => {
                drop(wire);
                let end = refusal.unwrap_or(End::peer(Reason::Abort));
                self.close_unopened(session, peer.unwrap_or(Peer::Unix(None)), role, end);
                None
            }
        }
    }

    fn connect_wire(
        &mut self,
        connect: impl FnOnce() -> io::Result<Wire>,
        peer: Peer,
        session: Box<dyn Session>,
    ) -> Option<SocketHandle> {
        let refused = match self.refusal(Role::Client) {
            Some(end) => end,
            None => match connect() {
                Ok(wire) => return self.open(wire, peer, Role::Client, session, true),
                Err(error) => {
                    log::debug!("{}: cannot connect to {peer}: {error}", self.settings.name);
                    end_of_connect(&error)
                }
            },
        };
        self.close_unopened(session, peer, Role::Client, refused);
        None
    }

    /// Why no further socket is taken, if so. What came in after a shutdown's deadline would never end.
    pub(super) fn refusal(&self, role: Role) -> Option<End> {
        if self.is_shutting_down(role) {
            Some(End::local(Reason::Shutdown))
        } else if self.sockets.len() >= self.settings.max_sockets {
            Some(End::local(Reason::Denied))
        } else {
            None
        }
    }

    /// Whether sockets in this role are to come to their end.
    pub(super) fn is_shutting_down(&self, role: Role) -> bool {
        match role {
            Role::Server => self.closed_to_callers,
            Role::Client => self.closed_to_all,
        }
    }

    /// Puts a socket in the slab and registers it.
    pub(super) fn open(
        &mut self,
        mut wire: Wire,
        peer: Peer,
        role: Role,
        session: Box<dyn Session>,
        connecting: bool,
    ) -> Option<SocketHandle> {
        let now = self.now();
        let conn_id = next_conn_id();
        let entry = self.sockets.vacant_entry();
        let index = entry.key();
        let key = Key { index: index as u32, generation: conn_id as u32 };
        set_options(wire.plain(), &self.settings.socket);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(wire.plain_mut(), Self::socket_token(key), interest)
        {
            log::error!("{}: cannot register a socket: {error}", self.settings.name);
            drop(wire);
            self.close_unopened(session, peer, role, End::local(Reason::Internal));
            return None;
        }
        let mut ledger = Ledger::new(now);
        if !connecting {
            ledger.connected(now);
        }
        let mut socket = Socket::new(Gate::new(wire, ledger), session, peer, role, conn_id);
        if connecting {
            socket.life = Life::Connecting;
            socket.gate.told_writable = false;
        }
        entry.insert(socket);
        self.callers += usize::from(role == Role::Server);
        add(&self.shared.counters.open, 1);
        if connecting {
            if let Some(timeout) = self.settings.connect_timeout {
                self.start_deadline(index, timeout);
            }
        } else {
            self.connected(index);
            self.schedule(index);
        }
        Some(SocketHandle::new(self.handle(), key))
    }

    /// Gives a session that never had a socket its record.
    pub(super) fn close_unopened(&mut self, session: Box<dyn Session>, peer: Peer, role: Role, end: End) {
        self.now();
        let phase = match role {
            Role::Server => "accept",
            Role::Client => "connect",
        };
        let record = self.record_unopened(peer, role, end, phase);
        if catch_unwind(AssertUnwindSafe(|| session.closed(record))).is_err() {
            log::error!("{}: a session panicked while it was given its record", self.settings.name);
            add(&self.shared.counters.panics, 1);
        }
    }

    /// Whether a socket is connected; finds out if it was not known.
    pub(super) fn is_connected(&mut self, index: usize) -> bool {
        let now = self.now;
        let Some(socket) = self.sockets.get_mut(index) else { return false };
        if socket.doomed {
            return false;
        }
        if socket.life != Life::Connecting {
            return true;
        }
        if !socket.gate.told_writable && !socket.told_error && !socket.told_hup {
            return false;
        }
        let plain = socket.gate.wire.plain();
        let error = match plain.take_error() {
            Ok(Some(error)) | Err(error) => Some(error),
            Ok(None) => match plain {
                Plain::Tcp(stream) => stream.peer_addr().err(),
                Plain::Unix(stream) => stream.peer_addr().err(),
            },
        };
        match error {
            Some(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::ENOTCONN)) => false,
            Some(error) => {
                log::debug!("{}: cannot connect to {}: {error}", self.settings.name, socket.peer());
                self.doom(index, end_of_connect(&error));
                false
            }
            None => {
                socket.gate.ledger.connected(now);
                socket.gate.told_writable = true;
                self.stop_deadline(index);
                self.connected(index);
                true
            }
        }
    }

    /// The connection is made: opens the session, and starts the clock of a handshake.
    fn connected(&mut self, index: usize) {
        let Some(socket) = self.sockets.get_mut(index) else { return };
        socket.life = Life::Open;
        self.start_handshake(index);
        self.call_session(index, |session, io| session.opened(io));
        if self.sockets.get(index).is_some_and(|socket| socket.life == Life::Open) {
            self.call_session(index, |session, io| session.ready(io));
        } else {
            self.look_whether_ready(index);
        }
    }

    /// Starts the clock of a handshake, where the transport has one.
    pub(super) fn start_handshake(&mut self, index: usize) {
        let timeout = self.settings.handshake_timeout;
        let Some(socket) = self.sockets.get_mut(index) else { return };
        if matches!(socket.gate.wire, Wire::Boxed(_)) {
            socket.life = Life::Handshake;
            if let Some(timeout) = timeout {
                self.start_deadline(index, timeout);
            }
        }
    }

    /// Tells the session if the handshake is done by now.
    pub(super) fn look_whether_ready(&mut self, index: usize) {
        let now = self.now;
        let Some(socket) = self.sockets.get_mut(index) else { return };
        if socket.life != Life::Handshake || !socket.gate.wire.is_ready() {
            return;
        }
        socket.life = Life::Open;
        let connected = socket.gate.ledger.connected_at().unwrap_or(now);
        socket.rare().handshake_ns = Some(now.nanos_since(connected));
        self.stop_deadline(index);
        self.call_session(index, |session, io| session.ready(io));
    }

    fn stop_deadline(&mut self, index: usize) {
        let Some(socket) = self.sockets.get_mut(index) else { return };
        if let Some(timer) = socket.rare.as_mut().and_then(|rare| rare.deadline.take()) {
            self.wheel.cancel(timer);
        }
    }

    /// Starts the clock for connecting, a handshake or lingering.
    pub(super) fn start_deadline(&mut self, index: usize, after: Duration) {
        let now = self.now;
        let Some(socket) = self.sockets.get_mut(index) else { return };
        let key = Key { index: index as u32, generation: socket.generation() };
        let at = (now + after).max(now.plus_nanos(1));
        let timer = self.wheel.insert(at, Due::Deadline(key));
        if let Some(old) = socket.rare().deadline.replace(timer) {
            self.wheel.cancel(old);
        }
    }

    /// Connecting or the handshake took too long, or lingering is over.
    pub(super) fn deadline_due(&mut self, key: Key) {
        if let Some(socket) = self.lookup(key) {
            socket.rare().deadline = None;
            self.doom(key.index as usize, End::local(Reason::Timeout));
        }
    }
}

/// A number no other connection of this process has.
pub(super) fn next_conn_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    loop {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        // Its lower half is the generation in a token, where zero is not a socket's.
        if id as u32 != 0 {
            return id;
        }
    }
}

pub(super) fn unix_peer(path: Option<&Path>) -> Peer {
    Peer::Unix(path.map(Path::to_path_buf))
}

fn end_of_connect(error: &io::Error) -> End {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => End::local(Reason::Descriptors),
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => End::peer(Reason::ConnectFailed),
        _ => End::local(Reason::ConnectFailed),
    }
}

/// Refused options are logged, not fatal: bytes flow without them.
fn set_options(plain: &Plain, options: &super::SocketOptions) {
    let Plain::Tcp(stream) = plain else { return };
    let mut result = if options.nodelay { stream.set_nodelay(true) } else { Ok(()) };
    if options.send_buffer.is_some() || options.receive_buffer.is_some() {
        result = result.and(sys::set_buffers(stream, options.send_buffer, options.receive_buffer));
    }
    if let Err(error) = result {
        log::debug!("cannot set options of a socket: {error}");
    }
}

impl From<Plain> for Wire {
    fn from(plain: Plain) -> Wire {
        Wire::Plain(plain)
    }
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Wire {
        Wire::Plain(Plain::Tcp(stream))
    }
}

impl From<UnixStream> for Wire {
    fn from(stream: UnixStream) -> Wire {
        Wire::Plain(Plain::Unix(stream))
    }
}
