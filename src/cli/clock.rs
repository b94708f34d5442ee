//! The clock of the program, and the text form of times. (The throwaway servers read the clock themselves.)

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:06}Z", since.subsec_micros())
}

/// Returns the year, month and day that is this number of days after 1 January 1970.
///
/// The computation uses years that begin in March, so that a leap day is the last day of its year.
fn date(days: u64) -> (u64, u64, u64) {
    // 400 years have 146,097 days; 1 March 0000 was 719,468 days before 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Parses a time in the form of [`rfc3339`], with or without a fraction of the second.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let (date_text, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, separator: char| -> Option<[u64; 3]> {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts = text.split(separator).map(|part| part.parse().ok().filter(|_| is_number(part)));
        parts.collect::<Option<Vec<_>>>()?.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date_text, '-')?, numbers(whole, ':')?);
    if !(1970..10_000).contains(&year) || hour > 23 || minute > 59 || second > 59 || fraction.len() > 9 {
        return None;
    }
    let micros: u32 = format!("{fraction:0<9}").parse::<u32>().ok()? / 1000;
    // The day is searched for, so that one that does not exist is refused.
    let about = (year - 1970) * 365 + (year - 1969) / 4 + (month.max(1) - 1) * 30;
    let days = (about.saturating_sub(40)..about + 80).find(|days| date(*days) == (year, month, day))?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::new(seconds, micros * 1000))
}

/// Returns the time that is a span before now: a number, and `s`, `m`, `h` or `d`.
pub(crate) fn before_now(text: &str) -> Option<SystemTime> {
    let number = text.strip_suffix(['s', 'm', 'h', 'd'])?;
    let unit = match &text[number.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 86_400,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    SystemTime::now().checked_sub(Duration::from_secs(seconds)).filter(|time| *time >= UNIX_EPOCH)
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
        let mut last = date(0);
        for days in 1..200_000 {
            let next = date(days);
            let (year, month, day) = last;
            let first_of_next = if month == 12 { (year + 1, 1, 1) } else { (year, month + 1, 1) };
            assert!(next == (year, month, day + 1) || (day >= 28 && next == first_of_next), "{last:?} {next:?}");
            last = next;
        }
    }
}
