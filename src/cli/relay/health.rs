//! The health of a relay, and its metrics.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use notifyman::Escaped;
use notifyman::relay::{RelayRole, RelayStatus};
use serde_json::json;

use crate::cli::health::Health;

/// Returns the health of streams, and records their metrics. Nothing is well whose last canary is older than `silence`.
pub(crate) fn of(streams: &[RelayStatus], silence: Duration) -> Health {
    let of_stream = |it: &RelayStatus| Some(format!("{}: {}", Escaped(&it.stream), problem(it, silence)?));
    let problems = streams.iter().filter_map(of_stream).collect();
    streams.iter().for_each(record);
    let details = streams.iter().map(|it| {
        json!({
            "stream": Escaped(&it.stream).to_string(),
            "role": it.role.to_string(),
            // Above 2^53, which readers of JSON may round.
            "term": it.term.map(|term| term.to_string()),
            "appended": it.appended,
            "reported_gaps": it.reported_gaps,
            "waiting": it.waiting,
            "canary_age_ms": it.canary_age.map(millis),
            "append_ms": it.append_time.map(millis),
            "leader_silence_ms": it.leader_silence.map(millis),
            "fault": it.fault,
        })
    });
    Health { problems, details: details.collect() }
}

fn problem(stream: &RelayStatus, silence: Duration) -> Option<String> {
    if let Some(fault) = &stream.fault {
        return Some(fault.clone());
    }
    let leader = stream.leader_silence.zip(stream.leader_silence_max);
    if let Some((age, _)) = leader.filter(|(age, max)| age > max) {
        return Some(format!("the leader has appended nothing for {} s, and is not replaced yet", age.as_secs()));
    }
    match stream.canary_age {
        _ if stream.role == RelayRole::Away => Some("the session with PostgreSQL is not open".to_owned()),
        Some(age) if age <= silence => None,
        Some(age) => Some(format!("no canary has arrived for {} s", age.as_secs())),
        None => Some("no canary has arrived yet".to_owned()),
    }
}

/// Describes the metrics, for their HELP lines.
pub(crate) fn describe() {
    describe_gauge!("notifyman_relay_leader", "1 while this relay leads the stream, else 0");
    describe_counter!("notifyman_relay_entries_total", "entries that this relay has appended");
    describe_counter!("notifyman_relay_reported_gaps_total", "gaps that this relay has reported to the readers");
    describe_gauge!("notifyman_relay_waiting_notifications", "notifications that wait for the engine");
    describe_gauge!("notifyman_relay_canary_age_seconds", "time since a canary of any relay was received");
    describe_gauge!("notifyman_relay_append_seconds", "time that the last append took, until the engine's answer");
}

fn record(stream: &RelayStatus) {
    let name = || stream.stream.clone();
    let is_leader = stream.role == RelayRole::Leader;
    gauge!("notifyman_relay_leader", "stream" => name()).set(if is_leader { 1.0 } else { 0.0 });
    counter!("notifyman_relay_entries_total", "stream" => name()).absolute(stream.appended);
    counter!("notifyman_relay_reported_gaps_total", "stream" => name()).absolute(stream.reported_gaps);
    gauge!("notifyman_relay_waiting_notifications", "stream" => name()).set(stream.waiting as f64);
    if let Some(age) = stream.canary_age {
        gauge!("notifyman_relay_canary_age_seconds", "stream" => name()).set(age.as_secs_f64());
    }
    if let Some(time) = stream.append_time {
        gauge!("notifyman_relay_append_seconds", "stream" => name()).set(time.as_secs_f64());
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
