//! Rates, sizes and durations as people write them on a command line.
//!
//! Pure: text in, a number or a message out. A message always shows spellings that work, because a limit that is
//! read wrongly is worse than one that is refused.
//!
//! | written | means |
//! |---|---|
//! | `500000` | bytes |
//! | `64k` `1m` `1g` | 1,024, 1,024², 1,024³ bytes, either case, as nginx reads them |
//! | `64kB` `1MB` `1GB` | 1,000, 1,000², 1,000³ bytes |
//! | `64KiB` `1MiB` `1GiB` | 1,024, 1,024², 1,024³ bytes |
//! | `512kbit` `8Mbit` `1Gbit` | that many thousand, million, milliard bits |
//!
//! A rate may end in `/s`; a size may not. A space before the unit and decimals (`1.5MB`) are fine. What would
//! not be one whole byte is refused, so `0` is no rate: to have no limit, leave the flag out. `Mb` and `mb`
//! are refused too, because half of the world reads them as bits.

use std::time::Duration;

/// Reads a rate in bytes per second.
pub fn rate(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let amount = trimmed.strip_suffix("/s").map_or(trimmed, str::trim_end);
    if trimmed.eq_ignore_ascii_case("off") || trimmed.eq_ignore_ascii_case("none") {
        return Err(NO_LIMIT.to_owned());
    }
    match quantity(amount) {
        Ok(0) if amount.chars().all(|c| !c.is_ascii_digit() || c == '0') => Err(NO_LIMIT.to_owned()),
        Ok(0) => Err(format!("less than one byte per second; {RATES}")),
        Ok(bytes) => Ok(bytes),
        Err(fault) => Err(fault.message(text, RATES)),
    }
}

/// Reads a size in bytes. Zero is a size.
pub fn size(text: &str) -> Result<u64, String> {
    let amount = text.trim();
    if amount.ends_with("/s") {
        return Err(format!("this is a size, not a rate: leave the \"/s\" out; {SIZES}"));
    }
    quantity(amount).map_err(|fault| fault.message(text, SIZES))
}

/// Reads a duration that is not zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err(format!("zero is no time to wait; {DURATIONS}")),
        duration => Ok(duration),
    }
}

/// Reads a duration; `0s` is one.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let (number, unit) = split_unit(trimmed);
    let nanos_per_unit: u128 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "" if !number.is_empty() => return Err(format!("\"{trimmed}\" of what? {DURATIONS}")),
        _ => return Err(Fault::Unreadable.message(text, DURATIONS)),
    };
    let nanos = scale(number, nanos_per_unit, 1).map_err(|fault| fault.message(text, DURATIONS))?;
    if nanos > LONGEST.as_nanos() {
        return Err(format!("\"{trimmed}\" is more than a year; {DURATIONS}"));
    }
    // Fits: a year is 3.2e16 ns.
    Ok(Duration::from_nanos(nanos as u64))
}

/// Reads a send timeout.
pub fn send_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        timeout if timeout <= Duration::from_secs(9 * 3_600) => Ok(timeout),
        _ => Err("a send timeout is at most 9h, for example 1m".to_owned()),
    }
}

/// Reads the interval of paced writes. Shorter than a millisecond costs a core and smooths nothing more; longer
/// than ten seconds looks like a dead peer.
pub fn pace_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&interval) {
        return Err("a pace interval is from 1ms to 10s, for example 40ms".to_owned());
    }
    Ok(interval)
}

const RATES: &str = "good ones: 500k, 1m, 1.5MB, 2MiB/s, 8Mbit/s, 100000";
const SIZES: &str = "good ones: 64k, 1m, 1.5MB, 2MiB, 100000";
const DURATIONS: &str = "good ones: 40ms, 250ms, 5s, 1.5s, 1m, 1h";
const NO_LIMIT: &str = "a rate of 0 would never send a byte; for no limit leave the flag out";
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Unreadable,
    Unit,
    Ambiguous,
    TooLarge,
}

impl Fault {
    fn message(self, text: &str, good: &str) -> String {
        let shown = text.trim();
        match self {
            Fault::Unreadable => format!("\"{shown}\" is not a number with a unit; {good}"),
            Fault::Unit => format!("\"{shown}\" has a unit I do not know; {good}"),
            Fault::Ambiguous => {
                format!("\"{shown}\" could be bits or bytes: write 8Mbit for bits, 1MB for bytes; {good}")
            }
            Fault::TooLarge => format!("\"{shown}\" is too large; {good}"),
        }
    }
}

/// Bytes, rounded down.
fn quantity(text: &str) -> Result<u64, Fault> {
    let (number, unit) = split_unit(text);
    let (multiplier, divisor): (u128, u128) = match unit {
        "" | "B" => (1, 1),
        "k" | "K" | "KiB" | "kiB" => (1 << 10, 1),
        "m" | "M" | "MiB" => (1 << 20, 1),
        "g" | "G" | "GiB" => (1 << 30, 1),
        "kB" | "KB" => (1_000, 1),
        "MB" => (1_000_000, 1),
        "GB" => (1_000_000_000, 1),
        "bit" => (1, 8),
        "kbit" | "Kbit" => (1_000, 8),
        "Mbit" => (1_000_000, 8),
        "Gbit" => (1_000_000_000, 8),
        "b" | "kb" | "Kb" | "mb" | "Mb" | "gb" | "Gb" | "bps" | "kbps" | "Kbps" | "Mbps" | "mbps"
        | "Gbps" | "gbps" => {
            return Err(if number.is_empty() { Fault::Unreadable } else { Fault::Ambiguous });
        }
        _ if number.is_empty() => return Err(Fault::Unreadable),
        _ => return Err(Fault::Unit),
    };
    let bytes = scale(number, multiplier, divisor)?;
    // Half of the range is kept free, so that sums of a few never overflow.
    if bytes > u128::from(u64::MAX / 2) { Err(Fault::TooLarge) } else { Ok(bytes as u64) }
}

/// Splits at the first character that is no digit and no point, and takes away the space between.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start_matches(' '))
}

/// `number` × `multiplier` ÷ `divisor`, exactly, rounded down. `number` is digits with at most one point.
fn scale(number: &str, multiplier: u128, divisor: u128) -> Result<u128, Fault> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
        return Err(Fault::Unreadable);
    }
    let fraction = fraction.trim_end_matches('0');
    // More digits than this say nothing about bytes or nanoseconds, and keep the products in range.
    if whole.trim_start_matches('0').len() > 20 || fraction.len() > 12 {
        return Err(Fault::TooLarge);
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| Fault::Unreadable)?;
    let places = 10u128.pow(fraction.len() as u32);
    let product = digits.checked_mul(multiplier).ok_or(Fault::TooLarge)?;
    Ok(product / places / divisor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_and_sizes_people_write() {
        let table: &[(&str, u64)] = &[
            ("1", 1),
            ("500000", 500_000),
            ("7B", 7),
            ("1k", 1_024),
            ("1K", 1_024),
            ("64k", 65_536),
            ("1m", 1_048_576),
            ("1M", 1_048_576),
            ("2g", 2_147_483_648),
            ("2G", 2_147_483_648),
            ("1kB", 1_000),
            ("1KB", 1_000),
            ("1MB", 1_000_000),
            ("1GB", 1_000_000_000),
            ("1KiB", 1_024),
            ("1MiB", 1_048_576),
            ("1GiB", 1_073_741_824),
            ("8bit", 1),
            ("8kbit", 1_000),
            ("8Kbit", 1_000),
            ("8Mbit", 1_000_000),
            ("1Gbit", 125_000_000),
            ("1.5MB", 1_500_000),
            ("1.5 MB", 1_500_000),
            ("0.5k", 512),
            ("0.001kB", 1),
            ("1.000000001GB", 1_000_000_001),
            (" 20 MB ", 20_000_000),
            ("0001k", 1_024),
        ];
        for &(text, bytes) in table {
            assert_eq!(size(text), Ok(bytes), "size {text:?}");
            assert_eq!(rate(text), Ok(bytes), "rate {text:?}");
            assert_eq!(rate(&format!("{}/s", text.trim_end())), Ok(bytes), "rate {text:?}/s");
            assert_eq!(rate(&format!("{} /s", text.trim_end())), Ok(bytes), "rate {text:?} /s");
        }
    }

    #[test]
    fn bad_ones_are_refused_with_good_ones_shown() {
        let table = [
            "",
            " ",
            "k",
            "MB",
            "fast",
            "-1",
            "+1",
            "1x",
            "1..5k",
            "1.k",
            ".5k",
            "1.5.5k",
            "1 M B",
            "1e6",
            "0x10",
            "1,5MB",
            "1Mb",
            "1mb",
            "8Mbps",
            "1MBit",
            "1TB",
            "1k/h",
            "1/s/s",
            "/s",
            "٣k",
            "99999999999999999999",
            "9999999999999g",
            "1MB/S",
            "NaN",
            "inf",
            "1mB",
        ];
        for text in table {
            let message = rate(text).expect_err(text);
            assert!(message.contains("8Mbit/s"), "{text:?}: {message}");
            let message = size(text).expect_err(text);
            assert!(message.contains("1.5MB"), "{text:?}: {message}");
        }
    }

    #[test]
    fn the_message_fits_the_mistake() {
        assert!(rate("10Mb").unwrap_err().contains("bits or bytes"));
        assert!(rate("1TB").unwrap_err().contains("unit I do not know"));
        assert!(size("1MB/s").unwrap_err().contains("not a rate"));
        assert!(rate("99999999999GB").unwrap_err().contains("too large"));
    }

    #[test]
    fn zero_is_a_size_and_no_rate() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("0k"), Ok(0));
        for text in ["0", "0k", "0/s", "0.0MB", "off", "OFF", "none"] {
            assert!(rate(text).unwrap_err().contains("leave the flag out"), "{text:?}");
        }
        assert!(rate("0.1").unwrap_err().contains("less than one byte"));
        assert!(rate("4bit").unwrap_err().contains("less than one byte"));
    }

    #[test]
    fn durations_people_write() {
        let table: &[(&str, u64)] = &[
            ("1ms", 1),
            ("40ms", 40),
            ("250 ms", 250),
            ("5s", 5_000),
            ("1.5s", 1_500),
            ("1m", 60_000),
            ("1h", 3_600_000),
        ];
        for &(text, millis) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text:?}");
        }
        for text in ["", "5", "s", "5x", "-5s", "0s", "0ms", "9999h", "1d", "5S", "1 h 5 m"] {
            let message = duration(text).expect_err(text);
            assert!(message.contains("250ms"), "{text:?}: {message}");
        }
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        assert!(pace_interval("0.5ms").is_err());
        assert!(pace_interval("11s").is_err());
        assert_eq!(pace_interval("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(send_timeout("9h"), Ok(Duration::from_secs(32_400)));
        assert!(send_timeout("10h").is_err() && send_timeout("0s").is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = (rate(&text), size(&text), duration_or_zero(&text));
        }

        #[test]
        fn number_like_text_does_not_panic(text in "[0-9.]{0,30} ?[kKmMgGiBbt/s]{0,5}") {
            let _ = (rate(&text), size(&text), duration_or_zero(&text));
        }

        #[test]
        fn plain_bytes_are_themselves(bytes in 1..=u64::MAX / 2) {
            prop_assert_eq!(size(&bytes.to_string()), Ok(bytes));
            prop_assert_eq!(rate(&bytes.to_string()), Ok(bytes));
        }

        #[test]
        fn decimals_are_exact(whole in 0u64..1_000_000, millis in 0u64..1_000) {
            prop_assert_eq!(size(&format!("{whole}.{millis:03}kB")), Ok(whole * 1_000 + millis));
        }
    }
}
