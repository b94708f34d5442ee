//! The names of values in connection strings.

/// Finds a value by its exact name. The error lists the valid names and does not contain the given one.
pub(super) fn by_name<T: Copy + Default>(names: &[(&'static str, T)], text: &str, keyword: &str) -> Result<T, String> {
    if text.is_empty() {
        return Ok(T::default());
    }
    names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        format!("invalid value of {keyword}: valid are {}", known.join(", "))
    })
}

/// Returns the name of a value.
pub(super) fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    names.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| name)
}
