//! The parameters that a server reports, in one block of memory that equal sessions can share.

use std::sync::Arc;

/// The limits for the number of parameters and their total size. A server reports about fifteen, and more for some
/// extensions.
const COUNT_MAX: usize = 256;
const SIZE_MAX: usize = 1024 * 1024;

/// The number and the total size of the parameters that current servers report, rounded up.
const USUAL_COUNT: usize = 16;
const USUAL_SIZE: usize = 512;

/// Parameters and their values, in the order in which they were first reported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Parameters(Option<Arc<ParameterBlock>>);

/// Names and values, concatenated, and the end of each name and value. A parameter is found without reading the text of
/// the others, because a login reports all, one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ParameterBlock {
    text: String,
    ends: Vec<[usize; 2]>,
}

impl ParameterBlock {
    /// Creates an empty block with the usual capacity.
    fn new() -> Self {
        Self { text: String::with_capacity(USUAL_SIZE), ends: Vec::with_capacity(USUAL_COUNT) }
    }

    /// Returns the index of a parameter.
    fn find(&self, name: &str) -> Option<usize> {
        (0..self.ends.len()).find(|&number| self.name(number) == Some(name.as_bytes()))
    }

    fn name(&self, number: usize) -> Option<&[u8]> {
        let start = number.checked_sub(1).map_or(Some(0), |before| Some(self.ends.get(before)?[1]))?;
        self.text.as_bytes().get(start..self.ends.get(number)?[0])
    }

    fn value(&self, number: usize) -> Option<&str> {
        let &[start, end] = self.ends.get(number)?;
        self.text.get(start..end)
    }

    /// Replaces a value and moves the text after it.
    fn replace(&mut self, number: usize, value: &str) {
        let Some(&[start, end]) = self.ends.get(number) else { return };
        self.text.replace_range(start..end, value);
        let behind = self.ends.iter_mut().flatten().skip(2 * number + 1);
        behind.for_each(|place| *place = *place - (end - start) + value.len());
    }

    fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let name_ends = self.text.len();
        self.text.push_str(value);
        self.ends.push([name_ends, self.text.len()]);
    }
}

impl Parameters {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let block = self.0.as_deref()?;
        block.value(block.find(name)?)
    }

    /// Sets a parameter. Returns `false` if the limits are exceeded.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> bool {
        let block = Arc::make_mut(self.0.get_or_insert_with(|| Arc::new(ParameterBlock::new())));
        match block.find(name) {
            Some(number) => block.replace(number, value),
            None => block.push(name, value),
        }
        block.ends.len() <= COUNT_MAX && self.size() <= SIZE_MAX
    }

    /// Returns the total size of names and values in bytes.
    pub(crate) fn size(&self) -> usize {
        self.0.as_ref().map_or(0, |block| block.text.len())
    }

    /// Releases unused capacity, unless the block is shared.
    pub(crate) fn shrink(&mut self) {
        if let Some(block) = self.0.as_mut().and_then(Arc::get_mut) {
            block.text.shrink_to_fit();
            block.ends.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_replaced_in_place_and_a_new_one_is_appended() {
        let mut parameters = Parameters::default();
        for (name, value) in [("a", "1"), ("b", ""), ("", "x"), ("value", "a"), ("a", "longer"), ("b", "2"), ("", "")] {
            assert!(parameters.set(name, value));
            assert_eq!(parameters.get(name), Some(value));
        }
        let block = parameters.0.as_deref().unwrap();
        let name = |number| str::from_utf8(block.name(number).unwrap()).unwrap();
        let all: Vec<_> = (0..block.ends.len()).map(|number| (name(number), block.value(number).unwrap())).collect();
        assert_eq!(all, [("a", "longer"), ("b", "2"), ("", ""), ("value", "a")]);
        assert_eq!(parameters.get("longer"), None, "a value is no name");
    }

    #[test]
    fn a_shared_block_is_copied_before_it_is_changed() {
        let mut one = Parameters::default();
        one.set("TimeZone", "UTC");
        let other = one.clone();
        one.set("TimeZone", "CET");
        assert_eq!((one.get("TimeZone"), other.get("TimeZone")), (Some("CET"), Some("UTC")));
    }
}
