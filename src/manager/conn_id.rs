//! The identity of a connection in a manager.

use std::fmt;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(super) u64);

impl ConnId {
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn for_test(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
