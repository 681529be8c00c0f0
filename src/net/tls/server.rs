//! TLS as a server speaks it: its settings, and the handle that can be given new ones while connections live.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls::server::{UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tidegate_poller::{Plain, Wire};

use super::certificates::{Asked, Certificates};
use super::pem::{Pem, TlsError};
use super::provider;
use super::reception::{PlainAnswer, Reception, TlsFigures};
use super::side::ServerSide;
use super::transport;

/// Sessions kept for clients that cannot keep them as a ticket: 256 bytes to a few kB each, more with client
/// certificates. The oldest goes when another comes.
const SESSIONS_KEPT: usize = 4_096;

/// TLS for a server: a cheap handle on its settings, for all its listeners and threads.
///
/// [`ServerTls::reload`] and [`ServerTls::replace`] change the settings from any thread: who connects afterwards gets the
/// new ones, connections that live keep theirs.
#[derive(Clone)]
pub struct ServerTls {
    current: Arc<RwLock<Arc<Current>>>,
    reception: Reception,
}

/// Settings of a [`ServerTls`].
#[derive(Clone, Debug, Default)]
pub struct ServerTlsBuilder {
    identities: Vec<(Pem, Pem)>,
    alpn: Vec<Vec<u8>>,
    clients: Clients,
}

/// Whose certificates are asked for.
#[derive(Clone, Debug, Default)]
enum Clients {
    #[default]
    Unasked,
    Optional(Pem),
    Required(Pem),
}

struct Current {
    builder: ServerTlsBuilder,
    config: ServerConfig,
    certificates: Arc<Certificates>,
    resumption: Resumption,
}

/// What clients take sessions up with again. Outlives a reload, unless who is let in has changed: a session taken up
/// again is not asked for its certificate again.
#[derive(Clone)]
struct Resumption {
    admits: (bool, Option<RootCertStore>),
    sessions: Arc<dyn StoresServerSessions>,
    tickets: Arc<dyn ProducesTickets>,
}

impl ServerTls {
    /// Settings to be filled in: at least a certificate.
    pub fn builder() -> ServerTlsBuilder {
        ServerTlsBuilder::default()
    }

    /// The transport for a caller: what [`Acceptor::transport`](tidegate_poller::Acceptor::transport) returns.
    pub fn transport(&self, plain: Plain) -> Wire {
        let current = self.current();
        let asked = Arc::new(Asked::new(current.certificates.clone()));
        let mut config = current.config.clone();
        config.cert_resolver = asked.clone();
        let connection = UnbufferedServerConnection::new(Arc::new(config));
        let side = connection.map(|connection| ServerSide::new(connection, asked));
        transport::wire(plain, side, Some(self.reception.clone()))
    }

    /// The same settings, for a protocol that has a word for callers who speak it without TLS: `answer` makes that of the
    /// first bytes that came. Where it has none, or nobody gave one, they get TLS's own alert.
    #[must_use]
    pub fn answering_plainly(&self, answer: PlainAnswer) -> ServerTls {
        let reception = self.reception.answering_plainly(answer);
        ServerTls { current: self.current.clone(), reception }
    }

    /// What its handshakes came to so far.
    pub fn figures(&self) -> TlsFigures {
        self.reception.figures()
    }

    /// Reads the files again. If anything is wrong with them, everything stays as it was.
    ///
    /// # Errors
    /// As [`ServerTlsBuilder::build`].
    pub fn reload(&self) -> Result<(), TlsError> {
        self.replace(self.current().builder.clone())
    }

    /// Takes other settings. If anything is wrong with them, everything stays as it was.
    ///
    /// # Errors
    /// As [`ServerTlsBuilder::build`].
    pub fn replace(&self, builder: ServerTlsBuilder) -> Result<(), TlsError> {
        let before = self.current().resumption.clone();
        let loaded = Arc::new(builder.load(Some(before))?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.current().builder).finish()
    }
}

impl ServerTlsBuilder {
    /// Adds a certificate: its chain, its own certificate first, and its key. Clients that ask for one of the names in
    /// it get it; the first one added is for all others.
    pub fn certificate(mut self, chain: impl Into<Pem>, key: impl Into<Pem>) -> ServerTlsBuilder {
        self.identities.push((chain.into(), key.into()));
        self
    }

    /// The protocols spoken above, the preferred one first (ALPN). A client that offers others only is turned away; one
    /// that offers none is not.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> ServerTlsBuilder {
        self.alpn = protocols.into_iter().map(|protocol| protocol.as_ref().to_vec()).collect();
        self
    }

    /// Asks clients for a certificate of one of these authorities, and lets them in without one too; with a wrong one
    /// they are turned away.
    pub fn request_client_certificates(mut self, authorities: impl Into<Pem>) -> ServerTlsBuilder {
        self.clients = Clients::Optional(authorities.into());
        self
    }

    /// Lets clients in only with a certificate of one of these authorities.
    pub fn require_client_certificates(mut self, authorities: impl Into<Pem>) -> ServerTlsBuilder {
        self.clients = Clients::Required(authorities.into());
        self
    }

    /// Reads the files and sees that all goes together.
    ///
    /// # Errors
    /// The words name the file and what is wrong with it; also where no certificate is given, or a key is of another.
    pub fn build(self) -> Result<ServerTls, TlsError> {
        let current = Arc::new(RwLock::new(Arc::new(self.load(None)?)));
        Ok(ServerTls { current, reception: Reception::default() })
    }

    fn load(self, before: Option<Resumption>) -> Result<Current, TlsError> {
        let certificates = Arc::new(Certificates::load(&self.identities)?);
        let (verifier, authorities) = self.clients.verifier()?;
        let admits = (matches!(self.clients, Clients::Required(_)), authorities);
        let resumption = match before {
            Some(before) if before.admits_the_same(&admits) => before,
            _ => Resumption::new(admits)?,
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new("TLS", error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Asked::new(certificates.clone())));
        config.alpn_protocols.clone_from(&self.alpn);
        config.session_storage = resumption.sessions.clone();
        config.ticketer = resumption.tickets.clone();
        Ok(Current { builder: self, config, certificates, resumption })
    }
}

impl Clients {
    fn verifier(&self) -> Result<(Arc<dyn ClientCertVerifier>, Option<RootCertStore>), TlsError> {
        let pem = match self {
            Clients::Unasked => return Ok((Arc::new(NoClientAuth), None)),
            Clients::Optional(pem) | Clients::Required(pem) => pem,
        };
        let mut authorities = RootCertStore::empty();
        pem.add_roots(&mut authorities)?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities.clone()), provider());
        let builder = match self {
            Clients::Optional(_) => builder.allow_unauthenticated(),
            _ => builder,
        };
        Ok((builder.build().map_err(|error| pem.error(error))?, Some(authorities)))
    }
}

impl Resumption {
    fn new(admits: (bool, Option<RootCertStore>)) -> Result<Resumption, TlsError> {
        let tickets = rustls::crypto::ring::Ticketer::new().map_err(|error| TlsError::new("TLS", error))?;
        Ok(Resumption { admits, sessions: ServerSessionMemoryCache::new(SESSIONS_KEPT), tickets })
    }

    fn admits_the_same(&self, (required, authorities): &(bool, Option<RootCertStore>)) -> bool {
        let roots = |store: &Option<RootCertStore>| store.as_ref().map(|store| store.roots.clone());
        self.admits.0 == *required && roots(&self.admits.1) == roots(authorities)
    }
}
