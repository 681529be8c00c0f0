//! Series within series, and the ways to cancel what runs in them.

use std::ops::ControlFlow::{Break, Continue};
use std::sync::mpsc;

use tidegate::task::{Parallel, Series, SeriesError, Task, repeat};

use crate::runtime;
use crate::tasks::{Census, Waits, receive, wait};

/// A series within a series, so many times.
struct Nest(u32);

impl Task for Nest {
    type Output = u32;

    fn dispatch(self, done: tidegate::task::Continuation<u32>) {
        match self.0 {
            0 => done.complete(0),
            n => {
                let series = Series::new(0).then(Nest(n - 1), |depth, series| {
                    series.context = depth + 1;
                    Ok(())
                });
                let mut only = Parallel::new();
                only.push(series);
                let next = Series::new(0).then(only, |ended, series| {
                    let inner = ended.into_iter().next().ok_or("no result")??;
                    series.context = inner.into_result()?;
                    Ok(())
                });
                Unwraps(next).dispatch(done);
            }
        }
    }
}

struct Unwraps(Series<u32>);

impl Task for Unwraps {
    type Output = u32;

    fn dispatch(self, done: tidegate::task::Continuation<u32>) {
        repeat(
            Some(self.0),
            |series| series.take().expect("one round"),
            |ended, _| ended.into_result().map_or(Continue(()), Break),
        )
        .dispatch(done);
    }
}

#[test]
fn deep_nests_do_not_need_a_deep_stack() {
    let nest = || {
        let runtime = runtime();
        (runtime.run(Nest(2_000)), wait(runtime.spawn(Nest(500))))
    };
    let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(nest).unwrap();
    assert_eq!(thread.join().unwrap(), (Ok(2_000), Ok(500)));
}

/// Says how to cancel it late, when it is long over.
struct Late(mpsc::Sender<tidegate::task::Cancellation>);

impl Task for Late {
    type Output = ();

    fn dispatch(self, mut done: tidegate::task::Continuation<()>) {
        let _ = self.0.send(done.cancellation());
        drop(done);
    }
}

#[test]
fn a_task_that_was_dropped_cannot_say_how_to_cancel_the_next() {
    let runtime = runtime();
    let (tell, told) = mpsc::channel();
    let (task, waits) = Waits::<()>::new();
    let inner = Series::new(()).then(Late(tell), |(), _| Ok(()));
    let outer = Series::new(()).then(inner, |_, _| Ok(())).then(task, |(), _| Ok(()));
    let handle = runtime.start(outer);
    let place = receive(&waits);
    receive(&told).on_cancel(|| {});
    handle.cancel();
    assert!(!place.is_waiting(), "the second task was not told");
    assert!(matches!(wait(handle).unwrap().outcome, Err(SeriesError::Cancelled)));
}

/// Leaves its continuation to the way to cancel it.
struct Leaves(mpsc::Sender<tidegate::task::Cancellation>);

impl Task for Leaves {
    type Output = ();

    fn dispatch(self, mut done: tidegate::task::Continuation<()>) {
        let cancellation = done.cancellation();
        cancellation.on_cancel(move || drop(done));
        let _ = self.0.send(cancellation);
    }
}

#[test]
fn a_way_to_cancel_that_is_replaced_may_have_the_series_go_on() {
    let runtime = runtime();
    let (tell, told) = mpsc::channel();
    let (task, waits) = Waits::<()>::new();
    let inner = Series::new(()).then(Leaves(tell), |(), _| Ok(()));
    let outer = Series::new(()).then(inner, |_, _| Ok(())).then(task, |(), _| Ok(()));
    let handle = runtime.start(outer);
    let cancellation = receive(&told);
    std::thread::spawn(move || cancellation.on_cancel(|| {}));
    receive(&waits).complete(()).unwrap();
    wait(handle).unwrap().into_result().unwrap();
}

#[test]
fn what_the_steps_hold_is_gone_when_a_series_that_was_cancelled_is_over() {
    let runtime = runtime();
    let census = Census::default();
    let (tell, waits) = mpsc::channel();
    let (seen, left) = (census.clone(), mpsc::channel());
    let mut series = Series::new(()).finally(move |_, ()| left.0.send(seen.alive()).unwrap());
    // The steps of a loop are of one kind.
    for _ in 0..3 {
        let life = census.life();
        series.push(Waits::<()>(tell.clone()), move |(), _| {
            drop(life);
            Ok(())
        });
    }
    let handle = runtime.start(series);
    let _place = receive(&waits);
    handle.cancel();
    assert_eq!(receive(&left.1), 0);
    assert!(matches!(wait(handle).unwrap().outcome, Err(SeriesError::Cancelled)));
}
