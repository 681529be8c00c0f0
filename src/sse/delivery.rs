//! How one client is sent its events.

use std::time::Duration;

use crate::sse::Event;
use crate::sse::queue::{Bound, Policy};
use crate::sse::rate::EventRate;
use crate::task::Spender;

/// How clients are sent their events. Those that are to be treated alike share one, in an [`Arc`](std::sync::Arc).
#[derive(Clone, Debug)]
pub struct Delivery {
    /// How much may wait for a client.
    pub bound: Bound,
    /// What becomes of what is beyond.
    pub policy: Policy,
    /// After so long without a byte something is sent, so that whatever lies between keeps the connection, and one
    /// whose client is gone without a word is noticed. Also before the first event. `None`: never.
    pub heartbeat: Option<Duration>,
    /// Heartbeats are events of this name, which a page can see; without it, comments, which it cannot.
    pub heartbeat_event: Option<String>,
    /// How long clients are told to wait before they connect again.
    pub retry: Option<Duration>,
    /// Each client is told up to so much more, at random: those of a server that was started anew do not all come at once.
    pub retry_jitter: Duration,
    /// Events a second of each client.
    pub rate: Option<EventRate>,
    /// Budgets of events that clients share: a key's, everybody's. See [`Spender`].
    pub event_budgets: Option<Spender>,
    /// A client that a rate or a budget has held back for so long gets only the latest of each key, whatever the policy.
    pub conflate_after: Option<Duration>,
    /// The name of the event that says how many events were dropped.
    pub lagged_event: String,
}

impl Default for Delivery {
    /// 256 events or 256 KiB, then the oldest are dropped; a heartbeat after 15 s; no rate.
    fn default() -> Delivery {
        Delivery {
            bound: Bound::default(),
            policy: Policy::default(),
            heartbeat: Some(Duration::from_secs(15)),
            heartbeat_event: None,
            retry: None,
            retry_jitter: Duration::ZERO,
            rate: None,
            event_budgets: None,
            conflate_after: None,
            lagged_event: String::from("lagged"),
        }
    }
}

impl Delivery {
    /// What a stream begins with: something, so that whatever lies between lets the head of the reply through.
    pub(super) fn preamble(&self) -> Vec<u8> {
        let first = match self.retry {
            Some(wait) => {
                let jitter_ms = u64::try_from(self.retry_jitter.as_millis()).unwrap_or(u64::MAX);
                Event::retry(wait + Duration::from_millis(fastrand::u64(0..=jitter_ms)))
            }
            None => Event::comment(""),
        };
        first.to_text().into_bytes()
    }

    pub(super) fn heartbeat(&self) -> Vec<u8> {
        let beat = match &self.heartbeat_event {
            Some(name) => Event::data("").with_name(name),
            None => Event::comment(""),
        };
        beat.to_text().into_bytes()
    }

    pub(super) fn lagged(&self, lost: u64) -> Vec<u8> {
        Event::data(lost.to_string()).with_name(&self.lagged_event).to_text().into_bytes()
    }
}
