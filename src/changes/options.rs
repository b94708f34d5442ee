//! The options of an installation: its tables, their shape, and the delivery.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

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
/// use notifyman::changes::{DeliveryMode, Installer};
///
/// let installer = Installer::new().delivery(DeliveryMode::Log);
/// assert_eq!("log".parse(), Ok(DeliveryMode::Log));
/// # drop(installer);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeliveryMode {
    /// By NOTIFY, at the commit.
    #[default]
    Notify,
    /// By a log in three tables of the schema `notifyman`, which workers read. It takes no lock at the commit, and goes
    /// with PREPARE TRANSACTION. Changes are kept for [`Installer::keep_for`](super::Installer::keep_for), within
    /// [`Installer::keep_size`](super::Installer::keep_size), so that a worker continues where it stopped.
    Log,
    /// The former outbox. A build refuses it.
    #[deprecated(note = "the outbox is gone: use `DeliveryMode::Log`")]
    Table,
}

/// The reason for which `table` is no delivery any more.
pub(crate) const NO_OUTBOX: &str = "delivery by an outbox (table, DeliveryMode::Table) has been replaced by the log: use --delivery log (DeliveryMode::Log)";

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

impl fmt::Display for DeliveryMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notify => "notify",
            Self::Log => "log",
            #[allow(deprecated, reason = "it has a name, too")]
            Self::Table => "table",
        })
    }
}

impl FromStr for DeliveryMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "notify" => Ok(Self::Notify),
            "log" => Ok(Self::Log),
            "table" => Err(NO_OUTBOX.to_owned()),
            _ => Err("notify or log is needed".to_owned()),
        }
    }
}

/// The age up to which the log keeps changes, unless set.
const KEEP_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// The size of the log's tables, unless set.
const KEEP_SIZE: u64 = 1 << 30;
const KEEP_FOR_LIMITS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 366 * 24 * 60 * 60);
const KEEP_SIZE_LIMITS: RangeInclusive<u64> = 1 << 20..=1 << 60;

/// Everything that can be chosen about an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstallOptions {
    /// The role that owns what runs with rights of its own.
    pub(crate) owner: String,
    pub(crate) schemas: Vec<String>,
    pub(crate) tables: Vec<String>,
    pub(crate) except_schemas: Vec<String>,
    pub(crate) except_tables: Vec<String>,
    pub(crate) shape: Shape,
    pub(crate) oversize: Oversize,
    pub(crate) delivery: DeliveryMode,
    /// The age up to which the log keeps changes: whole seconds.
    pub(crate) keep_for: Duration,
    /// The bytes of the log's tables together.
    pub(crate) keep_size: u64,
    /// The log's tables are unlogged.
    pub(crate) is_unlogged: bool,
    pub(crate) with_query: bool,
    pub(crate) has_schema_events: bool,
    pub(crate) replicated: bool,
}

impl InstallOptions {
    /// Returns `true` if changes are appended to the log, instead of being notified.
    pub(crate) fn has_log(&self) -> bool {
        self.delivery == DeliveryMode::Log
    }

    /// Returns `true` if payloads that are too long for NOTIFY are stored in the table `spilled`.
    pub(crate) fn spills(&self) -> bool {
        self.oversize == Oversize::Spill && self.delivery == DeliveryMode::Notify
    }

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
            "keep_for": self.keep_for.as_secs(),
            "keep_size": self.keep_size,
            "unlogged": self.is_unlogged,
            "with_query": self.with_query,
            "schema_events": self.has_schema_events,
            "replicated": self.replicated,
        })
        .to_string()
    }

    /// Refuses the former outbox, and limits of the log that are none.
    pub(crate) fn check(&self) -> Result<(), String> {
        #[allow(deprecated, reason = "it is refused here")]
        if self.delivery == DeliveryMode::Table {
            return Err(NO_OUTBOX.to_owned());
        }
        if !KEEP_FOR_LIMITS.contains(&self.keep_for) {
            return Err(format!(
                "the log cannot keep changes for {:?}: give from 1 second to 10 years (--keep-for, Installer::keep_for)",
                self.keep_for
            ));
        }
        if !KEEP_SIZE_LIMITS.contains(&self.keep_size) {
            return Err(format!(
                "the log cannot have {} bytes: give from 1 MiB to 1 EiB (--keep-size, Installer::keep_size)",
                self.keep_size
            ));
        }
        Ok(())
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
        let number = |name: &str| value[name].as_u64().ok_or_else(|| format!("no {name}"));
        let options = Self {
            owner: string("owner")?.to_owned(),
            schemas: list("schemas")?,
            tables: list("tables")?,
            except_schemas: list("except_schemas")?,
            except_tables: list("except_tables")?,
            shape: string("shape")?.parse()?,
            oversize: string("oversize")?.parse()?,
            delivery: string("delivery")?.parse()?,
            keep_for: Duration::from_secs(number("keep_for")?),
            keep_size: number("keep_size")?,
            is_unlogged: flag("unlogged")?,
            with_query: flag("with_query")?,
            has_schema_events: flag("schema_events")?,
            replicated: flag("replicated")?,
        };
        Ok((version, Some(options)))
    }
}

impl Default for InstallOptions {
    fn default() -> Self {
        Self {
            owner: "notifyman_owner".to_owned(),
            schemas: Vec::new(),
            tables: Vec::new(),
            except_schemas: Vec::new(),
            except_tables: Vec::new(),
            shape: Shape::default(),
            oversize: Oversize::default(),
            delivery: DeliveryMode::default(),
            keep_for: KEEP_FOR,
            keep_size: KEEP_SIZE,
            is_unlogged: false,
            with_query: false,
            has_schema_events: true,
            replicated: false,
        }
    }
}

/// Returns the owner that an installation of any version names.
pub(crate) fn named_owner(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    value["owner"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_they_were_written() {
        let options = InstallOptions {
            delivery: DeliveryMode::Log,
            keep_size: 1 << 20,
            is_unlogged: true,
            ..InstallOptions::default()
        };
        assert_eq!(InstallOptions::from_json(&options.to_json(3), 3), Ok((3, Some(options))));
    }

    #[test]
    fn of_an_earlier_version_the_owner_is_known() {
        let text = r#"{"version":2,"owner":"o","delivery":"table"}"#;
        assert_eq!(InstallOptions::from_json(text, 3), Ok((2, None)));
        assert_eq!(named_owner(text).as_deref(), Some("o"));
    }

    #[test]
    fn the_former_delivery_is_refused_with_the_new_name() {
        assert!("table".parse::<DeliveryMode>().unwrap_err().contains("--delivery log"));
        assert_eq!("post".parse::<DeliveryMode>(), Err("notify or log is needed".to_owned()));
    }
}
