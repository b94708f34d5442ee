//! The settings of an installer.

use std::time::Duration;

use crate::changes::options::InstallOptions;

/// The options to install, and the settings of the build itself.
#[derive(Debug, Clone)]
pub(super) struct BuildSettings {
    pub(super) options: InstallOptions,
    /// `true` if the delivery was set explicitly, which permits a build to end a log.
    pub(super) is_delivery_explicit: bool,
    pub(super) is_forced: bool,
    pub(super) discards_outbox: bool,
    pub(super) lock_timeout: Duration,
    pub(super) attempts: u32,
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self {
            options: InstallOptions::default(),
            is_delivery_explicit: false,
            is_forced: false,
            discards_outbox: false,
            lock_timeout: Duration::from_secs(1),
            attempts: 3,
        }
    }
}
