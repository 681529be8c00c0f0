//! Ending: what becomes of a call whose connection is no more.

use tidegate_poller::record::{ConnectionRecord, End, Who};
use tidegate_poller::{Io, Reason};

use super::ClientSession;
use crate::http::client::attempt::Attempt;
use crate::http::client::client::{Call, unconnected};
use crate::http::client::error::ClientError;
use crate::net::Waited;

impl ClientSession {
    pub(super) fn fail(&mut self, io: &mut Io<'_>, error: ClientError, end: End) {
        self.failure.get_or_insert(error);
        io.abort(end);
    }

    /// Closes a connection that has nothing to do.
    pub(super) fn close_idle(&mut self, io: &mut Io<'_>, end: End) {
        self.endpoint.leave(self.connection);
        io.abort(end);
    }

    /// What becomes of a call whose connection has ended.
    pub(super) fn settle(&mut self, attempt: Attempt, record: &ConnectionRecord) {
        let shared = self.shared().clone();
        let (untouched, sent) = (attempt.account.bytes_in == 0, attempt.account.has_begun());
        let stale = attempt.call.work.facts.reused
            && untouched
            && record.end.who == Who::Peer
            && self.failure.is_none()
            && attempt.call.work.may_be_repeated(sent);
        let error = self.failure.take().unwrap_or_else(|| error_of(record));
        let Some(mut call) = attempt.cut(record, &error, &shared) else { return };
        if !call.pledge.is_waiting() {
            return;
        }
        if stale && !call.retried && shared.settings.retry_stale {
            call.retried = true;
            return shared.enter(call);
        }
        shared.failed(call, error, sent);
    }

    /// What becomes of a call whose connection has ended before requests could go.
    pub(super) fn unprepared(&mut self, call: Call, record: &ConnectionRecord) {
        let shared = self.shared().clone();
        let fault = record.handshake.as_ref().and_then(|handshake| handshake.fault.clone());
        let shaking = self.tls_began.is_some();
        let error = self.failure.take().unwrap_or(match (record.end.reason, fault) {
            (Reason::Shutdown, _) => ClientError::ShuttingDown,
            (Reason::Timeout, _) if shaking => ClientError::Timeout(Waited::Tls),
            (Reason::Timeout, _) => ClientError::Timeout(Waited::Connect),
            (_, Some(fault)) if shaking => ClientError::Tls(fault),
            // A server that goes in the middle of it, without a word about TLS, may be back in a moment.
            (reason, _) => ClientError::Connect(reason),
        });
        let waits = call.pledge.is_waiting();
        let (phase, reason) = unconnected(Some(&error).filter(|_| waits));
        let phase = if shaking && phase == "connect" { "handshake" } else { phase };
        shared.record_attempt(Some(self.address), &call, phase, reason);
        if waits {
            shared.failed(call, error, false);
        }
    }
}

/// Why a call has no response whose connection ended so.
fn error_of(record: &ConnectionRecord) -> ClientError {
    match record.end.reason {
        Reason::Shutdown => ClientError::ShuttingDown,
        // The only timer that is not ours.
        Reason::Timeout => ClientError::Timeout(Waited::Send),
        Reason::SourceFailed => ClientError::Body,
        reason => ClientError::Closed(reason),
    }
}
