//! The text form of durations: `5s`, `200ms`, `1m30s`.

use std::fmt;
use std::time::Duration;

/// The units, from the largest, with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses numbers with units, from the largest unit to the smallest, or a number of seconds without a unit. Each number can
/// have a fraction.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (mut rest, mut units, mut total) = (text, UNITS.iter(), Duration::ZERO);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (name, after) = after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        // Later units are smaller, so that a unit does not come twice.
        let (_, millis) = units.find(|(unit, _)| *unit == name)?;
        let seconds = number.parse::<f64>().ok()? * (*millis as f64) / 1e3;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// Formats a duration in the form that [`parse`] reads, in whole milliseconds.
pub(crate) struct ShortDuration(pub(crate) Duration);

impl fmt::Display for ShortDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS {
            let count = millis / u128::from(unit);
            if count > 0 {
                write!(f, "{count}{name}")?;
            }
            millis %= u128::from(unit);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_units_or_is_in_seconds() {
        for (text, millis) in [
            ("5s", 5_000),
            ("200ms", 200),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0.5s", 500),
            ("1.5m", 90_000),
            ("90s", 90_000),
            ("0s", 0),
            ("0", 0),
            ("2", 2_000),
            ("0.25", 250),
            ("1e3", 1_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        let others = "| |s|5 s|5x|5S|5s1m|1s2s|1m30|-1|-1s|1.2.3s|nan|inf|1e400|99999999999999999999d|1,5s|5sec|5µs";
        for text in others.split('|') {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_formatted_duration_can_be_parsed() {
        for text in ["0s", "1ms", "30s", "1m30s", "1d", "1h1ms", "36525d"] {
            assert_eq!(ShortDuration(parse(text).unwrap()).to_string(), text);
        }
    }
}
