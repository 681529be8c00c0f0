//! Bytes on their way between a session and tasks, a bounded number at a time.
//!
//! One side gives, the other takes; each is a task on any thread or a session on its poller. Nothing is completed, woken
//! or dropped under the lock. What the bound means: who gives is let in while less than the capacity is queued, so at most
//! the capacity and one chunk more lie here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_poller::{Chunk, Pull};

use crate::http::body::{BodyError, ReaderGone};
use crate::http::codec::fields::Fields;
use crate::task::{Continuation, Parked};

/// Both sides hold it.
#[derive(Clone)]
pub(super) struct Pipe(Arc<Mutex<State>>);

/// Wakes a session.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

pub(super) type Taken = Result<Option<Chunk>, BodyError>;
pub(super) type Given = Result<(), ReaderGone>;

struct State {
    chunks: VecDeque<Chunk>,
    /// Of the first chunk, so many bytes are gone.
    offset: usize,
    queued: usize,
    capacity: usize,
    ended: Option<Ended>,
    taker_gone: bool,
    /// Tasks that wait to give, each with its bytes.
    givers: VecDeque<(Parked<Given>, Chunk)>,
    /// The session that waits to give.
    giver: Option<Wake>,
    /// The session that wants to know when the taker is gone.
    watcher: Option<Wake>,
    takers: VecDeque<Parked<Taken>>,
    taker: Option<Wake>,
    /// Tasks that wait for the taker to be gone.
    watchers: Vec<Parked<()>>,
    /// The session that waits for the first wish to take.
    asked: Option<Wake>,
    /// Whoever takes is about to stop, and tasks that wait to hear so.
    stopping: bool,
    stop_watchers: Vec<Parked<()>>,
}

enum Ended {
    Whole(Option<Fields>),
    Cut(BodyError),
}

/// What is to be done once the lock is released.
#[derive(Default)]
struct After {
    taken: Vec<(Continuation<Taken>, Taken)>,
    given: Vec<(Continuation<Given>, Given)>,
    gone: Vec<Parked<()>>,
    dropped: Vec<Chunk>,
    wakes: Vec<Wake>,
}

impl Pipe {
    pub(super) fn new(capacity: usize) -> Pipe {
        Pipe(Arc::new(Mutex::new(State {
            chunks: VecDeque::new(),
            offset: 0,
            queued: 0,
            capacity: capacity.max(1),
            ended: None,
            taker_gone: false,
            givers: VecDeque::new(),
            giver: None,
            watcher: None,
            takers: VecDeque::new(),
            taker: None,
            watchers: Vec::new(),
            asked: None,
            stopping: false,
            stop_watchers: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, change: impl FnOnce(&mut State, &mut After) -> R) -> R {
        let mut after = After::default();
        let result = change(&mut self.lock(), &mut after);
        after.run();
        result
    }
}

/// Giving.
impl Pipe {
    /// A task gives; it goes on when there was room.
    pub(super) fn give(&self, chunk: Chunk, done: Continuation<Given>) {
        let mut state = self.lock();
        if state.taker_gone || state.ended.is_some() {
            drop(state);
            return done.complete(Err(ReaderGone));
        }
        if state.queued < state.capacity && state.givers.is_empty() {
            let mut after = After::default();
            state.put(chunk);
            state.settle(&mut after);
            drop(state);
            after.run();
            return done.complete(Ok(()));
        }
        drop(state);
        // Parked without the lock held: that may cancel it, and drop what comes after it.
        let parked = done.park();
        self.with(|state, after| {
            state.givers.push_back((parked, chunk));
            state.settle(after);
        });
    }

    /// Gives without waiting; gives the bytes back if there is no room.
    pub(super) fn try_give(&self, chunk: Chunk) -> Result<(), (Chunk, bool)> {
        self.with(|state, after| {
            if state.taker_gone || state.ended.is_some() {
                return Err((chunk, true));
            }
            if state.queued >= state.capacity || !state.givers.is_empty() {
                return Err((chunk, false));
            }
            state.put(chunk);
            state.settle(after);
            Ok(())
        })
    }

    /// A session gives, whatever the bound. False: there is no more room, and `wake` is called when there is.
    pub(super) fn feed(&self, chunk: Chunk, wake: impl FnOnce() -> Wake) -> bool {
        self.with(|state, after| {
            if state.taker_gone || state.ended.is_some() {
                after.dropped.push(chunk);
                return true;
            }
            state.put_beside(chunk);
            state.settle(after);
            let room = state.queued < state.capacity;
            if !room {
                state.giver = Some(wake());
            }
            room
        })
    }

    /// Nothing more comes. Only the first end counts; what waits to be given goes before it.
    pub(super) fn end(&self, trailers: Option<Fields>) {
        self.close(Ended::Whole(trailers));
    }

    /// Nothing more comes, and what came is not all. What was not taken yet can still be.
    pub(super) fn cut(&self, error: BodyError) {
        self.close(Ended::Cut(error));
    }

    fn close(&self, ended: Ended) {
        self.with(|state, after| {
            if state.ended.is_none() {
                state.ended = Some(ended);
                state.settle(after);
            }
        });
    }

    /// Has a session woken once nobody takes any more.
    pub(super) fn wake_when_left(&self, wake: Wake) {
        self.with(|state, after| match state.taker_gone {
            true => after.wakes.push(wake),
            false => state.watcher = Some(wake),
        });
    }

    pub(super) fn is_taker_gone(&self) -> bool {
        self.lock().taker_gone
    }

    /// Waits until nobody takes any more.
    pub(super) fn watch(&self, done: Continuation<()>) {
        if self.is_taker_gone() {
            return done.complete(());
        }
        let parked = done.park();
        self.with(|state, after| {
            state.watchers.retain(Parked::is_waiting);
            if state.taker_gone { after.gone.push(parked) } else { state.watchers.push(parked) }
        });
    }

    /// Waits until whoever takes is about to stop, or has.
    pub(super) fn watch_stop(&self, done: Continuation<()>) {
        if self.is_stopping() {
            return done.complete(());
        }
        let parked = done.park();
        self.with(|state, after| {
            state.stop_watchers.retain(Parked::is_waiting);
            let over = state.stopping || state.taker_gone;
            if over { after.gone.push(parked) } else { state.stop_watchers.push(parked) }
        });
    }

    pub(super) fn is_stopping(&self) -> bool {
        let state = self.lock();
        state.stopping || state.taker_gone
    }

    /// A session gives, once somebody wants to take: calls `wake` then.
    pub(super) fn when_asked(&self, wake: Wake) {
        self.lock().asked = Some(wake);
    }
}

/// Taking.
impl Pipe {
    /// A task takes the next bytes.
    pub(super) fn take(&self, done: Continuation<Taken>) {
        let mut after = After::default();
        let taken = {
            let mut state = self.lock();
            let taken = if state.takers.is_empty() { state.take() } else { None };
            after.wakes.extend(state.asked.take());
            state.settle(&mut after);
            taken
        };
        after.run();
        if let Some(taken) = taken {
            return done.complete(taken);
        }
        let parked = done.park();
        self.with(|state, after| {
            state.takers.push_back(parked);
            state.settle(after);
        });
    }

    /// A session takes at most `max` bytes. Where there are none now, `wake` is called when there are.
    pub(super) fn pull(&self, max: usize, out: &mut Vec<u8>, wake: impl FnOnce() -> Wake) -> Pull {
        self.with(|state, after| {
            after.wakes.extend(state.asked.take());
            let mut left = max;
            while left > 0
                && let Some(chunk) = state.chunks.front()
            {
                let rest = &chunk.as_slice()[state.offset..];
                let part = rest.len().min(left);
                out.extend_from_slice(&rest[..part]);
                left -= part;
                state.queued -= part;
                if part < rest.len() {
                    state.offset += part;
                } else {
                    state.offset = 0;
                    after.dropped.extend(state.chunks.pop_front());
                }
                state.refill(after);
            }
            state.tell_giver(after);
            match &state.ended {
                _ if !state.chunks.is_empty() => Pull::More,
                Some(Ended::Whole(_)) => Pull::End,
                Some(Ended::Cut(_)) => Pull::Failed,
                None => {
                    state.taker = Some(wake());
                    Pull::Starved
                }
            }
        })
    }

    pub(super) fn take_trailers(&self) -> Option<Fields> {
        match &mut self.lock().ended {
            Some(Ended::Whole(trailers)) => trailers.take(),
            _ => None,
        }
    }

    /// Nobody takes any more: what is queued goes, and who gives is told.
    pub(super) fn leave(&self) {
        self.with(|state, after| {
            state.taker_gone = true;
            state.queued = 0;
            state.offset = 0;
            after.dropped.extend(state.chunks.drain(..));
            for (parked, chunk) in state.givers.drain(..) {
                after.dropped.push(chunk);
                after.given.extend(parked.take().map(|done| (done, Err(ReaderGone))));
            }
            after.gone.append(&mut state.watchers);
            after.gone.append(&mut state.stop_watchers);
            after.wakes.extend(state.giver.take());
            after.wakes.extend(state.watcher.take());
            state.asked = None;
        });
    }

    /// Whoever takes will stop soon.
    pub(super) fn stop_soon(&self) {
        self.with(|state, after| {
            state.stopping = true;
            after.gone.append(&mut state.stop_watchers);
        });
    }
}

/// Up to this size, small pieces from a peer become one: each of its own takes some 60 bytes beside its bytes, and a peer
/// chooses how small they are.
const TOGETHER_MAX: usize = 4 * 1024;

impl State {
    /// Puts a piece, together with the one before it where both are small.
    fn put_beside(&mut self, chunk: Chunk) {
        match self.chunks.back_mut() {
            Some(Chunk::Owned(last)) if last.len() + chunk.len() <= TOGETHER_MAX => {
                self.queued += chunk.len();
                last.extend_from_slice(chunk.as_slice());
            }
            _ => self.put(chunk),
        }
    }

    fn put(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.queued += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Brings givers, bytes and takers together, as far as they go.
    fn settle(&mut self, after: &mut After) {
        while self.refill(after) | self.serve(after) {}
        if !self.chunks.is_empty() || self.ended.is_some() {
            after.wakes.extend(self.taker.take());
        }
        self.tell_giver(after);
    }

    /// Lets in who waits to give, while there is room. What was given before the end goes before it.
    fn refill(&mut self, after: &mut After) -> bool {
        let before = self.givers.len();
        while (self.queued < self.capacity || self.ended.is_some())
            && let Some((parked, chunk)) = self.givers.pop_front()
        {
            match parked.take() {
                Some(done) => {
                    after.given.push((done, Ok(())));
                    self.put(chunk);
                }
                None => after.dropped.push(chunk),
            }
        }
        self.givers.len() < before
    }

    /// Hands bytes, or the end, to the tasks that wait for them. One that was cancelled is gone, and the bytes are the
    /// next one's.
    fn serve(&mut self, after: &mut After) -> bool {
        let before = self.takers.len();
        while (!self.chunks.is_empty() || self.ended.is_some())
            && let Some(parked) = self.takers.pop_front()
        {
            if let Some(done) = parked.take() {
                after.taken.extend(self.take().map(|taken| (done, taken)));
            }
        }
        self.takers.len() < before
    }

    fn take(&mut self) -> Option<Taken> {
        match self.chunks.pop_front() {
            Some(chunk) => {
                self.queued -= chunk.len();
                Some(Ok(Some(chunk)))
            }
            None => match self.ended.as_ref()? {
                Ended::Whole(_) => Some(Ok(None)),
                Ended::Cut(error) => Some(Err(*error)),
            },
        }
    }

    /// At half the capacity, so that a session is not woken for each chunk.
    fn tell_giver(&mut self, after: &mut After) {
        if self.queued <= self.capacity / 2 {
            after.wakes.extend(self.giver.take());
        }
    }
}

impl After {
    fn run(self) {
        drop(self.dropped);
        for wake in self.wakes {
            wake();
        }
        for (done, given) in self.given {
            done.complete(given);
        }
        for (done, taken) in self.taken {
            done.complete(taken);
        }
        for watcher in self.gone {
            let _ = watcher.complete(());
        }
    }
}
