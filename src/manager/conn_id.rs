//! The identity of a connection in a manager.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU16;

use crate::error::Escaped;
use crate::manager::label;

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
/// Or give the connection a [label](crate::Config::label), for messages: `Display` shows it instead of the number. Ids are
/// compared by their numbers alone.
#[derive(Clone, Copy)]
pub struct ConnId {
    /// The number, followed by 16 bits for the number of the label; 0 for none.
    packed: u64,
}

impl ConnId {
    /// Returns the id of a connection with this label. There are far fewer than 2^48 ids.
    pub(super) fn new(number: u64, label: Option<&str>) -> Self {
        let label = label.and_then(label::number_of).map_or(0, NonZeroU16::get);
        Self { packed: number << 16 | u64::from(label) }
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
    ///
    /// A process keeps up to 65,535 different labels in ids; an id with a further one has none.
    pub fn label(self) -> Option<&'static str> {
        NonZeroU16::new((self.packed & 0xffff) as u16).and_then(label::label_of)
    }

    #[cfg(test)]
    pub(crate) fn for_test(number: u64) -> Self {
        Self::new(number, None)
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

/// Formats the label, with control characters [`Escaped`]; without a label, the number.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.label() {
            Some(label) => f.pad(&Escaped(label).to_string()),
            None => self.number().fmt(f),
        }
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut id = f.debug_tuple("ConnId");
        id.field(&self.number());
        if let Some(label) = self.label() {
            id.field(&label);
        }
        id.finish()
    }
}
