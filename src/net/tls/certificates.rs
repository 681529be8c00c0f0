//! A server's certificates, and which of them a client gets.
//!
//! A certificate is for the names in it (subject alternative names). The exact name wins over a wildcard, the first
//! certificate over a later one for the same name; who asks for another name, or none, gets the very first.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::pem::{Pem, TlsError};
use super::provider;

/// The certificates of a server.
#[derive(Debug)]
pub(super) struct Certificates {
    all: Vec<Arc<CertifiedKey>>,
    /// Lower case names, wildcards as they are (`*.example.org`), and the place in `all`.
    by_name: HashMap<String, usize>,
}

impl Certificates {
    /// Reads them; each is a chain, its own certificate first, and the key to it.
    pub(super) fn load(identities: &[(Pem, Pem)]) -> Result<Certificates, TlsError> {
        let mut certificates = Certificates { all: Vec::new(), by_name: HashMap::new() };
        for (chain, key) in identities {
            certificates.add(load_identity(chain, key)?, chain)?;
        }
        match certificates.all.is_empty() {
            true => Err(TlsError::new("TLS", "a server needs a certificate")),
            false => Ok(certificates),
        }
    }

    fn add(&mut self, identity: CertifiedKey, chain: &Pem) -> Result<(), TlsError> {
        let leaf = identity.end_entity_cert().map_err(|error| chain.error(error))?;
        let parsed = webpki::EndEntityCert::try_from(leaf)
            .map_err(|error| chain.error(format_args!("the first certificate cannot be read: {error}")))?;
        for name in parsed.valid_dns_names() {
            self.by_name.entry(name.to_ascii_lowercase()).or_insert(self.all.len());
        }
        self.all.push(Arc::new(identity));
        Ok(())
    }

    /// The certificate for who asks for `name`.
    pub(super) fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let place = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.by_name.get(&name).or_else(|| {
                // A wildcard stands for one label (RFC 6125, 6.4.3).
                let (_, parent) = name.split_once('.')?;
                self.by_name.get(&format!("*.{parent}"))
            })
        });
        self.all.get(place.copied().unwrap_or(0)).cloned()
    }
}

/// Reads a chain and its key, and sees that they belong together.
pub(super) fn load_identity(chain: &Pem, key: &Pem) -> Result<CertifiedKey, TlsError> {
    let certificates = chain.certificates()?;
    let signing_key =
        provider().key_provider.load_private_key(key.key()?).map_err(|error| key.error(error))?;
    let identity = CertifiedKey::new(certificates, signing_key);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(key.error(format_args!("the key is not that of the certificate in {chain}")))
        }
        Err(error) => Err(chain.error(error)),
    }
}

/// Chooses for one connection, and notes which name it asked for: rustls tells nobody else.
pub(super) struct Asked {
    certificates: Arc<Certificates>,
    name: OnceLock<Box<str>>,
}

impl Asked {
    pub(super) fn new(certificates: Arc<Certificates>) -> Asked {
        Asked { certificates, name: OnceLock::new() }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.get().map(|name| &**name)
    }
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if let Some(name) = name {
            // Asked a second time after a retry; the name may not change then.
            let _ = self.name.set(name.into());
        }
        self.certificates.choose(name)
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asked").field(&self.name()).finish()
    }
}
