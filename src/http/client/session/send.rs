//! Sending: a request goes into the outbox between two marks, its body perhaps only once the server gives leave.

use std::time::Duration;

use tidegate_poller::{Direction, Edge, Io, Mark};

use super::{ClientSession, Why};
use crate::http::body::{BodyWaker, Outgoing};
use crate::http::client::attempt::Attempt;
use crate::http::client::client::Call;
use crate::http::client::progress::{Counted, LOOKED_EVERY};
use crate::http::client::request::{Upload, write_head};
use crate::http::client::url::Scheme;
use crate::net::Waited;

/// How long a body waits for the server's leave: some never give it (RFC 9110, section 10.1.1). As long as curl does.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// A body in memory up to this size goes into the buffer of its head: one piece for the kernel instead of two.
const BODY_INLINE_MAX: usize = 4 * 1024;
/// The reason of the timer that has a session look how far a body has gone.
pub(in crate::http::client) const LOOK: u32 = 1;

impl ClientSession {
    pub(super) fn begin(&mut self, io: &mut Io<'_>, call: Call, reused: bool) {
        self.exchanges += 1;
        let options = &call.work.options;
        for (direction, limit) in [Direction::Egress, Direction::Ingress].into_iter().zip(&options.limits) {
            if limit.is_some() {
                io.set_limit(direction, limit.as_ref());
            }
        }
        let own = options.budgets.clone();
        let mut attempt = Attempt::new(self.exchanges, call, self.shared(), io, reused);
        // What the connection spends through already, it goes on to.
        attempt.budgets = own
            .into_iter()
            .filter(|(direction, budget, weight)| io.spend_through(*direction, budget, *weight))
            .map(|(direction, budget, _)| (direction, budget))
            .collect();
        self.current = Some(Box::new(attempt));
        self.send(io);
    }

    pub(super) fn send(&mut self, io: &mut Io<'_>) {
        let shared = self.shared().clone();
        // Through a tunnel a server is spoken to as if there were none.
        let key = &self.endpoint.place().key;
        let proxy = key.proxy.clone().filter(|_| key.scheme == Scheme::Http);
        let Some(current) = &mut self.current else { return };
        let coding = current.accept_encoding(&shared);
        let work = &current.call.work;
        let large = work.body.len().is_none_or(|len| len > shared.settings.continue_above);
        let waits = large && work.asks_leave;
        let mut out = io.buffer();
        let parts = (&work.method, &work.url, &work.headers, &work.body);
        write_head(&mut out, parts, proxy.as_deref(), &shared.settings.user_agent, coding, waits);
        current.account.head_out = out.len() as u64;
        let whole = work.body.len().map_or(u64::MAX, |len| len + out.len() as u64);
        current.account.queued(io, whole);
        if let (Some(progress), true) = (&work.options.progress, work.body.len() != Some(0)) {
            progress.begin(match work.body {
                // It is counted as it is pulled.
                Upload::Stream(_) => 0,
                _ => work.body.len().unwrap_or(0),
            });
        }
        (current.awaits_leave, current.asked_leave) = (waits, waits);
        io.mark(Mark { id: current.account.id, edge: Edge::Begin { free: 0 } });
        if waits {
            io.send(out);
            let until = io.now() + LEAVE_TIMEOUT;
            let total = current.call.deadline.map(|total| (total, Why::Late(Waited::Total)));
            self.patience.set(io, Some((until, Why::Leave)), total);
        } else {
            self.send_body(io, out);
        }
    }

    /// Queues the body after `head`, what of the head has not been queued yet.
    pub(super) fn send_body(&mut self, io: &mut Io<'_>, mut head: Vec<u8>) {
        let Some(current) = &mut self.current else { return };
        current.awaits_leave = false;
        let body = &mut current.call.work.body;
        let framing = body.framing();
        let inline = match body {
            Upload::Static(bytes) if bytes.len() <= BODY_INLINE_MAX => *bytes,
            Upload::Shared(bytes) if bytes.len() <= BODY_INLINE_MAX => bytes,
            _ => &[],
        };
        head.extend_from_slice(inline);
        let inlined = !inline.is_empty();
        if !head.is_empty() {
            io.send(head);
        }
        let progress = current.call.work.options.progress.as_ref();
        let counts_itself = matches!(body, Upload::Stream(_));
        match body {
            _ if inlined => {}
            Upload::Static(bytes) => io.send(*bytes),
            Upload::Shared(bytes) => io.send(bytes.clone()),
            Upload::File { file, offset, len } => io.send_file(file.clone(), *offset, *len),
            Upload::Stream(_) => {
                if let Upload::Stream(stream) = std::mem::replace(body, Upload::Sent) {
                    let mut source = stream.into_source();
                    if let Some(progress) = progress {
                        source = Box::new(Counted::new(source, progress));
                    }
                    source.attach(BodyWaker::new(io.socket()));
                    io.send_source(Box::new(Outgoing::new(source, framing)));
                }
            }
            Upload::Empty | Upload::Sent => {}
        }
        io.mark(Mark { id: current.account.id, edge: Edge::End });
        if progress.is_some() && !inlined && !counts_itself {
            current.look = Some(io.start_timer(LOOKED_EVERY, LOOK));
        }
        self.wait_for(io, Waited::Total);
    }

    /// Sets the deadline of what comes next from the server, unless it is ourselves who are waited for.
    pub(super) fn wait_for_more(&mut self, io: &mut Io<'_>) {
        let Some(current) = self.current.as_ref().filter(|current| !self.paused && !current.awaits_leave)
        else {
            return;
        };
        let what = match current.decoder.has_begun() {
            // As long as the request goes out, a server that stands still is one that takes no bytes of it.
            _ if !current.account.is_sent() && !current.is_refused => Waited::Total,
            true => Waited::NextByte,
            false => Waited::FirstByte,
        };
        self.wait_for(io, what);
    }

    /// Sets the deadline of what is waited for now, or that of the whole call if it comes first.
    pub(super) fn wait_for(&mut self, io: &mut Io<'_>, what: Waited) {
        let settings = &self.shared().settings;
        let patience = match what {
            Waited::FirstByte => Some(settings.first_byte_timeout),
            Waited::NextByte => Some(settings.next_byte_timeout),
            Waited::Connect => Some(settings.connect_timeout),
            Waited::Tls => Some(settings.tls_timeout),
            _ => None,
        };
        let call = self.current.as_ref().map(|current| &current.call).or(self.first.as_ref());
        let total = call.and_then(|call| call.deadline);
        let now = io.now();
        self.patience.set(
            io,
            patience.map(|patience| (now + patience, Why::Late(what))),
            total.map(|total| (total, Why::Late(Waited::Total))),
        );
    }
}
