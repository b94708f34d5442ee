//! The options of an installation: the covered tables, the contents of reports, and the delivery.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The contents of a change: whole rows, or keys.
///
/// ```
/// use notifyman::changes::{Installer, Shape};
///
/// let installer = Installer::new().shape(Shape::Keys);
/// assert_eq!("keys".parse(), Ok(Shape::Keys));
/// # drop(installer);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Shape {
    /// Each change reports one row, as it was before and is after.
    #[default]
    Rows,
    /// A change reports the keys of the rows of one statement, for cache invalidation. In an INSERT of 10,000 rows, its
    /// triggers take about a ninth of the time of those of [`Rows`](Self::Rows) ([costs](super#what-it-costs)).
    Keys,
}

/// The handling of a payload that is too long for NOTIFY, which accepts 7,999 bytes in the database's encoding.
///
/// A variant names what is reported. [`Truncated`](super::Truncated) is the opposite: its variants name what is missing.
///
/// ```
/// use notifyman::changes::{Installer, Oversize};
///
/// let installer = Installer::new().oversize(Oversize::Spill);
/// assert_eq!("spill".parse(), Ok(Oversize::Spill));
/// # drop(installer);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Oversize {
    /// Only the row's key is reported ([`Truncated::Row`](super::Truncated::Row)). If that is too long, or there is none,
    /// only a marker is ([`Truncated::Key`](super::Truncated::Key)).
    #[default]
    Key,
    /// Only a marker is reported: something in the table has changed ([`Truncated::Key`](super::Truncated::Key)).
    Marker,
    /// The payload is stored in the unlogged table `notifyman.spilled`, from which a worker reads it. Payloads of more than
    /// 15 MiB are handled as with [`Key`](Self::Key). A crash of the server empties the table.
    Spill,
}

/// The way in which changes reach a worker.
///
/// ```
/// use notifyman::changes::{DeliveryMode, Installer};
///
/// let installer = Installer::new().delivery(DeliveryMode::Log);
/// assert_eq!("log".parse(), Ok(DeliveryMode::Log));
/// # drop(installer);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeliveryMode {
    /// A trigger notifies, and the server delivers at the commit.
    #[default]
    Notify,
    /// A trigger appends to a log in the schema `notifyman`, which workers read.
    ///
    /// A commit takes no lock, and PREPARE TRANSACTION works. Changes are kept for
    /// [`Installer::keep_for`](super::Installer::keep_for), within [`Installer::keep_size`](super::Installer::keep_size), so a
    /// worker continues where it stopped.
    Log,
    /// The outbox of earlier versions. A build refuses it.
    #[deprecated(note = "the log replaces the outbox: use `DeliveryMode::Log`")]
    Table,
}

/// The error for the former delivery `table`.
pub(crate) const NO_OUTBOX: &str = "delivery by an outbox (table, DeliveryMode::Table) has been replaced by the log: use --delivery log (DeliveryMode::Log)";

/// Implements [`fmt::Display`] and [`FromStr`] with the names that the program and the database use. The name of a variant that
/// is no longer supported is parsed as an error.
macro_rules! names {
    ($type:ident: $($variant:ident = $name:literal),+ $(; $former:ident = $former_name:literal: $error:ident)?) => {
        #[allow(deprecated, reason = "a former variant has a name as well")]
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $($type::$variant => $name,)+
                    $($type::$former => $former_name,)?
                })
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                match name {
                    $($name => Ok($type::$variant),)+
                    $($former_name => Err($error.to_owned()),)?
                    _ => Err(format!("expected {}", [$($name),+].join(" or "))),
                }
            }
        }
    };
}

names!(Shape: Rows = "rows", Keys = "keys");
names!(Oversize: Key = "key", Marker = "marker", Spill = "spill");
names!(DeliveryMode: Notify = "notify", Log = "log"; Table = "table": NO_OUTBOX);

/// The default age up to which the log keeps changes.
const KEEP_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// The default size of the log's tables, in bytes.
const KEEP_SIZE: u64 = 1 << 30;
const KEEP_FOR_LIMITS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 366 * 24 * 60 * 60);
const KEEP_SIZE_LIMITS: RangeInclusive<u64> = 1 << 20..=1 << 60;

/// The options of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstallOptions {
    /// The role that owns the `SECURITY DEFINER` functions.
    pub(crate) owner: String,
    pub(crate) schemas: Vec<String>,
    pub(crate) tables: Vec<String>,
    pub(crate) except_schemas: Vec<String>,
    pub(crate) except_tables: Vec<String>,
    pub(crate) shape: Shape,
    pub(crate) oversize: Oversize,
    pub(crate) delivery: DeliveryMode,
    /// The age up to which the log keeps changes, in whole seconds.
    pub(crate) keep_for: Duration,
    /// The size of the log's tables together, in bytes.
    pub(crate) keep_size: u64,
    /// `true` if the log's tables are unlogged.
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

    /// Returns the options as one line of JSON, with the version of the installation.
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

    /// Returns an error for the former outbox, and for limits of the log that are out of range.
    pub(crate) fn check(&self) -> Result<(), String> {
        #[allow(deprecated, reason = "it is refused here")]
        if self.delivery == DeliveryMode::Table {
            return Err(NO_OUTBOX.to_owned());
        }
        if !KEEP_FOR_LIMITS.contains(&self.keep_for) {
            return Err(format!(
                "the log cannot keep changes for {:?}: use a time from 1 second to 10 years (--keep-for, Installer::keep_for)",
                self.keep_for
            ));
        }
        if !KEEP_SIZE_LIMITS.contains(&self.keep_size) {
            return Err(format!(
                "the log cannot have {} bytes: use a size from 1 MiB to 1 EiB (--keep-size, Installer::keep_size)",
                self.keep_size
            ));
        }
        Ok(())
    }

    /// Parses the text of [`to_json`](Self::to_json): the version, and the options if the version is `known`.
    pub(crate) fn from_json(text: &str, known: i32) -> Result<(i32, Option<Self>), String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let version = field(&value, "version")?;
        if version != known {
            return Ok((version, None));
        }
        let options = Self {
            owner: field(&value, "owner")?,
            schemas: field(&value, "schemas")?,
            tables: field(&value, "tables")?,
            except_schemas: field(&value, "except_schemas")?,
            except_tables: field(&value, "except_tables")?,
            shape: field::<String>(&value, "shape")?.parse()?,
            oversize: field::<String>(&value, "oversize")?.parse()?,
            delivery: field::<String>(&value, "delivery")?.parse()?,
            keep_for: Duration::from_secs(field(&value, "keep_for")?),
            keep_size: field(&value, "keep_size")?,
            is_unlogged: field(&value, "unlogged")?,
            with_query: field(&value, "with_query")?,
            has_schema_events: field(&value, "schema_events")?,
            replicated: field(&value, "replicated")?,
        };
        Ok((version, Some(options)))
    }
}

/// Returns an option from the JSON object of all options.
fn field<T: DeserializeOwned>(options: &Value, name: &str) -> Result<T, String> {
    serde_json::from_value(options[name].clone()).map_err(|_| format!("no {name}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed_as_they_were_printed() {
        let options = InstallOptions {
            delivery: DeliveryMode::Log,
            keep_size: 1 << 20,
            is_unlogged: true,
            ..InstallOptions::default()
        };
        assert_eq!(InstallOptions::from_json(&options.to_json(3), 3), Ok((3, Some(options))));
    }

    #[test]
    fn the_former_delivery_is_refused_with_the_new_name() {
        assert!("table".parse::<DeliveryMode>().unwrap_err().contains("--delivery log"));
        assert_eq!("post".parse::<DeliveryMode>(), Err("expected notify or log".to_owned()));
    }
}
