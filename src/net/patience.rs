//! How long a session waits, and for what.

use tidegate_poller::{Io, Moment, TimerId};

/// The reason of its timer.
pub(super) const PATIENCE: u32 = 0;

/// A deadline of what is waited for now, and one of the whole, on one timer of the session, which is touched only when it
/// would fire too late.
#[derive(Debug)]
pub(crate) struct Patience<W> {
    deadline: Option<(Moment, W)>,
    /// Stands whatever happens meanwhile.
    total: Option<(Moment, W)>,
    timer: Option<(TimerId, Moment)>,
    /// Time for which an ingress budget had kept us from reading when the deadline was set.
    throttled_ns: u64,
}

impl<W> Default for Patience<W> {
    fn default() -> Patience<W> {
        Patience { deadline: None, total: None, timer: None, throttled_ns: 0 }
    }
}

impl<W: Copy> Patience<W> {
    /// Sets both.
    pub(crate) fn set(&mut self, io: &mut Io<'_>, deadline: Option<(Moment, W)>, total: Option<(Moment, W)>) {
        self.throttled_ns = io.sums().ingress_throttled_ns;
        (self.deadline, self.total) = (deadline, total);
        self.arm(io);
    }

    /// The timer has fired. What for, if a deadline has passed.
    pub(crate) fn fired(&mut self, io: &mut Io<'_>) -> Option<W> {
        self.timer = None;
        match self.next() {
            Some((at, what)) if at <= io.now() => Some(what),
            _ => {
                self.arm(io);
                None
            }
        }
    }

    /// Waits for as much longer as a budget of ours kept us from reading since the deadline was set: that is no fault of the
    /// peer's. Says whether it did.
    pub(crate) fn make_up(&mut self, io: &mut Io<'_>) -> bool {
        let throttled = io.sums().ingress_throttled_ns;
        let more = throttled.saturating_sub(self.throttled_ns);
        self.throttled_ns = throttled;
        if let (Some((_, what)), true) = (self.deadline, more > 0) {
            self.deadline = Some((io.now().plus_nanos(more), what));
            self.arm(io);
        }
        more > 0
    }

    fn next(&self) -> Option<(Moment, W)> {
        self.deadline.into_iter().chain(self.total).min_by_key(|(at, _)| *at)
    }

    fn arm(&mut self, io: &mut Io<'_>) {
        let Some((deadline, _)) = self.next() else { return };
        if let Some((timer, at)) = self.timer {
            if at <= deadline {
                return;
            }
            io.cancel_timer(timer);
        }
        self.timer = Some((io.start_timer(deadline - io.now(), PATIENCE), deadline));
    }
}
