//! A peer that is gone, and what it said before.
//!
//! A server that refuses a request may answer, close, and have its kernel answer the rest of the request with a reset. That
//! ends our writing, but what had arrived is still in our kernel. It is the answer, so a socket that we connected is not
//! torn down before its session had it (RFC 9112, section 9.6). The session takes it in its own time: where it has paused
//! reading, or a budget has, the socket waits for it. Nothing more arrives, so there is an end to that.

use super::Poller;
use super::socket::Life;
use super::visit::Got;
use crate::record::{End, Reason, Role};
use crate::transport::Wire;

impl Poller {
    /// Whether a socket that the peer ended so may have something left to read. A server has read what it wanted.
    pub(super) fn may_hear_out(&self, index: usize, end: End) -> bool {
        self.sockets.get(index).is_some_and(|socket| {
            let open = socket.life == Life::Open && !socket.gate.closing && !socket.doomed;
            open && socket.role == Role::Client && end == End::peer(Reason::Abort)
        })
    }

    pub(super) fn is_bereft(&self, index: usize) -> bool {
        self.sockets.get(index).is_some_and(|socket| socket.life == Life::Bereft)
    }

    /// The peer is gone: nothing goes out any more, and what it said before is read.
    pub(super) fn lose_peer(&mut self, index: usize, end: End) {
        let Some((socket, mut env)) = self.gate_parts(index) else { return };
        let dropped = socket.gate.give_up(&mut env);
        (socket.life, socket.end) = (Life::Bereft, Some(end));
        socket.rare().dropped_out += dropped;
        socket.told_readable = true;
        self.hear_out(index);
    }

    /// Hands over what is left, as far as it is wanted now; ends the socket when nothing is.
    pub(super) fn hear_out(&mut self, index: usize) {
        let mut room = self.settings.read_cap;
        let mut buffer = std::mem::take(&mut self.read_buffer);
        while let Some(socket) = self.sockets.get(index).filter(|socket| !socket.doomed) {
            if socket.gate.closing {
                self.end_bereft(index);
            } else if socket.reading_paused || socket.ingress_paused {
                // A session that has paused may have bytes of its own to come to.
                break;
            } else if socket.peer_finished {
                self.end_bereft(index);
            } else if room == 0 {
                self.requeue(index);
                break;
            } else {
                room = room.saturating_sub(self.hear_once(index, &mut buffer, room));
            }
        }
        self.read_buffer = buffer;
    }

    /// Says how much of the visit's room that took.
    fn hear_once(&mut self, index: usize, buffer: &mut [u8], room: u64) -> u64 {
        match self.read_once(index, buffer, room) {
            Got::Bytes(received) if received.eof => {
                let said = self.is_end_said(index);
                self.hand_over(index, &buffer[..received.plain], said);
                if let Some(socket) = self.sockets.get_mut(index) {
                    socket.peer_finished = true;
                }
                1
            }
            Got::Bytes(received) => {
                self.hand_over(index, &buffer[..received.plain], false);
                received.wire.max(received.plain as u64).max(1)
            }
            // A budget has its say first.
            Got::Nothing if self.sockets.get(index).is_some_and(|socket| socket.ingress_paused) => 0,
            Got::Nothing | Got::Failed(_) => {
                self.end_bereft(index);
                0
            }
        }
    }

    /// Whether the peer meant to end there. The kernel no longer says; a transport that has a goodbye knows.
    fn is_end_said(&self, index: usize) -> bool {
        self.sockets.get(index).is_some_and(|socket| {
            matches!(socket.gate.wire, Wire::Boxed(_)) && !socket.gate.wire.is_truncated()
        })
    }

    fn end_bereft(&mut self, index: usize) {
        let end = self.sockets.get(index).and_then(|socket| socket.end);
        self.doom(index, end.unwrap_or(End::peer(Reason::Abort)));
    }
}
