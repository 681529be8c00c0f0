//! One address of a client: its connections, and the requests that wait for one.
//!
//! All connections to an address live on one poller, and whatever changes the pool runs on that poller's thread: a
//! connection found idle there is idle. Only timers and cancels of waiting requests may come from elsewhere. So the lock
//! is hardly ever waited for, and nothing is completed, called or dropped under it.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_poller::record::End;
use tidegate_poller::{Io, Poller, Reason, SocketHandle, sys};

use super::client::{Call, Shared};
use super::client_session::ClientSession;
use super::codec::Codec;
use super::error::{RequestError, Waited};
use crate::runtime::work::Later;

pub(super) struct Endpoint<C: Codec> {
    shared: Arc<Shared<C>>,
    address: SocketAddr,
    poller: usize,
    pool: Mutex<Pool<C>>,
    /// Calls on their way here.
    visits: AtomicUsize,
}

struct Pool<C: Codec> {
    /// Connections, from the decision to make one until its record is made.
    open: usize,
    next_connection: u64,
    /// Those with nothing to do, the latest used last.
    idle: Vec<(u64, SocketHandle)>,
    /// Where the calls are that are on a connection.
    active: HashMap<u64, SocketHandle>,
    waiting: VecDeque<Call<C>>,
}

/// What is to be done with a call.
enum Place<C: Codec> {
    /// On this connection, which is idle.
    Idle(SocketHandle, Call<C>),
    /// On a new one.
    New(u64, Call<C>),
    /// It waits. With a connection that is to make room for a new one.
    Waits(u64, Option<SocketHandle>),
    Full(Call<C>),
}

/// What a connection does next.
pub(super) enum Next<C: Codec> {
    Call(Call<C>),
    Idle,
    Close,
}

impl<C: Codec> Endpoint<C> {
    pub(super) fn new(shared: Arc<Shared<C>>, address: SocketAddr) -> Arc<Endpoint<C>> {
        let poller = shared.runtime.poller_here_or_next();
        let pool = Pool {
            open: 0,
            next_connection: 0,
            idle: Vec::new(),
            active: HashMap::new(),
            waiting: VecDeque::new(),
        };
        Arc::new(Endpoint { shared, address, poller, pool: Mutex::new(pool), visits: AtomicUsize::new(0) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn shared(&self) -> &Arc<Shared<C>> {
        &self.shared
    }

    /// Keeps the endpoint from being forgotten while a call is on its way.
    pub(super) fn visit(self: &Arc<Self>) -> Visit<C> {
        self.visits.fetch_add(1, Ordering::SeqCst);
        Visit(self.clone())
    }

    /// Whether it may be forgotten.
    pub(super) fn is_deserted(&self) -> bool {
        let pool = self.lock();
        pool.open == 0 && pool.waiting.is_empty() && self.visits.load(Ordering::SeqCst) == 0
    }

    /// Ends a call that nobody waits for any more: it leaves the queue, or its connection is closed.
    pub(super) fn cancel(self: &Arc<Self>, id: u64) {
        let endpoint = self.clone();
        self.submit(move |poller| {
            let (waiting, socket) = {
                let mut pool = endpoint.lock();
                (pool.take_waiting(id), pool.active.get(&id).cloned())
            };
            if let Some(call) = waiting {
                endpoint.shared.give_up(endpoint.address, call);
            }
            if let Some(socket) = socket {
                poller.call(&socket, |session, io| {
                    with_session::<C>(session, |session| session.cancelled(io, id));
                });
            }
        });
    }

    /// Closes the connections that have nothing to do.
    pub(super) fn close_idle(self: &Arc<Self>) {
        let endpoint = self.clone();
        self.submit(move |poller| {
            let idle = std::mem::take(&mut endpoint.lock().idle);
            for (_, socket) in idle {
                poller.call(&socket, |_, io| io.abort(End::local(Reason::Ok)));
            }
        });
    }

    /// On the poller's thread: finds a place for a call.
    fn accept(self: &Arc<Self>, poller: &mut Poller, call: Call<C>) {
        let mut next = Some(call);
        while let Some(call) = next.take() {
            if !call.pledge.is_waiting() {
                return self.shared.give_up(self.address, call);
            }
            if call.deadline.is_some_and(|deadline| deadline <= sys::now()) {
                return self.shared.fail(self.address, call, RequestError::Timeout(Waited::Total));
            }
            match self.place(call) {
                Place::Idle(socket, call) => {
                    let id = call.id;
                    next = start(poller, &socket, call);
                    if next.is_some() {
                        self.done(id);
                    }
                }
                Place::New(connection, call) => self.connect(poller, connection, call),
                Place::Waits(id, room) => {
                    self.start_waiting(id);
                    if let Some(socket) = room {
                        poller.call(&socket, |_, io| io.abort(End::local(Reason::Evicted)));
                    }
                }
                Place::Full(call) => self.shared.fail(self.address, call, RequestError::QueueFull),
            }
        }
    }

    fn place(&self, call: Call<C>) -> Place<C> {
        let settings = &self.shared.settings;
        let mut pool = self.lock();
        // Once bitten: a connection that has been idle may be as dead as the one before.
        if !call.retried
            && let Some((_, socket)) = pool.idle.pop()
        {
            pool.active.insert(call.id, socket.clone());
            return Place::Idle(socket, call);
        }
        if pool.open < settings.max_connections.max(1) {
            pool.open += 1;
            pool.next_connection += 1;
            return Place::New(pool.next_connection, call);
        }
        if pool.waiting.len() >= settings.max_waiting {
            return Place::Full(call);
        }
        let id = call.id;
        match call.retried {
            true => pool.waiting.push_front(call),
            false => pool.waiting.push_back(call),
        }
        Place::Waits(id, pool.idle.pop().map(|(_, socket)| socket))
    }

    fn connect(self: &Arc<Self>, poller: &mut Poller, connection: u64, call: Call<C>) {
        let id = call.id;
        let session = ClientSession::new(self.clone(), connection, call, poller.now());
        // Where it fails at once the session has its record already.
        let Some(socket) = poller.connect(self.address, Box::new(session)) else { return };
        self.lock().active.insert(id, socket.clone());
        poller.call(&socket, |session, io| with_session::<C>(session, |session| session.connecting(io)));
    }

    fn start_waiting(self: &Arc<Self>, id: u64) {
        let (runtime, now) = (&self.shared.runtime, sys::now());
        let deadline = {
            let pool = self.lock();
            pool.waiting.iter().find(|call| call.id == id).and_then(|call| call.deadline)
        };
        let patience = now + self.shared.settings.wait_timeout;
        let (at, waited) = match deadline {
            Some(deadline) if deadline < patience => (deadline, Waited::Total),
            _ => (patience, Waited::Connection),
        };
        let endpoint = self.clone();
        let fire = Later(move || {
            let late = endpoint.lock().take_waiting(id);
            if let Some(call) = late {
                endpoint.shared.fail(endpoint.address, call, RequestError::Timeout(waited));
            }
        });
        let timer = runtime.start_keyed_timer(at, Box::new(fire));
        let waits = {
            let mut pool = self.lock();
            let call = pool.waiting.iter_mut().find(|call| call.id == id);
            call.map(|call| call.timer = Some(timer)).is_some()
        };
        if !waits {
            runtime.cancel_timer(timer);
        }
    }

    /// A connection is done with a call.
    pub(super) fn done(&self, id: u64) {
        self.lock().active.remove(&id);
    }

    /// What a connection does next that is done with its call.
    pub(super) fn next(&self, connection: u64, io: &Io<'_>) -> Next<C> {
        let settings = &self.shared.settings;
        let mut given_up = Vec::new();
        let next = {
            let mut pool = self.lock();
            loop {
                match pool.waiting.pop_front() {
                    Some(call) if !call.pledge.is_waiting() => given_up.push(call),
                    Some(call) => {
                        pool.active.insert(call.id, io.socket());
                        break Next::Call(call);
                    }
                    None if pool.idle.len() < settings.max_idle && !self.shared.is_closed() => {
                        pool.idle.push((connection, io.socket()));
                        break Next::Idle;
                    }
                    None => break Next::Close,
                }
            }
        };
        for call in given_up {
            self.shared.give_up(self.address, call);
        }
        next
    }

    /// An idle connection is about to be closed.
    pub(super) fn leave(&self, connection: u64) {
        self.lock().idle.retain(|(other, _)| *other != connection);
    }

    /// A connection has ended. `stopping`: so will all, and no further one can be made.
    pub(super) fn gone(self: &Arc<Self>, connection: u64, call: Option<u64>, stopping: bool) {
        let (waiting, stopped) = {
            let mut pool = self.lock();
            pool.open -= 1;
            pool.idle.retain(|(other, _)| *other != connection);
            if let Some(call) = call {
                pool.active.remove(&call);
            }
            let stopped = if stopping { std::mem::take(&mut pool.waiting) } else { VecDeque::new() };
            (!pool.waiting.is_empty(), stopped)
        };
        for call in stopped {
            self.shared.fail(self.address, call, RequestError::Stopped);
        }
        if waiting {
            let visit = self.visit();
            self.submit(move |poller| {
                let next = visit.0.lock().waiting.pop_front();
                if let Some(mut call) = next {
                    call.stop_timer(&visit.0.shared.runtime);
                    visit.0.accept(poller, call);
                }
            });
        }
        self.shared.forget(self);
    }

    fn submit(&self, job: impl FnOnce(&mut Poller) + Send + 'static) {
        self.shared.runtime.submit_to(self.poller, Box::new(job));
    }

    fn lock(&self) -> MutexGuard<'_, Pool<C>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Codec> Pool<C> {
    fn take_waiting(&mut self, id: u64) -> Option<Call<C>> {
        let place = self.waiting.iter().position(|call| call.id == id)?;
        self.waiting.remove(place)
    }
}

/// A call on its way to an endpoint.
pub(super) struct Visit<C: Codec>(Arc<Endpoint<C>>);

impl<C: Codec> Visit<C> {
    pub(super) fn endpoint(&self) -> &Arc<Endpoint<C>> {
        &self.0
    }

    /// Has the call served, on the endpoint's poller. Where that has ended the call is dropped.
    pub(super) fn accept(self, call: Call<C>) {
        let endpoint = self.0.clone();
        endpoint.submit(move |poller| self.0.accept(poller, call));
    }
}

impl<C: Codec> Drop for Visit<C> {
    fn drop(&mut self) {
        self.0.visits.fetch_sub(1, Ordering::SeqCst);
        self.0.shared.forget(&self.0);
    }
}

/// Starts a call on an idle connection; gives it back if that is gone.
fn start<C: Codec>(poller: &mut Poller, socket: &SocketHandle, call: Call<C>) -> Option<Call<C>> {
    let mut call = Some(call);
    poller.call(socket, |session, io| {
        with_session::<C>(session, |session| {
            if let Some(call) = call.take() {
                session.start(io, call);
            }
        });
    });
    call
}

fn with_session<C: Codec>(
    session: &mut dyn tidegate_poller::Session,
    call: impl FnOnce(&mut ClientSession<C>),
) {
    if let Some(session) = (session as &mut dyn Any).downcast_mut() {
        call(session);
    }
}
