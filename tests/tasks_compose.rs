//! Timeouts, graphs, selections and repetitions: done, failed, late, cancelled before, meanwhile and after, and with
//! the runtime dropped under them.

#[path = "tasks/mod.rs"]
mod tasks;

use std::ops::ControlFlow::{Break, Continue};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tasks::*;
use tidegate::runtime::Runtime;
use tidegate::task::{
    AllFailed, BoxTask, Elapsed, Graph, NodeId, Parallel, Select, Series, SeriesError, Task, TaskExt,
    WaitError, go, repeat, sleep,
};

const SHORT: Duration = Duration::from_millis(2);

fn runtime() -> Runtime {
    silence_planned_panics();
    Runtime::builder().pollers(2).compute_threads(2).build().unwrap()
}

// Timeout

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

fn count_down(left: &mut u32) -> std::ops::ControlFlow<()> {
    *left -= 1;
    if *left == 0 { Break(()) } else { Continue(()) }
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

// Select

fn answers(output: Result<u32, u32>) -> BoxTask<Result<u32, u32>> {
    Ready(output).boxed()
}

#[test]
fn the_first_success_wins_and_the_others_are_cancelled() {
    let runtime = runtime();
    let (slow, waits) = Waits::<Result<u32, u32>>::new();
    let select: Select<_> = [answers(Err(1)), slow.boxed(), answers(Ok(3))].into_iter().collect();
    assert_eq!(wait(runtime.spawn(select)), Ok(Ok(3)));
    assert!(!receive(&waits).is_waiting());
    // The same where the last one is not needed.
    let (slow, waits) = Waits::<Result<u32, u32>>::new();
    let (last, _never) = Waits::<Result<u32, u32>>::new();
    let handle = runtime.spawn([slow, last].into_iter().collect::<Select<_>>());
    receive(&waits).complete(Ok(4)).unwrap();
    assert_eq!(wait(handle), Ok(Ok(4)));
}

#[test]
fn all_errors_come_in_order() {
    let runtime = runtime();
    let failing = |n: u32| go(move || Err::<(), u32>(n));
    let select: Select<_> = (0..10).map(failing).collect();
    let failed = wait(runtime.spawn(select)).unwrap().unwrap_err();
    assert_eq!(failed.errors, (0..10).map(Some).collect::<Vec<_>>());
    assert_eq!(failed.to_string(), "none of 10 tasks succeeded; the first error: 0");
    assert_eq!(
        runtime.run((0..0).map(failing).collect::<Select<_>>()),
        Ok(Err(AllFailed { errors: vec![] }))
    );
}

#[test]
fn one_that_is_dropped_or_panics_has_no_error() {
    let runtime = runtime();
    struct Fails(bool);
    impl Task for Fails {
        type Output = Result<(), u32>;
        fn dispatch(self, done: tidegate::task::Continuation<Self::Output>) {
            assert!(self.0, "{AS_PLANNED}");
            drop(done);
        }
    }
    let select: Select<_> =
        [Fails(true).boxed(), Ready(Err(2)).boxed(), Fails(false).boxed()].into_iter().collect();
    let failed = wait(runtime.spawn(select)).unwrap().unwrap_err();
    assert_eq!(failed.errors, [None, Some(2), None]);
}

#[test]
fn cancelling_a_selection_cancels_all() {
    let runtime = runtime();
    let (tell, waits) = mpsc::channel();
    let select: Select<_> = (0..4).map(|_| Waits::<Result<u32, u32>>(tell.clone())).collect();
    let handle = runtime.spawn(select);
    let places: Vec<_> = (0..4).map(|_| receive(&waits)).collect();
    handle.cancel();
    assert!(places.iter().all(|place| !place.is_waiting()));
    assert_eq!(wait(handle), Err(WaitError::Dropped));
}

#[test]
fn a_runtime_that_is_dropped_drops_a_selection() {
    let dropped = runtime();
    let (tell, waits) = mpsc::channel();
    let select: Select<_> = (0..4).map(|_| Waits::<Result<u32, u32>>(tell.clone())).collect();
    let handle = dropped.spawn(select);
    let _place = receive(&waits);
    drop(dropped);
    assert_eq!(wait(handle), Err(WaitError::Dropped));
}

// Graph

type Log = Arc<Mutex<Vec<u32>>>;

fn logs(log: &Log, n: u32) -> impl FnOnce(()) -> Result<(), tidegate::task::Error> + Send + 'static {
    let log = log.clone();
    move |()| {
        log.lock().unwrap().push(n);
        Ok(())
    }
}

#[test]
fn nodes_run_after_those_before_them() {
    let runtime = runtime();
    let log = Log::default();
    let mut graph = Graph::new();
    let n: Vec<NodeId> = (0..5).map(|n| graph.add(go(|| ()), logs(&log, n))).collect();
    // Twice is as good as once.
    graph.chain([n[4], n[1], n[3]]).chain([n[4], n[2], n[3]]).edge(n[3], n[0]).edge(n[3], n[0]);
    wait(runtime.spawn(graph.build().unwrap())).unwrap().unwrap();
    let log = log.lock().unwrap();
    assert_eq!((log[0], log[3], log[4]), (4, 3, 0));
    assert_eq!(log[1] + log[2], 3);
}

#[test]
fn what_can_run_at_the_same_time_does() {
    let runtime = runtime();
    let mut graph = Graph::new();
    let (tell, waits) = mpsc::channel();
    let middle: Vec<_> = (0..10).map(|_| graph.add(Waits(tell.clone()), |()| Ok(()))).collect();
    let (first, last) = (graph.add(Ready(()), Ok), graph.add(Ready(()), Ok));
    for node in middle {
        graph.chain([first, node, last]);
    }
    let handle = runtime.spawn(graph.build().unwrap());
    let places: Vec<_> = (0..10).map(|_| receive(&waits)).collect();
    for place in places {
        place.complete(()).unwrap();
    }
    wait(handle).unwrap().unwrap();
}

#[test]
fn cycles_are_refused_and_named() {
    let mut graph = Graph::new();
    let n: Vec<NodeId> = (0..6).map(|_| graph.add(Ready(()), Ok)).collect();
    graph.chain([n[0], n[1], n[2], n[3], n[4]]).edge(n[3], n[1]).edge(n[2], n[5]);
    let cycle = graph.build().unwrap_err();
    assert_eq!(cycle.nodes.len(), 3);
    let start = cycle.nodes.iter().position(|node| *node == n[1]).unwrap();
    let mut nodes = cycle.nodes.clone();
    nodes.rotate_left(start);
    assert_eq!(nodes, [n[1], n[2], n[3]]);
    assert!(cycle.to_string().starts_with("nodes of a graph wait for each other: "), "{cycle}");

    let mut graph = Graph::new();
    let node = graph.add(Ready(()), Ok);
    graph.edge(node, node);
    assert_eq!(graph.build().unwrap_err().nodes, [node]);
}

#[test]
#[should_panic(expected = "a node of another graph")]
fn a_node_of_another_graph_is_refused() {
    let (mut one, mut other) = (Graph::new(), Graph::new());
    let (a, b) = (one.add(Ready(()), Ok), other.add(Ready(()), Ok));
    one.edge(a, b);
}

#[test]
fn an_empty_graph_is_done_at_once() {
    assert!(Graph::new().is_empty());
    runtime().run(Graph::new().build().unwrap()).unwrap().unwrap();
}

#[test]
fn the_first_error_stops_the_graph() {
    let runtime = runtime();
    let census = Census::default();
    let mut graph = Graph::new();
    let (task, waits) = Waits::<()>::new();
    let life = census.life();
    graph.add(task, move |()| {
        drop(life);
        panic!("it is cancelled")
    });
    let (fails, waits_to_fail) = Waits::<()>::new();
    let failing = graph.add(fails, |()| Err("it went wrong".into()));
    let life = census.life();
    let behind = graph.add(Ready(()), move |()| {
        drop(life);
        panic!("it does not start")
    });
    graph.edge(failing, behind);
    let handle = runtime.spawn(graph.build().unwrap());
    let place = receive(&waits);
    receive(&waits_to_fail).complete(()).unwrap();
    let failed = wait(handle).unwrap().unwrap_err();
    assert_eq!(failed.node, failing);
    assert_eq!(failed.to_string(), "node 1 of a graph: it went wrong");
    assert!(!place.is_waiting());
    assert_eq!(census.alive(), 0);
}

#[test]
fn panics_and_drops_of_nodes_are_told_apart() {
    let runtime = runtime();
    let alone = |task: BoxTask<u32>, panics: bool| {
        let mut graph = Graph::new();
        graph.add(task, move |_| {
            assert!(!panics, "{AS_PLANNED}");
            Ok(())
        });
        wait(runtime.spawn(graph.build().unwrap())).unwrap().map_err(|failed| failed.error)
    };
    assert!(matches!(alone(Drops.boxed(), false), Err(SeriesError::Aborted)));
    assert!(matches!(alone(Panics.boxed(), false), Err(SeriesError::Panicked)));
    assert!(matches!(alone(Ready(1).boxed(), true), Err(SeriesError::Panicked)));
    assert!(matches!(alone(go(|| panic!("{AS_PLANNED}")).boxed(), true), Err(SeriesError::Panicked)));
    assert!(alone(Ready(1).boxed(), false).is_ok());
}

#[test]
fn cancelling_a_graph_cancels_what_runs_and_drops_the_rest() {
    let runtime = runtime();
    let census = Census::default();
    let mut graph = Graph::new();
    let (tell, waits) = mpsc::channel();
    for _ in 0..4 {
        let (one, other) = (census.life(), census.life());
        let node = graph.add(Waits::<()>(tell.clone()), move |()| {
            drop(one);
            Ok(())
        });
        let behind = graph.add(Ready(()), move |()| {
            drop(other);
            Ok(())
        });
        graph.edge(node, behind);
    }
    let handle = runtime.spawn(graph.build().unwrap());
    let places: Vec<_> = (0..4).map(|_| receive(&waits)).collect();
    handle.cancel();
    assert!(places.iter().all(|place| !place.is_waiting()));
    assert!(matches!(wait(handle), Err(WaitError::Dropped)));
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_runtime_that_is_dropped_drops_a_graph() {
    let dropped = runtime();
    let mut graph = Graph::new();
    let (tell, waits) = mpsc::channel();
    let a = graph.add(Waits::<()>(tell.clone()), Ok);
    let b = graph.add(Waits::<()>(tell), Ok);
    let c = graph.add(sleep(LONG), Ok);
    graph.edge(a, b).edge(c, b);
    let handle = dropped.spawn(graph.build().unwrap());
    let _place = receive(&waits);
    drop(dropped);
    let ended = wait(handle);
    assert!(matches!(ended, Err(WaitError::Dropped)), "{ended:?}");
}

// Repeat

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

// Depth

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

// Ways to cancel

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
