//! The labels in the ids of connections.
//!
//! An id is copied freely and kept for any time, so it has the number of its label, and the labels are kept as long as the
//! process runs. Their number is limited, so that their memory is, too.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::{LazyLock, PoisonError, RwLock};

/// All labels of ids in this process.
static LABELS: LazyLock<RwLock<LabelTable>> = LazyLock::new(RwLock::default);

#[derive(Default)]
struct LabelTable {
    labels: Vec<&'static str>,
    numbers: HashMap<&'static str, NonZeroU16>,
}

impl LabelTable {
    fn add(&mut self, label: &str) -> Option<NonZeroU16> {
        if let Some(number) = self.numbers.get(label) {
            return Some(*number);
        }
        let number = u16::try_from(self.labels.len() + 1).ok().and_then(NonZeroU16::new)?;
        let label: &'static str = Box::leak(label.into());
        self.labels.push(label);
        self.numbers.insert(label, number);
        Some(number)
    }
}

/// Returns the number of a label; `None` if there are 65,535 others.
pub(super) fn number_of(label: &str) -> Option<NonZeroU16> {
    let known = LABELS.read().unwrap_or_else(PoisonError::into_inner).numbers.get(label).copied();
    known.or_else(|| LABELS.write().unwrap_or_else(PoisonError::into_inner).add(label))
}

/// Returns the label with this number.
pub(super) fn label_of(number: NonZeroU16) -> Option<&'static str> {
    let index = usize::from(number.get()) - 1;
    LABELS.read().unwrap_or_else(PoisonError::into_inner).labels.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m20_labels_are_kept_once_and_are_limited() {
        let mut table = LabelTable::default();
        let first = table.add("berlin").unwrap();
        assert_ne!(table.add("oslo"), Some(first));
        assert_eq!((table.add("berlin"), table.labels.len()), (Some(first), 2));
        assert!((2..u16::MAX).all(|n| table.add(&n.to_string()).is_some()));
        assert_eq!((table.add("one too many"), table.labels.len()), (None, 65_535));
        assert_eq!(table.add("berlin"), Some(first));
        let number = number_of("m20 a label of a test").unwrap();
        assert_eq!(
            (number_of("m20 a label of a test"), label_of(number)),
            (Some(number), Some("m20 a label of a test"))
        );
    }
}
