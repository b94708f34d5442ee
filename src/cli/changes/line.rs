//! One event as a line of JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use notifyman::Error;
use notifyman::changes::{ChangeEvent, Position};
use serde::Deserialize as _;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::cli::clock;
use crate::cli::output::json_line;

/// A line without its end, and the values that a command receives in its environment.
pub(crate) struct EventLine {
    pub(crate) text: String,
    pub(crate) kind: &'static str,
    pub(crate) database: usize,
    /// The schema and the name of the table, if the event is about one.
    pub(crate) table: Option<(String, String)>,
}

impl EventLine {
    /// Formats an event. For a change, `payload` is its text, which is passed on unchanged: with every digit, with the
    /// columns in their order, and with JSON that no parser accepts. Only characters that control a terminal are
    /// escaped.
    pub(crate) fn of(
        (database, label): (usize, Option<&str>),
        event: &ChangeEvent,
        payload: &str,
        position: Option<&Position>,
    ) -> Self {
        if matches!(event, ChangeEvent::Change(_) | ChangeEvent::Schema(_)) && has_reserved_field(payload) {
            let reason = "it contains a field that no trigger sends".to_owned();
            let unreadable = ChangeEvent::Unreadable { payload: payload.to_owned(), reason };
            return Self::of((database, label), &unreadable, payload, position);
        }
        let table = match event {
            ChangeEvent::Change(change) => Some((change.table_schema.clone(), change.table_name.clone())),
            ChangeEvent::Schema(change) => change.schema_name.clone().zip(change.object_name.clone()),
            _ => None,
        };
        let cause = |error: &Error| json!({ "cause": format!("{error:#}") }).to_string();
        let (kind, body) = match event {
            ChangeEvent::Change(_) => ("change", payload.to_owned()),
            ChangeEvent::Schema(_) => ("schema", payload.to_owned()),
            ChangeEvent::Connected => ("connected", String::new()),
            ChangeEvent::Disconnected(error) => ("disconnected", cause(error)),
            ChangeEvent::Lost(error) => ("lost", cause(error)),
            ChangeEvent::Gap(gap) => {
                let (since, until) = (clock::rfc3339(gap.since_wall()), clock::rfc3339(gap.until_wall()));
                let cause = format!("{:#}", gap.cause());
                let gap = json!({ "cause": cause, "since": since, "until": until, "epoch": gap.epoch() });
                ("gap", gap.to_string())
            }
            ChangeEvent::Dropped(count) => ("dropped", json!({ "count": count }).to_string()),
            ChangeEvent::Unreadable { payload, reason } => {
                ("unreadable", json!({ "payload": payload, "reason": reason }).to_string())
            }
            ChangeEvent::Warning(warning) => ("warning", json!({ "warning": warning }).to_string()),
            other => ("other", json!({ "event": format!("{other:?}") }).to_string()),
        };
        // Neither a label nor a position has a character that JSON escapes.
        let label = label.map(|label| format!(",\"label\":\"{label}\"")).unwrap_or_default();
        let mut head = format!("{{\"kind\":\"{kind}\",\"database\":{database}{label},\"time\":\"{}\"", clock::stamp());
        if let Some(position) = position {
            let _ = write!(head, ",\"position\":\"{position}\"");
        }
        let body = body.trim_start();
        let text = match body.strip_prefix('{') {
            Some(fields) => format!("{head},{fields}"),
            None => head + "}",
        };
        // JSON can contain line breaks between values: a column of type json keeps them.
        Self { text: json_line(&text).into_owned(), kind, database, table }
    }
}

/// The fields that a line has in addition to those of a payload.
const RESERVED: [&str; 5] = ["kind", "database", "label", "time", "position"];

/// Returns `true` if a payload, which any role can send, names a field of the line itself.
fn has_reserved_field(payload: &str) -> bool {
    let mut json = serde_json::Deserializer::from_str(payload);
    let fields = BTreeMap::<String, IgnoredAny>::deserialize(&mut json);
    fields.is_ok_and(|fields| RESERVED.iter().any(|name| fields.contains_key(*name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_line_are_found_in_a_payload_and_not_in_its_values() {
        for payload in [
            r#"{"label":"x"}"#,
            r#"{"number":1,"kind":"gap"}"#,
            r#"{"p\u006fsition":1}"#,
            r#"{"a":{},"time":[{"b":1e400}]}"#,
        ] {
            assert!(has_reserved_field(payload), "{payload}");
        }
        for payload in [r#"{"new_data":{"kind":1,"position":"p"}}"#, "{}", "", "[]", r#"{"query":"database"}"#] {
            assert!(!has_reserved_field(payload), "{payload}");
        }
    }
}
