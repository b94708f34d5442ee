//! The options of an installation: its tables, their shape, and the delivery.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

/// The rows that a change reports.
///
/// ```
/// use notifyman::changes::{Installer, Shape};
///
/// let installer = Installer::new().shape(Shape::Keys);
/// assert_eq!("keys".parse(), Ok(Shape::Keys));
/// # drop(installer);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Each row by itself, whole, before and after.
    #[default]
    Rows,
    /// The rows of one statement, by their keys: for cache invalidation. In large statements it costs
    /// a fraction.
    Keys,
}

/// The report of a payload that is longer than NOTIFY takes: 7,999 bytes in the database's encoding.
///
/// ```
/// use notifyman::changes::{Installer, Oversize};
///
/// let installer = Installer::new().oversize(Oversize::Spill);
/// assert_eq!("spill".parse(), Ok(Oversize::Spill));
/// # drop(installer);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oversize {
    /// Only the row's key is reported; where that is too long, or there is none, a marker.
    #[default]
    Key,
    /// Only that something changed in the table: [`Truncated::Key`](super::Truncated::Key).
    Marker,
    /// It is stored in the unlogged table `notifyman.spilled`, from which a stream reads it. Beyond 15 MiB, and once a
    /// crash of the server has emptied the table, it is as with `Key`.
    Spill,
}

/// The delivery of changes.
///
/// ```
/// use notifyman::changes::{Delivery, Installer};
///
/// let installer = Installer::new().delivery(Delivery::Table);
/// assert_eq!("table".parse(), Ok(Delivery::Table));
/// # drop(installer);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// By NOTIFY, at the commit.
    #[default]
    Notify,
    /// By the table `notifyman.outbox`, which a worker polls: it takes no lock at the commit, can't be full, and goes
    /// with PREPARE TRANSACTION; nothing is lost while no worker runs.
    Table,
}

/// Names for [`fmt::Display`] and [`FromStr`], as the program and the database have them.
macro_rules! names {
    ($type:ident: $($variant:ident = $name:literal),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$variant => $name),+ })
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                match name {
                    $($name => Ok($type::$variant),)+
                    _ => Err([$($name),+].join(" or ") + " is needed"),
                }
            }
        }
    };
}

names!(Shape: Rows = "rows", Keys = "keys");
names!(Oversize: Key = "key", Marker = "marker", Spill = "spill");
names!(Delivery: Notify = "notify", Table = "table");

/// Everything that can be chosen about an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The role that owns what runs with rights of its own.
    pub(crate) owner: String,
    pub(crate) schemas: Vec<String>,
    pub(crate) tables: Vec<String>,
    pub(crate) except_schemas: Vec<String>,
    pub(crate) except_tables: Vec<String>,
    pub(crate) shape: Shape,
    pub(crate) oversize: Oversize,
    pub(crate) delivery: Delivery,
    pub(crate) with_query: bool,
    pub(crate) no_schema_events: bool,
    pub(crate) replicated: bool,
}

impl Options {
    /// The options as one line of JSON, with the version of what is installed.
    pub(crate) fn to_json(&self, version: i32) -> String {
        json!({
            "version": version,
            "owner": self.owner,
            "schemas": self.schemas,
            "tables": self.tables,
            "except_schemas": self.except_schemas,
            "except_tables": self.except_tables,
            "shape": self.shape.to_string(),
            "oversize": self.oversize.to_string(),
            "delivery": self.delivery.to_string(),
            "with_query": self.with_query,
            "schema_events": !self.no_schema_events,
            "replicated": self.replicated,
        })
        .to_string()
    }

    /// Parses what [`to_json`](Self::to_json) wrote: the version, and the options if this program knows that version.
    pub(crate) fn from_json(text: &str, known: i32) -> Result<(i32, Option<Self>), String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let version = value["version"].as_i64().and_then(|version| version.try_into().ok()).ok_or("no version")?;
        if version != known {
            return Ok((version, None));
        }
        let list = |name: &str| serde_json::from_value(value[name].clone()).map_err(|_| format!("no {name}"));
        let string = |name: &str| value[name].as_str().ok_or_else(|| format!("no {name}"));
        let flag = |name: &str| value[name].as_bool().ok_or_else(|| format!("no {name}"));
        let options = Self {
            owner: string("owner")?.to_owned(),
            schemas: list("schemas")?,
            tables: list("tables")?,
            except_schemas: list("except_schemas")?,
            except_tables: list("except_tables")?,
            shape: string("shape")?.parse()?,
            oversize: string("oversize")?.parse()?,
            delivery: string("delivery")?.parse()?,
            with_query: flag("with_query")?,
            no_schema_events: !flag("schema_events")?,
            replicated: flag("replicated")?,
        };
        Ok((version, Some(options)))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            owner: "notifyman_owner".to_owned(),
            schemas: Vec::new(),
            tables: Vec::new(),
            except_schemas: Vec::new(),
            except_tables: Vec::new(),
            shape: Shape::default(),
            oversize: Oversize::default(),
            delivery: Delivery::default(),
            with_query: false,
            no_schema_events: false,
            replicated: false,
        }
    }
}
