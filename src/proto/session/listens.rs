//! The channels that a session listens to, as far as the answers to requests show.

use std::collections::BTreeSet;

use super::probe::CanaryProbe;
use crate::error::Error;
use crate::proto::channels::Channels;
use crate::proto::listen_scan;
use crate::proto::request::{Reply, Request};
use crate::proto::sql;

/// Changes to the channels that are not certain yet, and the results of an audit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PendingListens {
    /// `true` if the server must be asked for the channels once it is outside a transaction.
    pub(super) is_stale: bool,
    /// The channels that an audit has found missing, and those of them that have been restored.
    pub(super) missed: Vec<Box<str>>,
    pub(super) relistened: Vec<Box<str>>,
    /// The channels of LISTENs in the open transaction, which take effect if it is committed.
    uncommitted: BTreeSet<Box<str>>,
    /// The channels of LISTENs in a query, or in a transaction that may have been committed. Only the server's list shows
    /// whether they have taken effect.
    unconfirmed: BTreeSet<Box<str>>,
    /// The channels that the session does not listen to any more, if that is tracked.
    pub(super) unlistened: Vec<Box<str>>,
}

impl PendingListens {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the channels of LISTENs that may have taken effect.
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = &str> {
        self.unconfirmed.iter().map(AsRef::as_ref)
    }

    /// Updates the channels after a request was answered. Returns `true` if they have changed, and an error if the session
    /// must end.
    pub(super) fn learn(
        &mut self,
        channels: &mut Channels,
        probe: Option<&mut CanaryProbe>,
        request: Request,
        result: &Result<Reply, Error>,
        in_transaction: bool,
    ) -> Result<bool, Error> {
        match (request, result) {
            (Request::Query(text), _) => {
                let affects = sql::affects_listening(&text);
                self.is_stale |= in_transaction || affects;
                if affects {
                    self.note_listens(listen_scan::listened(&text), in_transaction);
                }
            }
            (Request::ReadChannels, Ok(reply)) => {
                self.is_stale = false;
                // Inside a transaction, the server lists only the channels from before it.
                if !in_transaction {
                    self.unconfirmed.clear();
                }
                return Ok(channels.replace(listed_channels(reply, probe).iter().map(AsRef::as_ref).collect()));
            }
            (Request::Audit, Ok(reply)) if !in_transaction && !self.is_stale => {
                let listed = listed_channels(reply, probe);
                let listed: BTreeSet<&str> = listed.iter().map(AsRef::as_ref).collect();
                self.missed = channels.iter().filter(|channel| !listed.contains(channel)).map(Box::from).collect();
                // The missed channels remain wanted.
                let all = channels.iter().chain(listed).collect();
                return Ok(channels.replace(all));
            }
            (Request::Relisten(names), Ok(_)) => self.relistened.extend(names),
            // As if the LISTENs of a restored session were rejected.
            (Request::Relisten(_), Err(error)) => return Err(error.clone()),
            // Only the server knows the truncated names.
            (Request::UndoListen(..), _) => self.is_stale = true,
            // Changes in a transaction take effect at commit.
            (request @ (Request::Listen(_) | Request::Unlisten(_) | Request::UnlistenAll), _) if in_transaction => {
                self.is_stale = true;
                if let (Request::Listen(names), Ok(_)) = (request, result) {
                    self.note_listens(names, in_transaction);
                }
            }
            (Request::Listen(names), Ok(_)) => return Ok(channels.add(names.iter().map(AsRef::as_ref))),
            (Request::Unlisten(names), Ok(_)) => return Ok(channels.remove(names.iter().map(AsRef::as_ref))),
            (Request::UnlistenAll, Ok(_)) => return Ok(channels.replace(Channels::default())),
            _ => {}
        }
        Ok(false)
    }

    /// Records the channels of LISTENs that may take effect.
    fn note_listens(&mut self, names: Vec<Box<str>>, in_transaction: bool) {
        if in_transaction { self.uncommitted.extend(names) } else { self.unconfirmed.extend(names) }
    }

    /// Records those of these channels that the session does not listen to any more.
    pub(super) fn note_unlistened(&mut self, before: Vec<Box<str>>, channels: &Channels) {
        self.unlistened.extend(before.into_iter().filter(|channel| !channels.contains(channel)));
    }

    /// Handles the end of a transaction: its LISTENs may have taken effect, unless it was rolled back.
    pub(super) fn end_transaction(&mut self, is_rolled_back: bool) {
        match is_rolled_back {
            true => self.uncommitted.clear(),
            false => self.unconfirmed.append(&mut self.uncommitted),
        }
    }
}

/// Returns the channels that a request may remove.
pub(super) fn affected(channels: &Channels, request: &Request) -> Vec<Box<str>> {
    match request {
        // There may be many others.
        Request::Unlisten(names) => names.iter().filter(|name| channels.contains(name)).cloned().collect(),
        Request::UnlistenAll | Request::ReadChannels => channels.iter().map(Box::from).collect(),
        _ => Vec::new(),
    }
}

/// Returns the channels in the server's list, except the canary channel, which the probe takes.
fn listed_channels(reply: &Reply, probe: Option<&mut CanaryProbe>) -> Vec<Box<str>> {
    let mut listed: Vec<Box<str>> = reply.rows.iter().filter_map(|row| Some(row.get(0)?.into())).collect();
    if let Some(probe) = probe {
        probe.take_listed(&mut listed);
    }
    listed
}
