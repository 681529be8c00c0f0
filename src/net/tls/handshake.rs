//! What a handshake came to, in words: for sessions, records and logs.

use rustls::{CertificateError, CommonState, Error, HandshakeKind, ProtocolVersion};
use tidegate_poller::{Fault, Handshake, Who};

/// What the two agreed on so far. When, whether the end came bare and what failed, others know.
pub(super) fn describe(common: &CommonState, server_name: Option<&str>) -> Handshake {
    Handshake {
        version: match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
            Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
            _ => None,
        },
        cipher: common.negotiated_cipher_suite().and_then(|suite| {
            // rustls tells suites of 1.3 apart by a name of its own; registered is this one (RFC 8446, B.4).
            let name = suite.suite().as_str()?;
            Some(name.replacen("TLS13_", "TLS_", 1))
        }),
        protocol: common.alpn_protocol().map(|protocol| protocol.escape_ascii().to_string()),
        server_name: server_name.map(str::to_owned),
        resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        certificate: common
            .peer_certificates()
            .and_then(|certificates| certificates.first())
            .map(|certificate| certificate.to_vec()),
        ..Handshake::default()
    }
}

/// Whose doing an error is: what the peer said, or what we do not accept of it.
pub(super) fn fault_of(error: &Error) -> Fault {
    let who = match error {
        Error::AlertReceived(_)
        | Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => Who::Peer,
        _ => Who::Local,
    };
    Fault { who, words: words_of(error) }
}

/// What people meet most, with what is to be done about it; the rest as rustls has it.
fn words_of(error: &Error) -> String {
    const AUTHORITY: &str = "the certificate is that of an authority (CA:TRUE), which no server may have: make one with \
                             basicConstraints=CA:FALSE";
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            String::from("nobody who is trusted here has signed the certificate (UnknownIssuer)")
        }
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<webpki::Error>() {
                Some(webpki::Error::CaUsedAsEndEntity) => AUTHORITY.to_owned(),
                _ => error.to_string(),
            }
        }
        _ => error.to_string(),
    }
}

/// What a peer that says this speaks instead of TLS: words of four letters begin most protocols of lines.
pub(super) fn fault_of_plain_text(first: &[u8]) -> Option<Fault> {
    let text = first.len() >= 4 && first[..4].iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b' ');
    text.then(|| Fault {
        who: Who::Peer,
        words: format!("not TLS: the peer began with {:?}", first[..4].escape_ascii().to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::OtherError;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_with_what_to_do() {
        let other = |error| CertificateError::Other(OtherError(Arc::new(error)));
        for (error, part) in [
            (CertificateError::UnknownIssuer, "nobody who is trusted here"),
            (other(webpki::Error::CaUsedAsEndEntity), "basicConstraints=CA:FALSE"),
            (other(webpki::Error::BadDer), "BadDer"),
            (CertificateError::Expired, "xpired"),
        ] {
            let words = fault_of(&Error::InvalidCertificate(error)).words;
            assert!(words.contains(part), "{words}");
        }
    }
}
