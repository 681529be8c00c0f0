//! Something else made of what comes of a task, or another task: done, failed, panicked, cancelled before, meanwhile and
//! after, and with the runtime dropped under it.

#[path = "tasks/mod.rs"]
mod tasks;

use std::sync::mpsc;
use std::time::Duration;

use tasks::*;
use tidegate::runtime::Runtime;
use tidegate::task::{BoxTask, Elapsed, Parallel, Series, SeriesError, Task, TaskExt, WaitError, go, sleep};

const SHORT: Duration = Duration::from_millis(1);

fn runtime() -> Runtime {
    silence_planned_panics();
    Runtime::builder().pollers(2).compute_threads(2).build().unwrap()
}

fn outcome<T: Task>(runtime: &Runtime, task: T) -> SeriesError {
    let series = Series::new(()).then(task, |_, _| Ok(()));
    wait(runtime.start(series)).unwrap().outcome.unwrap_err()
}

#[test]
fn what_comes_of_a_task_is_made_into_something_else() {
    let runtime = runtime();
    assert_eq!(wait(runtime.spawn(Ready(1).map(|n| n + 1))), Ok(2));
    assert_eq!(runtime.run(go(|| 1).map(|n| n + 1).map(|n| n.to_string())), Ok("2".to_owned()));
    let (task, waits) = Waits::<u32>::new();
    let handle = runtime.spawn(task.map(|n| n * 10));
    receive(&waits).complete(4).unwrap();
    assert_eq!(wait(handle), Ok(40));
    // It is a task as any other.
    let both: Parallel<_> = (0..100).map(|n| go(move || n).map(|n| n * n)).collect();
    let squares: u32 = runtime.run(both).unwrap().into_iter().map(Result::unwrap).sum();
    assert_eq!(squares, (0..100).map(|n| n * n).sum::<u32>());
    let (never, _waits) = Waits::<u32>::new();
    let late = never.map(|n| n + 1).timeout(SHORT);
    assert_eq!(wait(runtime.spawn(late)), Ok(Err(Elapsed)));
}

#[test]
fn of_a_result_one_side_stays_what_it_is() {
    let runtime = runtime();
    let both = |output: Result<u32, u32>| {
        let good = runtime.run(Ready(output).map_ok(|n| n + 1)).unwrap();
        let bad = runtime.run(Ready(output).map_err(|n| n + 1)).unwrap();
        (good, bad)
    };
    assert_eq!(both(Ok(1)), (Ok(2), Ok(1)));
    assert_eq!(both(Err(1)), (Err(1), Err(2)));
}

#[test]
fn a_task_is_followed_by_one_made_of_what_came_of_it() {
    let runtime = runtime();
    let two = |n: u32| go(move || n + 1).followed_by(|n| sleep(SHORT).map(move |()| n * 10));
    assert_eq!(runtime.run(two(1)), Ok(20));
    assert_eq!(wait(runtime.spawn(two(2))), Ok(30));
    let all: Parallel<_> = (0..50).map(two).collect();
    let all: Vec<u32> = runtime.run(all).unwrap().into_iter().map(Result::unwrap).collect();
    assert!(all.into_iter().eq((0..50).map(|n| (n + 1) * 10)));
}

#[test]
fn a_panic_or_a_task_that_is_dropped_ends_the_series() {
    let runtime = runtime();
    let panics = |_: u32| -> u32 { panic!("{AS_PLANNED}") };
    let makes_none = |_: u32| -> Ready<u32> { panic!("{AS_PLANNED}") };
    assert!(matches!(outcome(&runtime, Ready(1).map(panics)), SeriesError::Panicked));
    assert!(matches!(outcome(&runtime, go(|| 1).map(panics)), SeriesError::Panicked));
    assert!(matches!(outcome(&runtime, Panics.map(|n| n)), SeriesError::Panicked));
    assert!(matches!(outcome(&runtime, Drops.map(|n| n)), SeriesError::Aborted));
    assert!(matches!(outcome(&runtime, Ready(1).followed_by(makes_none)), SeriesError::Panicked));
    assert!(matches!(outcome(&runtime, Ready(1).followed_by(|_| Panics)), SeriesError::Panicked));
    assert!(matches!(outcome(&runtime, Ready(1).followed_by(|_| Drops)), SeriesError::Aborted));
    assert_eq!(runtime.run(go(|| 1)), Ok(1), "the threads are all there");
}

#[test]
fn cancelled_before_meanwhile_and_after() {
    let runtime = runtime();
    let census = Census::default();
    // Before.
    let lives = census.life();
    let series = Series::new(())
        .then(Ready(()), |(), series: &mut Series<()>| {
            series.cancel();
            Ok(())
        })
        .then(Ready(1).map(move |_| drop(lives)), |(), _| panic!("it was cancelled"));
    assert!(matches!(wait(runtime.start(series)).unwrap().outcome, Err(SeriesError::Cancelled)));
    assert_eq!(census.alive(), 0);
    // While the first waits, and while the second does.
    let (first, waits_first) = Waits::<u32>::new();
    let lives = census.life();
    let handle = runtime.spawn(first.map(move |_| panic!("it was cancelled, {}", census_of(&lives))));
    let place = receive(&waits_first);
    handle.cancel();
    assert!(!place.is_waiting());
    assert_eq!(wait::<()>(handle), Err(WaitError::Dropped));
    let (second, waits_second) = Waits::<u32>::new();
    let lives = census.life();
    let handle = runtime.spawn(go(move || drop(lives)).followed_by(move |()| second).map(|n| n + 1));
    let place = receive(&waits_second);
    handle.cancel();
    assert!(!place.is_waiting());
    assert_eq!(wait(handle), Err(WaitError::Dropped));
    assert_eq!(census.alive(), 0);
    // A computation cannot be stopped, but nothing is made of it.
    let (begin, begun) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let runs = go(move || {
        begin.send(()).unwrap();
        let _ = held.recv();
    });
    let handle = runtime.spawn(runs.map(|()| panic!("it was cancelled")));
    receive(&begun);
    handle.cancel();
    drop(release);
    assert_eq!(wait::<()>(handle), Err(WaitError::Dropped));
    // After.
    let handle = runtime.spawn(Ready(1).map(|n| n + 1).followed_by(Ready));
    await_that("it is done", || handle.is_done());
    handle.cancel();
    assert_eq!(wait(handle), Ok(2));
}

fn census_of(_: &Life) -> &'static str {
    "and lives"
}

#[test]
fn a_runtime_that_is_dropped_ends_both() {
    for second in [false, true] {
        let runtime = runtime();
        let census = Census::default();
        let (task, waits) = Waits::<u32>::new();
        let (early, late) = (census.life(), census.life());
        let task: BoxTask<u32> = match second {
            false => task.followed_by(Ready).boxed(),
            true => Ready(()).followed_by(move |()| task).boxed(),
        };
        let handle = runtime.spawn(task.map(move |n| (n, drop((early, late)))));
        receive(&waits);
        drop(runtime);
        assert_eq!(wait(handle), Err(WaitError::Dropped));
        assert_eq!(census.alive(), 0);
    }
}

#[test]
fn what_is_mapped_again_and_again_needs_no_more_stack() {
    let runtime = runtime();
    let nest = |task: BoxTask<u32>| {
        (0..5_000).fold(task, |task, n| match n % 2 {
            0 => task.map(|n| n + 1).boxed(),
            _ => task.followed_by(|n| Ready(n + 1)).boxed(),
        })
    };
    assert_eq!(runtime.run(nest(Ready(0).boxed())), Ok(5_000));
    assert_eq!(wait(runtime.spawn(nest(go(|| 0).boxed()))), Ok(5_000));
}
