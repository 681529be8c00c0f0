//! A body that is encoded while it is sent.
//!
//! A body in memory, or a stream, is encoded on the poller, a bounded part for each pull. A file is read and encoded on
//! other threads, since reading may wait for the disk.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tidegate_poller::Pull;

use super::Permit;
use super::encoder::Encoder;
use crate::http::Body;
use crate::http::body::{BodySource, BodyWaker, StreamBody, body_stream};
use crate::http::codec::coding::Coding;
use crate::http::codec::fields::Fields;
use crate::record::EventFacts;
use crate::runtime::RuntimeHandle;
use crate::task::{Dropped, future, read_at};

/// What is encoded for one pull, at most: about 1 ms of the poller's time.
const INPUT_PER_PULL: usize = 64 * 1024;
/// What is asked of a stream at a time.
const PIECE: usize = 16 * 1024;
/// What of a file is read at a time, and how much of it may wait to be sent.
const FILE_PIECE: usize = 64 * 1024;
const FILE_AHEAD: usize = 64 * 1024;

/// A body, encoded. The permit is given back with the last byte of it.
pub(super) fn encoded(body: Body, coding: Coding, permit: Permit) -> io::Result<StreamBody> {
    let input: Box<dyn BodySource> = match body {
        Body::File { file, offset, len, .. } => {
            let range = FileRange { file, offset, left: len };
            return Ok(StreamBody::new(EncodedFile { todo: Some((range, coding, permit)), made: None }));
        }
        Body::Stream(stream) => stream.into_source(),
        Body::Empty => Box::new(InMemory { bytes: Bytes::Static(&[]), at: 0 }),
        Body::Static(bytes) => Box::new(InMemory { bytes: Bytes::Static(bytes), at: 0 }),
        Body::Bytes(bytes) => Box::new(InMemory { bytes: Bytes::Own(bytes), at: 0 }),
        Body::Part { bytes, range } => Box::new(InMemory { bytes: Bytes::Own(bytes[range].to_vec()), at: 0 }),
        Body::Page { bytes, .. } => Box::new(InMemory { bytes: Bytes::Shared(bytes), at: 0 }),
    };
    let encoder = Some(Encoder::new(coding)?);
    Ok(StreamBody::new(Encoded {
        input,
        encoder,
        piece: Vec::new(),
        made: Vec::new(),
        given: 0,
        unflushed: false,
        permit,
    }))
}

/// What a source makes, encoded as it is pulled.
struct Encoded {
    input: Box<dyn BodySource>,
    /// Until the input has ended.
    encoder: Option<Encoder>,
    piece: Vec<u8>,
    /// What was made, and how much of it was given.
    made: Vec<u8>,
    given: usize,
    /// The other end cannot read all that the input has given.
    unflushed: bool,
    #[expect(dead_code, reason = "held, and given back when dropped")]
    permit: Permit,
}

impl BodySource for Encoded {
    fn attach(&mut self, waker: BodyWaker) {
        self.input.attach(waker);
    }

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        if self.given == self.made.len() {
            match self.encode() {
                Ok(pulled) if self.made.is_empty() => return pulled,
                Ok(_) => {}
                Err(error) => {
                    log::error!("a body cannot be encoded: {error}");
                    return Pull::Failed;
                }
            }
        }
        let part = max.min(self.made.len() - self.given);
        out.extend_from_slice(&self.made[self.given..self.given + part]);
        self.given += part;
        let all_given = self.given == self.made.len();
        if all_given && self.encoder.is_none() { Pull::End } else { Pull::More }
    }

    fn shutting_down(&mut self) {
        self.input.shutting_down();
    }

    fn events(&self) -> Option<EventFacts> {
        self.input.events()
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.input.trailers()
    }
}

impl Encoded {
    /// Encodes until something is made, the input has nothing, or it has been enough.
    fn encode(&mut self) -> io::Result<Pull> {
        self.made.clear();
        self.given = 0;
        let mut taken = 0;
        while let Some(encoder) = &mut self.encoder {
            self.piece.clear();
            let pulled = self.input.pull(PIECE, &mut self.piece);
            taken += self.piece.len();
            self.unflushed |= !self.piece.is_empty();
            encoder.write(&self.piece)?;
            match pulled {
                Pull::Failed => return Ok(Pull::Failed),
                Pull::End => break,
                Pull::Starved if !self.unflushed => return Ok(Pull::Starved),
                Pull::More if taken < INPUT_PER_PULL => self.made = encoder.take(),
                // What is here is worth reading now, however little it is; and more without a byte would count as nothing
                // more now.
                Pull::Starved | Pull::More => {
                    encoder.flush()?;
                    self.unflushed = false;
                    self.made = encoder.take();
                }
            }
            if !self.made.is_empty() {
                return Ok(Pull::More);
            }
        }
        if let Some(encoder) = self.encoder.take() {
            self.made = encoder.finish()?;
        }
        Ok(Pull::End)
    }
}

/// A body that is here.
struct InMemory {
    bytes: Bytes,
    at: usize,
}

enum Bytes {
    Static(&'static [u8]),
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl BodySource for InMemory {
    fn attach(&mut self, _: BodyWaker) {}

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let bytes = match &self.bytes {
            Bytes::Static(bytes) => bytes,
            Bytes::Own(bytes) => bytes.as_slice(),
            Bytes::Shared(bytes) => bytes,
        };
        let end = bytes.len().min(self.at + max);
        out.extend_from_slice(&bytes[self.at..end]);
        self.at = end;
        if end == bytes.len() { Pull::End } else { Pull::More }
    }
}

/// A range of a file, encoded elsewhere from when a session has it: to HEAD it never has.
struct EncodedFile {
    todo: Option<(FileRange, Coding, Permit)>,
    made: Option<Box<dyn BodySource>>,
}

struct FileRange {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl BodySource for EncodedFile {
    fn attach(&mut self, waker: BodyWaker) {
        let (Some((range, coding, permit)), Some(runtime)) = (self.todo.take(), RuntimeHandle::of_poller())
        else {
            return;
        };
        let (writer, body) = body_stream(FILE_AHEAD);
        let mut made = body.into_source();
        made.attach(waker);
        self.made = Some(made);
        let here = runtime.clone();
        let encode = future(async move {
            let _permit = permit;
            let sent = encode_file(range, coding, &writer, &here).await;
            match sent {
                Ok(true) => writer.finish(),
                Ok(false) => {}
                // The writer is dropped, which cuts the body.
                Err(error) => log::error!("a file cannot be encoded: {error}"),
            }
        });
        runtime.spawn(encode).detach();
    }

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        self.made.as_mut().map_or(Pull::Failed, |made| made.pull(max, out))
    }
}

/// False: nobody reads any more.
async fn encode_file(
    mut range: FileRange,
    coding: Coding,
    writer: &crate::http::BodyWriter,
    runtime: &RuntimeHandle,
) -> io::Result<bool> {
    let gone = |_: Dropped| io::Error::other("the runtime has ended");
    let mut encoder = Encoder::new(coding)?;
    let mut buffer = Vec::new();
    while range.left > 0 {
        buffer.resize(usize::try_from(range.left).unwrap_or(FILE_PIECE).min(FILE_PIECE), 0);
        let read = runtime.spawn(read_at(range.file.clone(), buffer, range.offset)).await.map_err(gone)?;
        let (count, bytes) = read.map_err(io::Error::from)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut short"));
        }
        encoder.write(&bytes[..count])?;
        (range.offset, range.left, buffer) = (range.offset + count as u64, range.left - count as u64, bytes);
        let made = encoder.take();
        if !made.is_empty() && runtime.spawn(writer.send(made)).await.map_err(gone)?.is_err() {
            return Ok(false);
        }
    }
    Ok(runtime.spawn(writer.send(encoder.finish()?)).await.map_err(gone)?.is_ok())
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
