//! The definition of one installed function: it is created from this, and checked against it.

use crate::changes::sql::dollar_tag;

/// The most bytes of a NOTIFY payload: PostgreSQL requires less than 8,000.
pub(super) const NOTIFY_LIMIT: u32 = 7999;
/// The most bytes of a payload that is stored in a table. A worker reads it as one value.
pub(super) const TABLE_LIMIT: u32 = 15 * 1024 * 1024;

/// The role with whose privileges a function runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecutionRole {
    /// The calling role, which may be any role (`SECURITY INVOKER`).
    Caller,
    /// The owner, for any calling role (`SECURITY DEFINER`). The function only takes plain values, and evaluates nothing that
    /// a user has created.
    Owner,
    /// The role that runs the DDL statement, in an event trigger, with the function's own settings.
    EventTrigger,
}

/// A function of the schema `notifyman`.
#[derive(Debug, Clone)]
pub(crate) struct FunctionDefinition {
    pub(crate) name: String,
    pub(crate) arguments: &'static str,
    pub(super) returns: &'static str,
    pub(crate) runs_as: ExecutionRole,
    /// `true` if a call with constants is evaluated when the expression is planned.
    pub(crate) is_immutable: bool,
    /// The settings while the function runs.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    pub(crate) body: String,
}

/// The settings on which event triggers depend, in the form in which PostgreSQL stores them.
const EVENT_SETTINGS: &[(&str, &str)] = &[
    ("search_path", "pg_catalog, pg_temp"),
    ("quote_all_identifiers", "off"),
    ("lock_timeout", "200ms"),
    // Planning the queries takes ten times as long as running them.
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];

impl FunctionDefinition {
    pub(super) fn new(
        name: &str,
        arguments: &'static str,
        returns: &'static str,
        runs_as: ExecutionRole,
        body: &str,
    ) -> Self {
        // An unqualified name is a variable, not a column, whatever the session has set.
        let body = format!("\n#variable_conflict use_variable\n{}\n", body.trim_end());
        let settings = if runs_as == ExecutionRole::EventTrigger { EVENT_SETTINGS } else { &[] };
        Self { name: name.to_owned(), arguments, returns, runs_as, is_immutable: false, settings, body }
    }

    /// Creates the function of a trigger on tables.
    pub(super) fn trigger(name: &str, body: &str) -> Self {
        Self::new(name, "", "trigger", ExecutionRole::Caller, body)
    }

    /// Returns the statements that create or replace the function, and set its owner and privileges.
    ///
    /// `owner` owns the `SECURITY DEFINER` functions. The installing role owns all others, including those that another role
    /// created before.
    pub(crate) fn sql(&self, owner: &str) -> String {
        let Self { name, arguments, returns, runs_as, is_immutable, settings, body } = self;
        let (security, role) = match runs_as {
            ExecutionRole::Owner => (" SECURITY DEFINER", owner),
            ExecutionRole::Caller | ExecutionRole::EventTrigger => ("", "CURRENT_USER"),
        };
        let set = |(name, value): &(&str, &str)| format!("\n    SET {name} = {}", setting(value));
        let attributes = security.to_owned() + &settings.iter().map(set).collect::<String>();
        let (grant, to) = match runs_as {
            ExecutionRole::EventTrigger => ("REVOKE ALL", "FROM"),
            ExecutionRole::Caller | ExecutionRole::Owner => ("GRANT EXECUTE", "TO"),
        };
        let function = format!("notifyman.{name}({arguments})");
        let volatility = if *is_immutable { " IMMUTABLE" } else { "" };
        let tag = dollar_tag(body);
        format!(
            "CREATE OR REPLACE FUNCTION {function} RETURNS {returns} LANGUAGE plpgsql{volatility}{attributes} \
             AS {tag}{body}{tag};\n\
             {grant} ON FUNCTION {function} {to} PUBLIC;\nALTER FUNCTION {function} OWNER TO {role};\n"
        )
    }
}

fn setting(value: &str) -> String {
    if value.contains(", ") { value.to_owned() } else { format!("'{value}'") }
}
