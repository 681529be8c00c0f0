//! Random compositions of tasks beside a simple model of what may come of them.
//!
//! A [`Plan`] is drawn from a seed and built into a task. [`Plan::check`] is the model: it says whether a result may
//! come of the plan. Whatever happens, each series that was started runs its `finally` once, and nothing of a
//! plan is left in the end. A seed that fails is printed; `TIDEGATE_SEED=7` replays one, `TIDEGATE_SEEDS=1000` tries so many.

#[path = "tasks/mod.rs"]
mod tasks;

use std::collections::VecDeque;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fastrand::Rng;
use tasks::*;
use tidegate::runtime::Runtime;
use tidegate::task::{
    BoxTask, Continuation, Ended, Error, Graph, Parallel, Select, Series, SeriesError, Task, TaskExt,
    TaskHandle, WaitError, go, repeat, sleep,
};

// The model

/// What is to be run.
#[derive(Clone, Debug)]
enum Plan {
    Done(u32),
    Computed(u32),
    Slept(u32, Duration),
    Lost,
    Panics,
    ComputationPanics,
    Series(Vec<Step>),
    Parallel(Vec<Plan>),
    Select(Vec<Plan>),
    /// Edges lead from lower to higher.
    Graph(Vec<Step>, Vec<(usize, usize)>),
    Repeat(Box<Plan>, usize),
    InTime(Box<Plan>),
    TooLate,
}

#[derive(Clone, Debug)]
struct Step(Plan, Say);

/// What a callback does.
#[derive(Clone, Debug)]
enum Say {
    Well,
    Fail,
    Panic,
    /// The rest are for series only.
    Cancel,
    PushFront(Box<Step>),
    PushBack(Box<Step>),
}

/// What came of it.
#[derive(Debug)]
enum Got {
    Value(u32),
    Series { end: End, got: Vec<Got>, finals: u32 },
    Parallel(Vec<Option<Got>>),
    Select(Result<Box<Got>, Vec<Option<Got>>>),
    Graph { failed: Option<(usize, End)>, got: Vec<(usize, Got)> },
    Repeat(Vec<Got>),
    Elapsed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    Failed,
    Cancelled,
    Panicked,
    Aborted,
}

impl Plan {
    /// Whether this may come of it.
    fn check(&self, got: Option<&Got>) -> Result<(), String> {
        let fine = match (self, got) {
            (Plan::Done(n) | Plan::Computed(n) | Plan::Slept(n, _), Some(Got::Value(value))) => n == value,
            (Plan::Lost | Plan::Panics | Plan::ComputationPanics, None) => true,
            (Plan::TooLate, Some(Got::Elapsed)) => true,
            (Plan::Series(steps), Some(Got::Series { end, got, finals: 1 })) => {
                return check_series(steps, *end, got);
            }
            (Plan::Parallel(plans), Some(Got::Parallel(got))) => return check_all(plans, got),
            (Plan::Select(plans), Some(Got::Select(Ok(won)))) => {
                won.is_good() && plans.iter().any(|plan| plan.check(Some(won)).is_ok())
            }
            (Plan::Select(plans), Some(Got::Select(Err(got)))) => {
                check_all(plans, got)?;
                !got.iter().flatten().any(Got::is_good)
            }
            (Plan::Graph(nodes, edges), Some(Got::Graph { failed, got })) => {
                return check_graph(nodes, edges, *failed, got);
            }
            (Plan::Repeat(plan, count), Some(Got::Repeat(got))) => {
                for got in got {
                    plan.check(Some(got))?;
                }
                got.len() == *count
            }
            (Plan::Repeat(plan, _), None) | (Plan::InTime(plan), _) => return plan.check(got),
            _ => false,
        };
        if fine { Ok(()) } else { Err(format!("{got:?} cannot come of {self:?}")) }
    }
}

fn check_all(plans: &[Plan], got: &[Option<Got>]) -> Result<(), String> {
    if plans.len() != got.len() {
        return Err(format!("{} results of {plans:?}", got.len()));
    }
    plans.iter().zip(got).try_for_each(|(plan, got)| plan.check(got.as_ref()))
}

fn check_series(steps: &[Step], end: End, got: &[Got]) -> Result<(), String> {
    let mut left: VecDeque<Step> = steps.iter().cloned().collect();
    let mut got = got.iter();
    let expected: &[End] = loop {
        let Some(Step(plan, say)) = left.pop_front() else { break &[End::Well] };
        let Some(got) = got.next() else {
            plan.check(None)?;
            break &[End::Aborted, End::Panicked];
        };
        plan.check(Some(got))?;
        match say {
            Say::Well => {}
            Say::Fail => break &[End::Failed],
            Say::Panic => break &[End::Panicked],
            Say::Cancel => break &[End::Cancelled],
            Say::PushFront(step) => left.push_front(*step),
            Say::PushBack(step) => left.push_back(*step),
        }
    };
    match expected.contains(&end) && got.next().is_none() {
        true => Ok(()),
        false => Err(format!("{end:?} instead of one of {expected:?} came of {steps:?}")),
    }
}

fn check_graph(
    nodes: &[Step],
    edges: &[(usize, usize)],
    failed: Option<(usize, End)>,
    got: &[(usize, Got)],
) -> Result<(), String> {
    let mut called = Vec::new();
    for (node, got) in got {
        let Step(plan, _) = &nodes[*node];
        plan.check(Some(got))?;
        let before = edges.iter().filter(|(_, to)| to == node).map(|(from, _)| from);
        for before in before {
            if !called.contains(before) || !matches!(nodes[*before].1, Say::Well) {
                return Err(format!("{node} ran before {before} was done"));
            }
        }
        if called.contains(node) {
            return Err(format!("{node} ran twice"));
        }
        called.push(*node);
    }
    let fine = match failed {
        None => called.len() == nodes.len() && nodes.iter().all(|Step(_, say)| matches!(say, Say::Well)),
        Some((node, end)) if called.contains(&node) => {
            matches!((&nodes[node].1, end), (Say::Fail, End::Failed) | (Say::Panic, End::Panicked))
        }
        Some((node, end)) => {
            nodes[node].0.check(None)?;
            matches!(end, End::Aborted | End::Panicked)
        }
    };
    if fine { Ok(()) } else { Err(format!("{failed:?} and {called:?} of {nodes:?}, {edges:?}")) }
}

impl Got {
    /// Whether a selection takes it as a success.
    fn is_good(&self) -> bool {
        match self {
            Got::Value(n) => n % 2 == 0,
            Got::Series { end, .. } => *end == End::Well,
            _ => false,
        }
    }
}

// Drawing plans

struct Draw {
    rng: Rng,
    next: u32,
    /// Plans that may still be drawn.
    left: u32,
}

impl Draw {
    fn plan(&mut self, depth: u32) -> Plan {
        self.next += 1;
        self.left = self.left.saturating_sub(1);
        let n = self.next;
        let kinds = if depth == 0 || self.left == 0 { 14 } else { 24 };
        match self.rng.u32(0..kinds) {
            0..4 => Plan::Done(n),
            4..8 => Plan::Computed(n),
            8..10 => Plan::Slept(n, Duration::from_micros(self.rng.u64(0..2_000))),
            10 => Plan::Lost,
            11 => Plan::Panics,
            12 => Plan::ComputationPanics,
            13 => Plan::TooLate,
            14..17 => Plan::Series(self.steps(depth, true)),
            17..19 => Plan::Parallel(self.plans(depth)),
            19..20 => Plan::Select(self.plans(depth)),
            20..22 => {
                let nodes = self.steps(depth, false);
                let pairs = (0..nodes.len()).flat_map(|to| (0..to).map(move |from| (from, to)));
                let edges = pairs.filter(|_| self.rng.u32(0..3) == 0).collect();
                Plan::Graph(nodes, edges)
            }
            22 => Plan::Repeat(Box::new(self.plan(depth - 1)), self.rng.usize(1..5)),
            _ => Plan::InTime(Box::new(self.plan(depth - 1))),
        }
    }

    fn plans(&mut self, depth: u32) -> Vec<Plan> {
        (0..self.rng.u32(0..5)).map(|_| self.plan(depth - 1)).collect()
    }

    fn steps(&mut self, depth: u32, series: bool) -> Vec<Step> {
        (0..self.rng.u32(0..6)).map(|_| self.step(depth - 1, series)).collect()
    }

    fn step(&mut self, depth: u32, series: bool) -> Step {
        let plan = self.plan(depth);
        let say = match self.rng.u32(0..30) {
            0 => Say::Fail,
            1 => Say::Panic,
            2 if series => Say::Cancel,
            3..6 if series && depth > 0 => Say::PushFront(Box::new(self.step(depth - 1, true))),
            6..9 if series && depth > 0 => Say::PushBack(Box::new(self.step(depth - 1, true))),
            _ => Say::Well,
        };
        Step(plan, say)
    }
}

// Building tasks

/// What is counted of all plans of a test.
#[derive(Clone, Default)]
struct World {
    census: Census,
    started: Arc<AtomicUsize>,
    finals: Arc<AtomicUsize>,
}

/// The context of a series.
struct Notes {
    got: Vec<Got>,
    finals: u32,
    _life: Life,
}

impl World {
    fn build(&self, plan: &Plan) -> BoxTask<Got> {
        let life = self.census.life();
        match plan {
            Plan::Done(n) => Ready(Got::Value(*n)).boxed(),
            Plan::Computed(n) => {
                let n = *n;
                go(move || {
                    drop(life);
                    Got::Value(n)
                })
                .boxed()
            }
            Plan::Slept(n, time) => {
                let n = *n;
                map(sleep(*time), move |()| {
                    drop(life);
                    Got::Value(n)
                })
            }
            Plan::Lost => map(Drops, |_| Got::Elapsed),
            Plan::Panics => map(Panics, |_| Got::Elapsed),
            Plan::ComputationPanics => go(|| panic!("{AS_PLANNED}")).boxed(),
            Plan::TooLate => map(sleep(LONG).timeout(Duration::from_millis(1)), move |late| {
                drop(life);
                late.map_or(Got::Elapsed, |()| Got::Value(0))
            }),
            Plan::Series(steps) => self.series(steps).boxed(),
            Plan::Parallel(plans) => {
                let all: Parallel<_> = plans.iter().map(|plan| self.build(plan)).collect();
                map(all, |got| Got::Parallel(got.into_iter().map(Result::ok).collect()))
            }
            Plan::Select(plans) => {
                let judged = plans.iter().map(|plan| {
                    map(self.build(plan), |got| if got.is_good() { Ok(Box::new(got)) } else { Err(got) })
                });
                let any: Select<_> = judged.collect();
                map(any, |won| Got::Select(won.map_err(|failed| failed.errors)))
            }
            Plan::Graph(nodes, edges) => self.graph(nodes, edges),
            Plan::Repeat(plan, count) => {
                let (world, plan, count) = (self.clone(), plan.clone(), *count);
                repeat(
                    (Vec::new(), life),
                    move |_| world.build(&plan),
                    move |round, (got, _)| {
                        got.push(round);
                        if got.len() < count { Continue(()) } else { Break(Got::Repeat(std::mem::take(got))) }
                    },
                )
                .boxed()
            }
            Plan::InTime(plan) => map(self.build(plan).timeout(LONG), |got| got.unwrap_or(Got::Elapsed)),
        }
    }

    fn series(&self, steps: &[Step]) -> Tracked {
        let notes = Notes { got: Vec::new(), finals: 0, _life: self.census.life() };
        let finals = self.finals.clone();
        let mut series = Series::new(notes).finally(move |_, notes| {
            notes.finals += 1;
            finals.fetch_add(1, Ordering::SeqCst);
        });
        for step in steps {
            let (task, callback) = self.step(step);
            series.push(task, callback);
        }
        Tracked { series, started: self.started.clone() }
    }

    #[expect(clippy::type_complexity)]
    fn step(
        &self,
        Step(plan, say): &Step,
    ) -> (BoxTask<Got>, impl FnOnce(Got, &mut Series<Notes>) -> Result<(), Error> + Send + 'static + use<>)
    {
        let (world, say, life) = (self.clone(), say.clone(), self.census.life());
        let callback = move |got, series: &mut Series<Notes>| {
            let _life = life;
            assert_eq!(series.context.finals, 0, "a callback after the end");
            series.context.got.push(got);
            match say {
                Say::Well => {}
                Say::Fail => return Err(AS_PLANNED.into()),
                Say::Panic => panic!("{AS_PLANNED}"),
                Say::Cancel => series.cancel(),
                Say::PushFront(step) => world.push(&step, series, true),
                Say::PushBack(step) => world.push(&step, series, false),
            }
            Ok(())
        };
        (self.build(plan), callback)
    }

    fn push(&self, step: &Step, series: &mut Series<Notes>, front: bool) {
        let (task, callback) = self.step(step);
        // The callback's type would contain itself.
        type Callback = Box<dyn FnOnce(Got, &mut Series<Notes>) -> Result<(), Error> + Send>;
        let callback: Callback = Box::new(callback);
        match front {
            true => series.push_front(task, callback),
            false => series.push(task, callback),
        }
    }

    fn graph(&self, nodes: &[Step], edges: &[(usize, usize)]) -> BoxTask<Got> {
        let all = Arc::new(Mutex::new(Vec::new()));
        let mut graph = Graph::new();
        let ids: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(index, Step(plan, say))| {
                let (all, say, life) = (all.clone(), say.clone(), self.census.life());
                graph.add(self.build(plan), move |got| {
                    let _life = life;
                    all.lock().unwrap().push((index, got));
                    match say {
                        Say::Fail => Err(AS_PLANNED.into()),
                        Say::Panic => panic!("{AS_PLANNED}"),
                        _ => Ok(()),
                    }
                })
            })
            .collect();
        for (from, to) in edges {
            graph.edge(ids[*from], ids[*to]);
        }
        map(graph.build().expect("edges lead upward"), move |result| Got::Graph {
            failed: result.err().map(|failed| (failed.node.index(), end(&Err(failed.error)))),
            got: std::mem::take(&mut all.lock().unwrap()),
        })
    }
}

fn end(outcome: &Result<(), SeriesError>) -> End {
    match outcome {
        Ok(()) => End::Well,
        Err(SeriesError::Failed(_)) => End::Failed,
        Err(SeriesError::Cancelled) => End::Cancelled,
        Err(SeriesError::Panicked) => End::Panicked,
        Err(_) => End::Aborted,
    }
}

/// One round is enough to make something else of what comes of a task.
fn map<T: Task, R: Send + 'static>(task: T, f: impl FnOnce(T::Output) -> R + Send + 'static) -> BoxTask<R> {
    repeat(
        (Some(task), Some(f)),
        |(task, _)| task.take().expect("one round"),
        |output, (_, f)| f.take().map_or(Continue(()), |f| Break(f(output))),
    )
    .boxed()
}

/// A series that counts how often it is started.
struct Tracked {
    series: Series<Notes>,
    started: Arc<AtomicUsize>,
}

impl Task for Tracked {
    type Output = Got;

    fn dispatch(self, done: Continuation<Got>) {
        self.started.fetch_add(1, Ordering::SeqCst);
        map(self.series, |Ended { outcome, context }| Got::Series {
            end: end(&outcome),
            got: context.got,
            finals: context.finals,
        })
        .dispatch(done);
    }
}

// The tests

/// Calls `test` with each seed, and says which one it was that failed.
fn with_seeds(count: u64, mut test: impl FnMut(Draw)) {
    silence_planned_panics();
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("TIDEGATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDEGATE_SEEDS").unwrap_or(count),
    };
    struct Tell(u64);
    impl Drop for Tell {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("this was TIDEGATE_SEED={}", self.0);
            }
        }
    }
    for seed in seeds {
        let _tell = Tell(seed);
        test(Draw { rng: Rng::with_seed(seed), next: 0, left: 40 });
    }
}

fn runtime(rng: &mut Rng) -> Runtime {
    Runtime::builder().pollers(rng.usize(1..3)).compute_threads(rng.usize(1..4)).build().unwrap()
}

#[test]
fn what_comes_of_a_plan_is_what_the_model_says() {
    let runtime = Arc::new(runtime(&mut Rng::with_seed(1)));
    with_seeds(600, |mut draw| {
        let world = World::default();
        let plan = draw.plan(4);
        let task = world.build(&plan);
        let got = match draw.rng.u32(0..3) {
            0 => wait(runtime.spawn(task)),
            // Where nobody can cancel.
            1 => {
                let (tell, told) = mpsc::channel();
                let runtime = runtime.clone();
                std::thread::spawn(move || tell.send(runtime.run(task)));
                receive(&told)
            }
            // On a poller's thread.
            _ => {
                let series = Series::new(None).then(sleep(Duration::ZERO), |(), _| Ok(())).then(
                    task,
                    |got, series: &mut Series<Option<Got>>| {
                        series.context = Some(got);
                        Ok(())
                    },
                );
                wait(runtime.start(series)).and_then(|ended| ended.context.ok_or(WaitError::Dropped))
            }
        };
        if let Err(error) = plan.check(got.as_ref().ok()) {
            panic!("{error}\n{got:#?}\n{plan:#?}");
        }
        drop(got);
        // What lost a selection may still compute.
        await_that("nothing is left of it", || world.census.alive() == 0);
        let (started, finals) = (&world.started, &world.finals);
        assert_eq!(started.load(Ordering::SeqCst), finals.load(Ordering::SeqCst));
    });
}

/// Several plans at once, and something that ends them at some moment.
fn cut(count: u64, mut cut: impl FnMut(&mut Rng, Runtime, &[TaskHandle<Got>])) {
    with_seeds(count, |mut draw| {
        let world = World::default();
        let runtime = runtime(&mut draw.rng);
        let handles: Vec<_> = (0..draw.rng.u32(1..6))
            .map(|_| {
                draw.left = 40;
                let (before, after) = (draw.plan(4), draw.plan(4));
                let steps = vec![
                    Step(Plan::Slept(0, Duration::from_micros(draw.rng.u64(0..1_000))), Say::Well),
                    Step(before, Say::Well),
                    Step(after, Say::Well),
                ];
                runtime.spawn(world.build(&Plan::Series(steps)))
            })
            .collect();
        let spins = draw.rng.u32(0..2_000) * draw.rng.u32(0..100);
        (0..spins).for_each(|_| std::hint::spin_loop());
        cut(&mut draw.rng, runtime, &handles);
        for handle in handles {
            // A series is handed over however it ended; what is around it may be dropped.
            let _ = wait(handle);
        }
        assert_eq!(world.census.alive(), 0, "something is left");
        let (started, finals) = (&world.started, &world.finals);
        assert_eq!(started.load(Ordering::SeqCst), finals.load(Ordering::SeqCst));
    });
}

#[test]
fn nothing_is_lost_when_plans_are_cancelled_at_any_moment() {
    cut(150, |rng, runtime, handles| {
        let cancel = |handle: &TaskHandle<Got>| {
            if rng.bool() {
                handle.cancel();
            }
            let (canceller, spins) = (handle.canceller(), rng.u32(0..100_000));
            std::thread::spawn(move || {
                (0..spins).for_each(|_| std::hint::spin_loop());
                canceller.cancel();
            })
        };
        let cancellers: Vec<_> = handles.iter().map(cancel).collect();
        runtime.shutdown(PATIENCE).unwrap();
        // Who cancels drops what it cancels.
        cancellers.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn nothing_is_lost_when_the_runtime_is_dropped_at_any_moment() {
    cut(150, |rng, runtime, _| match rng.bool() {
        true => drop(runtime),
        false => runtime.shutdown(Duration::from_micros(rng.u64(0..3_000))).unwrap(),
    });
}

#[test]
fn a_million_tasks_in_series_use_a_small_stack() {
    let many = || {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        let mut series = Series::new(0_u64);
        for n in 0..1_000_000 {
            series.push(Ready(n), |n, series| {
                series.context += n;
                Ok(())
            });
        }
        let sum = runtime.run(series).unwrap().into_result().unwrap();
        // Dropped at the start, in the middle, and by a failure.
        let failing = |at: u64| {
            let mut series = Series::new(0_u64);
            for n in 0..100_000 {
                series.push(Ready(n), move |n, _| if n == at { Err("as planned".into()) } else { Ok(()) });
            }
            series
        };
        drop(failing(0));
        assert!(runtime.run(failing(50_000)).unwrap().into_result().is_err());
        sum
    };
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(many).unwrap();
    assert_eq!(thread.join().unwrap(), 999_999 * 1_000_000 / 2);
}
