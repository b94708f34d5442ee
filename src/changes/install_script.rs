//! The statements that create, or replace, the parts of an installation that all tables share.

use super::functions::{self, FunctionDefinition};
use super::log::queries::begin_era;
use super::options::InstallOptions;
use super::sql::{VERSION, dollar_tag, identifier, literal, render};

/// The first line of the schema's comment. The second holds the options.
const COMMENT: &str =
    "Reports table changes. Made by `notifyman build`; `notifyman teardown` removes this schema and its triggers.";

/// Returns the statements that create the role that owns the `SECURITY DEFINER` functions.
pub(crate) fn create_owner(owner: &str) -> String {
    let owner = identifier(owner);
    format!(
        "CREATE ROLE {owner} NOLOGIN;\nCOMMENT ON ROLE {owner} IS {};\n",
        literal("Owns the SECURITY DEFINER functions of notifyman. Made by `notifyman build`: grant it to no role.")
    )
}

/// Returns the statements that drop that role, if a build created it and nothing in any database depends on it.
pub(crate) fn drop_owner(owner: &str) -> String {
    let tag = dollar_tag(owner);
    render!("drop_owner.sql", role = literal(owner), owner = identifier(owner), tag) + "\n"
}

/// Returns the statements that create or replace the schema and all functions, in one transaction that locks no table.
///
/// Triggers continue to work meanwhile, and unread changes are kept. The functions `for_tables` are replaced in the same
/// transaction, so that each always matches the functions that it calls.
pub(crate) fn install(options: &InstallOptions, for_tables: &[FunctionDefinition]) -> String {
    let functions = functions::common(options);
    let owner = identifier(&options.owner);
    let known: Vec<_> = functions.iter().map(|it| literal(&format!("{}({})", it.name, it.arguments))).collect();
    let comment = format!("{COMMENT}\n{}", options.to_json(VERSION));
    let mut sql = render!("schema.sql", owner, comment = literal(&comment), known = known.join(", ")) + "\n";
    sql.push_str(&log(options));
    if options.spills() {
        sql.push_str(&(render!("spilled.sql", owner) + "\n"));
    }
    for function in functions.iter().chain(for_tables) {
        sql.push('\n');
        sql.push_str(&function.sql(&owner));
    }
    sql.push_str(&format!("\nREVOKE CREATE ON SCHEMA notifyman FROM {owner};\n"));
    if options.has_schema_events {
        sql.push_str(include_str!("sql/event_triggers.sql"));
    }
    sql
}

/// Returns the statements that create the log, or end a log that an earlier build created.
fn log(options: &InstallOptions) -> String {
    if !options.has_log() {
        return include_str!("sql/log_end.sql").to_owned();
    }
    let (persistence, relpersistence, set_persistence) = match options.is_unlogged {
        true => ("UNLOGGED", "u", "UNLOGGED"),
        false => ("", "p", "LOGGED"),
    };
    let log = render!("log.sql", owner = identifier(&options.owner), persistence, relpersistence, set_persistence);
    log + "\n" + &begin_era() + ";\n"
}

/// Returns the statements that create or replace functions, in one transaction that locks no table.
pub(crate) fn create_functions(functions: &[FunctionDefinition], owner: &str) -> String {
    functions.iter().map(|function| function.sql(&identifier(owner))).collect()
}
