//! Worlds that are meant to break the pacer: sockets that come and go, hold, blink; rates that vanish and return.

use std::time::Duration;

use super::simulation::{MANY, SECOND, World, budget, close};
use super::{Allowance, Pacer};
use crate::budget::{Limit, Signal};
use crate::moment::{Moment, NANOS_PER_MS};

#[test]
fn blinking_flows_do_not_starve_a_download() {
    let mut world = World::new(1, 1, None, NANOS_PER_MS);
    let total = budget("total", Some(1_000_000), None, 1);
    let download = world.socket(0, None, &[&total], 1);
    let short: Vec<usize> = (0..20).map(|_| world.socket(0, None, &[&total], 1)).collect();
    world.queue(download, MANY);
    world.run(2 * SECOND);
    let before = world.sent(&[download]);
    let start = world.now;
    while world.now < start + 5 * SECOND {
        for socket in &short {
            if world.sockets[*socket].queued == 0 {
                world.queue(*socket, 2_000);
            }
        }
        let step = world.now + NANOS_PER_MS / 2;
        world.run(step);
    }
    let share = (world.sent(&[download]) - before) as f64 / 5_000_000.0;
    // A part of 21.
    assert!((0.03..0.07).contains(&share), "the download got {share} of the budget");
}

#[test]
fn changing_between_limits_keeps_the_debt() {
    let mut world = World::new(1, 1, None, 0);
    let limits = [Limit::new("a", Some(1_000_000)), Limit::new("b", Some(1_000_000))];
    let socket = world.socket(0, Some(&limits[0]), &[], 1);
    let start = world.now;
    let mut round = 0;
    while world.now < start + 5 * SECOND {
        if world.sockets[socket].queued == 0 {
            round += 1;
            let (flow, now) = (world.sockets[socket].flow, world.at());
            world.pollers[0].pacer.set_limit(flow, Some(&limits[round % 2]), now);
            world.queue(socket, 10_000);
        }
        let step = world.now + NANOS_PER_MS / 2;
        world.run(step);
    }
    close(world.sent(&[socket]) as f64, 5_000_000.0, 0.02, "two limits of one rate");
}

#[test]
fn what_a_closed_socket_gives_back_is_used_at_once() {
    let mut pacer = Pacer::new(Some(Duration::from_millis(16)), Signal::new(|| ()));
    let total = budget("total", Some(1_000_000), None, 1);
    let now = Moment::from_nanos(SECOND);
    let (a, b) = (pacer.join(0), pacer.join(1));
    for flow in [a, b] {
        pacer.spend_through(flow, &total, 1);
    }
    pacer.begin_turn();
    for flow in [a, b] {
        assert_eq!(pacer.allow(flow, 2_000, now), Allowance::Turn);
    }
    pacer.settle(now);
    assert_eq!((pacer.next_turn(now), pacer.next_turn(now)), (Some(0), None));
    // Its turn came, but it is gone before it wrote; the poller was about to sleep.
    pacer.part(a, now);
    assert!(pacer.deadline().is_some_and(|when| when <= now), "the other waits for what is there");
    pacer.begin_turn();
    pacer.settle(now);
    assert_eq!((pacer.next_turn(now), pacer.next_turn(now)), (Some(1), None));
    assert_ne!(pacer.deadline(), Some(Moment::FIRST));
}

#[test]
fn who_left_a_queue_that_stands_still_costs_nothing() {
    let mut pacer = Pacer::new(None, Signal::new(|| ()));
    let total = budget("total", Some(0), None, 1);
    let now = Moment::from_nanos(SECOND);
    let stays = pacer.join(0);
    pacer.spend_through(stays, &total, 1);
    assert_eq!(pacer.allow(stays, 1_000, now), Allowance::Turn);
    for _ in 0..10_000 {
        let flow = pacer.join(1);
        pacer.spend_through(flow, &total, 1);
        assert_eq!(pacer.allow(flow, 1_000, now), Allowance::Turn);
        pacer.begin_turn();
        pacer.settle(now);
        assert_eq!(pacer.next_turn(now), None);
        pacer.part(flow, now);
    }
    assert!(pacer.waiting_entries() <= 64, "{}", pacer.waiting_entries());
    total.set_rate_at(None, now);
    assert!(pacer.begin_turn());
    pacer.settle(now);
    assert_eq!(pacer.next_turn(now), Some(0));
}

/// One poller's socket comes, goes, holds, changes its limits and budgets; rates vanish and return.
struct Churn {
    world: World,
    rng: fastrand::Rng,
    root: crate::budget::Budget,
    budgets: Vec<(crate::budget::Budget, Option<u64>)>,
    limits: Vec<Limit>,
    /// What each socket spends through.
    through: Vec<(Option<Limit>, Vec<crate::budget::Budget>)>,
    /// What each had sent when it got its first leaf: from then on the root is charged.
    charged_from: Vec<Option<u64>>,
}

const LEAST_RATE: u64 = 10_000;

impl Churn {
    fn new(seed: u64) -> Churn {
        let mut rng = fastrand::Rng::with_seed(seed);
        let interval = [None, Some(Duration::from_millis(rng.u64(5..100)))][rng.usize(0..2)];
        let lateness = rng.u64(0..3) * NANOS_PER_MS;
        let world = World::new(seed, rng.usize(1..4), interval, lateness);
        let root = budget("root", Some(1_000_000), None, 1);
        let limits = (0..4).map(|_| Limit::new("own", Some(100_000))).collect();
        let budgets = vec![(root.clone(), Some(1_000_000))];
        Churn { world, rng, root, budgets, limits, through: Vec::new(), charged_from: Vec::new() }
    }

    fn rate(&mut self) -> Option<u64> {
        match self.rng.u8(0..5) {
            0 => None,
            1 => Some(0),
            _ => Some(LEAST_RATE + (10f64.powf(self.rng.f64() * 5.0 + 3.0) as u64)),
        }
    }

    fn live(&mut self) -> Option<usize> {
        let live: Vec<usize> =
            (0..self.world.sockets.len()).filter(|s| !self.world.sockets[*s].gone).collect();
        (!live.is_empty()).then(|| live[self.rng.usize(0..live.len())])
    }

    fn run_gate(&mut self, socket: usize) {
        let poller = self.world.sockets[socket].poller;
        self.world.turn(poller, &[socket]);
    }

    fn step(&mut self) {
        let what = self.rng.u8(0..100);
        match what {
            0..10 => {
                let poller = self.rng.usize(0..self.world.pollers.len());
                let limit = self.rng.bool().then(|| self.limits[self.rng.usize(0..4)].clone());
                let weight = self.rng.u32(1..5);
                let mut through = Vec::new();
                for _ in 0..self.rng.usize(0..3) {
                    through.push(self.budgets[self.rng.usize(0..self.budgets.len())].0.clone());
                }
                let refs: Vec<_> = through.iter().collect();
                let socket = self.world.socket(poller, limit.as_ref(), &refs, weight);
                if self.rng.u8(0..4) == 0 {
                    self.world.sockets[socket].drain = self.rng.u64(LEAST_RATE..10_000_000);
                }
                self.charged_from.push((!through.is_empty()).then_some(0));
                self.through.push((limit, through));
            }
            10..17 => {
                let Some(socket) = self.live() else { return };
                let now = self.world.at();
                let s = &mut self.world.sockets[socket];
                s.gone = true;
                s.queued = 0;
                s.blocked = false;
                s.paused_until = None;
                let (poller, flow) = (s.poller, s.flow);
                self.world.pollers[poller].pacer.part(flow, now);
                // Torn down at the end of the turn: what wakes the poller is its deadline alone.
                let next = self.world.next_wake(poller).max(self.world.now + 1);
                self.world.pollers[poller].next = next;
                self.through[socket].1.clear();
            }
            17..55 => {
                let Some(socket) = self.live() else { return };
                let bytes = 1 + (1e6 * self.rng.f64().powi(4)) as u64;
                self.world.queue(socket, bytes);
            }
            55..65 => {
                let Some(socket) = self.live() else { return };
                self.world.sockets[socket].held = true;
                self.run_gate(socket);
            }
            65..75 => {
                let Some(socket) = self.live() else { return };
                self.world.sockets[socket].held = false;
                self.run_gate(socket);
            }
            75..79 => {
                let rate = self.rate();
                let limit = self.rng.usize(0..4);
                self.limits[limit].set_rate(rate);
                self.world.kick();
            }
            79..83 => {
                let at = self.rng.usize(0..self.budgets.len());
                let rate = match self.rate() {
                    None if at == 0 => Some(20_000),
                    rate => rate,
                };
                self.budgets[at].1 = rate;
                let budget = self.budgets[at].0.clone();
                self.world.set_rate(&budget, rate);
            }
            83..86 => {
                let at = self.rng.usize(0..self.budgets.len());
                self.budgets[at].0.set_weight(self.rng.u32(0..9));
                self.budgets[at].0.set_burst(self.rng.u64(0..100_000));
            }
            86..91 => {
                let parent = self.budgets[self.rng.usize(0..self.budgets.len())].0.clone();
                let rate = self.rate();
                let child = budget("child", rate, Some(&parent), self.rng.u32(1..5));
                self.budgets.push((child, rate));
            }
            91..93 if self.budgets.len() > 1 => {
                // Dropped while sockets may still spend through it.
                let at = self.rng.usize(1..self.budgets.len());
                self.budgets.swap_remove(at);
            }
            93..96 => {
                let Some(socket) = self.live() else { return };
                let limit = self.rng.bool().then(|| self.limits[self.rng.usize(0..4)].clone());
                let (now, s) = (self.world.at(), &self.world.sockets[socket]);
                let flow = s.flow;
                let poller = s.poller;
                self.world.pollers[poller].pacer.set_limit(flow, limit.as_ref(), now);
                self.through[socket].0 = limit;
                self.run_gate(socket);
            }
            96..98 => {
                let Some(socket) = self.live() else { return };
                let leaf = self.budgets[self.rng.usize(0..self.budgets.len())].0.clone();
                let s = &self.world.sockets[socket];
                let (poller, flow) = (s.poller, s.flow);
                self.world.pollers[poller].pacer.spend_through(flow, &leaf, 1);
                self.through[socket].1.push(leaf);
                let sent = self.world.sockets[socket].sent;
                self.charged_from[socket].get_or_insert(sent);
                self.run_gate(socket);
            }
            _ => {
                // Another poller has the tree while this one trades.
                let poller = self.rng.usize(0..self.world.pollers.len());
                let sockets: Vec<usize> = (0..self.world.sockets.len())
                    .filter(|s| self.world.sockets[*s].poller == poller)
                    .collect();
                let shared = self.root.shared().clone();
                let locked = shared.lock();
                self.world.pollers[poller].pacer.lockouts = 0;
                self.world.turn(poller, &sockets);
                drop(locked);
            }
        }
    }

    fn is_open(&self, socket: usize) -> bool {
        let s = &self.world.sockets[socket];
        let (limit, through) = &self.through[socket];
        let shut = |rate: Option<u64>| rate == Some(0);
        let mut open = !s.gone && !s.held && !limit.as_ref().is_some_and(|limit| shut(limit.rate()));
        for leaf in through {
            let mut at = Some(leaf);
            while let Some(budget) = at {
                open &= !shut(budget.rate());
                at = budget.parent();
            }
        }
        open
    }

    /// Lets it run without a change from outside: whoever may go must go, and when nobody may, nobody wakes.
    fn settle(&mut self) {
        for s in &mut self.world.sockets {
            s.queued = s.queued.min(3_000);
        }
        let until = self.world.now + 60 * SECOND;
        self.world.run(until);
        let stuck: Vec<usize> = (0..self.world.sockets.len())
            .filter(|s| self.world.sockets[*s].queued > 0 && self.is_open(*s))
            .collect();
        assert!(stuck.is_empty(), "forgotten: {stuck:?}");
        let wakes: u64 = self.world.pollers.iter().map(|p| p.wakes).sum();
        self.world.run(until + 10 * SECOND);
        let wakes = self.world.pollers.iter().map(|p| p.wakes).sum::<u64>() - wakes;
        assert!(wakes < 40, "{wakes} wakes with nothing to do");
    }

    fn end(mut self) {
        for socket in 0..self.world.sockets.len() {
            let (now, s) = (self.world.at(), &mut self.world.sockets[socket]);
            if !s.gone {
                s.gone = true;
                self.world.pollers[s.poller].pacer.part(s.flow, now);
            }
        }
        for poller in &self.world.pollers {
            assert_eq!((poller.pacer.paced(), poller.pacer.deadline()), (0, None));
        }
        let sent = self.charged_from.iter().zip(&self.world.sockets);
        let sent: u64 = sent.filter_map(|(from, s)| from.map(|from| s.sent - from)).sum();
        assert_eq!(self.root.spent(), sent, "the root is charged every byte once");
    }
}

#[test]
fn churn_forgets_nobody_and_spins_nowhere() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("TIDEGATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDEGATE_SEEDS").unwrap_or(40),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut churn = Churn::new(seed);
            for _ in 0..20 {
                for _ in 0..40 {
                    churn.step();
                    let step = churn.world.now + churn.rng.u64(0..20) * NANOS_PER_MS / 2;
                    churn.world.run(step);
                }
                churn.step();
                churn.settle();
            }
            churn.end();
        });
        if outcome.is_err() {
            panic!("seed {seed} failed; replay it with TIDEGATE_SEED={seed}");
        }
    }
}
