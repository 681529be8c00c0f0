//! What is left of a connection: the record, and the words for how it ended.
//!
//! The record is made from the socket's [`Ledger`](crate::ledger::Ledger) in the one teardown path and moved to
//! the session by value, so "exactly once" is a matter of types. This module owns the vocabulary; it formats
//! nothing and writes nothing.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Inet(SocketAddr),
    /// A Unix socket: its path, where it has one.
    Unix(Option<PathBuf>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Inet(address) => address.fmt(f),
            Peer::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Peer::Unix(None) => f.write_str("unix:"),
        }
    }
}

/// Which end acted first to end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// The other end.
    Peer,
    /// This program.
    Local,
}

/// Which role this end plays. With [`Who`] it gives a name both ends' logs agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We accepted the connection.
    Server,
    /// We made the connection.
    Client,
}

impl Role {
    /// The name of `who`, the same in both ends' logs: `client` or `server`.
    pub fn name_of(self, who: Who) -> &'static str {
        match (self, who) {
            (Role::Server, Who::Local) | (Role::Client, Who::Peer) => "server",
            (Role::Server, Who::Peer) | (Role::Client, Who::Local) => "client",
        }
    }
}

/// Why a connection or an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Everything that was asked for was done.
    Ok,
    /// One end left in the middle: a reset, or FIN where more was due.
    Abort,
    /// A timer of ours ran out; the phase tells which.
    Timeout,
    /// The peer said something that is not the protocol.
    ProtocolError,
    /// The program chose to close.
    LocalClose,
    /// A limit (size, count, rate) said no.
    Denied,
    /// An idle connection made room for a new one.
    Evicted,
    /// The process is stopping.
    Shutdown,
    /// The peer took its bytes too slowly.
    SlowConsumer,
    /// More waited for the peer than may, because a rate or budget of ours held it back.
    Throttled,
    /// The process had no file descriptor left.
    Descriptors,
    /// Connecting failed: refused, unreachable.
    ConnectFailed,
    /// What was being sent failed underneath: a file got shorter, a read failed.
    SourceFailed,
    /// The transport failed (TLS alert, bad record).
    TransportError,
    /// A fault of this program, a panic in a session included.
    Internal,
}

impl Reason {
    /// The word that stands in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Ok => "ok",
            Reason::Abort => "abort",
            Reason::Timeout => "timeout",
            Reason::ProtocolError => "protocol_error",
            Reason::LocalClose => "local_close",
            Reason::Denied => "denied",
            Reason::Evicted => "evicted",
            Reason::Shutdown => "shutdown",
            Reason::SlowConsumer => "slow_consumer",
            Reason::Throttled => "throttled",
            Reason::Descriptors => "descriptors",
            Reason::ConnectFailed => "connect_failed",
            Reason::SourceFailed => "source_failed",
            Reason::TransportError => "transport_error",
            Reason::Internal => "internal",
        }
    }
}

/// As [`Reason::as_str`].
///
/// ```
/// assert_eq!(tidegate_poller::Reason::ProtocolError.to_string(), "protocol_error");
/// ```
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How it ended: who acted, and why. The phase is added from [`Session::phase`](crate::Session::phase).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End {
    /// Who ended it.
    pub who: Who,
    /// Why.
    pub reason: Reason,
}

impl End {
    /// The other end did it.
    pub fn peer(reason: Reason) -> End {
        End { who: Who::Peer, reason }
    }

    /// We did it.
    pub fn local(reason: Reason) -> End {
        End { who: Who::Local, reason }
    }
}

/// Why an acceptor turned a caller away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub Reason);

/// Time spent not writing although there was something to write, by cause, and the silence it made.
///
/// The three sums can overlap: a socket can be paused and blocked at once. Each is timed apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pauses {
    /// Nanoseconds during which a budget kept the gate closed.
    pub throttled_ns: u64,
    /// Nanoseconds during which the kernel would take no more (slow peer or network).
    pub blocked_ns: u64,
    /// Nanoseconds during which the program held the socket.
    pub held_ns: u64,
    /// Nanoseconds during which a source or a cold file had nothing ready.
    pub starved_ns: u64,
    /// The longest time in which no byte went although some were queued, in nanoseconds.
    pub longest_gap_ns: u64,
    /// How often a budget closed the gate.
    pub throttle_count: u64,
}

/// What the kernel knew of a TCP connection at its end (`TCP_INFO`). A field that an older kernel does not
/// report is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFigures {
    /// Smoothed round trip, µs.
    pub rtt_us: u32,
    /// Its variation, µs.
    pub rtt_var_us: u32,
    /// The least round trip seen, µs.
    pub rtt_min_us: Option<u32>,
    /// Segments retransmitted in all.
    pub retransmits: u32,
    /// Bytes retransmitted in all.
    pub retransmitted_bytes: Option<u64>,
    /// Bytes the peer acknowledged (the kernel counts SYN as one: taken off).
    pub acked_bytes: Option<u64>,
    /// Bytes received from the peer, in order.
    pub received_bytes: Option<u64>,
    /// Segments sent and not acknowledged.
    pub unacked_segments: u32,
    /// Bytes in the kernel that were never sent.
    pub unsent_bytes: Option<u32>,
    /// The latest measured delivery rate, bytes per second.
    pub delivery_rate: Option<u64>,
    /// The delivery rate was limited by us having nothing to send (a pause does that).
    pub app_limited: bool,
    /// Time with data outstanding, µs.
    pub busy_us: Option<u64>,
    /// Of that, limited by the peer's window, µs.
    pub rwnd_limited_us: Option<u64>,
    /// Of that, limited by our send buffer, µs.
    pub sndbuf_limited_us: Option<u64>,
    /// Congestion window, segments.
    pub congestion_window: u32,
    /// Send segment size, bytes.
    pub segment_size: u32,
}

/// What a transport that is not plain agreed on with its peer (TLS), in that transport's own words.
///
/// Filled as far as the handshake came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// From the start of the connection until bytes could be exchanged, less what connecting took. Absent when that
    /// never came.
    pub took: Option<Duration>,
    /// The version of the transport's protocol, such as `TLSv1.3`.
    pub version: Option<&'static str>,
    /// The cipher suite, by its registered name, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: Option<String>,
    /// The protocol agreed on for what lies above (ALPN), such as `http/1.1`. What is not text is escaped.
    pub protocol: Option<String>,
    /// The name the client asked for (SNI). On the client's side: the name it wanted to see proved, an address too.
    pub server_name: Option<String>,
    /// Whether an earlier session was taken up again.
    pub resumed: bool,
    /// The certificate that the peer presented, DER. A session that was taken up again has the one presented then.
    pub certificate: Option<Vec<u8>>,
    /// Whether the peer's end came bare; see [`Transport::is_truncated`](crate::Transport::is_truncated).
    pub truncated: bool,
    /// What it failed for.
    pub fault: Option<String>,
}

/// The account of one connection, made once at its end.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// Unique in this process; joins exchange lines to their connection.
    pub conn_id: u64,
    /// The other end.
    pub peer: Peer,
    /// Our role.
    pub role: Role,
    /// Wall-clock time of accept, or of the start of our connect.
    pub started: SystemTime,
    /// Bytes read from the socket.
    pub wire_in: u64,
    /// Bytes the kernel took from us.
    pub wire_out: u64,
    /// Bytes above the transport, in (the same as `wire_in` without TLS).
    pub plain_in: u64,
    /// Bytes above the transport, out (the same as `wire_out` without TLS).
    pub plain_out: u64,
    /// Bytes that were queued and never written.
    pub dropped_out: u64,
    /// From the start until connected. Absent when that never came.
    pub connected: Option<Duration>,
    /// From the start until the first byte in.
    pub first_in: Option<Duration>,
    /// From the start until the last byte in.
    pub last_in: Option<Duration>,
    /// From the start until the first byte out.
    pub first_out: Option<Duration>,
    /// From the start until the last byte out.
    pub last_out: Option<Duration>,
    /// From the start until the close.
    pub duration: Duration,
    /// Egress pauses.
    pub pauses: Pauses,
    /// The longest silence after the latest mark the gate reached, in nanoseconds: that of the exchange which the
    /// close cut.
    pub gap_since_mark_ns: u64,
    /// Nanoseconds during which an ingress budget kept us from reading.
    pub ingress_throttled_ns: u64,
    /// How it ended.
    pub end: End,
    /// In which phase.
    pub phase: &'static str,
    /// What the kernel knew; absent for Unix sockets and where it could not be asked.
    pub tcp: Option<TcpFigures>,
    /// What the transport agreed on with the peer; absent for a plain one.
    pub handshake: Option<Box<Handshake>>,
}

impl ConnectionRecord {
    /// Who ended it, by role: `client` or `server`.
    pub fn end_who(&self) -> &'static str {
        self.role.name_of(self.end.who)
    }
}
