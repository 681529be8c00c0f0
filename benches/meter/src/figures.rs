//! Figures made of time-stamped reads. Pure: no clock, no socket.
//!
//! A *window* is half open: a read at its start belongs to it, a read at its end does not. All times are
//! nanoseconds of one clock.

/// Bytes of a body that one read returned, and when it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// When the read returned.
    pub at: u64,
    /// How many bytes of body it brought.
    pub bytes: u32,
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its start, which belongs to it.
    pub from: u64,
    /// Its end, which does not.
    pub to: u64,
}

impl Window {
    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.to - self.from) as f64 / 1e9
    }

    /// The reads that fall into it.
    pub fn of<'r>(&self, reads: &'r [Read]) -> &'r [Read] {
        let first = reads.partition_point(|read| read.at < self.from);
        let end = reads.partition_point(|read| read.at < self.to);
        &reads[first..end.max(first)]
    }
}

/// All bytes of the reads.
pub fn total(reads: &[Read]) -> u64 {
    reads.iter().map(|read| u64::from(read.bytes)).sum()
}

/// The most bytes in any window of `width` nanoseconds.
pub fn most_in(reads: &[Read], width: u64) -> u64 {
    let (mut first, mut sum, mut most) = (0, 0, 0);
    for last in reads {
        sum += u64::from(last.bytes);
        while last.at - reads[first].at >= width {
            sum -= u64::from(reads[first].bytes);
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

/// Bytes per second as the slope of bytes over time, by least squares over the whole window.
///
/// Where bytes come in portions, bytes over the window depend on whether it just catches one more: the error is one
/// portion. Here a byte weighs the less the nearer it is to an edge, so what falls just in or out does not matter:
/// with k portions in the window the error is some 3/k² in place of 1/k. (The slope of a staircase of bytes comes
/// out as this sum: each byte times a parabola that is 0 at both edges.)
pub fn slope(reads: &[Read], window: Window) -> f64 {
    let half = window.seconds() / 2.0;
    // Folded from 0: the sum of nothing would be -0.
    let weighted = window.of(reads).iter().fold(0.0, |sum, read| {
        let from_middle = (read.at - window.from) as f64 / 1e9 - half;
        sum + f64::from(read.bytes) * (half * half - from_middle * from_middle)
    });
    weighted * 3.0 / (4.0 * half * half * half)
}

/// The longest time within the window in which nothing arrived. What began before the window or ends after it
/// counts with the part that lies inside.
pub fn longest_gap(reads: &[Read], window: Window) -> u64 {
    let mut before = window.from;
    let mut longest = 0;
    for read in window.of(reads) {
        longest = longest.max(read.at - before);
        before = read.at;
    }
    longest.max(window.to - before)
}

/// Jain's index of fairness: 1 when all are equal, 1/n when one has everything.
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// How a figure is spread over connections, or over repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// The spread of some values; all zero when there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Spread {
            min: values.first().copied().unwrap_or_default(),
            p50: percentile(&values, 0.50),
            p99: percentile(&values, 0.99),
            max: values.last().copied().unwrap_or_default(),
        }
    }
}

/// The least value that `part` of all are at most. Nearest rank; of an even number the median is the mean of the
/// middle two. `sorted` must be.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let n = sorted.len();
    if n == 0 {
        return 0.0;
    }
    if part == 0.5 && n.is_multiple_of(2) {
        return (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0;
    }
    let rank = (part * n as f64).ceil() as usize;
    sorted[rank.clamp(1, n) - 1]
}

/// The figures of one paced connection. Bursts are the most bytes in any window of that width over what the rate
/// gives in it: 1.0 is perfectly smooth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paced {
    /// Bytes in the measuring window over what the rate gives in it.
    pub ratio: f64,
    /// Slope of the bytes in the window, over the rate asked for.
    pub slope_ratio: f64,
    /// Burst over 10 ms.
    pub burst_10ms: f64,
    /// Burst over 100 ms.
    pub burst_100ms: f64,
    /// Burst over 1 s.
    pub burst_1s: f64,
    /// Bytes in the first 100 ms, from the first byte of the body on, over what the rate gives in that time.
    pub start_burst: f64,
    /// Longest gap, ns.
    pub gap_ns: u64,
}

impl Paced {
    /// Of the reads of a connection that was asked to go at `rate` bytes per second.
    pub fn of(reads: &[Read], window: Window, rate: f64) -> Paced {
        let inside = window.of(reads);
        let burst = |width: u64| most_in(inside, width) as f64 / (rate * width as f64 / 1e9);
        let start = reads.first().map_or(0, |first| {
            total(Window { from: first.at, to: first.at + 100 * MS }.of(reads)) // not `most_in`: the very first ones
        });
        Paced {
            ratio: total(inside) as f64 / (rate * window.seconds()),
            slope_ratio: slope(inside, window) / rate,
            burst_10ms: burst(10 * MS),
            burst_100ms: burst(100 * MS),
            burst_1s: burst(1000 * MS),
            start_burst: start as f64 / (rate * 0.1),
            gap_ns: longest_gap(reads, window),
        }
    }
}

/// The reads of all connections in the order of time.
pub fn together<'r>(all: impl IntoIterator<Item = &'r [Read]>) -> Vec<Read> {
    let mut reads: Vec<Read> = all.into_iter().flatten().copied().collect();
    reads.sort_by_key(|read| read.at);
    reads
}

/// Bytes in each bin of `width` nanoseconds of the window.
pub fn bins(reads: &[Read], window: Window, width: u64) -> Vec<u64> {
    let mut bins = vec![0; ((window.to - window.from) / width) as usize];
    for read in window.of(reads) {
        if let Some(bin) = bins.get_mut(((read.at - window.from) / width) as usize) {
            *bin += u64::from(read.bytes);
        }
    }
    bins
}

/// A millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn every(ms: u64, bytes: u32, count: u64) -> Vec<Read> {
        (0..count).map(|nth| Read { at: nth * ms * MS, bytes }).collect()
    }

    #[test]
    fn an_even_stream_is_smooth() {
        // 1,000 bytes a 10 ms: 100 kB/s.
        let reads = every(10, 1000, 1000);
        let window = Window { from: 2000 * MS, to: 8000 * MS };
        let paced = Paced::of(&reads, window, 100_000.0);
        assert_eq!(paced.ratio, 1.0);
        assert!((paced.slope_ratio - 1.0).abs() < 1e-5, "{}", paced.slope_ratio);
        assert_eq!(paced.burst_10ms, 1.0);
        assert_eq!(paced.burst_100ms, 1.0);
        assert_eq!(paced.gap_ns, 10 * MS);
        assert_eq!(paced.start_burst, 1.0);
    }

    #[test]
    fn a_saw_tooth_shows() {
        // A second's worth once a second.
        let reads = every(1000, 100_000, 12);
        let paced = Paced::of(&reads, Window { from: 500 * MS, to: 10_500 * MS }, 100_000.0);
        assert_eq!(paced.ratio, 1.0);
        assert_eq!(paced.burst_10ms, 100.0);
        assert_eq!(paced.burst_100ms, 10.0);
        assert_eq!(paced.burst_1s, 1.0);
        assert_eq!(paced.gap_ns, 1000 * MS);
    }

    #[test]
    fn the_window_cuts_portions_and_the_slope_does_not_mind() {
        let reads = every(200, 20_000, 100);
        for shift in 0..20 {
            let from = 1000 * MS + shift * 10 * MS;
            // Ten seconds and a bit: 50 portions, or 51.
            let paced = Paced::of(&reads, Window { from, to: from + 10_100 * MS }, 100_000.0);
            assert!((paced.ratio - 1.0).abs() > 0.009);
            assert!((paced.slope_ratio - 1.0).abs() < 0.0015, "{}", paced.slope_ratio);
        }
    }

    #[test]
    fn silence_up_to_the_end_is_a_gap() {
        let reads = every(10, 1000, 300);
        assert_eq!(longest_gap(&reads, Window { from: 0, to: 9000 * MS }), 9000 * MS - 2990 * MS);
        assert_eq!(longest_gap(&[], Window { from: 5, to: 25 }), 20);
    }

    #[test]
    fn sliding_windows_are_half_open() {
        let reads = every(10, 1, 100);
        assert_eq!(most_in(&reads, 10 * MS), 1);
        assert_eq!(most_in(&reads, 10 * MS + 1), 2);
    }

    #[test]
    fn spreads() {
        let spread = Spread::of((1..=100).map(f64::from));
        assert_eq!(spread, Spread { min: 1.0, p50: 50.5, p99: 99.0, max: 100.0 });
        assert_eq!(Spread::of([3.0]).p99, 3.0);
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn fairness() {
        assert_eq!(jain(&[2.0, 2.0, 2.0]), 1.0);
        assert_eq!(jain(&[3.0, 0.0, 0.0]), 1.0 / 3.0);
    }

    #[test]
    fn bins_hold_what_falls_into_them() {
        let reads = every(10, 5, 100);
        let bins = bins(&reads, Window { from: 0, to: 1000 * MS }, 100 * MS);
        assert_eq!(bins, vec![50; 10]);
    }
}
