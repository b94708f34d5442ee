//! An id for programs that need no type of their own.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

#[cfg(feature = "stream")]
use crate::notifier::stream::StreamId;

/// The id of a subscriber: an integer, a string, or a tuple of these.
///
/// Any other type that is `Clone + Eq + Hash + Send + 'static` can be an id too, such as an enum of the program.
///
/// ```
/// use notifyman::notifier::Id;
///
/// let ids: [Id; 3] = [42.into(), "an_id".into(), (2, "another_id").into()];
/// assert_eq!(ids[2].to_string(), "(2, another_id)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Id {
    /// An integer.
    Number(i64),
    /// A string.
    Text(Arc<str>),
    /// Several ids.
    Tuple(Arc<[Id]>),
    /// The id of a [stream](crate::Notifier::stream).
    #[cfg(feature = "stream")]
    Stream(StreamId),
}

#[cfg(feature = "stream")]
impl From<StreamId> for Id {
    fn from(id: StreamId) -> Self {
        Id::Stream(id)
    }
}

/// Reads an integer as a number and any other text as itself: from a command line or a configuration. Tuples are not read, since
/// their texts may contain commas.
///
/// ```
/// use notifyman::notifier::Id;
///
/// let ids = ["42", "an_id", "007"].map(str::parse::<Id>);
/// assert_eq!(ids, [Ok(42.into()), Ok("an_id".into()), Ok("007".into())]);
/// ```
impl FromStr for Id {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        // Other spellings of a number are texts, so that each id is displayed as it was given.
        let number = text.parse().ok().filter(|number: &i64| number.to_string() == text);
        Ok(number.map_or_else(|| text.into(), Id::Number))
    }
}

impl From<i32> for Id {
    fn from(number: i32) -> Self {
        Id::Number(number.into())
    }
}

impl From<i64> for Id {
    fn from(number: i64) -> Self {
        Id::Number(number)
    }
}

impl From<u32> for Id {
    fn from(number: u32) -> Self {
        Id::Number(number.into())
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Id::Text(text.into())
    }
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        Id::Text(text.into())
    }
}

impl<A: Into<Id>, B: Into<Id>> From<(A, B)> for Id {
    fn from((a, b): (A, B)) -> Self {
        Id::Tuple([a.into(), b.into()].into())
    }
}

impl<A: Into<Id>, B: Into<Id>, C: Into<Id>> From<(A, B, C)> for Id {
    fn from((a, b, c): (A, B, C)) -> Self {
        Id::Tuple([a.into(), b.into(), c.into()].into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::Number(number) => number.fmt(f),
            Id::Text(text) => text.fmt(f),
            #[cfg(feature = "stream")]
            Id::Stream(id) => id.fmt(f),
            Id::Tuple(parts) => {
                let mut separator = "(";
                for part in parts.iter() {
                    write!(f, "{separator}{part}")?;
                    separator = ", ";
                }
                f.write_str(if parts.is_empty() { "()" } else { ")" })
            }
        }
    }
}
