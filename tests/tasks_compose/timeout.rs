//! A bound on the time of a task.

use std::sync::mpsc;

use tidegate::task::{Elapsed, Series, SeriesError, TaskExt as _, WaitError, go};

use crate::tasks::{Census, Drops, LONG, PATIENCE, Panics, Ready, Waits, await_that, receive, wait};
use crate::{SHORT, runtime};

#[test]
fn a_task_in_time_gives_its_result() {
    let runtime = runtime();
    assert_eq!(wait(runtime.spawn(Ready(1).timeout(LONG))), Ok(Ok(1)));
    assert_eq!(wait(runtime.spawn(go(|| 2).timeout(LONG))), Ok(Ok(2)));
    assert_eq!(runtime.run(go(|| 3).timeout(LONG)), Ok(Ok(3)));
    let (task, waits) = Waits::new();
    let handle = runtime.spawn(task.timeout(LONG));
    receive(&waits).complete(4).unwrap();
    assert_eq!(wait(handle), Ok(Ok(4)));
}

#[test]
fn a_late_task_is_given_up() {
    let runtime = runtime();
    let (task, waits) = Waits::new();
    assert_eq!(wait(runtime.spawn(task.timeout(SHORT))), Ok(Err(Elapsed)));
    assert_eq!(receive(&waits).complete(1), Err(1), "nobody waits for it any more");
    // Where nobody can cancel, the time still can.
    let (task, waits) = Waits::new();
    assert_eq!(runtime.run(task.timeout(SHORT)), Ok(Err(Elapsed)));
    assert_eq!(receive(&waits).complete(1), Err(1));
}

#[test]
fn a_late_series_runs_its_finally_and_the_outer_one_goes_on() {
    let runtime = runtime();
    let (tell, told) = mpsc::channel();
    let (task, _waits) = Waits::<u32>::new();
    let inner = Series::new(())
        .then(task, |_, _| panic!("nobody completes it"))
        .finally(move |outcome, ()| tell.send(format!("{outcome:?}")).unwrap());
    let outer = Series::new(0).then(inner.timeout(SHORT), |ended, series| {
        series.context = u32::from(ended.is_err());
        Ok(())
    });
    assert_eq!(wait(runtime.start(outer)).unwrap().into_result().unwrap(), 1);
    assert_eq!(receive(&told), "Err(Cancelled)");
}

#[test]
fn a_computation_that_is_late_is_not_waited_for() {
    let runtime = runtime();
    let (go_on, wait_for_it) = mpsc::channel::<()>();
    let stuck = go(move || wait_for_it.recv().is_ok());
    assert_eq!(wait(runtime.spawn(stuck.timeout(SHORT))), Ok(Err(Elapsed)));
    drop(go_on);
}

#[test]
fn a_dropped_or_panicking_task_takes_its_timeout_with_it() {
    let runtime = runtime();
    assert_eq!(wait(runtime.spawn(Drops.timeout(LONG))), Err(WaitError::Dropped));
    assert_eq!(wait(runtime.spawn(Panics.timeout(LONG))), Err(WaitError::Dropped));
    let series = Series::new(()).then(Panics.timeout(LONG), |_, _| Ok(()));
    let ended = wait(runtime.start(series)).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Panicked)), "{ended:?}");
    let series = Series::new(()).then(Drops.timeout(LONG), |_, _| Ok(()));
    let ended = wait(runtime.start(series)).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Aborted)), "{ended:?}");
}

#[test]
fn cancelling_cancels_the_task_under_the_timeout() {
    let runtime = runtime();
    let (task, waits) = Waits::<u32>::new();
    let handle = runtime.spawn(task.timeout(LONG));
    let place = receive(&waits);
    handle.cancel();
    assert!(!place.is_waiting());
    assert_eq!(wait(handle), Err(WaitError::Dropped));
    // After it is done, nothing happens.
    let handle = runtime.spawn(Ready(1).timeout(LONG));
    await_that("it is done", || handle.is_done());
    handle.cancel();
    assert_eq!(wait(handle), Ok(Ok(1)));
    // Before it starts, it is not started.
    let (task, waits) = Waits::<u32>::new();
    let series = Series::new(())
        .then(Ready(()), |(), series: &mut Series<()>| {
            series.cancel();
            Ok(())
        })
        .then(task.timeout(LONG), |_, _| Ok(()));
    let ended = wait(runtime.start(series)).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
    assert!(waits.recv_timeout(PATIENCE).is_err(), "it was dropped");
}

#[test]
fn timeouts_nest_and_the_shorter_one_counts() {
    let runtime = runtime();
    let (task, _waits) = Waits::<u32>::new();
    assert_eq!(wait(runtime.spawn(task.timeout(LONG).timeout(SHORT))), Ok(Err(Elapsed)));
    let (task, _waits) = Waits::<u32>::new();
    assert_eq!(wait(runtime.spawn(task.timeout(SHORT).timeout(LONG))), Ok(Ok(Err(Elapsed))));
}

#[test]
fn a_runtime_that_is_dropped_drops_timeouts() {
    let census = Census::default();
    let dropped = runtime();
    let handles: Vec<_> = (0..8)
        .map(|_| {
            let (task, waits) = Waits::<u32>::new();
            let life = census.life();
            let series = Series::new(life).then(task.timeout(LONG), |_, _| Ok(()));
            (dropped.start(series), receive(&waits))
        })
        .collect();
    drop(dropped);
    for (handle, place) in handles {
        assert!(!place.is_waiting());
        let ended = wait(handle).unwrap();
        assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
    }
    assert_eq!(census.alive(), 0);
}
