//! Futures as tasks, and tasks as futures.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use tidegate::runtime::Runtime;
use tidegate::task::{Dropped, Series, SeriesError, WaitError, future, go, sleep};

const PATIENCE: Duration = Duration::from_secs(10);

fn runtime() -> Runtime {
    Runtime::builder().compute_threads(2).build().unwrap()
}

/// A future that others finish.
#[derive(Default)]
struct Promise(Mutex<(Option<u32>, Option<Waker>)>);

impl Promise {
    async fn get(self: Arc<Promise>) -> u32 {
        poll_fn(|context| {
            let mut state = self.0.lock().unwrap();
            match state.0.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    state.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Waits until somebody waits for it.
    fn waker(&self) -> Waker {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(waker) = self.0.lock().unwrap().1.clone() {
                return waker;
            }
            assert!(std::time::Instant::now() < until, "nobody waits");
            thread::yield_now();
        }
    }

    fn keep(&self, value: u32) {
        let waker = {
            let mut state = self.0.lock().unwrap();
            state.0 = Some(value);
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Says when it is dropped.
struct Alarm(mpsc::Sender<&'static str>, &'static str);

impl Drop for Alarm {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

#[test]
fn a_future_is_polled_on_the_computing_threads_only() {
    let runtime = Runtime::builder().name("here").compute_threads(1).build().unwrap();
    let promise = Arc::new(Promise::default());
    let waited = promise.clone();
    let names = Arc::new(Mutex::new(Vec::new()));
    let seen = names.clone();
    let note = move || seen.lock().unwrap().push(thread::current().name().unwrap_or_default().to_owned());
    let task = runtime.spawn(future(async move {
        note();
        let value = waited.get().await;
        note();
        value
    }));
    promise.waker();
    promise.keep(7);
    assert_eq!(task.wait(), Ok(7));
    assert_eq!(*names.lock().unwrap(), ["here-compute-0", "here-compute-0"]);
}

#[test]
fn wake_ups_coalesce_and_none_is_lost() {
    let runtime = runtime();
    let polls = Arc::new(AtomicU32::new(0));
    let promise = Arc::new(Promise::default());
    let (counted, waited) = (polls.clone(), promise.clone());
    let task = runtime.spawn(future(async move {
        let mut inner = pin!(waited.get());
        poll_fn(|context| {
            counted.fetch_add(1, Ordering::Relaxed);
            inner.as_mut().poll(context)
        })
        .await
    }));
    let waker = promise.waker();
    // Both threads are kept: the wake-ups are all for one poll to come.
    let (release, gates) = (Arc::new((Mutex::new(false), Condvar::new())), mpsc::channel());
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let (release, started) = (release.clone(), gates.0.clone());
            runtime.spawn(go(move || {
                started.send(()).unwrap();
                let mut open = release.0.lock().unwrap();
                while !*open {
                    open = release.1.wait(open).unwrap();
                }
            }))
        })
        .collect();
    for _ in 0..2 {
        gates.1.recv_timeout(PATIENCE).unwrap();
    }
    let before = polls.load(Ordering::Relaxed);
    for _ in 0..1_000 {
        waker.wake_by_ref();
    }
    assert_eq!(polls.load(Ordering::Relaxed), before, "nothing is polled by the waker");
    *release.0.lock().unwrap() = true;
    release.1.notify_all();
    for task in busy {
        task.wait().unwrap();
    }
    promise.keep(1);
    assert_eq!(task.wait(), Ok(1));
    assert!(polls.load(Ordering::Relaxed) <= before + 2);
}

#[test]
fn a_wake_up_at_any_moment_is_heard() {
    let runtime = runtime();
    for round in 0..2_000 {
        let promise = Arc::new(Promise::default());
        let task = runtime.spawn(future(promise.clone().get()));
        for _ in 0..round % 7 * 20 {
            std::hint::spin_loop();
        }
        promise.keep(round);
        assert_eq!(task.wait_for(PATIENCE).expect("it was woken"), Ok(round));
    }
}

#[test]
fn one_that_wakes_itself_goes_on_and_lets_others_on() {
    let runtime = Runtime::builder().compute_threads(1).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let spinning = runtime.spawn(future(poll_fn(move |context| {
        context.waker().wake_by_ref();
        if seen.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    })));
    let other = runtime.spawn(future(async { 5 }));
    assert_eq!(other.wait_for(PATIENCE).expect("others have their turns"), Ok(5));
    stop.store(true, Ordering::Relaxed);
    assert_eq!(spinning.wait(), Ok(()));
}

#[test]
fn a_panic_ends_the_series() {
    let runtime = runtime();
    let unwinding = Arc::new(AtomicBool::new(false));
    let seen = unwinding.clone();
    let series = Series::new(3)
        .then(
            future(async {
                if true {
                    panic!("as planned");
                }
            }),
            |(), _| Ok(()),
        )
        .finally(move |_, _| seen.store(thread::panicking(), Ordering::Relaxed));
    let ended = runtime.run(series).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Panicked)), "{:?}", ended.outcome);
    assert_eq!(ended.context, 3);
    assert!(!unwinding.load(Ordering::Relaxed), "finally runs on a stack that is whole");
    assert_eq!(runtime.run(future(async { 1 })), Ok(1), "the threads are there");
}

#[test]
fn cancelling_drops_the_future() {
    let runtime = runtime();
    let (sender, dropped) = mpsc::channel();
    // Before: the only thread that could poll it is kept.
    let single = Runtime::builder().compute_threads(1).build().unwrap();
    let (release, kept) = mpsc::channel::<()>();
    let busy = single.spawn(go(move || kept.recv_timeout(PATIENCE)));
    let alarm = Alarm(sender.clone(), "before");
    let task = single.spawn(future(async move {
        let _alarm = alarm;
        unreachable!("it was cancelled");
    }));
    task.cancel();
    assert_eq!(dropped.recv_timeout(PATIENCE), Ok("before"));
    assert_eq!(task.wait().map(|(): ()| ()), Err(WaitError::Dropped));
    drop(release);
    let _ = busy.wait();
    // While it waits.
    let promise = Arc::new(Promise::default());
    let (waited, alarm) = (promise.clone(), Alarm(sender.clone(), "while"));
    let task = runtime.spawn(future(async move {
        let _alarm = alarm;
        waited.get().await
    }));
    promise.waker();
    task.cancel();
    assert_eq!(dropped.recv_timeout(PATIENCE), Ok("while"));
    assert_eq!(task.wait(), Err(WaitError::Dropped));
    promise.keep(1);
    // While it is polled.
    let (entered, inside) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let alarm = Alarm(sender, "polled");
    let task = runtime.spawn(future(async move {
        let _alarm = alarm;
        entered.send(()).unwrap();
        let _ = left.recv_timeout(PATIENCE);
        std::future::pending::<()>().await
    }));
    inside.recv_timeout(PATIENCE).unwrap();
    task.cancel();
    drop(leave);
    assert_eq!(dropped.recv_timeout(PATIENCE), Ok("polled"));
    assert_eq!(task.wait(), Err(WaitError::Dropped));
    // After.
    let task = runtime.spawn(future(async { 4 }));
    while !task.is_done() {
        thread::yield_now();
    }
    task.cancel();
    assert_eq!(task.wait(), Ok(4));
}

#[test]
fn one_that_nobody_can_wake_ends_its_series() {
    let runtime = runtime();
    let series = Series::new(1).then(future(std::future::pending::<()>()), |(), _| Ok(()));
    let handle = runtime.start(series);
    let ended = handle.wait_for(PATIENCE).expect("it ends").unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Aborted)));
}

#[test]
fn dropping_the_runtime_drops_what_waits() {
    let (sender, dropped) = mpsc::channel();
    let promise = Arc::new(Promise::default());
    let runtime = runtime();
    let (waited, alarm, over) = (promise.clone(), Alarm(sender.clone(), "future"), sender);
    let series = Series::new(9).then(
        future(async move {
            let _alarm = alarm;
            waited.get().await
        }),
        |_, _| Ok(()),
    );
    let handle = runtime.start(series.finally(move |_, _| over.send("finally").unwrap()));
    promise.waker();
    drop(runtime);
    assert_eq!(dropped.recv_timeout(PATIENCE), Ok("future"));
    assert_eq!(dropped.recv_timeout(PATIENCE), Ok("finally"));
    let ended = handle.wait().unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
    promise.keep(1);
}

// --- a lent context ------------------------------------------------------------------------------------------------

#[test]
fn a_series_lends_its_context_and_gets_it_back() {
    let runtime = runtime();
    let handle = runtime.handle();
    let series = Series::new(vec![1])
        .then_async(
            move |mut numbers| async move {
                for n in 2..5 {
                    handle.spawn(sleep(Duration::from_millis(1))).await?;
                    numbers.push(n);
                }
                Ok::<_, Dropped>(numbers.iter().sum::<i32>())
            },
            |sum, series| {
                let sum = sum?;
                series.context.push(sum);
                series.push_async(
                    |mut numbers| async move { numbers.push(0) },
                    |(), series| {
                        series.context.push(-1);
                        Ok(())
                    },
                );
                Ok(())
            },
        )
        .then(go(|| 8), |eight, series| {
            series.context.push(eight);
            Ok(())
        });
    assert_eq!(runtime.run(series).unwrap().into_result().unwrap(), [1, 2, 3, 4, 10, 8, 0, -1]);
}

#[test]
fn a_reference_into_the_context_may_live_across_an_await() {
    async fn length(text: &str) -> usize {
        tokio::task::yield_now().await;
        text.len()
    }
    let runtime = runtime();
    let series = Series::new(String::from("lent")).then_async(
        |text| async move { length(&text).await },
        |length, series| {
            series.context = length.to_string();
            Ok(())
        },
    );
    assert_eq!(runtime.run(series).unwrap().into_result().unwrap(), "4");
}

#[test]
fn after_a_panic_the_context_is_there() {
    let runtime = runtime();
    let (sender, over) = mpsc::channel();
    let series = Series::new(vec![1])
        .then_async(
            |mut numbers| async move {
                numbers.push(2);
                tokio::task::yield_now().await;
                panic!("as planned");
            },
            |(), _| unreachable!("it panicked"),
        )
        .finally(move |_, numbers: &mut Vec<i32>| {
            sender.send((numbers.clone(), thread::panicking())).unwrap()
        });
    let ended = runtime.run(series).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Panicked)), "{:?}", ended.outcome);
    assert_eq!(ended.context, [1, 2]);
    assert_eq!(over.try_iter().collect::<Vec<_>>(), [(vec![1, 2], false)], "once");
}

#[test]
fn a_panic_before_there_is_a_future_is_one_too() {
    let runtime = runtime();
    let series = Series::new(1).then_async(
        |mut n| {
            *n += 1;
            if true {
                panic!("as planned");
            }
            async {}
        },
        |(), _| Ok(()),
    );
    let ended = runtime.run(series).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Panicked)), "{:?}", ended.outcome);
    assert_eq!(ended.context, 2);
}

#[test]
fn cancelled_while_it_is_lent_the_context_is_there() {
    let runtime = runtime();
    let promise = Arc::new(Promise::default());
    let waited = promise.clone();
    let series = Series::new(1).then_async(
        |mut n| async move {
            *n = 2;
            waited.get().await
        },
        |_, _| unreachable!("it was cancelled"),
    );
    let handle = runtime.start(series);
    promise.waker();
    handle.cancel();
    let ended = handle.wait_for(PATIENCE).expect("it ends").unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
    assert_eq!(ended.context, 2);
}

#[test]
fn the_series_waits_for_the_future_and_for_the_context() {
    let runtime = runtime();
    let (give, given) = mpsc::channel();
    let series = Series::new(1).then_async(
        move |lent| async move {
            give.send(lent).unwrap();
            5
        },
        |five, series| {
            series.context += five;
            Ok(())
        },
    );
    let handle = runtime.start(series);
    let mut lent = given.recv_timeout(PATIENCE).unwrap();
    let handle = handle.wait_for(Duration::from_millis(20)).expect_err("the context is out");
    *lent += 10;
    drop(lent);
    assert_eq!(handle.wait().unwrap().into_result().unwrap(), 16);
    // The other way: the context is back first.
    let promise = Arc::new(Promise::default());
    let waited = promise.clone();
    let series = Series::new(1).then_async(
        |lent| async move {
            drop(lent);
            waited.get().await
        },
        |value, series| {
            series.context += value;
            Ok(())
        },
    );
    let handle = runtime.start(series);
    promise.waker();
    promise.keep(4);
    assert_eq!(handle.wait().unwrap().into_result().unwrap(), 5);
}

#[test]
fn dropping_the_runtime_while_the_context_is_lent() {
    let runtime = runtime();
    let promise = Arc::new(Promise::default());
    let waited = promise.clone();
    let series = Series::new(6).then_async(
        |lent| async move {
            let n = waited.get().await;
            drop(lent);
            n
        },
        |_, _| Ok(()),
    );
    let handle = runtime.start(series);
    promise.waker();
    drop(runtime);
    assert_eq!(handle.wait_for(PATIENCE).expect("it ends").unwrap().context, 6);
}

// --- handles under other executors -----------------------------------------------------------------------------------

/// The plainest executor.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Unpark>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
    }
}

async fn use_handles(one: &Runtime, other: &Runtime) {
    let (a, b) = (one.spawn(go(|| 40)), other.spawn(go(|| 2)));
    assert_eq!(a.await.unwrap() + b.await.unwrap(), 42);
    // After it is done.
    let done = one.spawn(sleep(Duration::ZERO));
    while !done.is_done() {
        thread::yield_now();
    }
    assert_eq!(done.await, Ok(()));
    // Cancelled.
    let long = other.spawn(sleep(Duration::from_secs(3_600)));
    let canceller = long.canceller();
    one.spawn(go(move || canceller.cancel())).await.unwrap();
    assert_eq!(long.await, Err(Dropped));
    // A dropped handle changes nothing.
    let (ran, runs) = mpsc::channel();
    one.spawn(go(move || ran.send(()).unwrap())).detach();
    one.spawn(go(move || runs.recv_timeout(PATIENCE).unwrap())).await.unwrap();
}

#[test]
fn handles_under_a_plain_executor() {
    let (one, other) = (runtime(), runtime());
    block_on(use_handles(&one, &other));
}

#[tokio::test]
async fn handles_under_tokio_on_one_thread() {
    let (one, other) = (runtime(), runtime());
    use_handles(&one, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_under_tokio_on_threads() {
    let (one, other) = (Arc::new(runtime()), Arc::new(runtime()));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (one, other) = (one.clone(), other.clone());
            tokio::spawn(async move { use_handles(&one, &other).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // The last handles are dropped here, on a thread of tokio's.
}

#[tokio::test]
async fn the_loser_of_a_select_can_be_cancelled() {
    let runtime = runtime();
    let mut slow = runtime.spawn(sleep(Duration::from_secs(3_600)));
    tokio::select! {
        _ = &mut slow => unreachable!("it takes an hour"),
        done = runtime.spawn(go(|| 1)) => assert_eq!(done, Ok(1)),
    }
    slow.cancel();
    assert_eq!(tokio::time::timeout(PATIENCE, slow).await.unwrap(), Err(Dropped));
    assert_eq!(runtime.handle().figures().running, 0);
}

#[tokio::test]
async fn a_future_of_tokio_s_can_be_a_task() {
    let runtime = runtime();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let series =
        Series::new(0).then_async(|mut n| async move { *n = receiver.await.unwrap_or(-1) }, |(), _| Ok(()));
    let handle = runtime.start(series);
    sender.send(12).unwrap();
    assert_eq!(handle.await.unwrap().into_result().unwrap(), 12);
}

#[test]
fn a_handle_that_moves_between_tasks_wakes_the_last_that_asked() {
    let runtime = runtime();
    let (release, kept) = mpsc::channel::<()>();
    let mut handle = runtime.spawn(go(move || kept.recv_timeout(PATIENCE).is_err()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(&mut handle).poll(&mut context).is_pending());
    drop(release);
    assert_eq!(block_on(handle), Ok(true));
}

#[test]
fn finally_after_a_panic_of_a_computation() {
    let runtime = runtime();
    let (sender, over) = mpsc::channel();
    let series = Series::new(())
        .then(
            go(|| {
                if true {
                    panic!("as planned")
                }
            }),
            |(), _| Ok(()),
        )
        .finally(move |_, _| sender.send(thread::panicking()).unwrap());
    let _ended = runtime.run(series).unwrap();
    assert_eq!(over.recv(), Ok(false), "finally runs on a stack that is whole");
}
