//! Calls on a connection that is in a manager.

use std::ops::Deref;
use std::time::Duration;

use crate::connection::{Connection, Diagnosis};
use crate::error::{Error, ServerError};
use crate::gap::Gap;
use crate::row::Row;

/// A connection in a manager, to make calls on it: see
/// [`NotificationManager::get_mut`](crate::NotificationManager::get_mut).
///
/// It dereferences to a [`Connection`] and has its calls. They block, and no other connection is served meanwhile.
/// Notifications that arrive during a call are yielded by the manager with its next events, in order.
///
/// It does not lend the connection itself, so that two connections cannot be swapped in the manager.
#[derive(Debug)]
pub struct ConnectionMut<'m> {
    connection: &'m mut Connection,
}

impl<'m> ConnectionMut<'m> {
    pub(super) fn new(connection: &'m mut Connection) -> Self {
        Self { connection }
    }

    /// As [`Connection::listen`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn listen<I>(&mut self, channels: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.connection.listen(channels)
    }

    /// As [`Connection::unlisten`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unlisten<I>(&mut self, channels: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.connection.unlisten(channels)
    }

    /// As [`Connection::unlisten_all`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unlisten_all(&mut self) -> Result<(), Error> {
        self.connection.unlisten_all()
    }

    /// As [`Connection::listening_channels`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn listening_channels(&mut self) -> Result<Vec<String>, Error> {
        self.connection.listening_channels()
    }

    /// As [`Connection::notify`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn notify(&mut self, channel: &str, payload: &str) -> Result<(), Error> {
        self.connection.notify(channel, payload)
    }

    /// As [`Connection::notify_many`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn notify_many<I, C, P>(&mut self, pairs: I) -> Result<(), Error>
    where
        I: IntoIterator<Item = (C, P)>,
        C: AsRef<str>,
        P: AsRef<str>,
    {
        self.connection.notify_many(pairs)
    }

    /// As [`Connection::query`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        self.connection.query(sql)
    }

    /// As [`Connection::execute`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn execute(&mut self, sql: &str) -> Result<u64, Error> {
        self.connection.execute(sql)
    }

    /// As [`Connection::diagnose`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn diagnose(&mut self) -> Result<Diagnosis, Error> {
        self.connection.diagnose()
    }

    /// As [`Connection::take_gap`]; a gap that is taken here does not come with a batch.
    pub fn take_gap(&mut self) -> Option<Gap> {
        self.connection.take_gap()
    }

    /// As [`Connection::take_notices`].
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        self.connection.take_notices()
    }

    /// As [`Connection::set_call_timeout`].
    pub fn set_call_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.connection.set_call_timeout(timeout);
    }

    /// As [`Connection::close`]; the received notifications are yielded, then the connection moves to the garbage.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn close(&mut self) -> Result<(), Error> {
        self.connection.close()
    }
}

impl Deref for ConnectionMut<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}
