//! A connection in the making: the host's addresses are found, and tried in turn.
//!
//! Where an address does not answer within a quarter of a second the next one is tried beside it (RFC 8305, section 5);
//! the first to let us in gets the call, and the others are closed. Each attempt is a socket with a [`ClientSession`] of
//! its own, and a connection record. Driven on the endpoint's poller, but for the resolver's answer, which finds its way
//! there.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_poller::{Io, Moment, Poller, SocketHandle, sys};

use super::client::{Call, Endpoint, Origin};
use super::error::ClientError;
use super::session::ClientSession;
use super::url::Scheme;
use crate::net::Resolving;
use crate::net::Waited;
use crate::net::pool::with_session;
#[cfg(feature = "tls")]
use crate::net::tls::PeerName;
use crate::runtime::work::Later;

/// How long an address may be silent before the next one is tried beside it: what RFC 8305 recommends.
pub(super) const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

pub(super) struct Dial {
    endpoint: Arc<Endpoint>,
    /// Its number at the endpoint.
    connection: u64,
    state: Mutex<State>,
}

struct State {
    /// Until it has a connection, or has failed.
    call: Option<Call>,
    began: Moment,
    /// When the first address was tried.
    connecting: Option<Moment>,
    /// Addresses not tried yet.
    left: VecDeque<SocketAddr>,
    sockets: Vec<SocketHandle>,
    /// Attempts that have not ended.
    open: usize,
    latest: Option<(SocketAddr, ClientError)>,
}

impl Dial {
    pub(super) fn begin(endpoint: &Arc<Endpoint>, poller: &mut Poller, connection: u64, mut call: Call) {
        let began = sys::now();
        call.work.facts.pool_wait = Some(began - call.work.attempt_began);
        let (pledge, total) = (call.pledge.clone(), call.deadline);
        let state = State {
            call: Some(call),
            began,
            connecting: None,
            left: VecDeque::new(),
            sockets: Vec::new(),
            open: 0,
            latest: None,
        };
        let dial = Arc::new(Dial { endpoint: endpoint.clone(), connection, state: Mutex::new(state) });
        let reached = Arc::downgrade(&dial);
        pledge.on_cancel(move || {
            if let Some(dial) = reached.upgrade() {
                dial.clone().endpoint.submit(move |poller| dial.cancel(poller));
            }
        });
        dial.prepare_tls(poller, total);
    }

    /// Has what speaks TLS made first, where it is needed and not there. That reads files.
    #[cfg(feature = "tls")]
    fn prepare_tls(self: &Arc<Self>, poller: &mut Poller, total: Option<Moment>) {
        let Origin { shared, key } = self.endpoint.place();
        if key.scheme == Scheme::Http || shared.tls().is_some() {
            return self.look_up(poller, total);
        }
        let dial = self.clone();
        let made = shared.runtime.offload().submit(Box::new(move || {
            let _ = dial.endpoint.place().shared.make_tls();
            dial.clone().endpoint.submit(move |poller| dial.look_up(poller, total));
        }));
        if made.is_err() {
            self.lock().latest =
                Some((self.nowhere(), ClientError::Tls("too much else is to be read".to_owned())));
            let call = self.lock().call.take();
            self.fail(call);
        }
    }

    #[cfg(not(feature = "tls"))]
    fn prepare_tls(self: &Arc<Self>, poller: &mut Poller, total: Option<Moment>) {
        if self.endpoint.place().key.scheme == Scheme::Https {
            let why = "this program was built without the feature \"tls\"";
            self.lock().latest = Some((self.nowhere(), ClientError::Tls(why.to_owned())));
            let call = self.lock().call.take();
            return self.fail(call);
        }
        self.look_up(poller, total);
    }

    /// Finds the host's addresses.
    fn look_up(self: &Arc<Self>, poller: &mut Poller, total: Option<Moment>) {
        let Origin { shared, key } = self.endpoint.place();
        let (host, port) = match &key.proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (key.host.as_str(), key.port),
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.try_all(poller, vec![SocketAddr::new(ip, port)]);
        }
        self.lock().began = sys::now();
        self.start_dns_timer(total);
        let answered = self.clone();
        let resolving = Resolving::new(shared.runtime.clone(), move |found| {
            answered.clone().endpoint.submit(move |poller| answered.resolved(poller, found));
        });
        shared.settings.resolver.resolve(host, port, resolving);
    }

    /// Gives the call to the first attempt that asks for it.
    pub(super) fn win(&self, io: &Io<'_>) -> Option<Call> {
        let (mut call, sockets) = {
            let mut state = self.lock();
            let mut call = state.call.take()?;
            call.work.facts.connect = state.connecting.map(|began| io.now().max(sys::now()) - began);
            (call, std::mem::take(&mut state.sockets))
        };
        call.stop_timer(&self.endpoint.place().shared.runtime);
        self.endpoint.on_connection(call.id, io.socket());
        self.endpoint.is_reached_by(&call);
        if sockets.len() > 1 {
            self.endpoint.submit(move |poller| close_losers(poller, sockets));
        }
        // A cancel that came before that looked for it here, and will not come again.
        if call.pledge.is_waiting() {
            return Some(call);
        }
        self.endpoint.done(call.id);
        self.endpoint.place().shared.record_unconnected(None, &call, None);
        self.endpoint.gone(self.connection, None, false);
        None
    }

    /// Until when a connection must be made.
    pub(super) fn deadline(&self) -> (Option<Moment>, Option<Moment>) {
        let state = self.lock();
        let patience = self.endpoint.place().shared.settings.connect_timeout;
        (state.connecting.map(|began| began + patience), state.call.as_ref().and_then(|call| call.deadline))
    }

    /// Tries the next address beside those that are silent.
    pub(super) fn try_beside(self: &Arc<Self>) {
        let dial = self.clone();
        self.endpoint.submit(move |poller| dial.try_next(poller));
    }

    /// An attempt ended without a connection.
    pub(super) fn lost(self: &Arc<Self>, address: SocketAddr, error: ClientError) {
        let call = {
            let mut state = self.lock();
            state.open -= 1;
            let late = matches!(error, ClientError::Timeout(_) | ClientError::ShuttingDown);
            state.latest = Some((address, error));
            if state.call.is_none() {
                return;
            }
            if !state.left.is_empty() && !late {
                drop(state);
                return self.try_beside();
            }
            if state.open > 0 {
                return;
            }
            state.call.take()
        };
        self.fail(call);
    }

    /// On the poller: what the resolver found.
    fn resolved(self: Arc<Self>, poller: &mut Poller, found: io::Result<Vec<SocketAddr>>) {
        let call = {
            let mut state = self.lock();
            let began = state.began;
            match (&mut state.call, &found) {
                (None, _) => return,
                (Some(call), Ok(_)) => {
                    call.stop_timer(&self.endpoint.place().shared.runtime);
                    call.work.facts.dns = Some(sys::now() - began);
                    None
                }
                (Some(_), Err(_)) => state.call.take(),
            }
        };
        match found {
            Ok(addresses) => self.try_all(poller, addresses),
            Err(error) => {
                self.lock().latest = Some((self.nowhere(), ClientError::Resolve(error)));
                self.fail(call);
            }
        }
    }

    fn try_all(self: &Arc<Self>, poller: &mut Poller, addresses: Vec<SocketAddr>) {
        {
            let mut state = self.lock();
            state.left = families_in_turn(addresses);
            state.connecting = Some(sys::now());
        }
        self.try_next(poller);
    }

    fn try_next(self: &Arc<Self>, poller: &mut Poller) {
        let address = {
            let mut state = self.lock();
            if state.call.is_none() {
                return;
            }
            let Some(address) = state.left.pop_front() else { return };
            state.open += 1;
            address
        };
        let session = ClientSession::new(self.endpoint.clone(), self.connection, self.clone(), address);
        // Where it fails at once the session has its record already, and we were told.
        let Some(socket) = self.connect(poller, address, session) else { return };
        self.lock().sockets.push(socket.clone());
        with_session::<Origin>(poller, &socket, ClientSession::connecting);
    }

    #[cfg(feature = "tls")]
    fn connect(
        &self,
        poller: &mut Poller,
        address: SocketAddr,
        session: ClientSession,
    ) -> Option<SocketHandle> {
        let Origin { shared, key } = self.endpoint.place();
        // Through a proxy TLS comes later.
        match shared.tls() {
            Some(Ok(tls)) if key.scheme == Scheme::Https && key.proxy.is_none() => {
                match PeerName::new(&key.host) {
                    Ok(name) => {
                        poller.connect_with(address, Box::new(session), |plain| tls.transport(plain, &name))
                    }
                    // Found out by the session, which does not go on without.
                    Err(_) => poller.connect(address, Box::new(session)),
                }
            }
            _ => poller.connect(address, Box::new(session)),
        }
    }

    #[cfg(not(feature = "tls"))]
    fn connect(
        &self,
        poller: &mut Poller,
        address: SocketAddr,
        session: ClientSession,
    ) -> Option<SocketHandle> {
        poller.connect(address, Box::new(session))
    }

    fn start_dns_timer(self: &Arc<Self>, total: Option<Moment>) {
        let shared = &self.endpoint.place().shared;
        let patience = sys::now() + shared.settings.dns_timeout;
        let (at, waited) = match total {
            Some(total) if total < patience => (total, Waited::Total),
            _ => (patience, Waited::Addresses),
        };
        let dial = Arc::downgrade(self);
        let late = Later(move || {
            let Some(dial) = dial.upgrade() else { return };
            let call = {
                let mut state = dial.lock();
                if state.connecting.is_some() {
                    return;
                }
                state.latest = Some((dial.nowhere(), ClientError::Timeout(waited)));
                state.call.take()
            };
            dial.fail(call);
        });
        let timer = shared.runtime.start_keyed_timer(at, Box::new(late));
        match &mut self.lock().call {
            Some(call) => call.timer = Some(timer),
            None => shared.runtime.cancel_timer(timer),
        }
    }

    /// The call gets no connection.
    fn fail(&self, call: Option<Call>) {
        let Some(mut call) = call else { return };
        let shared = &self.endpoint.place().shared;
        call.stop_timer(&shared.runtime);
        let latest = self.lock().latest.take();
        let (address, error) = latest.unwrap_or((self.nowhere(), ClientError::ShuttingDown));
        shared.record_unconnected(Some(address), &call, Some(&error));
        let stopping = matches!(error, ClientError::ShuttingDown);
        shared.failed(call, error, false);
        self.endpoint.gone(self.connection, None, stopping);
    }

    /// On the poller: nobody waits for the call any more.
    fn cancel(&self, poller: &mut Poller) {
        let (call, sockets) = {
            let mut state = self.lock();
            let Some(call) = state.call.take() else { return };
            (call, std::mem::take(&mut state.sockets))
        };
        close_losers(poller, sockets);
        let shared = &self.endpoint.place().shared;
        let mut call = call;
        call.stop_timer(&shared.runtime);
        shared.record_unconnected(None, &call, None);
        self.endpoint.gone(self.connection, None, false);
    }

    fn nowhere(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], self.endpoint.place().key.port))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes those that did not get the call.
fn close_losers(poller: &mut Poller, sockets: Vec<SocketHandle>) {
    for socket in sockets {
        with_session::<Origin>(poller, &socket, ClientSession::lose);
    }
}

/// In the resolver's order, but one of the other family second: where one of them leads nowhere, the other is near.
fn families_in_turn(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let mut addresses = VecDeque::from(addresses);
    let first_is_v6 = addresses.front().is_some_and(SocketAddr::is_ipv6);
    if let Some(other) = addresses.iter().position(|address| address.is_ipv6() != first_is_v6)
        && let Some(address) = addresses.remove(other)
    {
        addresses.insert(1, address);
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_family_comes_second() {
        let list = |text: &str| text.split(' ').map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        for (found, tried) in [
            ("[::1]:1 [::2]:1 1.1.1.1:1 2.2.2.2:1", "[::1]:1 1.1.1.1:1 [::2]:1 2.2.2.2:1"),
            ("1.1.1.1:1 2.2.2.2:1", "1.1.1.1:1 2.2.2.2:1"),
            ("1.1.1.1:1 [::1]:1", "1.1.1.1:1 [::1]:1"),
        ] {
            assert_eq!(families_in_turn(list(found)), list(tried));
        }
        assert!(families_in_turn(Vec::new()).is_empty());
    }
}
