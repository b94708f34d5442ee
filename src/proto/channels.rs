//! What a session listens to: one block of memory, however many names there are, which equal sessions can share.

use std::fmt;
use std::sync::Arc;

/// Names of channels, sorted and each once: one behind the other, parted by NULs, which no name holds; nor is any empty.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Channels(Option<Arc<str>>);

impl Channels {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|text| text.split('\0'))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.iter().any(|known| known == name)
    }

    /// How many bytes the names take.
    pub(crate) fn size(&self) -> usize {
        self.0.as_ref().map_or(0, |text| text.len())
    }
}

impl<'n> FromIterator<&'n str> for Channels {
    fn from_iter<I: IntoIterator<Item = &'n str>>(names: I) -> Self {
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Self((!names.is_empty()).then(|| names.join("\0").into()))
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_there_once() {
        let channels: Channels = ["b", "a", "b", "ab"].into_iter().collect();
        assert_eq!(channels.iter().collect::<Vec<_>>(), ["a", "ab", "b"]);
        assert_eq!(format!("{channels:?}"), r#"["a", "ab", "b"]"#);
        assert!(channels.contains("ab") && !channels.contains("abc") && !channels.contains(""));
        assert_eq!(Channels::from_iter([]).iter().count(), 0);
    }
}
