//! The desk on simulated time, beside the pacer of a poller.

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_poller::Budget;

use super::*;
use crate::runtime::Runtime;
use crate::task::continuation::Receiver;
use crate::task::pace::Spender;
use crate::task::token::Token;

const SECOND: u64 = 1_000_000_000;

/// A desk whose turns come when the test says, and tasks that ask again and again.
struct World {
    runtime: Runtime,
    state: State,
    now: Moment,
    start: Moment,
    rng: fastrand::Rng,
    /// How late a turn may come.
    lateness: u64,
    asking: Vec<Asking>,
    sockets: Vec<Socket>,
}

struct Asking {
    line: Line,
    units: u64,
    got: Arc<AtomicU64>,
    asked: u64,
}

/// A flow of a poller's that always has something to write.
struct Socket {
    pacer: Pacer,
    flow: FlowId,
    due: Moment,
    sent: u64,
}

struct Grant {
    got: Arc<AtomicU64>,
    units: u64,
    runtime: RuntimeHandle,
}

impl Receiver<()> for Grant {
    fn runtime(&self) -> &RuntimeHandle {
        &self.runtime
    }

    fn token(&self) -> Option<&Arc<Token>> {
        None
    }
}

impl Receive<()> for Grant {
    fn receive(self: Box<Self>, (): ()) {
        self.got.fetch_add(self.units, Ordering::Relaxed);
    }
}

impl World {
    fn new(seed: u64) -> World {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        let state = State::new(&Arc::default(), &runtime.handle());
        let (now, rng) = (sys::now(), fastrand::Rng::with_seed(seed));
        World {
            runtime,
            state,
            now,
            start: now,
            rng,
            lateness: 1_000_000,
            asking: Vec::new(),
            sockets: Vec::new(),
        }
    }

    fn ask(&mut self, line: Line, units: u64) -> usize {
        self.asking.push(Asking { line, units, got: Arc::default(), asked: 0 });
        self.asking.len() - 1
    }

    fn socket(&mut self, budget: &Budget) -> usize {
        let mut pacer = Pacer::new(None, Signal::new(|| {}));
        let flow = pacer.join(0);
        pacer.spend_through(flow, budget, 1);
        self.sockets.push(Socket { pacer, flow, due: self.now, sent: 0 });
        self.sockets.len() - 1
    }

    fn got(&self, asking: usize) -> u64 {
        self.asking[asking].got.load(Ordering::Relaxed)
    }

    fn one(&self, units: u64, got: &Arc<AtomicU64>) -> Continuation<()> {
        Continuation::new(Box::new(Grant { got: got.clone(), units, runtime: self.runtime.handle() }))
    }

    fn done(&mut self, after: After) {
        for done in after.granted {
            done.complete(());
        }
    }

    /// Has each who got what it asked for ask again, in turns as on a thread. Not for ever: some may never have to wait.
    fn ask_again(&mut self) {
        for _ in 0..10_000 {
            let mut all_wait = true;
            for at in 0..self.asking.len() {
                let asking = &mut self.asking[at];
                if asking.got.load(Ordering::Relaxed) < asking.asked {
                    continue;
                }
                all_wait = false;
                asking.asked += asking.units;
                let (line, units, got) = (asking.line.clone(), asking.units, asking.got.clone());
                let done = self.one(units, &got);
                let (_, after) = self.state.enter(line, units, done, self.now);
                self.done(after);
            }
            if all_wait {
                return;
            }
        }
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now.plus_nanos(seconds * SECOND);
        while self.now < end {
            self.ask_again();
            for socket in &mut self.sockets {
                if socket.due <= self.now {
                    socket.turn(self.now);
                }
            }
            let due = self.sockets.iter().map(|socket| socket.due).chain(self.state.armed).min();
            let due = due.unwrap_or(end).max(self.now.plus_nanos(1_000));
            self.now = due.plus_nanos(self.rng.u64(0..=self.lateness)).min(end);
            if self.state.armed.is_some_and(|at| at <= self.now) {
                self.state.armed = None;
                let after = self.state.turn(None, self.now);
                self.done(after);
            }
        }
    }

    fn seconds(&self) -> f64 {
        self.now.nanos_since(self.start) as f64 / SECOND as f64
    }
}

impl Socket {
    fn turn(&mut self, now: Moment) {
        self.pacer.begin_turn();
        self.write(now);
        self.pacer.settle(now);
        while self.pacer.next_turn(now).is_some() {
            self.write(now);
        }
        self.due = self.pacer.deadline().unwrap_or(now.plus_nanos(SECOND)).max(now.plus_nanos(1));
    }

    fn write(&mut self, now: Moment) {
        while let Allowance::Now(bytes) = self.pacer.allow(self.flow, 1 << 30, now) {
            self.pacer.charge(self.flow, bytes);
            self.sent += bytes;
        }
    }
}

fn budget(rate: Option<u64>) -> Budget {
    Budget::builder("total").rate(rate).build()
}

#[track_caller]
fn close(value: f64, expected: f64, part: f64, what: &str) {
    assert!((value - expected).abs() <= expected * part, "{what}: {value}, expected {expected}");
}

#[test]
fn the_rate_is_kept_whatever_is_asked_for_at_a_time() {
    for (rate, units) in [
        (100, 1),
        (1_000, 1),
        (1_000_000, 100),
        (1_000_000, 1_500),
        (1_000_000, 300_000),
        (2_000_000_000, 65_536),
    ] {
        let mut world = World::new(rate + units);
        let total = budget(Some(rate));
        let one = world.ask(Line::Budget(total.clone()), units);
        // A quantum may be on its way at either end; over so long it does not show.
        world.run(if rate > 1_000_000 { 4 } else { 20 });
        let expected = rate as f64 * world.seconds();
        let slack = (units as f64 / expected).max(0.01);
        close(world.got(one) as f64, expected, slack, &format!("{units} at a time at {rate}"));
        close(total.spent() as f64, expected, 0.01, &format!("charged for {units} at a time at {rate}"));
    }
}

#[test]
fn lines_share_by_weight_not_by_what_they_ask_for() {
    let mut world = World::new(1);
    let total = budget(Some(1_000_000));
    let child = Budget::builder("child").parent(&total).build();
    let one = world.ask(Line::Spender(Spender::new(&child)), 500);
    let two = world.ask(Line::Spender(Spender::new(&child)), 60_000);
    let heavy = world.ask(Line::Spender(Spender::new(&child).weight(2)), 7_000);
    world.run(30);
    let expected = 1_000_000.0 * world.seconds();
    for (line, weight) in [(one, 1.0), (two, 1.0), (heavy, 2.0)] {
        close(world.got(line) as f64, expected * weight / 4.0, 0.02, &format!("line {line}"));
    }
    let sum: u64 = [one, two, heavy].map(|line| world.got(line)).iter().sum();
    close(sum as f64, expected, 0.01, "the sum");
}

#[test]
fn two_in_one_line_take_turns() {
    let mut world = World::new(2);
    let line = Line::Budget(budget(Some(500_000)));
    let (one, two) = (world.ask(line.clone(), 2_000), world.ask(line, 2_000));
    world.run(20);
    close(world.got(one) as f64, world.got(two) as f64, 0.01, "one and the other");
    close((world.got(one) + world.got(two)) as f64, 500_000.0 * world.seconds(), 0.01, "the sum");
}

#[test]
fn a_line_and_a_socket_get_the_same() {
    for units in [1_000, 50_000] {
        let mut world = World::new(3);
        let total = budget(Some(1_000_000));
        let one = world.ask(Line::Budget(total.clone()), units);
        let socket = world.socket(&total);
        world.run(30);
        let half = 500_000.0 * world.seconds();
        close(world.got(one) as f64, half, 0.03, &format!("the line, {units} at a time"));
        close(world.sockets[socket].sent as f64, half, 0.03, &format!("the socket beside {units} at a time"));
        let sum = world.got(one) + world.sockets[socket].sent;
        close(sum as f64, 2.0 * half, 0.01, "the sum");
    }
}

#[test]
fn siblings_share_their_parent() {
    let mut world = World::new(4);
    let total = budget(Some(1_000_000));
    let one = Budget::builder("one").parent(&total).build();
    let three = Budget::builder("three").parent(&total).weight(3).build();
    let one = world.ask(Line::Budget(one), 5_000);
    let socket = world.socket(&three);
    world.run(30);
    let quarter = 250_000.0 * world.seconds();
    close(world.got(one) as f64, quarter, 0.03, "the line");
    close(world.sockets[socket].sent as f64, 3.0 * quarter, 0.03, "the socket");
}

#[test]
fn the_least_of_several_budgets_counts() {
    let mut world = World::new(5);
    let total = budget(Some(10_000_000));
    let client = Budget::builder("client").rate(3_000_000).parent(&total).build();
    let route = Budget::builder("route").rate(1_000_000).parent(&total).build();
    let both = Spender::new(&client).and(&route);
    let one = world.ask(Line::Spender(both), 10_000);
    world.run(20);
    let expected = 1_000_000.0 * world.seconds();
    close(world.got(one) as f64, expected, 0.01, "through both");
    close(total.spent() as f64, expected, 0.01, "the parent is charged once");
}

#[test]
fn changed_rates_hold() {
    let mut world = World::new(6);
    let total = budget(Some(1_000_000));
    let one = world.ask(Line::Budget(total.clone()), 4_000);
    world.run(5);
    for rate in [100_000, 5_000_000, 250_000] {
        total.set_rate(Some(rate));
        let (got, from) = (world.got(one), world.now);
        // The desk hears of it by the signal, here at its next turn.
        world.state.armed = Some(world.now);
        world.run(20);
        let seconds = world.now.nanos_since(from) as f64 / SECOND as f64;
        close((world.got(one) - got) as f64, rate as f64 * seconds, 0.01, &format!("changed to {rate}"));
    }
    total.set_rate(Some(0));
    world.state.armed = Some(world.now);
    world.run(1);
    let got = world.got(one);
    world.run(10);
    assert_eq!(world.got(one), got, "nothing at rate 0");
    total.set_rate(None);
    world.state.armed = Some(world.now);
    let from = world.now;
    while world.got(one) == got {
        assert!(world.now < from.plus_nanos(SECOND), "lifting the limit resumes");
        world.run(1);
    }
}

#[test]
fn who_leaves_gives_back_the_place_and_not_what_was_spent() {
    let mut world = World::new(7);
    world.lateness = 0;
    let total = budget(Some(1_000));
    let line = Line::Budget(total.clone());
    let (first, second) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let (done, now) = (world.one(1_000_000, &first), world.now);
    let (ticket, after) = world.state.enter(line.clone(), 1_000_000, done, now);
    world.done(after);
    let done = world.one(1_000, &second);
    let (_, after) = world.state.enter(line.clone(), 1_000, done, now);
    world.done(after);
    world.run(5);
    assert_eq!(second.load(Ordering::Relaxed), 0, "it stands behind the first");
    close(total.spent() as f64, 5_000.0, 0.05, "the first takes what comes");
    let spent = total.spent();
    let (gone, after) = world.state.leave(line.key(), ticket, world.now).expect("it stands there");
    drop(gone);
    world.done(after);
    assert!(world.state.leave(line.key(), ticket, world.now).is_none());
    assert!(total.spent() >= spent, "what the first took is spent");
    world.run(2);
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (0, 1_000));
}

#[test]
fn an_idle_line_is_forgotten_and_lets_go_of_its_budget() {
    let mut world = World::new(8);
    let total = budget(Some(1_000_000));
    let (got, now) = (Arc::default(), world.now);
    let done = world.one(10, &got);
    let (_, after) = world.state.enter(Line::Budget(total.clone()), 10, done, now);
    world.done(after);
    world.run(1);
    assert_eq!(got.load(Ordering::Relaxed), 10);
    world.run(3);
    assert!(world.state.lines.is_empty() && world.state.by_key.is_empty());
    assert_eq!(world.state.armed, None, "nothing is due any more");
    assert_eq!(total.spent(), 10, "the lease went back");
}
