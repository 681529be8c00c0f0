//! What goes wrong on purpose: panics where nobody expects them, cancels at the wrong moment, waits that would wait for
//! themselves, depth.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tidegate::runtime::Runtime;
use tidegate::task::{
    BackOnPoller, BudgetExt, Canceller, Continuation, Counter, Ended, Parallel, Parked, Series, SeriesError,
    Task, TaskExt, TaskHandle, WaitError, go, go_within, sleep,
};
use tidegate_poller::Budget;

const LONG: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);

/// Ends when a test says so.
struct Wait(mpsc::Sender<Parked<()>>);

impl Task for Wait {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        self.0.send(done.park()).unwrap();
    }
}

/// Done within its dispatch.
struct Instant;

impl Task for Instant {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        done.complete(());
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as planned");
    }
}

/// A task on a poller's thread.
fn on_poller() -> BackOnPoller<Instant> {
    Instant.back_on_poller()
}

fn end<O: Send + 'static>(handle: TaskHandle<O>) -> Result<O, WaitError> {
    handle.wait_for(LONG).expect("it ends")
}

/// A series that tells how it ended.
fn told<C: Send + 'static>(series: Series<C>) -> (Series<C>, mpsc::Receiver<String>) {
    let (tell, told) = mpsc::channel();
    (series.finally(move |outcome, _| tell.send(format!("{outcome:?}")).unwrap()), told)
}

#[test]
fn a_cancel_is_not_lost_before_the_timer_has_reached_its_poller() {
    let runtime = Runtime::builder().pollers(1).build().unwrap();
    let (give, given) = mpsc::channel::<Canceller>();
    let (ready, is_ready) = mpsc::channel();
    let cancels = runtime.start(Series::new(()).then(on_poller(), move |(), _| {
        ready.send(()).unwrap();
        // The poller is kept here, so the timer is still on its way.
        given.recv().unwrap().cancel();
        Ok(())
    }));
    is_ready.recv_timeout(LONG).unwrap();
    let sleeps = runtime.spawn(sleep(HOUR));
    give.send(sleeps.canceller()).unwrap();
    end(cancels).unwrap().into_result().unwrap();
    assert_eq!(end(sleeps), Err(WaitError::Dropped));
}

#[test]
fn finally_runs_though_a_task_that_is_dropped_panics() {
    let runtime = Runtime::new().unwrap();
    let (first, second) = (Bomb, Bomb);
    let (series, ended) = told(
        Series::new(())
            .then(Instant, |(), _| Err("as planned".into()))
            .then(Instant, move |(), _| Ok(drop(first)))
            .then(Instant, move |(), _| Ok(drop(second))),
    );
    let handle = runtime.start(series);
    assert_eq!(ended.recv_timeout(LONG).unwrap(), "Err(Failed(\"as planned\"))");
    let _ = end(handle).unwrap();
}

#[test]
fn finally_runs_though_tasks_of_one_kind_panic_when_dropped() {
    let runtime = Runtime::new().unwrap();
    for cancelled in [true, false] {
        let (wait, waiting) = mpsc::channel();
        let mut series = Series::new(()).then(Instant, |(), _| Ok(()));
        for _ in 0..5 {
            let bomb = Bomb;
            series.push(Wait(wait.clone()), move |(), _| Ok(std::mem::forget(bomb)));
        }
        let (series, ended) = told(series);
        let handle = runtime.start(series);
        let parked = waiting.recv_timeout(LONG).unwrap();
        match cancelled {
            true => handle.cancel(),
            // Who drops it is told that the callback that it holds panics.
            false => assert!(std::panic::catch_unwind(|| drop(parked.take())).is_err()),
        }
        let expected = if cancelled { "Err(Cancelled)" } else { "Err(Panicked)" };
        assert_eq!(ended.recv_timeout(LONG).unwrap(), expected);
        let _ = end(handle).unwrap();
    }
}

#[test]
fn a_panic_while_one_is_cancelled_does_not_spare_the_others() {
    let runtime = Runtime::new().unwrap();
    let (wait, waiting) = mpsc::channel();
    let bomb = Bomb;
    let first = runtime.start(Series::new(()).then(Wait(wait.clone()), move |(), _| Ok(drop(bomb))));
    let bomb = Bomb;
    let timer = runtime.start(Series::new(()).then(sleep(HOUR), move |(), _| Ok(drop(bomb))));
    let (series, ended) = told(Series::new(()).then(Wait(wait.clone()), |(), _| Ok(())));
    let second = runtime.start(series);
    let bomb = Bomb;
    let mut group = Parallel::new();
    group.push(Series::new(()).then(Wait(wait.clone()), move |(), _| Ok(drop(bomb))));
    group.push(Series::new(()).then(Wait(wait), move |(), _| Ok(())));
    let group = runtime.spawn(group);
    let _parked: Vec<_> = (0..4).map(|_| waiting.recv_timeout(LONG).unwrap()).collect();
    group.cancel();
    runtime.shutdown(Duration::ZERO).unwrap();
    assert!(first.is_done() && second.is_done() && timer.is_done() && group.is_done());
    assert_eq!(ended.recv_timeout(LONG).unwrap(), "Err(Cancelled)");
}

#[test]
fn bombs_in_the_queue_for_a_thread_do_not_keep_a_runtime_from_ending() {
    let runtime = Runtime::builder().compute_threads(1).build().unwrap();
    let (begin, begun) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let blocks = runtime.spawn(go(move || {
        begin.send(()).unwrap();
        let _ = held.recv();
    }));
    begun.recv_timeout(LONG).unwrap();
    let ends: Vec<_> = (0..10)
        .map(|_| {
            let bomb = Bomb;
            let (series, ended) = told(Series::new(()).then(go(move || drop(bomb)), |(), _| Ok(())));
            runtime.start(series).detach();
            ended
        })
        .collect();
    let stops = std::thread::spawn(move || drop(runtime));
    for ended in ends {
        assert_eq!(ended.recv_timeout(LONG).unwrap(), "Err(Cancelled)");
    }
    drop(release);
    stops.join().unwrap();
    assert!(blocks.is_done());
}

#[test]
fn bombs_on_a_poller_that_ends_spare_those_beside_them() {
    let runtime = Runtime::builder().pollers(1).build().unwrap();
    std::thread::scope(|scope| {
        let ends: Vec<_> = (0..10)
            .map(|_| {
                let bomb = Bomb;
                let (begin, begun) = mpsc::channel();
                // Nobody can cancel what is run: it goes with the poller.
                let (series, ended) = told(
                    Series::new(())
                        .then(Instant, move |(), _| Ok(begin.send(()).unwrap()))
                        .then(sleep(HOUR), move |(), _| Ok(drop(bomb))),
                );
                let runtime = &runtime;
                scope.spawn(move || runtime.run(series));
                begun.recv_timeout(LONG).unwrap();
                ended
            })
            .collect();
        runtime.pollers().shutdown(Duration::ZERO);
        for ended in ends {
            assert_eq!(ended.recv_timeout(LONG).unwrap(), "Err(Panicked)");
        }
    });
}

#[test]
fn a_runtime_dropped_on_its_own_thread_ends_what_waits_elsewhere() {
    let runtime = Arc::new(Runtime::new().unwrap());
    let never = Counter::new(1);
    let (series, ended) = told(Series::new(()).then(never.clone(), |(), _| Ok(())));
    let waits = runtime.start(series);
    let last = runtime.clone();
    let (release, held) = mpsc::channel::<()>();
    let drops = runtime.spawn(go(move || {
        held.recv().unwrap();
        drop(last);
    }));
    drop(runtime);
    release.send(()).unwrap();
    assert_eq!(ended.recv_timeout(LONG).unwrap(), "Err(Cancelled)");
    let _ = end(waits);
    let _ = end(drops);
}

#[test]
fn an_endless_grace_waits_for_what_runs() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.start(Series::new(0).then(sleep(Duration::from_millis(5)), |(), series| {
        series.context = 1;
        Ok(())
    }));
    runtime.shutdown(Duration::MAX).unwrap();
    assert_eq!(end(handle).unwrap().into_result().unwrap(), 1);
}

#[test]
fn a_callback_that_waits_is_told_at_once_on_any_thread() {
    let runtime = Arc::new(Runtime::new().unwrap());
    let other = Arc::new(Runtime::new().unwrap());
    // On the thread of the test, which the series goes on on.
    let (core, inner) = (runtime.handle(), runtime.clone());
    let series = Series::new(None).then(Instant, move |(), series| {
        series.context = Some((core.spawn(Instant).wait(), inner.run(go(|| 1))));
        Ok(())
    });
    let context = end(runtime.start(series)).unwrap().context;
    assert_eq!(context, Some((Err(WaitError::OwnThread), Err(WaitError::OwnThread))));
    // On a poller of another runtime.
    let inner = other.clone();
    let series = Series::new(None).then(on_poller(), move |(), series| {
        series.context = Some(inner.run(go(|| 1)));
        Ok(())
    });
    assert_eq!(end(runtime.start(series)).unwrap().context, Some(Err(WaitError::OwnThread)));
    // A computation may wait for another runtime.
    assert_eq!(end(runtime.spawn(go(move || other.run(go(|| 1))))), Ok(Ok(1)));
}

fn nested(depth: u32) -> Series<u32> {
    let series = Series::new(depth);
    match depth {
        0 => series.then(Instant, |(), _| Ok(())),
        _ => series.then_with(
            |depth| nested(*depth - 1),
            |ended: Ended<u32>, series| {
                series.context = ended.into_result()? + 1;
                Ok(())
            },
        ),
    }
}

#[test]
fn series_in_series_go_as_deep_as_they_like() {
    let runtime = Runtime::new().unwrap();
    assert_eq!(runtime.run(nested(100_000)).unwrap().into_result().unwrap(), 100_000);
}

/// A series in a parallel in a series in …
struct Nest(u32, Wait);

impl Task for Nest {
    type Output = Ended<()>;

    fn dispatch(self, done: Continuation<Ended<()>>) {
        let Nest(depth, wait) = self;
        match depth {
            0 => Series::new(()).then(wait, |(), _| Ok(())).dispatch(done),
            _ => {
                let one = Parallel::from_iter([Nest(depth - 1, wait)]);
                Series::new(()).then(one, |_, _| Ok(())).dispatch(done);
            }
        }
    }
}

#[test]
fn a_cancel_goes_as_deep_as_it_must() {
    let runtime = Runtime::new().unwrap();
    let (wait, waiting) = mpsc::channel();
    let nest = runtime.spawn(Nest(20_000, Wait(wait)));
    let parked = waiting.recv_timeout(LONG).unwrap();
    nest.cancel();
    assert!(!parked.is_waiting());
    assert!(matches!(end(nest).unwrap().outcome, Err(SeriesError::Cancelled)));
}

#[test]
fn chains_of_computations_do_not_starve_what_a_thread_has_taken() {
    let runtime = Runtime::builder().compute_threads(2).build().unwrap();
    let core = runtime.handle();
    let (begin, begun) = mpsc::channel();
    let hold = |_| {
        let (release, held) = mpsc::channel::<()>();
        let begin = begin.clone();
        runtime
            .spawn(go(move || {
                begin.send(()).unwrap();
                let _ = held.recv();
            }))
            .detach();
        begun.recv_timeout(LONG).unwrap();
        release
    };
    let held: Vec<_> = (0..2).map(hold).collect();
    fn again(series: &mut Series<()>) {
        series.push(go(|| ()), |(), series| {
            again(series);
            Ok(())
        });
    }
    let ran = Arc::new(AtomicUsize::new(0));
    let mut jobs = Vec::new();
    let mut chains = Vec::new();
    for n in 0..64 {
        if n % 8 == 0 {
            let mut chain = Series::new(());
            again(&mut chain);
            chains.push(core.start(chain));
        }
        let ran = ran.clone();
        jobs.push(core.spawn(go(move || {
            ran.fetch_add(1, Ordering::SeqCst);
        })));
    }
    drop(held);
    for job in jobs {
        end(job).unwrap();
    }
    assert_eq!(ran.load(Ordering::SeqCst), 64);
    chains.iter().for_each(TaskHandle::cancel);
    for chain in chains {
        assert!(matches!(end(chain).unwrap().outcome, Err(SeriesError::Cancelled)));
    }
}

#[test]
fn a_panic_of_one_who_acquires_is_not_the_others() {
    let runtime = Runtime::builder().pollers(1).build().unwrap();
    let (limited, free) = (Budget::builder("l").rate(1_000).build(), Budget::builder("f").build());
    let (ready, is_ready) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    // The poller is kept until time has brought what another waits for, so whoever comes next gives it out.
    let series = Series::new(()).then(on_poller(), move |(), series| {
        ready.send(()).unwrap();
        wait.recv().unwrap();
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        series.push(free.acquire(1), |(), _| panic!("as planned"));
        Ok(())
    });
    let panics = runtime.start(series);
    is_ready.recv_timeout(LONG).unwrap();
    let waits = loop {
        let acquires = runtime.spawn(limited.acquire(5));
        if !acquires.is_done() {
            break acquires;
        }
    };
    go_on.send(()).unwrap();
    assert!(matches!(end(panics).unwrap().outcome, Err(SeriesError::Panicked)));
    assert_eq!(end(waits), Ok(()));
}

#[test]
fn finally_never_runs_on_an_unwinding_thread() {
    let runtime = Runtime::builder().compute_threads(1).build().unwrap();
    let (tell, told) = mpsc::channel();
    for within in [true, false] {
        let tell = tell.clone();
        let series = match within {
            true => {
                Series::new(()).then(go_within(LONG, || panic!("as planned")), |_: Result<(), _>, _| Ok(()))
            }
            false => Series::new(()).then(go(|| panic!("as planned")), |(), _| Ok(())),
        };
        let series = series.finally(move |_, ()| tell.send(std::thread::panicking()).unwrap());
        let ended = end(runtime.start(series)).unwrap();
        assert!(matches!(ended.outcome, Err(SeriesError::Panicked)));
        assert!(!told.recv_timeout(LONG).unwrap(), "within: {within}");
    }
}

/// Cancels, completes and drops of the runtime overtake each other; each series ends once, whatever came first.
#[test]
fn every_series_ends_once_whoever_is_first() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let runtime = Runtime::builder().pollers(2).compute_threads(2).build().unwrap();
        let ended = Arc::new(AtomicUsize::new(0));
        let (wait, waiting) = mpsc::channel();
        let mut handles = Vec::new();
        for _ in 0..200 {
            let mut series = Series::new(());
            for _ in 0..random.usize(1..5) {
                match random.u8(..7) {
                    0 => series.push(go(|| ()), |(), _| Ok(())),
                    1 => series.push(sleep(Duration::from_micros(random.u64(..2_000))), |(), _| Ok(())),
                    2 => series.push(sleep(HOUR), |(), _| Ok(())),
                    3 => series.push(on_poller(), |(), _| Ok(())),
                    4 => series.push(Wait(wait.clone()), |(), _| Ok(())),
                    5 => series.push(go(|| ()).back_on_poller(), |(), _| Err("as planned".into())),
                    _ => series.push(
                        Parallel::from_iter([sleep(HOUR), sleep(Duration::ZERO)]).stop_when(|()| true),
                        |_, _| Ok(()),
                    ),
                }
            }
            let ended = ended.clone();
            handles.push(runtime.start(series.finally(move |_, ()| {
                ended.fetch_add(1, Ordering::SeqCst);
            })));
        }
        drop(wait);
        let cancellers: Vec<_> = handles.iter().map(TaskHandle::canceller).collect();
        let gives_up = random.bool();
        std::thread::scope(|scope| {
            scope.spawn(|| cancellers.iter().step_by(2).for_each(Canceller::cancel));
            scope.spawn(move || {
                for (index, parked) in waiting.iter().enumerate() {
                    match index % 2 {
                        0 => drop(parked.complete(())),
                        _ => drop(parked.take()),
                    }
                }
            });
            scope.spawn(|| match gives_up {
                true => drop(runtime),
                false => {
                    cancellers.iter().rev().for_each(Canceller::cancel);
                    runtime.shutdown(LONG).unwrap();
                }
            });
        });
        for handle in handles {
            let _ = end(handle).unwrap();
        }
        assert_eq!(ended.load(Ordering::SeqCst), 200);
    }
}
