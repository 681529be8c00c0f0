//! Giving, cancelling and waking at the same moment: nothing may get lost.
//!
//! Each test plays random rounds for a bounded time. A seed that fails is printed; `TIDEGATE_SEED` replays it, as far as
//! threads can be replayed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tidegate::runtime::{Runtime, RuntimeHandle};
use tidegate::task::{
    Canceller, Condition, Counter, Ended, GoQueue, Lock, Mailbox, MessageQueue, Pool, Series, SeriesError,
    TaskExt, TaskHandle, TimerCancelled, WaitError, go, go_within, sleep,
};

const LONG: Duration = Duration::from_secs(10);
/// For each test.
const TIME: Duration = Duration::from_millis(400);

/// A random generator for a test, and its seed on the screen should it fail.
fn random() -> fastrand::Rng {
    let seed = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("TIDEGATE_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

fn runtime() -> Runtime {
    Runtime::builder().pollers(2).compute_threads(2).build().unwrap()
}

fn over<O: Send + 'static>(handle: TaskHandle<O>) -> Result<O, WaitError> {
    handle.wait_for(LONG).expect("it should have ended long ago")
}

/// Where nobody may meet another. A panic inside would only end a series, so what is seen is kept.
#[derive(Default)]
struct Alone {
    inside: AtomicUsize,
    met: AtomicUsize,
}

impl Alone {
    fn enter(&self) {
        self.met.fetch_add(self.inside.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn check(&self) {
        assert_eq!(self.met.load(Ordering::SeqCst), 0, "two at a time");
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

/// Plays rounds until the time is over.
fn rounds(mut round: impl FnMut(&mut fastrand::Rng)) {
    let mut random = random();
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        round(&mut random);
    }
}

/// Gives here and now, or on one of the runtime's threads: there, what is given waits for its callback.
fn give(runtime: &RuntimeHandle, way: u8, give: impl FnOnce() + Send + 'static) {
    match way {
        0 => give(),
        1 => runtime.spawn(go(give)).detach(),
        _ => runtime
            .start(Series::new(()).then(go(|| ()).back_on_poller(), |(), _| {
                give();
                Ok(())
            }))
            .detach(),
    }
}

/// Calls both on threads of their own, at the same moment.
fn at_once(one: impl FnOnce() + Send, other: impl FnOnce() + Send) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            one();
        });
        start.wait();
        other();
    });
}

/// Some of them, at random.
fn pick(random: &mut fastrand::Rng, all: &[Canceller]) -> Vec<Canceller> {
    all.iter().filter(|_| random.bool()).cloned().collect()
}

fn cancel(chosen: Vec<Canceller>) {
    chosen.iter().for_each(Canceller::cancel);
}

#[test]
fn a_signal_is_seen_or_kept() {
    let runtime = runtime();
    rounds(|random| {
        let condition = Condition::new();
        let seen = Arc::new(AtomicUsize::new(0));
        let handles: Vec<_> = (0..random.usize(1..4))
            .map(|_| {
                let seen = seen.clone();
                runtime.start(Series::new(()).then(condition.wait(), move |_, _| {
                    seen.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }))
            })
            .collect();
        let cancellers: Vec<_> = handles.iter().map(TaskHandle::canceller).collect();
        let (chosen, way) = (pick(random, &cancellers), random.u8(0..3));
        let (core, signalling) = (runtime.handle(), condition.clone());
        at_once(|| cancel(chosen), || give(&core, way, move || signalling.signal()));
        // It was seen, or somebody who comes now gets it.
        let mut probe = None;
        eventually("the signal was lost", || {
            if seen.load(Ordering::SeqCst) > 0 {
                return true;
            }
            probe.get_or_insert_with(|| runtime.spawn(condition.wait())).is_done()
        });
        cancel(cancellers);
        for handle in handles {
            let _ = over(handle).unwrap();
        }
    });
}

#[test]
fn a_message_is_opened_once_or_still_there() {
    let runtime = runtime();
    rounds(|random| {
        let queue = MessageQueue::new(random.usize(1..4));
        let opened = Arc::new(Mutex::new(Vec::new()));
        let takers: Vec<_> = (0..random.usize(1..6))
            .map(|_| {
                let opened = opened.clone();
                runtime.start(Series::new(()).then(queue.take(), move |message, _| {
                    opened.lock().unwrap().push(message?.open());
                    Ok(())
                }))
            })
            .collect();
        let cancellers: Vec<_> = takers.iter().map(TaskHandle::canceller).collect();
        let (chosen, way, count) = (pick(random, &cancellers), random.u8(0..3), random.u32(1..6));
        let (core, filled) = (runtime.handle(), queue.clone());
        let putters = Arc::new(Mutex::new(Vec::new()));
        let (putting, give_core) = (putters.clone(), core.clone());
        at_once(
            || cancel(chosen),
            || {
                give(&core, way, move || {
                    for n in 0..count {
                        putting.lock().unwrap().push(give_core.spawn(filled.put(n)));
                    }
                });
            },
        );
        let mut found = BTreeSet::new();
        eventually("a message was lost", || {
            for n in opened.lock().unwrap().drain(..).chain(queue.try_take()) {
                assert!(found.insert(n), "{n} came twice");
            }
            found.len() == count as usize
        });
        assert_eq!(queue.try_take(), None);
        for putter in putters.lock().unwrap().drain(..) {
            over(putter).unwrap().unwrap();
        }
        queue.close();
        for taker in takers {
            let _ = over(taker).unwrap();
        }
    });
}

#[test]
fn a_panic_on_one_side_is_not_the_others() {
    let runtime = runtime();
    let queue = MessageQueue::new(1);
    let panics = || {
        Series::new(()).then(queue.take(), |message, _| {
            message?.open();
            panic!("as planned")
        })
    };
    let puts = |n| {
        Series::new(false).then(queue.put(n), |put, series| {
            put?;
            series.context = true;
            Ok(())
        })
    };
    let taker = runtime.start(panics());
    assert!(over(runtime.start(puts(1))).unwrap().into_result().unwrap());
    assert!(matches!(over(taker).unwrap().outcome, Err(SeriesError::Panicked)));
    queue.try_put(2).unwrap();
    let putter = runtime.start(puts(3));
    assert!(matches!(over(runtime.start(panics())).unwrap().outcome, Err(SeriesError::Panicked)));
    assert!(over(putter).unwrap().into_result().unwrap());
}

#[test]
fn a_letter_is_opened_or_still_there() {
    let runtime = runtime();
    rounds(|random| {
        let mailbox = Mailbox::new();
        let receiver = runtime.start(Series::new(None).then(
            mailbox.receive(),
            |letter: tidegate::task::Message<u32>, series| {
                series.context = Some(letter.open());
                Ok(())
            },
        ));
        let (way, core, sender, canceller) =
            (random.u8(0..3), runtime.handle(), mailbox.clone(), receiver.canceller());
        at_once(|| canceller.cancel(), || give(&core, way, move || sender.send(7).unwrap()));
        let ended = over(receiver).unwrap().context;
        let mut found = ended;
        eventually("the letter was lost", || {
            found = found.or_else(|| mailbox.try_receive());
            found == Some(7)
        });
    });
}

#[test]
fn values_come_back_and_are_never_shared() {
    let runtime = runtime();
    let used: Arc<[Alone]> = (0..2).map(|_| Alone::default()).collect();
    let pool = Pool::new([0, 1]);
    rounds(|random| {
        let handles: Vec<TaskHandle<Ended<bool>>> = (0..random.usize(1..12))
            .map(|_| {
                let use_value = {
                    let used = used.clone();
                    move |value: usize| {
                        used[value].enter();
                        thread::yield_now();
                        used[value].leave();
                    }
                };
                let time = Duration::from_micros(random.u64(0..200));
                match random.u8(0..3) {
                    0 => runtime.start(Series::new(false).then(pool.get(), move |value, series| {
                        use_value(*value);
                        series.context = true;
                        Ok(())
                    })),
                    1 => {
                        runtime.start(Series::new(false).then(pool.get_within(time), move |value, series| {
                            use_value(*value?);
                            series.context = true;
                            Ok(())
                        }))
                    }
                    // Held while something else runs.
                    _ => runtime.start(Series::new(false).then(pool.get(), move |value, series| {
                        series.push(
                            go(move || {
                                use_value(*value);
                                drop(value);
                            }),
                            |(), series| {
                                series.context = true;
                                Ok(())
                            },
                        );
                        Ok(())
                    })),
                }
            })
            .collect();
        let cancellers: Vec<_> = handles.iter().map(TaskHandle::canceller).collect();
        let (one, other) = (pick(random, &cancellers), pick(random, &cancellers));
        at_once(|| cancel(one), || cancel(other));
        for handle in handles {
            let _ = over(handle).unwrap();
        }
        eventually("a value was lost", || pool.available() == 2);
        assert_eq!(pool.waiting(), 0);
        used.iter().for_each(Alone::check);
    });
}

#[test]
fn a_lock_is_free_in_the_end() {
    let runtime = runtime();
    let inside = Arc::new(Alone::default());
    let lock = Lock::default();
    rounds(|random| {
        let handles: Vec<TaskHandle<()>> = (0..random.usize(1..12))
            .map(|_| {
                let inside = inside.clone();
                let enter = move || {
                    inside.enter();
                    inside.leave();
                };
                match random.bool() {
                    true => runtime.spawn(lock.guard(sleep(Duration::from_micros(random.u64(0..100))))),
                    false => runtime.spawn(lock.guard(go(enter))),
                }
            })
            .collect();
        let cancellers: Vec<_> = handles.iter().map(TaskHandle::canceller).collect();
        let (one, other) = (pick(random, &cancellers), pick(random, &cancellers));
        at_once(|| cancel(one), || cancel(other));
        for handle in handles {
            let _ = over(handle);
        }
        eventually("the lock was lost", || lock.try_lock().is_some());
        assert_eq!(lock.waiting(), 0);
        inside.check();
    });
}

#[test]
fn a_queue_goes_on_whoever_is_cancelled() {
    let runtime = runtime();
    let inside = Arc::new(Alone::default());
    let queue = GoQueue::new(1);
    rounds(|random| {
        let handles: Vec<_> = (0..random.usize(1..12))
            .map(|_| {
                let inside = inside.clone();
                runtime.spawn(queue.go(move || {
                    inside.enter();
                    inside.leave();
                }))
            })
            .collect();
        let cancellers: Vec<_> = handles.iter().map(TaskHandle::canceller).collect();
        let (one, other) = (pick(random, &cancellers), pick(random, &cancellers));
        at_once(|| cancel(one), || cancel(other));
        for handle in handles {
            let _ = over(handle);
        }
        over(runtime.spawn(queue.go(|| ()))).unwrap().unwrap();
        inside.check();
    });
}

#[test]
fn timers_end_once_by_themselves_or_by_name() {
    let runtime = runtime();
    let core = runtime.handle();
    rounds(|random| {
        let handles: Vec<_> = (0..random.usize(1..8))
            .map(|_| runtime.spawn(sleep(Duration::from_micros(random.u64(0..300))).named("t")))
            .collect();
        let cancellers: Vec<_> = handles.iter().map(TaskHandle::canceller).collect();
        let chosen = pick(random, &cancellers);
        let mut told = 0;
        at_once(|| cancel(chosen), || told = core.cancel_timers("t"));
        let ended: Vec<_> = handles.into_iter().map(over).collect();
        let by_name = ended.iter().filter(|end| **end == Ok(Err(TimerCancelled))).count();
        // One that is told may be cancelled before anybody looks.
        assert!(by_name <= told, "{by_name} of {told}");
        assert_eq!(core.cancel_timers("t"), 0);
    });
}

#[test]
fn counts_and_deadlines_race() {
    let runtime = runtime();
    let core = runtime.handle();
    rounds(|random| {
        let counter = Counter::new(2);
        let (all, named) = (runtime.spawn(counter.clone()), runtime.spawn(Counter::named("c", 2)));
        at_once(
            || {
                counter.count();
                core.count_by_name("c");
            },
            || {
                counter.count();
                core.count_by_name("c");
            },
        );
        over(all).unwrap();
        over(named).unwrap();
        let time = Duration::from_micros(random.u64(0..200));
        let handle = runtime.spawn(go_within(time, || 1));
        let canceller = handle.canceller();
        let chosen = random.u8(0..4) == 0;
        at_once(thread::yield_now, || {
            if chosen {
                canceller.cancel();
            }
        });
        match over(handle) {
            Ok(Ok(one)) => assert_eq!(one, 1),
            Ok(Err(_elapsed)) => {}
            Err(error) => assert!(chosen, "{error}"),
        }
    });
}
