//! Message queues.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::names::{Name, Names};
use super::waiters::{Keep, Place, Waiter, Waiters, lock};
use crate::runtime::RuntimeHandle;
use crate::task::{Continuation, Task};

/// Messages from many to many, first in, first out, at most so many at a time.
///
/// [`put`](MessageQueue::put) waits for room and [`take`](MessageQueue::take) for a message, each in the order in which they
/// came; [`try_put`](MessageQueue::try_put) is for those who cannot wait. A clone is the same queue. What has been put is
/// still there to be taken after [`close`](MessageQueue::close).
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{MessageQueue, Series};
///
/// let runtime = Runtime::new()?;
/// let queue = MessageQueue::new(8);
/// let taker = Series::new(Vec::new()).then(queue.take(), |message, series| {
///     series.context.push(message?.open());
///     Ok(())
/// });
/// let taker = runtime.start(taker);
/// runtime.run(queue.put("hello"))??;
/// assert_eq!(taker.wait()?.context, ["hello"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MessageQueue<T: Send + 'static> {
    shared: Arc<Shared<T>>,
}

pub(super) struct Shared<T: Send + 'static> {
    state: Mutex<State<T>>,
    name: Option<Name<Shared<T>>>,
}

/// Nobody takes while there are messages, and nobody puts while there is room; save those who are cancelled.
struct State<T: Send + 'static> {
    messages: VecDeque<T>,
    capacity: usize,
    closed: bool,
    takers: Waiters<Result<Message<T>, Closed>>,
    /// Each waits with its message.
    putters: Waiters<Result<(), PutError<T>>, T>,
}

/// A message that was taken from its queue. One that is dropped without having been [opened](Message::open), because the
/// series that it came to was cancelled, goes back to the front of the queue; a queue that is full holds it all the same.
#[must_use = "it goes back to its queue"]
pub struct Message<T: Send + 'static> {
    value: Option<T>,
    queue: Arc<Shared<T>>,
}

/// The queue was closed, and is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// What could not be put, and why.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PutError<T> {
    /// There is no room.
    Full(T),
    /// The queue was closed.
    Closed(T),
}

impl<T: Send + 'static> MessageQueue<T> {
    /// One for `capacity` messages; at least one.
    pub fn new(capacity: usize) -> MessageQueue<T> {
        MessageQueue { shared: Arc::new(Shared::new(capacity, None)) }
    }

    /// The one that has this name in a runtime, for messages of this type; made for `capacity` messages if there is none. It
    /// lives while somebody has a clone, or waits.
    pub fn named(runtime: &RuntimeHandle, name: &str, capacity: usize) -> MessageQueue<T> {
        MessageQueue::named_in(&runtime.extension::<Names<Shared<T>>>(), name, capacity)
    }

    pub(super) fn named_in(names: &Arc<Names<Shared<T>>>, name: &str, capacity: usize) -> MessageQueue<T> {
        MessageQueue { shared: names.share(name, |name| Shared::new(capacity, Some(name))) }
    }

    /// Puts a message, once there is room. Cancelled while it waits, the message is dropped.
    pub fn put(&self, message: T) -> Put<T> {
        Put { message, shared: self.shared.clone() }
    }

    /// Puts a message if there is room.
    ///
    /// # Errors
    /// There is none, or the queue was closed; the message comes back.
    pub fn try_put(&self, message: T) -> Result<(), PutError<T>> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(PutError::Closed(message));
        }
        if let Some(taker) = state.takers.next() {
            drop(state);
            taker.complete(Ok(Message::new(message, &self.shared)));
            return Ok(());
        }
        if state.messages.len() >= state.capacity {
            return Err(PutError::Full(message));
        }
        state.messages.push_back(message);
        Ok(())
    }

    /// Takes the next message, once there is one.
    pub fn take(&self) -> Take<T> {
        Take { shared: self.shared.clone() }
    }

    /// Takes the next message if there is one.
    pub fn try_take(&self) -> Option<T> {
        let (message, putter) = self.shared.lock().take()?;
        if let Some(putter) = putter {
            putter.complete(Ok(()));
        }
        Some(message)
    }

    /// Lets nothing more in. Those who wait for room get their message back; those who wait for a message are told.
    pub fn close(&self) {
        let (takers, putters) = {
            let mut state = self.shared.lock();
            state.closed = true;
            (state.takers.take_all(), state.putters.take_all())
        };
        for taker in takers {
            taker.complete(Err(Closed));
        }
        for putter in putters {
            let (putter, message) = putter.split();
            putter.complete(Err(PutError::Closed(message)));
        }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// How many messages are in it.
    pub fn len(&self) -> usize {
        self.shared.lock().messages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn shared(&self) -> &Arc<Shared<T>> {
        &self.shared
    }
}

impl<T: Send + 'static> Clone for MessageQueue<T> {
    fn clone(&self) -> MessageQueue<T> {
        MessageQueue { shared: self.shared.clone() }
    }
}

/// See [`MessageQueue::put`].
#[must_use = "a task does nothing until it is started"]
pub struct Put<T: Send + 'static> {
    message: T,
    shared: Arc<Shared<T>>,
}

/// See [`MessageQueue::take`].
#[must_use = "a task does nothing until it is started"]
pub struct Take<T: Send + 'static> {
    shared: Arc<Shared<T>>,
}

impl<T: Send + 'static> Task for Put<T> {
    type Output = Result<(), PutError<T>>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        let Put { message, shared } = self;
        let mut state = shared.lock();
        if state.closed {
            drop(state);
            done.complete(Err(PutError::Closed(message)));
        } else if let Some(taker) = state.takers.next() {
            drop(state);
            taker.complete(Ok(Message::new(message, &shared)));
            done.complete(Ok(()));
        } else if state.messages.len() < state.capacity {
            state.messages.push_back(message);
            drop(state);
            done.complete(Ok(()));
        } else {
            let joined = state.putters.join(done, message, shared.keep());
            drop(state);
            joined.watch::<_, _, T>(&shared);
        }
    }
}

impl<T: Send + 'static> Task for Take<T> {
    type Output = Result<Message<T>, Closed>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        Shared::take(&self.shared, done);
    }
}

impl<T: Send + 'static> Shared<T> {
    fn new(capacity: usize, name: Option<Name<Shared<T>>>) -> Shared<T> {
        let state = State {
            messages: VecDeque::new(),
            capacity: capacity.max(1),
            closed: false,
            takers: Waiters::default(),
            putters: Waiters::default(),
        };
        Shared { state: Mutex::new(state), name }
    }

    /// What [`Take`] does.
    pub(super) fn take(self: &Arc<Self>, done: Continuation<Result<Message<T>, Closed>>) {
        let mut state = self.lock();
        if let Some((message, putter)) = state.take() {
            drop(state);
            // The other one first: a panic of ours is not its fault.
            if let Some(putter) = putter {
                putter.complete(Ok(()));
            }
            done.complete(Ok(Message::new(message, self)));
        } else if state.closed {
            drop(state);
            done.complete(Err(Closed));
        } else {
            let joined = state.takers.join(done, (), self.keep());
            drop(state);
            joined.watch::<_, _, ()>(self);
        }
    }

    /// A message was not wanted.
    fn give_back(self: &Arc<Self>, message: T) {
        let mut state = self.lock();
        match state.takers.next() {
            Some(taker) => {
                drop(state);
                taker.complete(Ok(Message::new(message, self)));
            }
            None => state.messages.push_front(message),
        }
    }

    fn keep(self: &Arc<Self>) -> Option<Keep> {
        self.name.is_some().then(|| self.clone() as Keep)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

impl<T: Send + 'static> State<T> {
    /// The next message, and who has put one in its place: to be gone on with after the lock.
    #[expect(clippy::type_complexity, reason = "used twice, and read once")]
    fn take(&mut self) -> Option<(T, Option<Waiter<Result<(), PutError<T>>>>)> {
        let message = self.messages.pop_front()?;
        if self.messages.len() >= self.capacity {
            return Some((message, None));
        }
        let putter = self.putters.next().map(|putter| {
            let (putter, next) = putter.split();
            self.messages.push_back(next);
            putter
        });
        Some((message, putter))
    }
}

impl<T: Send + 'static> Place<Result<Message<T>, Closed>, ()> for Shared<T> {
    fn with_waiters<R>(&self, call: impl FnOnce(&mut Waiters<Result<Message<T>, Closed>>) -> R) -> R {
        call(&mut self.lock().takers)
    }
}

impl<T: Send + 'static> Place<Result<(), PutError<T>>, T> for Shared<T> {
    fn with_waiters<R>(&self, call: impl FnOnce(&mut Waiters<Result<(), PutError<T>>, T>) -> R) -> R {
        call(&mut self.lock().putters)
    }
}

impl<T: Send + 'static> Message<T> {
    fn new(value: T, queue: &Arc<Shared<T>>) -> Message<T> {
        Message { value: Some(value), queue: queue.clone() }
    }

    /// What it says. From here on it is its holder's.
    pub fn open(mut self) -> T {
        match self.value.take() {
            Some(value) => value,
            None => unreachable!("it is opened once, by value"),
        }
    }
}

impl<T: Send + 'static> Drop for Message<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.queue.give_back(value);
        }
    }
}

impl<T> PutError<T> {
    /// What could not be put.
    pub fn into_inner(self) -> T {
        match self {
            PutError::Full(message) | PutError::Closed(message) => message,
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue was closed")
    }
}

impl std::error::Error for Closed {}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutError::Full(_) => f.write_str("the queue is full"),
            PutError::Closed(_) => Closed.fmt(f),
        }
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutError::Full(_) => "Full(_)",
            PutError::Closed(_) => "Closed(_)",
        })
    }
}

impl<T> std::error::Error for PutError<T> {}

impl<T: Send + 'static> fmt::Debug for MessageQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("MessageQueue")
            .field("messages", &state.messages.len())
            .field("capacity", &state.capacity)
            .field("closed", &state.closed)
            .finish()
    }
}

impl<T: Send + fmt::Debug + 'static> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Message").field(&self.value).finish()
    }
}

impl<T: Send + 'static> fmt::Debug for Put<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> fmt::Debug for Take<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Take").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;
    use crate::task::WaitError;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn it_is_bounded_and_keeps_the_order_on_both_sides() {
        let runtime = Runtime::new().unwrap();
        let queue = MessageQueue::new(2);
        assert_eq!(queue.try_put(1), Ok(()));
        runtime.run(queue.put(2)).unwrap().unwrap();
        assert_eq!(queue.try_put(9), Err(PutError::Full(9)));
        let (three, four) = (runtime.spawn(queue.put(3)), runtime.spawn(queue.put(4)));
        assert_eq!(runtime.run(queue.take()).unwrap().unwrap().open(), 1);
        three.wait_for(LONG).unwrap().unwrap().unwrap();
        assert!(!four.is_done());
        assert_eq!(queue.try_take(), Some(2));
        four.wait_for(LONG).unwrap().unwrap().unwrap();
        assert_eq!((queue.try_take(), queue.try_take(), queue.try_take()), (Some(3), Some(4), None));
        let takers = [runtime.spawn(queue.take()), runtime.spawn(queue.take())];
        queue.try_put(5).unwrap();
        runtime.run(queue.put(6)).unwrap().unwrap();
        let taken = takers.map(|taker| taker.wait_for(LONG).unwrap().unwrap().unwrap().open());
        assert_eq!(taken, [5, 6]);
    }

    #[test]
    fn closing_tells_those_who_wait_and_loses_nothing() {
        let runtime = Runtime::new().unwrap();
        let queue = MessageQueue::new(1);
        let taker = runtime.spawn(queue.take());
        queue.close();
        assert_eq!(taker.wait_for(LONG).unwrap().unwrap().unwrap_err(), Closed);
        assert_eq!(queue.try_put(1), Err(PutError::Closed(1)));

        let queue = MessageQueue::new(1);
        queue.try_put(1).unwrap();
        let putter = runtime.spawn(queue.put(2));
        queue.close();
        assert_eq!(putter.wait_for(LONG).unwrap().unwrap(), Err(PutError::Closed(2)));
        assert_eq!(runtime.run(queue.put(3)).unwrap(), Err(PutError::Closed(3)));
        assert_eq!(runtime.run(queue.take()).unwrap().unwrap().open(), 1);
        assert_eq!(runtime.run(queue.take()).unwrap().unwrap_err(), Closed);
    }

    #[test]
    fn the_cancelled_get_nothing_and_what_reached_them_goes_back() {
        let runtime = Runtime::new().unwrap();
        let queue = MessageQueue::new(1);
        let (one, two, three) =
            (runtime.spawn(queue.take()), runtime.spawn(queue.take()), runtime.spawn(queue.take()));
        one.cancel();
        queue.try_put(1).unwrap();
        assert!(two.is_done() && !three.is_done());
        // It came, and nobody opened it.
        drop(two);
        assert_eq!(three.wait_for(LONG).unwrap().unwrap().unwrap().open(), 1);
        assert_eq!(one.wait_for(LONG).unwrap().unwrap_err(), WaitError::Dropped);

        queue.try_put(2).unwrap();
        let (never, later) = (runtime.spawn(queue.put(3)), runtime.spawn(queue.put(4)));
        let held = runtime.run(queue.take()).unwrap().unwrap();
        never.wait_for(LONG).unwrap().unwrap().unwrap();
        later.cancel();
        drop(held);
        assert_eq!((queue.try_take(), queue.try_take(), queue.try_take()), (Some(2), Some(3), None));
        let cut = runtime.spawn(queue.take());
        drop(runtime);
        assert!(cut.is_done());
    }

    #[test]
    fn a_name_is_one_queue_while_it_is_used() {
        let runtime = Runtime::new().unwrap();
        let core = runtime.handle();
        let taker = runtime.spawn(MessageQueue::<u32>::named(&core, "q", 1).take());
        MessageQueue::<u32>::named(&core, "q", 1).try_put(7).unwrap();
        assert_eq!(taker.wait_for(LONG).unwrap().unwrap().unwrap().open(), 7);
        assert_eq!(core.extension::<Names<Shared<u32>>>().len(), 0);
        assert!(MessageQueue::<u64>::named(&core, "q", 1).is_empty(), "another type, another queue");
    }
}
