//! The queue itself.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::ops::Deref;
use std::sync::Arc;

use super::segment::{Owned, Segment};
use super::{Chunk, Edge, FileRange, Mark, Passed, Source};
use crate::ledger::Sums;
use crate::moment::Moment;

/// Most pieces of memory handed to the kernel in one write. Linux takes 1,024; past 64 the cost of the call is
/// all copying, and the array lives on the stack.
pub const MAX_SLICES: usize = 64;

/// A socket's queue of what is still to be written.
///
/// Its account never loses a byte: `queued so far = sent + pending + dropped`.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Front first. Invariant: no zero-length bytes or file range.
    segments: VecDeque<Segment>,
    /// Bytes of the front chunk that have gone. Zero unless the front is `Bytes`.
    front_sent: usize,
    /// Bytes and file bytes still to go; what a source will make is not known.
    pending: u64,
    /// Bytes ever queued, pulled ones included, and bytes gone, since the socket opened.
    queued_total: u64,
    sent_total: u64,
    /// Sources and marks in the queue.
    sources: u32,
    marks: u32,
    /// Of the marks, those that are beginnings.
    begins: u32,
    /// Bytes left of those that the last beginning reached made free.
    free: u64,
    /// Beginnings that were reached and wait for the first byte after them.
    begun: Vec<Begun>,
}

/// What is at the front, marks apart.
#[derive(Debug)]
pub enum Front<'a> {
    /// Nothing.
    Empty,
    /// Bytes in memory.
    Bytes,
    /// A range of a file.
    File(&'a FileRange),
    /// A source to pull.
    Source,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    mark: Mark,
    reached: Moment,
    offset: u64,
    sums: Sums,
}

impl Outbox {
    /// Prepares an empty outbox for a socket that has sent `sent_so_far` bytes.
    pub fn reset(&mut self, sent_so_far: u64) {
        debug_assert!(self.is_empty());
        self.free = 0;
        self.queued_total = sent_so_far;
        self.sent_total = sent_so_far;
    }

    /// Queues bytes.
    pub fn push_bytes(&mut self, chunk: Chunk) {
        let len = chunk.len() as u64;
        if len > 0 {
            self.segments.push_back(Segment::Bytes(chunk));
            self.grow(len);
        }
        self.check_invariants();
    }

    /// Queues a range of a file.
    pub fn push_file(&mut self, file: Arc<File>, offset: u64, len: u64) {
        if len > 0 {
            self.segments.push_back(Segment::File(FileRange { file, offset, len }));
            self.grow(len);
        }
        self.check_invariants();
    }

    /// Queues a source.
    pub fn push_source(&mut self, source: Box<dyn Source>) {
        self.segments.push_back(Segment::Source(Owned::new(source)));
        self.sources += 1;
    }

    /// Queues a mark.
    pub fn push_mark(&mut self, mark: Mark) {
        self.segments.push_back(Segment::Mark(mark));
        self.marks += 1;
        self.begins += u32::from(matches!(mark.edge, Edge::Begin { .. }));
    }

    /// Bytes still to go, as far as known.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Bytes that went, over the life of the socket.
    pub fn sent_total(&self) -> u64 {
        self.sent_total
    }

    /// Bytes that were queued, over the life of the socket.
    pub fn queued_total(&self) -> u64 {
        self.queued_total
    }

    /// Whether bytes wait to go, or a source to be pulled.
    pub fn has_work(&self) -> bool {
        self.pending > 0 || self.sources > 0
    }

    /// Whether a source is to be pulled that is not at its end.
    pub fn has_source(&self) -> bool {
        self.sources > 0
    }

    /// Whether nothing is left, no mark either.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.begun.is_empty()
    }

    /// Whether there are marks to be passed, so that sums are worth taking.
    pub fn has_marks(&self) -> bool {
        self.marks > 0 || !self.begun.is_empty()
    }

    /// Whether a mark is at the very front, so that [`Outbox::reach`] has something to do.
    pub fn at_mark(&self) -> bool {
        matches!(self.segments.front(), Some(Segment::Mark(_)))
    }

    /// Takes the marks at the front: everything before them has gone. Ends are passed at once; beginnings wait
    /// for their first byte. Returns the free bytes of the last beginning reached, if one was.
    pub fn reach(&mut self, now: Moment, sums: &Sums, passed: &mut Vec<Passed>) -> Option<u64> {
        let mut begun_free = None;
        while let Some(Segment::Mark(mark)) = self.segments.front() {
            let mark = *mark;
            self.segments.pop_front();
            self.marks -= 1;
            let here = Begun { mark, reached: now, offset: self.sent_total, sums: *sums };
            match mark.edge {
                Edge::Begin { free } => {
                    self.begins -= 1;
                    begun_free = Some(free);
                    self.free = free;
                    // Rarely is there more than one; a long reply keeps the room for it as long as it goes.
                    if self.begun.capacity() == 0 {
                        self.begun.reserve_exact(1);
                    }
                    self.begun.push(here);
                }
                Edge::End => {
                    // A beginning with no byte before this end: it is passed with it.
                    self.pass_begun(now, passed);
                    passed.push(here.passed_at(now));
                }
            }
        }
        self.check_invariants();
        begun_free
    }

    /// What is at the front. Marks at the front must have been [reached](Outbox::reach).
    pub fn front(&self) -> Front<'_> {
        match self.segments.front() {
            None => Front::Empty,
            Some(Segment::Bytes(_)) => Front::Bytes,
            Some(Segment::File(range)) => Front::File(range),
            Some(Segment::Source(_)) => Front::Source,
            Some(Segment::Mark(_)) => {
                debug_assert!(false, "marks at the front are reached before anything is sent");
                Front::Empty
            }
        }
    }

    /// How many known bytes may be asked for at once: all that are pending up to a source, or up to the next beginning
    /// if it has free bytes (what is free begins there, not before) or the exchange before it has some left (they are
    /// not the next one's).
    pub fn reachable(&self, at_most: u64) -> u64 {
        if self.begins == 0 && self.sources == 0 {
            return self.pending.min(at_most);
        }
        let mut sum = 0;
        // More segments than one write takes need not be counted.
        for segment in self.segments.iter().take(2 * MAX_SLICES) {
            match segment {
                Segment::Bytes(chunk) => sum += chunk.len() as u64,
                Segment::File(range) => sum += range.len,
                Segment::Source(_) => break,
                Segment::Mark(mark) if self.parts(mark) => break,
                Segment::Mark(_) => {}
            }
            if sum.saturating_sub(self.front_sent as u64) >= at_most {
                return at_most;
            }
        }
        sum.saturating_sub(self.front_sent as u64).min(at_most)
    }

    /// The bytes at the front, cut to `max`, where they are all that is queued, marks apart: what a small reply is.
    pub fn only_bytes(&self, max: u64) -> Option<&[u8]> {
        if self.segments.len() != 1 + self.marks as usize {
            return None;
        }
        match self.segments.front() {
            Some(Segment::Bytes(chunk)) => {
                let bytes = &chunk.as_slice()[self.front_sent..];
                Some(&bytes[..bytes.len().min(usize::try_from(max).unwrap_or(usize::MAX))])
            }
            _ => None,
        }
    }

    /// The bytes at the front, cut to `max`, at most [`MAX_SLICES`] pieces.
    pub fn slices(&self, max: u64) -> Slices<'_> {
        let mut slices =
            Slices { list: [IoSlice::new(&[]); MAX_SLICES], used: 0, bytes: 0, before_file: false };
        let mut skip = self.front_sent;
        for segment in &self.segments {
            match segment {
                Segment::Bytes(chunk) => {
                    let room = max - slices.bytes;
                    if room == 0 || slices.used == MAX_SLICES {
                        break;
                    }
                    let bytes = &chunk.as_slice()[skip..];
                    skip = 0;
                    let cut = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
                    slices.list[slices.used] = IoSlice::new(&bytes[..cut]);
                    slices.used += 1;
                    slices.bytes += cut as u64;
                    if cut < bytes.len() {
                        break;
                    }
                }
                Segment::Source(_) => break,
                Segment::Mark(mark) if self.parts(mark) => break,
                Segment::Mark(_) => {}
                Segment::File(_) => {
                    slices.before_file = slices.bytes < max;
                    break;
                }
            }
        }
        slices
    }

    /// Whether nothing but marks follows these bytes at the front.
    pub fn is_last(&self, bytes: u64) -> bool {
        bytes == self.pending && self.sources == 0
    }

    /// The file range that directly follows the bytes at the front, if one does.
    pub fn file_after_bytes(&self) -> Option<&FileRange> {
        self.segments.iter().find_map(|segment| match segment {
            Segment::File(range) => Some(Some(range)),
            Segment::Source(_) => Some(None),
            Segment::Bytes(_) | Segment::Mark(_) => None,
        })?
    }

    /// Records that the kernel took `n` bytes from the front, and the marks this passes. `sums` are the
    /// ledger's after them. `recycle` gets owned buffers that are spent. Returns as [`Outbox::reach`] does.
    pub fn sent(
        &mut self,
        n: u64,
        now: Moment,
        sums: Option<&Sums>,
        passed: &mut Vec<Passed>,
        recycle: &mut impl FnMut(Vec<u8>),
    ) -> Option<u64> {
        if n == 0 {
            return None;
        }
        debug_assert!(n <= self.pending);
        self.pass_begun(now, passed);
        let mut begun_free = None;
        let mut rest = n;
        while rest > 0 {
            let gone = match self.segments.front_mut() {
                Some(Segment::Bytes(chunk)) => {
                    let left = (chunk.len() - self.front_sent) as u64;
                    if rest < left {
                        self.front_sent += rest as usize;
                        self.advance(rest);
                        break;
                    }
                    self.front_sent = 0;
                    left
                }
                Some(Segment::File(range)) => {
                    if rest < range.len {
                        range.offset += rest;
                        range.len -= rest;
                        self.advance(rest);
                        break;
                    }
                    range.len
                }
                Some(Segment::Mark(_)) => {
                    let mut here = sums.copied().unwrap_or_default();
                    // The sums were taken after the whole write; at this mark, the rest of it had not gone.
                    here.plain_out -= rest;
                    here.wire_out -= rest.min(here.wire_out);
                    begun_free = self.reach(now, &here, passed).or(begun_free);
                    self.pass_begun(now, passed);
                    continue;
                }
                Some(Segment::Source(_)) | None => unreachable!("more was sent than was queued"),
            };
            self.advance(gone);
            rest -= gone;
            if let Some(Segment::Bytes(Chunk::Owned(buffer))) = self.segments.pop_front() {
                recycle(buffer);
            }
        }
        if let Some(sums) = sums
            && self.at_mark()
        {
            begun_free = self.reach(now, sums, passed).or(begun_free);
        }
        self.check_invariants();
        begun_free
    }

    /// Lends the source at the front.
    pub fn front_source(&mut self) -> Option<&mut dyn Source> {
        match self.segments.front_mut() {
            Some(Segment::Source(source)) => source.get(),
            _ => None,
        }
    }

    /// Puts what a source, or a file read by hand, gave in front of it.
    pub fn push_front(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.front_sent == 0 && !bytes.is_empty());
        let len = bytes.len() as u64;
        self.segments.push_front(Segment::Bytes(Chunk::Owned(bytes)));
        self.grow(len);
        self.check_invariants();
    }

    /// Drops the source at the front: it is at its end.
    pub fn end_source(&mut self) {
        if let Some(Segment::Source(_)) = self.segments.front() {
            self.segments.pop_front();
            self.sources -= 1;
        }
    }

    /// Replaces the first bytes of the file range at the front by the same bytes, read into memory.
    pub fn replace_file_bytes(&mut self, bytes: Vec<u8>) {
        let len = bytes.len() as u64;
        let Some(Segment::File(range)) = self.segments.front_mut() else {
            unreachable!("called with a file range at the front");
        };
        debug_assert!(0 < len && len <= range.len);
        range.offset += len;
        range.len -= len;
        if range.len == 0 {
            self.segments.pop_front();
        }
        self.segments.push_front(Segment::Bytes(Chunk::Owned(bytes)));
        self.check_invariants();
    }

    /// Replaces the first bytes of the [file range after the bytes at the front](Outbox::file_after_bytes) by the same
    /// bytes, read into memory.
    pub fn replace_file_bytes_behind(&mut self, bytes: Vec<u8>) {
        let len = bytes.len() as u64;
        let place = self.segments.iter().position(|segment| matches!(segment, Segment::File(_)));
        let Some((place, Segment::File(range))) = place.and_then(|at| Some((at, self.segments.get_mut(at)?)))
        else {
            unreachable!("called with a file range behind the bytes");
        };
        debug_assert!(0 < len && len <= range.len);
        range.offset += len;
        range.len -= len;
        if range.len == 0 {
            self.segments.remove(place);
        }
        self.segments.insert(place, Segment::Bytes(Chunk::Owned(bytes)));
        self.check_invariants();
    }

    /// Drops everything. Returns how many bytes were pending.
    pub fn clear(&mut self) -> u64 {
        let dropped = self.pending;
        self.segments.clear();
        self.begun.clear();
        self.front_sent = 0;
        self.pending = 0;
        self.free = 0;
        self.sources = 0;
        self.marks = 0;
        self.begins = 0;
        dropped
    }

    /// Gives back memory while a source has nothing, which may be for days: what it gives next is one segment more.
    pub fn settle_down(&mut self) {
        if self.segments.capacity() > self.segments.len() + 1 {
            self.segments.shrink_to(self.segments.len() + 1);
        }
    }

    /// Gives back memory that a burst of segments left behind, before the outbox waits in a pool.
    pub fn trim(&mut self, segments: usize) {
        if self.segments.capacity() > segments {
            self.segments.shrink_to(segments);
        }
    }

    fn grow(&mut self, len: u64) {
        self.pending += len;
        self.queued_total += len;
    }

    /// Whether what is before the mark must not go together with what follows.
    fn parts(&self, mark: &Mark) -> bool {
        matches!(mark.edge, Edge::Begin { free } if free > 0 || self.free > 0)
    }

    fn advance(&mut self, len: u64) {
        self.free = self.free.saturating_sub(len);
        self.pending -= len;
        self.sent_total += len;
    }

    fn pass_begun(&mut self, now: Moment, passed: &mut Vec<Passed>) {
        if self.begun.is_empty() {
            return;
        }
        passed.extend(self.begun.drain(..).map(|begun| begun.passed_at(now)));
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.queued_total, self.sent_total + self.pending);
        debug_assert!(self.front_sent == 0 || matches!(self.segments.front(), Some(Segment::Bytes(_))));
        debug_assert!(self.pending > 0 || self.front_sent == 0);
    }
}

impl Begun {
    fn passed_at(self, at: Moment) -> Passed {
        Passed {
            id: self.mark.id,
            edge: self.mark.edge,
            at,
            reached: self.reached,
            offset: self.offset,
            sums: self.sums,
        }
    }
}

/// Pieces of memory to write, on the stack.
#[derive(Debug)]
pub struct Slices<'a> {
    list: [IoSlice<'a>; MAX_SLICES],
    used: usize,
    bytes: u64,
    before_file: bool,
}

impl Slices<'_> {
    /// How many bytes they are together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a file range follows at once, with some of the maximum left for it.
    pub fn before_file(&self) -> bool {
        self.before_file
    }
}

impl<'a> Deref for Slices<'a> {
    type Target = [IoSlice<'a>];

    fn deref(&self) -> &[IoSlice<'a>] {
        &self.list[..self.used]
    }
}
