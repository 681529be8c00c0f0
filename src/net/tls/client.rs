//! TLS as a client speaks it.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tidegate_poller::{Plain, Wire};

use super::certificates::load_identity;
use super::pem::{Pem, TlsError};
use super::side::ClientSide;
use super::{provider, transport};

/// TLS for clients: a cheap handle on the settings, and on the sessions to take up again (those of 256 servers).
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

/// Settings of a [`ClientTls`].
#[derive(Clone, Debug, Default)]
pub struct ClientTlsBuilder {
    trust: Trust,
    identity: Option<(Pem, Pem)>,
    alpn: Vec<Vec<u8>>,
}

/// Whose servers are believed.
#[derive(Clone, Debug, Default)]
enum Trust {
    #[default]
    System,
    Authorities(Vec<Pem>),
    Anybody,
}

/// The name a server has to prove: a DNS name, which it is also told (SNI), or an IP address, which it is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerName(ServerName<'static>);

impl PeerName {
    /// A name such as `example.org`, or an address such as `127.0.0.1` or `::1`.
    ///
    /// # Errors
    /// It is neither.
    pub fn new(name: &str) -> Result<PeerName, TlsError> {
        let unbracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        ServerName::try_from(unbracketed.to_owned())
            .map(PeerName)
            .map_err(|_| TlsError::new(format_args!("{name:?}"), "not a DNS name, nor an IP address"))
    }
}

impl ClientTls {
    /// Settings to be filled in. Without any, servers are believed that the system's authorities speak for.
    pub fn builder() -> ClientTlsBuilder {
        ClientTlsBuilder::default()
    }

    /// The transport for a connection to `name`: what is given to
    /// [`Poller::connect_with`](tidegate_poller::Poller::connect_with).
    pub fn transport(&self, plain: Plain, name: &PeerName) -> Wire {
        let connection = UnbufferedClientConnection::new(self.config.clone(), name.0.clone());
        transport::wire(plain, connection.map(|connection| ClientSide::new(connection, &name.0)), None)
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTlsBuilder {
    /// Believes servers that one of these authorities speaks for, instead of the system's. May be called several times.
    pub fn authorities(mut self, authorities: impl Into<Pem>) -> ClientTlsBuilder {
        match &mut self.trust {
            Trust::Authorities(all) => all.push(authorities.into()),
            _ => self.trust = Trust::Authorities(vec![authorities.into()]),
        }
        self
    }

    /// Believes every server to be who it says, as `curl -k` does: whoever is on the way can read and change everything.
    pub fn danger_accept_any_certificate(mut self) -> ClientTlsBuilder {
        self.trust = Trust::Anybody;
        self
    }

    /// Our own certificate, for servers that ask for one: its chain and its key.
    pub fn certificate(mut self, chain: impl Into<Pem>, key: impl Into<Pem>) -> ClientTlsBuilder {
        self.identity = Some((chain.into(), key.into()));
        self
    }

    /// The protocols to offer, the preferred one first (ALPN). Which one it came to, if any, tells
    /// [`Io::handshake`](tidegate_poller::Io::handshake).
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> ClientTlsBuilder {
        self.alpn = protocols.into_iter().map(|protocol| protocol.as_ref().to_vec()).collect();
        self
    }

    /// Reads the files and sees that all goes together.
    ///
    /// # Errors
    /// The words name the file and what is wrong with it; also where the system trusts nobody.
    pub fn build(self) -> Result<ClientTls, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new("TLS", error))?;
        let builder = match &self.trust {
            Trust::System => builder.with_root_certificates(system_roots()?),
            Trust::Authorities(all) => {
                let mut roots = RootCertStore::empty();
                all.iter().try_for_each(|pem| pem.add_roots(&mut roots))?;
                builder.with_root_certificates(roots)
            }
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider())))
            }
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let identity = SingleCertAndKey::from(load_identity(chain, key)?);
                builder.with_client_cert_resolver(Arc::new(identity) as Arc<dyn ResolvesClientCert>)
            }
        };
        config.alpn_protocols = self.alpn;
        Ok(ClientTls { config: Arc::new(config) })
    }
}

/// The authorities this system trusts. Single ones that cannot be read are left out, as other programs do.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match (roots.is_empty(), found.errors.first()) {
        (false, _) => Ok(roots),
        (true, Some(error)) => Err(TlsError::new("the system's certificates", error)),
        (true, None) => Err(TlsError::new("the system's certificates", "there are none")),
    }
}

/// Believes anybody who has the key to the certificate shown.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
