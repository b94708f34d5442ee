//! Parsers of option values.

use std::time::{Duration, SystemTime};

use super::clock;

/// A century, which every clock can count.
const SECONDS_MAX: u64 = 3_155_760_000;

/// Parses a number of seconds, with or without a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number of seconds, such as 2 or 0.5")?;
    let time = Duration::try_from_secs_f64(number).ok().filter(|time| *time <= Duration::from_secs(SECONDS_MAX));
    time.ok_or_else(|| format!("must be a number of seconds from 0 to {SECONDS_MAX}"))
}

/// Returns a parser of a number of seconds in a range.
pub(crate) fn seconds_within(min: f64, max: f64) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let is_within = |time: &Duration| (min..=max).contains(&time.as_secs_f64());
        seconds(text)
            .and_then(|time| Some(time).filter(is_within).ok_or_else(|| format!("must be from {min} to {max}")))
    }
}

/// Parses the number of commands that run concurrently.
pub(crate) fn jobs(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|jobs| (1..=1000).contains(jobs)).ok_or("must be from 1 to 1000")
}

/// Parses a number of bytes, with a binary unit or without.
pub(crate) fn size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected a number of bytes, such as 1073741824, 512MiB or 1GiB";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(EXPECTED),
    };
    let number: u64 = digits.parse().map_err(|_| EXPECTED)?;
    number.checked_mul(1 << shift).ok_or("must be at most 1048576TiB")
}

/// Parses a time in the past, or a span of time up to now.
pub(crate) fn past_time(text: &str) -> Result<SystemTime, &'static str> {
    match clock::parse(text).or_else(|| clock::before_now(text)) {
        Some(time) if time > SystemTime::now() => Err("must not be in the future"),
        Some(time) => Ok(time),
        None => Err("expected a time in UTC such as 2026-11-29T18:00:00Z, or a span such as 90s, 15m, 2h or 1d"),
    }
}
