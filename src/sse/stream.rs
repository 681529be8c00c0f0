//! One client's own stream, written by tasks: for what is made for it alone, as the tokens of a model are.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_poller::sys;

use crate::http::body::ReaderGone;
use crate::http::{Reply, StreamBody};
use crate::runtime::RuntimeHandle;
use crate::sse::Event;
use crate::sse::delivery::Delivery;
use crate::sse::encoded::Encoded;
use crate::sse::outlet::Outlet;
use crate::sse::queue::{Bound, Policy};
use crate::sse::reply::stream_reply;
use crate::sse::source::{OutletSource, Owner};
use crate::sse::waiting::Waiting;
use crate::task::{Continuation, Parked, Task};

/// A stream to be written by tasks, and the reply that carries it. At most `capacity` events wait between the two.
///
/// ```no_run
/// use tidegate::http::Exchange;
/// use tidegate::runtime::RuntimeHandle;
/// use tidegate::sse::{Event, stream};
/// use tidegate::task::Series;
///
/// fn tokens(exchange: &mut Exchange) {
///     let (writer, reply) = stream(16);
///     exchange.context.reply = reply;
///     let first = writer.send(&Event::data("Once"));
///     let series = Series::new(writer).then(first, |sent, series| {
///         sent?; // An error: the client has left, and the series ends here.
///         series.push(series.context.send(&Event::data(" upon a time")), |sent, _| Ok(sent?));
///         Ok(())
///     });
///     if let Some(runtime) = RuntimeHandle::of_poller() {
///         runtime.start(series).detach();
///     }
/// }
/// ```
pub fn stream(capacity: usize) -> (EventWriter, Reply) {
    let bound = Bound { events: capacity.max(1), bytes: usize::MAX };
    stream_with(Delivery { bound, ..Delivery::default() })
}

/// The same, delivered as told. The policy does not matter: whoever writes waits.
pub fn stream_with(delivery: Delivery) -> (EventWriter, Reply) {
    let delivery = Delivery { policy: Policy::Block, conflate_after: None, ..delivery };
    let outlet = Outlet::new(Arc::new(delivery));
    let desk = Arc::<Desk>::default();
    let source = OutletSource::new(outlet.clone(), Reader { desk: desk.clone(), outlet: outlet.clone() });
    (EventWriter { outlet, desk }, stream_reply(StreamBody::new(source)))
}

type Given = Result<(), ReaderGone>;

/// Writes a client's stream, from any thread. Dropped before it has [finished](EventWriter::finish), it ends the stream all
/// the same: a client that wants more connects again.
pub struct EventWriter {
    outlet: Arc<Outlet>,
    desk: Arc<Desk>,
}

/// Where the writer's tasks wait. Its lock is taken before the outlet's.
#[derive(Default)]
struct Desk(Mutex<Places>);

#[derive(Default)]
struct Places {
    writers: Waiting<Given, Arc<Encoded>>,
    watchers: Vec<Parked<()>>,
    reader_gone: bool,
}

impl EventWriter {
    /// Writes an event, once there is room. Tasks that wait do so in their order.
    pub fn send(&self, event: &Event) -> SendEvent {
        SendEvent {
            outlet: self.outlet.clone(),
            desk: self.desk.clone(),
            event: Arc::new(Encoded::new(event)),
        }
    }

    /// Writes an event if there is room; false: there is none.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn try_send(&self, event: &Event) -> Result<bool, ReaderGone> {
        let waiting = self.desk.lock();
        if waiting.reader_gone {
            return Err(ReaderGone);
        }
        if !waiting.writers.is_empty() {
            return Ok(false);
        }
        let written = push(&self.outlet, &Arc::new(Encoded::new(event)));
        drop(waiting);
        wake_if(&self.outlet, written == Some(true));
        Ok(written.is_some())
    }

    /// That was all. What waits to go still does.
    pub fn finish(self) {}

    /// Whether the client has left, or the stream was never sent.
    pub fn is_closed(&self) -> bool {
        self.desk.lock().reader_gone
    }

    /// Waits until the client has left, or has it all: for whoever makes events, to stop at once.
    pub fn closed(&self) -> Closed {
        Closed { desk: self.desk.clone() }
    }
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        self.outlet.finish(None);
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has those go on for whose events there is room.
    fn serve(&self, outlet: &Outlet) {
        let (mut served, mut wake) = (Vec::new(), false);
        let mut waiting = self.lock();
        while let Some((writer, event)) = waiting.writers.front() {
            // Who was cancelled writes nothing.
            if writer.is_waiting() {
                let Some(wakes) = push(outlet, event) else { break };
                wake |= wakes;
            }
            served.extend(waiting.writers.pop());
        }
        drop(waiting);
        wake_if(outlet, wake);
        for (writer, _) in served {
            let _ = writer.complete(Ok(()));
        }
    }
}

/// Adds an event if there is room, and says whether the session has to be woken. `None`: there is none.
fn push(outlet: &Outlet, event: &Arc<Encoded>) -> Option<bool> {
    let mut state = outlet.lock();
    if !state.has_room(event, &outlet.delivery) {
        // Asks to be told.
        state.is_full = true;
        return None;
    }
    Some(state.push(event, &outlet.delivery, sys::now()).wake)
}

fn wake_if(outlet: &Outlet, wake: bool) {
    if let Some(waker) = outlet.waker.get().filter(|_| wake) {
        waker.wake();
    }
}

/// The other end.
struct Reader {
    desk: Arc<Desk>,
    outlet: Arc<Outlet>,
}

impl Owner for Reader {
    fn attached(&mut self, _: &Arc<Outlet>, _: &RuntimeHandle) -> bool {
        true
    }

    fn went(&self, _: u64, _: u64) {}

    fn has_room(&self) {
        self.desk.serve(&self.outlet);
    }

    fn shut_down(&self, outlet: &Arc<Outlet>) {
        outlet.finish(None);
    }

    fn left(&mut self, _: &Outlet) {
        let mut waiting = self.desk.lock();
        waiting.reader_gone = true;
        let (writers, watchers) =
            (std::mem::take(&mut waiting.writers), std::mem::take(&mut waiting.watchers));
        drop(waiting);
        for (writer, _) in writers {
            let _ = writer.complete(Err(ReaderGone));
        }
        for watcher in watchers {
            let _ = watcher.complete(());
        }
    }
}

/// See [`EventWriter::send`].
#[must_use = "a task does nothing until it is started"]
pub struct SendEvent {
    outlet: Arc<Outlet>,
    desk: Arc<Desk>,
    event: Arc<Encoded>,
}

impl Task for SendEvent {
    type Output = Given;

    fn dispatch(self, done: Continuation<Given>) {
        // Before the lock: one that is cancelled already is dropped here.
        let done = done.park();
        let mut waiting = self.desk.lock();
        let gone = waiting.reader_gone;
        let written = match gone || !waiting.writers.is_empty() {
            true => None,
            false => push(&self.outlet, &self.event),
        };
        if !gone && written.is_none() {
            waiting.writers.push(done, self.event);
            return;
        }
        drop(waiting);
        wake_if(&self.outlet, written == Some(true));
        let _ = done.complete(if gone { Err(ReaderGone) } else { Ok(()) });
    }
}

/// See [`EventWriter::closed`].
#[must_use = "a task does nothing until it is started"]
pub struct Closed {
    desk: Arc<Desk>,
}

impl Task for Closed {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        let done = done.park();
        let mut waiting = self.desk.lock();
        if waiting.reader_gone {
            drop(waiting);
            let _ = done.complete(());
            return;
        }
        waiting.watchers.retain(Parked::is_waiting);
        waiting.watchers.push(done);
    }
}

impl fmt::Debug for EventWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventWriter").finish_non_exhaustive()
    }
}

impl fmt::Debug for SendEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendEvent").finish_non_exhaustive()
    }
}

impl fmt::Debug for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closed").finish_non_exhaustive()
    }
}
