//! What tasks cost, with tokio beside.
//!
//! ```text
//! cargo bench --bench tasks                    all cases, five runs of each in turn
//! cargo bench --bench tasks -- series go       those with such a word in their name
//! cargo bench --bench tasks -- --repeats 3 --markdown FILE
//! ```
//!
//! Each run is a process of its own, so that its memory is its own and no case warms another's allocator. Time is the
//! wall's, from the first task made to the last one done; CPU is the process's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use tidegate::runtime::Runtime;
use tidegate::task::{Parallel, Series, Sleep, TaskExt, go, sleep};

/// What tasks cost, with tokio beside
#[derive(Parser)]
struct Options {
    /// Cases to run: those with one of these words in their name; all by default
    cases: Vec<String>,
    /// How often each is run
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Write the table to this file as well
    #[arg(long, value_name = "FILE")]
    markdown: Option<std::path::PathBuf>,
    /// Run one case here, and print its figures
    #[arg(long, hide = true)]
    child: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

const MILLION: usize = 1_000_000;

type Figures = BTreeMap<&'static str, f64>;

/// Name, what it measures, and the function.
type Case = (&'static str, &'static str, fn() -> Figures);

const CASES: &[Case] = &[
    ("series-instant", "series of 1,000,000 tasks that finish at once", series_instant),
    ("series-go", "series of 1,000,000 `go` tasks", series_go),
    ("series-tokio-spawn", "tokio: 1,000,000 times spawn and await, one after another", tokio_series),
    (
        "series-tokio-blocking",
        "tokio: 100,000 times spawn_blocking and await, one after another",
        tokio_blocking,
    ),
    ("parallel-go", "1,000,000 `go` tasks side by side, 2 threads", parallel_go),
    ("parallel-tokio-spawn", "tokio: 1,000,000 tasks spawned, then awaited, 2 threads", tokio_parallel),
    ("timers-same", "1,000,000 timers of 1 ms", timers_same),
    ("timers-mixed", "1,000,000 timers of 1 to 1,000 ms", timers_mixed),
    ("timers-tokio-same", "tokio: 1,000,000 sleeps of 1 ms", tokio_timers_same),
    ("timers-tokio-mixed", "tokio: 1,000,000 sleeps of 1 to 1,000 ms", tokio_timers_mixed),
    ("handover", "poller to computing thread and back, idle in between", handover),
];

fn main() -> ExitCode {
    let options = Options::parse();
    if options.child {
        let name = options.cases.first().map_or("", String::as_str);
        if let Some((_, _, run)) = CASES.iter().find(|(case, ..)| *case == name) {
            for (figure, value) in run() {
                println!("{figure} {value}");
            }
        }
        return ExitCode::SUCCESS;
    }
    if !options.bench {
        // `cargo test --benches` runs this too: that it builds is all there is to test.
        return ExitCode::SUCCESS;
    }
    match table(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tasks: {error}");
            ExitCode::FAILURE
        }
    }
}

fn table(options: &Options) -> std::io::Result<()> {
    let wanted = |name: &str| {
        options.cases.is_empty() || options.cases.iter().any(|word| name.contains(word.as_str()))
    };
    let cases: Vec<_> = CASES.iter().filter(|(name, ..)| wanted(name)).collect();
    let mut samples: Vec<BTreeMap<String, Vec<f64>>> = vec![BTreeMap::new(); cases.len()];
    for run in 1..=options.repeats {
        for ((name, ..), samples) in cases.iter().zip(&mut samples) {
            eprint!("\r\x1b[K{name}, run {run} of {} …", options.repeats);
            let output = Command::new(std::env::current_exe()?).args(["--child", name]).output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(std::io::Error::other(format!("{name}: {said}")));
            }
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                if let Some((figure, value)) = line.rsplit_once(' ') {
                    samples.entry(figure.to_owned()).or_default().push(value.parse().unwrap_or(f64::NAN));
                }
            }
        }
    }
    eprintln!();
    let mut text = format!("{}. Medians (least-most) of {} runs.\n\n", machine(), options.repeats);
    text += "| case | figure | value |\n|---|---|--:|\n";
    for ((_, title, _), samples) in cases.iter().zip(&mut samples) {
        for (figure, values) in samples {
            values.sort_by(f64::total_cmp);
            let (least, median, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
            let _ = writeln!(
                text,
                "| {title} | {figure} | {} ({}-{}) |",
                short(median),
                short(least),
                short(most)
            );
        }
    }
    print!("{text}");
    if let Some(path) = &options.markdown {
        std::fs::write(path, text)?;
    }
    Ok(())
}

fn short(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_matches([' ', '\t', ':']);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} × {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

/// Wall and CPU time of `work`, each over `count`, and the memory that the process had at most.
fn measure(count: usize, work: impl FnOnce()) -> Figures {
    let (began, cpu) = (Instant::now(), cpu_time());
    work();
    let (wall, cpu) = (began.elapsed(), cpu_time() - cpu);
    BTreeMap::from([
        ("ns a task", wall.as_nanos() as f64 / count as f64),
        ("CPU ns a task", cpu.as_nanos() as f64 / count as f64),
        ("CPU s", cpu.as_secs_f64()),
        ("peak MB", peak_megabytes()),
    ])
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1000.0
}

fn runtime() -> Runtime {
    Runtime::builder().compute_threads(2).build().expect("a runtime")
}

/// Finishes at once.
struct Instant0;

impl tidegate::task::Task for Instant0 {
    type Output = ();

    fn dispatch(self, done: tidegate::task::Continuation<()>) {
        done.complete(());
    }
}

fn series_instant() -> Figures {
    let runtime = runtime();
    let mut ran = Duration::ZERO;
    let mut figures = measure(MILLION, || {
        let mut series = Series::new(0_u64);
        for n in 0..MILLION as u64 {
            let other = n ^ 1;
            series.push(Instant0, move |(), series| {
                series.context = series.context.wrapping_add(n).wrapping_mul(other | 1);
                Ok(())
            });
        }
        let began = Instant::now();
        let ended = runtime.run(series).expect("it runs");
        ran = began.elapsed();
        ended.outcome.expect("it ends well");
    });
    figures.insert("ns a task, running alone", ran.as_nanos() as f64 / MILLION as f64);
    figures
}

fn series_go() -> Figures {
    let runtime = runtime();
    measure(MILLION, || {
        let mut series = Series::new(0_u64);
        for n in 0..MILLION as u64 {
            series.push(go(move || n), |n, series| {
                series.context += n;
                Ok(())
            });
        }
        let ended = runtime.run(series).expect("it runs").into_result().expect("it ends well");
        assert_eq!(ended, (MILLION as u64 - 1) * MILLION as u64 / 2);
    })
}

fn parallel_go() -> Figures {
    let runtime = runtime();
    measure(MILLION, || {
        let all: Parallel<_> = (0..MILLION as u64).map(|n| go(move || n)).collect();
        let sum: u64 = runtime.run(all).expect("it runs").into_iter().map(|n| n.expect("it is done")).sum();
        assert_eq!(sum, (MILLION as u64 - 1) * MILLION as u64 / 2);
    })
}

fn timers_same() -> Figures {
    timers(|_| 1)
}

fn timers_mixed() -> Figures {
    timers(mixed)
}

/// From 1 to 1,000, in no order.
fn mixed(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000 + 1
}

fn timers(millis: impl Fn(u64) -> u64) -> Figures {
    let runtime = runtime();
    measure(MILLION, || {
        let all: Parallel<Sleep> =
            (0..MILLION as u64).map(|n| sleep(Duration::from_millis(millis(n)))).collect();
        assert!(runtime.run(all).expect("it runs").iter().all(Result::is_ok));
    })
}

/// Each round begins on the poller, goes to a computing thread and comes back to the poller. Between rounds, all sleep.
fn handover() -> Figures {
    const ROUNDS: usize = 2_000;
    let runtime = runtime();
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (tell, told) = mpsc::channel();
            let series = Series::new(None)
                .then(sleep(Duration::from_millis(1)), |(), series: &mut Series<Option<Instant>>| {
                    series.context = Some(Instant::now());
                    Ok(())
                })
                .then(go(|| ()).back_on_poller(), move |(), series| {
                    let _ = tell.send(series.context.map(|began| began.elapsed()));
                    Ok(())
                });
            runtime.start(series).detach();
            told.recv().ok().flatten().map_or(f64::NAN, |time| time.as_nanos() as f64 / 1_000.0)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    BTreeMap::from([("p50 µs", times[ROUNDS / 2]), ("p99 µs", times[ROUNDS * 99 / 100])])
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("tokio's runtime")
}

fn tokio_series() -> Figures {
    let runtime = tokio_runtime();
    measure(MILLION, || {
        runtime.block_on(async {
            tokio::spawn(async {
                let mut sum = 0;
                for n in 0..MILLION as u64 {
                    sum += tokio::spawn(async move { n }).await.expect("it is done");
                }
                assert_eq!(sum, (MILLION as u64 - 1) * MILLION as u64 / 2);
            })
            .await
            .expect("it is done");
        });
    })
}

fn tokio_blocking() -> Figures {
    let (runtime, count) = (tokio_runtime(), MILLION / 10);
    measure(count, || {
        runtime.block_on(async {
            for n in 0..count {
                assert_eq!(tokio::task::spawn_blocking(move || n).await.expect("it is done"), n);
            }
        });
    })
}

fn tokio_parallel() -> Figures {
    let runtime = tokio_runtime();
    measure(MILLION, || {
        runtime.block_on(async {
            let handles: Vec<_> = (0..MILLION as u64).map(|n| tokio::spawn(async move { n })).collect();
            let mut sum = 0;
            for handle in handles {
                sum += handle.await.expect("it is done");
            }
            assert_eq!(sum, (MILLION as u64 - 1) * MILLION as u64 / 2);
        });
    })
}

fn tokio_timers_same() -> Figures {
    tokio_timers(|_| 1)
}

fn tokio_timers_mixed() -> Figures {
    tokio_timers(mixed)
}

fn tokio_timers(millis: impl Fn(u64) -> u64) -> Figures {
    let runtime = tokio_runtime();
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    measure(MILLION, || {
        runtime.block_on(async {
            let handles: Vec<_> = (0..MILLION as u64)
                .map(|n| {
                    let left = left.clone();
                    let time = Duration::from_millis(millis(n));
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        left.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    })
                })
                .collect();
            for handle in handles {
                handle.await.expect("it is done");
            }
        });
    })
}
