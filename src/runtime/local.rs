//! The runtime's part of a poller's thread: its timers, and work for the poller itself.
//!
//! Each poller's thread has a [`Local`], reached without a lock from that thread and through its [`Inbox`] from
//! others. The poller drives it as its [`Hook`], once a turn.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tidegate_poller::timer::Wheel;
use tidegate_poller::{Hook, Moment, Poller, PollerHandle, TimerId, sys};

use super::RuntimeHandle;
use super::work::{self, Ready, Work};

/// Names a timer that can be cancelled, in the whole process.
pub(crate) type TimerKey = u64;
/// Work that needs the poller itself.
pub(crate) type Job = Box<dyn FnOnce(&mut Poller) + Send>;

/// Pieces of work that go on in one turn; then sockets and timers have theirs.
const TURN_MAX: usize = 4_096;
/// So long may they take, looked at after so many of them.
const TURN_TIME_MAX: Duration = Duration::from_millis(4);
const TURN_PIECES: usize = 16;
/// A timer with less than this to run is worth the timer descriptor: without it the loop is up to 1 ms late.
const SHARP: Duration = Duration::from_millis(4);
/// How many of a turn's timers may ask for it; the others are due about then, or are late.
const SHARP_MAX: usize = 16;
/// Work that holds a poller longer than this is warned of: ten times what a turn with full visits takes.
const HELD_MAX: Duration = Duration::from_millis(50);

/// The way to a poller thread's [`Local`] from other threads.
pub(crate) struct Inbox {
    /// Without a bound of its own: what is in it is the only way on of something that was started, and as small as that. The
    /// poller takes all of it once a turn.
    commands: Mutex<Vec<Command>>,
    /// Something is in it. Spares the poller the lock in most turns.
    filled: AtomicBool,
    /// The thread has ended.
    closed: AtomicBool,
    /// The poller, once there is one.
    poller: OnceLock<PollerHandle>,
    pub(crate) held: super::Counter,
}

enum Command {
    Start(Timer),
    Cancel(TimerKey),
    Ready(Box<Work>),
    Job(Job),
}

/// A timer to be started: its work gets ready at the moment.
pub(super) enum Timer {
    Plain(Moment, Ready),
    /// One that can be cancelled.
    Keyed(Moment, TimerKey, Box<Work>),
}

// Another thread may start a million of them in a row.
const _: () = assert!(size_of::<Command>() <= 40);

thread_local! {
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

struct Local {
    inbox: Arc<Inbox>,
    runtime: RuntimeHandle,
    /// Made when first needed: a wheel takes 30 kB, and a file server needs none.
    timers: Option<Wheel<Ready>>,
    /// Those that can be cancelled, and where they are in their wheel.
    keyed: Option<Wheel<(TimerKey, Box<Work>)>>,
    keys: HashMap<TimerKey, TimerId>,
    /// Deadlines of this turn that want the timer descriptor.
    sharp: Vec<Moment>,
    jobs: Vec<Job>,
}

impl Inbox {
    pub(crate) fn new() -> Arc<Inbox> {
        Arc::new(Inbox {
            commands: Mutex::default(),
            filled: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            poller: OnceLock::new(),
            held: super::Counter::default(),
        })
    }

    /// Starts a timer on this inbox's poller.
    pub(super) fn start_timer(self: &Arc<Inbox>, timer: Timer) {
        let mut timer = Some(timer);
        let here = self.with_local(|local| {
            if let Some(timer) = timer.take() {
                local.start(timer, sys::now());
            }
        });
        if let (None, Some(timer)) = (here, timer) {
            self.push(Command::Start(timer));
        }
    }

    /// Drops a timer's work, unless it got ready.
    pub(crate) fn cancel_timer(self: &Arc<Inbox>, key: TimerKey) {
        match self.with_local(|local| local.cancel(key)) {
            // Dropped here, with nothing borrowed.
            Some(Some(cancelled)) => drop(cancelled),
            // It has fired.
            Some(None) if !self.filled.load(Ordering::Acquire) => {}
            // It may still be on its way here from another thread: then this comes after it.
            Some(None) | None => self.push(Command::Cancel(key)),
        }
    }

    /// Has `work` go on on the poller's thread.
    pub(crate) fn ready(self: &Arc<Inbox>, work: Box<Work>) {
        match self.is_here() {
            true => work::ready(work),
            false => self.push(Command::Ready(work)),
        }
    }

    /// Runs `job` with the poller, in this turn where this is its thread.
    pub(crate) fn submit(self: &Arc<Inbox>, job: Job) {
        let mut job = Some(job);
        let here = self.with_local(|local| local.jobs.extend(job.take()));
        if let (None, Some(job)) = (here, job) {
            self.push(Command::Job(job));
        }
    }

    /// Whether this is the poller's thread.
    pub(crate) fn is_here(self: &Arc<Inbox>) -> bool {
        self.with_local(|_| ()).is_some()
    }

    fn with_local<R>(self: &Arc<Inbox>, call: impl FnOnce(&mut Local) -> R) -> Option<R> {
        LOCAL
            .try_with(|local| {
                let mut local = local.borrow_mut();
                local.as_mut().filter(|local| Arc::ptr_eq(&local.inbox, self)).map(call)
            })
            .ok()
            .flatten()
    }

    /// What comes after the thread has ended is dropped.
    fn push(&self, command: Command) {
        let refused = {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            if self.closed.load(Ordering::Relaxed) {
                Some(command)
            } else {
                commands.push(command);
                None
            }
        };
        match refused {
            Some(command) => drop(command),
            None => {
                if !self.filled.swap(true, Ordering::AcqRel)
                    && let Some(poller) = self.poller.get()
                {
                    poller.wake();
                }
            }
        }
    }

    fn take(&self) -> Vec<Command> {
        if !self.filled.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn close(&self) -> Vec<Command> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Relaxed);
        std::mem::take(&mut *commands)
    }
}

/// Makes the calling thread, which is about to run `poller`, one of the runtime's.
pub(super) fn enter(poller: &mut Poller, inbox: Arc<Inbox>, runtime: RuntimeHandle) {
    let _ = inbox.poller.set(poller.handle());
    let local = Local {
        inbox: inbox.clone(),
        runtime,
        timers: None,
        keyed: None,
        keys: HashMap::new(),
        sharp: Vec::new(),
        jobs: Vec::new(),
    };
    LOCAL.set(Some(local));
    work::defer(true);
    poller.set_hook(Box::new(Turn { inbox, more: false }));
}

/// The runtime whose poller this thread runs.
pub(super) fn runtime() -> Option<RuntimeHandle> {
    LOCAL.try_with(|local| local.borrow().as_ref().map(|local| local.runtime.clone())).ok().flatten()
}

/// The poller has ended. What waits is dropped, and what that makes ready goes on.
pub(super) fn leave() {
    if let Some(Local { inbox, timers, keyed, jobs, .. }) = LOCAL.take() {
        // One by one: a panic of one is not the others'.
        inbox.close().into_iter().for_each(|command| work::contain(|| drop(command)));
        timers.into_iter().flat_map(Wheel::into_items).for_each(|work| work::contain(|| drop(work)));
        keyed.into_iter().flat_map(Wheel::into_items).for_each(|work| work::contain(|| drop(work)));
        jobs.into_iter().for_each(|job| work::contain(|| drop(job)));
    }
    while work::run_in_line(TURN_MAX) {}
    work::defer(false);
}

/// What the poller calls.
struct Turn {
    inbox: Arc<Inbox>,
    /// Work was left in line.
    more: bool,
}

impl Hook for Turn {
    fn turn(&mut self, poller: &mut Poller) {
        let now = poller.now();
        let mut cancelled = Vec::new();
        for command in self.inbox.take() {
            match command {
                Command::Start(timer) => with(|local| local.start(timer, now)),
                Command::Cancel(key) => cancelled.extend(with(|local| local.cancel(key))),
                Command::Ready(work) => work::ready(work),
                Command::Job(job) => with(|local| local.jobs.push(job)),
            }
        }
        // Once all that came is in its place: what is dropped may panic, or cancel what came with it.
        for work in cancelled {
            work::contain(|| drop(work));
        }
        while let Some(ready) = with(|local| local.pop_due(now)) {
            work::go(ready);
        }
        self.more = go_on();
        for job in with(|local| std::mem::take(&mut local.jobs)) {
            work::contain(|| job(poller));
        }
        for at in with(|local| std::mem::take(&mut local.sharp)) {
            poller.remember_sharp(at);
        }
        self.watch(now);
    }

    fn deadline(&self) -> Option<Moment> {
        if self.more
            || self.inbox.filled.load(Ordering::Relaxed)
            || with(|local| !local.jobs.is_empty())
            || !work::is_line_empty()
        {
            return Some(Moment::FIRST);
        }
        with(|local| {
            let timers = local.timers.as_ref().and_then(Wheel::next_deadline);
            let keyed = local.keyed.as_ref().and_then(Wheel::next_deadline);
            [timers, keyed].into_iter().flatten().min()
        })
    }
}

impl Turn {
    /// Warns of a turn that took too long, the poller's own part of it included.
    fn watch(&self, began: Moment) {
        let took = sys::now() - began;
        if took > HELD_MAX {
            self.inbox.held.add(1);
            log::warn!("callbacks held a poller for {took:?}; what computes belongs into a `go` task");
        }
    }
}

/// Has what is in line go on, for a while. Says whether some is left.
fn go_on() -> bool {
    if !work::run_in_line(TURN_PIECES) {
        return false;
    }
    let began = sys::now();
    for _ in 1..TURN_MAX / TURN_PIECES {
        if !work::run_in_line(TURN_PIECES) {
            return false;
        }
        if sys::now() - began > TURN_TIME_MAX {
            break;
        }
    }
    true
}

/// On a poller's thread, between [`enter`] and [`leave`].
fn with<R>(call: impl FnOnce(&mut Local) -> R) -> R {
    LOCAL.with_borrow_mut(|local| call(local.as_mut().expect("the hook runs between enter and leave")))
}

impl Local {
    fn start(&mut self, timer: Timer, now: Moment) {
        let (Timer::Plain(at, _) | Timer::Keyed(at, ..)) = timer;
        if self.sharp.len() < SHARP_MAX && at - now < SHARP {
            self.sharp.push(at);
        }
        match timer {
            Timer::Plain(at, work) => {
                self.timers.get_or_insert_with(|| Wheel::new(now)).insert(at, work);
            }
            Timer::Keyed(at, key, work) => {
                let keyed = self.keyed.get_or_insert_with(|| Wheel::new(now));
                self.keys.insert(key, keyed.insert(at, (key, work)));
            }
        }
    }

    fn cancel(&mut self, key: TimerKey) -> Option<Box<Work>> {
        let timer = self.keys.remove(&key)?;
        self.keyed.as_mut()?.cancel(timer).map(|(_, work)| work)
    }

    fn pop_due(&mut self, now: Moment) -> Option<Ready> {
        if let Some((_, work)) = self.timers.as_mut().and_then(|timers| timers.pop_due(now)) {
            return Some(work);
        }
        let (_, (key, work)) = self.keyed.as_mut()?.pop_due(now)?;
        self.keys.remove(&key);
        Some(Ready::Work(work))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use crate::runtime::Runtime;

    use super::*;

    #[test]
    fn a_job_that_panics_takes_none_of_the_others_with_it() {
        let runtime = Runtime::builder().pollers(1).build().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let core = runtime.handle();
        core.submit_to(0, Box::new(move |_| held.recv().unwrap_or_default()));
        core.submit_to(0, Box::new(|_| panic!("as planned")));
        core.submit_to(0, Box::new(move |_| tell.send(()).unwrap()));
        drop(release);
        told.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
