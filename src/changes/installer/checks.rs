//! The checks before a build, and its warnings.

use super::settings::BuildSettings;
use crate::changes::options::{DeliveryMode, Shape};
use crate::changes::rows::{changes_error, string};
use crate::changes::server_facts::ServerFacts;
use crate::changes::{glob, installation, sql};
use crate::connection::Connection;
use crate::error::{Error, ValueError};

/// Returns the properties of the server, or an error if the build is not possible there or a name does not exist.
pub(super) fn check(db: &mut Connection, settings: &BuildSettings) -> Result<ServerFacts, Error> {
    let options = &settings.options;
    let server = ServerFacts::read(db, &options.owner)?;
    server.check_build(&options.owner)?;
    check_delivery(settings, &server)?;
    let tables: Vec<(String, String)> =
        db.query(&sql::selected(options))?.iter().map(|row| (string(row, 0), string(row, 1))).collect();
    let missing = |object: &str, name: &str| ValueError {
        message: format!(
            "there is no {object} {name:?} that can be covered: names are case-sensitive, and must not be excluded; views, \
             temporary tables and extensions' tables cannot be covered"
        ),
    };
    for name in options.tables.iter().filter(|name| glob::is_plain(name)) {
        if !tables.iter().any(|(schema, table)| glob::fits_table(name, schema, table)) {
            return Err(missing("table", name).into());
        }
    }
    for name in options.schemas.iter().filter(|name| glob::is_plain(name)) {
        if !tables.iter().any(|(schema, _)| schema == name) {
            return Err(missing("table in a schema", name).into());
        }
    }
    Ok(server)
}

/// Checks the delivery: the log's limits, the privilege to notify, an existing log, and publications.
fn check_delivery(settings: &BuildSettings, server: &ServerFacts) -> Result<(), Error> {
    let options = &settings.options;
    options.check().map_err(|message| ValueError { message })?;
    if options.delivery == DeliveryMode::Notify && !server.may_notify {
        return Err(changes_error(
            "EXECUTE on pg_notify has been revoked from PUBLIC, and trigger functions call it as the role that writes: \
             GRANT EXECUTE ON FUNCTION pg_notify TO PUBLIC, or use --delivery log",
        ));
    }
    let installed = installation::parse_comment(&server.comment).ok().and_then(|(_, options)| options);
    if !settings.is_delivery_explicit && installed.is_some_and(|installed| installed.has_log()) {
        return Err(changes_error(
            "changes are delivered by a log in this database, and delivery by NOTIFY would end the log and all positions in \
             it: give --delivery log (Installer::delivery) to keep the log, or --delivery notify to end it",
        ));
    }
    match &server.publications {
        Some(names) if options.has_log() && !options.is_unlogged && !settings.is_forced => Err(changes_error(format!(
            "publication {names} is FOR ALL TABLES, so it includes the log, and a subscriber without the log's tables \
                 stops at the first change: use --unlogged (Installer::unlogged), so that the log is not published, and a \
                 crash of the server is a gap; or --delivery notify, which writes to no table; or publish tables by name, \
                 or schemas; or create the tables notifyman.log_0, log_1, log_2 and position at every subscriber and build \
                 with --force (Installer::force)"
        ))),
        _ => Ok(()),
    }
}

/// Returns the warnings about these options on this server.
pub(super) fn warnings(settings: &BuildSettings, server: &ServerFacts) -> Vec<String> {
    let options = &settings.options;
    let fails_to_prepare = server.allows_prepare && options.delivery == DeliveryMode::Notify;
    let misses_replicated = options.replicated && options.shape == Shape::Keys && server.version > 12;
    let warnings = [
        fails_to_prepare.then_some(
            "max_prepared_transactions is set, and PostgreSQL cannot prepare a transaction with a NOTIFY: PREPARE \
             TRANSACTION fails after a change to a covered table, except with --delivery log",
        ),
        (!options.has_schema_events).then_some(
            "without schema events new tables are not covered before the next build: build again after each migration",
        ),
        misses_replicated.then_some(
            "the apply worker of logical replication fires no statement triggers, which the keys shape uses: the rows that \
             it applies are not reported, except with --shape rows",
        ),
    ];
    warnings.into_iter().flatten().map(str::to_owned).collect()
}

/// Adds the remedy to an error about missing privileges.
pub(super) fn explain(error: Error, settings: &BuildSettings) -> Error {
    match error.sqlstate() {
        Some("42501") if settings.options.has_schema_events => changes_error(format!(
            "{error:#}. Event triggers need a superuser: without them (--no-schema-events, Installer::schema_events(false)) \
             everything else is installed, and a build after each migration covers new tables"
        )),
        _ => error,
    }
}
