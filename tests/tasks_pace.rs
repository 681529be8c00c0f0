//! Paced work on a real runtime. That rates and shares hold is shown on simulated time, beside the code.

use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tidegate::runtime::Runtime;
use tidegate::task::{
    BudgetExt, Ended, Paced, PacedReader, Series, SeriesError, Spender, Ticks, WaitError, go,
};
use tidegate_poller::Budget;

const PATIENCE: Duration = Duration::from_secs(10);

fn runtime() -> Runtime {
    Runtime::builder().compute_threads(1).build().unwrap()
}

fn budget(rate: Option<u64>) -> Budget {
    Budget::builder("total").rate(rate).build()
}

/// Acquires again and again, and counts.
fn again(budget: Budget, units: u64) -> Series<u64> {
    fn step(series: &mut Series<u64>, budget: Budget, units: u64) {
        series.push(budget.acquire(units), move |(), series| {
            series.context += units;
            step(series, budget, units);
            Ok(())
        });
    }
    let mut series = Series::new(0);
    step(&mut series, budget, units);
    series
}

#[test]
fn the_rate_is_kept_in_real_seconds() {
    let runtime = runtime();
    let budget = budget(Some(1_000_000));
    let start = Instant::now();
    let handles = [1_000, 5_000].map(|units| runtime.start(again(budget.clone(), units)));
    // The time that is measured.
    thread::sleep(Duration::from_secs(2));
    let sums = handles.map(|handle| {
        handle.cancel();
        handle.wait_for(PATIENCE).expect("it ends").unwrap().context
    });
    let expected = 1_000_000.0 * start.elapsed().as_secs_f64();
    let sum = sums.iter().sum::<u64>() as f64;
    // A quantum and what is asked for at a time may be on their way. Below: this machine may stall.
    assert!(sum <= expected * 1.01 + 24_000.0, "{sum} of {expected}");
    assert!(sum >= expected * 0.9, "{sum} of {expected}");
}

#[test]
fn without_a_rate_and_for_nothing_it_is_done_at_once() {
    let runtime = runtime();
    runtime.run(budget(None).acquire(u64::MAX)).unwrap();
    runtime.run(budget(Some(0)).acquire(0)).unwrap();
    assert_eq!(
        runtime.run(Paced::events(0..1_000, &budget(None)).for_each(|_| Ok(()))).unwrap().context.items(),
        1_000
    );
}

#[test]
fn a_changed_rate_wakes_who_waits() {
    let runtime = runtime();
    let (total, none) = (budget(Some(0)), budget(Some(0)));
    let child = Budget::builder("child").parent(&total).build();
    let waiting = [child.acquire(100), total.acquire(100), none.acquire(1)].map(|task| runtime.spawn(task));
    let started = Instant::now();
    assert!(waiting.iter().all(|handle| !handle.is_done()));
    total.set_rate(Some(1_000_000));
    let [child, root, other] = waiting;
    child.wait_for(PATIENCE).expect("it was woken").unwrap();
    root.wait_for(PATIENCE).expect("it was woken").unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    none.set_rate(None);
    other.wait_for(PATIENCE).expect("it was woken").unwrap();
    // Downward: what would be quick takes long now.
    let slow = runtime.spawn(total.acquire(1_000_000_000));
    total.set_rate(Some(10));
    let slow = slow.wait_for(Duration::from_millis(50)).expect_err("it takes years");
    slow.cancel();
    assert_eq!(slow.wait(), Err(WaitError::Dropped));
}

#[test]
fn cancelled_before_while_and_after() {
    let runtime = runtime();
    let total = budget(Some(1_000_000));
    // Before it is started.
    let blocked = budget(Some(0));
    let series = Series::new(0).then(go(|| 1), |_, series| {
        series.cancel();
        Ok(())
    });
    let ended = runtime.run(series.then(blocked.acquire(1), |(), _| unreachable!())).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
    // While it waits, in front of another.
    let long = runtime.start(Series::new(3).then(total.acquire(u64::MAX / 2), |(), _| unreachable!()));
    let short = runtime.spawn(total.acquire(1_000));
    let short = short.wait_for(Duration::from_millis(20)).expect_err("it stands behind the long one");
    long.cancel();
    let Ended { outcome, context } = long.wait_for(PATIENCE).expect("it ends").unwrap();
    assert!(matches!(outcome, Err(SeriesError::Cancelled)));
    assert_eq!(context, 3);
    short.wait_for(PATIENCE).expect("the way is free").unwrap();
    // After.
    let done = runtime.spawn(total.acquire(1));
    while !done.is_done() {
        thread::yield_now();
    }
    done.cancel();
    assert_eq!(done.wait(), Ok(()));
}

#[test]
fn dropping_the_runtime_ends_who_waits() {
    let (total, blocked) = (budget(Some(10)), budget(Some(0)));
    let runtime = runtime();
    let (sender, over) = mpsc::channel();
    let waiting = [total.acquire(1_000_000), blocked.acquire(1)].map(|task| {
        let sender = sender.clone();
        let series = Series::new(1).then(task, |(), _| unreachable!());
        runtime.start(series.finally(move |_, _| sender.send(()).unwrap()))
    });
    drop(runtime);
    for handle in waiting {
        over.recv_timeout(PATIENCE).expect("finally ran");
        assert!(handle.wait().unwrap().outcome.is_err());
    }
    // The budget outlives the runtime.
    let other = self::runtime();
    total.set_rate(None);
    other.spawn(total.acquire(5)).wait_for(PATIENCE).expect("nobody is before it").unwrap();
}

#[test]
fn two_runtimes_share_a_budget() {
    let runtimes = [runtime(), runtime()];
    let budget = budget(Some(1_000_000));
    let handles = runtimes.each_ref().map(|runtime| runtime.start(again(budget.clone(), 2_000)));
    // The time that is measured.
    thread::sleep(Duration::from_secs(2));
    let [one, two] = handles.map(|handle| {
        handle.cancel();
        handle.wait_for(PATIENCE).expect("it ends").unwrap().context as f64
    });
    assert!((0.8..1.25).contains(&(one / two)), "{one} and {two}");
    assert!((1_700_000.0..3_000_000.0).contains(&(one + two)), "{}", one + two);
}

#[test]
fn a_million_are_done_on_constant_stack_and_memory() {
    let runtime = runtime();
    let budget = budget(Some(4_000_000_000));
    let paced = Paced::by(0..200_000, &Spender::new(&budget), |_| 100);
    let paced = runtime.run(paced.for_each(|_| Ok(()))).unwrap().into_result().unwrap();
    assert_eq!((paced.items(), paced.units()), (200_000, 20_000_000));
}

#[test]
fn chunks_come_one_by_one_in_order() {
    let runtime = runtime();
    let budget = budget(Some(200_000));
    let chunks = (0..10u8).map(|n| vec![n; 2_000]);
    let mut paced = Paced::bytes(chunks, &budget);
    let started = Instant::now();
    let mut seen = Vec::new();
    for chunk in paced.wait_each(&runtime) {
        seen.push(chunk.unwrap()[0]);
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    // 20,000 bytes in 100 ms, less the depth and a quantum.
    assert!(started.elapsed() >= Duration::from_millis(60), "{:?}", started.elapsed());
    assert!(runtime.run(paced.next_item()).unwrap().is_none(), "it stays at its end");
}

#[test]
fn an_error_of_the_receiver_ends_the_stream() {
    let runtime = runtime();
    let paced = Paced::events(0.., &budget(Some(1_000)));
    let ended = runtime.run(paced.for_each(|n| if n < 3 { Ok(()) } else { Err("enough".into()) })).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Failed(error)) if error.to_string() == "enough"));
    assert_eq!(ended.context.items(), 4);
}

#[test]
fn ticks_do_not_drift_and_are_never_made_up_for() {
    let runtime = runtime();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let started = Instant::now();
    let ticks = Ticks::every(Duration::from_millis(10)).for_each(move |tick| {
        noted.lock().unwrap().push(tick);
        if tick.number == 5 {
            // Longer than three ticks are apart.
            thread::sleep(Duration::from_millis(35));
        }
        if tick.number >= 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let ticks = runtime.run(ticks).unwrap().into_result().unwrap();
    let (took, seen) = (started.elapsed(), seen.lock().unwrap().clone());
    let last = seen.last().unwrap();
    let due = Duration::from_millis(10 * last.number);
    assert!(took >= due && took <= due + last.late + Duration::from_millis(100), "{took:?} for {due:?}");
    assert!(seen.windows(2).all(|pair| pair[1].number == pair[0].number + 1 + pair[1].missed));
    assert!(ticks.missed() >= 2, "the long one cost some");
    assert_eq!(ticks.asked() + ticks.missed(), last.number);
}

#[test]
fn ticks_can_be_cancelled_and_end_with_the_runtime() {
    let runtime = runtime();
    let hours = || Ticks::every(Duration::from_secs(3_600)).for_each(|_| ControlFlow::Continue(()));
    let handle = runtime.start(hours());
    handle.cancel();
    let ended = handle.wait_for(PATIENCE).expect("it ends").unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
    let handle = runtime.start(hours());
    drop(runtime);
    assert!(handle.wait_for(PATIENCE).expect("it ends").unwrap().outcome.is_err());
}

#[test]
fn what_a_source_has_comes_in_chunks() {
    let runtime = runtime();
    let budget = budget(Some(200_000));
    let bytes: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let started = Instant::now();
    let reader = PacedReader::new(io::Cursor::new(bytes.clone()), 3_000, &budget);
    let chunks = reader.for_each(move |chunk| {
        noted.lock().unwrap().push(chunk);
        Ok(())
    });
    runtime.run(chunks).unwrap().into_result().unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen.iter().map(Vec::len).collect::<Vec<_>>(),
        [3_000, 3_000, 3_000, 3_000, 3_000, 3_000, 2_000]
    );
    assert_eq!(seen.concat(), bytes);
    assert!(started.elapsed() >= Duration::from_millis(60), "{:?}", started.elapsed());
}

#[test]
fn an_error_of_the_source_ends_the_stream() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("as planned"))
        }
    }
    let runtime = runtime();
    let mut reader = PacedReader::new(Broken, 10, &budget(None));
    assert_eq!(runtime.run(reader.next_chunk()).unwrap().unwrap_err().to_string(), "as planned");
    let ended = runtime.run(reader.for_each(|_| Ok(()))).unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Failed(_))));
    // Cancelled while the bytes wait for their turn.
    let reader = PacedReader::new(io::repeat(1), 1_000, &budget(Some(0)));
    let handle = runtime.start(reader.for_each(|_| unreachable!()));
    let handle = handle.wait_for(Duration::from_millis(20)).expect_err("rate 0");
    handle.cancel();
    let ended = handle.wait_for(PATIENCE).expect("it ends").unwrap();
    assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)));
}
