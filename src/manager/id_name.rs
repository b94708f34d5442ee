//! The names in the ids of connections: labels, and addresses with databases.
//!
//! An id is copied freely and kept for any time, so it has the number of its name, and the names are kept as long as the
//! process runs. Their number and their lengths are limited, so that their memory is, too: to 13 MB. Labels cannot be displaced
//! by other names, which can take only half of the numbers.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::{LazyLock, PoisonError, RwLock};

use crate::config::Config;
use crate::connection::{database_of, host_of};

/// All names of ids in this process.
static NAMES: LazyLock<RwLock<NameTable>> = LazyLock::new(RwLock::default);

/// The limit of the number of names that are no labels.
const DEFAULTS_MAX: usize = 32_767;
/// The limit of the length of a name that is no label, in bytes.
const DEFAULT_LENGTH_MAX: usize = 127;

/// The name of a connection in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct IdName<'n> {
    pub(super) text: &'n str,
    /// `true` for a label that the program has given, `false` for an address with a database.
    pub(super) is_label: bool,
}

#[derive(Default)]
struct NameTable {
    names: Vec<IdName<'static>>,
    numbers: HashMap<IdName<'static>, NonZeroU16>,
    /// The number of names that are no labels.
    defaults: usize,
}

impl NameTable {
    fn add(&mut self, name: IdName<'_>) -> Option<NonZeroU16> {
        if let Some(number) = self.numbers.get(&name) {
            return Some(*number);
        }
        if !name.is_label && self.defaults >= DEFAULTS_MAX {
            return None;
        }
        let number = u16::try_from(self.names.len() + 1).ok().and_then(NonZeroU16::new)?;
        let name = IdName { text: Box::leak(name.text.into()), ..name };
        self.defaults += usize::from(!name.is_label);
        self.names.push(name);
        self.numbers.insert(name, number);
        Some(number)
    }
}

/// Returns the number of the name of a connection with this configuration; `None` if it has no name, or there are too many
/// others.
pub(super) fn number_of(config: &Config) -> Option<NonZeroU16> {
    match config.get_label() {
        Some(label) => number_of_name(IdName { text: label, is_label: true }),
        None => number_of_name(IdName { text: &default_name(config)?, is_label: false }),
    }
}

/// Returns the name of a connection without a label, such as `db1:5432/shop`.
fn default_name(config: &Config) -> Option<String> {
    let host = host_of(config);
    if host.is_empty() {
        return None;
    }
    let mut name = format!("{host}/{}", database_of(config));
    if name.len() > DEFAULT_LENGTH_MAX {
        let is_end = |at: &usize| name.is_char_boundary(*at);
        name.truncate((0..=DEFAULT_LENGTH_MAX - 2).rfind(is_end).unwrap_or_default());
        name.push_str("..");
    }
    Some(name)
}

fn number_of_name(name: IdName<'_>) -> Option<NonZeroU16> {
    let known = NAMES.read().unwrap_or_else(PoisonError::into_inner).numbers.get(&name).copied();
    known.or_else(|| NAMES.write().unwrap_or_else(PoisonError::into_inner).add(name))
}

/// Returns the name with this number.
pub(super) fn name_of(number: NonZeroU16) -> Option<IdName<'static>> {
    let index = usize::from(number.get()) - 1;
    NAMES.read().unwrap_or_else(PoisonError::into_inner).names.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> IdName<'_> {
        IdName { text, is_label: true }
    }

    fn default(text: &str) -> IdName<'_> {
        IdName { text, is_label: false }
    }

    #[test]
    fn m21_names_are_kept_once_and_leave_room_for_labels() {
        let mut table = NameTable::default();
        let first = table.add(label("berlin")).unwrap();
        assert_ne!(table.add(label("oslo")), Some(first));
        assert_ne!(table.add(default("berlin")), Some(first), "a label is not an address");
        assert_eq!((table.add(label("berlin")), table.names.len()), (Some(first), 3));
        assert!((1..DEFAULTS_MAX).all(|n| table.add(default(&n.to_string())).is_some()));
        assert_eq!(table.add(default("one too many")), None);
        assert!(table.add(default("1")).is_some());
        assert!((2..65_535 - DEFAULTS_MAX).all(|n| table.add(label(&n.to_string())).is_some()));
        assert_eq!((table.add(label("one too many")), table.names.len()), (None, 65_535));
        assert_eq!(table.add(label("berlin")), Some(first));
    }

    #[test]
    fn m21_a_connection_without_a_label_is_named_by_address_and_database() {
        let name = |dsn: &str| number_of(&Config::without_env(dsn).unwrap()).and_then(name_of).map(|name| name.text);
        assert_eq!(name("postgres://app@db1/shop"), Some("db1:5432/shop"));
        assert_eq!(name("host=db1,::1 port=5432,5433 user=app"), Some("db1:5432,[::1]:5433/app"));
        assert_eq!(name("host=/run/pg user=app dbname=shop"), Some("/run/pg/.s.PGSQL.5432/shop"));
        let long = name(&format!("host={} user=app", "é".repeat(100))).unwrap();
        assert!(long.len() <= DEFAULT_LENGTH_MAX && long.starts_with("éé") && long.ends_with("é.."), "{long}");
        let labelled = Config::without_env("postgres://app@db1/shop").unwrap().label("berlin");
        assert_eq!(number_of(&labelled).and_then(name_of), Some(label("berlin")));
    }
}
