//! One download without a limit: how fast, and for how much CPU.

use std::io;

use super::{BIG, Bench, Sample};
use crate::account::{Account, Memory};
use crate::cases::Measured;
use crate::cases::paced::per_read;
use crate::client::{Client, Discard, Plan, Then};
use crate::figures::Window;
use crate::servers::{Server, Wish};

/// Downloads the file a few times, with a client that copies and with one that discards, in turn.
pub fn run(bench: &Bench, server: &Server, label: &str) -> io::Result<Vec<Sample>> {
    let running = bench.start(server, Wish::default())?;
    let pids = running.processes();
    let mut samples = Vec::new();
    let rounds = if bench.quick { 1 } else { 3 };
    for round in 0..=rounds {
        for (discard, client_does) in
            [(Discard::Copy, "client copies"), (Discard::Truncate, "client discards")]
        {
            let mut client = Client::new()?;
            let plan = Plan {
                to: running.address(),
                connections: 1,
                path: format!("/{}", BIG.0),
                keep_alive: false,
                then: Then::Stay,
                discard,
            };
            let before = Account::read(&pids)?;
            let from = client.now();
            client.open(&plan, true, std::time::Duration::from_secs(60))?;
            let window = Window { from, to: client.now() };
            let spent = Account::read(&pids)?.since(&before, bench.server_cpu, bench.client_cpu);
            let memory = Memory::read(&pids)?;
            let measured = Measured { window, spent, memory, stall: client.longest_stall() };
            let connection = &client.connections()[0];
            let mut figures = measured.figures(connection.body_bytes());
            figures.extend(per_read(&measured, connection.reads()));
            // The first of each is for the memory of the machine to warm up.
            if round > 0 {
                samples.push(Sample { label: format!("{label}, {client_does}"), figures, bins: Vec::new() });
            }
        }
    }
    Ok(samples)
}
