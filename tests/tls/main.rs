//! TLS over real sockets: our own two ends, and openssl, curl and python at the other.

mod bytes;
mod ends;
mod hostile;
mod peers;
mod pki;
mod poller;
mod raw;
mod settings;
mod transport;
