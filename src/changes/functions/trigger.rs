//! The functions of the triggers on tables.
//!
//! A function is made for all tables whose relevant columns are equal, or for any table.

use super::definition::{FunctionDefinition, NOTIFY_LIMIT, TABLE_LIMIT};
use super::log;
use crate::changes::options::{InstallOptions, Oversize, Shape};
use crate::changes::shape::TableShape;
use crate::changes::sql::render;

/// The kinds of functions that name columns. A kind is also the name of the function that serves any table, and the prefix of
/// the names of functions that are made for tables with equal columns.
pub(super) const KINDS: [&str; 5] = ["rows", "insert_keys", "update_keys", "delete_keys", "row_keys"];
/// The functions that report no rows: of TRUNCATE, and of tables whose values must not be read.
const ROWLESS: [&str; 2] = ["truncated", "markers"];
/// A row with a longer value is not read for NOTIFY. The stored size is only an upper estimate of the length of its JSON.
const VALUE_LIMIT: u32 = 16 * 1024;

/// Returns `true` for the name of a trigger function that any table can use.
pub(crate) fn serves_any_table(name: &str) -> bool {
    KINDS.contains(&name) || ROWLESS.contains(&name)
}

/// Returns the function of this kind for tables of one shape.
pub(crate) fn for_tables(name: &str, kind: &str, shape: &TableShape, options: &InstallOptions) -> FunctionDefinition {
    let body = if kind == "rows" { rows(shape, options) } else { keys(kind, shape, options) };
    FunctionDefinition::trigger(name, &body)
}

/// Returns an SQL expression that raises an error if the log cannot be written, and else has the value of `expression`.
fn checked(expression: &str) -> String {
    format!("CASE WHEN {} THEN\n            {expression} END", log::CHECK)
}

/// Returns the SQL expression that sends the variable `payload`. It is used as a condition, since PERFORM would need a plan.
fn delivered(options: &InstallOptions) -> &'static str {
    match options.has_log() {
        false => "pg_catalog.pg_notify('notifyman', payload)",
        true => "notifyman.append(payload)",
    }
}

/// Returns the statements for a damaged installation: a payload with a negative number, or a warning if there is a log.
fn unnumbered(options: &InstallOptions) -> &'static str {
    if options.has_log() { render!("unnumbered_log.sql") } else { render!("unnumbered.sql") }
}

/// Returns the SQL expression for a payload of the trigger's table, of at most `limit` bytes.
fn payload_of(old: &str, new: &str, truncated: &str, limit: u32) -> String {
    format!(
        "notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,\n            \
         {old}, {new}, {truncated}, {limit})"
    )
}

/// Returns the body of a function that reports whole rows.
fn rows(shape: &TableShape, options: &InstallOptions) -> String {
    let is_logged = options.has_log();
    let reads_long = options.spills() || is_logged;
    let limit = if reads_long { TABLE_LIMIT } else { NOTIFY_LIMIT };
    let whole = match is_logged {
        false => payload_of("pg_catalog.row_to_json(OLD)", "pg_catalog.row_to_json(NEW)", "NULL", limit),
        true => checked(log::CHANGE),
    };
    let is_long = match reads_long {
        true => shape.is_long(&["OLD", "NEW"], TABLE_LIMIT),
        false => shape.has_long_value(&["OLD", "NEW"], VALUE_LIMIT),
    };
    let guarded = match is_long {
        Some(is_long) => format!("CASE WHEN {is_long}\n            THEN NULL ELSE {whole} END"),
        None => whole.clone(),
    };
    let marker = payload_of("NULL", "NULL", "'key'", NOTIFY_LIMIT);
    let reduced = match options.oversize {
        Oversize::Marker => marker,
        _ if shape.has_no_key() => marker,
        _ => {
            let key = |row: &str| format!("{}::pg_catalog.json", shape.key(row));
            let by_key = payload_of(&key("OLD"), &key("NEW"), "'row'", NOTIFY_LIMIT);
            format!("coalesce({by_key}, {marker})")
        }
    };
    let unnumbered = unnumbered(options);
    if is_logged {
        return render!("rows_log.sql", guarded, whole, reduced = checked(&reduced), unnumbered);
    }
    let spill = if options.spills() { render!("rows_spill.sql", limit = NOTIFY_LIMIT) } else { String::new() };
    render!("rows.sql", guarded, whole, spill, reduced, unnumbered)
}

/// Returns the body of a function that reports the keys of rows.
fn keys(kind: &str, shape: &TableShape, options: &InstallOptions) -> String {
    let any = TableShape::any();
    let unnumbered = unnumbered(options);
    if options.has_log() {
        let set = |(name, keys): (&str, Option<String>)| Some(format!("{name} := {};", checked(&keys?)));
        let of = |shape: &TableShape| {
            let keys = ["old_keys", "new_keys"].into_iter().zip(arrays_of_keys(kind, shape));
            keys.filter_map(set).collect::<Vec<_>>().join("\n            ")
        };
        return render!("keys_log.sql", keys = of(shape), recovered = of(&any), unnumbered);
    }
    let of = |shape: &TableShape| {
        let [old, new] = arrays_of_keys(kind, shape).map(|keys| keys.unwrap_or_else(|| "NULL".to_owned()));
        format!(
            "notifyman.payloads(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,\n            {old},\n            {new})"
        )
    };
    render!("keys.sql", payloads = of(shape), recovered = of(&any), unnumbered, delivered = delivered(options))
}

/// Returns the SQL expressions for the keys of the rows before and after; `None` where there are no such rows.
fn arrays_of_keys(kind: &str, shape: &TableShape) -> [Option<String>; 2] {
    let (key, limit) = (shape.key("r"), if shape.has_no_key() { " LIMIT 1" } else { "" });
    let rows = |rows: &str| Some(format!("ARRAY(SELECT {key} FROM {rows} r{limit})"));
    let row = |method: &str, row: &str| {
        Some(format!("CASE WHEN TG_OP OPERATOR(pg_catalog.<>) '{method}' THEN ARRAY[{}] END", shape.key(row)))
    };
    match kind {
        "insert_keys" => [None, rows("new_rows")],
        "delete_keys" => [rows("old_rows"), None],
        "update_keys" => [rows("old_rows"), rows("new_rows")],
        _ => [row("INSERT", "OLD"), row("DELETE", "NEW")],
    }
}

/// Returns the functions that report a table without its rows.
pub(super) fn rowless(options: &InstallOptions) -> [FunctionDefinition; 2] {
    let truncated = match options.shape {
        Shape::Rows => payload_of("NULL", "NULL", "NULL", NOTIFY_LIMIT),
        Shape::Keys => "(notifyman.payloads(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,\n            \
             NULL, ARRAY[NULL::pg_catalog.text]))[1]"
            .to_owned(),
    };
    let marker = payload_of("NULL", "NULL", "'key'", NOTIFY_LIMIT);
    let function = |name, payload: &str| {
        let payload = if options.has_log() { checked(payload) } else { payload.to_owned() };
        let (unnumbered, delivered) = (unnumbered(options), delivered(options));
        let body = render!("rowless.sql", payload, unnumbered, delivered);
        FunctionDefinition::trigger(name, &body)
    };
    let [first, second] = ROWLESS;
    [function(first, &truncated), function(second, &marker)]
}
