//! Values that no output shows.

use std::fmt;

/// A password, or other text that may contain one.
#[derive(Clone, PartialEq, Default)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
