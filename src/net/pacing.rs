//! Which budgets the connections of a server spend through.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tidegate_poller::budget::KeyedBudgets;
use tidegate_poller::record::Peer;
use tidegate_poller::{Budget, Direction, Io, Limit};

/// What a server's connections spend through; shared by its pollers.
///
/// Each connection has the limit for itself, shares a budget with the others of its client, and shares the total
/// with all. A client is an IPv4 address or an IPv6 network of 64 bits, which is what one household gets: within it
/// an address costs nothing.
#[derive(Clone, Default)]
pub struct Pacing {
    limit: Option<Limit>,
    clients: Option<KeyedBudgets<ClientKey>>,
    total: Option<Budget>,
}

/// Builds a [`Pacing`]. Rates are in bytes per second; what is not said, or is `None`, does not limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacingBuilder {
    connection: Option<u64>,
    client: Option<u64>,
    total: Option<u64>,
}

/// How long a client that is gone keeps its budget. Longer than any debt, short enough to forget a crowd.
const CLIENT_EXPIRY: Duration = Duration::from_secs(60);

impl PacingBuilder {
    /// The rate of each connection.
    #[must_use]
    pub fn connection(mut self, rate: impl Into<Option<u64>>) -> PacingBuilder {
        self.connection = rate.into();
        self
    }

    /// The rate of all connections of one client together.
    #[must_use]
    pub fn client(mut self, rate: impl Into<Option<u64>>) -> PacingBuilder {
        self.client = rate.into();
        self
    }

    /// The rate of everything together.
    #[must_use]
    pub fn total(mut self, rate: impl Into<Option<u64>>) -> PacingBuilder {
        self.total = rate.into();
        self
    }

    /// Makes the budgets.
    pub fn build(self) -> Pacing {
        let total = self.total.map(|rate| Budget::builder("total").rate(rate).build());
        let clients =
            self.client.map(|rate| KeyedBudgets::new("client", Some(rate), total.as_ref(), CLIENT_EXPIRY));
        Pacing { limit: self.connection.map(|rate| Limit::new("connection", Some(rate))), clients, total }
    }
}

impl Pacing {
    /// Rates to be said. Said none, it limits nothing.
    ///
    /// ```
    /// use tidegate::net::Pacing;
    ///
    /// // 1 MB/s for each connection, however many there are, and 100 MB/s for all.
    /// let pacing = Pacing::builder().connection(1_000_000).total(100_000_000).build();
    /// assert_eq!(pacing.total().unwrap().rate(), Some(100_000_000));
    /// ```
    pub fn builder() -> PacingBuilder {
        PacingBuilder::default()
    }

    /// Has a new socket spend through the budgets.
    pub fn join(&self, io: &mut Io<'_>) {
        if self.limit.is_some() {
            io.set_limit(Direction::Egress, self.limit.as_ref());
        }
        match (&self.clients, &self.total) {
            // The client's budget has the total above it.
            (Some(clients), _) => {
                let budget = clients.get(&ClientKey::of(&io.peer()), io.now());
                io.spend_through(Direction::Egress, &budget, 1);
            }
            (None, Some(total)) => {
                io.spend_through(Direction::Egress, total, 1);
            }
            (None, None) => {}
        }
    }

    /// The limit of each connection, to change it while bytes flow.
    pub fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }

    /// The clients' budgets.
    pub fn clients(&self) -> Option<&KeyedBudgets<ClientKey>> {
        self.clients.as_ref()
    }

    /// The budget of everything.
    pub fn total(&self) -> Option<&Budget> {
        self.total.as_ref()
    }
}

impl fmt::Debug for Pacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacing")
            .field("limit", &self.limit.as_ref().map(Limit::rate))
            .field("clients", &self.clients.is_some())
            .field("total", &self.total.as_ref().map(Budget::rate))
            .finish()
    }
}

/// Whom a client's budget is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// An IPv4 address, or the first 64 bits of an IPv6 address, the rest zero.
    Address(IpAddr),
    /// All that come by a Unix socket.
    Local,
}

impl ClientKey {
    /// The key of a peer.
    pub fn of(peer: &Peer) -> ClientKey {
        match peer {
            Peer::Inet(address) => ClientKey::Address(match address.ip().to_canonical() {
                IpAddr::V6(ip) => {
                    let [a, b, c, d, ..] = ip.segments();
                    IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
                }
                v4 => v4,
            }),
            Peer::Unix(_) => ClientKey::Local,
        }
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientKey::Address(ip @ IpAddr::V6(_)) => write!(f, "{ip}/64"),
            ClientKey::Address(ip) => ip.fmt(f),
            ClientKey::Local => f.write_str("local"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_network() {
        for (peer, key) in [
            ("192.0.2.1:5000", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:5000", "192.0.2.1"),
            ("[2001:db8:1:2:3:4:5:6]:5000", "2001:db8:1:2::/64"),
            ("[2001:db8:1:2:ffff::]:5000", "2001:db8:1:2::/64"),
            ("[::1]:5000", "::/64"),
        ] {
            let peer = Peer::Inet(peer.parse::<SocketAddr>().unwrap());
            assert_eq!(ClientKey::of(&peer).to_string(), key);
        }
        assert_eq!(ClientKey::of(&Peer::Unix(None)), ClientKey::Local);
    }

    #[test]
    fn clients_have_the_total_above_them() {
        let pacing = Pacing::builder().connection(5).client(10).total(20).build();
        assert_eq!(pacing.limit().and_then(Limit::rate), Some(5));
        let client = pacing.clients().unwrap().get(&ClientKey::Local, tidegate_poller::Moment::FIRST);
        assert_eq!(client.rate(), Some(10));
        assert!(client.parent().unwrap().is(pacing.total().unwrap()));
    }
}
