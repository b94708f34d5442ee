//! The canary channel: a channel to which a session listens to check that notifications are delivered.
//!
//! ```text
//!   wanted ──LISTEN──▶ registered ──UNLISTEN──▶ removed
//!      ▲                   │  its notifications are not delivered to the caller
//!      └── UNLISTEN *, DISCARD ALL, a rollback: the session listens again
//! ```
//!
//! The session sends nothing for the canary inside a transaction, and expects no canary unless the registration is certain.

use crate::error::{Error, ValueError};
use crate::proto::channels::Channels;
use crate::proto::request::{Reply, Request};
use crate::proto::sql;

/// The state of the canary channel.
#[derive(Debug, Default)]
pub(crate) struct CanaryProbe {
    /// The channel to listen to.
    wanted: Option<Box<str>>,
    /// The channel whose notifications are not delivered: the session listens to it, or will, or is leaving it.
    channel: Option<Box<str>>,
    registration: Registration,
    /// The error with which the server rejected the channel, until it is taken.
    refusal: Option<Error>,
    /// The identity of the database, once the server listens to the channel; empty if the server does not report it.
    pub(crate) database: Option<Box<str>>,
    /// The payload of the expected canary.
    expected: Option<Box<str>>,
    /// The process that sent the expected canary, until it is taken.
    sender: Option<i32>,
    /// The arrival of the last expected canary, if it has arrived.
    pub(crate) arrival: Option<CanaryArrival>,
    /// `true` if the request in flight was sent to an idle session after the expected canary was committed.
    is_audited: bool,
    /// `true` if the server's list has shown that it no longer listens.
    has_lapsed: bool,
    /// `true` if the canary arrived, or the registration changed, since the sender was last taken.
    pub(crate) has_event: bool,
}

/// The registration of the channel with the server.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Registration {
    #[default]
    Unregistered,
    /// The LISTEN is in flight.
    Listening,
    Registered,
    /// The UNLISTEN is in flight.
    Unlistening,
    /// The server has rejected the LISTEN or the UNLISTEN, which is not sent again until the caller joins or leaves.
    Refused {
        is_registered: bool,
    },
}

/// The arrival of an expected canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CanaryArrival {
    /// It arrived while the session was idle.
    Unprompted,
    /// It arrived with the answer to a request that was sent to the idle session after the canary was committed.
    WithAnswer,
    /// It arrived with the answer to another request, which proves neither.
    Unclear,
}

impl Registration {
    fn is_registered(self) -> bool {
        matches!(self, Self::Registered | Self::Unlistening | Self::Refused { is_registered: true })
    }

    /// Records whether the server has the channel, as an answer shows. A request in flight stays in flight.
    fn update(&mut self, has_channel: bool) {
        match self {
            Self::Refused { is_registered } => *is_registered = has_channel,
            Self::Listening | Self::Unlistening => {}
            Self::Unregistered | Self::Registered => {
                *self = if has_channel { Self::Registered } else { Self::Unregistered };
            }
        }
    }

    /// Allows the request to be sent again after it was rejected.
    fn retry(&mut self) {
        if let Self::Refused { is_registered } = *self {
            *self = Self::Unregistered;
            self.update(is_registered);
        }
    }
}

impl CanaryProbe {
    /// Sets the channel to listen to.
    pub(super) fn join(&mut self, channel: &str) {
        self.wanted = Some(channel.into());
        self.registration.retry();
    }

    /// Unsets the channel to listen to.
    pub(super) fn leave(&mut self) {
        (self.wanted, self.expected) = (None, None);
        self.registration.retry();
    }

    /// Returns the channel whose notifications are not delivered.
    pub(crate) fn channel(&self) -> Option<&str> {
        self.channel.as_deref()
    }

    /// Returns `true` if the server listens to the wanted channel.
    pub(super) fn has_joined(&self) -> bool {
        self.registration.is_registered() && self.wanted == self.channel
    }

    fn is_among(&self, channels: &[Box<str>]) -> bool {
        self.channel.as_ref().is_some_and(|channel| channels.contains(channel))
    }

    // ---- canaries ---------------------------------------------------------------------------------------------

    /// Sets the payload of the expected canary. An earlier one that has arrived and has not been taken proves nothing any more: it
    /// would be taken for this one.
    pub(super) fn expect(&mut self, payload: Option<&str>) {
        self.expected = payload.map(Into::into);
        (self.sender, self.arrival, self.is_audited) = (None, None, false);
    }

    /// Stops expecting a canary.
    pub(crate) fn stop_expecting(&mut self) {
        self.expected = None;
    }

    /// Marks the next request as one that is sent to an idle session after the expected canary was committed.
    pub(super) fn begin_audit(&mut self, is_idle: bool) {
        self.is_audited = is_idle && self.expected.is_some();
    }

    /// Returns `true` if a canary with this payload is expected and has not arrived.
    pub(crate) fn is_missing(&self, payload: &str) -> bool {
        self.expected.as_deref() == Some(payload)
    }

    /// Handles a notification on the channel. Any session may notify it, so unexpected payloads are ignored.
    pub(super) fn receive(&mut self, from: i32, payload: &[u8], is_idle: bool) {
        if self.expected.as_ref().is_some_and(|expected| expected.as_bytes() == payload) {
            (self.expected, self.sender) = (None, Some(from));
            self.arrival = Some(match (is_idle, self.is_audited) {
                (true, _) => CanaryArrival::Unprompted,
                (false, true) => CanaryArrival::WithAnswer,
                (false, false) => CanaryArrival::Unclear,
            });
            self.has_event = true;
        }
    }

    /// Takes the process that sent the expected canary.
    pub(crate) fn take_sender(&mut self) -> Option<i32> {
        self.has_event = false;
        self.sender.take()
    }

    // ---- the registration -------------------------------------------------------------------------------------

    /// Takes the error with which the server rejected the channel.
    pub(crate) fn take_refusal(&mut self) -> Option<Error> {
        self.refusal.take()
    }

    /// Returns `true` if the server's list has shown since the last call that it no longer listens to the channel.
    pub(crate) fn take_lapsed(&mut self) -> bool {
        std::mem::take(&mut self.has_lapsed)
    }

    /// Updates the registration after a request was answered.
    pub(super) fn handle_answer(&mut self, request: &Request, result: &Result<Reply, Error>, in_transaction: bool) {
        let may_unlisten = match request {
            Request::Query(text) => in_transaction || sql::affects_listening(text),
            Request::Unlisten(_) | Request::UnlistenAll | Request::UndoListen(..) => true,
            _ => false,
        };
        self.is_audited = false;
        if may_unlisten {
            self.expected = None;
        }
        match (request, result) {
            (Request::UnlistenAll, Ok(_)) if !in_transaction => self.registration.update(false),
            (Request::Unlisten(names), Ok(_)) if !in_transaction && self.is_among(names) => {
                self.registration.update(false);
            }
            (Request::ListenCanary(_), Ok(reply)) => {
                self.registration = Registration::Registered;
                let columns = reply.rows.first().map(|row| (0..row.len()).filter_map(|at| row.get(at)));
                self.database = columns.map(|columns| columns.collect::<Vec<_>>().join(" ").into());
                self.has_event = true;
            }
            (Request::UnlistenCanary(_), Ok(_)) => {
                (self.registration, self.channel) = (Registration::Unregistered, None);
            }
            (Request::ListenCanary(_) | Request::UnlistenCanary(_), Err(error)) => {
                self.registration = Registration::Refused { is_registered: self.registration.is_registered() };
                self.refusal = Some(error.clone());
                self.has_event = true;
            }
            _ => {}
        }
    }

    /// Removes the channel from the server's list, and records whether it was there.
    pub(super) fn take_listed(&mut self, listed: &mut Vec<Box<str>>) {
        if let Some(channel) = &self.channel {
            let is_listed = listed.contains(channel);
            self.has_lapsed = self.registration.is_registered() && !is_listed;
            self.registration.update(is_listed);
            listed.retain(|other| other != channel);
        }
    }

    /// Returns the next request, unless one is in flight or was rejected. `channels` are the caller's.
    pub(super) fn next_request(&mut self, channels: &Channels) -> Option<Request> {
        let is_registered = match self.registration {
            Registration::Unregistered => false,
            Registration::Registered => true,
            Registration::Listening | Registration::Unlistening | Registration::Refused { .. } => return None,
        };
        if self.channel != self.wanted && !is_registered {
            // A channel that the caller listens to remains the caller's.
            self.wanted.take_if(|wanted| channels.contains(wanted));
            self.channel.clone_from(&self.wanted);
        }
        let channel = self.channel.as_ref()?;
        if self.wanted.as_ref() != Some(channel) {
            self.registration = Registration::Unlistening;
            Some(Request::UnlistenCanary(channel.clone()))
        } else if is_registered {
            None
        } else {
            self.registration = Registration::Listening;
            Some(Request::ListenCanary(channel.clone()))
        }
    }
}

/// Rejects a list of channels that contains the canary channel.
pub(crate) fn refuse_canary_channel(canary: Option<&str>, channels: &[Box<str>]) -> Result<(), Error> {
    match canary.filter(|canary| channels.iter().any(|channel| **channel == **canary)) {
        None => Ok(()),
        Some(canary) => {
            let message = format!(
                "channel {canary:?} is used by the manager's canary, and its notifications are not delivered: choose \
                 another channel, or configure another one for the canary"
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
    use crate::proto::session::Session;
    use crate::proto::session::script::*;
    use crate::proto::{Binding, ReadBuffer};

    const CANARY: &str = "the canary";

    /// A session that is logged in and listens to some channels, and its read buffer.
    struct CanaryScript(Session, ReadBuffer);

    impl CanaryScript {
        fn listening(channels: &[&str]) -> Self {
            let session = Session::new(&Config::new().user("app"), Binding::Unencrypted).unwrap();
            let mut script = Self(session, ReadBuffer::new(4096));
            script.sent();
            script.receive(&login());
            script.0.request(Request::Listen(channels.iter().map(|channel| (*channel).into()).collect()));
            script.receive(&answer("LISTEN"));
            script.sent();
            script
        }

        /// Like [`listening`](Self::listening), and has joined the canary channel.
        fn joined(channels: &[&str]) -> Self {
            let mut script = Self::listening(channels);
            assert!(script.0.join_canary(CANARY).is_some());
            script.receive(&joined_answer());
            assert!(script.0.has_joined_canary());
            script.sent();
            script
        }

        fn receive(&mut self, mut bytes: &[u8]) {
            while !bytes.is_empty() {
                let space = self.0.space(&mut self.1);
                let (now, later) = bytes.split_at(bytes.len().min(space.len()));
                space[..now.len()].copy_from_slice(now);
                self.0.handle_input(&mut self.1, now.len());
                bytes = later;
            }
        }

        fn query(&mut self, sql: &str, status: u8) {
            self.0.request(Request::Query(sql.into()));
            self.sent();
            self.receive(&[done("DONE"), ready(status)].concat());
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

    fn joined_answer() -> Vec<u8> {
        [done("LISTEN"), columns(2), row(&[Some("17.5"), Some("5")]), answer("SELECT 1")].concat()
    }

    #[test]
    fn m16_canaries_are_not_delivered_and_only_the_expected_one_counts() {
        let mut script = CanaryScript::joined(&["a"]);
        script.0.probe_mut().and_then(CanaryProbe::take_sender);
        script.0.expect_canary("canary 1");
        script.receive(&[notification(1, "a", "1"), notification(3, CANARY, "canary 0")].concat());
        assert!(script.0.probe().unwrap().is_missing("canary 1") && !script.0.probe().unwrap().has_event);
        script.receive(&[notification(3, CANARY, "canary 1"), notification(1, "a", "2")].concat());
        assert_eq!(script.0.probe_mut().and_then(CanaryProbe::take_sender), Some(3));
        script.receive(&notification(4, CANARY, "canary 1"));
        assert_eq!(
            (script.0.probe_mut().and_then(CanaryProbe::take_sender), script.0.probe().unwrap().is_missing("canary 1")),
            (None, false),
            "once"
        );
        assert_eq!(script.payloads(), ["1", "2"]);
        assert_eq!(script.0.channels().collect::<Vec<_>>(), ["a"], "and it is not one of the caller's");
    }

    #[test]
    fn m16_a_canary_that_has_arrived_is_not_taken_for_the_next_one() {
        let mut script = CanaryScript::joined(&["a"]);
        script.0.expect_canary("canary 1");
        script.receive(&notification(3, CANARY, "canary 1"));
        script.0.expect_canary("canary 2");
        assert_eq!(script.0.probe_mut().and_then(CanaryProbe::take_sender), None);
        script.receive(&notification(4, CANARY, "canary 2"));
        assert_eq!(script.0.probe_mut().and_then(CanaryProbe::take_sender), Some(4));
    }

    #[test]
    fn m16_only_a_request_to_an_idle_session_proves_that_a_canary_was_held_back() {
        let mut script = CanaryScript::joined(&["a"]);
        let canary = notification(3, CANARY, "canary");
        let mut arrival = |prompted: bool, ask: Option<Request>, answered_before: bool| {
            script.0.expect_canary("canary");
            if prompted {
                script.0.begin_canary_audit();
            }
            let answer = match ask {
                Some(Request::Sync) => ready(b'I'),
                Some(_) => answer("DONE"),
                None => Vec::new(),
            };
            ask.into_iter().for_each(|ask| script.0.enqueue(None, ask));
            script.sent();
            let [first, last] = if answered_before { [&answer, &canary] } else { [&canary, &answer] };
            script.receive(&[first.as_slice(), last.as_slice()].concat());
            script.0.probe().unwrap().arrival
        };
        assert_eq!(arrival(true, Some(Request::Sync), false), Some(CanaryArrival::WithAnswer));
        assert_eq!(arrival(true, Some(Request::Sync), true), Some(CanaryArrival::Unprompted), "behind the answer");
        assert_eq!(arrival(false, Some(Request::Sync), false), Some(CanaryArrival::Unclear), "no question that counts");
        assert_eq!(arrival(false, Some(Request::Query("SELECT".into())), false), Some(CanaryArrival::Unclear));
        assert_eq!(arrival(false, None, false), Some(CanaryArrival::Unprompted));

        script.0.enqueue(None, Request::Sync);
        script.0.expect_canary("canary");
        script.0.begin_canary_audit();
        script.receive(&[canary.as_slice(), &ready(b'I')].concat());
        assert_eq!(script.0.probe().unwrap().arrival, None, "an audit needs an idle session");
    }

    #[test]
    fn m16_the_session_restores_a_dropped_registration() {
        let sqls = [Request::UnlistenAll, Request::Unlisten(vec![CANARY.into()]), Request::Query("DISCARD ALL".into())];
        for ask in sqls {
            let mut script = CanaryScript::joined(&["a"]);
            script.0.expect_canary("canary 1");
            let name = format!("{ask:?}");
            script.0.request(ask);
            script.sent();
            script.receive(&answer("DONE"));
            let mut sent = script.sent();
            if sent.contains("pg_listening_channels") {
                script.receive(&channel_rows(&[]));
                sent = script.sent();
            }
            assert!(sent.contains(&format!("LISTEN \"{CANARY}\"")), "{name}: {sent}");
            assert!(
                !script.0.probe().unwrap().is_missing("canary 1") && !script.0.has_joined_canary(),
                "{name}: a canary that cannot arrive is not missing"
            );
            script.receive(&joined_answer());
            assert!(script.0.has_joined_canary(), "{name}");
        }
    }

    #[test]
    fn m16_the_canary_sends_nothing_inside_a_transaction() {
        let mut script = CanaryScript::listening(&["a"]);
        script.query("BEGIN", b'T');
        assert!(script.0.join_canary(CANARY).is_none() && script.sent().is_empty());
        script.query("SELECT 1", b'E');
        assert!(script.sent().is_empty());
        script.query("ROLLBACK", b'I');
        assert!(script.sent().contains("pg_listening_channels"), "the set is read first");
        script.receive(&channel_rows(&["a"]));
        assert!(script.sent().contains(CANARY));
        script.receive(&joined_answer());
        assert!(script.0.has_joined_canary());

        script.query("BEGIN", b'T');
        script.0.leave_canary();
        assert!(script.sent().is_empty());
        script.query("COMMIT", b'I');
        script.receive(&channel_rows(&["a", CANARY]));
        assert!(script.sent().contains("UNLISTEN"));
        script.receive(&notification(1, CANARY, "late"));
        script.receive(&answer("UNLISTEN"));
        script.receive(&notification(1, CANARY, "the caller's"));
        assert_eq!(script.payloads(), ["the caller's"], "from then on it is a channel like any other");
    }

    #[test]
    fn m16_a_channel_that_the_caller_listened_to_first_remains_the_callers() {
        let mut script = CanaryScript::listening(&["a"]);
        script.query("BEGIN", b'T');
        assert!(script.0.join_canary(CANARY).is_none());
        script.0.request(Request::Listen(vec![CANARY.into()]));
        script.receive(&[done("LISTEN"), ready(b'T')].concat());
        script.query("COMMIT", b'I');
        script.sent();
        script.receive(&channel_rows(&["a", CANARY]));
        assert_eq!((script.sent(), script.0.canary_channel()), (String::new(), None));
        script.receive(&notification(1, CANARY, "the caller's"));
        assert_eq!(script.payloads(), ["the caller's"]);
        assert_eq!(script.0.channels().collect::<Vec<_>>(), ["a", CANARY]);
    }

    #[test]
    fn m16_a_session_can_leave_and_join_another_canary() {
        let mut script = CanaryScript::joined(&["a"]);
        script.0.leave_canary();
        script.0.join_canary("another");
        script.receive(&answer("UNLISTEN"));
        assert!(script.sent().contains("LISTEN \"another\""));
        script.receive(&joined_answer());
        assert!(script.0.has_joined_canary() && script.0.canary_channel() == Some("another"));
    }

    #[test]
    fn m16_a_rejected_canary_channel_is_not_requested_repeatedly() {
        let mut script = CanaryScript::listening(&["a"]);
        script.0.join_canary(CANARY);
        script.sent();
        script.receive(&[error("ERROR", "42501", "no"), ready(b'I')].concat());
        assert!(script.sent().is_empty() && !script.0.has_joined_canary() && script.0.is_quiet());
        script.0.expect_canary("canary 1");
        assert!(!script.0.probe().unwrap().is_missing("canary 1"));
    }

    #[test]
    fn m16_a_rejected_canary_channel_is_requested_again_only_on_demand() {
        let mut script = CanaryScript::listening(&["a"]);
        let refusal = [error("ERROR", "42501", "no"), ready(b'I')].concat();
        script.0.join_canary(CANARY);
        script.sent();
        script.receive(&refusal);
        assert!(script.0.join_canary(CANARY).is_some() && script.sent().contains(CANARY));
        script.receive(&joined_answer());
        assert!(script.0.has_joined_canary());

        let mut script = CanaryScript::listening(&["a"]);
        script.0.join_canary(CANARY);
        script.sent();
        script.receive(&refusal);
        script.0.leave_canary();
        assert_eq!((script.sent(), script.0.canary_channel()), (String::new(), None), "there is nothing to leave");
        script.receive(&notification(1, CANARY, "the caller's"));
        assert_eq!(script.payloads(), ["the caller's"]);
    }

    #[test]
    fn m16_a_session_that_has_left_the_channel_expects_no_canary() {
        let mut script = CanaryScript::joined(&["a"]);
        script.0.expect_canary("canary 1");
        assert!(script.0.probe().unwrap().is_missing("canary 1"));
        script.0.leave_canary();
        assert!(!script.0.probe().unwrap().is_missing("canary 1"));
    }

    #[test]
    fn m16_a_relisten_is_unanswered_until_the_server_answers_or_the_session_ends() {
        let missed: [Box<str>; 2] = ["a".into(), "b".into()];
        let relistening = || {
            let mut script = CanaryScript::listening(&["a", "b"]);
            script.0.request(Request::Relisten(missed.to_vec()));
            assert!(script.sent().contains("LISTEN \"a\"") && script.0.is_relistening(), "it is sent immediately");
            assert_eq!(script.0.take_relistened(&missed), None, "it is not answered");
            script
        };
        let mut answered = relistening();
        answered.receive(&answer("LISTEN"));
        assert!(!answered.0.is_relistening());
        assert_eq!(answered.0.take_relistened(&[]).as_deref(), Some(&missed[..]));
        assert_eq!(answered.0.take_relistened(&missed), None, "once");

        let mut gone = relistening();
        gone.0.handle_loss(Error::Disconnected);
        assert!(!gone.0.is_relistening());
        assert_eq!(gone.0.take_relistened(&missed).as_deref(), Some(&missed[..]), "it may have been any of them");
    }

    #[test]
    fn m16_an_audit_finds_missing_and_new_channels_without_a_race() {
        let mut script = CanaryScript::joined(&["a", "b", "c"]);
        let audit = script.0.request(Request::Audit);
        // This request is made before the answer arrives.
        script.0.request(Request::Unlisten(vec!["b".into()]));
        script.receive(&channel_rows(&["c", "new", CANARY]));
        assert!(script.0.take_reply(audit).unwrap().is_ok());
        let lost = script.0.take_missed_channels();
        assert_eq!(lost, ["a".into(), "b".into()]);
        assert!(!script.0.probe_mut().unwrap().take_lapsed());
        script.0.request(Request::Relisten(lost));
        assert!(script.0.is_relistening());
        script.receive(&answer("UNLISTEN"));
        let sent = script.sent();
        assert!(sent.contains("LISTEN \"a\"") && !sent.contains("LISTEN \"b\";"), "{sent}");
        assert!(!sent.ends_with("LISTEN \"b\"\0"), "the caller has unlistened it meanwhile: {sent}");
        script.receive(&answer("LISTEN"));
        assert_eq!(script.0.take_relistened(&[]).unwrap(), ["a".into()]);
        assert_eq!(script.0.channels().collect::<Vec<_>>(), ["a", "c", "new"]);
    }

    #[test]
    fn m16_a_relisten_of_unlistened_channels_is_answered_without_a_query() {
        let mut script = CanaryScript::listening(&["a"]);
        let leave = script.0.request(Request::Unlisten(vec!["a".into()]));
        let relisten = script.0.request(Request::Relisten(vec!["a".into()]));
        script.sent();
        script.receive(&answer("UNLISTEN"));
        assert!(script.0.take_reply(leave).unwrap().is_ok() && script.0.take_reply(relisten).unwrap().is_ok());
        assert_eq!(script.sent(), "");
        assert!(script.0.is_settled() && !script.0.is_relistening());
    }

    #[test]
    fn m16_an_audit_reports_and_restores_a_lapsed_canary_registration() {
        let mut script = CanaryScript::joined(&["a"]);
        script.0.request(Request::Audit);
        script.sent();
        script.receive(&channel_rows(&["a"]));
        assert!(script.0.probe_mut().unwrap().take_lapsed() && !script.0.probe_mut().unwrap().take_lapsed());
        assert!(script.sent().contains(CANARY));
    }

    proptest! {
        #[test]
        fn m16_no_canary_is_delivered_in_any_division_of_a_stream(
            channels in prop::collection::vec(0..3_usize, 0..60), cuts in prop::collection::vec(1..90_usize, 1..8),
        ) {
            let names = ["a", CANARY, "the canar"];
            let mut script = CanaryScript::joined(&["a"]);
            let mut stream = Vec::new();
            for (number, which) in channels.iter().enumerate() {
                stream.extend(notification(1, names[*which], number.to_string()));
            }
            let (mut rest, mut received, mut reads) = (&stream[..], Vec::new(), 0);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts[reads % cuts.len()].min(rest.len()));
                script.receive(now);
                if reads % 3 == 0 {
                    received.extend(script.payloads());
                }
                (rest, reads) = (later, reads + 1);
            }
            received.extend(script.payloads());
            let open = channels.iter().enumerate().filter(|(_, which)| **which != 1);
            prop_assert_eq!(received, open.map(|(number, _)| number.to_string()).collect::<Vec<_>>());
        }
    }
}
