//! Certificates made for the test, and a folder with them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tidegate::net::tls::{ClientTls, Pem, ServerTls};

/// An authority, and a folder for what it signs.
pub(crate) struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) der: Vec<u8>,
}

impl Pki {
    pub(crate) fn new(name: &str) -> Pki {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tidegate-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        Pki { authority, folder }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub(crate) fn ca_pem(&self) -> Pem {
        Pem::file(self.ca())
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A server's certificate for these names.
    pub(crate) fn server(&self, file: &str, names: &[&str]) -> Identity {
        self.sign(file, names, ExtendedKeyUsagePurpose::ServerAuth, |_| ())
    }

    /// A client's certificate.
    pub(crate) fn client(&self, file: &str) -> Identity {
        self.sign(file, &["somebody.test"], ExtendedKeyUsagePurpose::ClientAuth, |_| ())
    }

    /// A server's certificate that has run out.
    pub(crate) fn expired(&self, file: &str) -> Identity {
        self.sign(file, &["localhost"], ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    fn sign(
        &self,
        file: &str,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        params.distinguished_name.push(DnType::CommonName, file);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let (chain, key_file) = (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")));
        std::fs::write(&chain, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        Identity { chain, key: key_file, der: certificate.der().to_vec() }
    }
}

/// A server and a client that get on with each other.
pub(crate) fn pair(pki: &Pki) -> (ServerTls, ClientTls) {
    let identity = pki.server("server", &["localhost", "127.0.0.1"]);
    let server = ServerTls::builder()
        .certificate(identity.chain, identity.key)
        .alpn(["echo/1", "echo/0"])
        .build()
        .unwrap();
    let client = ClientTls::builder().authorities(pki.ca_pem()).alpn(["echo/1"]).build().unwrap();
    (server, client)
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
