//! Calls on a connection that is in a manager.

use std::ops::Deref;
use std::time::Duration;

use crate::connection::{Connection, Diagnosis};
use crate::error::{Error, ServerError};
use crate::gap::Gap;
use crate::row::Row;

/// A mutable borrow of a connection in a manager: see
/// [`NotificationManager::get_mut`](crate::NotificationManager::get_mut).
///
/// The guard dereferences to [`Connection`] and has its calls. A call blocks the loop: no other connection is served until
/// it returns. The manager yields notifications that arrive during a call with its next events, in order.
///
/// The guard does not give out `&mut Connection`, so that two connections of a manager cannot be swapped.
#[derive(Debug)]
pub struct ConnectionMut<'m> {
    connection: &'m mut Connection,
}

impl<'m> ConnectionMut<'m> {
    pub(super) fn new(connection: &'m mut Connection) -> Self {
        Self { connection }
    }

    /// Calls [`Connection::listen`].
    ///
    /// # Errors
    ///
    /// As [`Connection::listen`].
    pub fn listen<I>(&mut self, channels: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.connection.listen(channels)
    }

    /// Calls [`Connection::unlisten`].
    ///
    /// # Errors
    ///
    /// As [`Connection::unlisten`].
    pub fn unlisten<I>(&mut self, channels: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.connection.unlisten(channels)
    }

    /// Calls [`Connection::unlisten_all`].
    ///
    /// # Errors
    ///
    /// As [`Connection::unlisten_all`].
    pub fn unlisten_all(&mut self) -> Result<(), Error> {
        self.connection.unlisten_all()
    }

    /// Calls [`Connection::listening_channels`].
    ///
    /// # Errors
    ///
    /// As [`Connection::listening_channels`].
    pub fn listening_channels(&mut self) -> Result<Vec<String>, Error> {
        self.connection.listening_channels()
    }

    /// Calls [`Connection::notify`].
    ///
    /// # Errors
    ///
    /// As [`Connection::notify`].
    pub fn notify(&mut self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Result<(), Error> {
        self.connection.notify(channel, payload)
    }

    /// Calls [`Connection::notify_many`].
    ///
    /// # Errors
    ///
    /// As [`Connection::notify_many`].
    pub fn notify_many<I, C, P>(&mut self, pairs: I) -> Result<(), Error>
    where
        I: IntoIterator<Item = (C, P)>,
        C: AsRef<str>,
        P: AsRef<str>,
    {
        self.connection.notify_many(pairs)
    }

    /// Calls [`Connection::query`].
    ///
    /// # Errors
    ///
    /// As [`Connection::query`].
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        self.connection.query(sql)
    }

    /// Calls [`Connection::execute`].
    ///
    /// # Errors
    ///
    /// As [`Connection::execute`].
    pub fn execute(&mut self, sql: &str) -> Result<u64, Error> {
        self.connection.execute(sql)
    }

    /// Calls [`Connection::diagnose`].
    ///
    /// # Errors
    ///
    /// As [`Connection::diagnose`].
    pub fn diagnose(&mut self) -> Result<Diagnosis, Error> {
        self.connection.diagnose()
    }

    /// Calls [`Connection::take_gap`]. A gap that is taken here does not come with a batch.
    pub fn take_gap(&mut self) -> Option<Gap> {
        self.connection.take_gap()
    }

    /// Calls [`Connection::take_notices`].
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        self.connection.take_notices()
    }

    /// Calls [`Connection::set_call_timeout`].
    pub fn set_call_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.connection.set_call_timeout(timeout);
    }

    /// Calls [`Connection::close`]. The manager yields the received notifications, then moves the connection to the garbage.
    ///
    /// # Errors
    ///
    /// As [`Connection::close`].
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
