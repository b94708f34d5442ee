//! The channels of a session: one block of memory that equal sessions can share, or a set if there are many.
//!
//! Nearly every session listens to a few channels, and there may be thousands of sessions, so a few names are packed
//! into one string. A session with many names may change them one by one, which must not copy all of them.

use std::collections::BTreeSet;
use std::fmt;
use std::mem;
use std::sync::Arc;

/// Names are packed up to this total number of bytes: copying them costs less than a round trip, and other sessions
/// often have the same names. Longer lists are rarely shared.
const PACKED_MAX: usize = 1024;

/// Names of channels, sorted and without duplicates.
#[derive(Clone)]
pub(crate) enum Channels {
    /// Names separated by NULs, which no name contains; no name is empty.
    Packed(Arc<str>),
    Many(Box<PackedChannels>),
}

/// Many names, and the number of bytes that they would take packed.
#[derive(Clone, Default)]
pub(crate) struct PackedChannels {
    names: BTreeSet<Box<str>>,
    size: usize,
}

impl Default for Channels {
    fn default() -> Self {
        Self::Packed(Arc::default())
    }
}

impl Channels {
    /// Returns the names in the order of their bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let (packed, many) = match self {
            Self::Packed(packed) => ((!packed.is_empty()).then_some(packed), None),
            Self::Many(set) => (None, Some(&set.names)),
        };
        let packed = packed.into_iter().flat_map(|names| names.split('\0'));
        packed.chain(many.into_iter().flatten().map(AsRef::as_ref))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::Packed(_) => self.iter().any(|known| known == name),
            Self::Many(set) => set.names.contains(name),
        }
    }

    /// Adds names; returns `true` if one of them is new.
    pub(crate) fn add<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) -> bool {
        match self {
            Self::Many(set) => names.into_iter().filter(|name| set.add(name)).count() > 0,
            Self::Packed(_) => {
                let names: Vec<&str> = names.into_iter().collect();
                let all = self.iter().chain(names).collect();
                self.replace(all)
            }
        }
    }

    /// Removes names; returns `true` if one of them was there.
    pub(crate) fn remove<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) -> bool {
        let Self::Many(set) = self else {
            let gone: BTreeSet<&str> = names.into_iter().collect();
            let left = self.iter().filter(|name| !gone.contains(name)).collect();
            return self.replace(left);
        };
        let changed = names.into_iter().filter(|name| set.remove(name)).count() > 0;
        // A lower limit, so that a channel that is added and removed repeatedly does not repack the names each time.
        if set.size < PACKED_MAX / 2 {
            *self = mem::take(set).names.iter().map(AsRef::as_ref).collect();
        }
        changed
    }

    /// Replaces all names; returns `true` if that changes anything.
    pub(crate) fn replace(&mut self, with: Self) -> bool {
        let is_changed = *self != with;
        if is_changed {
            *self = with;
        }
        is_changed
    }
}

impl PackedChannels {
    fn add(&mut self, name: &str) -> bool {
        let is_new = !self.names.contains(name) && self.names.insert(name.into());
        self.size += if is_new { name.len() + 1 } else { 0 };
        is_new
    }

    fn remove(&mut self, name: &str) -> bool {
        let was_there = self.names.remove(name);
        self.size -= if was_there { name.len() + 1 } else { 0 };
        was_there
    }
}

impl<'n> FromIterator<&'n str> for Channels {
    fn from_iter<I: IntoIterator<Item = &'n str>>(names: I) -> Self {
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let size = names.iter().map(|name| name.len() + 1).sum();
        if size <= PACKED_MAX {
            return Self::Packed(names.join("\0").into());
        }
        Self::Many(Box::new(PackedChannels { names: names.into_iter().map(Box::from).collect(), size }))
    }
}

impl PartialEq for Channels {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Packed(one), Self::Packed(other)) => one == other,
            (one, other) => one.iter().eq(other.iter()),
        }
    }
}

impl Eq for Channels {}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_sorted_and_without_duplicates() {
        let channels: Channels = ["b", "a", "b", "ab"].into_iter().collect();
        assert_eq!(channels.iter().collect::<Vec<_>>(), ["a", "ab", "b"]);
        assert_eq!(format!("{channels:?}"), r#"["a", "ab", "b"]"#);
        assert!(channels.contains("ab") && !channels.contains("abc") && !channels.contains(""));
        assert_eq!(Channels::from_iter([]).iter().count(), 0);
    }

    #[test]
    fn channels_take_two_words_of_an_idle_session() {
        assert_eq!(size_of::<Channels>(), 2 * size_of::<usize>());
    }

    proptest! {
        /// Long names, so that some steps change between the packed form and the set.
        #[test]
        fn channels_are_the_set_that_the_changes_lead_to(
            steps in prop::collection::vec((any::<bool>(), prop::collection::vec(0..40u32, 0..25)), 0..12),
        ) {
            let (mut channels, mut model) = (Channels::default(), BTreeSet::new());
            for (adds, names) in steps {
                let names: Vec<String> = names.into_iter().map(|n| format!("{n:060}")).collect();
                let before = model.clone();
                let changed = if adds {
                    model.extend(names.iter().cloned());
                    channels.add(names.iter().map(AsRef::as_ref))
                } else {
                    model.retain(|name| !names.contains(name));
                    channels.remove(names.iter().map(AsRef::as_ref))
                };
                prop_assert_eq!(changed, model != before);
                prop_assert!(channels.iter().eq(model.iter()));
                prop_assert!(names.iter().all(|name| channels.contains(name) == model.contains(name)));
                prop_assert_eq!(&channels, &model.iter().map(AsRef::as_ref).collect::<Channels>());
            }
        }
    }
}
