//! Putting a server together, and starting it: on threads of its own, or on those of a runtime that is there already.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tidegate_poller::{ListenerId, Plain, Poller, PollerSettings, Wire};

use super::{Census, Door, Handler, Server, ServerFigures, ServerSettings, Service};
use crate::net::Listeners;
use crate::runtime::{RuntimeBuilder, RuntimeHandle};

/// Puts something between the bytes and a caller's socket.
pub(super) type Transport = Arc<dyn Fn(Plain) -> Wire + Send + Sync>;

/// A server to be: see [`Server::builder`].
#[must_use = "a server does nothing until it is started"]
pub struct ServerBuilder<H> {
    handler: H,
    settings: ServerSettings,
    runtime: RuntimeBuilder,
    poller_settings: PollerSettings,
    transport: Option<Transport>,
}

/// What each poller needs to serve: made for one, used on its thread.
struct Part<H> {
    handler: H,
    settings: ServerSettings,
    census: Arc<Census>,
    transport: Option<Transport>,
}

/// A server on a runtime that others use, too. Dropping it changes nothing: it serves until it is told to
/// [close](Serving::close), or the runtime ends.
#[must_use = "it tells where the server listens"]
pub struct Serving {
    address: SocketAddr,
    census: Arc<Census>,
    runtime: RuntimeHandle,
    /// The poller of each, and its name there.
    listeners: Mutex<Vec<(usize, ListenerId)>>,
}

impl<H: Handler + Clone + Send + 'static> ServerBuilder<H> {
    pub(super) fn new(handler: H) -> ServerBuilder<H> {
        ServerBuilder {
            handler,
            settings: ServerSettings::default(),
            runtime: crate::runtime::Runtime::builder(),
            poller_settings: PollerSettings { name: "http".into(), ..PollerSettings::default() },
            transport: None,
        }
    }

    /// How connections are served, how many of them, and where their records go.
    pub fn settings(mut self, settings: ServerSettings) -> ServerBuilder<H> {
        self.settings = settings;
        self
    }

    /// The settings of each poller, where it has pollers of its own.
    pub fn poller_settings(mut self, settings: PollerSettings) -> ServerBuilder<H> {
        self.poller_settings = settings;
        self
    }

    /// How many threads compute for its handlers, where it has threads of its own. Default: the CPUs.
    pub fn compute_threads(mut self, threads: usize) -> ServerBuilder<H> {
        self.runtime = self.runtime.compute_threads(threads);
        self
    }

    /// What lies between the bytes and a caller's socket, such as TLS. Default: nothing.
    pub fn transport(
        mut self,
        transport: impl Fn(Plain) -> Wire + Send + Sync + 'static,
    ) -> ServerBuilder<H> {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Speaks TLS with its callers, with certificates that can be changed while it runs. The handshake has its own time
    /// ([`PollerSettings::handshake_timeout`]); that of the first head begins after it. Who speaks plain HTTP is told so, by 400.
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: &crate::net::tls::ServerTls) -> ServerBuilder<H> {
        let tls = tls.answering_plainly(super::plain::answer);
        self.transport(move |plain| tls.transport(plain))
    }

    /// Starts it on pollers of its own, one for each of the listeners. Each has a handler of its own, a clone.
    ///
    /// # Errors
    /// When a thread cannot be started or a poller not be made.
    pub fn start(self, listeners: Listeners) -> io::Result<Server> {
        let address = listeners.address();
        let settings = self.poller_settings.clone();
        let census = Census::new(&self.settings);
        let mut runtime = self.runtime.name(settings.name.clone()).poller_settings(settings).pollers(0);
        for socket in listeners.into_sockets() {
            let part = Part {
                handler: self.handler.clone(),
                settings: self.settings.clone(),
                census: census.clone(),
                transport: self.transport.clone(),
            };
            runtime = runtime.poller(move |poller: &mut Poller| part.listen(poller, socket).map(drop));
        }
        Ok(Server { address, census, runtime: runtime.build()? })
    }

    /// Starts it on the pollers of a runtime that is there already, one listener after another.
    ///
    /// # Errors
    /// When a poller cannot listen or has ended, or this is called on one of the runtime's own threads, which cannot wait
    /// for itself.
    pub fn start_on(self, runtime: &RuntimeHandle, listeners: Listeners) -> io::Result<Serving> {
        runtime.check_thread().map_err(io::Error::other)?;
        let census = Census::new(&self.settings);
        let serving = Serving {
            address: listeners.address(),
            census: census.clone(),
            runtime: runtime.clone(),
            listeners: Mutex::default(),
        };
        let (tell, told) = mpsc::channel();
        for (index, socket) in listeners.into_sockets().into_iter().enumerate() {
            let poller = index % runtime.poller_count();
            let part = Part {
                handler: self.handler.clone(),
                settings: self.settings.clone(),
                census: census.clone(),
                transport: self.transport.clone(),
            };
            let tell = tell.clone();
            let listen = move |here: &mut Poller| {
                let _ = tell.send(part.listen(here, socket).map(|id| (poller, id)));
            };
            runtime.submit_to(poller, Box::new(listen));
        }
        drop(tell);
        let mut outcome = Ok(());
        for listener in told {
            match listener {
                Ok(listener) => serving.lock().push(listener),
                Err(error) => outcome = Err(error),
            }
        }
        if outcome.is_err() {
            serving.close();
        } else if serving.lock().is_empty() {
            outcome = Err(io::Error::other("the runtime has ended"));
        }
        outcome.map(|()| serving)
    }
}

impl<H: Handler> Part<H> {
    /// On the poller's own thread.
    fn listen(self, poller: &mut Poller, socket: std::net::TcpListener) -> io::Result<ListenerId> {
        let here = RuntimeHandle::of_poller();
        let here = here.ok_or_else(|| io::Error::other("this is no poller of a runtime"))?;
        let handler = Box::new(self.handler);
        let service = Service::new(handler, here, self.settings, self.census, poller.now());
        poller.listen(socket, Box::new(Door::new(Rc::new(service)).with_transport(self.transport)))
    }
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has counted.
    pub fn figures(&self) -> ServerFigures {
        self.census.figures()
    }

    /// Lets nobody in any more. Connections go on.
    pub fn close(&self) {
        for (poller, id) in self.lock().drain(..) {
            self.runtime.submit_to(poller, Box::new(move |poller: &mut Poller| poller.close_listener(id)));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(usize, ListenerId)>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H> fmt::Debug for ServerBuilder<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("address", &self.address).finish_non_exhaustive()
    }
}
