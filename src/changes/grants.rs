//! The privileges that a worker's role needs, as statements for a database administrator.

use super::options::{DeliveryMode, InstallOptions, Oversize};
use super::sql;

/// Returns the statements that let a role `worker_role` read the tables of an installation with these options.
///
/// `installer` is the role that installed it, which must be granted, too; `None` if every role can trust it.
pub(super) fn of_worker(options: &InstallOptions, installer: Option<&str>) -> Vec<String> {
    let mut grants: Vec<_> = match (options.delivery, options.oversize) {
        (DeliveryMode::Log, _) => LOG.map(str::to_owned).into(),
        (_, Oversize::Spill) => vec!["GRANT SELECT, DELETE ON notifyman.spilled TO worker_role;".to_owned()],
        _ => return Vec::new(),
    };
    grants.extend(installer.map(|installer| format!("GRANT {} TO worker_role;", sql::identifier(installer))));
    grants
}

const LOG: [&str; 5] = [
    "GRANT SELECT ON notifyman.log TO worker_role;",
    "GRANT SELECT, TRUNCATE ON notifyman.log_0, notifyman.log_1, notifyman.log_2 TO worker_role;",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON notifyman.era, notifyman.start, notifyman.mark, notifyman.position TO worker_role;",
    "GRANT SELECT, UPDATE ON SEQUENCE notifyman.log_table, notifyman.log_full TO worker_role;",
    "GRANT SELECT ON SEQUENCE notifyman.number, notifyman.log_dropped TO worker_role;",
];
