//! What a server is and has, before anything is done to it.

use super::sql;
use crate::connection::Connection;
use crate::error::Error;
use crate::proto::TransactionStatus;
use crate::row::Row;

/// A server, as one look found it.
pub(crate) struct Server {
    /// Its major version.
    pub(crate) version: i32,
    is_standby: bool,
    pub(crate) prepares: bool,
    pub(crate) presence: Presence,
    may_create: bool,
    database: String,
    /// Whether the tables and the sequence are there.
    pub(crate) has_tables: bool,
}

/// What is there under the name `notifyman`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Nothing,
    /// Another program's schema.
    Foreign,
    /// Ours, without the table that says how.
    Damaged,
    Ours,
}

impl Server {
    pub(crate) fn look(db: &mut Connection) -> Result<Self, Error> {
        if db.transaction_status() != TransactionStatus::Idle {
            return Err(cannot("the connection is in a transaction: end it first, each step is one of its own"));
        }
        let row = one(db, &sql::server())?;
        let presence = match (row.get(3).as_deref(), is(&row, 4)) {
            (None, _) => Presence::Nothing,
            (Some(_), true) => Presence::Ours,
            (Some("t"), false) => Presence::Damaged,
            (Some(_), false) => Presence::Foreign,
        };
        Ok(Self {
            version: text(&row, 0).parse().unwrap_or_default(),
            is_standby: is(&row, 1),
            prepares: text(&row, 2) != "0",
            presence,
            may_create: is(&row, 5),
            database: text(&row, 6),
            has_tables: is(&row, 7),
        })
    }

    /// Whether something can be changed here.
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

    /// Whether the name `notifyman` is ours.
    pub(crate) fn check_foreign(&self) -> Result<(), Error> {
        match self.presence {
            Presence::Foreign => Err(cannot(
                "another program has a schema \"notifyman\" here, which is left alone: rename it, or use another database",
            )),
            _ => Ok(()),
        }
    }

    /// Whether the schema can be made, where it isn't there.
    pub(crate) fn check_may_create(&self) -> Result<(), Error> {
        match self.presence {
            Presence::Nothing if !self.may_create => Err(cannot(format!(
                "this role may not create a schema in database {:?}: GRANT CREATE ON DATABASE to it, or use another role",
                self.database
            ))),
            _ => Ok(()),
        }
    }
}

/// What can't be done, and what to do.
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

/// A column's text; empty where it is NULL.
pub(crate) fn text(row: &Row, column: usize) -> String {
    row.get(column).map(|text| text.into_owned()).unwrap_or_default()
}

/// Whether a boolean column is true.
pub(crate) fn is(row: &Row, column: usize) -> bool {
    row.get_bytes(column) == Some(b"t")
}
