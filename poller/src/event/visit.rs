//! A socket's visit: it reads, its session is called, its gate runs.

use std::io;
use std::sync::Arc;

use super::Poller;
use super::handle::Work;
use super::socket::Life;
use crate::due::{Due, Key};
use crate::gate::{Step, end_of_error};
use crate::pace::Allowance;
use crate::record::{End, Reason};
use crate::sys;
use crate::transport::{Received, Transport as _, Wire};

/// When the pool that brings in cold files is full: long enough for some of its work to be done.
const REWARM_NS: u64 = 5_000_000;

/// What came of one read.
pub(super) enum Got {
    Bytes(Received),
    Nothing,
    Failed(End),
}

/// How much of a visit's room a read takes. A transport that gave little for what came has had more to do than to copy: TLS
/// decrypts record by record, however small they are.
fn cost_of(received: &Received) -> u64 {
    let (wire, plain) = (received.wire, received.plain as u64);
    let times = if plain < wire / 2 { 4 } else { 1 };
    (wire * times).max(plain).max(1)
}

impl Poller {
    /// Reads, calls the session, runs the gate.
    pub(super) fn visit(&mut self, index: usize) {
        self.current = Some(index);
        if self.is_bereft(index) {
            self.hear_out(index);
        } else if self.is_connected(index) {
            self.read(index);
            self.check_error(index);
            self.run_gate(index);
        }
        self.current = None;
    }

    /// Runs a socket's gate until it has nothing to do or must stop.
    pub(super) fn run_gate(&mut self, index: usize) {
        let mut room = self.settings.visit_cap;
        loop {
            let Some((socket, mut env)) = self.gate_parts(index) else { return };
            if socket.doomed || matches!(socket.life, Life::Connecting | Life::Bereft) {
                return;
            }
            if socket.life == Life::Failing && !socket.gate.wire.wants_write() {
                return self.send_fin(index);
            }
            let key = env.key;
            let step = socket.gate.step(&mut env, &mut room);
            let drained = socket.gate.take_drained();
            self.tell_passed(index);
            if drained {
                self.call_session(index, |session, io| session.drained(io));
            }
            match step {
                Step::Went => {}
                Step::Idle => {
                    if !self.finish_idle(index) {
                        return;
                    }
                }
                Step::Again => return self.requeue(index),
                Step::Stopped => return,
                Step::Cold { file, offset, len } => return self.bring_in(key, file, offset, len),
                Step::Failed(end) if self.may_hear_out(index, end) => return self.lose_peer(index, end),
                Step::Failed(end) => return self.fail(index, end),
            }
        }
    }

    /// The outbox is empty: sends FIN if the socket is closing. Says whether the gate has to go on.
    fn finish_idle(&mut self, index: usize) -> bool {
        let Some(socket) = self.sockets.get_mut(index) else { return false };
        if !socket.gate.is_empty() {
            return true;
        }
        if !socket.gate.closing || socket.life != Life::Open || socket.doomed {
            return false;
        }
        if socket.hasty && matches!(socket.gate.wire, Wire::Plain(_)) && !socket.told_readable {
            // Closing sends FIN, too. Not where something is still to be read: that would be answered with a reset.
            let end = socket.end.unwrap_or(End::local(Reason::LocalClose));
            self.doom(index, end);
            return false;
        }
        match socket.gate.wire.get().finish(&mut self.pools.buffers) {
            Ok(false) => return socket.gate.wire.wants_write(),
            Ok(true) => self.linger(index),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The peer has reset it since our last byte went, which is as if it had waited for our FIN.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                let end = socket.end.unwrap_or(End::local(Reason::LocalClose));
                self.doom(index, end);
            }
            Err(error) => self.fail(index, end_of_error(&error)),
        }
        false
    }

    /// FIN was sent: waits for the peer's, for a while.
    fn linger(&mut self, index: usize) {
        let Some(socket) = self.sockets.get_mut(index) else { return };
        let end = socket.end.unwrap_or(End::local(Reason::LocalClose));
        // A goodbye is not the FIN: that is still to be read.
        socket.peer_finished = socket.fin_came();
        socket.life = Life::Lingering;
        if socket.peer_finished || self.settings.linger.is_zero() {
            return self.doom(index, end);
        }
        self.start_deadline(index, self.settings.linger);
        // What arrived meanwhile is discarded, or tells that the peer is done too.
        self.requeue(index);
    }

    /// The transport failed: what it has to say about that goes, as far as it does within the time to linger.
    fn fail(&mut self, index: usize, end: End) {
        let Some(socket) = self.sockets.get_mut(index) else { return };
        if socket.has_only_its_goodbye_left() {
            let end = socket.end.unwrap_or(end);
            return self.doom(index, end);
        }
        let silent = !socket.gate.wire.wants_write() || socket.gate.wire.is_ready();
        if silent || matches!(socket.life, Life::Failing | Life::Lingering) || self.settings.linger.is_zero()
        {
            return self.doom(index, end);
        }
        if !socket.doomed {
            socket.end = Some(end);
            socket.life = Life::Failing;
            self.start_deadline(index, self.settings.linger);
            self.requeue(index);
        }
    }

    /// The last words of a transport that failed have gone.
    fn send_fin(&mut self, index: usize) {
        let Some(socket) = self.sockets.get_mut(index) else { return };
        let end = socket.end.unwrap_or(End::local(Reason::TransportError));
        match socket.gate.wire.plain_mut().finish(&mut self.pools.buffers) {
            Ok(_) => self.linger(index),
            Err(_) => self.doom(index, end),
        }
    }

    fn tell_passed(&mut self, index: usize) {
        if self.passed.is_empty() {
            return;
        }
        let mut passed = std::mem::take(&mut self.passed);
        for mark in passed.drain(..) {
            self.call_session(index, |session, io| session.passed(io, mark));
        }
        self.passed = passed;
    }

    /// Reads what there is, up to the visit's cap.
    pub(super) fn read(&mut self, index: usize) {
        let mut room = self.settings.read_cap;
        // Lent to the session with the socket, so it cannot stay in the poller meanwhile.
        let mut buffer = std::mem::take(&mut self.read_buffer);
        while self.sockets.get(index).is_some_and(|socket| {
            socket.wants_bytes() && (socket.told_readable || socket.gate.wire.wants_read())
        }) {
            if room == 0 {
                self.requeue(index);
                break;
            }
            match self.read_once(index, &mut buffer, room) {
                Got::Nothing => break,
                Got::Failed(end) => {
                    self.fail(index, end);
                    break;
                }
                Got::Bytes(received) => {
                    room = room.saturating_sub(cost_of(&received));
                    self.look_whether_ready(index);
                    self.hand_over(index, &buffer[..received.plain], received.eof);
                }
            }
        }
        self.read_buffer = buffer;
    }

    pub(super) fn read_once(&mut self, index: usize, buffer: &mut [u8], room: u64) -> Got {
        let now = self.now;
        let Some(socket) = self.sockets.get_mut(index) else { return Got::Nothing };
        let wanted = room.min(buffer.len() as u64);
        let flow = socket.ingress();
        let allowance = match flow.map(|flow| self.pacer.allow(flow, wanted, now)) {
            None => wanted,
            Some(Allowance::Now(n)) => n.clamp(1, wanted),
            Some(pause) => {
                socket.ingress_paused = true;
                socket.gate.ledger.set_ingress_paused(true, now);
                if let Allowance::Until(until) = pause {
                    let key = Key { index: index as u32, generation: socket.generation() };
                    let until = until.max(now.plus_nanos(1));
                    socket.rare().ingress_timer = Some(self.wheel.insert(until, Due::ResumeReading(key)));
                }
                return Got::Nothing;
            }
        };
        let buffers = &mut self.pools.buffers;
        match socket.gate.wire.get().read(buffer, allowance, buffers) {
            Ok(received) => {
                if let Some(flow) = flow {
                    self.pacer.charge(flow, received.wire);
                }
                socket.gate.ledger.note_in(received.wire, received.plain as u64, now);
                if received.eof || (received.drained && !socket.told_hup) {
                    socket.told_readable = false;
                    if let Some(flow) = flow {
                        self.pacer.rest(flow, now);
                    }
                }
                Got::Bytes(received)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Got::Bytes(Received::default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.told_readable = false;
                if let Some(flow) = flow {
                    self.pacer.rest(flow, now);
                }
                Got::Nothing
            }
            Err(error) => Got::Failed(end_of_error(&error)),
        }
    }

    /// Gives the session what was read. A closing socket's input is discarded.
    pub(super) fn hand_over(&mut self, index: usize, bytes: &[u8], eof: bool) {
        let Some(socket) = self.sockets.get_mut(index) else { return };
        let (closing, lingering) = (socket.gate.closing, socket.life == Life::Lingering);
        socket.peer_finished |= eof;
        if !bytes.is_empty() && !closing {
            self.call_session(index, |session, io| session.received(io, bytes));
        }
        if eof && lingering {
            self.doom(index, End::peer(Reason::Ok));
        } else if eof && !closing {
            self.call_session(index, |session, io| session.peer_finished(io));
        }
    }

    /// An error the kernel told of, that no read will find because nobody reads.
    fn check_error(&mut self, index: usize) {
        let Some(socket) = self.sockets.get_mut(index) else { return };
        if socket.told_readable && socket.wants_bytes() {
            // The visit's cap came first: what is left to be read goes before.
            return;
        }
        if std::mem::take(&mut socket.told_error)
            && let Ok(Some(error)) = socket.gate.wire.plain().take_error()
        {
            let announced = socket.end.filter(|_| socket.has_only_its_goodbye_left());
            let end = announced.unwrap_or(end_of_error(&error));
            match self.may_hear_out(index, end) {
                true => self.lose_peer(index, end),
                false => self.doom(index, end),
            }
        }
    }

    /// An ingress budget lets bytes in again, or may.
    pub(super) fn resume_reading(&mut self, index: usize) {
        let now = self.now;
        if let Some(socket) = self.sockets.get_mut(index) {
            socket.ingress_paused = false;
            socket.gate.ledger.set_ingress_paused(false, now);
            if let Some(timer) = socket.rare.as_mut().and_then(|rare| rare.ingress_timer.take()) {
                self.wheel.cancel(timer);
            }
            self.schedule(index);
        }
    }

    /// Has a cold piece of a file brought in off the poller.
    fn bring_in(&mut self, key: Key, file: Arc<std::fs::File>, offset: u64, len: u64) {
        let shared = self.shared.clone();
        let job = Box::new(move || {
            if let Err(error) = sys::warm_file(&file, offset, len) {
                log::debug!("cannot read ahead in a file: {error}");
            }
            // An error too: sending from the file will show what it is.
            let _ = shared.push(Work::Warmed(key, offset.saturating_add(len)));
        });
        if self.offload.submit(job).is_err() {
            self.wheel.insert(self.now.plus_nanos(REWARM_NS), Due::Rewarm(key));
        }
    }

    pub(super) fn file_is_warm(&mut self, key: Key, until: u64) {
        if let Some(socket) = self.lookup(key) {
            socket.gate.file_is_warm(until);
            self.schedule(key.index as usize);
        }
    }
}
