//! Values that no output shows.

use std::fmt;

/// A password.
#[derive(Clone, PartialEq, Default)]
pub(crate) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
