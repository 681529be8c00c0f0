//! A server of bytes: a line with a number is answered with so many bytes, at a rate.
//!
//! `cargo run -p tidegate-poller --example fountain`, then in bash, from another terminal:
//! `exec 3<>/dev/tcp/127.0.0.1/7007; echo 300000 >&3; head -c 300000 <&3 | wc -c`
//!
//! `docs/tutorial/02-embed-the-poller.md` explains it step by step.

mod help;

use std::io;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use tidegate_poller::{
    Acceptor, Admission, Budget, ConnectionRecord, Direction, Edge, End, Io, Limit, Mark, Passed, Peer,
    Poller, PollerSettings, Pull, Reason, Session, Source, Sums,
};

/// Bytes per second of each connection, and of all together.
const EACH: u64 = 100_000;
const TOTAL: u64 = 250_000;
/// Digits of the longest number that is understood.
const DIGITS_MAX: usize = 12;
/// How long a client may take nothing of what could go.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// What connections spend through. Both are handles: a clone is the same budget.
#[derive(Clone)]
struct Rates {
    each: Limit,
    total: Budget,
}

/// One connection.
struct Fountain {
    rates: Rates,
    /// What arrived and is not used yet: at most one read's worth, for nothing is read during an answer.
    input: Vec<u8>,
    answers: u64,
    /// The sums when the gate reached the answer under way.
    begun: Option<Sums>,
    answering: bool,
}

impl Session for Fountain {
    fn opened(&mut self, io: &mut Io<'_>) {
        io.set_limit(Direction::Egress, Some(&self.rates.each));
        io.spend_through(Direction::Egress, &self.rates.total, 1);
        io.set_send_timeout(Some(SEND_TIMEOUT));
    }

    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.answer_next(io);
    }

    fn passed(&mut self, io: &mut Io<'_>, mark: Passed) {
        match mark.edge {
            Edge::Begin { .. } => self.begun = Some(mark.sums),
            Edge::End => {
                if let Some(begun) = self.begun.take() {
                    let throttled = mark.sums.pauses.throttled_ns - begun.pauses.throttled_ns;
                    println!(
                        "  {}: answer {}: {} bytes, throttled {} ms",
                        io.peer(),
                        mark.id,
                        mark.sums.plain_out - begun.plain_out,
                        throttled / 1_000_000,
                    );
                }
                self.answering = false;
                io.resume_reading();
                self.answer_next(io);
            }
        }
    }

    fn phase(&self) -> &'static str {
        if self.answering { "answer" } else { "idle" }
    }

    fn closed(self: Box<Self>, record: ConnectionRecord) {
        report(&record);
    }
}

impl Fountain {
    /// Takes the next line, if it is here, and queues its answer between two marks.
    fn answer_next(&mut self, io: &mut Io<'_>) {
        if self.answering {
            return;
        }
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
            if self.input.len() > DIGITS_MAX {
                io.finish(End::local(Reason::ProtocolError));
            }
            return;
        };
        let number = str::from_utf8(&self.input[..end]).ok().and_then(|line| line.trim().parse().ok());
        self.input.drain(..=end);
        let Some(bytes) = number else {
            io.send("not a number\n");
            return io.finish(End::local(Reason::ProtocolError));
        };
        self.answers += 1;
        self.answering = true;
        io.pause_reading();
        io.mark(Mark { id: self.answers, edge: Edge::Begin { free: 0 } });
        io.send_source(Box::new(Water { left: bytes }));
        io.mark(Mark { id: self.answers, edge: Edge::End });
    }
}

/// Bytes that are made when the gate has room for them.
struct Water {
    left: u64,
}

impl Source for Water {
    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let count = self.left.min(max as u64);
        out.resize(count as usize, b'~');
        self.left -= count;
        if self.left == 0 { Pull::End } else { Pull::More }
    }
}

/// Lets everybody in.
struct Door(Rates);

impl Acceptor for Door {
    fn accept(&mut self, _peer: &Peer) -> Admission {
        Admission::Admit(Box::new(Fountain {
            rates: self.0.clone(),
            input: Vec::new(),
            answers: 0,
            begun: None,
            answering: false,
        }))
    }

    fn refused(&mut self, record: ConnectionRecord) {
        report(&record);
    }
}

fn report(record: &ConnectionRecord) {
    println!(
        "{}: {} bytes in, {} out, {} dropped in {:.1} s; throttled {} ms in {} pauses, blocked {} ms; \
         ended by the {}, phase {}: {}",
        record.peer,
        record.wire_in,
        record.wire_out,
        record.dropped_out,
        record.duration.as_secs_f64(),
        record.pauses.throttled_ns / 1_000_000,
        record.pauses.throttle_count,
        record.pauses.blocked_ns / 1_000_000,
        record.end_who(),
        record.phase,
        record.end.reason.as_str(),
    );
}

fn main() -> io::Result<()> {
    if help::is_asked(include_str!("fountain.rs")) {
        return Ok(());
    }
    let rates =
        Rates { each: Limit::new("each", Some(EACH)), total: Budget::builder("total").rate(TOTAL).build() };
    let listener = TcpListener::bind("127.0.0.1:7007")?;
    println!("listening on {}; Enter stops", listener.local_addr()?);

    let mut poller = Poller::new(PollerSettings::default())?;
    poller.listen(listener, Box::new(Door(rates)))?;
    let handle = poller.handle();
    thread::spawn(move || {
        // A line or the end of the input: both mean stop.
        let _ = io::stdin().read_line(&mut String::new());
        handle.shutdown(Duration::from_secs(5));
    });
    poller.run()
}
