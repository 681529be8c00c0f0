//! What is ready to go on, and the flat loop that has it go on.
//!
//! A thread that completes something calls [`ready`]. Where no loop runs on it yet, that call becomes the loop;
//! from within the loop, the work gets in line. So however long a chain of work is, the stack stays where it is. On a
//! poller's thread nothing runs inside a session's call: what gets ready there waits for [`run_in_line`], which the
//! poller calls once a turn.
//!
//! Knows nothing of tasks: work is anything with [`Work::run`].

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Something that is ready to go on.
pub(crate) trait Work: Send {
    /// Goes on. May make other work ready, and must not block. A panic is logged, and ends no thread.
    fn run(self: Box<Self>);
}

thread_local! {
    static LINE: Line = const { Line { running: Cell::new(false), waiting: RefCell::new(VecDeque::new()) } };
}

/// What is ready on this thread.
struct Line {
    /// A loop runs, or the poller calls one later.
    running: Cell<bool>,
    waiting: RefCell<VecDeque<Box<dyn Work>>>,
}

/// Has `work` go on on this thread: at once where nothing goes on yet, else in its turn.
pub(crate) fn ready(work: Box<dyn Work>) {
    let mut work = Some(work);
    let taken = LINE.try_with(|line| {
        if let Some(work) = work.take() {
            line.waiting.borrow_mut().push_back(work);
        }
        if !line.running.replace(true) {
            let _reset = Reset(line);
            while line.run_next() {}
        }
    });
    // The thread is ending, and its line is gone already.
    if let (Err(_), Some(work)) = (taken, work) {
        run(work);
    }
}

/// Has this thread's work wait for [`run_in_line`] from now on, or no longer.
pub(crate) fn defer(deferred: bool) {
    LINE.with(|line| line.running.set(deferred));
}

/// Runs what is in line, at most `max` pieces. Says whether some is left.
pub(crate) fn run_in_line(max: usize) -> bool {
    LINE.with(|line| {
        for _ in 0..max {
            if !line.run_next() {
                return false;
            }
        }
        !line.waiting.borrow().is_empty()
    })
}

/// Whether nothing waits on this thread: what the work that runs leaves for its thread is done right after it.
pub(crate) fn is_line_empty() -> bool {
    LINE.try_with(|line| line.waiting.borrow().is_empty()).unwrap_or(true)
}

impl Line {
    fn run_next(&self) -> bool {
        // The borrow ends before the work runs.
        let next = self.waiting.borrow_mut().pop_front();
        match next {
            Some(work) => {
                run(work);
                true
            }
            None => false,
        }
    }
}

/// What was in line when a loop ended by a panic that could not be caught stays there for the next.
struct Reset<'a>(&'a Line);

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
    }
}

fn run(work: Box<dyn Work>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work.run())) {
        log::error!("a task or a callback panicked: {}", panic_message(&*payload));
    }
}

/// What a panic said, where it said it in words.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use super::*;

    struct Chain(u32, Sender<u32>);

    impl Work for Chain {
        fn run(mut self: Box<Self>) {
            match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    ready(self);
                }
                None => self.1.send(0).unwrap(),
            }
        }
    }

    struct Panics;

    impl Work for Panics {
        fn run(self: Box<Self>) {
            panic!("as planned");
        }
    }

    #[test]
    fn a_long_chain_uses_constant_stack() {
        let (done, ended) = mpsc::channel();
        let chain = move || ready(Box::new(Chain(1_000_000, done)));
        std::thread::Builder::new().stack_size(64 * 1024).spawn(chain).unwrap().join().unwrap();
        assert_eq!(ended.recv(), Ok(0));
    }

    #[test]
    fn a_panic_takes_nothing_with_it() {
        ready(Box::new(Panics));
        let (done, ended) = mpsc::channel();
        ready(Box::new(Chain(1, done)));
        assert_eq!(ended.recv(), Ok(0));
    }

    #[test]
    fn deferred_work_waits_and_takes_turns() {
        std::thread::spawn(|| {
            defer(true);
            let (done, ended) = mpsc::channel();
            ready(Box::new(Chain(3, done.clone())));
            ready(Box::new(Chain(0, done)));
            assert!(ended.try_recv().is_err());
            assert!(run_in_line(2), "the long one is not done");
            assert_eq!(ended.try_recv(), Ok(0), "the short one did not wait for it");
            assert!(!run_in_line(100));
            assert_eq!(ended.try_recv(), Ok(0));
        })
        .join()
        .unwrap();
    }
}
