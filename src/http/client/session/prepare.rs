//! Getting ready: a tunnel through a proxy, and TLS, before the first request goes.

use tidegate_poller::record::End;
use tidegate_poller::{Io, Reason};

use super::ClientSession;
use crate::http::Method;
use crate::http::client::client::Origin;
use crate::http::client::error::ClientError;
use crate::http::client::request::field;
use crate::http::client::url::Scheme;
use crate::http::codec::response::{Decoder, Fault, Piece};
use crate::net::Waited;
#[cfg(feature = "tls")]
use crate::net::tls::PeerName;

/// The way through a proxy to a server that speaks TLS (RFC 9110, section 9.3.6).
#[derive(Debug)]
pub(super) enum Tunnel {
    /// There is none, or not yet.
    None,
    /// The proxy was asked for it.
    Asked(Box<Decoder>),
    Made,
}

impl ClientSession {
    /// The connection is made: TLS, and before that perhaps a tunnel, is next.
    pub(super) fn prepare(&mut self, io: &mut Io<'_>) {
        let Origin { key, .. } = self.endpoint.place();
        if key.scheme == Scheme::Http {
            return self.go(io);
        }
        match (&key.proxy, &self.tunnel) {
            (Some(proxy), Tunnel::None) => {
                let mut out = io.buffer();
                let host = self.first.as_ref().map(|call| call.work.url.host_and_port()).unwrap_or_default();
                out.extend_from_slice(format!("CONNECT {host} HTTP/1.1\r\n").as_bytes());
                field(&mut out, "Host", host.as_bytes());
                if let Some(authorization) = &proxy.authorization {
                    field(&mut out, "Proxy-Authorization", authorization.as_bytes());
                }
                out.extend_from_slice(b"\r\n");
                io.send(out);
                let decoder = Decoder::new(Method::CONNECT, self.shared().settings.max_head);
                self.tunnel = Tunnel::Asked(Box::new(decoder));
                self.wait_for(io, Waited::Connect);
            }
            // Without a handshake to show for it nothing is said.
            _ if io.handshake().is_none() => {
                let why = self.why_no_tls();
                self.fail(io, ClientError::Tls(why), End::local(Reason::Denied));
            }
            _ => self.go(io),
        }
    }

    /// The proxy says something.
    pub(super) fn tunnel_answered(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        let Tunnel::Asked(decoder) = &mut self.tunnel else { return };
        let mut used = 0;
        loop {
            match decoder.next(&bytes[used..]) {
                Err(fault) => {
                    return self.fail(io, ClientError::Malformed(fault), End::peer(Reason::ProtocolError));
                }
                Ok((n, piece)) => {
                    used += n;
                    match piece {
                        Piece::Nothing => return,
                        Piece::Head(head) if !head.status.is_success() => {
                            return self.fail(io, ClientError::Proxy(head.status), End::peer(Reason::Denied));
                        }
                        Piece::End(_) => break,
                        _ => {}
                    }
                }
            }
        }
        if used < bytes.len() {
            // A server waits for the client's first word.
            let fault = Fault::Malformed("the proxy says more than that there is a tunnel");
            return self.fail(io, ClientError::Malformed(fault), End::peer(Reason::ProtocolError));
        }
        self.tunnel = Tunnel::Made;
        self.start_tls(io);
    }

    #[cfg(feature = "tls")]
    pub(super) fn start_tls(&mut self, io: &mut Io<'_>) {
        let Origin { shared, key } = self.endpoint.place();
        let (Some(Ok(tls)), Ok(name)) = (shared.tls(), PeerName::new(&key.host)) else {
            return self.prepare(io);
        };
        if io.change_transport(|plain| tls.transport(plain, &name)) {
            self.tls_began = Some(io.now());
            self.wait_for(io, Waited::Tls);
        } else {
            self.fail(io, ClientError::Tls("no descriptor left".to_owned()), End::local(Reason::Descriptors));
        }
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn start_tls(&mut self, io: &mut Io<'_>) {
        self.prepare(io);
    }

    pub(super) fn why_no_tls(&self) -> String {
        let Origin { key, .. } = self.endpoint.place();
        #[cfg(feature = "tls")]
        if let Some(Err(why)) = self.shared().tls() {
            return why.clone();
        }
        format!("{:?} is no name that a server could prove", key.host)
    }

    /// Requests can go.
    pub(super) fn go(&mut self, io: &mut Io<'_>) {
        let Some(mut call) = self.first.take() else { return };
        if io.handshake().is_some() {
            call.work.facts.tls = self.tls_began.map(|began| io.now().max(began) - began);
        }
        self.begin(io, call, false);
    }
}
