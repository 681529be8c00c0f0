//! The bodies of the fuzz targets, with their seed corpora and what random changes make of those: what `cargo fuzz` does
//! better, on a compiler that it has to have. See CONTRIBUTING.md.
#![cfg(feature = "sse")]

#[expect(unreachable_pub, reason = "public for the fuzz targets, which are another package")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

/// Runs a target on its seeds and on what becomes of them, for a while.
fn fuzz(name: &str, target: fn(&[u8])) {
    let seed =
        std::env::var("TIDEGATE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(seeds.len() >= 5, "{name} has seeds");
    seeds.iter().for_each(|seed| target(seed));
    let (started, mut rounds) = (Instant::now(), 0);
    while rounds < 2_000 || started.elapsed() < Duration::from_millis(500) {
        rounds += 1;
        let mut bytes = seeds[random.usize(..seeds.len())].clone();
        for _ in 0..random.usize(1..6) {
            change(&mut bytes, &seeds, &mut random);
        }
        target(&bytes);
    }
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(..=bytes.len());
    match random.u8(..6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.u8(..)),
        2 if at < bytes.len() => bytes[at] = random.u8(..),
        3 if at < bytes.len() => drop(bytes.remove(at)),
        4 => {
            let other = &seeds[random.usize(..seeds.len())];
            let from = random.usize(..=other.len());
            bytes.splice(at..at, other[from..].iter().copied());
        }
        _ => {
            const WORDS: [&[u8]; 8] = [b"\r\n", b"\n", b"0", b":", b";", b"%2e", b"/..", b"\r\n\r\n"];
            bytes.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied());
        }
    }
}

#[test]
fn request_heads() {
    fuzz("request", targets::request);
}

#[test]
fn responses() {
    fuzz("response", targets::response);
}

#[test]
fn chunked_bodies() {
    fuzz("chunks", targets::chunks);
}

#[test]
fn paths() {
    fuzz("path", targets::path);
}

#[test]
fn streams_of_events() {
    fuzz("events", targets::events);
}
