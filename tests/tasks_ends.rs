//! Compositions must end whatever panics in them, and handles say what there is to say at once.

#[path = "tasks/mod.rs"]
mod tasks;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tasks::*;
use tidegate::runtime::Runtime;
use tidegate::task::{
    BoxTask, Dropped, Graph, Parallel, Select, Series, SeriesError, Task, TaskExt, TaskHandle, WaitError, go,
};

fn runtime() -> Runtime {
    silence_planned_panics();
    Runtime::builder().pollers(2).compute_threads(2).build().unwrap()
}

/// Keeps both computing threads busy until it is dropped, so that no other computation begins.
#[expect(dead_code, reason = "held until it is dropped, which lets the threads go")]
struct Busy(Vec<(mpsc::Sender<()>, TaskHandle<()>)>);

impl Busy {
    fn on(runtime: &Runtime) -> Busy {
        let occupy = || {
            let (release, held) = mpsc::channel();
            let (tell, told) = mpsc::channel();
            let job = go(move || {
                tell.send(()).unwrap();
                let _ = held.recv();
            });
            let handle = runtime.spawn(job);
            receive(&told);
            (release, handle)
        };
        Busy(vec![occupy(), occupy()])
    }
}

/// Panics when it is dropped, and counts that.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("{AS_PLANNED}");
    }
}

#[test]
fn a_parallel_ends_though_what_is_to_stop_it_panics() {
    let runtime = runtime();
    let all: Parallel<_> = (0..100).map(|n| go(move || n)).collect();
    let all = all.stop_when(|n| if *n == 50 { panic!("{AS_PLANNED}") } else { false });
    let results = wait(runtime.spawn(all)).unwrap();
    assert_eq!(results[49], Ok(49));
    assert_eq!(results[50], Err(Dropped), "what came of it went with the panic");
    assert_eq!(results[51], Ok(51));
}

#[test]
fn a_parallel_ends_though_tasks_that_were_not_started_panic_when_dropped() {
    let runtime = runtime();
    let _busy = Busy::on(&runtime);
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut all = Parallel::new();
    all.push(Ready(0).boxed());
    for _ in 0..10 {
        let bomb = Bomb(dropped.clone());
        all.push(BoxTask::from_bomb(bomb));
    }
    let results = wait(runtime.spawn(all.stop_when(|n| *n == 0))).unwrap();
    assert_eq!(results[0], Ok(0));
    assert!(results[1..].iter().all(|result| *result == Err(Dropped)));
    await_that("all are dropped", || dropped.load(Ordering::SeqCst) == 10);
}

/// A task that holds a bomb, and is not to be started.
trait FromBomb {
    fn from_bomb(bomb: Bomb) -> Self;
}

impl FromBomb for BoxTask<u32> {
    fn from_bomb(bomb: Bomb) -> BoxTask<u32> {
        go(move || std::mem::forget(bomb)).map(|()| 1).boxed()
    }
}

#[test]
fn a_selection_ends_though_tasks_that_were_not_started_panic_when_dropped() {
    let runtime = runtime();
    let _busy = Busy::on(&runtime);
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut first = Select::new();
    first.push(Ready(Ok::<u32, ()>(0)).boxed());
    for _ in 0..10 {
        let bomb = Bomb(dropped.clone());
        first.push(BoxTask::from_bomb(bomb).map(Ok).boxed());
    }
    assert_eq!(wait(runtime.spawn(first)), Ok(Ok(0)));
    await_that("all are dropped", || dropped.load(Ordering::SeqCst) == 10);
}

#[test]
fn a_graph_ends_though_nodes_that_were_not_started_panic_when_dropped() {
    let runtime = runtime();
    for cancelled in [false, true] {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (task, waits) = Waits::<u32>::new();
        let mut graph = Graph::new();
        let first = graph.add(task, |_| Err("as planned".into()));
        for _ in 0..10 {
            let bomb = Bomb(dropped.clone());
            let later = graph.add(Ready(1), move |_| Ok(drop(bomb)));
            graph.edge(first, later);
        }
        let handle = runtime.spawn(graph.build().unwrap());
        let place = receive(&waits);
        match cancelled {
            true => handle.cancel(),
            false => place.complete(1).unwrap(),
        }
        let ended = wait(handle);
        assert_eq!(ended.is_err(), cancelled, "{ended:?}");
        await_that("all are dropped", || dropped.load(Ordering::SeqCst) == 10);
    }
}

/// Wakes by a panic.
struct PanicsWoken;

impl Wake for PanicsWoken {
    fn wake(self: Arc<PanicsWoken>) {
        panic!("{AS_PLANNED}");
    }
}

fn poll<T: Send + 'static>(handle: &mut TaskHandle<T>, waker: &Waker) -> Poll<Result<T, Dropped>> {
    Pin::new(handle).poll(&mut Context::from_waker(waker))
}

#[test]
fn a_waker_that_panics_harms_nobody_though_a_panic_wakes_it() {
    let runtime = runtime();
    let waker = Waker::from(Arc::new(PanicsWoken));
    let (release, held) = mpsc::channel::<()>();
    let mut panics = runtime.spawn(go(move || {
        let _ = held.recv();
        panic!("{AS_PLANNED}");
    }));
    assert!(poll(&mut panics, &waker).is_pending());
    drop(release);
    await_that("it is over", || panics.is_done());
    assert_eq!(poll::<()>(&mut panics, &waker), Poll::Ready(Err(Dropped)));
    assert_eq!(runtime.run(go(|| 1)), Ok(1));
}

#[test]
fn what_a_handle_has_given_out_is_not_waited_for_again() {
    let runtime = runtime();
    let mut handle = runtime.spawn(Ready(1));
    let waker = Waker::noop();
    assert_eq!(poll(&mut handle, waker), Poll::Ready(Ok(1)));
    assert!(handle.is_done());
    assert_eq!(poll(&mut handle, waker), Poll::Ready(Err(Dropped)));
    assert_eq!(wait(handle), Err(WaitError::Dropped));
}

#[test]
fn joining_a_runtime_from_its_own_thread_or_from_a_series_is_an_error_at_once() {
    for on_poller in [false, true] {
        let (runtime, (tell, told)) = (runtime(), mpsc::channel());
        let core = runtime.handle();
        let joins = move || tell.send(runtime.join().is_err()).unwrap();
        match on_poller {
            false => core.spawn(go(joins)).detach(),
            true => {
                let series = Series::new(()).then(Ready(()).back_on_poller(), move |(), _| Ok(joins()));
                core.start(series).detach();
            }
        }
        assert!(receive(&told));
    }
    let runtime = runtime();
    let elsewhere = self::runtime();
    let (tell, told) = mpsc::channel();
    // On this thread, which goes on with a series.
    elsewhere
        .start(Series::new(()).then(Ready(()), move |(), _| Ok(tell.send(runtime.join().is_err()).unwrap())))
        .detach();
    assert!(receive(&told));
}

#[test]
fn what_starts_when_the_runtime_has_stopped_ends_at_once() {
    let runtime = runtime();
    let core = runtime.handle();
    runtime.shutdown(Duration::ZERO).unwrap();
    let (tell, told) = mpsc::channel();
    let series = Series::new(())
        .then(go(|| ()), |(), _| panic!("it was not started"))
        .finally(move |outcome, ()| tell.send(matches!(outcome, Err(SeriesError::Aborted))).unwrap());
    let handle = core.start(series);
    assert!(handle.is_done());
    // A series that was never started has no end: it was dropped.
    assert!(told.recv_timeout(PATIENCE).is_err());
}

/// Starts another task within its own start, which panics.
struct StartsOneThatPanics;

impl Task for StartsOneThatPanics {
    type Output = u32;

    fn dispatch(self, done: tidegate::task::Continuation<u32>) {
        let runtime = done.runtime().clone();
        runtime.spawn(Panics).detach();
        done.complete(1);
    }
}

#[test]
fn a_task_that_panics_within_anothers_start_is_not_the_others_panic() {
    let runtime = runtime();
    let series = Series::new(0).then(StartsOneThatPanics, |n, series| {
        series.context = n;
        Ok(())
    });
    assert_eq!(wait(runtime.start(series)).unwrap().into_result().unwrap(), 1);
}
