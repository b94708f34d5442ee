//! Parses payloads, including JSON that PostgreSQL accepts and no [`Value`] can hold.
//!
//! ```text
//!   payload ──> Change, as a whole ──> Change, with columns as text ──> SchemaChange ──> error
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Error, Map, Value};

use super::change::{Change, SchemaChange};

/// A payload of a trigger.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ChangePayload {
    Change(Box<Change>),
    Schema(Box<SchemaChange>),
    Incomplete(IncompleteCoverage),
}

/// A message of an event trigger that has left tables to the next build.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct IncompleteCoverage {
    count: u64,
    /// The names of the first of them.
    tables: Vec<String>,
}

impl IncompleteCoverage {
    pub(crate) fn warning(&self) -> String {
        format!(
            "{} tables are not covered until the next build, so that a statement was not delayed ({} ..): run `notifyman build`",
            self.count,
            self.tables.join(", ")
        )
    }
}

/// Returns `true` for a message of an event trigger that has left tables to the next build.
pub(crate) fn is_incomplete(payload: &[u8]) -> bool {
    let after_number = payload.iter().position(|byte| *byte == b',').map(|at| &payload[at..]);
    after_number.is_some_and(|rest| rest.starts_with(br#","event":"incomplete""#))
}

impl ChangePayload {
    /// Parses a payload; bytes that are not UTF-8 (from a `SQL_ASCII` database) are replaced.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(bytes);
        if is_incomplete(bytes) {
            return serde_json::from_str(&text).map(Self::Incomplete);
        }
        let error = match serde_json::from_str(&text) {
            Ok(change) => return Ok(Self::Change(Box::new(change))),
            Err(error) => error,
        };
        match parse_any_values(&text) {
            Ok(change) => Ok(Self::Change(Box::new(change))),
            Err(_) => serde_json::from_str(&text).map(Self::Schema).map_err(|_| error),
        }
    }
}

/// Parses a change with any JSON values that PostgreSQL accepts. Their numbers, surrogates and depth are not checked.
fn parse_any_values(text: &str) -> Result<Change, Error> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
    let (mut change, mut unparsed) = (Map::new(), Vec::new());
    for name in ["old_data", "new_data"] {
        if let Some(raw) = fields.remove(name) {
            change.insert(name.to_owned(), parse_row(&format!("/{name}"), raw, &mut unparsed)?);
        }
    }
    for (name, raw) in fields {
        let value = match name.as_str() {
            "keys" => {
                let keys: Option<Vec<&RawValue>> = serde_json::from_str(raw.get())?;
                let key = |(index, raw)| parse_row(&format!("/keys/{index}"), raw, &mut unparsed);
                let keys = keys.map(|keys| keys.into_iter().enumerate().map(key).collect::<Result<Vec<_>, _>>());
                keys.transpose()?.into()
            }
            _ => serde_json::from_str(raw.get())?,
        };
        change.insert(name, value);
    }
    Ok(Change { unparsed, ..serde_json::from_value(Value::Object(change))? })
}

/// Parses an object of columns, or `null`. A value that cannot be parsed becomes a string of its text, and its place is added
/// to `unparsed`.
fn parse_row(place: &str, raw: &RawValue, unparsed: &mut Vec<String>) -> Result<Value, Error> {
    let columns: Option<BTreeMap<String, &RawValue>> = serde_json::from_str(raw.get())?;
    let parse = |(name, text): (String, &RawValue)| {
        let value = serde_json::from_str(text.get()).unwrap_or_else(|_| {
            unparsed.push(format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")));
            Value::String(text.get().to_owned())
        });
        (name, value)
    };
    Ok(columns.map_or(Value::Null, |columns| columns.into_iter().map(parse).collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(data: &str) -> Change {
        let payload = format!(
            r#"{{"number":7,"table_schema":"public","table_name":"t","session_user":"app","method":"UPDATE",{data}}}"#
        );
        match ChangePayload::parse(payload.as_bytes()) {
            Ok(ChangePayload::Change(change)) => *change,
            other => panic!("{other:?}: {payload}"),
        }
    }

    #[test]
    fn a_value_that_cannot_be_parsed_is_its_text_and_its_place_is_listed() {
        let nested = "[".repeat(130) + &"]".repeat(130);
        for value in [r#"{"a": "\ud800"}"#, "1e400", "-1e999", &nested, r#"["\udc00\ud800"]"#] {
            let change =
                change(&format!(r#""old_data":{{"a/~b":{value}}},"new_data":{{"id":1,"j":{value}}},"query":null"#));
            assert_eq!(change.new_data, json!({"id": 1, "j": value}).as_object().cloned());
            assert_eq!(change.old_data, json!({"a/~b": value}).as_object().cloned());
            assert_eq!(change.unparsed, ["/old_data/a~1~0b", "/new_data/j"]);
        }
        let change = change(r#""old_data":null,"new_data":null,"keys":[{"id":1},{"id":1e400}],"query":"UPDATE""#);
        assert_eq!(
            change.keys.unwrap(),
            [json!({"id": 1}), json!({"id": "1e400"})].map(|key| key.as_object().cloned().unwrap())
        );
        assert_eq!((change.unparsed, change.query.as_deref()), (vec!["/keys/1/id".to_owned()], Some("UPDATE")));
    }

    #[test]
    fn a_value_that_can_be_parsed_is_not_listed() {
        let change = change(r#""old_data":null,"new_data":{"z":"\u0000","n":1e300,"s":"\ud83d\ude00"},"query":null"#);
        assert_eq!(change.new_data, json!({"z": "\0", "n": 1e300, "s": "😀"}).as_object().cloned());
        assert!(change.unparsed.is_empty());
    }

    #[test]
    fn other_payloads_are_errors() {
        for payload in ["", "hello", "{}", "[]", r#"{"number":1}"#, r#"{"event":"altered"}"#, "1e400"] {
            assert!(ChangePayload::parse(payload.as_bytes()).is_err(), "{payload}");
        }
        let truncated = r#"{"number":7,"table_schema":"public","table_name":"t","session_user":"app","method":"INSERT","new_data":{"#;
        assert!(ChangePayload::parse(truncated.as_bytes()).is_err());
    }
}
