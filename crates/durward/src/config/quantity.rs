//! Sizes, durations, rates and address ranges: from text and back.
//!
//! Every error says what would have been right, never what was written.

use super::settings::{Network, Rate};
use std::{net::IpAddr, str::FromStr, time::Duration};

/// A duration as an argument of a command: `90d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime(pub(crate) Duration);

impl FromStr for Lifetime {
    type Err = Expected;
    fn from_str(text: &str) -> Result<Self, Expected> {
        duration(text).and_then(|time| if time.is_zero() { Err(DURATION) } else { Ok(Self(time)) })
    }
}

/// Why a text is not a quantity: what would have been right.
pub(crate) type Expected = &'static str;

const DURATION: Expected = "write a number and a unit: `500ms`, `30s`, `5m`, `2h`, `30d`";
/// The longest duration: a hundred years. Beyond some hundreds, times and buckets could no longer count it.
const LONGEST: Duration = Duration::from_hours(36_500 * 24);
pub(super) const TOO_LONG: Expected = "write at most `36500d`, which is 100 years";
const SIZE: Expected = "write a number and a unit: `64KiB`, `4MiB`, `1GiB`";
const RATE: Expected = "write how many per how long: `10/min`, `5/s`, `1000/h`, `1/30s`";
/// The count is read into 32 bits.
pub(super) const TOO_MANY: Expected = "write at most 4294967295; what needs no limit is left out";
const NETWORK: Expected = "write an address or a range of addresses: `10.0.0.0/8`, `fd00::/8`, `192.0.2.7`";

/// Reads `30s`.
pub(super) fn duration(text: &str) -> Result<Duration, Expected> {
    let (count, unit) = number(text).ok_or(DURATION)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(DURATION),
    };
    let time = Duration::from_millis(count.saturating_mul(millis));
    if time > LONGEST { Err(TOO_LONG) } else { Ok(time) }
}

/// Reads `4MiB`; a bare number is bytes.
pub(super) fn size(text: &str) -> Result<u64, Expected> {
    let (count, unit) = number(text).ok_or(SIZE)?;
    let bytes = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return Err(SIZE),
    };
    count.checked_mul(bytes).ok_or(SIZE)
}

/// Reads `10/min`.
pub(super) fn rate(text: &str) -> Result<Rate, Expected> {
    let (count, per) = text.split_once('/').ok_or(RATE)?;
    let count = count.trim();
    let count = match count.parse() {
        Ok(0) => return Err(RATE),
        Ok(count) => count,
        Err(_) if !count.is_empty() && count.bytes().all(|digit| digit.is_ascii_digit()) => return Err(TOO_MANY),
        Err(_) => return Err(RATE),
    };
    let per = match per.trim() {
        "s" | "sec" | "second" => Duration::from_secs(1),
        "m" | "min" | "minute" => Duration::from_mins(1),
        "h" | "hour" => Duration::from_hours(1),
        "d" | "day" => Duration::from_hours(24),
        other => match duration(other) {
            Ok(per) if !per.is_zero() => per,
            Err(TOO_LONG) => return Err(TOO_LONG),
            Ok(_) | Err(_) => return Err(RATE),
        },
    };
    Ok(Rate { count, per })
}

/// Reads `10.0.0.0/8`.
pub(super) fn network(text: &str) -> Result<Network, Expected> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| NETWORK)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or(NETWORK)?,
        None => longest,
    };
    Ok(Network { address, prefix })
}

/// Prints a duration the way [`duration`] reads it, in the largest unit that loses nothing.
pub(super) fn print_duration(value: Duration) -> String {
    let millis = value.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// Prints a size the way [`size`] reads it, in the largest unit that loses nothing.
pub(super) fn print_size(value: u64) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if value >= size && value.is_multiple_of(size) {
            return format!("{}{unit}", value / size);
        }
    }
    format!("{value}B")
}

/// Splits `30s` into its number and its unit. A number that is too large is the largest, which nothing allows.
fn number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at_checked(digits)?;
    (digits > 0).then(|| (count.parse().unwrap_or(u64::MAX), unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_what_they_print() {
        for text in ["1ms", "1500ms", "30s", "5m", "2h", "30d", "0ms"] {
            assert_eq!(duration(text).map(print_duration).as_deref(), Ok(text));
        }
        for text in ["", "30", "s", "1.5s", "-1s", "30 fortnights", "99999999999999999999"] {
            assert_eq!(duration(text), Err(DURATION), "{text}");
        }
        assert_eq!(duration("36500d"), Ok(LONGEST));
        for text in ["36501d", "3153600001s", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!((duration(text), text.parse()), (Err(TOO_LONG), Err::<Lifetime, _>(TOO_LONG)), "{text}");
        }
    }

    #[test]
    fn sizes_need_a_known_unit() {
        assert_eq!(size("4MiB"), Ok(4 << 20));
        assert_eq!(size("64 KiB"), Ok(64 << 10));
        assert_eq!(size("512"), Ok(512));
        for text in ["", "4 megs", "MiB", "-4MiB", "18446744073709551615GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_so_many_per_so_long() {
        assert_eq!(rate("10/min"), Ok(Rate { count: 10, per: Duration::from_mins(1) }));
        assert_eq!(rate("1/30s"), Ok(Rate { count: 1, per: Duration::from_secs(30) }));
        for text in ["10", "0/min", "10/", "10/0s", "/min", "10 per min", "-1/s"] {
            assert_eq!(rate(text), Err(RATE), "{text}");
        }
        assert_eq!(rate("1/400000d"), Err(TOO_LONG));
    }

    #[test]
    fn networks_are_an_address_and_a_prefix() {
        for (text, printed) in [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("fd00::1", "fd00::1/128")]
        {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), Ok(printed));
        }
        for text in ["10.0.0.0/33", "10.0.0/8", "example.com", "", "10.0.0.0/-1"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
