//! The door that callers come in by.
//!
//! Decides who gets a session, who is told to come again and who is closed without a word, by the places that are free in
//! the [census](super::Census). Driven by the poller's listener. It must not look at what a caller asks for.

use std::rc::Rc;

use tidegate_poller::record::{ConnectionRecord, Peer, Reason, Refusal};
use tidegate_poller::{Acceptor, Admission, Plain, Wire};

use crate::http::server::builder::Transport;
use crate::http::server::busy::Busy;
use crate::http::server::service::{Seat, Service};
use crate::http::server::session::HttpSession;

/// Lets callers in while there is room, and tells others to come again.
pub struct Door {
    service: Rc<Service>,
    transport: Option<Transport>,
}

impl Door {
    /// The door of a service.
    pub fn new(service: Rc<Service>) -> Door {
        Door { service, transport: None }
    }

    pub(super) fn with_transport(mut self, transport: Option<Transport>) -> Door {
        self.transport = transport;
        self
    }
}

impl Acceptor for Door {
    fn accept(&mut self, _: &Peer) -> Admission {
        if let Some(seat) = Seat::take(&self.service) {
            return Admission::Admit(Box::new(HttpSession::new(seat)));
        }
        // A seat of the other kind, as what sits on it says.
        match Seat::take(&self.service) {
            Some(seat) => Admission::Admit(Box::new(Busy::new(seat))),
            None => Admission::Refuse(Refusal(Reason::Denied)),
        }
    }

    fn transport(&mut self, plain: Plain) -> Wire {
        match &self.transport {
            Some(transport) => transport(plain),
            None => Wire::Plain(plain),
        }
    }

    fn refused(&mut self, record: ConnectionRecord) {
        self.service.settings.sinks.connection(record, 0);
    }
}
