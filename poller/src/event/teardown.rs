//! The end of a socket: the one place where a ledger becomes a record and a session gets it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Poller;
use super::figures::add;
use super::socket::Life;
use crate::due::Key;
use crate::gate::Env;
use crate::ledger::Teardown;
use crate::record::{End, Reason, Role};
use crate::sys;

impl Poller {
    /// Has a socket torn down in this turn's last phase. The first to say why is believed, except that an end
    /// announced by closing gives way to what really cut it short.
    pub(super) fn doom(&mut self, index: usize, end: End) {
        let Some(socket) = self.sockets.get_mut(index) else { return };
        if socket.doomed {
            return;
        }
        if socket.end.is_none() || !matches!(socket.life, Life::Lingering | Life::Failing) {
            socket.end = Some(end);
        }
        socket.doomed = true;
        self.doomed.push(Key { index: index as u32, generation: socket.generation() });
    }

    pub(super) fn doom_key(&mut self, key: Key, end: End) {
        if self.lookup(key).is_some() {
            self.doom(key.index as usize, end);
        }
    }

    /// Takes a socket down.
    pub(super) fn tear_down(&mut self, index: usize) {
        let Some(mut socket) = self.sockets.try_remove(index) else { return };
        let now = self.now;
        self.callers -= usize::from(socket.role == Role::Server);
        socket.take_timers(|timer| {
            self.wheel.cancel(timer);
        });
        if let Some(flow) = socket.ingress() {
            self.pacer.part(flow, now);
        }
        let mut env = Env {
            now,
            key: Key { index: index as u32, generation: socket.generation() },
            pacer: &mut self.pacer,
            wheel: &mut self.wheel,
            pools: &mut self.pools,
            passed: &mut self.passed,
            notsent_lowat: None,
        };
        let cut_source = socket.gate.has_source();
        let dropped_before = socket.rare.as_ref().map_or(0, |rare| rare.dropped_out);
        let dropped_out = dropped_before + socket.gate.clear(&mut env);
        let fin_came = socket.fin_came();
        let plain = socket.gate.wire.plain_mut();
        let connected = socket.life != Life::Connecting;
        let wanted = socket.session.as_ref().is_some_and(|session| {
            catch_unwind(AssertUnwindSafe(|| session.wants_figures())).unwrap_or(true)
        });
        let tcp = if plain.is_tcp() && connected && wanted {
            sys::tcp_info(&*plain, socket.role, fin_came).ok()
        } else {
            None
        };
        if (dropped_out > 0 || cut_source) && connected {
            // The peer must not take a part for the whole: where the end of the connection is the end of the message, FIN
            // would say that this was all.
            let _ = sys::set_linger_reset(&*plain);
        }
        // Closing takes it out of epoll: nobody else has this descriptor. Where a child of a fork had it for a moment, an
        // event may come that belongs to no socket, and is dropped.
        add(&self.shared.counters.open, u64::MAX);

        let end = socket.end.unwrap_or(End::local(Reason::LocalClose));
        let (peer, started) = (socket.peer(), socket.started_wall());
        let Some(session) = socket.session.take() else { return };
        let handshake = socket.handshake().map(Box::new);
        let phase = match &handshake {
            _ if !connected => "connect",
            Some(handshake) if handshake.took.is_none() => "handshake",
            _ => catch_unwind(AssertUnwindSafe(|| session.phase())).unwrap_or("panicked"),
        };
        let record = socket.gate.ledger.into_record(Teardown {
            now,
            conn_id: socket.conn_id,
            peer,
            role: socket.role,
            started,
            end,
            phase,
            dropped_out,
            tcp,
            handshake,
        });
        // Closed before the session hears of it, so that what it does next finds the descriptor free.
        drop(socket.gate.wire);
        if catch_unwind(AssertUnwindSafe(|| session.closed(record))).is_err() {
            log::error!("{}: a session panicked while it was given its record", self.settings.name);
            add(&self.shared.counters.panics, 1);
        }
    }
}
