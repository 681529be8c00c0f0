//! The world that is simulated: sockets with a kernel behind them, the pollers that write to them, and time.
//!
//! The pacers and budgets in it are the real ones; nothing here decides what may go.

use std::collections::VecDeque;
use std::time::Duration;

use crate::budget::{Budget, Limit, Signal};
use crate::moment::{Moment, NANOS_PER_SEC};
use crate::pace::{Allowance, FlowId, Pacer};

/// One simulated socket.
pub(crate) struct Socket {
    pub(crate) poller: usize,
    pub(crate) flow: FlowId,
    pub(crate) queued: u64,
    /// Bytes per second the peer reads at; `u64::MAX` never blocks.
    pub(crate) drain: u64,
    /// Bytes in the simulated kernel, up to [`KERNEL`].
    pub(crate) kernel: f64,
    pub(crate) drained_at: u64,
    pub(crate) blocked: bool,
    pub(crate) paused_until: Option<u64>,
    pub(crate) turn: bool,
    pub(crate) sent: u64,
    pub(crate) wanted_since: Option<u64>,
    pub(crate) writes: Vec<(u64, u64)>,
    pub(crate) longest_gap: u64,
    pub(crate) last_write: u64,
    /// The program holds it.
    pub(crate) held: bool,
    pub(crate) gone: bool,
}

/// Send buffer of a simulated socket, bytes.
const KERNEL: f64 = 4_194_304.0;

pub(crate) struct Poller {
    pub(crate) pacer: Pacer,
    /// Up to how late it wakes, nanoseconds.
    pub(crate) lateness: u64,
    pub(crate) wakes: u64,
    /// The moment it will look again.
    pub(crate) next: u64,
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) pollers: Vec<Poller>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) visit_cap: u64,
}

impl World {
    pub(crate) fn new(seed: u64, pollers: usize, interval: Option<Duration>, lateness: u64) -> World {
        let pollers = (0..pollers)
            .map(|_| Poller { pacer: Pacer::new(interval, Signal::new(|| ())), lateness, wakes: 0, next: 0 })
            .collect();
        let rng = fastrand::Rng::with_seed(seed);
        World { now: NANOS_PER_SEC, pollers, sockets: Vec::new(), rng, visit_cap: 1 << 40 }
    }

    pub(crate) fn at(&self) -> Moment {
        Moment::from_nanos(self.now)
    }

    pub(crate) fn socket(
        &mut self,
        poller: usize,
        limit: Option<&Limit>,
        budgets: &[&Budget],
        weight: u32,
    ) -> usize {
        let now = self.at();
        let owner = self.sockets.len();
        let pacer = &mut self.pollers[poller].pacer;
        let flow = pacer.join(owner);
        pacer.set_limit(flow, limit, now);
        for budget in budgets {
            pacer.spend_through(flow, budget, weight);
        }
        self.sockets.push(Socket {
            poller,
            flow,
            queued: 0,
            drain: u64::MAX,
            kernel: 0.0,
            drained_at: self.now,
            blocked: false,
            paused_until: None,
            turn: false,
            sent: 0,
            wanted_since: None,
            writes: Vec::new(),
            longest_gap: 0,
            last_write: self.now,
            held: false,
            gone: false,
        });
        owner
    }

    /// Queues bytes; the poller looks at the socket in a turn right now.
    pub(crate) fn queue(&mut self, socket: usize, bytes: u64) {
        let s = &mut self.sockets[socket];
        if s.queued == 0 {
            s.wanted_since = Some(self.now);
            s.last_write = self.now;
        }
        s.queued += bytes;
        let poller = s.poller;
        self.turn(poller, &[socket]);
    }

    /// The gate of one socket, as the loop runs it.
    pub(crate) fn gate(&mut self, socket: usize) {
        let now = self.at();
        let s = &mut self.sockets[socket];
        if s.gone {
            return;
        }
        let pacer = &mut self.pollers[s.poller].pacer;
        s.drain_until(self.now);
        s.paused_until = None;
        s.turn = false;
        let mut visit = 0;
        loop {
            if s.queued == 0 || s.blocked || s.held {
                pacer.rest(s.flow, now);
                return;
            }
            match pacer.allow(s.flow, s.queued, now) {
                Allowance::Now(bytes) => {
                    assert!(bytes >= 1 && bytes <= s.queued, "allowance {bytes} of {}", s.queued);
                    let bytes = bytes.min(self.visit_cap - visit);
                    let room = if s.drain == u64::MAX { u64::MAX } else { (KERNEL - s.kernel) as u64 };
                    let took = bytes.min(room);
                    s.blocked = took < bytes;
                    if took > 0 {
                        pacer.charge(s.flow, took);
                        s.kernel += if s.drain == u64::MAX { 0.0 } else { took as f64 };
                        s.queued -= took;
                        s.sent += took;
                        s.writes.push((self.now, took));
                        s.longest_gap = s.longest_gap.max(self.now - s.last_write);
                        s.last_write = self.now;
                        visit += took;
                    }
                }
                Allowance::Until(when) => {
                    assert!(when > now, "a pause must end in the future: {when:?} at {now:?}");
                    s.paused_until = Some(when.as_nanos());
                    return;
                }
                Allowance::Turn => {
                    s.turn = true;
                    return;
                }
                Allowance::Never => return,
            }
        }
    }

    pub(crate) fn turn(&mut self, poller: usize, ready: &[usize]) {
        self.pollers[poller].wakes += 1;
        let now = self.at();
        if self.pollers[poller].pacer.begin_turn() {
            let all: Vec<usize> =
                (0..self.sockets.len()).filter(|s| self.sockets[*s].poller == poller).collect();
            for socket in all {
                if self.sockets[socket].queued > 0 {
                    self.gate(socket);
                }
            }
        }
        for socket in ready {
            self.gate(*socket);
        }
        self.pollers[poller].pacer.settle(now);
        while let Some(owner) = self.pollers[poller].pacer.next_turn(now) {
            self.gate(owner);
        }
        let next = self.next_wake(poller);
        let late = if self.pollers[poller].lateness > 0 {
            self.rng.u64(0..self.pollers[poller].lateness)
        } else {
            0
        };
        self.pollers[poller].next = next.max(self.now + 1).saturating_add(late);
    }

    pub(crate) fn next_wake(&self, poller: usize) -> u64 {
        let of_pacer = self.pollers[poller].pacer.deadline().map(Moment::as_nanos);
        let pauses = self.sockets.iter().filter(|s| s.poller == poller).filter_map(|s| s.paused_until);
        let unblocks =
            self.sockets.iter().filter(|s| s.poller == poller && s.blocked).map(|s| s.unblocks_at());
        of_pacer.into_iter().chain(pauses).chain(unblocks).min().unwrap_or(u64::MAX)
    }

    /// Runs the pollers until `until`, and the clock with them.
    pub(crate) fn run(&mut self, until: u64) {
        let mut turns_at_once = 0;
        loop {
            let next = (0..self.pollers.len()).min_by_key(|p| self.pollers[*p].next).expect("a poller");
            let when = self.pollers[next].next;
            if when > until {
                self.now = until;
                return;
            }
            turns_at_once = if when <= self.now + 1 { turns_at_once + 1 } else { 0 };
            assert!(turns_at_once < 10_000, "spins at {}", self.now);
            self.now = self.now.max(when);
            let now = self.now;
            let ready: Vec<usize> = (0..self.sockets.len())
                .filter(|s| {
                    let s = &self.sockets[*s];
                    let unblocked = s.blocked && s.unblocks_at() <= now;
                    s.poller == next && (unblocked || s.paused_until.is_some_and(|until| until <= now))
                })
                .collect();
            for socket in &ready {
                self.sockets[*socket].drain_until(now);
                let s = &mut self.sockets[*socket];
                s.blocked = s.blocked && s.unblocks_at() > now;
            }
            self.turn(next, &ready);
        }
    }

    pub(crate) fn set_rate(&mut self, budget: &Budget, rate: Option<u64>) {
        budget.set_rate_at(rate, self.at());
        self.kick();
    }

    /// What a signal does: every poller wakes.
    pub(crate) fn kick(&mut self) {
        for poller in 0..self.pollers.len() {
            self.turn(poller, &[]);
        }
    }

    pub(crate) fn sent(&self, sockets: &[usize]) -> u64 {
        sockets.iter().map(|s| self.sockets[*s].sent).sum()
    }

    /// The most bytes that these sockets sent in any window of `nanos`.
    pub(crate) fn most_in(&self, sockets: &[usize], nanos: u64, from: u64) -> u64 {
        let mut writes: Vec<(u64, u64)> = sockets
            .iter()
            .flat_map(|s| self.sockets[*s].writes.iter().copied())
            .filter(|w| w.0 >= from)
            .collect();
        writes.sort_unstable();
        let (mut window, mut sum, mut most) = (VecDeque::new(), 0, 0);
        for (at, bytes) in writes {
            window.push_back((at, bytes));
            sum += bytes;
            while window.front().is_some_and(|(first, _)| *first + nanos < at) {
                sum -= window.pop_front().expect("not empty").1;
            }
            most = most.max(sum);
        }
        most
    }
}

impl Socket {
    fn drain_until(&mut self, now: u64) {
        if self.drain != u64::MAX {
            let nanos = now - self.drained_at;
            self.kernel = (self.kernel - self.drain as f64 * nanos as f64 / NANOS_PER_SEC as f64).max(0.0);
        }
        self.drained_at = now;
    }

    /// When a third of its kernel buffer is free again, as the kernel's writable edge.
    fn unblocks_at(&self) -> u64 {
        let excess = self.kernel - KERNEL * 2.0 / 3.0;
        if excess <= 0.0 {
            return self.drained_at;
        }
        self.drained_at + (excess / self.drain as f64 * NANOS_PER_SEC as f64) as u64 + 1
    }
}

pub(crate) fn budget(name: &str, rate: Option<u64>, parent: Option<&Budget>, weight: u32) -> Budget {
    let builder = Budget::builder(name).rate(rate).weight(weight);
    let builder = match parent {
        Some(parent) => builder.parent(parent),
        None => builder,
    };
    builder.build_at(Moment::from_nanos(NANOS_PER_SEC))
}

pub(crate) fn close(actual: f64, expected: f64, tolerance: f64, what: &str) {
    let off = (actual - expected).abs() / expected;
    assert!(off <= tolerance, "{what}: {actual:.1} instead of {expected:.1}, off by {:.3} %", off * 100.0);
}

pub(crate) const SECOND: u64 = NANOS_PER_SEC;
pub(crate) const MANY: u64 = 1 << 50;
