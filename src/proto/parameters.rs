//! What a server reports of its settings: one block of memory, which equal sessions can share.

use std::sync::Arc;

/// How many parameters are kept, and how long they may be together. A server reports some fifteen, and each that an
/// extension adds.
const COUNT_MAX: usize = 256;
const SIZE_MAX: usize = 1024 * 1024;

/// Parameters and their values, in the order in which they were first reported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Parameters(Option<Arc<Block>>);

/// Name, NUL, value, NUL; and so on. Neither holds a NUL: the protocol ends them with one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Block {
    text: String,
}

impl Parameters {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut texts = self.0.as_deref().map_or("", |block| &block.text).split_terminator('\0');
        std::iter::from_fn(move || Some((texts.next()?, texts.next()?)))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Sets one; says whether there is room for it.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> bool {
        let text = &mut Arc::make_mut(self.0.get_or_insert_default()).text;
        let known = text.split_terminator('\0').step_by(2).position(|known| known == name);
        if let Some(at) = known {
            // Its value stands behind twice as many texts as pairs come before it, and its name.
            let start: usize = text.split_inclusive('\0').take(2 * at + 1).map(str::len).sum();
            let end = start + text.get(start..).and_then(|rest| rest.find('\0')).unwrap_or_default();
            text.replace_range(start..end, value);
        } else {
            text.extend([name, "\0", value, "\0"]);
        }
        self.iter().take(COUNT_MAX + 1).count() <= COUNT_MAX && self.size() <= SIZE_MAX
    }

    /// How many bytes names and values take.
    pub(crate) fn size(&self) -> usize {
        self.0.as_ref().map_or(0, |block| block.text.len())
    }

    /// Gives back what room is left, once all have been reported.
    pub(crate) fn shrink(&mut self) {
        if let Some(block) = self.0.as_mut().and_then(Arc::get_mut) {
            block.text.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_replaced_where_it_stands_and_a_new_one_comes_last() {
        let mut parameters = Parameters::default();
        for (name, value) in [("a", "1"), ("b", ""), ("", "x"), ("value", "a"), ("a", "longer"), ("b", "2"), ("", "")] {
            assert!(parameters.set(name, value));
            assert_eq!(parameters.get(name), Some(value));
        }
        let all: Vec<_> = parameters.iter().collect();
        assert_eq!(all, [("a", "longer"), ("b", "2"), ("", ""), ("value", "a")]);
        assert_eq!(parameters.get("longer"), None, "a value is no name");
    }

    #[test]
    fn who_shares_does_not_see_what_another_is_told() {
        let mut one = Parameters::default();
        one.set("TimeZone", "UTC");
        let other = one.clone();
        one.set("TimeZone", "CET");
        assert_eq!((one.get("TimeZone"), other.get("TimeZone")), (Some("CET"), Some("UTC")));
    }
}
