//! What is told: the change of a row, of several rows, or of a table's definition.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a statement did.
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
    /// `TRUNCATE`: all rows of the table, or of the partition that is named.
    Truncate,
}

/// What was left out of a change, because the payload would have been longer than can be sent.
///
/// ```
/// use notifyman::changes::{Change, Truncated};
///
/// /// Whether the row must be read from the table.
/// fn is_to_be_read(change: &Change) -> bool {
///     matches!(change.truncated, Some(Truncated::Row | Truncated::Key))
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Truncated {
    /// The query's text.
    Query,
    /// Also all of the row but its key.
    Row,
    /// Also the key, or there is none: something has changed in this table.
    Key,
}

/// A change to the rows of a table.
///
/// In the rows shape it is one row: `old_data` is what it was and `new_data` what it is, objects of columns. In the
/// keys shape it is as many rows as one statement wrote and one payload holds, by their [`keys`](Self::keys).
///
/// ```
/// use notifyman::changes::{Change, Method};
///
/// let change: Change = serde_json::from_str(
///     r#"{"number":7,"table_schema":"public","table_name":"price","session_user":"app","method":"UPDATE",
///         "old_data":{"id":1,"cents":41},"new_data":{"id":1,"cents":42},"query":null}"#,
/// )?;
/// assert_eq!(change.method, Method::Update);
/// assert_eq!(change.new_data.unwrap()["cents"], 42);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// Values are what `to_json` makes of them: numbers, booleans, `null`, strings, arrays, and objects for composite types
/// and JSON; what isn't built into PostgreSQL is a string. Numbers wider than 64 bits lose digits in a [`Value`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// Counts the changes of a database, so that no two are equal. One transaction's are in order; between transactions
    /// it is the order of the writes, not of the commits.
    pub number: i64,
    /// The schema of the table; of a partition, that of the root of its tree.
    pub table_schema: String,
    /// The table; of a partition, the root of its tree.
    pub table_name: String,
    /// The partition's schema, where the change was to a partition by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_schema: Option<String>,
    /// The partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_name: Option<String>,
    /// Who was logged in, whatever role had been set.
    pub session_user: String,
    /// What was done.
    pub method: Method,
    /// The row before, for UPDATE and DELETE in the rows shape.
    pub old_data: Option<Map<String, Value>>,
    /// The row after, for INSERT and UPDATE in the rows shape.
    pub new_data: Option<Map<String, Value>>,
    /// In the keys shape, the keys of the rows, each an object of the key's columns; of an UPDATE those before and
    /// after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<Map<String, Value>>>,
    /// The text that the client sent, where that was asked for.
    pub query: Option<String>,
    /// What is missing, because it was too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
    /// Whether the rest is in the table `notifyman.spilled`; a stream reads it, so there this is seen only where that
    /// failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spilled: bool,
}

/// Which of the two a schema change is.
///
/// ```
/// use notifyman::changes::{SchemaChange, SchemaEvent};
///
/// fn forgets(change: &SchemaChange) -> bool {
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

/// A change to a table's definition: it, or a column of it, was created, altered or dropped.
///
/// What the fields are is told under
/// <https://www.postgresql.org/docs/current/functions-event-triggers.html>.
///
/// ```
/// use notifyman::changes::{SchemaChange, SchemaEvent};
///
/// let change: SchemaChange = serde_json::from_str(
///     r#"{"number":8,"event":"altered","session_user":"app","classid":1259,"objid":16385,"objsubid":2,
///         "command_tag":"ALTER TABLE","object_type":"table column","object_name":"price",
///         "object_identity":"public.price.cents","schema_name":"public","original":null,"normal":null,
///         "in_extension":false,"is_temporary":false}"#,
/// )?;
/// assert_eq!(change.event, SchemaEvent::Altered);
/// assert_eq!(change.object_identity, "public.price.cents");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SchemaChange {
    /// Counts the changes of a database, together with [`Change::number`].
    pub number: i64,
    /// Altered or dropped.
    pub event: SchemaEvent,
    /// Who was logged in.
    pub session_user: String,
    /// The catalog that the object is in.
    pub classid: u32,
    /// The object's OID.
    pub objid: u32,
    /// The column's number, or 0.
    pub objsubid: i32,
    /// The command, such as `ALTER TABLE`.
    pub command_tag: String,
    /// Such as `table` or `table column`.
    pub object_type: String,
    /// The table's name.
    pub object_name: Option<String>,
    /// The object's whole name, quoted where it must be.
    pub object_identity: String,
    /// The table's schema.
    pub schema_name: Option<String>,
    /// Whether it was the command's own object that was dropped, rather than one that went with it.
    pub original: Option<bool>,
    /// Whether what led to it was an ordinary dependency.
    pub normal: Option<bool>,
    /// Whether an extension's script did it.
    pub in_extension: Option<bool>,
    /// Whether it was temporary; those aren't told.
    pub is_temporary: bool,
}

/// One payload, read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Payload {
    Change(Box<Change>),
    Schema(Box<SchemaChange>),
}

impl Payload {
    /// Reads what a trigger sent; bytes that aren't UTF-8 (of a `SQL_ASCII` database) are replaced.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&String::from_utf8_lossy(bytes))
    }
}
