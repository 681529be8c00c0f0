//! The body of a stream of events: the shell around an [`Outlet`], pulled by a session on its poller.
//!
//! It keeps the time for the outlet, and tells the outlet's owner what comes of it. It knows no hub.

use std::sync::Arc;

use tidegate_poller::{Moment, Pull, sys};

use crate::http::body::{BodySource, BodyWaker};
use crate::record::EventFacts;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::{Later, Ready};
use crate::sse::heartbeat;
use crate::sse::outlet::{After, Outlet};
use crate::task::{Canceller, Series};

/// Who fills an outlet.
pub(super) trait Owner: Send + 'static {
    /// A session has it; called on its poller. False: it has no use for it.
    fn attached(&mut self, outlet: &Arc<Outlet>, runtime: &RuntimeHandle) -> bool;

    /// Events or heartbeats have gone.
    fn went(&self, events: u64, heartbeats: u64);

    /// There is room again.
    fn has_room(&self);

    /// The server is stopping.
    fn shut_down(&self, outlet: &Arc<Outlet>);

    /// The stream is over: it has ended, or the client has left, or it was never sent.
    fn left(&mut self, outlet: &Outlet);
}

/// The body of a stream of events.
pub(super) struct OutletSource<O: Owner> {
    outlet: Arc<Outlet>,
    owner: O,
    runtime: Option<RuntimeHandle>,
    /// What was asked of the budgets of events.
    asked: Option<Canceller>,
}

impl<O: Owner> OutletSource<O> {
    pub(super) fn new(outlet: Arc<Outlet>, owner: O) -> OutletSource<O> {
        OutletSource { outlet, owner, runtime: None, asked: None }
    }

    fn run(&mut self, after: After) {
        self.owner.went(after.sent, after.heartbeats);
        if after.roomy {
            self.owner.has_room();
        }
        let Some(runtime) = &self.runtime else { return };
        if let Some(at) = after.wake_at {
            wake_at(&self.outlet, runtime, at);
        }
        if after.acquire {
            self.asked = acquire(&self.outlet, runtime);
        }
    }
}

impl<O: Owner> BodySource for OutletSource<O> {
    fn attach(&mut self, waker: BodyWaker) {
        let _ = self.outlet.waker.set(waker);
        let Some(runtime) = RuntimeHandle::of_poller() else {
            log::error!("a stream of events needs a poller of a runtime; it is cut");
            return;
        };
        self.outlet.lock().last_sent = sys::now();
        if !self.owner.attached(&self.outlet, &runtime) {
            return;
        }
        if let Some(every) = self.outlet.delivery.heartbeat {
            heartbeat::start(&self.outlet, &runtime, every);
        }
        self.runtime = Some(runtime);
    }

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        if self.runtime.is_none() {
            return Pull::Failed;
        }
        let (pull, after) = self.outlet.lock().pull(max, out, &self.outlet.delivery, sys::now());
        if after != After::default() {
            self.run(after);
        }
        pull
    }

    fn shutting_down(&mut self) {
        self.owner.shut_down(&self.outlet);
    }

    fn events(&self) -> Option<EventFacts> {
        Some(self.outlet.lock().facts())
    }
}

impl<O: Owner> Drop for OutletSource<O> {
    fn drop(&mut self) {
        if let (Some(runtime), Some(every)) = (&self.runtime, self.outlet.delivery.heartbeat) {
            heartbeat::left(runtime, every);
        }
        if let Some(asked) = &self.asked {
            asked.cancel();
        }
        self.owner.left(&self.outlet);
    }
}

fn wake_at(outlet: &Arc<Outlet>, runtime: &RuntimeHandle, at: Moment) {
    let outlet = Arc::downgrade(outlet);
    let fire = move || {
        if let Some(outlet) = outlet.upgrade() {
            outlet.lock().release(at);
            outlet.wake();
        }
    };
    runtime.start_timer(at, Ready::Work(Box::new(Later(fire))));
}

/// Asks the budgets of events for one.
fn acquire(outlet: &Arc<Outlet>, runtime: &RuntimeHandle) -> Option<Canceller> {
    let spender = outlet.delivery.event_budgets.as_ref()?;
    let outlet = Arc::downgrade(outlet);
    let ask = Series::new(()).then(spender.acquire(1), move |(), _| {
        if let Some(outlet) = outlet.upgrade() {
            outlet.lock().add_credit();
            outlet.wake();
        }
        Ok(())
    });
    let asked = runtime.start(ask);
    let canceller = asked.canceller();
    asked.detach();
    Some(canceller)
}
