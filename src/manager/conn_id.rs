//! The identity of a connection in a manager.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU16;

use crate::config::Config;
use crate::error::Escaped;
use crate::manager::id_name::{self, IdName};

/// Identifies a connection in a manager.
///
/// Ids are counted from 1 in the order in which connections are given to the manager. A connection keeps its id while it
/// is open, while it is being restored and in the garbage; an id is never used for another connection. To find your own
/// data for a connection, keep a map:
///
/// ```no_run
/// # fn main() -> Result<(), notifyman::Error> {
/// use std::collections::HashMap;
/// use notifyman::{ConnId, Connection, NotificationManager};
///
/// let mut nm = NotificationManager::new([]);
/// let mut shops: HashMap<ConnId, &str> = HashMap::new();
/// for shop in ["berlin", "oslo"] {
///     let mut db = Connection::connect(format!("postgres://db.example/{shop}"))?;
///     db.listen(["prices"])?;
///     shops.insert(nm.insert(db), shop);
/// }
/// for (id, batch) in nm.flatten() {
///     println!("{} prices changed in {}", batch.len(), shops[&id]);
/// }
/// # Ok(()) }
/// ```
///
/// Messages name a connection by its [label](crate::Config::label), or else by its address and database: `Display` shows
/// `berlin`, or `db1:5432/shop#7`, where 7 is the number. Ids are compared by their numbers alone.
///
/// # Limits
///
/// Ids can be copied and kept, so the names in them are never freed. A process keeps up to 65,535 different labels, each of up to
/// 63 bytes, and addresses with databases, of which there are at most 32,767, each truncated to 127 bytes: 13 MB in all. An
/// id with a further one has no name, and shows its number.
#[derive(Clone, Copy)]
pub struct ConnId {
    /// The number, followed by 16 bits for the number of the name; 0 for none.
    packed: u64,
}

impl ConnId {
    /// Returns the id of a connection with this configuration. There are far fewer than 2^48 ids.
    pub(super) fn new(number: u64, config: &Config) -> Self {
        let name = id_name::number_of(config).map_or(0, NonZeroU16::get);
        Self { packed: number << 16 | u64::from(name) }
    }

    /// Returns the id of a connection of an [`EventSource`](crate::EventSource), with a label.
    ///
    /// ```
    /// use notifyman::ConnId;
    ///
    /// let id = ConnId::of_source(1, "berlin");
    /// assert_eq!((id.number(), id.to_string().as_str()), (1, "berlin"));
    /// ```
    ///
    /// # Limits
    ///
    /// Of the number, the lower 48 bits are used, and of the label the first 63 bytes, as of [`Config::label`].
    pub fn of_source(number: u64, label: &str) -> Self {
        Self::new(number, &Config::new().label(label))
    }

    /// Returns the number of the connection, counted from 1 in its manager.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// use notifyman::{Connection, NotificationManager};
    ///
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let url = database();
    /// let mut nm = NotificationManager::new([]);
    /// let id = nm.insert_as("berlin", Connection::connect(url)?);
    /// assert_eq!((id.number(), id.label()), (1, Some("berlin")));
    /// assert_eq!(id.to_string(), "berlin");
    /// # Ok(()) }
    /// ```
    pub fn number(self) -> u64 {
        self.packed >> 16
    }

    /// Returns the label that the connection had when it received this id; it is not escaped.
    pub fn label(self) -> Option<&'static str> {
        self.id_name().filter(|name| name.is_label).map(|name| name.text)
    }

    /// Returns the label, or else the address and the database that the connection had when it received this id, such as
    /// `db1:5432/shop`; it is not escaped. Connections to one database may have equal names.
    ///
    /// ```
    /// let mut nm = notifyman::NotificationManager::new([]);
    /// let id = nm.dial("postgres://app@db1/shop", ["prices"])?;
    /// assert_eq!(id.name(), Some("db1:5432/shop"));
    /// assert_eq!(id.to_string(), "db1:5432/shop#1");
    /// # Ok::<(), notifyman::Error>(())
    /// ```
    pub fn name(self) -> Option<&'static str> {
        self.id_name().map(|name| name.text)
    }

    fn id_name(self) -> Option<IdName<'static>> {
        NonZeroU16::new((self.packed & 0xffff) as u16).and_then(id_name::name_of)
    }

    /// Returns the number of the name; 0 for none.
    #[cfg(feature = "metrics")]
    #[inline]
    pub(crate) fn name_number(self) -> u16 {
        (self.packed & 0xffff) as u16
    }

    #[cfg(test)]
    pub(crate) fn for_test(number: u64) -> Self {
        Self { packed: number << 16 }
    }
}

impl PartialEq for ConnId {
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

impl Eq for ConnId {}

impl PartialOrd for ConnId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ConnId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number().cmp(&other.number())
    }
}

impl Hash for ConnId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number().hash(state);
    }
}

/// Formats the label, or else the address and the database with the number, with control characters [`Escaped`]; without a
/// name, the number.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id_name() {
            Some(IdName { text, is_label: true }) => f.pad(&Escaped(text).to_string()),
            Some(IdName { text, is_label: false }) => f.pad(&format!("{}#{}", Escaped(text), self.number())),
            None => self.number().fmt(f),
        }
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut id = f.debug_tuple("ConnId");
        id.field(&self.number());
        if let Some(name) = self.name() {
            id.field(&name);
        }
        id.finish()
    }
}
