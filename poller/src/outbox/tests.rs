//! The outbox against a shadow: no byte lost or doubled, marks in order, each once.

use std::fs::File;
use std::sync::Arc;

use super::{Chunk, Edge, Front, Mark, Outbox, Passed, Pull, Source};
use crate::ledger::Sums;
use crate::moment::Moment;

const NOW: Moment = Moment::FIRST;

/// What went on the wire, in pieces that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Byte {
    Memory(u8),
    File(u64),
}

struct Made(u8, usize);

impl Source for Made {
    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let n = self.1.min(max);
        out.resize(n, self.0);
        self.1 -= n;
        if self.1 == 0 { Pull::End } else { Pull::More }
    }
}

/// Takes up to `max` bytes from the front, as the gate does.
fn write(outbox: &mut Outbox, max: u64, passed: &mut Vec<Passed>, wire: &mut Vec<Byte>) {
    let sums = Sums { plain_out: outbox.sent_total(), ..Sums::default() };
    if outbox.at_mark() {
        outbox.reach(NOW, &sums, passed);
    }
    let n = match outbox.front() {
        Front::Empty => return,
        Front::Source => {
            let mut bytes = Vec::new();
            if outbox.front_source().unwrap().pull(max as usize, &mut bytes) == Pull::End {
                outbox.end_source();
            }
            if !bytes.is_empty() {
                outbox.push_front(bytes);
            }
            return;
        }
        Front::File(range) => {
            let n = range.len.min(max);
            wire.extend((range.offset..range.offset + n).map(Byte::File));
            n
        }
        Front::Bytes => {
            let slices = outbox.slices(max);
            assert!(slices.bytes() <= max && slices.bytes() <= outbox.reachable(u64::MAX));
            for slice in slices.iter() {
                wire.extend(slice.iter().map(|byte| Byte::Memory(*byte)));
            }
            slices.bytes()
        }
    };
    assert!(n > 0);
    let sums =
        Sums { plain_out: outbox.sent_total() + n, wire_out: outbox.sent_total() + n, ..Sums::default() };
    outbox.sent(n, NOW, Some(&sums), passed, &mut drop);
}

#[test]
fn random_queues_come_out_as_they_went_in() {
    let seed =
        std::env::var("TIDEGATE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("replay with TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let file = Arc::new(File::open("/dev/null").unwrap());
    for _ in 0..300 {
        let mut outbox = Outbox::default();
        outbox.reset(1_000);
        let (mut expected, mut wire) = (Vec::new(), Vec::new());
        let (mut marks, mut passed) = (Vec::new(), Vec::new());
        for _ in 0..random.usize(1..200) {
            let (value, len) = (random.u8(..), random.usize(0..400));
            match random.u8(0..9) {
                0 => {
                    outbox.push_bytes(Chunk::Owned(vec![value; len]));
                    expected.extend(std::iter::repeat_n(Byte::Memory(value), len));
                }
                1 => {
                    outbox.push_file(file.clone(), u64::from(value), len as u64);
                    expected.extend((u64::from(value)..).take(len).map(Byte::File));
                }
                2 => {
                    outbox.push_source(Box::new(Made(value, len)));
                    expected.extend(std::iter::repeat_n(Byte::Memory(value), len));
                }
                3 => {
                    let edge = match random.u8(0..3) {
                        0 => Edge::Begin { free: 0 },
                        1 => Edge::Begin { free: 10 },
                        _ => Edge::End,
                    };
                    let id = marks.len() as u64;
                    outbox.push_mark(Mark { id, edge });
                    marks.push((id, 1_000 + expected.len() as u64));
                }
                _ => write(&mut outbox, random.u64(1..300), &mut passed, &mut wire),
            }
            assert_eq!(outbox.queued_total(), outbox.sent_total() + outbox.pending());
            assert_eq!(outbox.sent_total(), 1_000 + wire.len() as u64);
        }
        while outbox.has_work() {
            write(&mut outbox, random.u64(1..1_000), &mut passed, &mut wire);
        }
        outbox.push_mark(Mark { id: marks.len() as u64, edge: Edge::End });
        marks.push((marks.len() as u64, 1_000 + expected.len() as u64));
        write(&mut outbox, 1, &mut passed, &mut wire);
        assert!(outbox.is_empty() && !outbox.has_marks());
        assert_eq!(wire, expected);
        let told: Vec<_> = passed.iter().map(|passed| (passed.id, passed.offset)).collect();
        assert_eq!(told, marks);
        assert!(passed.iter().all(|passed| passed.sums.plain_out == passed.offset));
    }
}

#[test]
fn what_is_free_begins_at_its_mark_and_not_before() {
    let mut outbox = Outbox::default();
    outbox.push_bytes(Chunk::from("first"));
    outbox.push_mark(Mark { id: 1, edge: Edge::End });
    outbox.push_mark(Mark { id: 2, edge: Edge::Begin { free: 100 } });
    outbox.push_bytes(Chunk::from("second"));
    assert_eq!(outbox.reachable(u64::MAX), 5);
    assert_eq!(outbox.slices(u64::MAX).bytes(), 5);
    let sums = Sums { plain_out: 5, ..Sums::default() };
    let mut passed = Vec::new();
    assert_eq!(outbox.sent(5, NOW, Some(&sums), &mut passed, &mut drop), Some(100));
    assert_eq!(passed.len(), 1);
    assert_eq!(outbox.reachable(u64::MAX), 6);
}

#[test]
fn a_head_knows_that_its_file_follows() {
    let mut outbox = Outbox::default();
    outbox.push_bytes(Chunk::from("head"));
    outbox.push_mark(Mark { id: 1, edge: Edge::End });
    outbox.push_file(Arc::new(File::open("/dev/null").unwrap()), 7, 9);
    assert!(!outbox.slices(4).before_file(), "nothing is left of the allowance for it");
    assert!(outbox.slices(5).before_file());
    assert_eq!(outbox.file_after_bytes().map(|range| (range.offset, range.len)), Some((7, 9)));
    assert_eq!(outbox.clear(), 13);
    assert!(outbox.is_empty());
}
