//! Certificates and keys as PEM text, from files or memory, and what can be wrong with them.
//!
//! Reads and parses; it must not judge whether what it read goes together.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where PEM text comes from. A file is read each time it is needed, so that a reload finds what is there by then.
#[derive(Clone)]
pub enum Pem {
    /// A file.
    File(PathBuf),
    /// Text in memory.
    Bytes(Arc<[u8]>),
}

impl Pem {
    /// The text of a file.
    pub fn file(path: impl AsRef<Path>) -> Pem {
        Pem::File(path.as_ref().to_path_buf())
    }

    /// Text in memory.
    pub fn bytes(text: impl AsRef<[u8]>) -> Pem {
        Pem::Bytes(text.as_ref().into())
    }

    /// The certificates in it: at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let text = self.read()?;
        let certificates = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.error(words_of(&error)))?;
        if certificates.is_empty() {
            return Err(self.error("there is no certificate in it"));
        }
        Ok(certificates)
    }

    /// The first private key in it.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|error| match error {
            pem::Error::NoItemsFound => self.error("there is no private key in it"),
            error => self.error(words_of(&error)),
        })
    }

    /// The certificates in it, as authorities to trust.
    pub(super) fn add_roots(&self, roots: &mut RootCertStore) -> Result<(), TlsError> {
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    /// An error about this text.
    pub(super) fn error(&self, cause: impl fmt::Display) -> TlsError {
        TlsError { what: self.to_string(), cause: cause.to_string() }
    }

    fn read(&self) -> Result<Cow<'_, [u8]>, TlsError> {
        match self {
            Pem::File(path) => std::fs::read(path).map(Cow::Owned).map_err(|error| self.error(error)),
            Pem::Bytes(text) => Ok(Cow::Borrowed(text)),
        }
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => path.display().fmt(f),
            Pem::Bytes(text) => write!(f, "PEM text of {} bytes", text.len()),
        }
    }
}

/// Without the text, which may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Pem {
        Pem::file(path)
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Pem {
        Pem::File(path)
    }
}

fn words_of(error: &pem::Error) -> String {
    match error {
        pem::Error::Base64Decode(_) => String::from("what is between the BEGIN and END lines is not base64"),
        pem::Error::MissingSectionEnd { .. } => String::from("a section has no END line"),
        pem::Error::IllegalSectionStart { .. } => String::from("a BEGIN line is not well formed"),
        error => format!("{error:?}"),
    }
}

/// What is wrong with a configuration: which file (or other thing), and what about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    what: String,
    cause: String,
}

impl TlsError {
    pub(super) fn new(what: impl fmt::Display, cause: impl fmt::Display) -> TlsError {
        TlsError { what: what.to_string(), cause: cause.to_string() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

impl std::error::Error for TlsError {}
