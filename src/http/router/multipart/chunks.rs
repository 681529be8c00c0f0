//! A request's body as the stream that the parser reads.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tidegate_poller::Chunk;

use crate::http::body::{BodyError, BodyReader, Held, RequestBody};
use crate::runtime::RuntimeHandle;
use crate::task::TaskHandle;

/// Hands on a body piece by piece, one each time it is looked at: the parser takes what it can get before it hands on
/// anything itself, and would hold a fast client's body whole.
pub(super) struct Chunks {
    body: RequestBody,
    runtime: RuntimeHandle,
    next: Option<TaskHandle<Result<Option<Chunk>, BodyError>>>,
    /// What counts a body that was here from the first: the parser has its bytes, or parts of them.
    whole: Held,
    /// Something was handed on: the parser is to use it first.
    served: bool,
    allowance: Allowance,
}

/// How many bytes may still be handed on while the parser hands on nothing.
#[derive(Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

/// A part's head is a few hundred bytes; what the reading brought at once may come with it.
const HEAD_MAX: usize = 64 * 1024;

/// Why a form is not read further.
#[derive(Debug)]
struct HeadTooLong;

impl Chunks {
    pub(super) fn new(body: RequestBody, runtime: RuntimeHandle, allowance: Allowance) -> Chunks {
        Chunks { body, runtime, next: None, whole: Held::default(), served: false, allowance }
    }

    fn serve(&mut self, chunk: Chunk) -> Poll<Option<Item>> {
        self.served = true;
        if !self.allowance.spend(chunk.len()) {
            return Poll::Ready(Some(Err(Box::new(HeadTooLong))));
        }
        Poll::Ready(Some(Ok(match chunk {
            Chunk::Owned(bytes) => Bytes::from(bytes),
            Chunk::Static(bytes) => Bytes::from_static(bytes),
            shared @ Chunk::Shared(..) => Bytes::copy_from_slice(shared.as_slice()),
        })))
    }
}

type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

impl Stream for Chunks {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        if std::mem::take(&mut self.served) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let this = &mut *self;
        let reader: &BodyReader = match &mut this.body {
            RequestBody::None => return Poll::Ready(None),
            RequestBody::Whole(body) => {
                let (bytes, held) = std::mem::take(body).into_parts();
                this.whole = held;
                this.body = RequestBody::None;
                // It is in memory already, whatever it is.
                this.served = true;
                return Poll::Ready(Some(Ok(bytes.into())));
            }
            RequestBody::Stream(reader) => reader,
        };
        let next = this.next.get_or_insert_with(|| this.runtime.spawn(reader.next()));
        let Poll::Ready(taken) = Pin::new(next).poll(context) else { return Poll::Pending };
        this.next = None;
        match taken.unwrap_or(Err(BodyError::Abandoned)) {
            Ok(Some(chunk)) => this.serve(chunk),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(Box::new(error)))),
        }
    }
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Allowance {
    /// From here on the parser may keep what comes, up to the bound.
    pub(super) fn limit(&self) {
        self.0.store(HEAD_MAX, Ordering::Relaxed);
    }

    /// What comes is handed on.
    pub(super) fn lift(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    /// False where that was too much. One piece is always taken: it is here already.
    fn spend(&self, bytes: usize) -> bool {
        let left = self.0.load(Ordering::Relaxed);
        if left != usize::MAX {
            self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
        left > 0
    }
}

impl fmt::Display for HeadTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the head of a part does not end")
    }
}

impl std::error::Error for HeadTooLong {}
