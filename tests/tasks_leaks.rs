//! Nothing stays behind: no memory that nobody can reach, no timers that nobody waits for.

#[path = "tasks/mod.rs"]
mod tasks;

use std::ops::ControlFlow::{Break, Continue};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tasks::*;
use tidegate::runtime::Runtime;
use tidegate::task::{Graph, Parallel, Parked, Select, Series, TaskExt, go, repeat, sleep};

const SHORT: Duration = Duration::from_millis(2);
/// Valgrind takes about a second for it, and some more on a busy machine.
const VALGRIND_MAX: Duration = Duration::from_secs(180);

#[test]
fn valgrind_finds_nothing_lost() {
    let own = std::env::current_exe().unwrap();
    let mut child = Command::new("valgrind")
        .args(["--leak-check=full", "--show-leak-kinds=definite,indirect", "--error-exitcode=99"])
        .args(["--errors-for-leak-kinds=definite,indirect", "--num-callers=40"])
        .arg(own)
        .args(["--exact", "what_valgrind_watches", "--test-threads=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind is not installed: run tests/run, which installs it, or: apt-get install valgrind");
    let mut stderr = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut stderr, &mut said).map(|_| said)
    });
    let deadline = Instant::now() + VALGRIND_MAX;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("valgrind was not done after {VALGRIND_MAX:?}: {}", said.join().unwrap().unwrap());
        }
        // A process gives no event that can be waited for with a deadline.
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = said.join().unwrap().unwrap();
    assert!(status.success(), "{status}: {said}");
    let mut ran = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut ran).unwrap();
    assert!(ran.contains("1 passed"), "{ran}");
    let none = ["definitely lost: 0 bytes", "no leaks are possible"];
    assert!(none.iter().any(|words| said.contains(words)), "{said}");
}

/// Series that end well, that fail, panic, are cancelled, and are cut by the end of their runtime.
#[test]
fn what_valgrind_watches() {
    silence_planned_panics();
    for round in 0..3 {
        let runtime = Runtime::builder().pollers(2).compute_threads(2).build().unwrap();
        let handles: Vec<_> = (0..10).map(|n| runtime.start(everything(n))).collect();
        let (waiting, places) = all_that_waits();
        let waiting: Vec<_> = waiting.into_iter().map(|series| runtime.start(series)).collect();
        for (n, handle) in handles.into_iter().enumerate() {
            match n % 3 {
                0 => handle.cancel(),
                1 => drop(wait(handle)),
                _ => handle.detach(),
            }
        }
        match round {
            0 => waiting.iter().for_each(|handle| handle.cancel()),
            1 => runtime.shutdown(SHORT).unwrap(),
            _ => drop(runtime),
        }
        drop((waiting, places));
    }
}

fn everything(n: u32) -> Series<Vec<u32>> {
    let graph = {
        let mut graph = Graph::new();
        let a = graph.add(go(|| 1), |_| Ok(()));
        let b = graph.add(sleep(SHORT), move |()| if n == 4 { Err("as planned".into()) } else { Ok(()) });
        let c = graph.add(Ready(2), |_| Ok(()));
        graph.chain([a, b, c]);
        graph.build().unwrap()
    };
    let answer = |n: u32| go(move || if n < 2 { Err(n) } else { Ok(n) });
    Series::new(vec![n])
        .and_then(graph, |(), _| Ok(()))
        .and_then((0..4).map(answer).collect::<Select<_>>().timeout(LONG), |_, _| Ok(()))
        .then(sleep(LONG).timeout(SHORT), |_, series: &mut Series<Vec<u32>>| {
            series.push_front(repeat(9, |_| go(|| ()), |(), left| count_down(left)), |(), _| Ok(()));
            Ok(())
        })
        .then((0..9).map(|n| go(move || n)).collect::<Parallel<_>>(), move |results, series| {
            assert!(n != 7, "{AS_PLANNED}");
            series.context.extend(results.into_iter().flatten());
            Ok(())
        })
        .then(Series::new(()).then(sleep(SHORT).back_on_poller(), |(), _| Ok(())), |ended, _| {
            ended.into_result().map_err(Into::into)
        })
        .then(Panics.boxed(), |_, _| Ok(()))
        .finally(|_, context| context.clear())
}

type Place = Parked<Result<u32, u32>>;

/// Series whose tasks are never done.
fn all_that_waits() -> (Vec<Series<u32>>, mpsc::Receiver<Place>) {
    let (tell, places) = mpsc::channel();
    let waits = || Waits(tell.clone());
    let series = || Series::new(0).finally(|_, n| *n += 1);
    let mut graph = Graph::new();
    let (a, b) = (graph.add(waits(), |_| Ok(())), graph.add(waits(), |_| Ok(())));
    graph.edge(a, b);
    let all = vec![
        series().then(waits(), |_, _| Ok(())),
        series().then(waits().timeout(LONG), |_, _| Ok(())),
        series().then(sleep(LONG).timeout(LONG).timeout(LONG), |_, _| Ok(())),
        series().then([waits(), waits()].into_iter().collect::<Parallel<_>>(), |_, _| Ok(())),
        series().then([waits(), waits()].into_iter().collect::<Select<_>>(), |_, _| Ok(())),
        series().then(graph.build().unwrap(), |_, _| Ok(())),
        series().then(repeat((), move |()| sleep(SHORT), |(), ()| Continue::<()>(())), |(), _| Ok(())),
    ];
    (all, places)
}

#[test]
fn timers_of_tasks_in_time_do_not_pile_up() {
    let runtime = Runtime::builder().compute_threads(1).build().unwrap();
    let rounds = |count: u32| {
        let rounds = repeat(count, |_| Ready(()).timeout(LONG), |_, left| count_down(left));
        // On a poller's thread, so that timers are started and cancelled without a way in between.
        let series = Series::new(()).then(sleep(SHORT), |_, _| Ok(())).then(rounds, |(), _| Ok(()));
        wait(runtime.start(series)).unwrap().into_result().unwrap();
    };
    rounds(1_000);
    let before = resident_kilobytes();
    rounds(100_000);
    let grown = resident_kilobytes().saturating_sub(before);
    // Each keeps about 300 bytes, which would be 30 MB.
    assert!(grown < 15_000, "{grown} kB more");
}

fn count_down(left: &mut u32) -> std::ops::ControlFlow<()> {
    *left -= 1;
    if *left == 0 { Break(()) } else { Continue(()) }
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
