//! Putting a server of a protocol together, and starting it on a runtime's pollers.

use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};

use tidegate_poller::Poller;

use super::codec::Codec;
use super::server::{Door, Handler, Server, ServerSettings, Service, State};
use crate::net::Listeners;
use crate::runtime::RuntimeHandle;

/// A server to be: see [`Server::builder`].
#[must_use = "a server does nothing until it is started"]
pub struct ServerBuilder<C: Codec, D, S> {
    codec: C,
    handler: Handler<C, D, S>,
    settings: ServerSettings,
}

impl<C, D, S> ServerBuilder<C, D, S>
where
    C: Codec,
    D: Default + Send + 'static,
    S: Default + Send + 'static,
{
    pub(super) fn new(codec: C, handler: Handler<C, D, S>) -> ServerBuilder<C, D, S> {
        ServerBuilder { codec, handler, settings: ServerSettings::default() }
    }

    /// How connections are served, how many of them, and where their records go.
    pub fn settings(mut self, settings: ServerSettings) -> ServerBuilder<C, D, S> {
        self.settings = settings;
        self
    }

    /// Starts it on the pollers of a runtime, one listener after another.
    ///
    /// # Errors
    /// When a poller cannot listen or has ended, or this is called on one of the runtime's own threads, which cannot wait
    /// for itself.
    pub fn start_on(self, runtime: &RuntimeHandle, listeners: Listeners) -> io::Result<Server> {
        runtime.check_thread().map_err(io::Error::other)?;
        let address = listeners.address();
        let state = State::new(runtime, self.settings.max_connections);
        let service = Arc::new(Service {
            codec: self.codec,
            settings: self.settings,
            handler: self.handler,
            state: state.clone(),
        });
        let (tell, told) = mpsc::channel();
        for (index, socket) in listeners.into_sockets().into_iter().enumerate() {
            let poller = index % runtime.poller_count();
            let door = Door { service: service.clone(), poller };
            let tell = tell.clone();
            let listen = move |here: &mut Poller| {
                let _ = tell.send(here.listen(socket, Box::new(door)).map(|id| (poller, id)));
            };
            runtime.submit_to(poller, Box::new(listen));
        }
        drop(tell);
        let mut outcome = Ok(());
        for listener in told {
            match listener {
                Ok((poller, id)) => state.listens(poller, id),
                Err(error) => outcome = Err(error),
            }
        }
        if outcome.is_err() {
            state.close();
        } else if !state.has_listeners() {
            outcome = Err(io::Error::other("the runtime has ended"));
        }
        outcome.map(|()| Server { address, state })
    }
}

impl<C: Codec, D, S> fmt::Debug for ServerBuilder<C, D, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
