//! How big a TLS record is, and how many go into an allowance.
//!
//! Pure arithmetic. A record is as big as the allowance lets it be, so that a paced connection needs nothing of the next
//! quantum to finish it, but not absurdly small: each costs its head and tag, and the other end cannot use it before it
//! is complete.

use rustls::{CommonState, ProtocolVersion};

/// The most that a record holds (RFC 8446, 5.1).
pub(super) const RECORD_BYTES: usize = 16 * 1024;
/// The least that a record is made to hold while there is more: 2 % of it are head and tag then. Smaller allowances get
/// it in parts.
const SMALL_RECORD_BYTES: usize = 1024;
/// Most records made at a time, and written with one call: as much as is read from a file at a time.
pub(super) const BATCH_RECORDS: usize = 4;

/// What a record adds to what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overhead(u8);

impl Overhead {
    /// A record of RFC 8446, 5.2: header, type, tag.
    const TLS13: Overhead = Overhead(5 + 1 + 16);
    /// Of RFC 5288, 3: header, explicit nonce, tag.
    const TLS12_GCM: Overhead = Overhead(5 + 8 + 16);
    /// Of RFC 7905, 2: header, tag.
    const TLS12_CHACHA: Overhead = Overhead(5 + 16);

    pub(super) fn of(common: &CommonState) -> Overhead {
        let chacha = common
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .is_some_and(|name| name.contains("CHACHA20"));
        match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) if chacha => Overhead::TLS12_CHACHA,
            Some(ProtocolVersion::TLSv1_2) => Overhead::TLS12_GCM,
            _ => Overhead::TLS13,
        }
    }

    pub(super) fn bytes(self) -> usize {
        usize::from(self.0)
    }

    /// What a full record is on the wire.
    pub(super) fn full_record(self) -> usize {
        RECORD_BYTES + self.bytes()
    }

    /// What `plain` bytes are on the wire, in records as full as can be.
    pub(super) fn wire_bytes(self, plain: u64) -> u64 {
        plain.saturating_add(plain.div_ceil(RECORD_BYTES as u64).saturating_mul(self.bytes() as u64))
    }

    /// How many bytes fill the records that go into `wire`; at least those of a small record.
    pub(super) fn plain_bytes(self, wire: u64) -> u64 {
        let full = self.full_record() as u64;
        let rest = (wire % full).saturating_sub(self.bytes() as u64);
        let rest = if wire >= full && rest < SMALL_RECORD_BYTES as u64 { 0 } else { rest };
        (wire / full * RECORD_BYTES as u64 + rest).max(SMALL_RECORD_BYTES as u64)
    }

    /// How much the next record holds of `left` bytes, with `room` left of the allowance: zero if there is not enough
    /// for one that is worth its while and it need not be made now.
    pub(super) fn next_record(self, left: usize, room: usize, first: bool) -> usize {
        let fits = room.saturating_sub(self.bytes());
        let most = left.min(RECORD_BYTES);
        match fits >= most.min(SMALL_RECORD_BYTES) {
            true => most.min(fits),
            false if first => most.min(SMALL_RECORD_BYTES),
            false => 0,
        }
    }
}

/// Records that were made and have not all gone. Their bytes are the program's until they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// What the records hold, and what was said to be done with of that.
    plain: usize,
    settled: usize,
    /// Their bytes on the wire, and what has gone of them.
    wire: usize,
    gone: usize,
    /// The size of each but the last; `None` where something lies between them.
    each: Option<usize>,
}

impl Batch {
    pub(super) fn new(plain: usize, wire: usize, overhead: Overhead) -> Batch {
        let expected = overhead.wire_bytes(plain as u64) == wire as u64;
        let each = expected.then(|| overhead.full_record());
        Batch { plain, settled: 0, wire, gone: 0, each }
    }

    /// Bytes of the program that records hold and that are not done with.
    pub(super) fn in_flight(&self) -> usize {
        self.plain - self.settled
    }

    /// `wire` bytes went, the batch's first. Returns how many of the program's are done with by that.
    pub(super) fn went(&mut self, wire: usize) -> usize {
        self.gone = (self.gone + wire).min(self.wire);
        let whole = match self.each {
            _ if self.gone == self.wire => self.plain,
            Some(each) => (self.gone / each * RECORD_BYTES).min(self.plain),
            None => 0,
        };
        let done = whole.saturating_sub(self.settled);
        self.settled += done;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERHEAD: Overhead = Overhead::TLS13;

    #[test]
    fn records_fill_the_allowance_and_are_not_absurdly_small() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let (left, room) = (random.usize(1..100_000), random.usize(1..70_000));
            let (mut left_now, mut room_now, mut first) = (left, room, true);
            loop {
                let record = OVERHEAD.next_record(left_now, room_now, first);
                assert!(record <= RECORD_BYTES && record <= left_now);
                assert!(!first || record > 0);
                if record == 0 || left_now == record {
                    break;
                }
                assert!(record >= SMALL_RECORD_BYTES, "{left} {room}: {record}");
                assert!(first || record + OVERHEAD.bytes() <= room_now);
                left_now -= record;
                room_now = room_now.saturating_sub(record + OVERHEAD.bytes());
                first = false;
            }
        }
    }

    #[test]
    fn what_is_read_for_an_allowance_goes_within_it() {
        for wire in 1..100_000 {
            let plain = OVERHEAD.plain_bytes(wire);
            let fits = OVERHEAD.wire_bytes(plain) <= wire;
            assert!(fits || plain == SMALL_RECORD_BYTES as u64, "{wire}: {plain}");
        }
    }

    #[test]
    fn bytes_are_done_with_when_their_record_has_gone() {
        let plain = 2 * RECORD_BYTES + 100;
        let wire = OVERHEAD.wire_bytes(plain as u64) as usize;
        let full = OVERHEAD.full_record();
        let mut batch = Batch::new(plain, wire, OVERHEAD);
        assert_eq!(batch.went(full - 1), 0);
        assert_eq!((batch.went(1), batch.in_flight()), (RECORD_BYTES, plain - RECORD_BYTES));
        assert_eq!(batch.went(full + 121), RECORD_BYTES);
        assert_eq!((batch.went(1), batch.in_flight()), (100, 0));
        assert_eq!(batch.went(500), 0, "what follows is not the batch's");
    }

    #[test]
    fn a_batch_with_something_between_is_done_with_as_a_whole() {
        let mut batch = Batch::new(RECORD_BYTES + 5, RECORD_BYTES + 200, OVERHEAD);
        assert_eq!(batch.went(RECORD_BYTES + 199), 0);
        assert_eq!(batch.went(1), RECORD_BYTES + 5);
    }
}
