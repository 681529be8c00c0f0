//! The end of a poller, or of its serving: who is told, and in which order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Poller;
use super::figures::add;
use super::socket::{Life, Socket};
use crate::due::Due;
use crate::record::{End, Reason, Role};

impl Poller {
    /// Lets nobody in any more, and tells those that are in.
    pub(super) fn close_to_callers(&mut self) {
        if self.closed_to_callers {
            return;
        }
        // Callers the kernel has let in would be reset when their listener closes, and leave no record.
        for index in self.listeners.iter().map(|(index, _)| index).collect::<Vec<_>>() {
            self.visit_listener_to_the_end(index as u32);
        }
        self.closed_to_callers = true;
        self.listeners.clear();
        self.tell_shutdown(|socket| socket.role == Role::Server);
    }

    /// What is not gone after `grace` is cut.
    pub(super) fn begin_shutdown(&mut self, grace: Duration) {
        // Asked again, the earlier deadline counts.
        let at = self.now + grace;
        self.wheel.insert(at.max(self.now.plus_nanos(1)), Due::Cut);
        if self.stopping {
            return;
        }
        self.close_to_callers();
        self.stopping = true;
    }

    /// The deadline of a shutdown: what is left is cut, and nothing more is opened.
    pub(super) fn cut(&mut self) {
        self.closed_to_all = true;
        for index in self.indices() {
            self.doom(index, End::local(Reason::Shutdown));
        }
    }

    /// Once there is no caller left, whoever waits for that is told, and a poller that is shut down opens no more sockets of
    /// its own: until then, to serve a caller may need some.
    pub(super) fn look_for_callers(&mut self) {
        if self.callers > 0 {
            return;
        }
        if self.stopping && !self.closed_to_all {
            self.closed_to_all = true;
            self.tell_shutdown(|socket| socket.role == Role::Client);
        }
        for gone in std::mem::take(&mut self.callers_gone) {
            if catch_unwind(AssertUnwindSafe(gone)).is_err() {
                log::error!("{}: a call panicked that was told that no caller is left", self.settings.name);
                add(&self.shared.counters.panics, 1);
            }
        }
    }

    fn tell_shutdown(&mut self, concerned: impl Fn(&Socket) -> bool) {
        for index in self.indices() {
            let Some(socket) = self.sockets.get_mut(index).filter(|socket| concerned(socket)) else {
                continue;
            };
            if matches!(socket.life, Life::Connecting | Life::Handshake) {
                self.doom(index, End::local(Reason::Shutdown));
                continue;
            }
            // The kernel may hold what it has not told of yet; the visit of this turn looks.
            socket.told_readable = true;
            if !socket.gate.closing {
                self.call_session(index, |session, io| session.shutdown(io));
                self.schedule(index);
            }
        }
    }
}
