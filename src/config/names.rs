//! The names of values in connection strings.

/// An enum whose values have names in connection strings.
pub(super) trait Named: Copy + PartialEq + 'static {
    /// The names and their values, in the order in which an error lists them.
    const NAMES: &'static [(&'static str, Self)];

    /// Finds the value of a keyword by its exact name. An empty name means the default. The error lists the valid names
    /// and does not contain the given one.
    fn by_name(name: &str, keyword: &str) -> Result<Self, String>
    where
        Self: Default,
    {
        if name.is_empty() {
            return Ok(Self::default());
        }
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("invalid value of {keyword}: valid are {}", known.join(", "))
        })
    }

    /// Returns the name of a value.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// Names the values of an enum, as in `named!(Switch { On: "on", Off: "off" })`, and implements `Display`.
macro_rules! named {
    ($type:ident { $($value:ident: $name:literal),+ $(,)? }) => {
        impl super::names::Named for $type {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, Self::$value)),+];
        }

        /// Formats the value as in a connection string.
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(super::names::Named::name(*self))
            }
        }
    };
}

pub(super) use named;
