//! The two transports back to back, with no gate between: whatever the allowances, all bytes come.

use std::io::{self, IoSlice};

use tidegate::net::tls::{ClientTls, PeerName, ServerTls};
use tidegate::poller::{Buffers, Plain, Wire};

use crate::pki::Pki;
use crate::poller::pattern;

/// One end: what it has to send, and what came.
struct End {
    wire: Wire,
    buffers: Buffers,
    to_send: Vec<u8>,
    sent: usize,
    came: Vec<u8>,
    wire_out: u64,
    wire_in: u64,
}

impl End {
    fn new(wire: Wire, to_send: Vec<u8>) -> End {
        End { wire, buffers: Buffers::default(), to_send, sent: 0, came: Vec::new(), wire_out: 0, wire_in: 0 }
    }

    /// One write with a random allowance, of random pieces. Says whether anything moved.
    fn write(&mut self, random: &mut fastrand::Rng) -> bool {
        let allowance = allowance(random);
        let rest = match self.wire.is_ready() {
            true => &self.to_send[self.sent..],
            false => &[],
        };
        // What was offered before is offered again, and at least as much: the gate's outbox only grows.
        let offered = &rest[..rest.len().min(100_000)];
        let (front, back) = offered.split_at(random.usize(0..=offered.len().min(40_000)));
        let bufs = [IoSlice::new(front), IoSlice::new(back)];
        match self.wire.get().write(&bufs, allowance, random.bool(), &mut self.buffers) {
            Ok(wrote) => {
                assert!(wrote.wire <= allowance, "{wrote:?} of {allowance}");
                assert!(wrote.plain as usize <= rest.len(), "{wrote:?}");
                self.sent += wrote.plain as usize;
                self.wire_out += wrote.wire;
                wrote.wire > 0
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self, random: &mut fastrand::Rng, buf: &mut [u8]) -> bool {
        let allowance = allowance(random);
        let size = if random.bool() { buf.len() } else { random.usize(1..5_000) };
        match self.wire.get().read(&mut buf[..size], allowance, &mut self.buffers) {
            Ok(received) => {
                assert!(received.wire <= allowance, "{received:?} of {allowance}");
                assert!(!received.eof);
                self.came.extend_from_slice(&buf[..received.plain]);
                self.wire_in += received.wire;
                received.wire > 0 || received.plain > 0
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// One byte to 64 KiB, small ones as likely as large ones.
fn allowance(random: &mut fastrand::Rng) -> u64 {
    let most = 1 << random.u32(0..=16);
    random.u64(1..=most)
}

#[test]
fn all_bytes_arrive_and_no_allowance_is_exceeded_whatever_the_allowances() {
    let pki = Pki::new("transport");
    let identity = pki.server("server", &["localhost"]);
    let server = ServerTls::builder().certificate(identity.chain, identity.key).build().unwrap();
    let client = ClientTls::builder().authorities(pki.ca_pem()).build().unwrap();
    let name = PeerName::new("localhost").unwrap();
    for round in 0..24 {
        let seed = fastrand::u64(..);
        println!("round {round}, seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (here, there) = mio::net::UnixStream::pair().unwrap();
        let len = |random: &mut fastrand::Rng| random.usize(0..400_000);
        let (out, back) = (len(&mut random), len(&mut random));
        let mut ends = [
            End::new(client.transport(Plain::Unix(here), &name), pattern(out, seed)),
            End::new(server.transport(Plain::Unix(there)), pattern(back, seed ^ 1)),
        ];
        run(&mut ends, &mut random);
        let [client, server] = &ends;
        assert!(client.came == server.to_send && server.came == client.to_send);
        assert_eq!((client.wire_out, server.wire_out), (server.wire_in, client.wire_in));
    }
}

fn run(ends: &mut [End; 2], random: &mut fastrand::Rng) {
    let mut buf = vec![0; 64 * 1024];
    let mut idle = 0;
    loop {
        let place = random.usize(0..2);
        let end = &mut ends[place];
        let moved = match random.bool() {
            true => end.write(random),
            false => end.read(random, &mut buf),
        };
        idle = if moved { 0 } else { idle + 1 };
        let lens = [ends[0].to_send.len(), ends[1].to_send.len()];
        if ends[0].came.len() == lens[1] && ends[1].came.len() == lens[0] && idle > 50 {
            return;
        }
        assert!(
            idle < 2_000,
            "stalled: {} of {}, {} of {}",
            ends[0].came.len(),
            lens[1],
            ends[1].came.len(),
            lens[0]
        );
    }
}
