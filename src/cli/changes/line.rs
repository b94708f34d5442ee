//! One piece of news as a line of JSON.

use notifyman::changes::News;
use serde_json::json;

use crate::cli::clock;

/// A line, without its end, and what a command is told of it besides.
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) kind: &'static str,
    pub(crate) database: usize,
    /// Schema and name, where it is about a table.
    pub(crate) table: Option<(String, String)>,
}

impl Line {
    /// Of a change, `payload` is what it came as, which is told as it is: with every digit, and columns in their order.
    pub(crate) fn of(database: usize, news: &News, payload: &str) -> Self {
        let (kind, table) = match news {
            News::Change(change) => ("change", Some((change.table_schema.clone(), change.table_name.clone()))),
            News::Schema(change) => ("schema", change.schema_name.clone().zip(change.object_name.clone())),
            News::Away(_) => ("away", None),
            News::Gap(_) => ("gap", None),
            News::Dropped(_) => ("dropped", None),
            News::Lost(_) => ("lost", None),
            News::Unreadable { .. } => ("unreadable", None),
            News::Warning(_) => ("warning", None),
            _ => ("other", None),
        };
        let body = match news {
            // Within a value a line can't end; between values JSON may, as a column of type json does.
            News::Change(_) | News::Schema(_) => payload.replace(['\n', '\r'], " "),
            News::Away(error) | News::Lost(error) => json!({ "cause": error.to_string() }).to_string(),
            News::Gap(gap) => json!({
                "cause": gap.cause().to_string(),
                "since": clock::written(gap.since_wall()),
                "until": clock::written(gap.until_wall()),
                "epoch": gap.epoch(),
            })
            .to_string(),
            News::Dropped(count) => json!({ "count": count }).to_string(),
            News::Unreadable { payload, reason } => json!({ "payload": payload, "reason": reason }).to_string(),
            News::Warning(warning) => json!({ "warning": warning }).to_string(),
            other => json!({ "what": format!("{other:?}") }).to_string(),
        };
        let body = body.trim_start().trim_start_matches('{');
        let text = format!("{{\"kind\":\"{kind}\",\"database\":{database},\"time\":\"{}\",{body}", clock::stamp());
        Self { text, kind, database, table }
    }
}
