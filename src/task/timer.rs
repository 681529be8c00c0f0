//! Waiting for a moment.

use std::time::Duration;

use tidegate_poller::{Moment, sys};

use super::Task;
use super::continuation::Continuation;
use crate::runtime::work::Receive;

/// Done after so long.
pub fn sleep(time: Duration) -> Sleep {
    Sleep { when: When::After(time) }
}

/// Done at a moment; at once if that has passed.
pub fn sleep_until(moment: Moment) -> Sleep {
    Sleep { when: When::At(moment) }
}

/// See [`sleep`] and [`sleep_until`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct Sleep {
    when: When,
}

#[derive(Clone, Copy, Debug)]
enum When {
    After(Duration),
    At(Moment),
}

impl Sleep {
    /// When it is due, if it is started now.
    pub(super) fn due(&self) -> Moment {
        match self.when {
            When::After(time) => sys::now() + time,
            When::At(moment) => moment,
        }
    }
}

impl Task for Sleep {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        let at = self.due();
        let runtime = done.runtime().clone();
        if done.can_be_cancelled() {
            let mut done = done;
            let cancellation = done.cancellation();
            let timer = runtime.start_keyed_timer(at, Box::new(Fire(done)));
            cancellation.on_cancel(move || runtime.cancel_timer(timer));
        } else {
            runtime.start_timer(at, done.into_ready());
        }
    }
}

/// A timer that can be cancelled until it is due.
struct Fire(Continuation<()>);

impl Receive<()> for Fire {
    fn receive(self: Box<Self>, (): ()) {
        self.0.complete(());
    }
}
