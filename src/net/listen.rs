//! Opening the sockets a server listens on.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use tidegate_poller::sys;

/// One listening socket for each poller, all at the same address.
#[derive(Debug)]
pub struct Listeners {
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

/// Callers the kernel keeps for a listener that is busy. The kernel caps it at `net.core.somaxconn`, 4,096 by
/// default; a burst of that many is what reconnecting clients make after a restart.
const BACKLOG: u32 = 4_096;

impl Listeners {
    /// Listens at `address` with `count` sockets, among which the kernel shares out the callers. With port 0 the
    /// kernel picks one.
    ///
    /// # Errors
    /// As the kernel's: the address is in use, is none of this machine's, or its port wants more rights; the words
    /// say which.
    pub fn bind(address: SocketAddr, count: usize) -> Result<Listeners, ListenError> {
        let fail = |error| ListenError { address, error };
        if count <= 1 {
            let socket = sys::listen_tcp(address, BACKLOG, false).map_err(fail)?;
            return Ok(Listeners { address: socket.local_addr().map_err(fail)?, sockets: vec![socket] });
        }
        if address.port() != 0 {
            // Sockets that share a port share it with those of another server of the same user too, which would
            // take half of the callers: only this notices it.
            drop(sys::listen_tcp(address, 1, false).map_err(fail)?);
        }
        let first = sys::listen_tcp(address, BACKLOG, true).map_err(fail)?;
        let address = first.local_addr().map_err(fail)?;
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(sys::listen_tcp(address, BACKLOG, true).map_err(fail)?);
        }
        Ok(Listeners { address, sockets })
    }

    /// The address, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sockets.
    pub fn into_sockets(self) -> Vec<TcpListener> {
        self.sockets
    }
}

impl ListenError {
    /// The address that was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the kernel said.
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.error)
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_sockets_share_one_port_and_notice_a_stranger() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(any, 3).unwrap();
        assert_ne!(listeners.address().port(), 0);
        for count in [1, 2] {
            let error = Listeners::bind(listeners.address(), count).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        let address = listeners.address();
        let sockets = listeners.into_sockets();
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
    }
}
