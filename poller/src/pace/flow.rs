//! A flow: one direction of one socket, its own bucket and its places at the ports.

use crate::budget::Limit;
use crate::budget::bucket::Bucket;
use crate::budget::interval::{early_bytes, on_grid, own_credit_ceiling, quantum};
use crate::moment::Moment;

/// Names a flow of one pacer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(pub(super) u32);

/// One direction of one socket.
#[derive(Debug)]
pub(super) struct Flow {
    /// The socket, in the caller's numbering.
    pub(super) owner: usize,
    /// Tells a flow from an earlier one in the same slot.
    pub(super) generation: u32,
    pub(super) own: Option<OwnBucket>,
    /// Bytes still exempt from the own bucket (`after`).
    pub(super) free: u64,
    pub(super) places: Vec<Place>,
    /// Counted among the paced flows.
    pub(super) paced: bool,
}

/// A flow's place at one port.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) port: u32,
    pub(super) weight: u32,
    /// Bytes drawn from the port's lease and not spent yet.
    pub(super) purse: u64,
    /// Bytes it waits for.
    pub(super) wanted: u64,
    /// It has an entry in the port's queue.
    pub(super) in_queue: bool,
    /// That entry is in the queue of the fresh.
    pub(super) fresh: bool,
    /// It wants what that entry stands for; else the entry is passed over.
    pub(super) waits: bool,
    /// It waited before since it last rested: no longer fresh.
    pub(super) seasoned: bool,
}

impl Place {
    pub(super) fn new(port: u32, weight: u32) -> Place {
        Place {
            port,
            weight: weight.max(1),
            purse: 0,
            wanted: 0,
            in_queue: false,
            fresh: false,
            waits: false,
            seasoned: false,
        }
    }
}

/// What the own bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnAllowance {
    Now(u64),
    Until(Moment),
    Never,
}

/// The bucket a flow has for itself, under a [`Limit`].
///
/// Once a quantum is used up it stays shut until the whole debt is paid: one wake-up for one quantum. Until then small
/// writes pass without a wait.
#[derive(Debug)]
pub(super) struct OwnBucket {
    limit: Limit,
    bucket: Bucket,
    /// The rate the level was last counted at.
    rate: Option<u64>,
    shut: bool,
    /// Part of a quantum, between 0 and 1, by which its first pause is shortened. Flows that start together would
    /// otherwise all wake together for ever.
    phase: f64,
    /// It has paused since it last rested.
    seasoned: bool,
}

impl OwnBucket {
    pub(super) fn new(limit: Limit, phase: f64, now: Moment) -> OwnBucket {
        let rate = limit.rate();
        OwnBucket { limit, bucket: Bucket::new(now), rate, shut: false, phase, seasoned: false }
    }

    pub(super) fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Puts another limit in its place; the next question finds a changed rate.
    pub(super) fn change_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    pub(super) fn allow(&mut self, wanted: u64, interval_ns: u64, now: Moment) -> OwnAllowance {
        let rate = self.limit.rate();
        let Some(bytes_per_sec) = rate else {
            self.follow(rate, now);
            return OwnAllowance::Now(wanted);
        };
        let quantum = quantum(bytes_per_sec, interval_ns);
        self.refill(bytes_per_sec, quantum, interval_ns, now);
        if bytes_per_sec == 0 {
            return OwnAllowance::Never;
        }
        let left = self.bucket.level().saturating_add_unsigned(quantum);
        let phase = if self.seasoned { 0.0 } else { self.phase };
        let target = -((quantum as f64 * phase) as i64);
        let opens_at = target - early_bytes(bytes_per_sec, interval_ns) as i64;
        if self.shut {
            self.shut = self.bucket.level() < opens_at;
            self.seasoned |= !self.shut;
        } else {
            // What is left of a quantum must be worth a syscall: an eighth, unless the writer wants less.
            self.shut = left < wanted.min((quantum / 8).max(1)) as i64;
        }
        if !self.shut {
            return OwnAllowance::Now(wanted.min(left.unsigned_abs()));
        }
        match self.bucket.reaches(target, bytes_per_sec) {
            Some(when) => OwnAllowance::Until(on_grid(when, interval_ns, now)),
            None => OwnAllowance::Never,
        }
    }

    /// The flow has nothing to write, or cannot.
    pub(super) fn rest(&mut self) {
        self.bucket.forget_arrears();
        self.seasoned = false;
    }

    pub(super) fn charge(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.bucket.spend(bytes);
        }
    }

    fn refill(&mut self, rate: u64, quantum: u64, interval_ns: u64, now: Moment) {
        if self.rate != Some(rate) {
            self.follow(Some(rate), now);
        }
        let ceiling = own_credit_ceiling(rate, quantum, interval_ns, self.limit.burst());
        let lost = self.bucket.refill(rate, ceiling, now);
        if self.shut && self.seasoned {
            self.bucket.make_up_for(lost, quantum.saturating_add(ceiling));
        }
    }

    /// Takes over a changed rate. Debt and credit are kept as time.
    fn follow(&mut self, rate: Option<u64>, now: Moment) {
        let old = self.rate.unwrap_or(0);
        self.bucket.refill(old, self.bucket.level().max(0).unsigned_abs(), now);
        self.bucket.rescale(old, rate.unwrap_or(0));
        self.rate = rate;
    }
}
