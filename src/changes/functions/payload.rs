//! The functions that number a change and make its payload.

use super::definition::{ExecutionRole, FunctionDefinition};
use crate::changes::options::InstallOptions;
use crate::changes::sql::render;

/// The arguments of the functions that report a statement.
pub(super) const OF_STATEMENT: &str =
    "relation oid, table_schema text, table_name text, method text, old_keys text[], new_keys text[]";

/// Returns the function that makes the payload of one row, or of an event without rows.
pub(super) fn payload(options: &InstallOptions) -> FunctionDefinition {
    let (declare, query, shorten) = match options.with_query {
        false => ("", "',\"query\":null'", ""),
        true => {
            (render!("payload_declare.sql"), "',\"query\":', coalesce(query, 'null')", render!("payload_shorten.sql"))
        }
    };
    FunctionDefinition::new(
        "payload",
        "relation oid, table_schema text, table_name text, method text, old_data json, new_data json, truncated text, \
         max_bytes integer",
        "text",
        ExecutionRole::Owner,
        &render!("payload.sql", declare, query, shorten),
    )
}

/// Returns the function that makes the payloads of a statement, from the keys of its rows.
pub(super) fn payloads(options: &InstallOptions) -> FunctionDefinition {
    let (query, shorten) = query_of_keys(options);
    FunctionDefinition::new(
        "payloads",
        OF_STATEMENT,
        "text[]",
        ExecutionRole::Owner,
        &render!("payloads.sql", query, shorten),
    )
}

/// Returns the SQL expression for the query text of a statement that is reported by keys, and the statements that shorten it.
pub(super) fn query_of_keys(options: &InstallOptions) -> (&'static str, &'static str) {
    match options.with_query {
        false => ("'null'", ""),
        true => (
            "coalesce(pg_catalog.to_json(\n        pg_catalog.left(pg_catalog.current_query(), 7999))::pg_catalog.text, 'null')",
            "\n    IF pg_catalog.octet_length(query) OPERATOR(pg_catalog.>) 4000 THEN\n        \
             query := 'null,\"truncated\":\"query\"';\n    END IF;",
        ),
    }
}
