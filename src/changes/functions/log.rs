//! The functions that append to the log.
//!
//! A trigger function evaluates everything that can fail, such as a row as JSON, in a block that catches errors. Outside that
//! block it calls one of these functions: an INSERT inside the block would use a transaction id for each row.

use super::definition::{ExecutionRole, FunctionDefinition, NOTIFY_LIMIT, TABLE_LIMIT};
use super::payload::{OF_STATEMENT, query_of_keys};
use crate::changes::options::InstallOptions;
use crate::changes::sql::render;

/// The most bytes of a payload without its row and its query. It contains names, and JSON may need six bytes for a character.
const HEAD_LIMIT: u32 = 4096;

const CHECK_LOG: &str = "number regclass, log_0 regclass, log_1 regclass, log_2 regclass, log_table regclass, \
    log_full regclass, log_dropped regclass";

/// An SQL expression that is true, or raises an error if the log cannot be written. See `check_log.sql`.
pub(super) const CHECK: &str = render!("call_check_log.sql");

/// The SQL expression for the payload of a row without its number and its query. A partition is reported under the name of
/// the root of its tree.
pub(super) const CHANGE: &str = render!("change.sql");

/// Returns the functions that triggers call. With delivery by NOTIFY they notify, for triggers that have not been replaced
/// yet.
pub(super) fn called(options: &InstallOptions) -> [FunctionDefinition; 6] {
    let [append, append_change, append_keys, log_table_if_room, check_log] = match options.has_log() {
        true => log(options),
        false => notify(),
    };
    let function = |name, arguments, returns, body: String| {
        FunctionDefinition::new(name, arguments, returns, ExecutionRole::Owner, &body)
    };
    let head = render!("head_of_partition.sql").to_owned();
    [
        function("append", "payload text", "boolean", append),
        function("append_change", "change text", "bigint", append_change),
        function("append_keys", OF_STATEMENT, "boolean", append_keys),
        // Reading the size of a table waits while the table is being truncated. That must not fail a write.
        FunctionDefinition {
            settings: &[("lock_timeout", "0")],
            ..function("log_table_if_room", "", "bigint", log_table_if_room)
        },
        FunctionDefinition { is_immutable: true, ..function("check_log", CHECK_LOG, "boolean", check_log) },
        function("head_of_partition", "relation oid", "text", head),
    ]
}

/// Returns the bodies that append to the log.
fn log(options: &InstallOptions) -> [String; 5] {
    // Reading the size takes as long as appending a dozen rows.
    let mask = ((options.keep_size >> 20).clamp(64, 1024) + 1).next_power_of_two() / 2 - 1;
    // Between two readings at most a quarter of the size is appended.
    let long = (options.keep_size / (mask + 1) / 4).min(65_536);
    let number = render!("log_number.sql");
    let table = |text: &str| render!("log_table.sql", mask, long, text);
    let insert = |then: &str, first: &str| render!("log_insert.sql", then, first);
    let change_limit = TABLE_LIMIT - HEAD_LIMIT;
    let query = match options.with_query {
        false => "'null'".to_owned(),
        true => render!("query_of_change.sql", limit = change_limit),
    };
    let (query_of_keys, _) = query_of_keys(options);
    let too_long = "IF payload IS NULL THEN\n            RETURN NULL;\n        END IF;\n        ";
    [
        render!("append.sql", number, limit = TABLE_LIMIT, insert = insert("RETURN true", "")),
        render!(
            "append_change.sql",
            number,
            table = table("change"),
            limit = change_limit,
            query,
            insert = insert("RETURN number", too_long)
        ),
        render!(
            "append_keys.sql",
            number,
            table = table("payload"),
            query = query_of_keys,
            insert = insert("EXIT", "")
        ),
        render!("log_table_if_room.sql", most = options.keep_size.saturating_mul(2)),
        render!("check_log.sql").to_owned(),
    ]
}

/// Returns the bodies that notify instead.
fn notify() -> [String; 5] {
    let returns = |value| format!("BEGIN\n    RETURN {value};\nEND");
    [
        render!("notify.sql", limit = NOTIFY_LIMIT),
        render!("notify_change.sql").to_owned(),
        render!("notify_keys.sql").to_owned(),
        returns("0"),
        returns("true"),
    ]
}
