//! A channel that a session listens to for its own sake: whether what is sent there comes, and how soon.
//!
//! ```text
//!   wanted ──LISTEN──▶ registered ──UNLISTEN──▶ left
//!      ▲                   │  what comes is seen here, and goes no further
//!      └── UNLISTEN *, DISCARD ALL, a rollback: listened to again, and no fault
//! ```
//!
//! What it refuses: to ask anything inside a transaction, and to believe that it listens where it can't know.

use super::{Session, SessionState, TransactionStatus};
use crate::error::{Error, ValueError};
use crate::proto::request::{Reply, Request, RequestId};

/// How it stands with the private channel.
#[derive(Debug, Default)]
pub(super) struct CanaryProbe {
    /// The channel that should be listened to.
    wanted: Option<Box<str>>,
    /// The one whose notifications go no further: it is listened to, or will be, or is being left.
    kept: Option<Box<str>>,
    /// Whether the server listens to that one for us.
    registered: bool,
    /// `true` if the server has refused, and must not be asked again; and the error, until that is taken.
    refused: bool,
    refusal: Option<Error>,
    /// Whether it is being asked.
    asking: bool,
    /// The payload that is to come.
    expected: Option<Box<str>>,
    /// The process that sent an expected payload that has arrived.
    heard: Option<i32>,
    /// The arrival of the last expected payload, if it has arrived.
    arrival: Option<CanaryArrival>,
    /// Whether the request under way is a question that was sent to an idle session, when the expected payload had been
    /// committed.
    prompts: bool,
    /// Whether the server has told that it doesn't listen, though it had been told to.
    lapsed: bool,
    /// Which database it is, as the server tells it.
    database: Option<Box<str>>,
}

/// The arrival of an expected payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CanaryArrival {
    /// Arrived while the session was idle.
    Unprompted,
    /// Arrived between a question that was sent to the idle session after the payload had been committed, and the end of
    /// its answer.
    WithAnswer,
    /// Between another request and the end of its answer, which shows neither.
    Unclear,
}

impl Session {
    /// Listens to this channel privately from now on; where that can be asked at once, by the request that is given.
    ///
    /// A channel that is listened to anyway stays the user's.
    pub(crate) fn join_canary(&mut self, channel: &str) -> Option<RequestId> {
        let private = self.private.get_or_insert_default();
        private.wanted = Some(channel.into());
        private.refused = false;
        let ask = self.next_canary_request()?;
        Some(self.request(ask))
    }

    /// Listens to no private channel any more. What still comes from it goes no further, until the server has stopped.
    pub(crate) fn leave_canary(&mut self) {
        if let Some(private) = &mut self.private {
            (private.wanted, private.expected, private.refused) = (None, None, false);
            if let Some(ask) = self.next_canary_request() {
                self.request_discarding_reply(ask);
            }
        }
    }

    /// The channel whose notifications go no further.
    pub(crate) fn canary_channel(&self) -> Option<&str> {
        self.private.as_ref()?.kept.as_deref()
    }

    /// Refuses a list of channels that has the private one in it.
    pub(crate) fn refuse_canary_channel(&self, channels: &[Box<str>]) -> Result<(), Error> {
        refuse_canary_channel(self.canary_channel(), channels)
    }

    /// Which database it is, once the private channel is listened to there.
    pub(crate) fn canary_database(&self) -> Option<&str> {
        self.private.as_ref()?.database.as_deref()
    }

    /// Whether the server listens to the private channel for us, and nothing is under way that may change it.
    pub(crate) fn has_joined_canary(&self) -> bool {
        let is_registered = self.private.as_ref().is_some_and(|it| it.registered && it.wanted == it.kept);
        is_registered && self.is_quiet()
    }

    /// Whether nothing is under way, outside a transaction, and what is listened to is known.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_idle = self.status == TransactionStatus::Idle && matches!(self.state(), SessionState::Idle);
        is_idle && self.is_settled() && !self.channels_stale
    }

    /// From now on this payload is to come, if it can.
    pub(crate) fn expect_canary(&mut self, payload: &str) {
        let has_joined_canary = self.has_joined_canary();
        if let Some(private) = &mut self.private {
            private.expected = has_joined_canary.then(|| payload.into());
            (private.arrival, private.prompts) = (None, false);
        }
    }

    /// The next request is a question to an idle session, on whose socket there was nothing to be read. What is expected
    /// has been committed.
    pub(crate) fn begin_canary_audit(&mut self) {
        let is_idle = matches!(self.state(), SessionState::Idle);
        if let Some(private) = &mut self.private {
            private.prompts = is_idle && private.expected.is_some();
        }
    }

    /// Returns how the last expected payload arrived, if it has.
    pub(crate) fn canary_arrival(&self) -> Option<CanaryArrival> {
        self.private.as_ref()?.arrival
    }

    /// Takes the error with which the server has refused the private channel.
    pub(crate) fn take_canary_refusal(&mut self) -> Option<Error> {
        self.private.as_mut()?.refusal.take()
    }

    /// Whether this payload should have come, and hasn't.
    pub(crate) fn is_canary_missing(&self, payload: &str) -> bool {
        self.private.as_ref().and_then(|it| it.expected.as_deref()) == Some(payload)
    }

    /// Expects nothing any more.
    pub(crate) fn stop_expecting_canary(&mut self) {
        if let Some(private) = &mut self.private {
            private.expected = None;
        }
    }

    /// Whether something has happened here since the last time that [`take_canary_sender`](Self::take_canary_sender)
    /// was called.
    #[inline]
    pub(crate) fn has_canary_event(&self) -> bool {
        self.canary_event
    }

    /// Where what was expected has come: the process that sent it.
    pub(crate) fn take_canary_sender(&mut self) -> Option<i32> {
        self.canary_event = false;
        self.private.as_mut()?.heard.take()
    }

    /// Whether the server has told, since it was last asked so, that it doesn't listen to the private channel.
    pub(crate) fn take_canary_lapsed(&mut self) -> bool {
        self.private.as_mut().is_some_and(|private| std::mem::take(&mut private.lapsed))
    }

    /// What an audit has missed.
    pub(crate) fn take_missed_channels(&mut self) -> Vec<Box<str>> {
        let lost = self.pending.as_mut().map(|pending| std::mem::take(&mut pending.lost)).unwrap_or_default();
        self.drop_if_empty();
        lost
    }

    /// Whether the server is to listen again to what an audit has missed, and hasn't said that it does.
    pub(crate) fn is_relistening(&self) -> bool {
        let in_flight = match self.state() {
            SessionState::Busy(in_flight) => Some(&in_flight.request),
            SessionState::Closed(_) | SessionState::Idle | SessionState::Login(_) => None,
        };
        let waiting = self.pending.iter().flat_map(|pending| &pending.requests);
        in_flight.into_iter().chain(waiting).any(|request| match &request.ask {
            Request::ConfirmListen(confirm) => matches!(confirm.ask, Request::Relisten(_)),
            ask => matches!(ask, Request::Relisten(_)),
        })
    }

    /// What of these had been missed and is listened to again, if there is any. Where the session has ended before the
    /// server said so, it may be each of them.
    pub(crate) fn take_relistened(&mut self, missed: &[Box<str>]) -> Option<Vec<Box<str>>> {
        let relistened =
            self.pending.as_mut().map(|pending| std::mem::take(&mut pending.relistened)).unwrap_or_default();
        self.drop_if_empty();
        let relistened = if relistened.is_empty() && self.is_closed() { missed.to_vec() } else { relistened };
        (!relistened.is_empty()).then_some(relistened)
    }

    // ---- for the session itself -----------------------------------------------------------------------------------

    /// Whether what comes on this channel goes no further.
    pub(super) fn is_canary(&self, channel: &[u8]) -> bool {
        self.canary_channel().is_some_and(|private| private.as_bytes() == channel)
    }

    /// Something came. Anybody may send anything there: what nobody waits for means nothing.
    pub(super) fn receive_canary_frame(&mut self, from: i32, payload: &[u8]) {
        let is_idle = matches!(self.state(), SessionState::Idle);
        if let Some(private) = &mut self.private
            && private.expected.as_ref().is_some_and(|expected| expected.as_bytes() == payload)
        {
            (private.expected, private.heard) = (None, Some(from));
            private.arrival = Some(match (is_idle, private.prompts) {
                (true, _) => CanaryArrival::Unprompted,
                (false, true) => CanaryArrival::WithAnswer,
                (false, false) => CanaryArrival::Unclear,
            });
            self.canary_event = true;
        }
    }

    /// A request was answered that may have changed what the server listens to for us.
    pub(super) fn update_canary(&mut self, ask: &Request, result: &Result<Reply, Error>, in_transaction: bool) {
        let touches = match ask {
            Request::Query(text) => in_transaction || crate::proto::sql::affects_listening(text),
            Request::Unlisten(_) | Request::UnlistenAll | Request::UndoListen(..) => true,
            _ => false,
        };
        let Some(private) = &mut self.private else { return };
        private.prompts = false;
        if touches {
            private.expected = None;
        }
        match (ask, result) {
            (Request::UnlistenAll, Ok(_)) if !in_transaction => private.registered = false,
            (Request::Unlisten(names), Ok(_)) if !in_transaction => {
                private.registered &= private.kept.as_ref().is_none_or(|kept| !names.contains(kept));
            }
            (Request::ListenCanary(_), Ok(reply)) => {
                (private.asking, private.registered) = (false, true);
                let columns = reply.rows.first().map(|row| (0..row.len()).filter_map(|at| row.get(at)));
                private.database = columns.map(|columns| columns.collect::<Vec<_>>().join(" ").into());
                self.canary_event = true;
            }
            (Request::UnlistenCanary(_), Ok(_)) => {
                (private.asking, private.registered, private.kept) = (false, false, None);
            }
            (Request::ListenCanary(_) | Request::UnlistenCanary(_), Err(error)) => {
                (private.asking, private.refused) = (false, true);
                private.refusal = Some(error.clone());
                self.canary_event = true;
            }
            _ => {}
        }
    }

    /// The server has told its channels: takes out the private one, and learns whether it is among them.
    pub(super) fn note_listed_canary(&mut self, told: &mut Vec<Box<str>>) {
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
    pub(super) fn update_canary_probe(&mut self) {
        if self.private.is_some()
            && !self.channels_stale
            && let Some(ask) = self.next_canary_request_outside()
        {
            self.request_next(ask);
        }
    }

    /// What is to be asked next, where it can be asked now.
    fn next_canary_request(&mut self) -> Option<Request> {
        if self.is_quiet() { self.next_canary_request_outside() } else { None }
    }

    /// What is to be asked next, outside a transaction.
    fn next_canary_request_outside(&mut self) -> Option<Request> {
        if self.status != TransactionStatus::Idle {
            return None;
        }
        let private = self.private.as_mut()?;
        if private.asking || private.refused {
            return None;
        }
        if private.kept != private.wanted && !private.registered {
            // A channel that the user has listened to meanwhile stays the user's.
            private.wanted.take_if(|wanted| self.channels.contains(wanted));
            private.kept.clone_from(&private.wanted);
        }
        let ask = match (&private.kept, &private.wanted) {
            (None, _) => {
                self.private = None;
                return None;
            }
            (Some(kept), wanted) if wanted.as_ref() != Some(kept) => Request::UnlistenCanary(kept.clone()),
            (Some(_), _) if private.registered => return None,
            (Some(kept), _) => Request::ListenCanary(kept.clone()),
        };
        private.asking = true;
        Some(ask)
    }
}

/// Refuses a list of channels that has this one in it.
pub(crate) fn refuse_canary_channel(private: Option<&str>, channels: &[Box<str>]) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::proto::ReadBuffer;
    use crate::proto::session::script::*;

    const PRIVATE: &str = "the private one";

    /// A session that is logged in and listens to these, of which the last said nothing more.
    struct CanaryScript(Session, ReadBuffer);

    impl CanaryScript {
        fn listening(channels: &[&str]) -> Self {
            let session = Session::new(&Config::new().user("app")).unwrap();
            let mut pending = Self(session, ReadBuffer::new(4096));
            pending.sent();
            pending.hears(&login());
            pending.0.request(Request::Listen(channels.iter().map(|channel| (*channel).into()).collect()));
            pending.hears(&answer("LISTEN"));
            pending.sent();
            pending
        }

        /// The same, and has_joined_canary.
        fn attending(channels: &[&str]) -> Self {
            let mut pending = Self::listening(channels);
            assert!(pending.0.join_canary(PRIVATE).is_some());
            pending.hears(&attended());
            assert!(pending.0.has_joined_canary());
            pending.sent();
            pending
        }

        fn hears(&mut self, mut bytes: &[u8]) {
            while !bytes.is_empty() {
                let space = self.0.space(&mut self.1);
                let (now, later) = bytes.split_at(bytes.len().min(space.len()));
                space[..now.len()].copy_from_slice(now);
                self.0.handle_input(&mut self.1, now.len());
                bytes = later;
            }
        }

        fn asks(&mut self, sql: &str, status: u8) {
            self.0.request(Request::Query(sql.into()));
            self.sent();
            self.hears(&[done("DONE"), ready(status)].concat());
        }

        fn sent(&mut self) -> String {
            let sent = String::from_utf8_lossy(self.0.poll_transmit()).into_owned();
            self.0.handle_transmitted(usize::MAX);
            sent
        }

        fn payloads(&mut self) -> Vec<String> {
            self.0.take_notifications().into_iter().flatten().map(|n| n.payload().into_owned()).collect()
        }
    }

    fn attended() -> Vec<u8> {
        [done("LISTEN"), columns(2), row(&[Some("17.5"), Some("5")]), answer("SELECT 1")].concat()
    }

    #[test]
    fn m16_what_comes_privately_goes_no_further_and_only_what_is_expected_counts() {
        let mut pending = CanaryScript::attending(&["a"]);
        pending.0.take_canary_sender();
        pending.0.expect_canary("canary 1");
        pending.hears(&[notification(1, "a", "1"), notification(3, PRIVATE, "canary 0")].concat());
        assert!(pending.0.is_canary_missing("canary 1") && !pending.0.has_canary_event());
        pending.hears(&[notification(3, PRIVATE, "canary 1"), notification(1, "a", "2")].concat());
        assert_eq!(pending.0.take_canary_sender(), Some(3));
        pending.hears(&notification(4, PRIVATE, "canary 1"));
        assert_eq!((pending.0.take_canary_sender(), pending.0.is_canary_missing("canary 1")), (None, false), "once");
        assert_eq!(pending.payloads(), ["1", "2"]);
        assert_eq!(pending.0.channels().iter().collect::<Vec<_>>(), ["a"], "and nobody takes it for the user's");
    }

    #[test]
    fn m16_only_a_question_to_an_idle_session_shows_that_a_payload_was_held_back() {
        let mut pending = CanaryScript::attending(&["a"]);
        let canary = notification(3, PRIVATE, "canary");
        let mut arrival = |prompted: bool, ask: Option<Request>, answered_before: bool| {
            pending.0.expect_canary("canary");
            if prompted {
                pending.0.begin_canary_audit();
            }
            let answer = match ask {
                Some(Request::Sync) => ready(b'I'),
                Some(_) => answer("DONE"),
                None => Vec::new(),
            };
            ask.into_iter().for_each(|ask| pending.0.request_discarding_reply(ask));
            pending.sent();
            let [first, last] = if answered_before { [&answer, &canary] } else { [&canary, &answer] };
            pending.hears(&[first.as_slice(), last.as_slice()].concat());
            pending.0.canary_arrival()
        };
        assert_eq!(arrival(true, Some(Request::Sync), false), Some(CanaryArrival::WithAnswer));
        assert_eq!(arrival(true, Some(Request::Sync), true), Some(CanaryArrival::Unprompted), "behind the answer");
        assert_eq!(arrival(false, Some(Request::Sync), false), Some(CanaryArrival::Unclear), "no question that counts");
        assert_eq!(arrival(false, Some(Request::Query("SELECT".into())), false), Some(CanaryArrival::Unclear));
        assert_eq!(arrival(false, None, false), Some(CanaryArrival::Unprompted));

        pending.0.request_discarding_reply(Request::Sync);
        pending.0.expect_canary("canary");
        pending.0.begin_canary_audit();
        pending.hears(&[canary.as_slice(), &ready(b'I')].concat());
        assert_eq!(pending.0.canary_arrival(), None, "a busy session is not asked, and expects nothing");
    }

    #[test]
    fn m16_what_drops_the_registration_is_mended_by_the_session_itself() {
        let sqls =
            [Request::UnlistenAll, Request::Unlisten(vec![PRIVATE.into()]), Request::Query("DISCARD ALL".into())];
        for ask in sqls {
            let mut pending = CanaryScript::attending(&["a"]);
            pending.0.expect_canary("canary 1");
            let name = format!("{ask:?}");
            pending.0.request(ask);
            pending.sent();
            pending.hears(&answer("DONE"));
            let mut sent = pending.sent();
            if sent.contains("pg_listening_channels") {
                pending.hears(&channel_rows(&[]));
                sent = pending.sent();
            }
            assert!(sent.contains(&format!("LISTEN \"{PRIVATE}\"")), "{name}: {sent}");
            assert!(
                !pending.0.is_canary_missing("canary 1") && !pending.0.has_joined_canary(),
                "{name}: what it can't hear it doesn't miss"
            );
            pending.hears(&attended());
            assert!(pending.0.has_joined_canary(), "{name}");
        }
    }

    #[test]
    fn m16_nothing_is_asked_inside_a_transaction_until_it_ends() {
        let mut pending = CanaryScript::listening(&["a"]);
        pending.asks("BEGIN", b'T');
        assert!(pending.0.join_canary(PRIVATE).is_none() && pending.sent().is_empty());
        pending.asks("SELECT 1", b'E');
        assert!(pending.sent().is_empty());
        pending.asks("ROLLBACK", b'I');
        assert!(pending.sent().contains("pg_listening_channels"), "the set is read first");
        pending.hears(&channel_rows(&["a"]));
        assert!(pending.sent().contains(PRIVATE));
        pending.hears(&attended());
        assert!(pending.0.has_joined_canary());

        pending.asks("BEGIN", b'T');
        pending.0.leave_canary();
        assert!(pending.sent().is_empty());
        pending.asks("COMMIT", b'I');
        pending.hears(&channel_rows(&["a", PRIVATE]));
        assert!(pending.sent().contains("UNLISTEN"));
        pending.hears(&notification(1, PRIVATE, "late"));
        pending.hears(&answer("UNLISTEN"));
        pending.hears(&notification(1, PRIVATE, "the user's"));
        assert_eq!(pending.payloads(), ["the user's"], "from then on it is a channel like any other");
    }

    #[test]
    fn m16_a_channel_that_the_user_listened_to_before_a_canary_could_be_joined_stays_the_users() {
        let mut pending = CanaryScript::listening(&["a"]);
        pending.asks("BEGIN", b'T');
        assert!(pending.0.join_canary(PRIVATE).is_none());
        pending.0.request(Request::Listen(vec![PRIVATE.into()]));
        pending.hears(&[done("LISTEN"), ready(b'T')].concat());
        pending.asks("COMMIT", b'I');
        pending.sent();
        pending.hears(&channel_rows(&["a", PRIVATE]));
        assert_eq!((pending.sent(), pending.0.canary_channel()), (String::new(), None));
        pending.hears(&notification(1, PRIVATE, "the user's"));
        assert_eq!(pending.payloads(), ["the user's"]);
        assert_eq!(pending.0.channels().iter().collect::<Vec<_>>(), ["a", PRIVATE]);
    }

    #[test]
    fn m16_one_who_leaves_and_comes_again_attends() {
        let mut pending = CanaryScript::attending(&["a"]);
        pending.0.leave_canary();
        pending.0.join_canary("another");
        pending.hears(&answer("UNLISTEN"));
        assert!(pending.sent().contains("LISTEN \"another\""));
        pending.hears(&attended());
        assert!(pending.0.has_joined_canary() && pending.0.canary_channel() == Some("another"));
    }

    #[test]
    fn m16_a_server_that_refuses_is_not_asked_for_ever() {
        let mut pending = CanaryScript::listening(&["a"]);
        pending.0.join_canary(PRIVATE);
        pending.sent();
        pending.hears(&[error("ERROR", "42501", "no"), ready(b'I')].concat());
        assert!(pending.sent().is_empty() && !pending.0.has_joined_canary() && pending.0.is_quiet());
        pending.0.expect_canary("canary 1");
        assert!(!pending.0.is_canary_missing("canary 1"));
    }

    #[test]
    fn m16_a_refused_private_channel_is_requested_again_only_on_demand() {
        let mut pending = CanaryScript::listening(&["a"]);
        let refusal = [error("ERROR", "42501", "no"), ready(b'I')].concat();
        pending.0.join_canary(PRIVATE);
        pending.sent();
        pending.hears(&refusal);
        assert!(pending.0.join_canary(PRIVATE).is_some() && pending.sent().contains(PRIVATE));
        pending.hears(&attended());
        assert!(pending.0.has_joined_canary());

        let mut pending = CanaryScript::listening(&["a"]);
        pending.0.join_canary(PRIVATE);
        pending.sent();
        pending.hears(&refusal);
        pending.0.leave_canary();
        assert_eq!((pending.sent(), pending.0.canary_channel()), (String::new(), None), "there is nothing to leave");
        pending.hears(&notification(1, PRIVATE, "the user's"));
        assert_eq!(pending.payloads(), ["the user's"]);
    }

    #[test]
    fn m16_a_session_that_has_left_the_channel_expects_no_canary() {
        let mut pending = CanaryScript::attending(&["a"]);
        pending.0.expect_canary("canary 1");
        assert!(pending.0.is_canary_missing("canary 1"));
        pending.0.leave_canary();
        assert!(!pending.0.is_canary_missing("canary 1"));
    }

    #[test]
    fn m16_a_relisten_is_under_way_until_the_server_has_answered_or_has_gone() {
        let missed: [Box<str>; 2] = ["a".into(), "b".into()];
        let relistening = || {
            let mut pending = CanaryScript::listening(&["a", "b"]);
            pending.0.request(Request::Relisten(missed.to_vec()));
            assert!(pending.sent().contains("LISTEN \"a\"") && pending.0.is_relistening(), "it was sent at once");
            assert_eq!(pending.0.take_relistened(&missed), None, "it is not answered");
            pending
        };
        let mut answered = relistening();
        answered.hears(&answer("LISTEN"));
        assert!(!answered.0.is_relistening());
        assert_eq!(answered.0.take_relistened(&[]).as_deref(), Some(&missed[..]));
        assert_eq!(answered.0.take_relistened(&missed), None, "once");

        let mut gone = relistening();
        gone.0.handle_eof();
        assert!(!gone.0.is_relistening());
        assert_eq!(gone.0.take_relistened(&missed).as_deref(), Some(&missed[..]), "it may have been any of them");
    }

    #[test]
    fn m16_an_audit_finds_what_is_missing_learns_what_is_new_and_races_nothing() {
        let mut pending = CanaryScript::attending(&["a", "b", "c"]);
        let audit = pending.0.request(Request::Audit);
        // Asked while the answer is on its way.
        pending.0.request(Request::Unlisten(vec!["b".into()]));
        pending.hears(&channel_rows(&["c", "new", PRIVATE]));
        assert!(pending.0.take_reply(audit).unwrap().is_ok());
        let lost = pending.0.take_missed_channels();
        assert_eq!(lost, ["a".into(), "b".into()]);
        assert!(!pending.0.take_canary_lapsed());
        pending.0.request(Request::Relisten(lost));
        assert!(pending.0.is_relistening());
        pending.hears(&answer("UNLISTEN"));
        let sent = pending.sent();
        assert!(sent.contains("LISTEN \"a\"") && !sent.contains("LISTEN \"b\";"), "{sent}");
        assert!(!sent.ends_with("LISTEN \"b\"\0"), "the user has left it meanwhile: {sent}");
        pending.hears(&answer("LISTEN"));
        assert_eq!(pending.0.take_relistened(&[]).unwrap(), ["a".into()]);
        assert_eq!(pending.0.channels().iter().collect::<Vec<_>>(), ["a", "c", "new"]);
    }

    #[test]
    fn m16_a_relisten_of_unlistened_channels_is_answered_without_a_query() {
        let mut pending = CanaryScript::listening(&["a"]);
        let leave = pending.0.request(Request::Unlisten(vec!["a".into()]));
        let relisten = pending.0.request(Request::Relisten(vec!["a".into()]));
        pending.sent();
        pending.hears(&answer("UNLISTEN"));
        assert!(pending.0.take_reply(leave).unwrap().is_ok() && pending.0.take_reply(relisten).unwrap().is_ok());
        assert_eq!(pending.sent(), "");
        assert!(pending.0.is_settled() && !pending.0.is_relistening());
    }

    #[test]
    fn m16_an_audit_tells_that_the_private_registration_lapsed_and_mends_it() {
        let mut pending = CanaryScript::attending(&["a"]);
        pending.0.request(Request::Audit);
        pending.sent();
        pending.hears(&channel_rows(&["a"]));
        assert!(pending.0.take_canary_lapsed() && !pending.0.take_canary_lapsed());
        assert!(pending.sent().contains(PRIVATE));
    }

    proptest! {
        #[test]
        fn m16_nothing_private_gets_through_however_a_stream_is_cut(
            channels in prop::collection::vec(0..3_usize, 0..60), cuts in prop::collection::vec(1..90_usize, 1..8),
        ) {
            let names = ["a", PRIVATE, "the private on"];
            let mut pending = CanaryScript::attending(&["a"]);
            let mut stream = Vec::new();
            for (number, which) in channels.iter().enumerate() {
                stream.extend(notification(1, names[*which], number.to_string()));
            }
            let (mut rest, mut heard, mut reads) = (&stream[..], Vec::new(), 0);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts[reads % cuts.len()].min(rest.len()));
                pending.hears(now);
                if reads % 3 == 0 {
                    heard.extend(pending.payloads());
                }
                (rest, reads) = (later, reads + 1);
            }
            heard.extend(pending.payloads());
            let open = channels.iter().enumerate().filter(|(_, which)| **which != 1);
            prop_assert_eq!(heard, open.map(|(number, _)| number.to_string()).collect::<Vec<_>>());
        }
    }
}
