//! The send timer: how long a peer may take nothing of what could go.
//!
//! Runs while the kernel takes no bytes (see [`Outgoing::blocked_since`]) and is looked at a few times in a timeout. The
//! loop drives it when it comes due; it ends nothing itself.

use std::time::Duration;

use super::outgoing::Outgoing;
use super::send_timeout::SendTimeout;
use super::{Env, Gate};
use crate::due::Due;
use crate::moment::Moment;
use crate::sys;

impl Gate {
    /// Zero: none.
    pub(crate) fn set_send_timeout(&mut self, timeout: Duration, env: &mut Env<'_>) {
        self.send_timeout = SendTimeout::new(timeout);
        if let Some(out) = &mut self.out {
            if let Some(timer) = out.send_timer.take() {
                env.wheel.cancel(timer);
            }
            if let Some(since) = out.blocked_since {
                out.start_send_timer(self.send_timeout, since, env);
            }
        }
    }

    /// Counts the time that the kernel takes nothing from now on.
    pub(crate) fn restart_send_timer(&mut self, env: &mut Env<'_>) {
        if let Some(out) = &mut self.out {
            out.blocked_since = Some(env.now);
            out.start_send_timer(self.send_timeout, env.now, env);
        }
    }

    /// The send timer came due: whether the peer has taken nothing for too long. Starts it again if not.
    ///
    /// The kernel says that its buffer has room only when about a third is free, which a slow peer may be long in
    /// making: so it is asked now and then whether the peer took any.
    pub(crate) fn send_timer_due(&mut self, env: &mut Env<'_>) -> bool {
        let (Some(out), Some(limit)) = (&mut self.out, self.send_timeout.nanos()) else { return false };
        out.send_timer = None;
        let Some(since) = &mut out.blocked_since else { return false };
        let mut due = env.now.plus_nanos(limit);
        if !self.held {
            let left = sys::unacknowledged(self.wire.plain()).ok();
            if left != std::mem::replace(&mut out.unacknowledged, left) {
                *since = env.now;
            } else if since.plus_nanos(limit) <= env.now {
                return true;
            }
            due = since.plus_nanos(limit).min(env.now.plus_nanos(limit / SEND_CHECKS));
        }
        out.send_timer = Some(env.wheel.insert(due, Due::Send(env.key)));
        false
    }
}

impl Outgoing {
    /// Has the send timeout run from `since`, unless it runs already.
    pub(super) fn start_send_timer(&mut self, timeout: SendTimeout, since: Moment, env: &mut Env<'_>) {
        if let (Some(limit), None) = (timeout.nanos(), self.send_timer) {
            let due = since.plus_nanos(limit / SEND_CHECKS);
            self.send_timer = Some(env.wheel.insert(due.max(env.now.plus_nanos(1)), Due::Send(env.key)));
        }
    }
}

/// How many times in a send timeout it is looked whether the peer takes bytes. The timeout is late by one part.
const SEND_CHECKS: u64 = 8;
