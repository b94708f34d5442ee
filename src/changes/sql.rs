//! The queries and transactions on an installation. Longer SQL is in the directory `sql`.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::options::InstallOptions;
use crate::proto::sql::{quote_identifier, quote_literal};

/// The version of an installation by this program. Later programs install higher versions.
pub(crate) const VERSION: i32 = 3;

/// The channel of all changes.
pub(crate) const CHANNEL: &str = "notifyman";

/// The oldest server that has transition tables, triggers on partitions and `pg_partition_root`.
pub(crate) const OLDEST_SERVER: i32 = 12;

/// The beginnings of the comments by which the schema is recognised; the second is of versions before 3. The last line of the
/// comment holds the options, which can be read without executing anything that another role could have created.
pub(crate) const MARKS: [&str; 2] = ["Reports table changes.", "Tells of table changes by NOTIFY."];

/// The SQL expression for a pattern `g` in LIKE syntax. Its constants do not depend on `standard_conforming_strings`.
const GLOB: &str =
    r"replace(replace(replace(replace(replace(g, E'\\', E'\\\\'), '%', E'\\%'), '_', E'\\_'), '*', '%'), '?', '_')";

/// The settings at the beginning of every query. With these, unqualified names are PostgreSQL's, and the defaults of a role
/// or a database do not change the result.
const SETTINGS: &str = include_str!("sql/settings.sql");

/// Returns the query of a file with the settings that it needs.
macro_rules! query {
    ($file:literal) => {
        concat!(include_str!("sql/settings.sql"), include_str!($file))
    };
}

/// The query for the functions of the schema `notifyman`.
pub(crate) const FUNCTIONS: &str = query!("sql/installed_functions.sql");

/// The query for the tables with triggers of the installation: quoted name, and the statements that drop them.
pub(crate) const TRIGGERS: &str = query!("sql/installed_triggers.sql");

/// The query for the event triggers of the installation: the statement that drops it, and whether it is enabled.
pub(crate) const EVENT_TRIGGERS: &str = query!("sql/installed_event_triggers.sql");

/// The query for [`Objects`](super::installation::Objects).
pub(crate) const OBJECTS: &str = query!("sql/objects.sql");

/// The query for the comment of the schema, its owner, and whether the role can trust the owner.
pub(crate) const INSTALLED: &str = query!("sql/installed.sql");

/// Returns a string as an SQL constant.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::new();
    quote_literal(text, &mut out);
    out
}

/// Returns a name as an SQL identifier.
pub(crate) fn identifier(name: &str) -> String {
    let mut out = String::new();
    quote_identifier(name, &mut out);
    out
}

/// Returns a dollar quote that does not occur in a text.
pub(crate) fn dollar_tag(text: &str) -> String {
    (0_u32..).map(|n| format!("$body{n}$")).find(|tag| !text.contains(tag.as_str())).unwrap_or_default()
}

/// Returns the text of a file in the directory `sql` without the final newline, with a value for each `{name}`: that of
/// `name = value`, or of the variable `name`.
macro_rules! render {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/changes/sql/", $file)).trim_ascii_end()
    };
    (@value $name:ident) => { $name };
    (@value $name:ident = $value:expr) => { $value };
    ($file:literal, $($name:ident $(= $value:expr)?),+ $(,)?) => {
        $crate::changes::sql::render_template(
            render!($file),
            &[$((stringify!($name), &render!(@value $name $(= $value)?) as &dyn std::fmt::Display)),+],
        )
    };
}
pub(crate) use render;

/// Replaces each `{name}` by its value. Values are not searched, since they may contain names that users chose.
pub(crate) fn render_template(template: &str, values: &[(&str, &dyn Display)]) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        let from = &rest[at + 1..];
        let value = values.iter().find(|(name, _)| from.strip_prefix(name).is_some_and(|after| after.starts_with('}')));
        match value {
            Some((name, value)) => {
                let _ = write!(out, "{value}");
                rest = &from[name.len() + 1..];
            }
            None => {
                out.push('{');
                rest = from;
            }
        }
    }
    out + rest
}

fn array(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| literal(text)).collect();
    format!("ARRAY[{}]::text[]", texts.join(", "))
}

/// The timeouts of a transaction that waits for locks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockWait {
    pub(crate) timeout: Duration,
    /// The time after which an autovacuum that holds the lock is cancelled; `None` for the server's setting.
    pub(crate) deadlock_timeout: Option<Duration>,
}

/// Returns a transaction with these lock timeouts.
pub(crate) fn transaction(wait: LockWait, statements: &str) -> String {
    // Zero would mean no limit.
    let millis = |time: Duration| time.as_millis().clamp(1, i32::MAX as u128);
    let deadlock = wait.deadlock_timeout.map(|time| format!("SET LOCAL deadlock_timeout = '{}ms';\n", millis(time)));
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\nSET LOCAL lock_timeout = '{}ms';\n{}{SETTINGS}{}\nCOMMIT;\n",
        millis(wait.timeout),
        deadlock.unwrap_or_default(),
        statements.trim_end()
    )
}

/// Returns a query with the settings that it needs.
pub(crate) fn query(select: &str) -> String {
    format!("{SETTINGS}{select}")
}

/// The condition that a table can be covered.
pub(crate) const COVERABLE: &str = render!("coverable.sql");

/// The columns with the schema and the name of a table.
const OWN: [&str; 2] = ["n.nspname", "c.relname"];
/// The columns of the root of a partition's tree, which are null for another table.
const ROOT: [&str; 2] = ["root_n.nspname", "root.relname"];

fn chosen([schema, name]: [&str; 2]) -> String {
    render!("chosen.sql", glob = GLOB, schema, name)
}

fn excepted([schema, name]: [&str; 2]) -> String {
    render!("excepted.sql", glob = GLOB, schema, name)
}

/// Returns the condition that the options select a table by its own name.
pub(crate) fn named() -> String {
    format!("{} AND NOT {}", chosen(OWN), excepted(OWN))
}

/// Returns the condition that the options select a table by its own name, or a partition by that of the root of its tree.
fn named_with_root() -> String {
    let (own, root) = (chosen(OWN), chosen(ROOT));
    format!("({own} OR {root}) AND NOT {} AND NOT {}", excepted(OWN), excepted(ROOT))
}

/// Returns the options as a subquery.
pub(crate) fn options(options: &InstallOptions) -> String {
    render!(
        "options.sql",
        schemas = array(&options.schemas),
        tables = array(&options.tables),
        except_schemas = array(&options.except_schemas),
        except_tables = array(&options.except_tables),
        shape = literal(&options.shape.to_string()),
        oversize = literal(&options.oversize.to_string()),
        delivery = literal(&options.delivery.to_string()),
        with_query = options.with_query,
        schema_events = options.has_schema_events,
        replicated = options.replicated,
    )
}

fn wanted(options: &InstallOptions, only: &str) -> String {
    render!("wanted.sql", options = self::options(options), coverable = COVERABLE, named = named_with_root(), only)
        + "\n"
}

/// The condition that the function for a table's columns exists.
const OWN_EXISTS: &str =
    "EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('notifyman') AND proname = w.exact)";
/// The condition that a trigger is enabled as the options say, or disabled by a user.
const RIGHTLY_ENABLED: &str = "p.enabled IN ('D', CASE WHEN o.replicated THEN 'A' ELSE 'O' END)";

fn states(options: &InstallOptions, only: &str, exists: &str, enabled: &str) -> String {
    wanted(options, only) + &render!("states.sql", exists, enabled)
}

/// Returns the query of event triggers for the tables that fulfil `only`, and are selected or have a trigger of the
/// installation: OID, quoted name, schema, name, state, and the statements that make its triggers right.
///
/// If the function for a table's columns does not exist, the right function is the one for any table. Triggers are neither
/// enabled nor disabled, since an ALTER TABLE would fire the event trigger again.
pub(crate) fn tables(options: &InstallOptions, only: &str) -> String {
    states(options, only, OWN_EXISTS, "true")
}

/// Returns the query for the states of all tables that are selected or have a trigger of the installation. Its columns are
/// those of [`tables`]. A build has created the functions for all columns.
pub(crate) fn all_tables(options: &InstallOptions, is_build: bool) -> String {
    let exists = if is_build { "true" } else { OWN_EXISTS };
    query(&(states(options, "true", exists, RIGHTLY_ENABLED) + " ORDER BY t.sql_name"))
}

/// Returns the query for the functions that tables need: kind, columns, and name.
pub(crate) fn shapes(options: &InstallOptions) -> String {
    let shapes = "SELECT DISTINCT w.generic, w.columns, w.exact FROM w WHERE w.exact <> w.generic ORDER BY w.exact";
    query(&(wanted(options, "true") + shapes))
}

/// Returns the query for the selected tables: schema, name, and quoted name.
pub(crate) fn selected(options: &InstallOptions) -> String {
    query(&(wanted(options, "true") + "SELECT nspname, relname, sql_name FROM t WHERE is_selected ORDER BY 1, 2"))
}

/// The statement that drops trigger functions which no trigger uses.
pub(crate) const DROP_UNUSED: &str = include_str!("sql/drop_unused.sql");

/// The statements that drop the schema, once no table has triggers.
pub(crate) const REMOVE: &str = include_str!("sql/remove.sql");

/// Returns the query for [`ServerFacts`](super::server_facts::ServerFacts).
pub(crate) fn server(owner: &str) -> String {
    query(&render!("server.sql", owner = literal(owner)))
}

/// The query for whether the role may set `deadlock_timeout`. PostgreSQL 15 and later have a privilege for it.
pub(crate) const MAY_SET_DEADLOCK_TIMEOUT: &str =
    "SELECT pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET')";

/// The query for the size of the log's tables with their indexes, in bytes.
pub(crate) const LOG_SIZE: &str = "SELECT sum(pg_catalog.pg_total_relation_size(c.oid)) FROM pg_catalog.pg_class c \
    WHERE c.relnamespace = pg_catalog.to_regnamespace('notifyman') AND c.relname IN ('log_0', 'log_1', 'log_2')";

/// Returns the query for the tables that are not right: state, number of tables, and the first of their names.
pub(crate) fn uncovered(options: &InstallOptions) -> String {
    query(&format!(
        "SELECT state, count(*), array_to_string((array_agg(sql_name ORDER BY sql_name))[1:3], ', ') FROM ({}) s \
         WHERE state NOT IN ('right', 'generic', 'disabled') GROUP BY state ORDER BY state",
        states(options, "true", OWN_EXISTS, RIGHTLY_ENABLED)
    ))
}

/// Returns the query for the sessions that hold a lock on a table: process, application, state and query.
pub(crate) fn lock_holders(sql_name: &str) -> String {
    query(&render!("lock_holders.sql", table = literal(sql_name)))
}

/// The time for which a build waits for another one.
pub(crate) const BUILD_WAIT: LockWait = LockWait { timeout: Duration::from_secs(20), deadlock_timeout: None };

/// The lock that permits one build at a time. It belongs to the session.
pub(crate) const LOCK_BUILD: &str = "SELECT pg_advisory_lock(1852798057, 2);";
pub(crate) const UNLOCK_BUILD: &str = "SELECT pg_catalog.pg_advisory_unlock(1852798057, 2)";

/// The queries that make a session independent of the defaults of its role, its database and its server. They are executed in
/// this order before any other query, in each session.
///
/// SET overrides every default, and unlike a startup option it also works through a connection pooler. Most important is the
/// isolation level, since the reads of a SERIALIZABLE session can make other sessions' transactions fail. SET takes no
/// snapshot, so the first query has no such effect itself.
pub(crate) const SESSION: [&str; 2] = [include_str!("sql/session.sql"), include_str!("sql/session_timeouts.sql")];

/// The query for the used fraction of the NOTIFY queue, from 0 to 1.
pub(crate) const QUEUE_USAGE: &str = "SELECT pg_catalog.pg_notification_queue_usage()";

/// Returns the query for the spilled payload with this number.
pub(crate) fn read_spilled(number: i64) -> String {
    format!("SELECT payload FROM notifyman.spilled WHERE number = {number}")
}

/// Returns the statement that deletes spilled payloads which were kept for this time.
pub(crate) fn clear_spilled(kept: Duration) -> String {
    format!(
        "DELETE FROM notifyman.spilled WHERE written_at < pg_catalog.now() - '{} milliseconds'::pg_catalog.interval",
        kept.as_millis().min(i64::MAX as u128)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_searched_for_names() {
        let values: [(&str, &dyn Display); 3] = [("a", &"{b} '{a}'"), ("b", &2), ("ab", &"3")];
        assert_eq!(render_template("{a} {b} {ab} {c} { {{b}} {", &values), "{b} '{a}' 2 3 {c} { {2} {");
    }
}
