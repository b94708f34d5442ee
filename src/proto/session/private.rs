//! A channel that a session listens to for its own sake: whether what is sent there comes, and how soon.
//!
//! ```text
//!   wanted ──LISTEN──▶ registered ──UNLISTEN──▶ left
//!      ▲                   │  what comes is seen here, and goes no further
//!      └── UNLISTEN *, DISCARD ALL, a rollback: listened to again, and no fault
//! ```
//!
//! What it refuses: to ask anything inside a transaction, and to believe that it listens where it can't know.

use super::{Session, State, TransactionStatus};
use crate::error::{Error, ValueError};
use crate::proto::request::{Ask, Reply, Request, RequestId};

/// How it stands with the private channel.
#[derive(Debug, Default)]
pub(super) struct Private {
    /// The channel that should be listened to.
    wanted: Option<Box<str>>,
    /// The one whose notifications go no further: it is listened to, or will be, or is being left.
    kept: Option<Box<str>>,
    /// Whether the server listens to that one for us.
    registered: bool,
    /// Whether the server has refused, and isn't to be asked again.
    refused: bool,
    /// Whether it is being asked.
    asking: bool,
    /// The payload that is to come.
    expected: Option<Box<str>>,
    /// From whom one came that was expected.
    heard: Option<i32>,
    /// Whether the server has told that it doesn't listen, though it had been told to.
    lapsed: bool,
    /// Which database it is, as the server tells it.
    database: Option<Box<str>>,
}

impl Session {
    /// Listens to this channel privately from now on; where that can be asked at once, by the request that is given.
    ///
    /// A channel that is listened to anyway stays the user's.
    pub(crate) fn attend(&mut self, channel: &str) -> Option<RequestId> {
        if self.channels.iter().any(|listened| &**listened == channel) {
            return None;
        }
        let private = self.private.get_or_insert_default();
        private.wanted = Some(channel.into());
        private.refused = false;
        let ask = self.next_private_ask()?;
        Some(self.request(ask))
    }

    /// Listens to no private channel any more. What still comes from it goes no further, until the server has stopped.
    pub(crate) fn leave(&mut self) {
        if let Some(private) = &mut self.private {
            (private.wanted, private.expected, private.refused) = (None, None, false);
            if let Some(ask) = self.next_private_ask() {
                self.request_unheard(ask);
            }
        }
    }

    /// The channel whose notifications go no further.
    pub(crate) fn private_channel(&self) -> Option<&str> {
        self.private.as_ref()?.kept.as_deref()
    }

    /// Refuses a list of channels that has the private one in it.
    pub(crate) fn refuse_private(&self, channels: &[Box<str>]) -> Result<(), Error> {
        refuse(self.private_channel(), channels)
    }

    /// Which database it is, once the private channel is listened to there.
    pub(crate) fn private_database(&self) -> Option<&str> {
        self.private.as_ref()?.database.as_deref()
    }

    /// Whether the server listens to the private channel for us, and nothing is under way that may change it.
    pub(crate) fn attends(&self) -> bool {
        let is_registered = self.private.as_ref().is_some_and(|it| it.registered && it.wanted == it.kept);
        is_registered && !self.channels_stale && self.is_quiet()
    }

    /// Whether nothing is under way, outside a transaction.
    pub(crate) fn is_quiet(&self) -> bool {
        self.status == TransactionStatus::Idle && matches!(self.state, State::Idle) && self.requests.is_empty()
    }

    /// From now on this payload is to come, if it can.
    pub(crate) fn expect(&mut self, payload: &str) {
        let attends = self.attends();
        if let Some(private) = &mut self.private {
            private.expected = attends.then(|| payload.into());
        }
    }

    /// Whether this payload should have come, and hasn't.
    pub(crate) fn misses(&self, payload: &str) -> bool {
        self.private.as_ref().and_then(|it| it.expected.as_deref()) == Some(payload)
    }

    /// Expects nothing any more.
    pub(crate) fn expect_nothing(&mut self) {
        if let Some(private) = &mut self.private {
            private.expected = None;
        }
    }

    /// Whether something has happened here since the last time that [`take_private_news`](Self::take_private_news)
    /// was called.
    #[inline]
    pub(crate) fn has_private_news(&self) -> bool {
        self.private_news
    }

    /// Where what was expected has come: the process that sent it.
    pub(crate) fn take_private_news(&mut self) -> Option<i32> {
        self.private_news = false;
        self.private.as_mut()?.heard.take()
    }

    /// Whether the server has told, since it was last asked so, that it doesn't listen to the private channel.
    pub(crate) fn take_lapsed(&mut self) -> bool {
        self.private.as_mut().is_some_and(|private| std::mem::take(&mut private.lapsed))
    }

    /// What an audit has missed.
    pub(crate) fn take_lost(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.lost)
    }

    /// Whether the server is to listen again to what an audit has missed, and hasn't said that it does.
    pub(crate) fn is_relistening(&self) -> bool {
        let in_flight = match &self.state {
            State::Busy(in_flight) => Some(&in_flight.request),
            State::Closed { .. } | State::Idle | State::Login { .. } => None,
        };
        in_flight.into_iter().chain(&self.requests).any(|request| matches!(request.ask, Ask::Relisten(_)))
    }

    /// What of these had been missed and is listened to again, if there is any. Where the session has ended before the
    /// server said so, it may be each of them.
    pub(crate) fn take_relistened(&mut self, missed: &[Box<str>]) -> Option<Vec<Box<str>>> {
        let relistened = match &self.state {
            State::Closed { .. } if self.relistened.is_empty() => missed.to_vec(),
            _ => std::mem::take(&mut self.relistened),
        };
        (!relistened.is_empty()).then_some(relistened)
    }

    // ---- for the session itself -----------------------------------------------------------------------------------

    /// Whether what comes on this channel goes no further.
    pub(super) fn is_private(&self, channel: &[u8]) -> bool {
        self.private_channel().is_some_and(|private| private.as_bytes() == channel)
    }

    /// Something came. Anybody may send anything there: what nobody waits for means nothing.
    pub(super) fn hear_privately(&mut self, from: i32, payload: &[u8]) {
        if let Some(private) = &mut self.private
            && private.expected.as_ref().is_some_and(|expected| expected.as_bytes() == payload)
        {
            (private.expected, private.heard) = (None, Some(from));
            self.private_news = true;
        }
    }

    /// A request was answered that may have changed what the server listens to for us.
    pub(super) fn doubt_private(&mut self, ask: &Ask, result: &Result<Reply, Error>, in_transaction: bool) {
        let touches = match ask {
            Ask::Query(text) => in_transaction || crate::proto::sql::touches_listening(text),
            Ask::Unlisten(_) | Ask::UnlistenAll | Ask::Undo(..) => true,
            _ => false,
        };
        let Some(private) = &mut self.private else { return };
        if touches {
            private.expected = None;
        }
        let is_kept = |name: &Box<str>| private.kept.as_ref() == Some(name);
        match (ask, result) {
            (Ask::UnlistenAll, Ok(_)) if !in_transaction => private.registered = false,
            (Ask::Unlisten(names), Ok(_)) if !in_transaction && names.iter().any(is_kept) => private.registered = false,
            (Ask::ListenPrivate(_), Ok(reply)) => {
                (private.asking, private.registered) = (false, true);
                let columns = reply.rows.first().map(|row| (0..row.len()).filter_map(|at| row.get(at)));
                private.database = columns.map(|columns| columns.collect::<Vec<_>>().join(" ").into());
                self.private_news = true;
            }
            (Ask::UnlistenPrivate(_), Ok(_)) => {
                (private.asking, private.registered, private.kept) = (false, false, None);
            }
            (Ask::ListenPrivate(_) | Ask::UnlistenPrivate(_), Err(_)) => {
                (private.asking, private.refused) = (false, true);
            }
            _ => {}
        }
    }

    /// The server has told its channels: takes out the private one, and learns whether it is among them.
    pub(super) fn note_private(&mut self, told: &mut Vec<Box<str>>) {
        if let Some(private) = &mut self.private
            && let Some(kept) = &private.kept
        {
            let registered = told.contains(kept);
            private.lapsed = private.registered && !registered;
            private.registered = registered;
            told.retain(|channel| channel != kept);
        }
    }

    /// Asks for what is to be asked, once a request is over.
    pub(super) fn tend_private(&mut self) {
        if self.private.is_some()
            && !self.channels_stale
            && let Some(ask) = self.next_private_ask_between()
        {
            self.requests.push_front(Request { id: None, ask, healed: false });
        }
    }

    /// What is to be asked next, where it can be asked now.
    fn next_private_ask(&mut self) -> Option<Ask> {
        if self.is_quiet() { self.next_private_ask_between() } else { None }
    }

    /// What is to be asked next, outside a transaction.
    fn next_private_ask_between(&mut self) -> Option<Ask> {
        if self.status != TransactionStatus::Idle {
            return None;
        }
        let private = self.private.as_mut()?;
        if private.asking || private.refused {
            return None;
        }
        if private.kept != private.wanted && !private.registered {
            private.kept.clone_from(&private.wanted);
        }
        let ask = match (&private.kept, &private.wanted) {
            (None, _) => {
                self.private = None;
                return None;
            }
            (Some(kept), wanted) if wanted.as_ref() != Some(kept) => Ask::UnlistenPrivate(kept.clone()),
            (Some(_), _) if private.registered => return None,
            (Some(kept), _) => Ask::ListenPrivate(kept.clone()),
        };
        private.asking = true;
        Some(ask)
    }
}

/// Refuses a list of channels that has this one in it.
pub(crate) fn refuse(private: Option<&str>, channels: &[Box<str>]) -> Result<(), Error> {
    match private.filter(|private| channels.iter().any(|channel| **channel == **private)) {
        None => Ok(()),
        Some(private) => {
            let message = format!(
                "the channel {private:?} is the manager's own, for its canary, and nothing of it is handed on: \
                 listen to another, or give the canary another"
            );
            Err(ValueError { message }.into())
        }
    }
}
