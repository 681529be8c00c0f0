//! How far the body of a request has gone, for whoever asks.
//!
//! A body in memory or in a file lies in the outbox at once, and goes without a word of the session; but the socket's ledger
//! knows how many bytes went. Where somebody asks, the session looks there from time to time. A stream is counted when it
//! is pulled: the gate pulls when all that it pulled before has gone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_poller::Pull;

use crate::http::Fields;
use crate::http::body::{BodySource, BodyWaker};

/// How many bytes of a request's body have gone. Clones show the same; it can be looked at on any thread, at any time.
///
/// ```no_run
/// use tidegate::http::{self, client::UploadProgress};
/// use tidegate::runtime::Runtime;
///
/// let (runtime, progress) = (Runtime::new()?, UploadProgress::default());
/// let upload = http::post("http://127.0.0.1:8080/in", vec![0; 10 << 20]).upload_progress(&progress);
/// let task = runtime.spawn(upload);
/// println!("{} bytes so far", progress.sent_bytes());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Default)]
pub struct UploadProgress(Arc<Counts>);

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    /// Bytes that there are: all of a body that is there, of a stream those that were pulled.
    there: AtomicU64,
}

/// How often the session looks: as often as a person sees a bar move smoothly. Each time costs a wake-up of its poller, some
/// 10 to 200 µs.
pub(super) const LOOKED_EVERY: Duration = Duration::from_millis(100);

impl UploadProgress {
    /// Bytes of the body that the kernel has taken from us, framing not counted: not those that wait for a rate, or for the
    /// server to take what went before. A tenth of a second old at most; of a stream, 64 KiB behind at most. It starts anew
    /// where the request is sent again.
    pub fn sent_bytes(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// A body is about to go, of which so many bytes are there.
    pub(super) fn begin(&self, there: u64) {
        self.0.there.store(there, Ordering::Relaxed);
        self.set_sent(0);
    }

    /// So many bytes of it have gone.
    pub(super) fn set_sent(&self, bytes: u64) {
        self.0.sent.store(bytes, Ordering::Relaxed);
    }

    /// All of it has gone.
    pub(super) fn end(&self) {
        self.set_sent(self.0.there.load(Ordering::Relaxed));
    }
}

impl fmt::Debug for UploadProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadProgress").field("sent_bytes", &self.sent_bytes()).finish()
    }
}

/// A stream whose bytes are counted.
pub(super) struct Counted {
    source: Box<dyn BodySource>,
    progress: UploadProgress,
}

impl Counted {
    pub(super) fn new(source: Box<dyn BodySource>, progress: &UploadProgress) -> Counted {
        Counted { source, progress: progress.clone() }
    }
}

impl BodySource for Counted {
    fn attach(&mut self, waker: BodyWaker) {
        self.source.attach(waker);
    }

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        // What was pulled before has gone, or there would be no pull.
        self.progress.end();
        let before = out.len();
        let pull = self.source.pull(max, out);
        self.progress.0.there.fetch_add((out.len() - before) as u64, Ordering::Relaxed);
        pull
    }

    fn shutting_down(&mut self) {
        self.source.shutting_down();
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.source.trailers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes so many bytes.
    struct Bytes(usize);

    impl BodySource for Bytes {
        fn attach(&mut self, _: BodyWaker) {}

        fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
            let now = self.0.min(max);
            out.resize(out.len() + now, 0);
            self.0 -= now;
            if self.0 == 0 { Pull::End } else { Pull::More }
        }
    }

    #[test]
    fn a_stream_is_counted_once_its_bytes_have_gone() {
        let progress = UploadProgress::default();
        progress.begin(0);
        let mut counted = Counted::new(Box::new(Bytes(100)), &progress);
        for sent in [0, 40, 80] {
            counted.pull(40, &mut Vec::new());
            assert_eq!(progress.sent_bytes(), sent);
        }
        progress.end();
        assert_eq!(progress.sent_bytes(), 100);
        progress.begin(7);
        assert_eq!(progress.sent_bytes(), 0);
    }
}
