//! A change to one row, to several rows, or to a table's definition.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The kind of statement that changed rows.
///
/// ```
/// use notifyman::changes::Method;
///
/// let method: Method = serde_json::from_str("\"TRUNCATE\"")?;
/// assert_eq!(method, Method::Truncate);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Method {
    /// `INSERT`, also by `COPY`, `MERGE` and `ON CONFLICT`.
    Insert,
    /// `UPDATE`. A row that moves to another partition is a deletion there and an insertion here.
    Update,
    /// `DELETE`.
    Delete,
    /// `TRUNCATE`: all rows of the table, or of the named partition.
    Truncate,
}

/// The part of a change that was left out because the payload would have been too long to send.
///
/// A variant names what is missing. [`Oversize`](super::Oversize) is the opposite: its variants name what is reported.
/// [`Oversize::Key`](super::Oversize::Key) reports the key, and such a change has [`Row`](Self::Row); in a change with
/// [`Key`](Self::Key) the key is missing.
///
/// ```
/// use notifyman::changes::{Change, Truncated};
///
/// /// Returns `true` if the row must be read from the table.
/// fn must_be_read(change: &Change) -> bool {
///     matches!(change.truncated, Some(Truncated::Row | Truncated::Key))
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Truncated {
    /// The text of the query.
    Query,
    /// The query, and all columns that are not part of the row's key.
    Row,
    /// The query and the row, and the key if there is one: something in this table has changed. This is not what
    /// [`Oversize::Key`](super::Oversize::Key) asks for, but a *marker*.
    Key,
}

/// A change to the rows of a table.
///
/// In the rows shape a change is one row: `old_data` is the row before and `new_data` the row after, as objects of
/// columns. In the keys shape it is all rows of one statement that fit one payload, by their [`keys`](Self::keys).
///
/// ```
/// use notifyman::changes::{Change, Method};
///
/// let change: Change = serde_json::from_str(
///     r#"{"number":7,"table_schema":"public","table_name":"price",
///         "session_user":"app","method":"UPDATE","old_data":{"id":1,"cents":41},
///         "new_data":{"id":1,"cents":42},"query":null}"#,
/// )?;
/// assert_eq!(change.method, Method::Update);
/// assert_eq!(change.new_data.unwrap()["cents"], 42);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Values
///
/// Values are as PostgreSQL's `to_json` writes them: numbers, booleans, `null`, strings, arrays, and objects for composite
/// types and JSON; a type that is not built into PostgreSQL is a string. A [`Value`] rounds numbers to 64 bits and keeps
/// the last of several equal keys; [`Changes::payload`](super::Changes::payload) has the exact text.
///
/// A column of type `json` can contain values that no [`Value`] can hold: a number such as `1e400`, half of a surrogate pair
/// (`"\ud800"`), or more than 128 levels of nesting. Such a column becomes a string with its JSON text, and its place is
/// listed in [`unparsed`](Self::unparsed). The [`Deserialize`] implementation returns an error for it instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// The sequence number of the change, unique in its database. The changes of one transaction are in order; between
    /// transactions it is the order of the writes, not of the commits.
    pub number: i64,
    /// The schema of the table; for a partition, the schema of the root of its tree.
    pub table_schema: String,
    /// The name of the table; for a partition, the name of the root of its tree.
    pub table_name: String,
    /// The schema of the partition, if the change was made to a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_schema: Option<String>,
    /// The name of the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_name: Option<String>,
    /// The role that logged in, regardless of `SET ROLE`.
    pub session_user: String,
    /// The kind of statement.
    pub method: Method,
    /// The row before the change, for UPDATE and DELETE in the rows shape.
    pub old_data: Option<Map<String, Value>>,
    /// The row after the change, for INSERT and UPDATE in the rows shape.
    pub new_data: Option<Map<String, Value>>,
    /// In the keys shape, the keys of the rows, each an object of the key's columns; for an UPDATE, the keys before and
    /// after. `None` means that any row may have changed: TRUNCATE, a table without a key, or a key that is too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<Map<String, Value>>>,
    /// The text of the query that the client sent, if the installation includes it.
    pub query: Option<String>,
    /// The part that is missing because the payload would have been too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
    /// `true` if the row is in the table `notifyman.spilled`. A worker reads it from there, so a change from a worker has `true`
    /// only if the row could not be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spilled: bool,
    /// The values that are strings of their JSON text, because no [`Value`] can hold them, as JSON pointers
    /// (RFC 6901) such as `/new_data/document`. Empty in nearly all changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unparsed: Vec<String>,
}

/// The kind of a schema change.
///
/// ```
/// use notifyman::changes::{SchemaChange, SchemaEvent};
///
/// fn drops_table(change: &SchemaChange) -> bool {
///     change.event == SchemaEvent::Dropped && change.object_type == "table"
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SchemaEvent {
    /// Created or altered: see [`SchemaChange::command_tag`].
    Altered,
    /// Dropped, by itself or with something else.
    Dropped,
}

/// A change to a table's definition: the table, or one of its columns, was created, altered or dropped.
///
/// The fields are described at
/// <https://www.postgresql.org/docs/current/functions-event-triggers.html>.
///
/// ```
/// use notifyman::changes::{SchemaChange, SchemaEvent};
///
/// let change: SchemaChange = serde_json::from_str(
///     r#"{"number":8,"event":"altered","session_user":"app","classid":1259,
///         "objid":16385,"objsubid":2,"command_tag":"ALTER TABLE",
///         "object_type":"table column","object_name":"price",
///         "object_identity":"public.price.cents","schema_name":"public",
///         "original":null,"normal":null,
///         "in_extension":false,"is_temporary":false}"#,
/// )?;
/// assert_eq!(change.event, SchemaEvent::Altered);
/// assert_eq!(change.object_identity, "public.price.cents");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SchemaChange {
    /// The sequence number of the change, from the same sequence as [`Change::number`].
    pub number: i64,
    /// Altered or dropped.
    pub event: SchemaEvent,
    /// The role that logged in.
    pub session_user: String,
    /// The OID of the catalog that contains the object.
    pub classid: u32,
    /// The OID of the object.
    pub objid: u32,
    /// The number of the column, or 0.
    pub objsubid: i32,
    /// The command, such as `ALTER TABLE`.
    pub command_tag: String,
    /// The type of the object, such as `table` or `table column`.
    pub object_type: String,
    /// The name of the table.
    pub object_name: Option<String>,
    /// The full name of the object, quoted if necessary.
    pub object_identity: String,
    /// The schema of the table.
    pub schema_name: Option<String>,
    /// For a dropped object, `true` if the command named it, and `false` if it depended on a dropped object.
    pub original: Option<bool>,
    /// For a dropped object, `true` if a normal dependency led to it.
    pub normal: Option<bool>,
    /// `true` if the command is part of an extension's script.
    pub in_extension: Option<bool>,
    /// `true` for a temporary object; changes to those are not reported.
    pub is_temporary: bool,
}
