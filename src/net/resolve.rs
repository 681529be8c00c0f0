//! Names to addresses, by whatever the program gives us.
//!
//! `net` needs names resolved and knows no DNS: a [`Resolve`] is handed in. The default asks the C library, off the
//! pollers.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::runtime::RuntimeHandle;

/// Finds the addresses of a host.
pub trait Resolve: Send + Sync + 'static {
    /// Finds the addresses of `host`, best first, with `port`, and [answers](Resolving::answer) on whatever thread, now or
    /// later. Must not block. What `resolving` is dropped without an answer has failed.
    fn resolve(&self, host: &str, port: u16, resolving: Resolving);
}

/// Who waits for a name.
#[must_use = "dropping it fails the request"]
pub struct Resolving {
    runtime: RuntimeHandle,
    answer: Option<Answer>,
}

type Answer = Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>;

impl Resolving {
    /// Has `answer` called with what is found.
    pub fn new(
        runtime: RuntimeHandle,
        answer: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static,
    ) -> Resolving {
        Resolving { runtime, answer: Some(Box::new(answer)) }
    }

    /// The runtime on which the request runs.
    pub fn runtime(&self) -> &RuntimeHandle {
        &self.runtime
    }

    /// What was found. No address at all is an error.
    pub fn answer(mut self, found: io::Result<Vec<SocketAddr>>) {
        let found = match found {
            Ok(addresses) if addresses.is_empty() => Err(io::ErrorKind::NotFound.into()),
            found => found,
        };
        if let Some(answer) = self.answer.take() {
            answer(found);
        }
    }
}

impl Drop for Resolving {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer(Err(io::Error::other(
                "the name was not resolved: too many wait, or the resolver gave up",
            )));
        }
    }
}

impl fmt::Debug for Resolving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolving").finish_non_exhaustive()
    }
}

/// Asks the C library (`getaddrinfo`), on the runtime's threads for what blocks. Remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16, resolving: Resolving) {
        let host = String::from(host);
        let runtime = resolving.runtime().clone();
        // When there is no room the job is dropped, and says so.
        let _ = runtime.offload().submit(Box::new(move || {
            let found = (host.as_str(), port).to_socket_addrs();
            resolving.answer(found.map(Iterator::collect));
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;

    #[test]
    fn names_are_found_and_failures_said() {
        let runtime = Runtime::new().unwrap();
        let ask = |host: &str| {
            let (tell, told) = mpsc::channel();
            let resolving = Resolving::new(runtime.handle(), move |found| tell.send(found).unwrap());
            SystemResolver.resolve(host, 80, resolving);
            told.recv_timeout(Duration::from_secs(20)).unwrap()
        };
        assert_eq!(ask("127.0.0.1").unwrap(), [SocketAddr::from(([127, 0, 0, 1], 80))]);
        assert!(ask("no such host").is_err());
    }

    #[test]
    fn who_is_dropped_has_failed() {
        let runtime = Runtime::new().unwrap();
        let (tell, told) = mpsc::channel();
        drop(Resolving::new(runtime.handle(), move |found| tell.send(found).unwrap()));
        assert!(told.recv().unwrap().is_err());
    }
}
