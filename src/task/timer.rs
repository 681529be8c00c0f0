//! Waiting for a moment.

use std::time::Duration;

use tidegate_poller::{Moment, sys};

use super::Task;
use super::continuation::Continuation;
use crate::runtime::work::Receive;

/// Done after so long.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tidegate::runtime::Runtime;
/// use tidegate::task::sleep;
///
/// let runtime = Runtime::new()?;
/// let began = Instant::now();
/// runtime.run(sleep(Duration::from_millis(5)))?;
/// assert!(began.elapsed() >= Duration::from_millis(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sleep(time: Duration) -> Sleep {
    Sleep { when: When::After(time) }
}

/// Done at a moment; at once if that has passed.
///
/// ```
/// use std::time::Duration;
/// use tidegate::poller::sys;
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Series, sleep_until};
///
/// let runtime = Runtime::new()?;
/// // Each a tenth of a second after the other, however long the callbacks take.
/// let began = sys::now();
/// let mut series = Series::new(0);
/// for n in 1..=3 {
///     series.push(sleep_until(began + n * Duration::from_millis(100)), |(), series| {
///         series.context += 1;
///         Ok(())
///     });
/// }
/// assert_eq!(runtime.run(series)?.into_result()?, 3);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
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
