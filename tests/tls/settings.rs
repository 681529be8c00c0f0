//! Which certificate, who is let in, taking sessions up again, and new settings while connections live.

use std::sync::Arc;

use tidegate::net::tls::{ClientTls, PeerName, Pem, ServerTls};
use tidegate::poller::{End, Reason};

use crate::pki::{Pki, pair};
use crate::poller::{Part, Running, Told};

#[test]
fn the_certificate_is_that_of_the_name_asked_for() {
    let pki = Pki::new("sni");
    let first = pki.server("first", &["first.test", "127.0.0.1"]);
    let exact = pki.server("exact", &["a.wild.test", "Upper.test"]);
    let wild = pki.server("wild", &["*.wild.test", "first.test"]);
    let server = ServerTls::builder()
        .certificate(first.chain.clone(), first.key.clone())
        .certificate(exact.chain.clone(), exact.key.clone())
        .certificate(wild.chain.clone(), wild.key.clone())
        .build()
        .unwrap();
    let serving = Running::serve(&server, Part::Echo);
    let client = ClientTls::builder().danger_accept_any_certificate().build().unwrap();
    let cases = [
        ("first.test", &first),
        ("a.wild.test", &exact),
        ("A.WILD.TEST", &exact),
        ("upper.test", &exact),
        ("b.wild.test", &wild),
        ("c.b.wild.test", &first),
        ("wild.test", &first),
        ("unknown.test", &first),
        ("127.0.0.1", &first),
    ];
    for (name, expected) in cases {
        let asking = Running::connect(serving.address, &client, name, Part::Says(Arc::default()));
        assert!(asking.ready().certificate.unwrap() == expected.der, "{name}");
        let asked = serving.ready().server_name;
        assert_eq!(asked.is_none(), name == "127.0.0.1", "{name}: {asked:?}");
        drop(asking);
        serving.record();
    }
}

#[test]
fn client_certificates_are_required_or_optional() {
    let pki = Pki::new("mutual");
    let identity = pki.server("server", &["localhost"]);
    let strangers = Pki::new("strangers");
    let (good, bad) = (pki.client("good"), strangers.client("bad"));
    let builder = ServerTls::builder().certificate(identity.chain, identity.key);
    let client = || ClientTls::builder().authorities(pki.ca_pem());
    let anonymous = client().build().unwrap();
    let known = client().certificate(good.chain, good.key).build().unwrap();
    let stranger = client().certificate(bad.chain, bad.key).build().unwrap();
    let words = || Part::Says(Arc::new(b"x".to_vec()));

    for required in [false, true] {
        let builder = builder.clone();
        let server = match required {
            true => builder.require_client_certificates(pki.ca_pem()),
            false => builder.request_client_certificates(pki.ca_pem()),
        };
        let serving = Running::serve(&server.build().unwrap(), Part::Echo);
        let asking = Running::connect(serving.address, &known, "localhost", words());
        assert_eq!(serving.ready().certificate, Some(good.der.clone()));
        drop(asking);
        serving.record();

        let asking = Running::connect(serving.address, &stranger, "localhost", words());
        let (served, asked) = (serving.record(), asking.record());
        assert_eq!((served.end, served.phase), (End::local(Reason::TransportError), "handshake"));
        assert_eq!(asked.end, End::peer(Reason::TransportError), "{asked:?}");
        assert!(asked.handshake.unwrap().fault.unwrap().contains("alert"));

        let asking = Running::connect(serving.address, &anonymous, "localhost", words());
        if required {
            let (served, asked) = (serving.record(), asking.record());
            assert_eq!((served.end, served.phase), (End::local(Reason::TransportError), "handshake"));
            assert!(asked.handshake.unwrap().fault.unwrap().contains("CertificateRequired"));
        } else {
            assert_eq!(serving.ready().certificate, None);
        }
    }
}

fn until_bytes(running: &Running) {
    running.wait(|told| matches!(told, Told::Bytes(_)).then_some(()));
}

#[test]
fn a_session_is_taken_up_again_also_after_a_reload() {
    let pki = Pki::new("resume");
    let (server, client) = pair(&pki);
    let serving = Running::serve(&server, Part::Echo);
    let words = || Part::Says(Arc::new(b"x".to_vec()));
    let asking = Running::connect(serving.address, &client, "localhost", words());
    assert!(!asking.ready().resumed);
    // The tickets come ahead of the echo.
    until_bytes(&asking);
    for reload in [false, true] {
        if reload {
            server.reload().unwrap();
        }
        asking.connect_again(&client, "localhost", words());
        let handshake = asking.ready();
        assert!(handshake.resumed, "after a reload: {reload}");
        until_bytes(&asking);
    }
    assert!(!serving.ready().resumed);
    assert!(serving.ready().resumed);
    // Who is let in has changed: nobody comes in with what was agreed before.
    let identity = pki.server("server", &["localhost"]);
    let builder = ServerTls::builder().certificate(identity.chain, identity.key).alpn(["echo/1"]);
    server.replace(builder.request_client_certificates(pki.ca_pem())).unwrap();
    asking.connect_again(&client, "localhost", words());
    assert!(!asking.ready().resumed);
}

#[test]
fn new_settings_are_for_new_connections_and_bad_ones_change_nothing() {
    let pki = Pki::new("reload");
    let old = pki.server("server", &["localhost"]);
    let server = ServerTls::builder().certificate(old.chain.clone(), old.key.clone()).build().unwrap();
    let serving = Running::serve(&server, Part::Echo);
    let client = ClientTls::builder().danger_accept_any_certificate().build().unwrap();
    let lives = Running::connect(serving.address, &client, "localhost", Part::Says(Arc::new(vec![1; 10])));
    assert!(lives.ready().certificate.unwrap() == old.der);
    until_bytes(&lives);

    // Signed anew over the same files.
    let new = pki.server("server", &["localhost"]);
    assert_ne!(old.der, new.der);
    server.reload().unwrap();
    let fresh = ClientTls::builder().danger_accept_any_certificate().build().unwrap();
    let asking = Running::connect(serving.address, &fresh, "localhost", Part::Says(Arc::default()));
    assert!(asking.ready().certificate.unwrap() == new.der);
    drop(asking);

    // The key of another certificate, garbage, nothing.
    let other = pki.server("other", &["localhost"]);
    std::fs::copy(&other.key, &new.key).unwrap();
    let error = server.reload().unwrap_err().to_string();
    assert!(error.contains("server.key") && error.contains("not that of the certificate"), "{error}");
    std::fs::write(&new.chain, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    let error = server.reload().unwrap_err().to_string();
    assert!(error.contains("server.pem") && error.contains("base64"), "{error}");
    std::fs::write(&new.chain, "nothing").unwrap();
    let error = server.reload().unwrap_err().to_string();
    assert!(error.contains("server.pem: there is no certificate in it"), "{error}");
    std::fs::remove_file(&new.chain).unwrap();
    let error = server.reload().unwrap_err().to_string();
    assert!(error.contains("server.pem") && error.contains("No such file"), "{error}");

    let fresh = ClientTls::builder().danger_accept_any_certificate().build().unwrap();
    let asking = Running::connect(serving.address, &fresh, "localhost", Part::Says(Arc::default()));
    assert!(asking.ready().certificate.unwrap() == new.der, "the old settings still hold");
    // The first connection still does.
    assert!(lives.told.try_iter().all(|told| !matches!(told, Told::Closed(_))));
}

#[test]
fn what_is_wrong_with_settings_is_said() {
    let pki = Pki::new("errors");
    let error = ServerTls::builder().build().unwrap_err().to_string();
    assert!(error.contains("needs a certificate"), "{error}");
    let identity = pki.server("server", &["localhost"]);
    let keyless = ServerTls::builder().certificate(identity.chain.clone(), identity.chain.clone());
    let error = keyless.build().unwrap_err().to_string();
    assert!(error.contains("server.pem: there is no private key in it"), "{error}");
    let error = ClientTls::builder().authorities(Pem::bytes("x")).build().unwrap_err().to_string();
    assert!(error.contains("PEM text of 1 bytes: there is no certificate"), "{error}");
    let error = PeerName::new("not a name").unwrap_err().to_string();
    assert!(error.contains("\"not a name\": not a DNS name"), "{error}");
    assert!(PeerName::new("[::1]").is_ok() && PeerName::new("127.0.0.1").is_ok());
}

#[test]
fn a_known_client_stays_known_across_a_reload_and_not_when_its_authority_is_no_more() {
    let (pki, others) = (Pki::new("known"), Pki::new("others"));
    let identity = pki.server("server", &["localhost"]);
    let known = pki.client("known");
    // The authorities are in a file that is written anew.
    let authorities = pki.path("clients.pem");
    std::fs::copy(pki.ca(), &authorities).unwrap();
    let server = ServerTls::builder()
        .certificate(identity.chain, identity.key)
        .require_client_certificates(Pem::file(&authorities))
        .build()
        .unwrap();
    let serving = Running::serve(&server, Part::Echo);
    let client = ClientTls::builder().authorities(pki.ca_pem()).certificate(known.chain, known.key);
    let client = client.build().unwrap();
    let words = || Part::Says(Arc::new(b"x".to_vec()));
    let asking = Running::connect(serving.address, &client, "localhost", words());
    until_bytes(&asking);
    server.reload().unwrap();
    asking.connect_again(&client, "localhost", words());
    until_bytes(&asking);
    for resumed in [false, true] {
        let handshake = serving.ready();
        assert_eq!((handshake.resumed, handshake.certificate), (resumed, Some(known.der.clone())));
    }
    // What it has from before does not let it in.
    std::fs::copy(others.ca(), &authorities).unwrap();
    server.reload().unwrap();
    asking.connect_again(&client, "localhost", words());
    let record = serving.wait(|told| match told {
        Told::Closed(record) if record.end.reason == Reason::TransportError => Some(*record),
        _ => None,
    });
    assert_eq!(record.phase, "handshake");
    let figures = server.figures();
    assert_eq!((figures.ready, figures.resumed, figures.failed, figures.answered_plainly), (2, 1, 1, 0));
}
