//! The facts about a server that decide what can be done there.

use std::time::Duration;

use super::sql;
use crate::connection::Connection;
use crate::error::Error;
use crate::proto::TransactionStatus;
use crate::row::Row;

/// A server, as it was when it was asked.
pub(crate) struct ServerFacts {
    /// Its major version.
    pub(crate) version: i32,
    is_standby: bool,
    pub(crate) prepares: bool,
    pub(crate) presence: Presence,
    /// The comment and the owner of the schema `notifyman`.
    pub(crate) comment: String,
    pub(crate) installer: String,
    is_installer_superuser: bool,
    /// The installer owns the database.
    is_installer_owner: bool,
    may_create: bool,
    database: String,
    user: String,
    is_superuser: bool,
    may_create_role: bool,
    /// `true` if this role is a member of the owner; `None` if there is no such role.
    owns: Option<bool>,
    /// The owner is a superuser, or can log in.
    is_owner_mighty: bool,
    /// The members of the owner, apart from superusers and this role.
    owner_members: Option<String>,
    deadlock_timeout: Duration,
    may_set_deadlock_timeout: bool,
    /// The publications of all tables.
    pub(crate) publications: Option<String>,
    /// Any role may call `pg_notify`, unless a DBA has revoked that.
    pub(crate) may_notify: bool,
}

/// The schema that has the name `notifyman`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Nothing,
    /// A schema of another program.
    Foreign,
    /// Our schema.
    Ours,
}

impl ServerFacts {
    /// Asks a server; `owner` is the role that is to own what runs with rights of its own.
    pub(crate) fn read(db: &mut Connection, owner: &str) -> Result<Self, Error> {
        if db.transaction_status() != TransactionStatus::Idle {
            return Err(cannot("the connection is in a transaction: end it first, each step is one of its own"));
        }
        let row = one(db, &sql::server(owner))?;
        let presence = match row.get(3) {
            None => Presence::Nothing,
            Some(comment) if comment.starts_with(sql::MARK) => Presence::Ours,
            Some(_) => Presence::Foreign,
        };
        let mut server = Self {
            version: text(&row, 0).parse().unwrap_or_default(),
            is_standby: is(&row, 1),
            prepares: text(&row, 2) != "0",
            presence,
            comment: text(&row, 3),
            installer: text(&row, 4),
            is_installer_superuser: is(&row, 5),
            may_create: is(&row, 6),
            database: text(&row, 7),
            user: text(&row, 8),
            is_superuser: is(&row, 9),
            may_create_role: is(&row, 10),
            owns: row.get(11).map(|owns| owns == "t"),
            is_owner_mighty: is(&row, 12),
            owner_members: row.get(13).map(|names| names.into_owned()),
            deadlock_timeout: Duration::from_millis(text(&row, 14).parse().unwrap_or(1000)),
            may_set_deadlock_timeout: is(&row, 9),
            publications: row.get(15).map(|names| names.into_owned()),
            may_notify: is(&row, 16),
            is_installer_owner: is(&row, 17),
        };
        if server.version >= 15 && !server.is_superuser {
            server.may_set_deadlock_timeout = first(db, sql::MAY_SET_DEADLOCK_TIMEOUT)?.is_some_and(|row| is(&row, 0));
        }
        Ok(server)
    }

    /// Refuses a server on which nothing can be changed.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        if self.version < sql::OLDEST_SERVER {
            return Err(cannot(format!(
                "the server is PostgreSQL {}, and table changes need {} or later: use a newer server",
                self.version,
                sql::OLDEST_SERVER
            )));
        }
        if self.is_standby {
            return Err(cannot("the server is a standby, where nothing can be written: connect to its primary"));
        }
        self.check_foreign()
    }

    /// Refuses a schema `notifyman` of another program.
    pub(crate) fn check_foreign(&self) -> Result<(), Error> {
        match self.presence {
            Presence::Foreign => Err(cannot(
                "another program has a schema \"notifyman\" here, which is left alone: rename it, or use another database",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a role that may not make the schema, where it is not there.
    pub(crate) fn check_may_create(&self) -> Result<(), Error> {
        match self.presence {
            Presence::Nothing if !self.may_create => Err(cannot(format!(
                "this role may not create a schema in database {:?}: GRANT CREATE ON DATABASE to it, or use another role",
                self.database
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses a schema of another role, whose functions and tables a build would go on with: that role could have any role
    /// run what it likes.
    pub(crate) fn check_installer(&self) -> Result<(), Error> {
        let is_own = self.installer == self.user || self.is_installer_superuser;
        match self.presence {
            Presence::Ours if !is_own => Err(cannot(format!(
                "the schema notifyman belongs to role {0}, so what runs as every role that writes would be that role's: \
                 build as {0}, or remove it first (notifyman teardown, or DROP SCHEMA notifyman CASCADE)",
                sql::identifier(&self.installer)
            ))),
            _ => Ok(()),
        }
    }

    /// The role that installed it, unless any role may trust that one.
    pub(crate) fn untrusted_installer(&self) -> Option<&str> {
        (!self.is_installer_superuser && !self.is_installer_owner).then_some(&self.installer)
    }

    /// Refuses a role that can neither make the owner nor give something to it, and an owner as which another role can
    /// act; says what a DBA must run.
    pub(crate) fn check_owner(&self, owner: &str) -> Result<(), Error> {
        let (owner, user) = (sql::identifier(owner), sql::identifier(&self.user));
        let refused = |why: &str, remedy: &str| {
            Err(cannot(format!(
                "{why}. This role must own functions that run with its privileges. {remedy} Or name another role by \
                 --owner (Installer::owner)"
            )))
        };
        // Another role may need to be as it is: only one that serves nothing else is to be changed.
        let only = "It must serve nothing else: if it does not";
        let grant = format!("GRANT {owner} TO {user};");
        match (self.owns, &self.owner_members) {
            (None, _) if self.may_create_role => Ok(()),
            (None, _) => refused(
                &format!("there is no role {owner}, and this role may not create it"),
                &format!("Have a DBA run: CREATE ROLE {owner} NOLOGIN; {grant}"),
            ),
            (Some(_), _) if self.is_owner_mighty => refused(
                &format!("role {owner} can log in, or is a superuser"),
                &format!("{only}, have a DBA drop it; the build creates it again."),
            ),
            (Some(_), Some(members)) => refused(
                &format!("other roles can act as role {owner}: {members}"),
                &format!("{only}, have a DBA run: REVOKE {owner} FROM {members};"),
            ),
            (Some(false), None) => {
                refused(&format!("this role is not a member of role {owner}"), &format!("Have a DBA run: {grant}"))
            }
            (Some(true), None) => Ok(()),
        }
    }

    /// The statements that make the owner, and make this role one of its members; empty if both is so.
    pub(crate) fn make_owner(&self, owner: &str) -> String {
        match self.owns {
            Some(_) => String::new(),
            None if self.is_superuser => sql::make_owner(owner),
            None => format!(
                "{}GRANT {} TO {};\n",
                sql::make_owner(owner),
                sql::identifier(owner),
                sql::identifier(&self.user)
            ),
        }
    }

    /// Returns the wait for a table's lock, in which an ordinary autovacuum gives way.
    ///
    /// PostgreSQL cancels an autovacuum for a session that has waited for `deadlock_timeout`, which must be over before the
    /// lock's own time is. If this role cannot lower it, the last attempt waits longer.
    pub(crate) fn lock_wait(&self, timeout: Duration, is_last: bool) -> sql::LockWait {
        match self.may_set_deadlock_timeout {
            true => sql::LockWait { timeout, deadlock_timeout: Some(self.deadlock_timeout.min(timeout / 4)) },
            false if is_last => sql::LockWait {
                timeout: timeout.max(self.deadlock_timeout + Duration::from_millis(500)),
                deadlock_timeout: None,
            },
            false => sql::LockWait { timeout, deadlock_timeout: None },
        }
    }
}

/// The error for something that cannot be done, with what to do.
pub(crate) fn cannot(reason: impl Into<String>) -> Error {
    Error::Changes(reason.into().into())
}

/// The only row of an answer.
pub(crate) fn one(db: &mut Connection, query: &str) -> Result<Row, Error> {
    first(db, query)?.ok_or_else(|| cannot("the server gave no answer to a query that has one"))
}

/// The first row of an answer, if it has one.
pub(crate) fn first(db: &mut Connection, query: &str) -> Result<Option<Row>, Error> {
    Ok(db.query(query)?.into_iter().next())
}

/// A column's string; empty where it is NULL.
pub(crate) fn text(row: &Row, column: usize) -> String {
    row.get(column).map(|text| text.into_owned()).unwrap_or_default()
}

/// Returns `true` if a boolean column is true.
pub(crate) fn is(row: &Row, column: usize) -> bool {
    row.get_bytes(column) == Some(b"t")
}
