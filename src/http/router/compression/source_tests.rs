use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::http::router::compression::AtWork;

const CODINGS: [Coding; 3] = [Coding::Gzip, Coding::Brotli, Coding::Zstd];

fn permit() -> Permit {
    Permit::take(&Arc::new(AtWork::new(1))).unwrap()
}

fn decoded(coding: Coding, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)?,
        Coding::Brotli => brotli::Decompressor::new(bytes, 4_096).read_to_end(&mut plain)?,
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes)?.read_to_end(&mut plain)?,
    };
    Ok(plain)
}

/// The start of what cannot end yet.
fn decoded_so_far(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut plain = vec![0; 1 << 20];
    let mut reader: Box<dyn io::Read> = match coding {
        Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4_096)),
        Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
    };
    let mut length = 0;
    while let Ok(n @ 1..) = reader.read(&mut plain[length..]) {
        length += n;
    }
    plain.truncate(length);
    plain
}

/// A source that has now something, now nothing.
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    end: Pull,
}

impl BodySource for Pieces {
    fn attach(&mut self, _: BodyWaker) {}

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let Some(piece) = self.pieces.front_mut() else { return self.end };
        let rest = piece.split_off(piece.len().min(max));
        out.append(piece);
        *piece = rest;
        if !piece.is_empty() {
            return Pull::More;
        }
        self.pieces.pop_front();
        Pull::Starved
    }
}

fn words(bytes: usize) -> Vec<u8> {
    b"every byte passes a gate, and ".iter().copied().cycle().take(bytes).collect()
}

#[test]
fn what_is_in_memory_comes_out_as_it_was() {
    for coding in CODINGS {
        for bytes in [1, 1_000, PIECE, 300_000, 1_000_000] {
            let plain = words(bytes);
            for body in [Body::Bytes(plain.clone()), Body::page(plain.clone())] {
                let mut source = encoded(body, coding, permit()).unwrap().into_source();
                let mut out = Vec::new();
                loop {
                    let before = out.len();
                    match source.pull(1_000, &mut out) {
                        Pull::End => break,
                        Pull::More => {
                            assert!(out.len() > before, "more without a byte is as good as nothing")
                        }
                        other => panic!("{other:?}"),
                    }
                    assert!(out.len() - before <= 1_000);
                }
                assert_eq!(source.pull(10, &mut out), Pull::End);
                assert!(decoded(coding, &out).unwrap() == plain, "{coding:?} {bytes}");
            }
        }
    }
}

#[test]
fn what_a_stream_has_given_can_be_read_at_once() {
    for coding in CODINGS {
        let pieces = [b"one".to_vec(), b"two".to_vec(), words(100_000)];
        let input = Pieces { pieces: pieces.clone().into(), end: Pull::End };
        let mut source = encoded(StreamBody::new(input).into(), coding, permit()).unwrap().into_source();
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        for piece in &pieces {
            while source.pull(9_999, &mut out) == Pull::More {
                if decoded_so_far(coding, &out).len() == expected.len() + piece.len() {
                    break;
                }
            }
            expected.extend_from_slice(piece);
            assert!(decoded_so_far(coding, &out) == expected, "{coding:?}");
        }
        while source.pull(9_999, &mut out) == Pull::More {}
        assert!(decoded(coding, &out).unwrap() == expected);
    }
}

#[test]
fn a_stream_that_is_encoded_learns_that_the_server_is_shutting_down() {
    struct Listens(Arc<AtomicBool>);
    impl BodySource for Listens {
        fn attach(&mut self, _: BodyWaker) {}
        fn pull(&mut self, _: usize, _: &mut Vec<u8>) -> Pull {
            Pull::Starved
        }
        fn shutting_down(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let heard = Arc::new(AtomicBool::new(false));
    let body = Body::Stream(StreamBody::new(Listens(heard.clone())));
    encoded(body, Coding::Gzip, permit()).unwrap().into_source().shutting_down();
    assert!(heard.load(Ordering::Relaxed));
}

#[test]
fn what_is_cut_is_not_taken_for_whole() {
    for coding in CODINGS {
        let input = Pieces { pieces: [words(10)].into(), end: Pull::Failed };
        let mut source = encoded(StreamBody::new(input).into(), coding, permit()).unwrap().into_source();
        let mut out = Vec::new();
        let end = loop {
            match source.pull(100, &mut out) {
                Pull::More => {}
                end => break end,
            }
        };
        assert_eq!(end, Pull::Failed);
        assert!(decoded(coding, &out).is_err(), "{coding:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_pieces_and_pulls_give_the_same(
        pieces in proptest::collection::vec(proptest::collection::vec(0..4_u8, 1..40_000), 0..6),
        pulls in proptest::collection::vec(1..5_000_usize, 1..6),
        coding in 0..3_usize,
    ) {
        let (coding, expected) = (CODINGS[coding], pieces.concat());
        let input = Pieces { pieces: pieces.into(), end: Pull::End };
        let mut source = encoded(StreamBody::new(input).into(), coding, permit()).unwrap().into_source();
        let mut out = Vec::new();
        let mut pulls = pulls.into_iter().cycle();
        while source.pull(pulls.next().unwrap(), &mut out) != Pull::End {}
        prop_assert!(decoded(coding, &out).unwrap() == expected);
    }
}
