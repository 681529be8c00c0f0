//! More and more paced connections with equal bytes a resume: does one resume cost the same?

use std::io;

use super::{Bench, Sample, paced};
use crate::servers::Server;

/// Runs the load once with each number of connections.
pub fn run(
    bench: &Bench,
    server: &Server,
    label: &str,
    counts: &[usize],
    rate: u64,
) -> io::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for &connections in counts {
        let label = format!("{label}, {connections} connections");
        eprint!(" {connections}…");
        samples.extend(paced::run(bench, server, &label, connections, rate, 8)?);
    }
    Ok(samples)
}
