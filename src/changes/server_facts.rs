//! The properties of a server, a database and a role that decide which builds are possible.

use std::time::Duration;

use serde::Deserialize;

use super::rows::{changes_error, first_row, from_json, is_true, only_row};
use super::{install_script, sql};
use crate::connection::Connection;
use crate::error::Error;
use crate::proto::TransactionStatus;

/// The properties of a server, as of one query, `server.sql`. "The role" is the role of the connection.
#[derive(Deserialize)]
pub(crate) struct ServerFacts {
    /// The major version.
    pub(crate) version: i32,
    is_standby: bool,
    /// `true` if the server accepts `PREPARE TRANSACTION`.
    pub(crate) allows_prepare: bool,
    /// `true` if there is a schema `notifyman`, which another program may have created.
    pub(crate) has_schema: bool,
    /// The comment of the schema `notifyman`.
    pub(crate) comment: String,
    /// The owner of the schema `notifyman`.
    pub(crate) installer: String,
    is_installer_superuser: bool,
    /// `true` if the installer owns the database.
    is_installer_database_owner: bool,
    may_create_schema: bool,
    database: String,
    role: String,
    is_superuser: bool,
    may_create_role: bool,
    /// `true` if the role is a member of the owner of functions; `None` if there is no such owner.
    is_owner_member: Option<bool>,
    /// `true` if the owner of functions is a superuser, or can log in.
    is_owner_too_powerful: bool,
    /// The members of the owner of functions, without superusers and the role.
    owner_members: Option<String>,
    /// The deadlock timeout of the server, in milliseconds.
    deadlock_timeout: u64,
    may_set_deadlock_timeout: bool,
    /// The publications `FOR ALL TABLES`.
    pub(crate) publications: Option<String>,
    /// `true` if PUBLIC may execute `pg_notify`, which is the default.
    pub(crate) may_notify: bool,
}

impl ServerFacts {
    /// Queries a server. `owner` is the role that owns the `SECURITY DEFINER` functions.
    pub(crate) fn read(db: &mut Connection, owner: &str) -> Result<Self, Error> {
        if db.transaction_status() != TransactionStatus::Idle {
            return Err(changes_error(
                "the connection is in a transaction, and each step needs a transaction of its own: end it first",
            ));
        }
        let mut server: Self = from_json(&only_row(db, &sql::server(owner))?)?;
        if server.version >= 15 && !server.is_superuser {
            server.may_set_deadlock_timeout =
                first_row(db, sql::MAY_SET_DEADLOCK_TIMEOUT)?.is_some_and(|row| is_true(&row, 0));
        }
        Ok(server)
    }

    /// Returns an error if nothing can be changed on this server.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        if self.version < sql::OLDEST_SERVER {
            return Err(changes_error(format!(
                "the server is PostgreSQL {}, and table changes need {} or later: use a newer server",
                self.version,
                sql::OLDEST_SERVER
            )));
        }
        if self.is_standby {
            return Err(changes_error("the server is a standby, which is read-only: connect to its primary"));
        }
        self.check_foreign()
    }

    /// Returns an error if another program has created the schema `notifyman`.
    pub(crate) fn check_foreign(&self) -> Result<(), Error> {
        if self.has_schema && !sql::MARKS.iter().any(|mark| self.comment.starts_with(mark)) {
            return Err(changes_error(
                "another program has a schema \"notifyman\" in this database: rename that schema, or use another database",
            ));
        }
        Ok(())
    }

    /// Returns an error if a build is not possible here. `owner` is the role that owns the `SECURITY DEFINER` functions.
    pub(crate) fn check_build(&self, owner: &str) -> Result<(), Error> {
        self.check_writable()?;
        if !self.has_schema && !self.may_create_schema {
            return Err(changes_error(format!(
                "this role may not create a schema in database {:?}: GRANT CREATE ON DATABASE to it, or use another role",
                self.database
            )));
        }
        // A build keeps the functions and tables of the installer, which could have any role execute its code.
        if self.has_schema && self.installer != self.role && !self.is_installer_superuser {
            return Err(changes_error(format!(
                "the schema notifyman belongs to role {0}, so every role that writes to a table would execute that role's \
                 code: build as {0}, or remove the schema first (notifyman teardown, or DROP SCHEMA notifyman CASCADE)",
                sql::identifier(&self.installer)
            )));
        }
        self.check_owner(owner)
    }

    /// Returns the role that installed it, unless every role can trust that role.
    pub(crate) fn untrusted_installer(&self) -> Option<&str> {
        (!self.is_installer_superuser && !self.is_installer_database_owner).then_some(&self.installer)
    }

    /// Returns an error if the role can neither create the owner of functions nor make it an owner, or if other roles can act
    /// as the owner. The error contains the statements that a DBA must run.
    fn check_owner(&self, owner: &str) -> Result<(), Error> {
        let (owner, role) = (sql::identifier(owner), sql::identifier(&self.role));
        let refused = |reason: &str, remedy: &str| {
            Err(changes_error(format!(
                "{reason}. That role must own the SECURITY DEFINER functions. {remedy} Or name another role by --owner \
                 (Installer::owner)"
            )))
        };
        // The role may have another purpose, which the remedy would break.
        let condition = "If it has no other purpose";
        let grant = format!("GRANT {owner} TO {role};");
        match (self.is_owner_member, &self.owner_members) {
            (None, _) if self.may_create_role => Ok(()),
            (None, _) => refused(
                &format!("there is no role {owner}, and this role may not create it"),
                &format!("Have a DBA run: CREATE ROLE {owner} NOLOGIN; {grant}"),
            ),
            (Some(_), _) if self.is_owner_too_powerful => refused(
                &format!("role {owner} can log in, or is a superuser"),
                &format!("{condition}, have a DBA drop it; the build creates it again."),
            ),
            (Some(_), Some(members)) => refused(
                &format!("other roles can act as role {owner}: {members}"),
                &format!("{condition}, have a DBA run: REVOKE {owner} FROM {members};"),
            ),
            (Some(false), None) => {
                refused(&format!("this role is not a member of role {owner}"), &format!("Have a DBA run: {grant}"))
            }
            (Some(true), None) => Ok(()),
        }
    }

    /// Returns the statements that create the owner of functions, and make the role a member; empty if the owner exists.
    pub(crate) fn owner_script(&self, owner: &str) -> String {
        if self.is_owner_member.is_some() {
            return String::new();
        }
        let mut script = install_script::create_owner(owner);
        if !self.is_superuser {
            script.push_str(&format!("GRANT {} TO {};\n", sql::identifier(owner), sql::identifier(&self.role)));
        }
        script
    }

    /// Returns the timeouts of an attempt to lock a table, during which an ordinary autovacuum gives way.
    ///
    /// PostgreSQL cancels an autovacuum for a session that has waited for `deadlock_timeout`, which must therefore be shorter
    /// than the lock timeout. If the role may not lower it, the last attempt waits longer.
    pub(crate) fn lock_wait(&self, timeout: Duration, is_last: bool) -> sql::LockWait {
        let server_timeout = Duration::from_millis(self.deadlock_timeout);
        let deadlock_timeout = self.may_set_deadlock_timeout.then(|| server_timeout.min(timeout / 4));
        let timeout = match deadlock_timeout {
            None if is_last => timeout.max(server_timeout + Duration::from_millis(500)),
            _ => timeout,
        };
        sql::LockWait { timeout, deadlock_timeout }
    }
}
