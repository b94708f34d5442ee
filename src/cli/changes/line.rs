//! One piece of news as a line of JSON.

use notifyman::changes::News;
use serde_json::{Map, Value, json};

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
    pub(crate) fn of(database: usize, news: &News) -> Self {
        let (kind, body, table) = match news {
            News::Change(change) => {
                ("change", json!(change), Some((change.table_schema.clone(), change.table_name.clone())))
            }
            News::Schema(change) => {
                ("schema", json!(change), change.schema_name.clone().zip(change.object_name.clone()))
            }
            News::Away(error) => ("away", json!({ "cause": error.to_string() }), None),
            News::Gap(gap) => {
                let body = json!({
                    "cause": gap.cause().to_string(),
                    "since": clock::written(gap.since_wall()),
                    "until": clock::written(gap.until_wall()),
                    "epoch": gap.epoch(),
                });
                ("gap", body, None)
            }
            News::Dropped(count) => ("dropped", json!({ "count": count }), None),
            News::Lost(error) => ("lost", json!({ "cause": error.to_string() }), None),
            News::Unreadable { payload, reason } => {
                ("unreadable", json!({ "payload": payload, "reason": reason }), None)
            }
            News::Warning(warning) => ("warning", json!({ "warning": warning }), None),
            other => ("other", json!({ "what": format!("{other:?}") }), None),
        };
        let mut line = Map::new();
        line.insert("kind".into(), kind.into());
        line.insert("database".into(), database.into());
        line.insert("time".into(), clock::stamp().into());
        if let Value::Object(body) = body {
            line.extend(body);
        }
        Self { text: Value::Object(line).to_string(), kind, database, table }
    }
}
