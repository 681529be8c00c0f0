//! How a client goes about its requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::proxy::Proxies;
use crate::http::codec::response::HEAD_MAX;
use crate::net::Spending;
#[cfg(feature = "tls")]
use crate::net::tls::ClientTls;
use crate::net::{Resolve, SystemResolver};
use crate::record::Sinks;

/// How a client goes about its requests. An endpoint is a scheme, a host, a port and the proxy in between.
///
/// Each time has its own name, and its own error ([`ClientError::Timeout`](super::ClientError::Timeout) says for what).
/// Time in which a budget of ours holds bytes up counts towards the total only.
#[derive(Clone)]
pub struct ClientSettings {
    /// Connections to one endpoint, at most. Default: 16.
    pub max_connections: usize,
    /// Of those, how many are kept while they have nothing to do. Default: 16.
    pub max_idle: usize,
    /// How long they are kept. Default: 60 s.
    pub idle_timeout: Duration,
    /// Requests that wait for a connection to one endpoint, at most; one more fails at once. Default: 1,024.
    pub max_waiting: usize,
    /// How long they wait. Default: 10 s.
    pub wait_timeout: Duration,
    /// How long the host's addresses may take to be found. Default: 10 s.
    pub dns_timeout: Duration,
    /// How long a new connection may take, over all the host's addresses. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long TLS may take to be agreed on. Default: 10 s, which is also the most that pollers allow unless told otherwise.
    pub tls_timeout: Duration,
    /// From the last byte of the request to the first of the response. Default: 60 s.
    pub first_byte_timeout: Duration,
    /// Between bytes of the response, and how long the server may take no byte of the request. Default: 60 s.
    pub next_byte_timeout: Duration,
    /// From the start of the task to the last byte of the body, redirects and retries included. Default: none.
    pub total_timeout: Option<Duration>,
    /// The most bytes a response's head may have. Default: 64 KiB.
    pub max_head: usize,
    /// The most bytes a body may have that is taken whole, after its content coding was taken away. Default: 16 MiB.
    pub max_body: u64,
    /// How many bytes of a body that is read as a stream may wait to be read. Default: 256 KiB.
    pub stream_capacity: usize,
    /// How many redirects are followed. Default: 10.
    pub max_redirects: u32,
    /// How often a request that failed is made again, with growing pauses, where that does no harm: its method is idempotent
    /// or none of it was sent, and its body can be sent again. Responses with 429, 502, 503 and 504 count as failed, until
    /// the last attempt. Default: 2.
    pub max_retries: u32,
    /// A server that wants us to wait longer than this (Retry-After) gets no retry. Default: 30 s.
    pub max_retry_wait: Duration,
    /// Whether a request is sent again, once, and not counted as a retry, when the connection it went out on had been idle
    /// and the server closed it without a byte of a response: mostly it had closed it before the request came. Default: yes.
    pub retry_stale: bool,
    /// Whether to ask for compressed bodies, and decompress them. Needs the feature `decompression`. Default: yes.
    pub decompress: bool,
    /// Bodies larger than this wait for the server's `100 Continue`, for at most a second. Default: 1 MiB.
    pub continue_above: u64,
    /// What the User-Agent field says. Default: `tidegate/` and the version.
    pub user_agent: String,
    /// Default: what the environment says, see [`Proxies::from_env`].
    pub proxies: Proxies,
    /// How servers prove who they are, and we to them. Default: the authorities that the system trusts, read when the first
    /// `https` URL is asked for.
    #[cfg(feature = "tls")]
    pub tls: Option<ClientTls>,
    /// What all requests spend through, both ways.
    pub spending: Spending,
    /// Where the records go.
    pub sinks: Sinks,
    /// What finds the addresses of names. Default: the C library.
    pub resolver: Arc<dyn Resolve>,
}

impl Default for ClientSettings {
    fn default() -> ClientSettings {
        ClientSettings {
            max_connections: 16,
            max_idle: 16,
            idle_timeout: Duration::from_secs(60),
            max_waiting: 1_024,
            wait_timeout: Duration::from_secs(10),
            dns_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(60),
            next_byte_timeout: Duration::from_secs(60),
            total_timeout: None,
            max_head: HEAD_MAX,
            max_body: 16 * 1024 * 1024,
            stream_capacity: 256 * 1024,
            max_redirects: 10,
            max_retries: 2,
            max_retry_wait: Duration::from_secs(30),
            retry_stale: true,
            decompress: true,
            continue_above: 1024 * 1024,
            user_agent: concat!("tidegate/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::from_env(),
            #[cfg(feature = "tls")]
            tls: None,
            spending: Spending::default(),
            sinks: Sinks::default(),
            resolver: Arc::new(SystemResolver),
        }
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("max_connections", &self.max_connections)
            .field("max_idle", &self.max_idle)
            .field("max_waiting", &self.max_waiting)
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}
