//! An id for those who have no type of their own for it.

use std::fmt;
use std::sync::Arc;

/// Names a subscriber by a number, a text, or a tuple of such.
///
/// Any type that is `Clone + Eq + Hash + Send` does as well, an enum of yours for one.
///
/// ```
/// use notifyman::notifier::Id;
///
/// let ids: [Id; 3] = [42.into(), "an_id".into(), (2, "another_id").into()];
/// assert_eq!(ids[2].to_string(), "(2, another_id)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// A number.
    Number(i64),
    /// A text.
    Text(Arc<str>),
    /// Several together.
    Tuple(Arc<[Id]>),
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
            Id::Tuple(parts) => {
                let mut before = "(";
                for part in parts.iter() {
                    write!(f, "{before}{part}")?;
                    before = ", ";
                }
                f.write_str(if parts.is_empty() { "()" } else { ")" })
            }
        }
    }
}
