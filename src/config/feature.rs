//! The feature `tls`.

/// `true` if the feature `tls` is enabled.
pub(crate) const BUILT_IN: bool = cfg!(feature = "tls");

/// Returns the error text for a setting that needs TLS if the feature is disabled.
pub(super) fn needs_feature(setting: &str) -> String {
    format!(
        "{setting} requires TLS, which is not built into this program: enable the feature `tls` of notifyman, or use \
         sslmode=prefer if the network is trusted"
    )
}
