//! The poller and the order of its turns.

use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use slab::Slab;

use super::figures::{add, average};
use super::handle::{Call, PollerHandle, Shared, Work};
use super::listener::{Listener, take_reserve};
use super::socket::Socket;
use super::watch::{Ready, Watched};
use super::{Hook, Io, PollerSettings, SocketHandle};
use crate::budget::Signal;
use crate::due::{Due, Key};
use crate::gate::{Env, Pools};
use crate::moment::Moment;
use crate::offload::Offload;
use crate::outbox::Passed;
use crate::pace::Pacer;
use crate::record::{End, Reason};
use crate::session::Session;
use crate::sys;
use crate::timer::Wheel;

/// A timer asked for with less than this to run wants better than the kernel's whole milliseconds.
pub(super) const SHARP: Duration = Duration::from_millis(4);
/// Most sharp deadlines remembered; beyond, timers are up to a millisecond late.
const SHARP_KEPT: usize = 1024;

/// Tokens whose generation is zero are not sockets.
const WAKER: Token = Token(0);
const TIMER_FD: Token = Token(1);
const FIRST_LISTENER: usize = 2;

/// One thread's event loop: its sockets, its listeners, its timers.
///
/// Not `Send`: it is made on the thread that runs it. Other threads reach it by its [`PollerHandle`].
pub struct Poller {
    pub(super) settings: PollerSettings,
    pub(super) poll: mio::Poll,
    /// Absent only while events are gone through.
    events: Option<Events>,
    pub(super) shared: Arc<Shared>,
    work: Vec<Work>,
    /// This turn's moment.
    pub(super) now: Moment,
    in_turn: bool,

    pub(super) sockets: Slab<Socket>,
    pub(super) listeners: Slab<Listener>,
    pub(super) watched: Slab<Watched>,
    pub(super) watch_serial: u64,

    pub(super) wheel: Wheel<Due>,
    timer_fd: sys::TimerFd,
    /// Deadlines that want the timer descriptor, latest first.
    sharp: Vec<Moment>,
    sharp_armed: Option<Moment>,

    pub(super) pacer: Pacer,
    pub(super) offload: Offload,
    pub(super) pools: Pools,
    pub(super) read_buffer: Vec<u8>,
    pub(super) passed: Vec<Passed>,

    /// In line for a visit: this turn's before phase 6, the next one's from then on.
    pub(super) to_visit: Vec<Key>,
    visiting: Vec<Key>,
    pub(super) to_accept: Vec<u32>,
    accepting: Vec<u32>,
    /// The socket being visited: its gate runs at the end of the visit whatever is queued.
    pub(super) current: Option<usize>,
    pub(super) doomed: Vec<Key>,
    dooming: Vec<Key>,
    /// No listener is open, and none will be.
    pub(super) closed_to_callers: bool,
    /// Sockets that serve a caller.
    pub(super) callers: usize,
    /// Called when there is none left.
    pub(super) callers_gone: Vec<Call>,
    /// No socket is opened any more.
    pub(super) closed_to_all: bool,
    pub(super) stopping: bool,
    /// Absent while it is called, and where there is none.
    hook: Option<Box<dyn Hook>>,
}

impl Poller {
    /// A poller with its descriptors; it does nothing until it is run.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub fn new(settings: PollerSettings) -> io::Result<Poller> {
        // A cap of zero would let nothing through, in one turn after the other.
        let settings = PollerSettings {
            visit_cap: settings.visit_cap.max(1),
            read_cap: settings.read_cap.max(1),
            ..settings
        };
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        let timer_fd = sys::TimerFd::new()?;
        poll.registry().register(&mut SourceFd(&timer_fd.as_raw_fd()), TIMER_FD, Interest::READABLE)?;
        take_reserve()?;
        let now = sys::now();
        let shared = Arc::new(Shared::new(waker));
        Ok(Poller {
            events: Some(Events::with_capacity(settings.events_per_turn.max(1))),
            shared: shared.clone(),
            work: Vec::new(),
            now,
            in_turn: false,
            sockets: Slab::new(),
            listeners: Slab::new(),
            watched: Slab::new(),
            watch_serial: 0,
            wheel: Wheel::new(now),
            timer_fd,
            sharp: Vec::new(),
            sharp_armed: None,
            pacer: new_pacer(&settings, shared),
            offload: Offload::new(),
            pools: Pools::default(),
            read_buffer: vec![0; settings.read_buffer.max(1)],
            passed: Vec::new(),
            to_visit: Vec::new(),
            visiting: Vec::new(),
            to_accept: Vec::new(),
            accepting: Vec::new(),
            current: None,
            doomed: Vec::new(),
            dooming: Vec::new(),
            closed_to_callers: false,
            callers: 0,
            callers_gone: Vec::new(),
            closed_to_all: false,
            stopping: false,
            hook: None,
            poll,
            settings,
        })
    }

    /// Reaches this poller from other threads.
    pub fn handle(&self) -> PollerHandle {
        PollerHandle { shared: self.shared.clone() }
    }

    /// Turns until [`PollerHandle::shutdown`] has been asked for and the last socket is gone.
    ///
    /// # Errors
    /// The kernel refuses to tell events, which it does for faults of the program only.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_done() {
            self.turn(None)?;
        }
        self.shared.close();
        Ok(())
    }

    /// Whether it was shut down and has no socket left.
    pub fn is_done(&self) -> bool {
        self.stopping && self.sockets.is_empty()
    }

    /// One turn; sleeps at most `max_wait`. The numbers are those of the module's description.
    ///
    /// # Errors
    /// As [`run`](Poller::run).
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<()> {
        let mut events = match self.events.take() {
            Some(events) => events,
            None => return Err(io::Error::other("a poller's turn cannot be made from within its turn")),
        };
        let slept = match self.sleep(&mut events, max_wait) {
            Ok(slept) => slept, // 1
            Err(error) => {
                self.events = Some(events);
                return Err(error);
            }
        };
        self.in_turn = true;
        let before = self.now;
        self.now = sys::now(); // 2
        if !slept {
            average(&self.shared.counters.turn_ns, self.now.nanos_since(before));
        }
        let woken = self.shared.awake();
        if self.pacer.begin_turn() {
            self.ask_again();
        }
        self.take_events(&events); // 3
        self.events = Some(events);
        if woken {
            self.take_work(); // 4
        }
        self.fire_timers(); // 5
        self.visit_all(); // 6
        self.run_hook(); // 7
        self.settle(); // 8
        self.tear_down_doomed(); // 9
        self.look_for_callers();
        let counters = &self.shared.counters;
        add(&counters.turns, 1);
        counters.open.store(self.sockets.len() as u64, Relaxed);
        self.in_turn = false;
        Ok(())
    }

    /// Has the embedder's own work done in each turn from now on; replaces what was set before.
    pub fn set_hook(&mut self, hook: Box<dyn Hook>) {
        self.hook = Some(hook);
    }

    /// This turn's moment; between turns, the clock is read.
    pub fn now(&mut self) -> Moment {
        if !self.in_turn {
            self.now = sys::now();
        }
        self.now
    }

    /// Sockets open now.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Runs `work` with a socket's session at once, if the socket is one of this poller's and still there; says whether.
    /// For work between the sessions' own calls: in a [`Hook`], or [submitted](PollerHandle::submit).
    pub fn call(&mut self, socket: &SocketHandle, work: impl FnOnce(&mut dyn Session, &mut Io<'_>)) -> bool {
        let key = socket.key();
        let here = Arc::ptr_eq(&self.shared, &socket.poller().shared)
            && self.lookup(key).is_some_and(|socket| !socket.doomed && socket.session.is_some());
        if here {
            self.now();
            self.with_socket(key, work);
        }
        here
    }

    /// Runs `work` with a socket's session, if the socket is still there.
    pub(crate) fn with_socket(&mut self, key: Key, work: impl FnOnce(&mut dyn Session, &mut Io<'_>)) {
        if self.lookup(key).is_some() {
            self.call_session(key.index as usize, work);
            self.schedule(key.index as usize);
        }
    }

    /// Puts a socket in line for a visit.
    pub(super) fn schedule(&mut self, index: usize) {
        if self.current != Some(index) {
            self.requeue(index);
        }
    }

    /// Puts a socket in line, the one being visited too.
    pub(super) fn requeue(&mut self, index: usize) {
        if let Some(socket) = self.sockets.get_mut(index)
            && !socket.queued
            && !socket.doomed
        {
            socket.queued = true;
            self.to_visit.push(Key { index: index as u32, generation: socket.generation() });
        }
    }

    pub(super) fn lookup(&mut self, key: Key) -> Option<&mut Socket> {
        self.sockets.get_mut(key.index as usize).filter(|socket| socket.generation() == key.generation)
    }

    /// A socket and what its gate works with.
    pub(super) fn gate_parts(&mut self, index: usize) -> Option<(&mut Socket, Env<'_>)> {
        let socket = self.sockets.get_mut(index)?;
        let env = Env {
            now: self.now,
            key: Key { index: index as u32, generation: socket.generation() },
            pacer: &mut self.pacer,
            wheel: &mut self.wheel,
            pools: &mut self.pools,
            passed: &mut self.passed,
            notsent_lowat: self.settings.socket.notsent_lowat,
        };
        Some((socket, env))
    }

    /// Calls a session with its socket, if neither is gone. Its panic ends the socket.
    pub(super) fn call_session(&mut self, index: usize, call: impl FnOnce(&mut dyn Session, &mut Io<'_>)) {
        let Some(socket) = self.sockets.get_mut(index).filter(|socket| !socket.doomed) else { return };
        let Some(mut session) = socket.session.take() else { return };
        let mut io = Io::new(self, index);
        let outcome = catch_unwind(AssertUnwindSafe(|| call(session.as_mut(), &mut io)));
        let session = io.take_replacement().unwrap_or(session);
        if let Some(socket) = self.sockets.get_mut(index) {
            socket.session = Some(session);
        }
        if outcome.is_err() {
            let conn_id = self.sockets.get(index).map_or(0, |socket| socket.conn_id);
            log::error!("{}: the session of connection {conn_id} panicked; it is closed", self.settings.name);
            add(&self.shared.counters.panics, 1);
            self.doom(index, End::local(Reason::Internal));
        }
    }

    /// Remembers a deadline that wants better than milliseconds: the loop's sleep otherwise ends on a whole one, up to
    /// a millisecond late. For deadlines that also wake the loop otherwise, as a timer or by [`Hook::deadline`].
    pub fn remember_sharp(&mut self, at: Moment) {
        if self.sharp.len() < SHARP_KEPT {
            let place = self.sharp.partition_point(|other| *other > at);
            self.sharp.insert(place, at);
        }
    }

    /// Phase 1. Says whether it may have slept.
    fn sleep(&mut self, events: &mut Events, max_wait: Option<Duration>) -> io::Result<bool> {
        let in_line = !self.to_visit.is_empty() || !self.to_accept.is_empty() || !self.doomed.is_empty();
        let (timeout, slept) = if in_line || max_wait == Some(Duration::ZERO) {
            (Some(Duration::ZERO), false)
        } else {
            let now = sys::now();
            average(&self.shared.counters.turn_ns, now.nanos_since(self.now));
            let hook = self.hook.as_ref().and_then(|hook| hook.deadline());
            let deadline =
                [self.wheel.next_deadline(), self.pacer.deadline(), hook].into_iter().flatten().min();
            self.arm_sharp(now);
            let wait = deadline.map(|deadline| deadline - now);
            ([wait, max_wait].into_iter().flatten().min(), true)
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(slept),
        }
    }

    fn arm_sharp(&mut self, now: Moment) {
        while self.sharp.last().is_some_and(|at| *at <= now) {
            self.sharp.pop();
        }
        let next = self.sharp.last().copied();
        if next != self.sharp_armed {
            let result = match next {
                Some(at) => self.timer_fd.arm(at),
                None => self.timer_fd.disarm(),
            };
            match result {
                Ok(()) => self.sharp_armed = next,
                Err(error) => log::error!("{}: cannot arm the timer: {error}", self.settings.name),
            }
        }
    }

    /// Phase 3.
    fn take_events(&mut self, events: &Events) {
        let mut count = 0;
        let mut stale = 0;
        for event in events {
            count += 1;
            let token = event.token();
            let generation = (token.0 as u64 >> 32) as u32;
            if generation == 0 {
                match token {
                    WAKER => {}
                    TIMER_FD => {
                        let _ = self.timer_fd.clear();
                        self.sharp_armed = None;
                    }
                    token => match Self::watched_place(token) {
                        Some(index) => self.tell_watched(index, Ready::of(event)),
                        None => self.schedule_listener((token.0 - FIRST_LISTENER) as u32),
                    },
                }
                continue;
            }
            let key = Key { index: token.0 as u32, generation };
            let Some(socket) = self.lookup(key) else {
                stale += 1;
                continue;
            };
            socket.told_readable |= event.is_readable() || event.is_read_closed();
            socket.told_hup |= event.is_read_closed();
            socket.told_error |= event.is_error();
            if event.is_writable() || event.is_write_closed() || event.is_error() {
                socket.gate.writable();
            }
            self.requeue(key.index as usize);
        }
        add(&self.shared.counters.events, count);
        add(&self.shared.counters.stale_events, stale);
    }

    /// Phase 4.
    fn take_work(&mut self) {
        let mut work = std::mem::take(&mut self.work);
        self.shared.take(&mut work);
        for work in work.drain(..) {
            match work {
                Work::Run(job) => {
                    if catch_unwind(AssertUnwindSafe(|| job(self))).is_err() {
                        log::error!("{}: submitted work panicked", self.settings.name);
                        add(&self.shared.counters.panics, 1);
                    }
                }
                Work::Offloaded(key, Some(result)) => {
                    self.with_socket(key, |session, io| session.offloaded(io, result));
                }
                Work::Offloaded(key, None) => self.doom_key(key, End::local(Reason::Internal)),
                Work::Warmed(key, until) => self.file_is_warm(key, until),
                Work::CloseToCallers(gone) => {
                    self.callers_gone.push(gone);
                    self.close_to_callers();
                }
                Work::WakeSource(key) => {
                    if let Some(socket) = self.lookup(key) {
                        socket.gate.wake_source();
                        self.schedule(key.index as usize);
                    }
                }
                Work::Shutdown(grace) => self.begin_shutdown(grace),
            }
        }
        self.work = work;
    }

    /// Phase 5. A timer started here has a deadline after this turn's moment, so this ends.
    fn fire_timers(&mut self) {
        let mut fired = 0;
        while let Some((at, due)) = self.wheel.pop_due(self.now) {
            fired += 1;
            average(&self.shared.counters.lateness_ns, self.now.nanos_since(at));
            self.fire(due);
        }
        add(&self.shared.counters.timers, fired);
    }

    fn fire(&mut self, due: Due) {
        match due {
            Due::Resume(key) => {
                if self.lookup(key).is_some()
                    && let Some((socket, env)) = self.gate_parts(key.index as usize)
                {
                    socket.gate.resume(env.wheel, env.now);
                    self.schedule(key.index as usize);
                }
            }
            Due::ResumeReading(key) => {
                if let Some(socket) = self.lookup(key) {
                    socket.rare().ingress_timer = None;
                    self.resume_reading(key.index as usize);
                }
            }
            Due::Rewarm(key) => self.file_is_warm(key, 0),
            Due::Send(key) => {
                if self.lookup(key).is_some()
                    && let Some((socket, mut env)) = self.gate_parts(key.index as usize)
                    && socket.gate.send_timer_due(&mut env)
                {
                    match socket.acked_since_asked() {
                        // The kernel paces it, so the kernel's buffer was full for no fault of the peer's.
                        true => socket.gate.restart_send_timer(&mut env),
                        false => self.doom(key.index as usize, End::local(Reason::Timeout)),
                    }
                }
            }
            Due::Deadline(key) => self.deadline_due(key),
            Due::Session { key, reason, slot } => {
                if let Some(socket) = self.lookup(key) {
                    socket.set_timer(slot, None);
                    self.with_socket(key, |session, io| session.timer(io, reason));
                }
            }
            Due::Listener(index) => self.schedule_listener(index),
            Due::Cut => self.cut(),
        }
    }

    /// Phase 6.
    fn visit_all(&mut self) {
        std::mem::swap(&mut self.to_accept, &mut self.accepting);
        let mut accepting = std::mem::take(&mut self.accepting);
        for index in accepting.drain(..) {
            self.visit_listener(index);
        }
        self.accepting = accepting;

        let mut visiting = std::mem::take(&mut self.visiting);
        std::mem::swap(&mut self.to_visit, &mut visiting);
        for key in visiting.drain(..) {
            if let Some(socket) = self.lookup(key) {
                socket.queued = false;
                self.visit(key.index as usize);
            }
        }
        self.visiting = visiting;
    }

    /// Phase 7.
    fn run_hook(&mut self) {
        let Some(mut hook) = self.hook.take() else { return };
        if catch_unwind(AssertUnwindSafe(|| hook.turn(self))).is_err() {
            log::error!("{}: the hook panicked", self.settings.name);
            add(&self.shared.counters.panics, 1);
        }
        // Unless it has set another in its place.
        self.hook.get_or_insert(hook);
    }

    /// Phase 8.
    fn settle(&mut self) {
        self.pacer.settle(self.now);
        while let Some(owner) = self.pacer.next_turn(self.now) {
            self.take_turn(owner);
        }
    }

    pub(super) fn indices(&self) -> Vec<usize> {
        self.sockets.iter().map(|(index, _)| index).collect()
    }

    pub(super) fn listener_token(index: usize) -> Token {
        Token(FIRST_LISTENER + index)
    }

    pub(super) fn socket_token(key: Key) -> Token {
        Token((key.index as usize) | ((key.generation as usize) << 32))
    }

    /// Phase 9.
    pub(super) fn tear_down_doomed(&mut self) {
        let mut dooming = std::mem::take(&mut self.dooming);
        std::mem::swap(&mut self.doomed, &mut dooming);
        for key in dooming.drain(..) {
            if self.lookup(key).is_some() {
                self.tear_down(key.index as usize);
            }
        }
        self.dooming = dooming;
    }
}

impl Drop for Poller {
    /// Every session gets its record, whatever ends the poller.
    fn drop(&mut self) {
        self.shared.close();
        self.in_turn = false;
        self.now();
        for index in self.indices() {
            self.doom(index, End::local(Reason::Shutdown));
        }
        self.tear_down_doomed();
    }
}

/// A change of a rate, from whatever thread, ends the poller's sleep.
fn new_pacer(settings: &PollerSettings, shared: Arc<Shared>) -> Pacer {
    Pacer::new(settings.pace_interval, Signal::new(move || shared.wake()))
}
