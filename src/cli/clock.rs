//! What time it is, and how a time is written. (The clusters, which stand alone, ask by themselves.)

use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time of day, as RFC 3339 has it, in UTC and with microseconds: `2026-01-31T23:59:59.000001Z`.
pub(crate) fn stamp() -> String {
    written(SystemTime::now())
}

pub(crate) fn written(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:06}Z", since.subsec_micros())
}

/// Year, month and day, so many days after 1 January 1970.
///
/// Counted in years that begin with March, so that a leap day is the last of its year.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_time_is_written_as_rfc_3339_has_it() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (951_868_799_999_999, "2000-02-29T23:59:59.999999Z"),
            (1_709_251_199_500_000, "2024-02-29T23:59:59.500000Z"),
            (1_767_225_599_000_000, "2025-12-31T23:59:59.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(written(UNIX_EPOCH + Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn days_follow_each_other() {
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
