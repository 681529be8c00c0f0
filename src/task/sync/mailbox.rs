//! Mailboxes.

use std::fmt;
use std::sync::Arc;

use super::map::map;
use super::names::Names;
use super::queue::{Message, MessageQueue, Shared};
use crate::runtime::RuntimeHandle;
use crate::task::{Continuation, Task};

/// Room for one value, to be handed to a task that waits for it. A clone is the same mailbox.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Mailbox, Series};
///
/// let runtime = Runtime::new()?;
/// let mailbox = Mailbox::new();
/// let series = Series::new(String::new()).then(mailbox.receive(), |letter, series| {
///     series.context = letter.open();
///     Ok(())
/// });
/// let series = runtime.start(series);
/// mailbox.send(String::from("from anywhere")).expect("it was empty");
/// assert_eq!(series.wait()?.context, "from anywhere");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mailbox<T: Send + 'static> {
    queue: MessageQueue<T>,
}

impl<T: Send + 'static> Mailbox<T> {
    /// An empty one.
    pub fn new() -> Mailbox<T> {
        Mailbox { queue: MessageQueue::new(1) }
    }

    /// The one that has this name in a runtime, for values of this type. It lives while somebody has a clone, or waits: what
    /// is sent to a name that nobody has is dropped with it.
    pub fn named(runtime: &RuntimeHandle, name: &str) -> Mailbox<T> {
        Mailbox { queue: MessageQueue::named_in(&runtime.extension::<Mailboxes<T>>().0, name, 1) }
    }

    /// Hands over a value to the one that has waited longest, or keeps it for the next to come. If there is one
    /// already, gives it back.
    pub fn send(&self, value: T) -> Result<(), T> {
        self.queue.try_put(value).map_err(|error| error.into_inner())
    }

    /// Waits for a value.
    pub fn receive(&self) -> Receive<T> {
        Receive { queue: self.queue.clone() }
    }

    /// Takes the value, if there is one.
    pub fn try_receive(&self) -> Option<T> {
        self.queue.try_take()
    }
}

/// The names of mailboxes: apart from those of queues.
struct Mailboxes<T: Send + 'static>(Arc<Names<Shared<T>>>);

impl<T: Send + 'static> Default for Mailboxes<T> {
    fn default() -> Mailboxes<T> {
        Mailboxes(Arc::default())
    }
}

impl<T: Send + 'static> Default for Mailbox<T> {
    fn default() -> Mailbox<T> {
        Mailbox::new()
    }
}

impl<T: Send + 'static> Clone for Mailbox<T> {
    fn clone(&self) -> Mailbox<T> {
        Mailbox { queue: self.queue.clone() }
    }
}

impl<T: Send + 'static> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// See [`Mailbox::receive`].
#[must_use = "a task does nothing until it is started"]
pub struct Receive<T: Send + 'static> {
    queue: MessageQueue<T>,
}

impl<T: Send + 'static> Task for Receive<T> {
    type Output = Message<T>;

    fn dispatch(self, done: Continuation<Message<T>>) {
        // It is never closed.
        self.queue.shared().take(map(done, Result::ok));
    }
}

impl<T: Send + 'static> fmt::Debug for Receive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receive").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn one_value_at_a_time() {
        let runtime = Runtime::new().unwrap();
        let mailbox = Mailbox::new();
        let (one, two) = (runtime.spawn(mailbox.receive()), runtime.spawn(mailbox.receive()));
        mailbox.send(1).unwrap();
        assert_eq!(one.wait_for(LONG).unwrap().unwrap().open(), 1);
        two.cancel();
        mailbox.send(2).unwrap();
        assert_eq!(mailbox.send(3), Err(3));
        assert_eq!(runtime.run(mailbox.receive()).unwrap().open(), 2);
        assert_eq!(mailbox.try_receive(), None);
        let cut = runtime.spawn(mailbox.receive());
        drop(runtime);
        assert!(cut.is_done());
    }

    #[test]
    fn by_name_it_reaches_who_waits() {
        let runtime = Runtime::new().unwrap();
        let core = runtime.handle();
        let waits = runtime.spawn(Mailbox::<&str>::named(&core, "m").receive());
        Mailbox::named(&core, "m").send("a").unwrap();
        assert_eq!(waits.wait_for(LONG).unwrap().unwrap().open(), "a");
        assert_eq!(core.extension::<Mailboxes<&str>>().0.len(), 0);
    }
}
