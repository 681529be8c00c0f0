//! What is ready to go on, and the flat loop that has it go on.
//!
//! A thread that completes something calls [`give`]. Where no loop runs on it yet, that call becomes the loop;
//! from within the loop, the work gets in line. So however long a chain of work is, the stack stays where it is. On a
//! poller's thread nothing runs inside a session's call: what gets ready there waits for [`run_in_line`], which the
//! poller calls once a turn.
//!
//! Knows nothing of tasks: work is anything that receives a result, or nothing ([`Work`]).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::sync::thread_local;

/// Something that goes on with a result.
pub(crate) trait Receive<O>: Send {
    /// Goes on. May make other work ready, and must not block. A panic is logged, and ends no thread.
    fn receive(self: Box<Self>, output: O);
}

/// Something that goes on.
pub(crate) type Work = dyn Receive<()>;

/// What several tasks report to, each by its number.
pub(crate) trait Deliver<O>: Send + Sync {
    /// A task is over, `None` without a result. Called once for each. Without a result it may be called while a stack
    /// unwinds: it then must not call user code.
    fn deliver(&self, index: u32, output: Option<O>);
}

/// The place of one of several tasks in what they report to: a million of them are a million of these, and not as many
/// boxes. Dropped, it reports that nothing came.
pub(crate) struct Place<O> {
    to: Arc<dyn Deliver<O>>,
    index: u32,
    filled: bool,
}

// A timer that nobody can cancel is little more. An `Option` in place of `filled` would make it a third bigger.
const _: () = assert!(size_of::<Option<Ready>>() == 24);

impl<O> Place<O> {
    pub(crate) fn new(to: Arc<dyn Deliver<O>>, index: u32) -> Place<O> {
        Place { to, index, filled: false }
    }

    /// Reports a result.
    pub(crate) fn fill(mut self, output: O) {
        self.filled = true;
        self.to.deliver(self.index, Some(output));
    }
}

impl<O> Drop for Place<O> {
    fn drop(&mut self) {
        if !self.filled {
            self.to.deliver(self.index, None);
        }
    }
}

/// What is ready to go on.
pub(crate) enum Ready {
    Work(Box<Work>),
    Place(Place<()>),
}

impl Ready {
    fn go_on(self) {
        match self {
            Ready::Work(work) => work.receive(()),
            Ready::Place(place) => place.fill(()),
        }
    }
}

/// A call to be made later.
pub(crate) struct Later<F>(pub(crate) F);

impl<F: FnOnce() + Send> Receive<()> for Later<F> {
    fn receive(self: Box<Self>, (): ()) {
        (self.0)();
    }
}

thread_local! {
    static NESTED: Cell<u32> = const { Cell::new(0) };
    static LINE: Line = const {
        Line {
            running: Cell::new(false),
            direct: Cell::new(NOBODY),
            front: Cell::new(None),
            waiting: RefCell::new(VecDeque::new()),
            len: Cell::new(0),
            at_work: Cell::new(false),
            when_done: Cell::new(None),
        }
    };
}

/// What is ready on this thread.
struct Line {
    /// A loop runs, or the poller calls one later.
    running: Cell<bool>,
    /// The address of the receiver that the loop has just handed out: what is given to it now nests in nothing else.
    direct: Cell<usize>,
    /// The one in front, if nothing was in line when it came: a series that goes from task to task never uses the queue.
    front: Cell<Option<Ready>>,
    waiting: RefCell<VecDeque<Ready>>,
    /// How many are in line, the one in front included.
    len: Cell<usize>,
    /// A piece of work runs, called by the loop.
    at_work: Cell<bool>,
    /// To be called when the piece of work that runs has run.
    when_done: Cell<Option<fn()>>,
}

/// Has `work` go on on this thread: at once where nothing goes on yet, else in its turn.
pub(crate) fn ready(work: Box<Work>) {
    go(Ready::Work(work));
}

/// The same, of whatever is ready.
pub(crate) fn go(work: Ready) {
    let mut work = Some(work);
    let taken = LINE.try_with(|line| {
        if let Some(work) = work.take() {
            line.push(work);
        }
        line.run();
    });
    // The thread is ending, and its line is gone already.
    if let (Err(_), Some(work)) = (taken, work) {
        run(|| work.go_on());
    }
}

/// Gives `output` to `receiver` on this thread: at once where that nests in nothing, else in its turn.
pub(crate) fn give<O: Send + 'static>(receiver: Box<dyn Receive<O>>, output: O) {
    let mut given = Some((receiver, output));
    let taken = LINE.try_with(|line| {
        let Some((receiver, output)) = given.take() else { return };
        if line.direct.replace(NOBODY) == address_of(&*receiver) {
            // The loop catches its panic.
            receiver.receive(output);
        } else if line.running.get() {
            line.push(Ready::Work(Box::new(Given { receiver, output })));
        } else {
            line.running.set(true);
            let _reset = Reset(line);
            line.at_work.set(true);
            run(|| receiver.receive(output));
            line.done();
            line.run_all();
            line.at_work.set(false);
        }
    });
    if let (Err(_), Some((receiver, output))) = (taken, given) {
        run(|| receiver.receive(output));
    }
}

/// The same, to one of several. It is never given directly: what comes of it waits until all have started.
pub(crate) fn fill<O: Send + 'static>(place: Place<O>, output: O) {
    let mut given = Some((place, output));
    let taken = LINE.try_with(|line| {
        let Some((place, output)) = given.take() else { return };
        line.direct.set(NOBODY);
        if line.running.get() {
            line.push(Ready::Work(Box::new(Filled { place, output })));
        } else {
            line.running.set(true);
            let _reset = Reset(line);
            line.at_work.set(true);
            run(|| place.fill(output));
            line.done();
            line.run_all();
            line.at_work.set(false);
        }
    });
    if let (Err(_), Some((place, output))) = (taken, given) {
        run(|| place.fill(output));
    }
}

/// Calls `start` with `receiver`, straight from the loop: what is given to it before `start` returns needs no place in
/// line. It does if something else is given something first: that one's panic would end this receiver too.
pub(crate) fn start_directly<R: ?Sized>(receiver: Box<R>, start: impl FnOnce(Box<R>)) {
    let address = address_of(&*receiver);
    let _ = LINE.try_with(|line| line.direct.set(if line.running.get() { address } else { NOBODY }));
    start(receiver);
    let _ = LINE.try_with(|line| line.direct.set(NOBODY));
}

/// No receiver's address.
const NOBODY: usize = 0;

fn address_of<R: ?Sized>(receiver: &R) -> usize {
    std::ptr::from_ref(receiver).addr()
}

/// Has this thread's work wait for [`run_in_line`] from now on, or no longer.
pub(crate) fn defer(deferred: bool) {
    LINE.with(|line| line.running.set(deferred));
}

/// Has `call` called when the piece of work that runs has run. `false`: none runs on this thread.
pub(crate) fn when_done(call: fn()) -> bool {
    let set = |line: &Line| line.at_work.get().then(|| line.when_done.set(Some(call)));
    LINE.try_with(set).ok().flatten().is_some()
}

/// Runs what is in line, at most `max` pieces. Says whether some is left.
pub(crate) fn run_in_line(max: usize) -> bool {
    LINE.with(|line| {
        for _ in 0..max {
            if !line.run_next() {
                return false;
            }
        }
        line.len.get() > 0
    })
}

/// Whether nothing waits on this thread: what the work that runs leaves for its thread is done right after it.
pub(crate) fn is_line_empty() -> bool {
    LINE.try_with(|line| line.len.get() == 0).unwrap_or(true)
}

/// How deep what starts may nest, a task within a task within a task. Each level takes about half a kilobyte of stack, or
/// two where nothing is optimized.
const NESTED_MAX: u32 = 16;

/// A level of what starts within what starts.
pub(crate) struct Nested(());

impl Nested {
    /// One level down, until it is dropped. `None`: that is too deep; what starts is to get [`ready`] instead.
    pub(crate) fn enter() -> Option<Nested> {
        let enter = |nested: &Cell<u32>| {
            let entered = nested.get() < NESTED_MAX;
            entered.then(|| nested.set(nested.get() + 1))
        };
        NESTED.try_with(enter).ok().flatten().map(|()| Nested(()))
    }
}

/// How deep a series may go on from task to task before it takes its turn in line.
const GO_ON_MAX: u32 = 4;

/// A level for a series to go on at once, where nobody waits for his turn; as [`Nested::enter`].
pub(crate) fn go_on() -> Option<Nested> {
    let alone = |line: &Line| line.at_work.get() && line.len.get() == 0;
    let enter = |nested: &Cell<u32>| {
        let entered = nested.get() < GO_ON_MAX;
        entered.then(|| nested.set(nested.get() + 1))
    };
    LINE.try_with(alone).ok().filter(|alone| *alone)?;
    NESTED.try_with(enter).ok().flatten().map(|()| Nested(()))
}

impl Drop for Nested {
    fn drop(&mut self) {
        let _ = NESTED.try_with(|nested| nested.set(nested.get() - 1));
    }
}

impl Line {
    fn push(&self, work: Ready) {
        match self.len.replace(self.len.get() + 1) {
            0 => self.front.set(Some(work)),
            _ => self.waiting.borrow_mut().push_back(work),
        }
    }

    /// The oldest. Nothing is borrowed when it runs.
    fn pop(&self) -> Option<Ready> {
        let left = self.len.get().checked_sub(1)?;
        self.len.set(left);
        match self.front.take() {
            Some(work) => Some(work),
            None => self.waiting.borrow_mut().pop_front(),
        }
    }

    fn run(&self) {
        if !self.running.replace(true) {
            let _reset = Reset(self);
            self.at_work.set(true);
            self.run_all();
            self.at_work.set(false);
        }
    }

    fn run_all(&self) {
        // What a panic leaves is run after it.
        while self.len.get() > 0 {
            run(|| {
                while let Some(work) = self.pop() {
                    work.go_on();
                    self.done();
                }
            });
            self.direct.set(NOBODY);
            self.done();
        }
    }

    fn done(&self) {
        if let Some(call) = self.when_done.take() {
            call();
        }
    }

    fn run_next(&self) -> bool {
        match self.pop() {
            Some(work) => {
                self.at_work.set(true);
                run(|| work.go_on());
                self.at_work.set(false);
                // Left over where a task panicked.
                self.direct.set(NOBODY);
                self.done();
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

/// A result on its way.
struct Given<O> {
    receiver: Box<dyn Receive<O>>,
    output: O,
}

impl<O: Send> Receive<()> for Given<O> {
    fn receive(self: Box<Self>, (): ()) {
        let Given { receiver, output } = *self;
        receiver.receive(output);
    }
}

/// Whether something goes on on this thread, or waits to: who waits here for what is in line waits for itself.
pub(crate) fn is_running() -> bool {
    LINE.try_with(|line| line.running.get()).unwrap_or(false)
}

/// Several are about to be given something, each of which may panic: none of them directly.
pub(crate) fn give_none_directly() {
    let _ = LINE.try_with(|line| line.direct.set(NOBODY));
}

/// Calls what may panic, on behalf of somebody who must go on. What is dropped may, too.
pub(crate) fn contain(call: impl FnOnce()) {
    run(call);
}

/// A result on its way to one of several.
struct Filled<O> {
    place: Place<O>,
    output: O,
}

impl<O: Send> Receive<()> for Filled<O> {
    fn receive(self: Box<Self>, (): ()) {
        let Filled { place, output } = *self;
        place.fill(output);
    }
}

fn run(work: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
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

    impl Receive<()> for Chain {
        fn receive(mut self: Box<Self>, (): ()) {
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

    impl Receive<()> for Panics {
        fn receive(self: Box<Self>, (): ()) {
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
