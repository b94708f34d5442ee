//! The names of values, as in connection strings.

use std::error::Error;
use std::fmt;

/// The error of parsing a value by its name: no value of the type has the name.
///
/// Its text lists the valid names, and does not contain the given one.
///
/// ```
/// use notifyman::{SslMode, UnknownName};
///
/// let error: UnknownName = "verify".parse::<SslMode>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "expected disable, allow, prefer, require, verify-ca or verify-full"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    valid: Vec<&'static str>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last, others) = self.valid.split_last().ok_or(fmt::Error)?;
        let separator = if others.is_empty() { "" } else { " or " };
        write!(f, "expected {}{separator}{last}", others.join(", "))
    }
}

impl Error for UnknownName {}

/// An enum whose values have names.
pub(crate) trait Named: Copy + PartialEq + 'static {
    /// The names and their values, in the order in which an error lists them.
    const NAMES: &'static [(&'static str, Self)];

    /// Finds the value with this exact name.
    fn parse_name(name: &str) -> Result<Self, UnknownName> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        found.ok_or_else(|| UnknownName { valid: Self::NAMES.iter().map(|(name, _)| *name).collect() })
    }

    /// Finds the value of a keyword by its exact name. An empty name means the default. The error lists the valid names
    /// and does not contain the given one.
    fn by_name(name: &str, keyword: &str) -> Result<Self, String>
    where
        Self: Default,
    {
        if name.is_empty() {
            return Ok(Self::default());
        }
        let invalid =
            |unknown: UnknownName| format!("invalid value of {keyword}: valid are {}", unknown.valid.join(", "));
        Self::parse_name(name).map_err(invalid)
    }

    /// Returns the name of a value.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// Names the values of an enum, as in `named!(Switch { On: "on", Off: "off" })`, and implements `Display` and `FromStr`.
macro_rules! named {
    ($type:ident { $($value:ident: $name:literal),+ $(,)? }) => {
        impl $crate::config::Named for $type {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, Self::$value)),+];
        }

        /// Formats the name, as in connection strings, options and events.
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad($crate::config::Named::name(*self))
            }
        }

        /// Parses the exact name, as `Display` writes it.
        impl std::str::FromStr for $type {
            type Err = $crate::config::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                $crate::config::Named::parse_name(name)
            }
        }
    };
}

pub(crate) use named;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        AuthMethod, ChannelBinding, LoadBalanceHosts, SslCertMode, SslMode, SslNegotiation, TargetSessionAttrs,
        TlsVersion,
    };

    fn reads_what_it_writes<T: Named + fmt::Display + fmt::Debug + std::str::FromStr>()
    where
        T::Err: fmt::Debug + PartialEq,
    {
        for (name, value) in T::NAMES {
            assert_eq!((value.to_string(), name.parse()), ((*name).to_owned(), Ok(*value)));
            assert!(name.to_uppercase() == *name || name.to_uppercase().parse::<T>().is_err(), "{name}");
        }
        assert!("".parse::<T>().is_err());
    }

    #[test]
    fn each_value_is_parsed_as_it_is_formatted() {
        reads_what_it_writes::<SslMode>();
        reads_what_it_writes::<SslNegotiation>();
        reads_what_it_writes::<SslCertMode>();
        reads_what_it_writes::<ChannelBinding>();
        reads_what_it_writes::<AuthMethod>();
        reads_what_it_writes::<TargetSessionAttrs>();
        reads_what_it_writes::<LoadBalanceHosts>();
        reads_what_it_writes::<TlsVersion>();
        assert_eq!(format!("{:>9}", SslMode::Allow), "    allow");
        assert_eq!("TLS".parse::<TlsVersion>().unwrap_err().to_string(), "expected TLSv1.2 or TLSv1.3");
    }
}
