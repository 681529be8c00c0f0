//! Sorts numbers on all computing threads.
//!
//! The numbers are cut into parts that are sorted side by side; then pairs of sorted parts are merged side by side,
//! until one is left. The parts are the context of a series: each round puts the next one in front of it.
//!
//! ```text
//! cargo run --release --example sort            a million numbers
//! cargo run --release --example sort -- 5000    so many
//! ```

mod help;

use std::thread;
use std::time::Instant;

use tidegate::runtime::Runtime;
use tidegate::task::{Dropped, Error, Parallel, Series, go};

type Numbers = Vec<u64>;

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("sort.rs")) {
        return Ok(());
    }
    let count = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let numbers = random(count);
    let parts = thread::available_parallelism()?.get().next_power_of_two();
    let runtime = Runtime::new()?;
    let started = Instant::now();

    let size = numbers.len().div_ceil(parts).max(1);
    let sorting: Parallel<_> = numbers
        .chunks(size)
        .map(|part| {
            let mut part = part.to_vec();
            go(move || {
                part.sort_unstable();
                part
            })
        })
        .collect();
    let series = Series::new(Vec::new()).then(sorting, next_round);
    let mut sorted = runtime.run(series)?.into_result()?;

    let sorted = sorted.pop().unwrap_or_default();
    println!("sorted {} numbers in {parts} parts, {:?}", sorted.len(), started.elapsed());
    println!("in order: {}", sorted.is_sorted() && sorted.len() == count);
    Ok(())
}

/// Takes over what the last round made, and merges each two.
fn next_round(done: Vec<Result<Numbers, Dropped>>, series: &mut Series<Vec<Numbers>>) -> Result<(), Error> {
    let mut parts = done.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter();
    if parts.len() <= 1 {
        series.context.extend(parts);
        return Ok(());
    }
    let mut merging = Parallel::new();
    while let Some(one) = parts.next() {
        let other = parts.next().unwrap_or_default();
        merging.push(go(move || merge(one, other)));
    }
    series.push_front(merging, next_round);
    Ok(())
}

fn merge(one: Numbers, other: Numbers) -> Numbers {
    let mut merged = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    while let (Some(a), Some(b)) = (one.peek(), other.peek()) {
        merged.extend(if a <= b { one.next() } else { other.next() });
    }
    merged.extend(one.chain(other));
    merged
}

/// The same ones each time.
fn random(count: usize) -> Numbers {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).take(count).collect()
}
