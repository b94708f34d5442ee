//! The SQL, which is kept in files of its own: what is run, and what a dry run shows.

use std::time::Duration;

use super::options::Options;
use crate::proto::sql::quote_literal;

/// Of the SQL that is installed. One that is higher was installed by a later notifyman.
pub(crate) const VERSION: i32 = 1;

/// Those of a server that can have all of it: transition tables, partitions with triggers, `pg_partition_root`.
pub(crate) const OLDEST_SERVER: i32 = 12;

/// What says that a schema is ours, even where the rest has been damaged.
pub(crate) const MARK: &str = "Tells of table changes by NOTIFY.";

const COVERABLE: &str = include_str!("sql/coverable.sql");
const NAMED: &str = include_str!("sql/named.sql");
const EVENT_TRIGGERS: &str = include_str!("sql/event_triggers.sql");
const PARTS: [&str; 7] = [
    include_str!("sql/schema.sql"),
    include_str!("sql/parts.sql"),
    include_str!("sql/columns.sql"),
    include_str!("sql/rows.sql"),
    include_str!("sql/keys.sql"),
    include_str!("sql/cover.sql"),
    include_str!("sql/events.sql"),
];
const TEARDOWN: &str = include_str!("sql/teardown.sql");

/// A pattern `g` as LIKE has it. Its constants mean the same whatever `standard_conforming_strings` says.
const GLOB: &str =
    r"replace(replace(replace(replace(replace(g, E'\\', E'\\\\'), '%', E'\\%'), '_', E'\\_'), '*', '%'), '?', '_')";

/// A digest of what was installed but for the tables' own functions, so that a change by hand shows.
const DIGEST: &str = "(SELECT pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat_ws('|', p.proname, p.prosrc, \
    p.prosecdef, p.proconfig::text), '|' ORDER BY p.oid::pg_catalog.regprocedure::text COLLATE \"C\")) \
    FROM pg_catalog.pg_proc p WHERE p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'notifyman') \
    AND p.prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype)";

/// What every query begins with, so that no name in it is somebody else's, and what is kept of a function's settings
/// doesn't depend on those of the session that made it.
const PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL quote_all_identifiers = off;\n";

/// A text as an SQL constant.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::new();
    quote_literal(text, &mut out);
    out
}

fn array(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| literal(text)).collect();
    format!("ARRAY[{}]::text[]", texts.join(", "))
}

/// A transaction that gives up what it can't lock in this time.
pub(crate) fn transaction(lock_timeout: Duration, statements: &str) -> String {
    // Zero would be no limit.
    let millis = lock_timeout.as_millis().clamp(1, i32::MAX as u128);
    format!("BEGIN;\nSET LOCAL lock_timeout = '{millis}ms';\n{PATH}{}\nCOMMIT;\n", statements.trim_end())
}

/// A query that is read, and changes nothing.
pub(crate) fn query(select: &str) -> String {
    format!("{PATH}{select}")
}

/// The schema and all functions.
fn definitions(options: &Options) -> String {
    let mut all = PARTS.join("\n").replace("{named}", NAMED.trim_end()).replace("{coverable}", COVERABLE.trim_end());
    if !options.no_schema_events {
        all.push('\n');
        all.push_str(EVENT_TRIGGERS);
    }
    all.replace("{glob}", GLOB)
}

/// The options, as columns of `notifyman.installation`.
fn columns(options: &Options) -> [(&'static str, String); 10] {
    let text = |it: &dyn std::fmt::Display| literal(&it.to_string());
    [
        ("schemas", array(&options.schemas)),
        ("tables", array(&options.tables)),
        ("except_schemas", array(&options.except_schemas)),
        ("except_tables", array(&options.except_tables)),
        ("shape", text(&options.shape)),
        ("oversize", text(&options.oversize)),
        ("delivery", text(&options.delivery)),
        ("with_query", options.with_query.to_string()),
        ("schema_events", (!options.no_schema_events).to_string()),
        ("replicated", options.replicated.to_string()),
    ]
}

/// Says of which SQL an installation was made, options and all.
pub(crate) fn fingerprint(options: &Options) -> String {
    let text = definitions(options) + &columns(options).map(|(_, value)| value).join("|");
    // FNV-1a: it is to tell versions apart, and to be the same tomorrow.
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// Nobody else may call what was made. The tables' own functions are left alone: somebody may be changing one just now.
const REVOKE: &str = "\
DO $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = 'notifyman'::regnamespace AND prorettype <> 'trigger'::regtype
    LOOP
        EXECUTE part;
    END LOOP;
END $$;
";

/// Makes the schema, or makes it anew; one transaction.
pub(crate) fn install(options: &Options) -> String {
    let columns = columns(options);
    let names = columns.each_ref().map(|(name, _)| *name).join(", ");
    let values = columns.map(|(_, value)| value).join(", ");
    format!(
        "{}\n{REVOKE}\n\
        INSERT INTO notifyman.installation\n    (version, fingerprint, functions, installed_at, installed_by,\n    {names})\n\
        VALUES ({VERSION}, '{}', {DIGEST}, now(), current_user,\n    {values});",
        definitions(options),
        fingerprint(options),
    )
}

/// Gives one table what it is to have.
pub(crate) fn cover(table: &str) -> String {
    format!("SELECT notifyman.cover({});", literal(table))
}

/// Drops the functions of tables that are gone.
pub(crate) const DROP_UNUSED: &str = "SELECT notifyman.drop_unused_functions();";

/// Removes what no table needs any more.
pub(crate) fn remove() -> String {
    TEARDOWN.to_owned()
}

/// The tables that are asked for, without a look at what is installed: schema, name, and both as SQL has them.
pub(crate) fn selected(options: &Options) -> String {
    let arrays: Vec<_> = columns(options)[..4].iter().map(|(name, value)| format!("{value} AS {name}")).collect();
    query(&format!(
        "SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, (SELECT {}) o \
         WHERE {COVERABLE} AND {} ORDER BY 1, 2",
        arrays.join(", "),
        NAMED.replace("{glob}", GLOB),
    ))
}

/// Every table that is asked for or has a trigger of ours, with how it stands: name as SQL has it, schema, name, state.
///
/// Up to so many after this OID, so that it is no long query where there are many.
pub(crate) fn states(after: u32, limit: usize) -> String {
    query(&format!(
        "SELECT c.oid, format('%I.%I', n.nspname, c.relname), n.nspname, c.relname, notifyman.state(c.oid) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid > {after} AND c.relkind IN ('r', 'p', 'f') AND (notifyman.is_selected(c.oid) OR EXISTS ( \
            SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid \
            WHERE t.tgrelid = c.oid AND p.pronamespace = 'notifyman'::regnamespace)) \
         ORDER BY c.oid LIMIT {limit}"
    ))
}

/// Every trigger of ours: the table's name as SQL has it, and the statement that drops it.
pub(crate) fn triggers() -> String {
    query(
        "SELECT format('%I.%I', n.nspname, c.relname), \
            string_agg(format('DROP TRIGGER IF EXISTS %I ON %I.%I;', t.tgname, n.nspname, c.relname), ' ' ORDER BY tgname) \
         FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace \
            JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE f.nspname = 'notifyman' AND NOT t.tgisinternal GROUP BY 1 ORDER BY 1",
    )
}

/// Every event trigger of ours, as the statement that drops it.
pub(crate) fn event_triggers() -> String {
    query(
        "SELECT format('DROP EVENT TRIGGER IF EXISTS %I;', e.evtname), e.evtenabled \
         FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid JOIN pg_namespace f ON f.oid = p.pronamespace \
         WHERE f.nspname = 'notifyman' ORDER BY 1",
    )
}

/// What must be known before anything: one row, see [`Server`](super::server::Server).
pub(crate) fn server() -> String {
    query(&format!(
        "SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery(), \
            current_setting('max_prepared_transactions'), \
            (SELECT coalesce(obj_description(oid, 'pg_namespace'), '') LIKE '{MARK}%' FROM pg_namespace \
             WHERE nspname = 'notifyman'), \
            to_regclass('notifyman.installation') IS NOT NULL, \
            has_database_privilege(current_database(), 'CREATE'), current_database(), \
            to_regclass('notifyman.outbox') IS NOT NULL AND to_regclass('notifyman.spilled') IS NOT NULL \
                AND to_regclass('notifyman.number') IS NOT NULL"
    ))
}

/// The version alone, which every version's table has.
pub(crate) fn version() -> String {
    query("SELECT version FROM notifyman.installation")
}

/// The installation's row: version, fingerprint, whether the functions are as they were made, and the options.
pub(crate) fn installation() -> String {
    query(&format!(
        "SELECT o.version, o.fingerprint, o.functions = {DIGEST}, o.shape, o.oversize, o.delivery, o.with_query, \
            o.schema_events, o.replicated, array_to_string(o.schemas, ' '), array_to_string(o.tables, ' '), \
            array_to_string(o.except_schemas, ' '), array_to_string(o.except_tables, ' '), o.installed_at, o.installed_by \
         FROM notifyman.installation o"
    ))
}

/// How long a build waits for another one.
pub(crate) const BUILD_WAIT: Duration = Duration::from_secs(20);

/// One build at a time; the lock goes with the session, and is given back at the end.
pub(crate) const LOCK_BUILD: &str = "SELECT pg_advisory_lock(1852798057, 2);";
pub(crate) const UNLOCK_BUILD: &str = "SELECT pg_catalog.pg_advisory_unlock(1852798057, 2)";

/// Makes a session depend on nothing that is configured for its role, its database or its server: two queries, to be
/// run in this order before any other, and again after each reconnect.
///
/// What is SET in a session wins over every default, and unlike a start-up option it passes through a pooler. The
/// isolation level is what counts most: the reads of a SERIALIZABLE session make other sessions' transactions fail. SET
/// takes no snapshot, so the first query does not do so itself. The settings of the second exist in some versions only
/// (`idle_session_timeout` from 14 on, `transaction_timeout` from 17 on).
pub(crate) const SESSION: [&str; 2] = [
    "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
     SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; \
     SET default_transaction_deferrable = off; SET row_security = off; SET search_path = pg_catalog, pg_temp; \
     SET standard_conforming_strings = on; SET quote_all_identifiers = off; SET client_min_messages = warning",
    "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
     WHERE name IN ('idle_session_timeout', 'transaction_timeout')",
];

/// The part of the NOTIFY queue that is in use, from 0 to 1.
pub(crate) const QUEUE_USAGE: &str = "SELECT pg_catalog.pg_notification_queue_usage()";

/// How an installation delivers changes: whether by its outbox, and whether it spills.
pub(crate) fn delivery() -> String {
    query("SELECT delivery = 'table', oversize = 'spill' FROM notifyman.installation")
}

/// One worker at a time reads an outbox. Taking the lock once more is harmless.
pub(crate) const LOCK_OUTBOX: &str = "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks \
    WHERE locktype = 'advisory' AND classid = 1852798057 AND objid = 1 AND pid = pg_catalog.pg_backend_pid() \
    AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())) \
    THEN true ELSE pg_catalog.pg_try_advisory_lock(1852798057, 1) END";

/// The first payloads of an outbox: so many, and so many bytes or one.
pub(crate) fn read_outbox(count: usize, bytes: usize) -> String {
    query(&format!(
        "SELECT number, payload FROM ( \
            SELECT number, payload, sum(octet_length(payload)) OVER (ORDER BY number) - octet_length(payload) AS before \
            FROM (SELECT number, payload FROM notifyman.outbox ORDER BY number LIMIT {count}) f) g \
         WHERE before < {bytes} ORDER BY number"
    ))
}

/// Removes what has been told.
pub(crate) fn clear_outbox(numbers: &[i64]) -> String {
    let numbers: Vec<_> = numbers.iter().map(i64::to_string).collect();
    format!("DELETE FROM notifyman.outbox WHERE number = ANY ('{{{}}}'::pg_catalog.int8[])", numbers.join(","))
}

/// A payload that was too long for NOTIFY.
pub(crate) fn read_spilled(number: i64) -> String {
    format!("SELECT payload FROM notifyman.spilled WHERE number = {number}")
}

/// Removes what every worker has had time to read.
pub(crate) fn clear_spilled(kept: Duration) -> String {
    format!(
        "DELETE FROM notifyman.spilled WHERE written_at < pg_catalog.now() - '{} milliseconds'::pg_catalog.interval",
        kept.as_millis().min(i64::MAX as u128)
    )
}
