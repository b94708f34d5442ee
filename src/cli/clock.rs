//! The clock of the program, and the text form of times. (The throwaway servers read the clock themselves.)

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use x509_cert::der::DateTime;

use super::duration;

pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the time of day in the form of RFC 3339, in UTC with microseconds: `2026-01-31T23:59:59.000001Z`.
pub(crate) fn stamp() -> String {
    rfc3339(SystemTime::now())
}

/// Returns a time in the form of RFC 3339.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = DateTime::from_unix_duration(since).unwrap_or(DateTime::INFINITY).to_string();
    format!("{}.{:06}Z", second.trim_end_matches('Z'), since.subsec_micros())
}

/// Parses a time in the form of [`rfc3339`], with or without a fraction of the second.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole: DateTime = format!("{whole}Z").parse().ok()?;
    let micros = format!("{fraction:0<9}").parse::<u32>().ok().filter(|_| fraction.len() <= 9)? / 1000;
    Some(UNIX_EPOCH + whole.unix_duration() + Duration::from_micros(micros.into()))
}

/// Returns the time that is a span before now: a duration with units, such as `90s` or `1h30m`.
pub(crate) fn before_now(text: &str) -> Option<SystemTime> {
    let span = duration::parse(text).filter(|_| text.ends_with(|c: char| c.is_ascii_alphabetic()))?;
    SystemTime::now().checked_sub(span).filter(|time| *time >= UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_form_of_rfc_3339() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (951_868_799_999_999, "2000-02-29T23:59:59.999999Z"),
            (1_709_251_199_500_000, "2024-02-29T23:59:59.500000Z"),
            (1_767_225_599_000_000, "2025-12-31T23:59:59.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_micros(micros)), text);
            assert_eq!(parse(text), Some(UNIX_EPOCH + Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn other_strings_are_not_times() {
        assert_eq!(parse("2000-02-29T00:00:00Z"), Some(UNIX_EPOCH + Duration::from_secs(951_782_400)));
        for text in [
            "",
            "now",
            "2001-02-29T00:00:00Z",
            "2000-13-01T00:00:00Z",
            "2000-00-00T00:00:00Z",
            "2000-02-29T24:00:00Z",
            "2000-02-29",
            "2000-02-29T00:00:00",
            "1969-12-31T23:59:59Z",
            "2000-02-29T00:00:00.1234567890Z",
            "2000-02-+9T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in ["", "h", "1", "-1h", "1w", "99999999999999999999d", "9999999999999d", "1é"] {
            assert_eq!(before_now(text), None, "{text}");
        }
        assert!(before_now("1h").is_some_and(|time| time < SystemTime::now()));
    }

    #[test]
    fn dates_are_consecutive() {
        let date = |days: u64| {
            let text = rfc3339(UNIX_EPOCH + Duration::from_secs(days * 86_400));
            let numbers = text.split(['-', 'T']).take(3).map(|number| number.parse().unwrap());
            <[u64; 3]>::try_from(numbers.collect::<Vec<_>>()).unwrap()
        };
        let mut last = date(0);
        for days in 1..200_000 {
            let next = date(days);
            let [year, month, day] = last;
            let first_of_next = if month == 12 { [year + 1, 1, 1] } else { [year, month + 1, 1] };
            assert!(next == [year, month, day + 1] || (day >= 28 && next == first_of_next), "{last:?} {next:?}");
            last = next;
        }
    }
}
