//! Rounds, each made of what came of the one before.

use std::ops::ControlFlow::{Break, Continue};
use std::sync::mpsc;
use std::time::Instant;

use tidegate::runtime::Runtime;
use tidegate::task::{BoxTask, Series, SeriesError, TaskExt as _, WaitError, go, repeat, sleep};

use crate::tasks::{AS_PLANNED, Drops, PATIENCE, Panics, Ready, Waits, receive, wait};
use crate::{SHORT, runtime};

fn count_down(left: &mut u32) -> std::ops::ControlFlow<()> {
    *left -= 1;
    if *left == 0 { Break(()) } else { Continue(()) }
}

#[test]
fn rounds_are_made_of_what_came_before() {
    let runtime = runtime();
    let rounds = repeat(
        (27_u64, 0),
        |&mut (n, _)| go(move || if n % 2 == 0 { n / 2 } else { 3 * n + 1 }),
        |next, (n, rounds)| {
            (*n, *rounds) = (next, *rounds + 1);
            if next == 1 { Break(*rounds) } else { Continue(()) }
        },
    );
    assert_eq!(wait(runtime.spawn(rounds)), Ok(111));
}

#[test]
fn a_million_rounds_use_constant_stack() {
    let rounds = || {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        runtime.run(repeat(1_000_000, |left| Ready(*left), |_, left| count_down(left)))
    };
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(rounds).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(()));
}

#[test]
fn endless_rounds_can_be_cancelled() {
    let runtime = runtime();
    let (tell, told) = mpsc::channel();
    let endless = repeat(tell, |_| go(|| ()), |(), tell| tell.send(()).map_or(Break(()), Continue));
    let handle = runtime.spawn(endless);
    receive(&told);
    handle.cancel();
    assert_eq!(wait(handle), Err(WaitError::Dropped));
    // While a round waits.
    let (tell, waits) = mpsc::channel();
    let waiting = repeat(tell, |tell| Waits::<()>(tell.clone()), |(), _| Continue::<()>(()));
    let handle = runtime.spawn(waiting);
    receive(&waits).complete(()).unwrap();
    let place = receive(&waits);
    handle.cancel();
    assert!(!place.is_waiting());
    assert_eq!(wait(handle), Err(WaitError::Dropped));
}

#[test]
fn endless_instant_rounds_on_a_poller_leave_room_for_others() {
    let runtime = Runtime::builder().compute_threads(1).build().unwrap();
    let endless = repeat((), |()| Ready(()), |(), ()| Continue::<()>(()));
    let series = Series::new(()).then(sleep(SHORT), |(), _| Ok(())).then(endless, |(), _| Ok(()));
    let handle = runtime.start(series);
    let began = Instant::now();
    for _ in 0..5 {
        wait(runtime.spawn(sleep(SHORT))).unwrap();
    }
    assert!(began.elapsed() < PATIENCE);
    handle.cancel();
    assert!(matches!(wait(handle).unwrap().outcome, Err(SeriesError::Cancelled)));
}

#[test]
fn a_round_that_panics_or_is_dropped_ends_them() {
    let runtime = runtime();
    let ends = |task: BoxTask<u32>| {
        let series = Series::new(()).then(
            repeat(
                Some(task),
                |task| task.take().unwrap_or_else(|| Drops.boxed()),
                |n, _| {
                    assert!(n != 1, "{AS_PLANNED}");
                    if n == 2 { Break(()) } else { Continue(()) }
                },
            ),
            |(), _| Ok(()),
        );
        wait(runtime.start(series)).unwrap().outcome
    };
    assert!(matches!(ends(Ready(1).boxed()), Err(SeriesError::Panicked)));
    assert!(ends(Ready(2).boxed()).is_ok());
    assert!(matches!(ends(Ready(3).boxed()), Err(SeriesError::Aborted)));
    assert!(matches!(ends(Panics.boxed()), Err(SeriesError::Panicked)));
}

#[test]
fn a_runtime_that_is_dropped_drops_repetitions() {
    let dropped = runtime();
    let handle = dropped.spawn(repeat((), |()| sleep(SHORT), |(), ()| Continue::<()>(())));
    let busy = dropped.spawn(repeat((), |()| go(|| ()), |(), ()| Continue::<()>(())));
    drop(dropped);
    assert_eq!(wait(handle), Err(WaitError::Dropped));
    assert_eq!(wait(busy), Err(WaitError::Dropped));
}
