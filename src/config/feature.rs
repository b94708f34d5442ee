//! The feature `tls`.

use std::fmt::Display;

/// `true` if the feature `tls` is enabled.
pub(crate) const BUILT_IN: bool = cfg!(feature = "tls");

/// Rejects a setting that needs TLS if the feature is disabled.
pub(super) fn check(needs_tls: bool, setting: impl Display) -> Result<(), String> {
    if BUILT_IN || !needs_tls {
        return Ok(());
    }
    Err(format!(
        "{setting} requires TLS, which is not built into this program: enable the feature `tls` of notifyman, or use \
         sslmode=prefer if the network is trusted"
    ))
}
