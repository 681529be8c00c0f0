//! When outlets are looked at for a heartbeat: one timer for all of a poller that are to have one equally often.
//!
//! A timer of its own costs an outlet more memory than its place in a line here, and there are thousands of outlets. Driven
//! on the poller's thread, by the shell of the outlets and by the timer. It keeps no outlet alive.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tidegate_poller::{Moment, sys};

use crate::runtime::work::{Later, Ready};
use crate::runtime::{RuntimeHandle, WeakRuntime};
use crate::sse::outlet::Outlet;

/// Outlets looked at in one turn: each then writes, which takes some 10 µs. Other sockets wait for no more than that.
const LOOKS_MAX: usize = 256;
/// So many that have left are not worth looking for.
const GONE_KEPT: usize = 64;

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Those of one runtime that are to have a heartbeat equally often.
struct Line {
    runtime: WeakRuntime,
    every: Duration,
    waiting: Waiting<Outlet>,
    /// The timer that counts; one that was started for later finds nothing to do.
    wakes_at: Option<Moment>,
}

/// Has an outlet looked at when its heartbeat may be due, until it is gone.
pub(super) fn start(outlet: &Arc<Outlet>, runtime: &RuntimeHandle, every: Duration) {
    let due = sys::now() + every;
    with_line(runtime, every, |line| line.waiting.add(due, Arc::downgrade(outlet)));
}

/// An outlet is about to go.
pub(super) fn left(runtime: &RuntimeHandle, every: Duration) {
    with_line(runtime, every, |line| line.waiting.one_has_left());
}

fn with_line<R>(runtime: &RuntimeHandle, every: Duration, call: impl FnOnce(&mut Line) -> R) -> R {
    let (made, wake_at) = LINES.with_borrow_mut(|lines| {
        // One whose timer is still to come stays for it: clients that come and go alone would start one each.
        let is_of_use = |line: &Line| !line.waiting.is_empty() || line.wakes_at.is_some();
        lines.retain(|line| is_of_use(line) && line.runtime.upgrade().is_some());
        let is_it =
            |line: &Line| line.every == every && line.runtime.upgrade().is_some_and(|of| of.is(runtime));
        let at = lines.iter().position(is_it).unwrap_or_else(|| {
            let (runtime, waiting) = (runtime.downgrade(), Waiting::default());
            lines.push(Line { runtime, every, waiting, wakes_at: None });
            lines.len() - 1
        });
        let line = &mut lines[at];
        let made = call(line);
        let next = line.waiting.next().filter(|next| line.wakes_at.is_none_or(|at| *next < at));
        line.wakes_at = next.or(line.wakes_at);
        (made, next)
    });
    if let Some(at) = wake_at {
        runtime.start_timer(at, Ready::Work(Box::new(Later(move || fire(every, at)))));
    }
    made
}

/// The timer that was started for `at` has come due.
fn fire(every: Duration, at: Moment) {
    let Some(runtime) = RuntimeHandle::of_poller() else { return };
    let now = sys::now();
    let due = LINES.with_borrow_mut(|lines| {
        let is_it = |line: &&mut Line| {
            line.every == every
                && line.wakes_at == Some(at)
                && line.runtime.upgrade().is_some_and(|of| of.is(&runtime))
        };
        let line = lines.iter_mut().find(is_it)?;
        line.wakes_at = None;
        Some(line.waiting.take_due(now, LOOKS_MAX))
    });
    let Some(mut due) = due else { return };
    // With nothing borrowed: an outlet that is woken here may be let go of here.
    due.retain_mut(|(next, outlet)| {
        let Some(outlet) = outlet.upgrade() else { return false };
        *next = outlet.lock().heartbeat(every, now);
        if *next == now + every {
            outlet.wake();
        }
        true
    });
    with_line(&runtime, every, |line| {
        due.into_iter().for_each(|(next, outlet)| line.waiting.add(next, outlet));
    });
}

/// What waits for its moment, the earliest first. Pure.
struct Waiting<T> {
    heap: BinaryHeap<Entry<T>>,
    /// Of those, how many are known to be no more.
    gone: usize,
}

struct Entry<T>(Moment, Weak<T>);

impl<T> Default for Waiting<T> {
    fn default() -> Waiting<T> {
        Waiting { heap: BinaryHeap::new(), gone: 0 }
    }
}

impl<T> Waiting<T> {
    fn add(&mut self, due: Moment, what: Weak<T>) {
        self.heap.push(Entry(due, what));
    }

    fn next(&self) -> Option<Moment> {
        self.heap.peek().map(|entry| entry.0)
    }

    fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn take_due(&mut self, now: Moment, most: usize) -> Vec<(Moment, Weak<T>)> {
        let mut due = Vec::new();
        while due.len() < most && self.next().is_some_and(|next| next <= now) {
            let Some(Entry(at, what)) = self.heap.pop() else { break };
            self.gone -= usize::from(self.gone > 0 && what.strong_count() == 0);
            due.push((at, what));
        }
        due
    }

    /// Clients that come and go do not fill it: once half of it is gone, it is tidied up.
    fn one_has_left(&mut self) {
        self.gone += 1;
        if self.gone > GONE_KEPT.max(self.heap.len() / 2) {
            self.heap.retain(|entry| entry.1.strong_count() > 0);
            self.heap.shrink_to(2 * self.heap.len());
            self.gone = 0;
        }
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        // The earliest is the greatest.
        other.0.cmp(&self.0)
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tidegate_poller::Poller;

    use super::*;
    use crate::runtime::Runtime;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn the_earliest_come_first_and_no_more_than_a_turn_takes() {
        let mut waiting = Waiting::default();
        let outlets: Vec<_> = (1..=9).map(Arc::new).collect();
        for outlet in outlets.iter().rev() {
            waiting.add(at(**outlet), Arc::downgrade(outlet));
        }
        assert_eq!(waiting.next(), Some(at(1)));
        let numbers = |due: Vec<(Moment, Weak<u64>)>| -> Vec<u64> {
            due.iter().map(|(_, outlet)| *outlet.upgrade().unwrap()).collect()
        };
        assert_eq!(numbers(waiting.take_due(at(5), 3)), [1, 2, 3]);
        assert_eq!(numbers(waiting.take_due(at(5), 3)), [4, 5]);
        assert_eq!((numbers(waiting.take_due(at(5), 3)), waiting.next()), (vec![], Some(at(6))));
    }

    #[test]
    fn clients_that_come_and_go_at_once_do_not_fill_it() {
        let mut waiting = Waiting::default();
        let stays = Arc::new(0);
        waiting.add(at(1), Arc::downgrade(&stays));
        for n in 0..100_000 {
            let goes = Arc::new(n);
            waiting.add(at(2), Arc::downgrade(&goes));
            drop(goes);
            waiting.one_has_left();
            assert!(waiting.heap.len() <= 2 * GONE_KEPT + 2, "{}", waiting.heap.len());
        }
        let due = waiting.take_due(at(3), usize::MAX);
        assert_eq!(due.iter().filter(|(_, outlet)| outlet.strong_count() > 0).count(), 1);
    }

    #[test]
    fn clients_that_come_and_go_alone_start_no_timer_each() {
        let runtime = Runtime::builder().pollers(1).build().unwrap();
        let (tell, told) = mpsc::channel();
        let look = move |_: &mut Poller| {
            let handle = RuntimeHandle::of_poller().unwrap();
            let every = Duration::from_secs(3_600);
            let mut wakes = Vec::new();
            for _ in 0..1_000 {
                let outlet = Outlet::new(Arc::default());
                start(&outlet, &handle, every);
                drop(outlet);
                left(&handle, every);
                wakes.push(
                    LINES.with_borrow(|lines| lines.iter().map(|line| line.wakes_at).collect::<Vec<_>>()),
                );
            }
            wakes.dedup();
            tell.send(wakes).unwrap();
        };
        runtime.handle().submit_to(0, Box::new(look));
        let wakes = told.recv().unwrap();
        assert!(wakes.len() == 1 && wakes[0].len() == 1, "{wakes:?}");
    }
}
