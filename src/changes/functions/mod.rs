//! Every function that is installed: its definition, from which it is made and against which it is checked.

mod log;

use super::options::{DeliveryMode, InstallOptions, Oversize, Shape};
use super::shape::TableShape;
use super::sql::{self, render};

/// The most bytes that NOTIFY takes: PostgreSQL, "NOTIFY", says less than 8,000.
const NOTIFY_LIMIT: u32 = 7999;
/// The most bytes of a payload that is stored in a table, which a worker reads as one value.
const TABLE_LIMIT: u32 = 15 * 1024 * 1024;
/// A row with a value of more bytes is not read to be reported by NOTIFY: what is stored may be longer than its JSON.
const VALUE_LIMIT: u32 = 16 * 1024;

/// Names of functions that serve any table, and of the prefix of those made for tables with equal columns.
pub(crate) const KINDS: [&str; 5] = ["rows", "insert_keys", "update_keys", "delete_keys", "row_keys"];
/// The functions of a TRUNCATE trigger, and of tables whose values must not be read: they know nothing of their table.
pub(crate) const ROWLESS: [&str; 2] = ["truncated", "markers"];

/// The role as which a function runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// As the role that calls it, which may be any.
    AsCaller,
    /// As its owner, for any role: it takes numbers and plain values only, and evaluates nothing that a user made.
    AsOwner,
    /// In an event trigger, as the role that runs the statement, with settings of its own.
    InEventTrigger,
}

/// A function of the schema `notifyman`.
#[derive(Debug, Clone)]
pub(crate) struct FunctionDefinition {
    pub(crate) name: String,
    pub(crate) arguments: &'static str,
    returns: &'static str,
    pub(crate) runs: Runs,
    /// It is run when an expression is planned, if its arguments are constants.
    pub(crate) is_immutable: bool,
    /// Settings while it runs.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    pub(crate) body: String,
}

/// Settings that event triggers depend on, as PostgreSQL keeps them.
const EVENT_SETTINGS: &[(&str, &str)] = &[
    ("search_path", "pg_catalog, pg_temp"),
    ("quote_all_identifiers", "off"),
    ("lock_timeout", "200ms"),
    // To plan the queries takes ten times what it takes to run them.
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];

impl FunctionDefinition {
    fn new(name: &str, arguments: &'static str, returns: &'static str, runs: Runs, body: &str) -> Self {
        // A plain name is a variable rather than a column, whatever the session says.
        let body = format!("\n#variable_conflict use_variable\n{}\n", body.trim_end());
        let settings = if runs == Runs::InEventTrigger { EVENT_SETTINGS } else { &[] };
        Self { name: name.to_owned(), arguments, returns, runs, is_immutable: false, settings, body }
    }

    fn trigger(name: &str, body: &str) -> Self {
        Self::new(name, "", "trigger", Runs::AsCaller, body)
    }

    /// The statements that make it, or make it again, with its privileges.
    ///
    /// `owner` owns what runs with rights of its own. The role that installs owns the rest, also what another role made
    /// before.
    pub(crate) fn sql(&self, owner: &str) -> String {
        let Self { name, arguments, returns, runs, is_immutable, settings, body } = self;
        let (security, role) = match runs {
            Runs::AsOwner => (" SECURITY DEFINER", owner),
            Runs::AsCaller | Runs::InEventTrigger => ("", "CURRENT_USER"),
        };
        let set = |(name, value): &(&str, &str)| format!("\n    SET {name} = {}", setting(value));
        let attributes = security.to_owned() + &settings.iter().map(set).collect::<String>();
        let privilege = match runs {
            Runs::InEventTrigger => "REVOKE ALL ON FUNCTION {function} FROM PUBLIC",
            Runs::AsCaller | Runs::AsOwner => "GRANT EXECUTE ON FUNCTION {function} TO PUBLIC",
        };
        let function = format!("notifyman.{name}({arguments})");
        let volatility = if *is_immutable { " IMMUTABLE" } else { "" };
        let tag = dollar_tag(body);
        format!(
            "CREATE OR REPLACE FUNCTION {function} RETURNS {returns} LANGUAGE plpgsql{volatility}{attributes} \
             AS {tag}{body}{tag};\n\
             {};\nALTER FUNCTION {function} OWNER TO {role};\n",
            render(privilege, &[("function", &function)])
        )
    }
}

fn setting(value: &str) -> String {
    if value.contains(", ") { value.to_owned() } else { format!("'{value}'") }
}

/// A dollar quote that does not occur in the body, which may name any column.
pub(crate) fn dollar_tag(body: &str) -> String {
    (0_u32..).map(|n| format!("$body{n}$")).find(|tag| !body.contains(tag.as_str())).unwrap_or_default()
}

/// The functions of every installation with these options; those of tables apart.
pub(crate) fn common(options: &InstallOptions) -> Vec<FunctionDefinition> {
    let mut functions = called(options).to_vec();
    let kinds = match options.shape {
        Shape::Rows => &KINDS[..1],
        Shape::Keys => &KINDS[1..],
    };
    functions.extend(kinds.iter().map(|kind| of_tables(kind, kind, &TableShape::any(), options)));
    functions.extend(rowless(options));
    if !options.no_schema_events {
        functions.extend(event_triggers(options));
    }
    functions
}

/// The function of this kind for tables of one shape.
pub(crate) fn of_tables(name: &str, kind: &str, shape: &TableShape, options: &InstallOptions) -> FunctionDefinition {
    let body = if kind == "rows" { rows(shape, options) } else { keys(kind, shape, options) };
    FunctionDefinition::trigger(name, &body)
}

fn spills(options: &InstallOptions) -> bool {
    options.oversize == Oversize::Spill && options.delivery == DeliveryMode::Notify
}

/// The functions that triggers call, with any options: so another build changes none while triggers that need it work.
fn called(options: &InstallOptions) -> Vec<FunctionDefinition> {
    let limit = TABLE_LIMIT.to_string();
    let spill = render(include_str!("../sql/spill.sql"), &[("limit", &limit)]);
    let mut functions = vec![
        payload(options),
        payloads(options),
        FunctionDefinition::new("spill", "payload text", "text", Runs::AsOwner, &spill),
    ];
    functions.extend(log::called(options));
    functions
}

fn payload(options: &InstallOptions) -> FunctionDefinition {
    let truncated = "CASE WHEN truncated IS NOT NULL THEN pg_catalog.concat(',\"truncated\":\"',\n            \
         CASE WHEN old_data IS NULL AND new_data IS NULL THEN 'key' ELSE truncated END, '\"') END, '}'";
    let (declare, rest, shorten) = match options.with_query {
        false => ("", format!("',\"query\":null', {truncated}"), ""),
        true => (
            "\n    query   pg_catalog.text := CASE WHEN truncated IS NULL THEN pg_catalog.to_json(\n        \
             pg_catalog.left(pg_catalog.current_query(), max_bytes))::pg_catalog.text END;",
            format!("',\"query\":', coalesce(query, 'null'), {truncated}"),
            "\n    IF query IS NOT NULL THEN\n        payload := pg_catalog.concat(pg_catalog.left(payload, \
             -1 OPERATOR(pg_catalog.-) pg_catalog.length(query)), 'null,\"truncated\":\"query\"}');\n        \
             IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.<=) max_bytes THEN\n            \
             RETURN payload;\n        END IF;\n    END IF;",
        ),
    };
    let values = [("declare", declare), ("rest", &*rest), ("shorten", shorten)];
    FunctionDefinition::new(
        "payload",
        "relation oid, table_schema text, table_name text, method text, old_data json, new_data json, truncated text, \
         max_bytes integer",
        "text",
        Runs::AsOwner,
        &render(include_str!("../sql/payload.sql"), &values),
    )
}

fn payloads(options: &InstallOptions) -> FunctionDefinition {
    let (query, shorten) = query_of_keys(options);
    FunctionDefinition::new(
        "payloads",
        "relation oid, table_schema text, table_name text, method text, old_keys text[], new_keys text[]",
        "text[]",
        Runs::AsOwner,
        &render(include_str!("../sql/payloads.sql"), &[("query", query), ("shorten", shorten)]),
    )
}

/// The query of a statement that is reported by keys, as an SQL expression, and what shortens it.
fn query_of_keys(options: &InstallOptions) -> (&'static str, &'static str) {
    match options.with_query {
        false => ("'null'", ""),
        true => (
            "coalesce(pg_catalog.to_json(\n        pg_catalog.left(pg_catalog.current_query(), 7999))::pg_catalog.text, 'null')",
            "\n    IF pg_catalog.octet_length(query) OPERATOR(pg_catalog.>) 4000 THEN\n        \
             query := 'null,\"truncated\":\"query\"';\n    END IF;",
        ),
    }
}

fn event_triggers(options: &InstallOptions) -> [FunctionDefinition; 2] {
    let (report, end) = match is_logged(options) {
        false => {
            ("PERFORM pg_notify('notifyman', notifyman.payload(NULL, NULL, NULL, NULL, NULL, ", ", NULL, NULL)) FROM")
        }
        // The number is drawn as it is appended.
        true => ("PERFORM notifyman.append(concat('{\"number\":0,', substr(", "::text, 2))) FROM"),
    };
    let tables = sql::tables(options, "c.oid = ANY (part)");
    let cover = render(include_str!("../sql/cover.sql"), &[("tables", &tables), ("report", report), ("end", end)]);
    let selection = sql::selection(options);
    let values = [
        ("cover", cover.trim_end()),
        ("report", report),
        ("end", end),
        ("options", &selection.options),
        ("coverable", &selection.coverable),
        ("named", &selection.named),
    ];
    [("on_ddl", include_str!("../sql/ddl.sql")), ("on_drop", include_str!("../sql/drop.sql"))].map(|(name, text)| {
        FunctionDefinition::new(name, "", "event_trigger", Runs::InEventTrigger, &render(text, &values))
    })
}

fn is_logged(options: &InstallOptions) -> bool {
    options.delivery == DeliveryMode::Log
}

/// An expression of a trigger function's block, which fails where the log cannot be written.
fn checked(expression: &str) -> String {
    format!("CASE WHEN {} THEN\n            {expression} END", log::CHECK)
}

/// Sends the variable `payload`, as a condition: it is evaluated in place, which PERFORM would not be.
fn delivered(options: &InstallOptions) -> &'static str {
    match is_logged(options) {
        false => "pg_catalog.pg_notify('notifyman', payload)",
        true => "notifyman.append(payload)",
    }
}

/// A payload without a number, for an installation that is damaged: of the log there is none then.
fn unnumbered(options: &InstallOptions) -> &'static str {
    match is_logged(options) {
        false => include_str!("../sql/unnumbered.sql").trim_ascii_end(),
        true => {
            "RAISE WARNING 'notifyman: a change is not reported, since the installation is damaged'\n                \
             USING HINT = 'Run `notifyman build` with the same options.';\n            RETURN nothing;"
        }
    }
}

/// A payload of the trigger's table with at most so many bytes, as an SQL expression.
fn payload_of(old: &str, new: &str, truncated: &str, limit: u32) -> String {
    format!(
        "notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,\n            \
         {old}, {new}, {truncated}, {limit})"
    )
}

fn rows(shape: &TableShape, options: &InstallOptions) -> String {
    let is_logged = is_logged(options);
    let reads_long = spills(options) || is_logged;
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
    let spill = match spills(options) {
        true => format!(
            "\n    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) {NOTIFY_LIMIT} THEN\n        \
             payload := notifyman.spill(payload);\n    END IF;"
        ),
        false => String::new(),
    };
    let reduced = if is_logged { checked(&reduced) } else { reduced };
    render(
        if is_logged { include_str!("../sql/rows_log.sql") } else { include_str!("../sql/rows.sql") },
        &[
            ("guarded", &guarded),
            ("whole", &whole),
            ("spill", &spill),
            ("reduced", &reduced),
            ("unnumbered", unnumbered(options)),
        ],
    )
}

fn keys(kind: &str, shape: &TableShape, options: &InstallOptions) -> String {
    let any = TableShape::any();
    let values = [("unnumbered", unnumbered(options)), ("delivered", delivered(options))];
    if is_logged(options) {
        let of = |shape: &TableShape| {
            let [old, new] = arrays_of_keys(kind, shape);
            let set = |name, keys: Option<String>| keys.map(|keys| format!("{name} := {};", checked(&keys)));
            [set("old_keys", old), set("new_keys", new)]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("\n            ")
        };
        let keys = [("keys", &*of(shape)), ("recovered", &*of(&any))];
        return render(include_str!("../sql/keys_log.sql"), &[&keys[..], &values].concat());
    }
    let of = |shape: &TableShape| {
        let [old, new] = arrays_of_keys(kind, shape).map(|keys| keys.unwrap_or_else(|| "NULL".to_owned()));
        format!(
            "notifyman.payloads(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,\n            {old},\n            {new})"
        )
    };
    let payloads = [("payloads", &*of(shape)), ("recovered", &*of(&any))];
    render(include_str!("../sql/keys.sql"), &[&payloads[..], &values].concat())
}

/// The keys of the rows before and after, as SQL expressions, as far as there are such rows.
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

/// The functions that know nothing of their tables.
fn rowless(options: &InstallOptions) -> [FunctionDefinition; 2] {
    let truncated = match options.shape {
        Shape::Rows => payload_of("NULL", "NULL", "NULL", NOTIFY_LIMIT),
        Shape::Keys => "(notifyman.payloads(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,\n            \
             NULL, ARRAY[NULL::pg_catalog.text]))[1]"
            .to_owned(),
    };
    let marker = payload_of("NULL", "NULL", "'key'", NOTIFY_LIMIT);
    let function = |name, payload: &str| {
        let payload = if is_logged(options) { checked(payload) } else { payload.to_owned() };
        let values = [("payload", &*payload), ("unnumbered", unnumbered(options)), ("delivered", delivered(options))];
        FunctionDefinition::trigger(name, &render(include_str!("../sql/rowless.sql"), &values))
    };
    let [first, second] = ROWLESS;
    [function(first, &truncated), function(second, &marker)]
}
