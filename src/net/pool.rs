//! One endpoint of a client: its connections, and the calls that wait for one.
//!
//! What an endpoint is (an address, or an origin behind a proxy), how a connection is made and what it speaks is its
//! [`Pooled`]'s to know. All connections of an endpoint live on one poller, and whatever changes the pool runs on that
//! poller's thread: a connection found idle there is idle. Only timers and cancels of waiting calls may come from
//! elsewhere. So the lock is hardly ever waited for, and nothing is completed, called or dropped under it.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_poller::record::End;
use tidegate_poller::{Io, Poller, Reason, Session, SocketHandle, sys};

use super::call::Call;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::Later;

/// What a pool is of: one endpoint, seen by the pool.
pub(crate) trait Pooled: Send + Sync + Sized + 'static {
    /// What comes of a call.
    type Output: Send + 'static;
    /// What a call is about.
    type Work: Send + 'static;
    /// What lives on its connections.
    type Session: Session;

    fn runtime(&self) -> &RuntimeHandle;

    fn bounds(&self) -> Bounds;

    /// Nobody will make further calls.
    fn is_closed(&self) -> bool;

    /// On the poller's thread: makes a connection for a call. However that ends, [`Endpoint::gone`] is told once.
    fn connect(endpoint: &Arc<Endpoint<Self>>, poller: &mut Poller, connection: u64, call: Call<Self>);

    /// Has an idle connection serve a call. Gives it back where that turns out to be of no use; the session closes it then.
    fn start(session: &mut Self::Session, io: &mut Io<'_>, call: Call<Self>) -> Option<Call<Self>>;

    /// Nobody waits any more for the call on this connection.
    fn cancelled(session: &mut Self::Session, io: &mut Io<'_>, call: u64);

    /// Ends a call that is on no connection.
    fn refuse(&self, call: Call<Self>, why: Refused);

    /// The same for one that was cancelled.
    fn give_up(&self, call: Call<Self>);

    /// Drops what leads to an endpoint, if it [is deserted](Endpoint::is_deserted).
    fn forget(&self, endpoint: &Arc<Endpoint<Self>>);
}

/// What a pool may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) max_connections: usize,
    pub(crate) max_idle: usize,
    pub(crate) max_waiting: usize,
    pub(crate) wait_timeout: Duration,
}

/// Why a call got no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too many wait.
    Full,
    /// It waited too long for a connection.
    Waited,
    /// It is too late in all.
    Late,
    /// The runtime is shutting down.
    ShuttingDown,
}

pub(crate) struct Endpoint<P: Pooled> {
    place: P,
    poller: usize,
    pool: Mutex<Pool<P>>,
    /// Calls on their way here.
    visits: AtomicUsize,
}

struct Pool<P: Pooled> {
    /// Connections, from the decision to make one until its record is made.
    open: usize,
    next_connection: u64,
    /// Those with nothing to do, the latest used last.
    idle: Vec<(u64, SocketHandle)>,
    /// Where the calls are that are on a connection.
    active: HashMap<u64, SocketHandle>,
    waiting: VecDeque<Call<P>>,
}

/// What is to be done with a call.
enum Place<P: Pooled> {
    /// On this connection, which is idle.
    Idle(SocketHandle, Call<P>),
    /// On a new one.
    New(u64, Call<P>),
    /// It waits. With a connection that is to make room for a new one.
    Waits(u64, Option<SocketHandle>),
    Full(Call<P>),
}

/// What a connection does next.
pub(crate) enum Next<P: Pooled> {
    Call(Call<P>),
    Idle,
    Close,
}

impl<P: Pooled> Endpoint<P> {
    pub(crate) fn new(place: P) -> Arc<Endpoint<P>> {
        let poller = place.runtime().poller_here_or_next();
        let pool = Pool {
            open: 0,
            next_connection: 0,
            idle: Vec::new(),
            active: HashMap::new(),
            waiting: VecDeque::new(),
        };
        Arc::new(Endpoint { place, poller, pool: Mutex::new(pool), visits: AtomicUsize::new(0) })
    }

    pub(crate) fn place(&self) -> &P {
        &self.place
    }

    /// Keeps the endpoint from being forgotten while a call is on its way.
    pub(crate) fn visit(self: &Arc<Self>) -> Visit<P> {
        self.visits.fetch_add(1, Ordering::SeqCst);
        Visit(self.clone())
    }

    /// Whether it may be forgotten.
    pub(crate) fn is_deserted(&self) -> bool {
        let pool = self.lock();
        pool.open == 0 && pool.waiting.is_empty() && self.visits.load(Ordering::SeqCst) == 0
    }

    /// A cancel of this call finds it here from now on.
    pub(crate) fn is_reached_by(self: &Arc<Self>, call: &Call<P>) {
        let (id, reached) = (call.id, Arc::downgrade(self));
        call.pledge.on_cancel(move || {
            if let Some(endpoint) = reached.upgrade() {
                endpoint.cancel(id);
            }
        });
    }

    /// Ends a call that nobody waits for any more: it leaves the queue, or its connection is closed.
    fn cancel(self: &Arc<Self>, id: u64) {
        let endpoint = self.clone();
        self.submit(move |poller| {
            let (waiting, socket) = {
                let mut pool = endpoint.lock();
                (pool.take_waiting(id), pool.active.get(&id).cloned())
            };
            if let Some(call) = waiting {
                endpoint.place.give_up(call);
            }
            if let Some(socket) = socket {
                with_session::<P>(poller, &socket, |session, io| P::cancelled(session, io, id));
            }
        });
    }

    /// Closes the connections that have nothing to do.
    fn close_idle(self: &Arc<Self>) {
        let endpoint = self.clone();
        self.submit(move |poller| {
            let idle = std::mem::take(&mut endpoint.lock().idle);
            for (_, socket) in idle {
                poller.call(&socket, |_, io| io.abort(End::local(Reason::Ok)));
            }
        });
    }

    /// On the poller's thread: finds a place for a call.
    fn accept(self: &Arc<Self>, poller: &mut Poller, call: Call<P>) {
        let mut next = Some(call);
        while let Some(call) = next.take() {
            if !call.pledge.is_waiting() {
                return self.place.give_up(call);
            }
            if call.deadline.is_some_and(|deadline| deadline <= sys::now()) {
                return self.place.refuse(call, Refused::Late);
            }
            match self.place_of(call) {
                Place::Idle(socket, call) => {
                    let id = call.id;
                    let mut call = Some(call);
                    with_session::<P>(poller, &socket, |session, io| {
                        call = call.take().and_then(|call| P::start(session, io, call));
                    });
                    // Still here: the connection is gone, or about to be.
                    next = call;
                    if next.is_some() {
                        self.done(id);
                    }
                }
                Place::New(connection, call) => P::connect(self, poller, connection, call),
                Place::Waits(id, room) => {
                    self.start_waiting(id);
                    if let Some(socket) = room {
                        poller.call(&socket, |_, io| io.abort(End::local(Reason::Evicted)));
                    }
                }
                Place::Full(call) => self.place.refuse(call, Refused::Full),
            }
        }
    }

    fn place_of(&self, call: Call<P>) -> Place<P> {
        let bounds = self.place.bounds();
        let mut pool = self.lock();
        // Once bitten: a connection that has been idle may be as dead as the one before.
        if !call.retried
            && let Some((_, socket)) = pool.idle.pop()
        {
            pool.active.insert(call.id, socket.clone());
            return Place::Idle(socket, call);
        }
        if pool.open < bounds.max_connections.max(1) {
            pool.open += 1;
            pool.next_connection += 1;
            return Place::New(pool.next_connection, call);
        }
        if pool.waiting.len() >= bounds.max_waiting {
            return Place::Full(call);
        }
        let id = call.id;
        match call.retried {
            true => pool.waiting.push_front(call),
            false => pool.waiting.push_back(call),
        }
        Place::Waits(id, pool.idle.pop().map(|(_, socket)| socket))
    }

    /// A call is on this connection from now on.
    pub(crate) fn on_connection(&self, call: u64, socket: SocketHandle) {
        self.lock().active.insert(call, socket);
    }

    fn start_waiting(self: &Arc<Self>, id: u64) {
        let (runtime, now) = (self.place.runtime(), sys::now());
        let deadline = {
            let pool = self.lock();
            pool.waiting.iter().find(|call| call.id == id).and_then(|call| call.deadline)
        };
        let patience = now + self.place.bounds().wait_timeout;
        let (at, why) = match deadline {
            Some(deadline) if deadline < patience => (deadline, Refused::Late),
            _ => (patience, Refused::Waited),
        };
        let endpoint = self.clone();
        let fire = Later(move || {
            let late = endpoint.lock().take_waiting(id);
            if let Some(call) = late {
                endpoint.place.refuse(call, why);
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
    pub(crate) fn done(&self, id: u64) {
        self.lock().active.remove(&id);
    }

    /// What a connection does next that is done with its call.
    pub(crate) fn next(&self, connection: u64, io: &Io<'_>) -> Next<P> {
        let bounds = self.place.bounds();
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
                    None if pool.idle.len() < bounds.max_idle && !self.place.is_closed() => {
                        pool.idle.push((connection, io.socket()));
                        break Next::Idle;
                    }
                    None => break Next::Close,
                }
            }
        };
        for call in given_up {
            self.place.give_up(call);
        }
        next
    }

    /// An idle connection is about to be closed.
    pub(crate) fn leave(&self, connection: u64) {
        self.lock().idle.retain(|(other, _)| *other != connection);
    }

    /// A connection has ended. `stopping`: so will all, and no further one can be made.
    pub(crate) fn gone(self: &Arc<Self>, connection: u64, call: Option<u64>, stopping: bool) {
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
            self.place.refuse(call, Refused::ShuttingDown);
        }
        if waiting {
            let visit = self.visit();
            self.submit(move |poller| {
                let next = visit.0.lock().waiting.pop_front();
                if let Some(mut call) = next {
                    call.stop_timer(visit.0.place.runtime());
                    visit.0.accept(poller, call);
                }
            });
        }
        self.place.forget(self);
    }

    /// Runs `job` on the thread of the endpoint's poller.
    pub(crate) fn submit(&self, job: impl FnOnce(&mut Poller) + Send + 'static) {
        self.place.runtime().submit_to(self.poller, Box::new(job));
    }

    fn lock(&self) -> MutexGuard<'_, Pool<P>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoints of a client that have a connection, or calls, by what tells them apart.
pub(crate) struct Endpoints<K, P: Pooled> {
    map: Mutex<HashMap<K, Arc<Endpoint<P>>>>,
    next_call: AtomicU64,
    closed: AtomicBool,
}

impl<K: Eq + Hash, P: Pooled> Endpoints<K, P> {
    /// On the way to an endpoint, made if need be.
    pub(crate) fn visit(&self, key: K, make: impl FnOnce() -> P) -> Visit<P> {
        self.lock().entry(key).or_insert_with(|| Endpoint::new(make())).visit()
    }

    /// A number for a call.
    pub(crate) fn next_call(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }

    /// Forgets an endpoint that has nothing left.
    pub(crate) fn forget(&self, key: &K, endpoint: &Arc<Endpoint<P>>) {
        let mut map = self.lock();
        if map.get(key).is_some_and(|kept| Arc::ptr_eq(kept, endpoint)) && endpoint.is_deserted() {
            let gone = map.remove(key);
            drop(map);
            drop(gone);
        }
    }

    /// Nobody will make further calls: closes what is idle, now and later.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let endpoints: Vec<_> = self.lock().values().cloned().collect();
        for endpoint in endpoints {
            endpoint.close_idle();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<Endpoint<P>>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, P: Pooled> Default for Endpoints<K, P> {
    fn default() -> Endpoints<K, P> {
        Endpoints { map: Mutex::default(), next_call: AtomicU64::new(1), closed: AtomicBool::new(false) }
    }
}

impl<P: Pooled> Pool<P> {
    fn take_waiting(&mut self, id: u64) -> Option<Call<P>> {
        let place = self.waiting.iter().position(|call| call.id == id)?;
        self.waiting.remove(place)
    }
}

/// A call on its way to an endpoint.
pub(crate) struct Visit<P: Pooled>(Arc<Endpoint<P>>);

impl<P: Pooled> Visit<P> {
    /// Has the call served, on the endpoint's poller; a cancel finds it there. Where the poller has ended the call is
    /// dropped.
    pub(crate) fn accept(self, call: Call<P>) {
        let endpoint = self.0.clone();
        endpoint.is_reached_by(&call);
        endpoint.submit(move |poller| self.0.accept(poller, call));
    }
}

impl<P: Pooled> Drop for Visit<P> {
    fn drop(&mut self) {
        self.0.visits.fetch_sub(1, Ordering::SeqCst);
        self.0.place.forget(&self.0);
    }
}

/// Calls a connection's session, if it is still there.
pub(crate) fn with_session<P: Pooled>(
    poller: &mut Poller,
    socket: &SocketHandle,
    call: impl FnOnce(&mut P::Session, &mut Io<'_>),
) {
    poller.call(socket, |session, io| {
        if let Some(session) = (session as &mut dyn Any).downcast_mut() {
            call(session, io);
        }
    });
}
