//! What a poller can be told about itself.

use std::time::Duration;

/// Settings of a poller.
#[derive(Clone, Debug)]
pub struct PollerSettings {
    /// Its name, in logs.
    pub name: String,
    /// Most kernel events taken in one turn. More wait in the kernel; a bound keeps timers punctual.
    pub events_per_turn: usize,
    /// Most bytes one socket writes in one visit, then others are served first.
    pub visit_cap: u64,
    /// Most bytes one socket reads in one visit.
    pub read_cap: u64,
    /// Size of the read buffer, of which the poller has one.
    pub read_buffer: usize,
    /// How far apart a paced socket's writes are; `None` adapts to their number.
    pub pace_interval: Option<Duration>,
    /// How long, after FIN was sent, what the peer still sends is read and discarded, so that closing does not
    /// become a reset that overtakes the reply.
    pub linger: Duration,
    /// How long a connect may take; `None` leaves it to the kernel (about two minutes).
    pub connect_timeout: Option<Duration>,
    /// How long a transport's handshake may take, from when the connection is made, pauses by a budget included; `None`: for
    /// ever.
    pub handshake_timeout: Option<Duration>,
    /// Most sockets at once; a caller beyond is turned away and recorded.
    pub max_sockets: usize,
    /// Options set on every TCP socket.
    pub socket: SocketOptions,
}

/// Options set on every TCP socket.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// `TCP_NODELAY`. The gate itself decides what goes together.
    pub nodelay: bool,
    /// `TCP_NOTSENT_LOWAT`, set at a socket's first pause: how many bytes the kernel may hold that were not sent
    /// yet, so that a pause, or a lower rate, is felt at the peer soon. 128 KiB is what goes in 10 ms at 12 MB/s;
    /// slower sockets never have that much unsent, faster ones empty it sooner. `None` leaves it alone.
    pub notsent_lowat: Option<u32>,
    /// `SO_SNDBUF`; `None` lets the kernel tune it.
    pub send_buffer: Option<u32>,
    /// `SO_RCVBUF`; `None` lets the kernel tune it.
    pub receive_buffer: Option<u32>,
}

impl Default for PollerSettings {
    fn default() -> PollerSettings {
        PollerSettings {
            name: String::from("poller"),
            events_per_turn: 256,
            // About 1 ms of copying: what one greedy socket may add to the others' wait.
            visit_cap: 1024 * 1024,
            read_cap: 256 * 1024,
            read_buffer: 64 * 1024,
            pace_interval: None,
            linger: Duration::from_secs(2),
            connect_timeout: Some(Duration::from_secs(10)),
            handshake_timeout: Some(Duration::from_secs(10)),
            max_sockets: 1_000_000,
            socket: SocketOptions::default(),
        }
    }
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            nodelay: true,
            notsent_lowat: Some(128 * 1024),
            send_buffer: None,
            receive_buffer: None,
        }
    }
}
