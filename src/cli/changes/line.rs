//! One event as a line of JSON.

use notifyman::changes::ChangeEvent;
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
    pub(crate) fn of(database: usize, event: &ChangeEvent, payload: &str) -> Self {
        let (kind, table) = match event {
            ChangeEvent::Change(change) => ("change", Some((change.table_schema.clone(), change.table_name.clone()))),
            ChangeEvent::Schema(change) => ("schema", change.schema_name.clone().zip(change.object_name.clone())),
            ChangeEvent::Connected => ("connected", None),
            ChangeEvent::Disconnected(_) => ("disconnected", None),
            ChangeEvent::Gap(_) => ("gap", None),
            ChangeEvent::Dropped(_) => ("dropped", None),
            ChangeEvent::Lost(_) => ("lost", None),
            ChangeEvent::Unreadable { .. } => ("unreadable", None),
            ChangeEvent::Warning(_) => ("warning", None),
            _ => ("other", None),
        };
        let body = match event {
            ChangeEvent::Change(_) | ChangeEvent::Schema(_) => payload.to_owned(),
            ChangeEvent::Connected => String::new(),
            ChangeEvent::Disconnected(error) | ChangeEvent::Lost(error) => {
                json!({ "cause": error.to_string() }).to_string()
            }
            ChangeEvent::Gap(gap) => json!({
                "cause": gap.cause().to_string(),
                "since": clock::written(gap.since_wall()),
                "until": clock::written(gap.until_wall()),
                "epoch": gap.epoch(),
            })
            .to_string(),
            ChangeEvent::Dropped(count) => json!({ "count": count }).to_string(),
            ChangeEvent::Unreadable { payload, reason } => json!({ "payload": payload, "reason": reason }).to_string(),
            ChangeEvent::Warning(warning) => json!({ "warning": warning }).to_string(),
            other => json!({ "event": format!("{other:?}") }).to_string(),
        };
        let head = format!("{{\"kind\":\"{kind}\",\"database\":{database},\"time\":\"{}\"", clock::stamp());
        let body = body.trim_start();
        let text = match body.strip_prefix('{') {
            Some(fields) => format!("{head},{fields}"),
            None => head + "}",
        };
        // JSON can contain line breaks between values: a column of type json keeps them.
        Self { text: json_line(&text).into_owned(), kind, database, table }
    }
}
