//! Rates changed while bytes flow, on real sockets: no freeze downward, no burst upward, nothing paid back.
//!
//! A limiter that counts since the start of a transfer falls silent for minutes when its rate is lowered. Here the peer
//! stamps every read and looks for the silence. Bounds leave room for a busy machine; the simulation has the tight ones.

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{PATIENCE, Rig, Script};
use tidegate_poller::{Budget, Direction, End, Io, Limit, Reason};

const FAST: u64 = 10_000_000;
const SLOW: u64 = 100_000;

/// Sends without end, spending as `spend` says.
fn flood(spend: impl Fn(&mut Io<'_>) + Send + Clone + 'static) -> Rig {
    let chunk: Arc<[u8]> = vec![9; 256 * 1024].into();
    Rig::start(move || {
        let (spend, chunk, more) = (spend.clone(), chunk.clone(), chunk.clone());
        Script::new()
            .quiet()
            .opened(move |io| {
                spend(io);
                (0..4).for_each(|_| io.send(chunk.clone()));
            })
            .drained(move |io| (0..4).for_each(|_| io.send(more.clone())))
    })
}

/// Reads for `length`; says how many bytes came and the longest silence.
fn listen(peer: &mut TcpStream, length: Duration) -> (u64, Duration) {
    let (start, mut last) = (Instant::now(), Instant::now());
    let (mut bytes, mut silence) = (0, Duration::ZERO);
    let mut buffer = vec![0; 256 * 1024];
    while start.elapsed() < length {
        bytes += peer.read(&mut buffer).expect("bytes keep coming") as u64;
        silence = silence.max(last.elapsed());
        last = Instant::now();
    }
    (bytes, silence)
}

/// Fast, then slow, then fast again.
fn changed(rig: Rig, set_rate: impl Fn(u64)) {
    let mut peer = rig.dial();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let (bytes, _) = listen(&mut peer, Duration::from_millis(1_500));
    assert!((FAST..2 * FAST).contains(&bytes), "{bytes} in 1.5 s at 10 MB/s");

    set_rate(SLOW);
    // What was on its way when the rate fell: an interval of the old rate at the most, and what the kernel held.
    listen(&mut peer, Duration::from_millis(100));
    let (bytes, silence) = listen(&mut peer, Duration::from_secs(2));
    assert!(silence < Duration::from_millis(250), "silent for {silence:?} after the rate was lowered");
    assert!((160_000..240_000).contains(&bytes), "{bytes} in 2 s at 100 kB/s");

    set_rate(FAST);
    let (bytes, _) = listen(&mut peer, Duration::from_millis(500));
    assert!((FAST / 4..FAST * 7 / 10).contains(&bytes), "{bytes} in 0.5 s after the rate was raised");
    drop(peer);
    let mut rig = rig;
    let record = rig.record();
    assert_eq!(record.end, End::peer(Reason::Abort), "{record:?}");
    rig.stop_clean();
}

#[test]
fn a_limit_follows_without_freeze_or_burst() {
    let limit = Limit::new("each", Some(FAST));
    let given = limit.clone();
    changed(flood(move |io| io.set_limit(Direction::Egress, Some(&given))), |rate| {
        limit.set_rate(Some(rate))
    });
}

#[test]
fn a_shared_budget_follows_without_freeze_or_burst() {
    let total = Budget::builder("total").rate(FAST).build();
    let client = Budget::builder("client").parent(&total).build();
    let rig = flood(move |io| {
        io.spend_through(Direction::Egress, &client, 1);
    });
    changed(rig, |rate| total.set_rate(Some(rate)));
}
