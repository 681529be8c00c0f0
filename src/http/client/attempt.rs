//! A call on a connection: its facts as they happen, and what its response has come to.

use std::sync::Arc;
use std::time::Duration;

use tidegate_poller::record::{ConnectionRecord, End};
use tidegate_poller::{Budget, Direction, Io, TimerId};

use super::again::{self, Redirect};
use super::client::{Call, Shared};
#[cfg(feature = "decompression")]
use super::content::{ACCEPTED, Coding};
use super::error::ClientError;
use super::intake::{Intake, To};
use super::progress::LOOKED_EVERY;
use super::response::{RecordSlot, Response, ResponseBody};
use super::session::LOOK;
use crate::http::body::{BodyFeed, Wake};
use crate::http::codec::response::{Decoder, Head};
use crate::http::{Fields, StatusCode, header};
use crate::net::account::{Account, On};
use crate::record::ExchangeRecord;

pub(super) struct Attempt {
    pub(super) call: Call,
    pub(super) account: Account,
    pub(super) decoder: Decoder,
    /// Once its head is here.
    pub(super) reply: Option<Reply>,
    /// Bytes that came and were not looked at, because there was no room for what came before them.
    pub(super) input: Vec<u8>,
    /// The body waits for the server's leave.
    pub(super) awaits_leave: bool,
    /// The server was asked for its leave.
    pub(super) asked_leave: bool,
    /// The server said no before it had all of the request: the rest of that stays here.
    pub(super) is_refused: bool,
    /// Budgets that only this request spends through, up to the end of the reply.
    pub(super) budgets: Vec<(Direction, Budget)>,
    /// Has the session look how far the body has gone, until it has.
    pub(super) look: Option<TimerId>,
    read_throttled_before: u64,
    record: RecordSlot,
}

/// What there is of a reply.
pub(super) struct Reply {
    pub(super) intake: Intake,
    /// Another request may follow it.
    pub(super) keep_alive: bool,
    then: Then,
}

/// What is done once it is whole.
enum Then {
    /// Whoever waits gets it.
    Deliver(Box<Response>),
    /// It was delivered with its head.
    Delivered,
    /// Another request is made, where this one leads.
    Follow(Redirect),
    /// The request is made once more.
    Repeat(Duration),
    /// The request is made once more, without asking for leave to send its body.
    SendUnasked,
    /// Whoever waits is told why there is none.
    Fail(ClientError),
}

/// Bodies of redirects and of answers that ask for a retry are read, so that their connection can be used again; larger
/// ones are not worth it.
const DISCARD_MAX: u64 = 64 * 1024;

impl Attempt {
    pub(super) fn new(id: u64, call: Call, shared: &Shared, io: &Io<'_>, reused: bool) -> Attempt {
        let (work, settings, sums) = (&call.work, &shared.settings, io.sums());
        let mut account = Account::new(id, work.words(&settings.user_agent), work.attempt_began);
        account.count_wire(&sums);
        let decoder = Decoder::new(work.method.clone(), settings.max_head);
        let mut attempt = Attempt {
            account,
            decoder,
            reply: None,
            input: Vec::new(),
            awaits_leave: false,
            asked_leave: false,
            is_refused: false,
            budgets: Vec::new(),
            look: None,
            read_throttled_before: sums.ingress_throttled_ns,
            record: RecordSlot::default(),
            call,
        };
        attempt.call.work.facts.reused = reused;
        attempt
    }

    /// What the Accept-Encoding field says; `None` where it is the request's own business, or nobody's. A range is of what the
    /// server sends, so that is asked for as it is.
    pub(super) fn accept_encoding(&self, shared: &Shared) -> Option<&'static str> {
        let work = &self.call.work;
        let own = [header::ACCEPT_ENCODING, header::RANGE].iter().any(|name| work.headers.contains_key(name));
        let wanted = work.options.decompress.unwrap_or(shared.settings.decompress) && !own;
        #[cfg(feature = "decompression")]
        return Some(ACCEPTED).filter(|_| wanted);
        #[cfg(not(feature = "decompression"))]
        return None.filter(|_: &&str| wanted);
    }

    /// The head is here: decides what becomes of the body. A stream is delivered at once.
    pub(super) fn head_arrived(&mut self, mut head: Head, shared: &Arc<Shared>, wake: impl Fn() -> Wake) {
        self.account.status = Some(head.status.as_u16());
        let keep_alive = head.keep_alive;
        let discard = |then| {
            let keep_alive = keep_alive && head.body_length.is_none_or(|length| length <= DISCARD_MAX);
            Some(Reply { intake: Intake::new(To::Nobody, DISCARD_MAX), keep_alive, then })
        };
        let (work, settings) = (&self.call.work, &shared.settings);
        // RFC 9110, section 10.1.1: it was not looked at. A body that was held back can still be sent.
        if head.status == StatusCode::EXPECTATION_FAILED && self.asked_leave && work.body.can_be_sent() {
            return self.reply = discard(Then::SendUnasked);
        }
        if work.options.max_redirects.unwrap_or(settings.max_redirects) > 0 {
            match again::redirect(head.status, &head.headers, &work.method, &work.url) {
                Ok(None) => {}
                Ok(Some(redirect)) => return self.reply = discard(Then::Follow(redirect)),
                Err(error) => return self.reply = discard(Then::Fail(error)),
            }
        }
        if let Some(pause) = shared.pause_after(&self.call, head.status, &head.headers) {
            return self.reply = discard(Then::Repeat(pause));
        }
        let (stream, max_body) = (work.options.stream, work.options.max_body);
        #[cfg(feature = "decompression")]
        let coding = self.take_coding(&mut head, shared);
        #[cfg(not(feature = "decompression"))]
        let _ = &mut head;
        let (to, reader) = match stream {
            true => {
                let (feed, reader) = BodyFeed::new(settings.stream_capacity);
                feed.wake_when_unwanted(wake());
                (To::Reader(feed), Some(reader))
            }
            false => (To::Whole(Vec::new()), None),
        };
        let intake = Intake::new(to, max_body.unwrap_or(if stream { u64::MAX } else { settings.max_body }));
        #[cfg(feature = "decompression")]
        let intake = intake.with_coding(coding);
        let body = reader.map_or(ResponseBody::Whole(Vec::new()), ResponseBody::Stream);
        let streams = matches!(body, ResponseBody::Stream(_));
        let response = self.response(head, body);
        let then = if streams {
            self.call.pledge.complete(Ok(response));
            Then::Delivered
        } else {
            Then::Deliver(Box::new(response))
        };
        self.reply = Some(Reply { intake, keep_alive, then });
    }

    #[cfg(feature = "decompression")]
    fn take_coding(&self, head: &mut Head, shared: &Shared) -> Option<Coding> {
        let work = &self.call.work;
        self.accept_encoding(shared).filter(|_| work.method != crate::http::Method::HEAD)?;
        let coding = Coding::of(&head.headers)?;
        head.headers.remove(header::CONTENT_ENCODING);
        head.headers.remove(header::CONTENT_LENGTH);
        Some(coding)
    }

    fn response(&self, head: Head, body: ResponseBody) -> Response {
        let work = &self.call.work;
        let mut response = Response::new(head, work.url.clone(), body, self.record.clone());
        (response.redirects, response.retries) = (work.facts.redirects, work.facts.retries);
        response.elapsed_before = work.attempt_began - work.began;
        response
    }

    /// Whether the reply was handed over with its head, so that there is no going back.
    pub(super) fn is_delivered(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| matches!(reply.then, Then::Delivered))
    }

    /// Sees how far the body has gone, for whoever asked, and again after a while.
    pub(super) fn look_again(&mut self, io: &mut Io<'_>) {
        if let Some(progress) = &self.call.work.options.progress {
            let gone = self.account.gone_by(&io.sums());
            progress.set_sent(gone.saturating_sub(self.account.head_out));
            // What is refused goes no further.
            self.look = (!self.is_refused).then(|| io.start_timer(LOOKED_EVERY, LOOK));
        }
    }

    /// The request has gone.
    pub(super) fn all_sent(&mut self, io: &mut Io<'_>) {
        if let Some(progress) = &self.call.work.options.progress {
            progress.end();
        }
        if let Some(timer) = self.look.take() {
            io.cancel_timer(timer);
        }
    }

    /// The reply is whole: records the exchange, and has what follows it done.
    pub(super) fn complete(
        mut self,
        io: &Io<'_>,
        shared: &Arc<Shared>,
        trailers: Option<Fields>,
        end: (End, &'static str),
    ) {
        let sums = io.sums();
        self.take_facts(sums.ingress_throttled_ns);
        let record = self.account.complete(On::this(io), io.now(), &sums, end);
        publish(record, &self.record, shared);
        let Some(Reply { intake, then, .. }) = self.reply else { return };
        match then {
            Then::Deliver(mut response) => {
                response.trailers = trailers;
                response.body = ResponseBody::Whole(intake.end(Ok(None)));
                self.call.pledge.complete(Ok(*response));
            }
            Then::Delivered => drop(intake.end(Ok(trailers))),
            Then::Follow(redirect) => shared.follow(self.call, redirect),
            Then::Repeat(pause) => shared.repeat(self.call, pause),
            Then::SendUnasked => shared.send_unasked(self.call),
            Then::Fail(error) => self.call.pledge.complete(Err(error)),
        }
    }

    /// The connection ended before the reply was whole: records the exchange. Gives the call back where it may go on
    /// elsewhere, or is to be told.
    pub(super) fn cut(
        mut self,
        record: &ConnectionRecord,
        error: &ClientError,
        shared: &Arc<Shared>,
    ) -> Option<Call> {
        self.take_facts(record.ingress_throttled_ns);
        let cut = self.account.cut(record, record.phase, true);
        publish(cut, &self.record, shared);
        let Some(Reply { intake, then, .. }) = self.reply else { return Some(self.call) };
        match then {
            Then::Delivered => {
                intake.end(Err(error));
                None
            }
            // What was to be thrown away is not missed.
            Then::Follow(redirect) => {
                shared.follow(self.call, redirect);
                None
            }
            Then::Repeat(pause) => {
                shared.repeat(self.call, pause);
                None
            }
            Then::SendUnasked => {
                shared.send_unasked(self.call);
                None
            }
            Then::Fail(error) => {
                self.call.pledge.complete(Err(error));
                None
            }
            Then::Deliver(_) => Some(self.call),
        }
    }

    /// Whether it is only thrown away, so that it matters to nobody how it ends.
    pub(super) fn is_discarded(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !matches!(reply.then, Then::Deliver(_) | Then::Delivered))
    }

    fn take_facts(&mut self, read_throttled_ns: u64) {
        let facts = &mut self.call.work.facts;
        facts.body_decoded_bytes = self.reply.as_ref().map_or(0, |reply| reply.intake.decoded);
        facts.read_throttled =
            Duration::from_nanos(read_throttled_ns.saturating_sub(self.read_throttled_before));
        self.account.head_in = self.decoder.head_bytes();
        self.account.client = Some(Box::new(facts.clone()));
    }
}

fn publish(record: ExchangeRecord, slot: &RecordSlot, shared: &Shared) {
    let record = Arc::new(record);
    // First: whoever is told next may look for it.
    slot.fill(record.clone());
    shared.settings.sinks.exchange_made(&record);
}
