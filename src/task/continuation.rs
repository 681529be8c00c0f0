//! What goes on when a task is done.

use std::any::Any;
use std::fmt;
use std::num::NonZeroU32;
use std::panic::resume_unwind;
use std::sync::{Arc, PoisonError};

use super::token::{Cancellation, Generation, Token};
use crate::runtime::RuntimeHandle;
use crate::runtime::work::{self, Deliver, Place, Ready, Receive};
use crate::sync::Mutex;

/// Goes on with the result of a task. Whoever holds it holds what comes after the task, the rest of a series and its
/// context included: dropping it ends that, `finally` included.
#[must_use = "dropping it ends the series"]
pub struct Continuation<O> {
    /// Where the task may have said how to cancel it. Dropped first: what comes next may have a task of its own.
    generation: Option<Generation>,
    to: To<O>,
}

/// What a result goes to.
enum To<O> {
    Receiver(Box<dyn Receiver<O>>),
    /// One of several tasks within another.
    Seat(Seat<O>),
}

/// What several tasks run within.
pub(super) trait Parent<O>: Deliver<O> {
    fn runtime(&self) -> &RuntimeHandle;
    /// The token that a task runs under.
    fn token(&self, index: u32) -> Option<&Arc<Token>>;
}

/// The place of one of several tasks, seen as what they run within.
struct Seat<O> {
    parent: Option<Arc<dyn Parent<O>>>,
    /// From 1: a number that is never zero leaves [`To`] a way to tell its cases apart without a word more, of which there
    /// is one in each of a million jobs.
    number: NonZeroU32,
}

const _: () = assert!(size_of::<Continuation<u64>>() == 32);

/// What receives the result of a task. When it is dropped instead, none comes.
pub(crate) trait Receiver<O>: Receive<O> {
    fn runtime(&self) -> &RuntimeHandle;
    fn token(&self) -> Option<&Arc<Token>>;
}

impl<O: Send + 'static> Continuation<O> {
    pub(crate) fn new(receiver: Box<dyn Receiver<O>>) -> Continuation<O> {
        Continuation { generation: None, to: To::Receiver(receiver) }
    }

    /// That of one of several tasks.
    pub(super) fn of_child(parent: Arc<dyn Parent<O>>, index: u32) -> Continuation<O> {
        Continuation {
            generation: None,
            to: To::Seat(Seat { parent: Some(parent), number: NonZeroU32::MIN.saturating_add(index) }),
        }
    }

    /// The task is done. What comes next goes on on the calling thread: before this returns, or, where it is itself
    /// called by something of the runtime's, soon after.
    pub fn complete(self, output: O) {
        drop(self.generation);
        match self.to {
            To::Receiver(receiver) => work::give(receiver as Box<dyn Receive<O>>, output),
            To::Seat(seat) => {
                if let Some(place) = seat.into_place() {
                    work::fill(place, output);
                }
            }
        }
    }

    /// The task panicked, with this payload. What comes after it is ended once the stack is whole again: `finally` is not to
    /// be called while it unwinds.
    pub(crate) fn panicked(self, payload: Box<dyn Any + Send>) {
        work::ready(Box::new(Unwind { done: self, payload }));
    }

    /// The runtime that it runs on.
    pub fn runtime(&self) -> &RuntimeHandle {
        match &self.to {
            To::Receiver(receiver) => receiver.runtime(),
            To::Seat(seat) => seat.parent().runtime(),
        }
    }

    /// Whether the task was cancelled; then its result does not matter any more.
    pub fn is_cancelled(&self) -> bool {
        self.token().is_some_and(|token| token.is_cancelled())
    }

    /// Whether anybody can cancel the task.
    pub fn can_be_cancelled(&self) -> bool {
        self.token().is_some()
    }

    /// Where the task can say how to cancel it. In this order: ask for it, put the continuation where it waits, then
    /// [`Cancellation::on_cancel`] with what takes it from there and drops it.
    pub fn cancellation(&mut self) -> Cancellation {
        if self.generation.is_none() {
            self.generation = self.token().cloned().map(Generation);
        }
        Cancellation::new(self.token())
    }

    /// Puts the continuation where several can reach it; the first one completes it. Cancelling drops it.
    pub fn park(mut self) -> Parked<O> {
        let cancellation = self.cancellation();
        let place = Arc::new(Mutex::new(Some(self)));
        if cancellation.is_possible() {
            let reached = Arc::downgrade(&place);
            cancellation.on_cancel(move || {
                if let Some(place) = reached.upgrade() {
                    drop(Parked(place).take());
                }
            });
        }
        Parked(place)
    }

    /// Goes on with the result where it is called, in the loop. Only for what has not said how to cancel it.
    pub(super) fn receive(self, output: O) {
        debug_assert!(self.generation.is_none(), "nobody would end the generation");
        match self.to {
            To::Receiver(receiver) => receiver.receive(output),
            To::Seat(seat) => {
                if let Some(place) = seat.into_place() {
                    place.fill(output);
                }
            }
        }
    }

    pub(super) fn token(&self) -> Option<&Arc<Token>> {
        match &self.to {
            To::Receiver(receiver) => receiver.token(),
            To::Seat(seat) => seat.parent().token(seat.index()),
        }
    }
}

impl Continuation<()> {
    /// What is ready once the task is done. Only for what has not said how to cancel it.
    pub(super) fn into_ready(self) -> Ready {
        debug_assert!(self.generation.is_none(), "nobody would end the generation");
        match self.to {
            To::Receiver(receiver) => Ready::Work(receiver),
            To::Seat(seat) => match seat.into_place() {
                Some(place) => Ready::Place(place),
                None => unreachable!("a seat is left once"),
            },
        }
    }
}

impl<O> Seat<O> {
    fn parent(&self) -> &dyn Parent<O> {
        self.parent.as_deref().expect("it is left once")
    }

    fn index(&self) -> u32 {
        self.number.get() - 1
    }

    fn into_place(mut self) -> Option<Place<O>> {
        self.parent.take().map(|parent| Place::new(parent as Arc<dyn Deliver<O>>, self.index()))
    }
}

impl<O> Drop for Seat<O> {
    fn drop(&mut self) {
        if let Some(parent) = self.parent.take() {
            parent.deliver(self.index(), None);
        }
    }
}

impl<O> fmt::Debug for Continuation<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Continuation").finish_non_exhaustive()
    }
}

/// Goes on with a panic within the loop, where what that cuts short waits until it is caught.
struct Unwind<O> {
    done: Continuation<O>,
    payload: Box<dyn Any + Send>,
}

impl<O: Send + 'static> Receive<()> for Unwind<O> {
    fn receive(self: Box<Self>, (): ()) {
        let Unwind { done, payload } = *self;
        let _dropped_by_the_panic = done;
        resume_unwind(payload);
    }
}

/// A continuation that several can reach; see [`Continuation::park`].
pub struct Parked<O>(Arc<Mutex<Option<Continuation<O>>>>);

impl<O: Send + 'static> Parked<O> {
    /// Completes it, if it is still there; else gives the result back.
    pub fn complete(&self, output: O) -> Result<(), O> {
        match self.take() {
            Some(continuation) => {
                continuation.complete(output);
                Ok(())
            }
            None => Err(output),
        }
    }

    /// Takes it, if it is still there.
    pub fn take(&self) -> Option<Continuation<O>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether it is still there.
    pub fn is_waiting(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl<O> Clone for Parked<O> {
    fn clone(&self) -> Parked<O> {
        Parked(self.0.clone())
    }
}

impl<O> fmt::Debug for Parked<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parked").finish_non_exhaustive()
    }
}
