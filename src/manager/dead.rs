//! A lost connection.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Instant, SystemTime};

use crate::clock;
use crate::config::Config;
use crate::connection::Transport;
use crate::connection::{Connection, Link, Linked as _};
use crate::error::Error;
use crate::gap::{Gap, GapData};
use crate::manager::conn_id::ConnId;
use crate::proto::sql::Limits;
use crate::proto::{CHANNELS_PER_REQUEST, Request};

/// A lost connection: why it was lost, and what is needed to open it again.
///
/// It holds no undelivered notifications: these were yielded before the connection was lost.
///
/// ```no_run
/// # let mut nm = notifyman::NotificationManager::new([]);
/// for (id, dead) in nm.take_garbage() {
///     eprintln!("{id} was lost: {}", dead.error());
///     if dead.error().is_transient() {
///         nm.revive(id, dead);
///     }
/// }
/// ```
pub struct Dead {
    record: Box<DeadRecord>,
}

/// The largest number of channels in one request that are searched one by one.
const FEW: usize = 16;

struct DeadRecord {
    config: Config,
    /// Sorted, without duplicates.
    channels: Vec<Box<str>>,
    /// The reason for the loss.
    cause: Error,
    /// The reason for the loss, or for the failure of the last attempt since.
    error: Error,
    since: (Instant, SystemTime),
    epoch: u64,
    limits: Limits,
    /// The number of the manager that the connection was in, and its id there.
    origin: Option<(u64, ConnId)>,
}

impl Dead {
    /// Returns what is left of a connection that is closed.
    pub(crate) fn of<S: Transport>(link: &Link<S>) -> Self {
        let cause = link.error().cloned().unwrap_or(Error::Closed);
        let since = match cause {
            // The server kept sending, but no notifications.
            Error::NotDelivering { .. } | Error::HeldBack { .. } => link.delivery_proven(),
            _ => link.last_read(),
        };
        // The server may have forgotten channels before the connection was lost.
        let since = link.history.relistening().map_or(since, |gap| since.min(gap.since()));
        Self {
            record: Box::new(DeadRecord {
                config: link.config().clone(),
                channels: link.possible_channels().map(Box::from).collect(),
                error: cause.clone(),
                cause,
                since: with_wall(since),
                epoch: link.history.epoch(),
                limits: link.limits(),
                origin: None,
            }),
        }
    }

    /// Returns a connection that has never been open.
    pub(crate) fn unopened(config: Config, channels: Vec<Box<str>>, limits: Limits, now: Instant) -> Self {
        let mut dead = Self {
            record: Box::new(DeadRecord {
                config,
                channels: Vec::new(),
                error: Error::Unopened,
                cause: Error::Unopened,
                since: with_wall(now),
                epoch: 0,
                limits,
                origin: None,
            }),
        };
        dead.edit(&Request::Listen(channels));
        dead
    }

    /// Returns `true` if the connection has never been open, so that it can have missed nothing.
    pub(crate) fn is_unopened(&self) -> bool {
        matches!(self.record.cause, Error::Unopened)
    }

    /// Records that an attempt to open the connection failed.
    pub(crate) fn fail(&mut self, error: Error) {
        self.record.error = error;
    }

    /// Records the manager that the connection was in, and its id there.
    pub(crate) fn set_origin(&mut self, manager: u64, id: ConnId) {
        self.record.origin = Some((manager, id));
    }

    /// Returns `true` if the connection had this id in this manager.
    pub(crate) fn is_from(&self, manager: u64, id: ConnId) -> bool {
        self.record.origin == Some((manager, id))
    }

    /// Returns the configuration with which the connection was opened.
    pub fn config(&self) -> &Config {
        &self.record.config
    }

    /// Returns the channels that the connection listened to, sorted.
    pub fn channels(&self) -> &[Box<str>] {
        &self.record.channels
    }

    /// Returns the reason for the loss: the server's last message if there was one (a FATAL, or the WARNING that a crash
    /// sends), otherwise what the client noticed. After an attempt to open the connection, the reason for its failure.
    pub fn error(&self) -> &Error {
        &self.record.error
    }

    /// Opens the connection again, listens to the same channels, and returns the new connection, whose first batch carries
    /// the gap.
    ///
    /// The call blocks for up to the connect timeout and the call timeout. In a loop, use
    /// [`NotificationManager::revive`](crate::NotificationManager::revive), which does not block.
    ///
    /// # Errors
    ///
    /// As [`Connection::connect`] and [`Connection::listen`]. The `Dead` is unchanged and can be tried again.
    pub fn reconnect(&self) -> Result<Connection, Error> {
        let mut connection = Connection::connect(&self.record.config)?;
        for channels in self.channels().chunks(CHANNELS_PER_REQUEST) {
            connection.listen(channels)?;
        }
        self.mark_successor(connection.link_mut(), clock::now(), 0, Vec::new());
        Ok(connection)
    }

    /// Returns how far names could be checked on this side in the last session.
    pub(crate) fn limits(&self) -> Limits {
        self.record.limits
    }

    /// Changes the channels to listen to.
    pub(crate) fn edit(&mut self, request: &Request) {
        let channels = &mut self.record.channels;
        match request {
            // There may be many requests of few channels each, and requests of many channels.
            Request::Unlisten(removed) if removed.len() <= FEW => {
                for name in removed {
                    if let Ok(at) = channels.binary_search(name) {
                        channels.remove(at);
                    }
                }
            }
            Request::Unlisten(removed) => {
                let removed: BTreeSet<&str> = removed.iter().map(AsRef::as_ref).collect();
                channels.retain(|channel| !removed.contains(&**channel));
            }
            Request::Listen(added) => {
                channels.extend_from_slice(added);
                channels.sort_unstable();
                channels.dedup();
            }
            Request::UnlistenAll => channels.clear(),
            _ => {}
        }
    }

    /// Records in a new connection, which listens to the channels again, that it succeeds this one after `failed`
    /// attempts. The gap also names the channels in `added`.
    pub(crate) fn mark_successor<S: Transport>(
        &self,
        link: &mut Link<S>,
        now: Instant,
        failed: u32,
        added: Vec<Box<str>>,
    ) {
        if self.is_unopened() {
            // Most connections need no record of failed attempts.
            if failed > 0 {
                link.history.establish(now, failed);
            }
            return;
        }
        let channels: BTreeSet<_> = self.record.channels.iter().cloned().chain(added).collect();
        let gap = GapData {
            channels: channels.into_iter().collect(),
            cause: self.record.cause.clone(),
            since: self.record.since,
            until: with_wall(now),
            epoch: self.record.epoch + 1,
        };
        link.history.succeed(gap.into(), now, failed);
    }
}

/// Returns the gap of a session whose server has forgotten these channels since the given time.
pub(crate) fn unregistered_since(since: Instant, channels: &[Box<str>]) -> Gap {
    let since = with_wall(since);
    GapData { channels: channels.into(), cause: Error::Unregistered, since, until: since, epoch: 0 }.into()
}

/// Returns a point in time on both clocks.
fn with_wall(at: Instant) -> (Instant, SystemTime) {
    let (elapsed, wall) = (clock::now().saturating_duration_since(at), clock::wall());
    (at, wall.checked_sub(elapsed).unwrap_or(wall))
}

impl fmt::Debug for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dead")
            .field("to", &format_args!("{}", self.record.config))
            .field("channels", &self.record.channels)
            .field("error", &self.record.error)
            .finish()
    }
}
