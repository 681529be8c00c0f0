//! A client of rustls over a plain socket, which a test drives record by record.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::pki::Pki;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct RawClient {
    pub(crate) stream: TcpStream,
    pub(crate) tls: ClientConnection,
}

impl RawClient {
    /// Connected, and nothing said.
    pub(crate) fn connect(address: SocketAddr, pki: &Pki) -> RawClient {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.ca()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        RawClient { stream, tls }
    }

    /// Connected, and the handshake done.
    pub(crate) fn ready(address: SocketAddr, pki: &Pki) -> RawClient {
        let mut client = RawClient::connect(address, pki);
        client.shake_hands();
        client
    }

    pub(crate) fn shake_hands(&mut self) {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.stream).unwrap();
        }
        let words = self.words();
        self.stream.write_all(&words).unwrap();
    }

    /// What it has to say next, unsent.
    pub(crate) fn words(&mut self) -> Vec<u8> {
        let mut words = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut words).unwrap();
        }
        words
    }

    /// Records of at most `each` bytes, unsent.
    pub(crate) fn records(&mut self, bytes: &[u8], each: usize) -> Vec<u8> {
        let mut records = Vec::new();
        for piece in bytes.chunks(each) {
            self.tls.writer().write_all(piece).unwrap();
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let records = self.records(bytes, 16 * 1024);
        self.stream.write_all(&records).unwrap();
    }

    /// Says goodbye, and FIN with it.
    pub(crate) fn leave(&mut self) {
        self.tls.send_close_notify();
        let words = self.words();
        self.stream.write_all(&words).unwrap();
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// What comes next: at least one byte, or none at the end; the error of a connection that failed.
    pub(crate) fn next(&mut self) -> Result<Vec<u8>, rustls::Error> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            match self.tls.reader().read(&mut bytes) {
                Ok(n) => {
                    bytes.truncate(n);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // FIN without a goodbye.
                Err(_) => return Ok(Vec::new()),
            }
            if self.tls.read_tls(&mut self.stream).unwrap_or(0) == 0 {
                return Ok(Vec::new());
            }
            self.tls.process_new_packets()?;
        }
    }

    /// The next bytes, so many of them.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            let some = self.next().unwrap();
            assert!(!some.is_empty(), "the end after {} of {len} bytes", all.len());
            all.extend_from_slice(&some);
        }
        all
    }

    /// All that comes until the end.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, rustls::Error> {
        let mut all = Vec::new();
        loop {
            match self.next()? {
                some if some.is_empty() => return Ok(all),
                some => all.extend_from_slice(&some),
            }
        }
    }
}
