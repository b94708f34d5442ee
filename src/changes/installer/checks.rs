//! Refusals and warnings of an installer.

use super::Installer;
use crate::changes::options::{DeliveryMode, Shape};
use crate::changes::server_facts::{ServerFacts, cannot, text};
use crate::changes::{glob, installation, sql};
use crate::connection::Connection;
use crate::error::{Error, ValueError};

impl Installer {
    /// Refuses a server on which it cannot be built, and names of which there is nothing.
    pub(super) fn check(&self, db: &mut Connection) -> Result<ServerFacts, Error> {
        let server = ServerFacts::read(db, &self.options.owner)?;
        server.check_writable()?;
        server.check_may_create()?;
        server.check_installer()?;
        server.check_owner(&self.options.owner)?;
        self.check_delivery(&server)?;
        let tables: Vec<(String, String)> =
            db.query(&sql::selected(&self.options))?.iter().map(|row| (text(row, 0), text(row, 1))).collect();
        let missing = |what: &str, name: &str| ValueError {
            message: format!(
                "there is no {what} {name:?} that could be covered: see that it is spelled as in the catalogs, where \
                 case counts, and isn't excluded; views, temporary tables and extensions' tables have no triggers of ours"
            ),
        };
        for name in self.options.tables.iter().filter(|name| glob::is_plain(name)) {
            if !tables.iter().any(|(schema, table)| glob::fits_table(name, schema, table)) {
                return Err(missing("table", name).into());
            }
        }
        for name in self.options.schemas.iter().filter(|name| glob::is_plain(name)) {
            if !tables.iter().any(|(schema, _)| schema == name) {
                return Err(missing("table in a schema", name).into());
            }
        }
        Ok(server)
    }

    /// Refuses the former outbox and impossible sizes, NOTIFY where roles may not call it, and a log that a publication
    /// would take along.
    fn check_delivery(&self, server: &ServerFacts) -> Result<(), Error> {
        self.options.check().map_err(|message| ValueError { message })?;
        if self.options.delivery == DeliveryMode::Notify && !server.may_notify {
            return Err(cannot(
                "EXECUTE on pg_notify has been revoked from PUBLIC, and trigger functions call it as the role that writes: \
                 GRANT EXECUTE ON FUNCTION pg_notify TO PUBLIC, or use --delivery log",
            ));
        }
        let installed = installation::parse_comment(&server.comment).ok().and_then(|(_, options)| options);
        if !self.is_delivery_chosen && installed.is_some_and(|installed| installed.delivery == DeliveryMode::Log) {
            return Err(cannot(
                "changes are delivered by a log here, which delivery by NOTIFY would end, with all positions in it: give \
                 --delivery log (Installer::delivery) to keep it, or --delivery notify to end it",
            ));
        }
        match &server.publications {
            Some(names) if self.options.delivery == DeliveryMode::Log && !self.options.unlogged && !self.is_forced => {
                Err(cannot(format!(
                    "publication {names} is FOR ALL TABLES, and PostgreSQL cannot leave a table out of it: a subscriber \
                 stops at the first change that is written to the log, unless it has its tables. Use --unlogged \
                 (Installer::unlogged), with which nothing of the log is published, and a crash of the server is a gap; or \
                 --delivery notify, which writes no table; or publish tables by name, or schemas; or create the tables \
                 notifyman.log_0, log_1, log_2 and position at every subscriber and build with --force (Installer::force)"
                )))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn warnings(&self, server: &ServerFacts) -> Vec<String> {
        let mut warnings = Vec::new();
        if server.prepares && self.options.delivery == DeliveryMode::Notify {
            warnings.push(
                "max_prepared_transactions is set: PREPARE TRANSACTION fails after a change to a covered table, since \
                 PostgreSQL can't prepare a NOTIFY; --delivery log goes with it"
                    .to_owned(),
            );
        }
        if self.options.no_schema_events {
            warnings.push(
                "without schema events, build again after each migration: new tables are not covered before that"
                    .to_owned(),
            );
        }
        if self.options.replicated && self.options.shape == Shape::Keys && server.version > 12 {
            warnings.push(
                "the apply worker of logical replication fires no statement triggers, which those of the keys shape are: \
                 what it applies is not reported; --shape rows reports it"
                    .to_owned(),
            );
        }
        warnings
    }

    /// Adds what would help to a refusal for lack of privileges.
    pub(super) fn explained(&self, error: Error) -> Error {
        match error.sqlstate() {
            Some("42501") if !self.options.no_schema_events => cannot(format!(
                "{error}. Event triggers need a superuser: without them (--no-schema-events, \
                 Installer::schema_events(false)) the rest is installed, and builds again after each migration cover \
                 what is new"
            )),
            _ => error,
        }
    }
}
