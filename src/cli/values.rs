//! Parsers of option values.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::clock;
use super::duration::{self, ShortDuration};

/// A century, which every clock can count.
const DURATION_MAX: Duration = Duration::from_secs(36_525 * 86_400);

/// Parses a duration with units, such as `1m30s`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = "expected a duration such as 5s, 200ms or 1m30s; a number without a unit is in seconds";
    let time = duration::parse(text).ok_or(expected)?;
    Some(time)
        .filter(|time| *time <= DURATION_MAX)
        .ok_or_else(|| format!("must be at most {}", ShortDuration(DURATION_MAX)))
}

/// Returns a parser of a duration in a range.
pub(crate) fn duration_within(min: Duration, max: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let time = duration(text)?;
        let is_within = (min..=max).contains(&time);
        is_within
            .then_some(time)
            .ok_or_else(|| format!("must be from {} to {}", ShortDuration(min), ShortDuration(max)))
    }
}

/// Returns a parser of one of these values, which are listed in help, errors and completions.
pub(crate) fn one_of<T>(values: impl IntoIterator<Item = PossibleValue>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(values).try_map(|name| name.parse::<T>())
}

/// Parses the address of a health server: a host and a port, which is looked up only when the server starts.
pub(crate) fn health_address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse::<u16>();
    match port {
        Ok(_) if !host.is_empty() && !host.contains('/') => Ok(text.to_owned()),
        // A port alone, for which the host must be chosen: 0.0.0.0 would be open to other machines.
        Ok(port) if host.is_empty() => Err(format!("expected an address and a port: 127.0.0.1:{port}")),
        _ => Err("expected an address and a port, such as 127.0.0.1:9187".to_owned()),
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
