//! What a session listens to: one block of memory, however many names there are, which equal sessions can share.

use std::sync::Arc;

/// Names of channels, sorted and each once: one behind the other, each ended by a NUL, which no name holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Channels(Option<Arc<str>>);

impl Channels {
    fn text(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.text().split_terminator('\0')
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.iter().any(|known| known == name)
    }

    /// How many bytes the names take.
    pub(crate) fn size(&self) -> usize {
        self.text().len()
    }
}

impl<'n> FromIterator<&'n str> for Channels {
    fn from_iter<I: IntoIterator<Item = &'n str>>(names: I) -> Self {
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let text: String = names.into_iter().flat_map(|name| [name, "\0"]).collect();
        Self((!text.is_empty()).then(|| text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_there_once() {
        let channels: Channels = ["b", "a", "b", "ab"].into_iter().collect();
        assert_eq!(channels.iter().collect::<Vec<_>>(), ["a", "ab", "b"]);
        assert!(channels.contains("ab") && !channels.contains("abc") && !channels.contains(""));
        assert_eq!(Channels::from_iter([]).iter().count(), 0);
    }
}
