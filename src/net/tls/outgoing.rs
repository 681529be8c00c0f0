//! The way out: records made of the program's bytes, and what rustls itself has to say.
//!
//! Records are made in the poller's scratch, up to four at a time, and written from there with one call. What the kernel
//! or the allowance leaves waits here and goes first the next time. The program's bytes are its own until their record
//! has gone, so that a ledger counts, and a mark passes, what really went.

use std::io::{self, IoSlice};

use rustls::Error;
use rustls::unbuffered::{ConnectionState, EncryptError, UnbufferedStatus, WriteTraffic};
use tidegate_poller::transport::Wrote;
use tidegate_poller::{Buffers, Plain};

use super::records::{BATCH_RECORDS, Batch, Overhead, RECORD_BYTES};
use super::side::Side;

/// Room in the scratch for the records of a batch, what they add to what they hold, and a message that rustls may put
/// before them.
const BATCH_BYTES: usize = BATCH_RECORDS * RECORD_BYTES + 1024;

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// What waits for the kernel, and how much of it has gone.
    waiting: Vec<u8>,
    gone: usize,
    batch: Batch,
}

impl Outgoing {
    /// Bytes that wait for the kernel.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() - self.gone
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// Bytes of the program that are in records which have not gone; the first of the next offer.
    pub(super) fn in_flight(&self) -> usize {
        self.batch.in_flight()
    }

    /// The type of the record that came to wait after so many bytes waited.
    pub(super) fn kind_of_what_waits_after(&self, waiting: usize) -> Option<u8> {
        self.waiting.get(self.gone + waiting).copied()
    }

    /// Has `words` wait, behind everything else.
    pub(super) fn say(&mut self, words: &[u8]) {
        self.waiting.extend_from_slice(words);
    }

    /// Gives up what waits: there is nobody to read it.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.gone = 0;
    }

    /// Writes what waits, at most `room` bytes.
    pub(super) fn flush(
        &mut self,
        plain: &mut Plain,
        room: u64,
        more: bool,
        buffers: &mut Buffers,
        wrote: &mut Wrote,
    ) -> io::Result<()> {
        if !self.is_waiting() {
            return Ok(());
        }
        let rest = &self.waiting[self.gone..];
        let cut = rest.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let went = put(plain, &rest[..cut], more, wrote)?;
        self.gone += went;
        wrote.plain += self.batch.went(went) as u64;
        if !self.is_waiting() {
            self.gone = 0;
            buffers.give(std::mem::take(&mut self.waiting));
        }
        Ok(())
    }

    /// Makes records in the scratch of what is offered, with nothing waiting. Returns how many bytes they are; none if
    /// rustls had something to say, which waits now and goes first. `part` is the part of a record that came in.
    pub(super) fn make_records<S: Side>(
        &mut self,
        side: &mut S,
        part: &mut Vec<u8>,
        offer: &mut Offer<'_>,
        room: u64,
        overhead: Overhead,
        buffers: &mut Buffers,
    ) -> Result<usize, Error> {
        let (records, gather) = buffers.scratch(BATCH_BYTES + RECORD_BYTES).split_at_mut(BATCH_BYTES);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let made = self.with_traffic(side, part, records, |traffic, records| {
            fill(traffic, offer, room, overhead, records, gather)
        })?;
        let Some((plain, made)) = made else { return Ok(0) };
        self.batch = Batch::new(plain, made, overhead);
        Ok(made)
    }

    /// Writes the records just made, at most `room` bytes of them; keeps what is left.
    pub(super) fn write_made(
        &mut self,
        plain: &mut Plain,
        made: usize,
        room: u64,
        more: bool,
        buffers: &mut Buffers,
        wrote: &mut Wrote,
    ) -> io::Result<()> {
        let cut = made.min(usize::try_from(room).unwrap_or(usize::MAX));
        let went = put(plain, &buffers.scratch(BATCH_BYTES)[..cut], more, wrote)?;
        if went < made {
            if self.waiting.capacity() == 0 {
                self.waiting = buffers.take();
            }
            self.waiting.extend_from_slice(&buffers.scratch(BATCH_BYTES)[went..made]);
        }
        wrote.plain += self.batch.went(went) as u64;
        Ok(())
    }

    /// Has our close_notify wait.
    pub(super) fn say_goodbye<S: Side>(
        &mut self,
        side: &mut S,
        part: &mut Vec<u8>,
        words: &mut [u8],
    ) -> Result<(), Error> {
        loop {
            let said = self.with_traffic(side, part, words, |traffic, words| {
                traffic.queue_close_notify(words).map_err(error_of)
            })?;
            if let Some(len) = said {
                self.say(&words[..len]);
                return Ok(());
            }
        }
    }

    /// Runs `make` with rustls ready to encrypt; `None` if it had something to say, which waits now.
    fn with_traffic<S: Side, T>(
        &mut self,
        side: &mut S,
        part: &mut Vec<u8>,
        room: &mut [u8],
        make: impl FnOnce(&mut WriteTraffic<'_, S::Data>, &mut [u8]) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut said = false;
        loop {
            let UnbufferedStatus { discard, state } = side.process(part);
            match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    let len = data.encode(room).map_err(|error| Error::General(error.to_string()))?;
                    self.say(&room[..len]);
                    said = true;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(_) if said => return Ok(None),
                ConnectionState::WriteTraffic(mut traffic) => return make(&mut traffic, room).map(Some),
                state => return Err(Error::General(format!("cannot write in state {state:?}"))),
            }
            part.drain(..discard);
        }
    }
}

/// Makes records of what is offered until the batch is full, `room` is used up, or one is not full. Returns how many
/// bytes they hold and how many they are.
fn fill<D>(
    traffic: &mut WriteTraffic<'_, D>,
    offer: &mut Offer<'_>,
    room: usize,
    overhead: Overhead,
    records: &mut [u8],
    gather: &mut [u8],
) -> Result<(usize, usize), Error> {
    let (mut plain, mut made) = (0, 0);
    for record in 0..BATCH_RECORDS {
        let len = overhead.next_record(offer.left, room.saturating_sub(made), record == 0);
        if len == 0 {
            break;
        }
        made += traffic.encrypt(offer.next(len, gather), &mut records[made..]).map_err(error_of)?;
        plain += len;
        if len < RECORD_BYTES {
            break;
        }
    }
    Ok((plain, made))
}

/// Writes `bytes`; says how many went, and books them.
fn put(plain: &mut Plain, bytes: &[u8], more: bool, wrote: &mut Wrote) -> io::Result<usize> {
    match plain.send(&[IoSlice::new(bytes)], more) {
        Ok(went) => {
            wrote.wire += went as u64;
            wrote.full |= went < bytes.len();
            Ok(went)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        // What went before is to be booked; a socket that is done for says so again.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock || wrote.wire > 0 => {
            wrote.full = true;
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

fn error_of(error: EncryptError) -> Error {
    match error {
        EncryptError::EncryptExhausted => Error::EncryptError,
        error => Error::General(error.to_string()),
    }
}

/// What the gate offers, without what is in records already.
pub(super) struct Offer<'a> {
    bufs: &'a [IoSlice<'a>],
    /// How much of the first is taken.
    at: usize,
    left: usize,
}

impl<'a> Offer<'a> {
    pub(super) fn new(bufs: &'a [IoSlice<'a>], in_records: usize) -> Offer<'a> {
        let offered: usize = bufs.iter().map(|slice| slice.len()).sum();
        let mut offer = Offer { bufs, at: 0, left: offered };
        offer.skip(in_records.min(offered));
        offer
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes `len` bytes: where they lie if they lie together, else copied to `gather`.
    fn next<'b>(&mut self, len: usize, gather: &'b mut [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        let bufs = self.bufs;
        if let Some(together) = bufs.first().and_then(|first| first.get(self.at..self.at + len)) {
            self.skip(len);
            return together;
        }
        let mut filled = 0;
        while let Some(first) = self.bufs.first().filter(|_| filled < len) {
            let piece = &first[self.at..];
            let cut = piece.len().min(len - filled);
            gather[filled..filled + cut].copy_from_slice(&piece[..cut]);
            filled += cut;
            self.skip(cut);
        }
        &gather[..filled]
    }

    fn skip(&mut self, mut len: usize) {
        self.left -= len;
        while let Some(first) = self.bufs.first() {
            let rest = first.len() - self.at;
            if len < rest {
                self.at += len;
                return;
            }
            len -= rest;
            self.at = 0;
            self.bufs = &self.bufs[1..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_taken_in_order_whatever_its_pieces() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let all: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
            let mut pieces = Vec::new();
            let mut rest = &all[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.usize(0..=rest.len().min(60)));
                pieces.push(IoSlice::new(piece));
                rest = after;
            }
            let skip = random.usize(0..=all.len() + 5);
            let mut offer = Offer::new(&pieces, skip);
            let mut taken = Vec::new();
            while !offer.is_empty() {
                let len = random.usize(1..=offer.left.min(50));
                taken.extend_from_slice(offer.next(len, &mut [0; 50]));
            }
            assert_eq!(taken, all[skip.min(all.len())..]);
        }
    }
}
