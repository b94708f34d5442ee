//! Calls on a connection that is in a manager.

use std::collections::VecDeque;
use std::ops::Deref;
use std::time::Duration;

use crate::connection::{Connection, Diagnosis};
use crate::error::{Error, ServerError};
use crate::gap::Gap;
use crate::manager::members::{Life, Member};
use crate::row::Row;

/// A connection in a manager, to be called: see
/// [`NotificationManager::get_mut`](crate::NotificationManager::get_mut).
///
/// It reads like a [`Connection`] and has its calls. They block, and meanwhile no other connection is served. What
/// notifications arrive during a call come out of the manager with its next events, in order.
///
/// It doesn't lend the connection itself, so that no two can be swapped behind the manager's back.
#[derive(Debug)]
pub struct ConnectionMut<'m> {
    connection: &'m mut Connection,
    token: u32,
    queued: &'m mut bool,
    ready: &'m mut VecDeque<u32>,
    touched: &'m mut Vec<u32>,
}

impl<'m> ConnectionMut<'m> {
    pub(super) fn new(
        token: u32,
        member: &'m mut Member,
        ready: &'m mut VecDeque<u32>,
        touched: &'m mut Vec<u32>,
    ) -> Option<Self> {
        let Member { life: Life::Good(connection), queued, .. } = member else { return None };
        Some(Self { connection, token, queued, ready, touched })
    }

    /// As [`Connection::listen`].
    ///
    /// # Errors
    /// The same.
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
    /// The same.
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
    /// The same.
    pub fn unlisten_all(&mut self) -> Result<(), Error> {
        self.connection.unlisten_all()
    }

    /// As [`Connection::listening_channels`].
    ///
    /// # Errors
    /// The same.
    pub fn listening_channels(&mut self) -> Result<Vec<String>, Error> {
        self.connection.listening_channels()
    }

    /// As [`Connection::notify`].
    ///
    /// # Errors
    /// The same.
    pub fn notify(&mut self, channel: &str, payload: &str) -> Result<(), Error> {
        self.connection.notify(channel, payload)
    }

    /// As [`Connection::notify_many`].
    ///
    /// # Errors
    /// The same.
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
    /// The same.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        self.connection.query(sql)
    }

    /// As [`Connection::execute`].
    ///
    /// # Errors
    /// The same.
    pub fn execute(&mut self, sql: &str) -> Result<u64, Error> {
        self.connection.execute(sql)
    }

    /// As [`Connection::diagnose`].
    ///
    /// # Errors
    /// The same.
    pub fn diagnose(&mut self) -> Result<Diagnosis, Error> {
        self.connection.diagnose()
    }

    /// As [`Connection::take_gap`]; what is taken here doesn't come with a batch.
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

    /// As [`Connection::close`]; what had come is still yielded, then the connection goes to the garbage.
    ///
    /// # Errors
    /// The same.
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

impl Drop for ConnectionMut<'_> {
    /// The next turn reads the socket: the call may have used up the event that told of more.
    fn drop(&mut self) {
        if !std::mem::replace(self.queued, true) {
            self.ready.push_back(self.token);
        }
        self.touched.push(self.token);
    }
}
