//! Every kind of task that can wait, under every hazard that is the same for all of them: cancelled before, cancelled
//! while it waits, late, and with the runtime dropped under it. What becomes of its series is the same, too: it ends, and
//! its context is gone.

mod protocol_support;
#[path = "tasks/mod.rs"]
mod tasks;

use std::any::Any;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::mpsc;
use std::time::Duration;

use protocol_support::{Frames, plain_server, read_frame};
use tasks::*;
use tidegate::net::UdpSocket;
use tidegate::net::protocol::{Client, ClientSettings};
use tidegate::poller::{Budget, sys};
use tidegate::runtime::Runtime;
use tidegate::task::{
    BoxTask, BudgetExt, Condition, Counter, GoQueue, Graph, Lent, Lock, Mailbox, MessageQueue, NamedCounter,
    Paced, PacedReader, Parallel, Pool, Select, Series, SeriesError, Spender, TaskExt, Ticks, blocking,
    future, go, go_within, read, repeat, sleep, sleep_until,
};

use tokio::sync::oneshot;

const SHORT: Duration = Duration::from_millis(2);

/// A task that waits longer than the test, and what keeps it waiting.
struct Case(BoxTask<()>, Box<dyn Any + Send>);

type Make = fn(&Runtime) -> Case;

fn case<T: TaskExt>(task: T, keeps: impl Send + 'static) -> Case {
    Case(task.map(|_| ()).boxed(), Box::new(keeps))
}

/// One to build others around.
fn waits() -> (Waits<u32>, mpsc::Receiver<tidegate::task::Parked<u32>>) {
    Waits::new()
}

/// Keeps the only computing thread.
fn hold_computing(runtime: &Runtime) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let holds = go(move || {
        begin.send(()).unwrap();
        let _ = held.recv();
    });
    runtime.spawn(holds).detach();
    receive(&begun);
    release
}

/// Keeps all threads for what blocks.
fn hold_blocking(runtime: &Runtime) -> Vec<mpsc::Sender<()>> {
    let (begin, begun) = mpsc::channel();
    let hold = |_| {
        let (release, held) = mpsc::channel::<()>();
        let begin = begin.clone();
        let holds = blocking(move || {
            begin.send(()).unwrap();
            let _ = held.recv();
        });
        runtime.spawn(holds).detach();
        receive(&begun);
        release
    };
    (0..4).map(hold).collect()
}

fn closed_budget() -> Budget {
    Budget::builder("closed").rate(0).build()
}

const KINDS: &[(&str, Make)] = &[
    ("a task of one's own", |_| {
        let (task, places) = waits();
        case(task, places)
    }),
    ("sleep", |_| case(sleep(LONG), ())),
    ("sleep_until", |_| case(sleep_until(sys::now() + LONG), ())),
    ("named sleep", |_| case(sleep(LONG).named("nobody cancels it"), ())),
    ("go", |runtime| case(go(|| ()), hold_computing(runtime))),
    ("go_within", |runtime| case(go_within(LONG, || ()), hold_computing(runtime))),
    ("GoQueue", |runtime| {
        let queue = GoQueue::new(1);
        let (release, held) = mpsc::channel::<()>();
        runtime.spawn(queue.go(move || held.recv().is_ok())).detach();
        case(queue.go(|| ()), release)
    }),
    ("blocking", |runtime| case(blocking(|| ()), hold_blocking(runtime))),
    ("file", |runtime| case(read("/proc/self/status"), hold_blocking(runtime))),
    ("future", |_| {
        let (tell, told) = oneshot::channel::<()>();
        case(future(told), tell)
    }),
    ("then_async", |_| {
        let (tell, told) = oneshot::channel::<()>();
        let lent = |lent| async move {
            let _ = told.await;
            drop::<Lent<()>>(lent);
        };
        case(Series::new(()).then_async(lent, |(), _| Ok(())), tell)
    }),
    ("Counter", |_| {
        let counter = Counter::new(2);
        counter.count();
        let handle = counter.clone();
        case(counter, handle)
    }),
    ("NamedCounter", |_| {
        let counter: NamedCounter = Counter::named("nobody counts", 2);
        case(counter, ())
    }),
    ("Condition", |_| {
        let condition = Condition::new();
        case(condition.wait(), condition)
    }),
    ("Condition, named", |runtime| {
        let condition = Condition::named(&runtime.handle(), "nobody signals");
        case(condition.wait(), condition)
    }),
    ("Mailbox", |_| {
        let mailbox = Mailbox::<u32>::new();
        case(mailbox.receive(), mailbox)
    }),
    ("MessageQueue, take", |_| {
        let queue = MessageQueue::<u32>::new(1);
        case(queue.take(), queue)
    }),
    ("MessageQueue, put", |_| {
        let queue = MessageQueue::<u32>::new(1);
        queue.try_put(1).unwrap();
        case(queue.put(2), queue)
    }),
    ("Lock", |_| {
        let lock = Lock::new(1);
        case(lock.lock(), lock.try_lock().unwrap())
    }),
    ("Lock, guard", |_| {
        let lock = Lock::new(1);
        case(lock.guard(go(|| ())), lock.try_lock().unwrap())
    }),
    ("Pool", |_| {
        let pool = Pool::new([1]);
        case(pool.get(), pool.try_get().unwrap())
    }),
    ("Pool, within", |_| {
        let pool = Pool::new([1]);
        case(pool.get_within(LONG), pool.try_get().unwrap())
    }),
    ("acquire", |_| case(closed_budget().acquire(1), ())),
    ("Spender", |_| case(Spender::new(&closed_budget()).acquire(1), ())),
    ("Paced", |_| {
        let mut paced = Paced::events(0..10, &closed_budget());
        case(paced.next_item(), paced)
    }),
    ("PacedReader", |_| {
        let mut reader = PacedReader::new(std::io::repeat(1), 100, &closed_budget());
        case(reader.next_chunk(), reader)
    }),
    ("Ticks", |_| {
        let mut ticks = Ticks::starting_at(sys::now() + LONG, LONG);
        case(ticks.next_tick(), ticks)
    }),
    ("Series", |_| {
        let (task, places) = waits();
        case(Series::new(()).then(task, |_, _| Ok(())), places)
    }),
    ("Series, made in its turn", |_| {
        let (task, places) = waits();
        let mut task = Some(task);
        case(Series::new(()).then_with(move |()| task.take().unwrap(), |_, _| Ok(())), places)
    }),
    ("Parallel", |_| {
        let (task, places) = waits();
        case(Parallel::from_iter([task.boxed(), Ready(1).boxed()]), places)
    }),
    ("Graph", |_| {
        let (task, places) = waits();
        let mut graph = Graph::new();
        let first = graph.add(task, |_| Ok(()));
        let second = graph.add(Ready(1), |_| Ok(()));
        graph.edge(first, second);
        case(graph.build().unwrap(), places)
    }),
    ("Select", |_| {
        let (task, places) = waits();
        case(Select::from_iter([task.map(Ok::<u32, u32>).boxed(), Ready(Err(1)).boxed()]), places)
    }),
    ("repeat", |_| {
        let (task, places) = waits();
        let mut tasks = vec![task.boxed(), Ready(0).boxed()];
        let round = move |_: &mut ()| tasks.pop().unwrap();
        case(repeat((), round, |n, ()| if n == 0 { Continue(()) } else { Break(()) }), places)
    }),
    ("timeout", |_| {
        let (task, places) = waits();
        case(task.timeout(LONG), places)
    }),
    ("map", |_| {
        let (task, places) = waits();
        case(task.map(|n| n + 1), places)
    }),
    ("followed_by", |_| {
        let (task, places) = waits();
        case(Ready(()).followed_by(move |()| task), places)
    }),
    ("back_on_poller", |_| {
        let (task, places) = waits();
        case(task.back_on_poller(), places)
    }),
    ("Client::request", |runtime| {
        let address = plain_server(|_, mut stream| while read_frame(&mut stream).is_some() {});
        let client = Client::new(&runtime.handle(), Frames::default(), ClientSettings::default());
        case(client.request(address, b"x".to_vec()), client)
    }),
    ("UdpSocket::receive", |runtime| {
        let socket = UdpSocket::bind(&runtime.handle(), "127.0.0.1:0".parse().unwrap()).unwrap();
        case(socket.receive(), socket)
    }),
];

/// Calls `try_it` with each kind, on a runtime of its own.
fn for_each_kind(try_it: impl Fn(&'static str, Runtime, Case)) {
    silence_planned_panics();
    for (kind, make) in KINDS {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        let case = make(&runtime);
        try_it(kind, runtime, case);
    }
}

fn series(census: &Census, task: BoxTask<()>) -> Series<Life> {
    Series::new(census.life()).then(task, |(), _| Ok(()))
}

#[test]
fn cancelled_before_it_starts_it_is_dropped() {
    for_each_kind(|kind, runtime, Case(task, _keeps)| {
        let census = Census::default();
        let series = Series::new(census.life())
            .then(Ready(()), |(), series: &mut Series<Life>| Ok(series.cancel()))
            .then(task, |(), _| Ok(()));
        let ended = wait(runtime.start(series)).unwrap();
        assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)), "{kind}: {:?}", ended.outcome);
        drop(ended);
        assert_eq!(census.alive(), 0, "{kind}");
    });
}

#[test]
fn cancelled_while_it_waits_it_ends_at_once() {
    for_each_kind(|kind, runtime, Case(task, _keeps)| {
        let census = Census::default();
        let handle = runtime.start(series(&census, task));
        handle.cancel();
        let ended = wait(handle).unwrap();
        assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)), "{kind}: {:?}", ended.outcome);
        drop(ended);
        assert_eq!(census.alive(), 0, "{kind}");
    });
}

#[test]
fn late_it_is_given_up_and_the_series_goes_on() {
    for_each_kind(|kind, runtime, Case(task, _keeps)| {
        let series = Series::new(false).then(task.timeout(SHORT), |output, series| {
            series.context = output.is_err();
            Ok(())
        });
        let late = wait(runtime.start(series)).unwrap().into_result();
        assert!(matches!(late, Ok(true)), "{kind}: {late:?}");
    });
}

#[test]
fn it_ends_with_its_runtime() {
    for_each_kind(|kind, runtime, Case(task, keeps)| {
        let census = Census::default();
        let handle = runtime.start(series(&census, task));
        // What is held is released later: the runtime waits for its threads.
        let dropped = std::thread::spawn(move || drop(runtime));
        let ended = wait(handle).unwrap();
        assert!(matches!(ended.outcome, Err(SeriesError::Cancelled)), "{kind}: {:?}", ended.outcome);
        drop(ended);
        assert_eq!(census.alive(), 0, "{kind}");
        drop(keeps);
        dropped.join().unwrap();
    });
}
