//! The hand-over between threads, in the ways in which they can overtake each other. Shuttle runs these in place of the
//! operating system: [`explore`] tries schedules at random, and prints the one that failed.
//!
//! ```text
//! RUSTFLAGS="--cfg tidegate_shuttle" cargo test --lib task::models --target-dir target/shuttle
//! ```
//!
//! What is shuttle's in such a build: [`crate::sync`], in tasks and in the line of work. The runtime's own threads are real
//! ones that never get anything to do here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake};

use shuttle::thread;

use super::*;
use crate::runtime::{Runtime, RuntimeHandle};

/// Schedules tried of each model, unless `TIDEGATE_SCHEDULES` says otherwise: all together take about ten seconds.
const SCHEDULES: usize = 3_000;

/// Calls `model` again and again, each time with another schedule of its threads.
fn explore(model: impl Fn(&RuntimeHandle) + Send + Sync + 'static) {
    let runtime = Runtime::without_pollers().unwrap();
    let handle = runtime.handle();
    let schedules = std::env::var("TIDEGATE_SCHEDULES").ok().and_then(|text| text.parse().ok());
    // Mostly few changes from one thread to another find what is wrong; but not always.
    let half = schedules.unwrap_or(SCHEDULES) / 2;
    let model = Arc::new(move || model(&handle));
    let again = model.clone();
    shuttle::check_pct(move || again(), half, 3);
    shuttle::check_random(move || model(), half);
    drop(runtime);
}

/// Counts how often things happen.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Counts when it is dropped.
struct Drops(Count);

impl Drop for Drops {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// Waits where `place` is filled in.
struct Waits<O: Send + 'static>(Place<O>);

type Place<O> = Arc<std::sync::Mutex<Option<Parked<O>>>>;

impl<O: Send + 'static> Task for Waits<O> {
    type Output = O;

    fn dispatch(self, done: Continuation<O>) {
        *self.0.lock().unwrap() = Some(done.park());
    }
}

/// A task that waits, and where.
fn waits<O: Send + 'static>() -> (Waits<O>, impl Fn() -> Parked<O>) {
    let place: Place<O> = Arc::default();
    let filled = place.clone();
    (Waits(place), move || filled.lock().unwrap().clone().expect("it has started"))
}

/// Says how to cancel it when another thread may have completed it.
struct SaysLate<O>(std::sync::mpsc::Sender<(Continuation<O>, Cancellation)>);

impl<O: Send + 'static> Task for SaysLate<O> {
    type Output = O;

    fn dispatch(self, mut done: Continuation<O>) {
        let cancellation = done.cancellation();
        let _ = self.0.send((done, cancellation));
    }
}

#[test]
fn of_two_that_complete_one_is_first_and_the_result_arrives() {
    explore(|runtime| {
        let (task, place) = waits();
        let handle = runtime.spawn(task);
        let others: Vec<_> = (0..2)
            .map(|n| {
                let place = place();
                thread::spawn(move || place.complete(n).is_ok())
            })
            .collect();
        let got = handle.wait().unwrap();
        let first: Vec<bool> = others.into_iter().map(|other| other.join().unwrap()).collect();
        assert!(first[got] && !first[1 - got]);
    });
}

#[test]
fn a_cancel_beside_a_completion_ends_the_series_once() {
    explore(|runtime| {
        let (finals, drops) = (Count::default(), Count::default());
        let (task, place) = waits::<u32>();
        let counts = finals.clone();
        let dropped = Drops(drops.clone());
        let series = Series::new(0)
            .then(task, move |n, series: &mut Series<u32>| {
                drop(dropped);
                series.context = n;
                Ok(())
            })
            .finally(move |_, _| counts.add());
        let handle = runtime.start(series);
        let canceller = handle.canceller();
        let place = place();
        let completes = thread::spawn(move || place.complete(7).is_ok());
        let cancels = thread::spawn(move || canceller.cancel());
        let ended = handle.wait().unwrap();
        match ended.outcome {
            Ok(()) => assert_eq!(ended.context, 7),
            Err(SeriesError::Cancelled) => {}
            other => panic!("{other:?}"),
        }
        let first = completes.join().unwrap();
        assert!(first || ended.context == 0);
        cancels.join().unwrap();
        assert_eq!((finals.get(), drops.get()), (1, 1));
    });
}

#[test]
fn a_cancel_reaches_the_task_of_now_however_late_the_last_one_spoke() {
    explore(|runtime| {
        let (tell, told) = std::sync::mpsc::channel();
        let (second, _place) = waits::<()>();
        let series = Series::new(()).then(SaysLate(tell), |(), _| Ok(())).then(second, |(), _| Ok(()));
        let handle = runtime.start(series);
        let (done, cancellation) = told.recv().unwrap();
        let completes = thread::spawn(move || done.complete(()));
        let says = thread::spawn(move || cancellation.on_cancel(|| {}));
        let canceller = handle.canceller();
        let cancels = thread::spawn(move || canceller.cancel());
        // Nobody completes the second task: this ends only because it is cancelled.
        let ended = handle.wait().unwrap();
        assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
        for thread in [completes, says, cancels] {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_cancel_reaches_what_comes_after_a_task_that_was_dropped() {
    explore(|runtime| {
        let (tell, told) = std::sync::mpsc::channel();
        let (second, _place) = waits::<()>();
        let inner = Series::new(()).then(SaysLate(tell), |(), _| Ok(()));
        let series = Series::new(()).then(inner, |_, _| Ok(())).then(second, |(), _| Ok(()));
        let handle = runtime.start(series);
        let (done, cancellation) = told.recv().unwrap();
        let drops = thread::spawn(move || drop::<Continuation<()>>(done));
        let says = thread::spawn(move || cancellation.on_cancel(|| {}));
        let canceller = handle.canceller();
        let cancels = thread::spawn(move || canceller.cancel());
        let ended = handle.wait().unwrap();
        assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
        for thread in [drops, says, cancels] {
            thread.join().unwrap();
        }
    });
}

#[test]
fn who_awaits_is_woken() {
    struct Woken(thread::Thread);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    explore(|runtime| {
        let (task, place) = waits();
        let mut handle = runtime.spawn(task);
        let place = place();
        let completes = thread::spawn(move || place.complete(7).is_ok());
        let waker = Arc::new(Woken(thread::current())).into();
        let got = loop {
            match Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(got) => break got,
                Poll::Pending => thread::park(),
            }
        };
        assert_eq!(got, Ok(7));
        assert!(completes.join().unwrap());
    });
}

#[test]
fn all_results_are_there_when_the_last_task_is_done() {
    explore(|runtime| {
        let (one, first) = waits();
        let (other, second) = waits();
        let handle = runtime.spawn([one, other].into_iter().collect::<Parallel<_>>());
        let (first, second) = (first(), second());
        let one = thread::spawn(move || first.complete(1).is_ok());
        let other = thread::spawn(move || second.complete(2).is_ok());
        assert_eq!(handle.wait(), Ok(vec![Ok(1), Ok(2)]));
        assert!(one.join().unwrap() && other.join().unwrap());
    });
}

#[test]
fn a_selection_has_one_winner_and_a_cancel_beside_it_ends_it() {
    explore(|runtime| {
        let drops = Count::default();
        let (one, first) = waits::<Result<(u32, Drops), u32>>();
        let (other, second) = waits();
        let handle = runtime.spawn([one, other].into_iter().collect::<Select<_>>());
        let canceller = handle.canceller();
        let threads = [(1, first()), (2, second())].map(|(n, place)| {
            let value = Drops(drops.clone());
            thread::spawn(move || drop(place.complete(Ok((n, value)))))
        });
        let cancels = thread::spawn(move || canceller.cancel());
        match handle.wait() {
            Ok(Ok((1 | 2, value))) => drop(value),
            Err(WaitError::Dropped) => {}
            _ => panic!("none of these can be"),
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        cancels.join().unwrap();
        assert_eq!(drops.get(), 2);
    });
}

#[test]
fn a_node_starts_once_when_those_before_it_are_done() {
    explore(|runtime| {
        let started = Count::default();
        let mut graph = Graph::new();
        let (one, first) = waits();
        let (other, second) = waits();
        let (one, other) = (graph.add(one, Ok), graph.add(other, Ok));
        let (last, _place) = waits::<()>();
        let counts = started.clone();
        let join = graph.add(go_nowhere(counts), |()| Ok(()));
        let behind = graph.add(last, |()| Ok(()));
        graph.edge(one, join).edge(other, join).edge(join, behind);
        let handle = runtime.spawn(graph.build().unwrap());
        let threads = [first(), second()].map(|place| thread::spawn(move || drop(place.complete(()))));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(started.get(), 1);
        handle.cancel();
        assert!(matches!(handle.wait(), Err(WaitError::Dropped)));
    });
}

/// Counts that it was started, and is done.
fn go_nowhere(counts: Count) -> impl Task<Output = ()> {
    struct Counts(Count);
    impl Task for Counts {
        type Output = ();

        fn dispatch(self, done: Continuation<()>) {
            self.0.add();
            done.complete(());
        }
    }
    Counts(counts)
}

#[test]
fn a_graph_that_fails_while_it_is_cancelled_is_over_once() {
    explore(|runtime| {
        let drops = Count::default();
        let mut graph = Graph::new();
        let (one, first) = waits::<()>();
        let (other, second) = waits::<()>();
        let held = [(); 3].map(|()| Drops(drops.clone()));
        let [a, b, c] = held;
        let one = graph.add(one, move |()| {
            drop(a);
            Err("as planned".into())
        });
        let other = graph.add(other, move |()| {
            drop(b);
            Ok(())
        });
        let last = graph.add(go_nowhere(Count::default()), move |()| {
            drop(c);
            Ok(())
        });
        graph.edge(one, last).edge(other, last);
        let handle = runtime.spawn(graph.build().unwrap());
        let canceller = handle.canceller();
        let threads = [first(), second()].map(|place| thread::spawn(move || drop(place.complete(()))));
        let cancels = thread::spawn(move || canceller.cancel());
        match handle.wait() {
            Ok(Err(failed)) => assert_eq!(failed.node, one),
            Ok(Ok(())) => panic!("one of them fails"),
            Err(_) => {}
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        cancels.join().unwrap();
        assert_eq!(drops.get(), 3);
    });
}
