//! The two sides of a TLS connection, where rustls has two types for what the transport does alike.

use std::sync::Arc;

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;

use super::certificates::Asked;

/// One side.
pub(super) trait Side {
    /// What rustls keeps for this side.
    type Data;

    /// Looks at what came in, in place, and says what is to be done next.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What both sides know.
    fn common(&self) -> &CommonState;

    /// The name the client asked for.
    fn server_name(&self) -> Option<&str>;
}

/// The side that connected.
pub(super) struct ClientSide {
    connection: UnbufferedClientConnection,
    name: Box<str>,
}

impl ClientSide {
    pub(super) fn new(connection: UnbufferedClientConnection, name: &ServerName<'_>) -> ClientSide {
        ClientSide { connection, name: name.to_str().into() }
    }
}

impl Side for ClientSide {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.connection.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        &self.connection
    }

    fn server_name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

/// The side that accepted.
pub(super) struct ServerSide {
    connection: UnbufferedServerConnection,
    asked: Arc<Asked>,
}

impl ServerSide {
    pub(super) fn new(connection: UnbufferedServerConnection, asked: Arc<Asked>) -> ServerSide {
        ServerSide { connection, asked }
    }
}

impl Side for ServerSide {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.connection.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        &self.connection
    }

    fn server_name(&self) -> Option<&str> {
        self.asked.name()
    }
}
