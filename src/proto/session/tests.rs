//! The rules of a session, one sentence each. The tests write the server's messages.

use super::script::*;
use super::*;
use crate::proto::backlog::BACKLOG_MAX;
use crate::proto::buffer::READ_SIZE;
use crate::proto::buffer::ReadBuffer;
use crate::proto::frame::MessageKind;
use crate::proto::request::Reply;
use crate::proto::sql;

/// A session, with the server's side written by the test.
struct SessionScript {
    session: Session,
    buffer: ReadBuffer,
}

impl SessionScript {
    fn with(config: &Config) -> Self {
        SessionScript {
            session: Session::new(config, Binding::Unencrypted).unwrap(),
            buffer: ReadBuffer::new(READ_SIZE),
        }
    }

    /// Before the login, after the startup packet was sent.
    fn new() -> Self {
        let mut script = Self::with(&Config::new().user("app").password("pencil"));
        assert_eq!(script.sent(), ["StartupMessage"]);
        script
    }

    /// Logged in, without a request.
    fn ready() -> Self {
        let mut script = Self::new().server(&[login()]);
        assert!(matches!(script.outputs()[..], [Output::Ready]));
        script
    }

    /// Logged in, and listening.
    fn listening(channels: &[&str]) -> Self {
        let mut script = Self::ready();
        script.listen(channels);
        script = script.server(&[answer("LISTEN")]);
        script.reply().unwrap();
        script.sent();
        script
    }

    /// Logged in, and in a transaction that has done nothing.
    fn in_transaction() -> Self {
        let mut script = Self::ready();
        script.query("BEGIN");
        script = script.server(&[done("BEGIN"), ready(b'T')]);
        script.reply().unwrap();
        script.sent();
        script
    }

    /// Receives these messages in as few reads as possible.
    fn server(mut self, frames: &[Vec<u8>]) -> Self {
        self.receive(&frames.concat());
        self
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.session.space(&mut self.buffer);
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            self.session.handle_input(&mut self.buffer, now.len());
            bytes = later;
        }
    }

    fn eof(mut self) -> Self {
        self.session.handle_loss(Error::Disconnected);
        self
    }

    fn ask(&mut self, ask: Request) -> RequestId {
        self.session.request(ask)
    }

    fn listen(&mut self, channels: &[&str]) -> RequestId {
        self.ask(Request::Listen(names(channels)))
    }

    fn query(&mut self, sql: &str) -> RequestId {
        self.ask(Request::Query(sql.into()))
    }

    /// Returns what the client has sent since the last call: the SQL of its queries, and the names of other messages.
    fn sent(&mut self) -> Vec<String> {
        let bytes = self.session.poll_transmit().to_vec();
        self.session.handle_transmitted(bytes.len());
        let mut rest = &bytes[..];
        let mut sent = Vec::new();
        while let Some((&tag, behind)) = rest.split_first() {
            // Only the startup packet has no type; its length begins with a zero.
            let named = usize::from(tag != 0);
            let length = u32::from_be_bytes(rest[named..named + 4].try_into().unwrap()) as usize;
            let body = &rest[named + 4..named + length];
            sent.push(match tag {
                0 => "StartupMessage".into(),
                b'Q' => String::from_utf8(body[..body.len() - 1].to_vec()).unwrap(),
                b'X' => "Terminate".into(),
                b'f' => "CopyFail".into(),
                b'S' => "Sync".into(),
                b'p' => format!("PasswordMessage {}", String::from_utf8_lossy(body).trim_end_matches('\0')),
                other => panic!("sent {:?}", char::from(other)),
            });
            rest = &behind[named + length - 1..];
        }
        sent
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll()).collect()
    }

    /// Returns the only output, which must be a reply.
    fn reply(&mut self) -> Result<Reply, Error> {
        let mut outputs = self.outputs();
        match (outputs.pop(), outputs.is_empty()) {
            (Some(Output::Reply(_, reply)), true) => reply,
            (last, _) => panic!("{last:?} after {outputs:?}"),
        }
    }

    /// Returns the reason of the end, which must be the last output.
    fn closed(&mut self) -> Error {
        assert!(self.session.is_closed());
        match self.outputs().pop() {
            Some(Output::Closed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn news(&mut self) -> Vec<String> {
        let batch = self.session.take_notifications();
        batch.iter().flatten().map(|n| format!("{}={}", n.channel(), n.payload())).collect()
    }

    fn channels(&self) -> Vec<&str> {
        self.session.channels().collect()
    }
}

fn names(channels: &[&str]) -> Vec<Box<str>> {
    channels.iter().map(|&channel| channel.into()).collect()
}

const LISTENING_CHANNELS: &str = sql::LISTENING_CHANNELS;

// ---- login ----------------------------------------------------------------------------------------------------

#[test]
fn trust_logs_in_and_stores_what_the_server_reported() {
    let mut script = SessionScript::new();
    assert!(!script.session.is_settled());
    script = script.server(&[login()]);
    assert!(matches!(script.outputs()[..], [Output::Ready]));
    assert_eq!(script.session.pid(), 7);
    assert!(script.session.cancel_request().ends_with(&[0, 0, 0, 7, 0, 0, 0, 9]));
    assert_eq!(script.session.parameter("server_version"), Some("17.2"));
    assert_eq!(script.session.parameter("unknown"), None);
    assert_eq!(script.session.limits(), sql::Limits::Exact);
    assert!(script.session.is_settled() && script.sent().is_empty());
}

#[test]
fn a_password_is_sent_if_the_server_requests_it() {
    let mut script = SessionScript::new().server(&[authentication(3, b"")]);
    assert_eq!(script.sent(), ["PasswordMessage pencil"]);
    script = script.server(&[login()]);
    assert!(matches!(script.outputs()[..], [Output::Ready]));
}

#[test]
fn c02_a_method_that_require_auth_does_not_allow_ends_the_login_and_sends_nothing() {
    let config = Config::new().user("app").password("pencil").require_auth([crate::config::AuthMethod::ScramSha256]);
    let mut script = SessionScript::with(&config);
    script.sent();
    script = script.server(&[authentication(3, b"")]);
    assert!(script.sent().is_empty());
    assert!(script.closed().is_auth());
}

#[test]
fn a_refused_login_ends_with_the_servers_error_of_any_severity() {
    for severity in ["FATAL", "ERROR"] {
        let mut script = SessionScript::new().server(&[error(severity, "28P01", "password authentication failed")]);
        let reason = script.closed();
        assert!(reason.is_auth() && reason.sqlstate() == Some("28P01"), "{reason}");
    }
}

#[test]
fn requests_made_during_the_login_are_sent_after_it() {
    let mut script = SessionScript::new();
    script.listen(&["a"]);
    assert!(script.sent().is_empty());
    script = script.server(&[login()]);
    assert_eq!(script.sent(), [r#"LISTEN "a""#]);
}

#[test]
fn a_server_may_negotiate_the_protocol_or_send_notices_first() {
    let negotiate = frame(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]);
    let mut script = SessionScript::new().server(&[notice("NOTICE", "00000", "hello"), negotiate, login()]);
    assert!(matches!(script.outputs()[..], [Output::Ready]));
    assert_eq!(script.session.take_notices().len(), 1);
}

#[test]
fn nothing_but_the_login_may_come_before_the_login() {
    let early = [
        notification(1, "a", "x"),
        parameter("client_encoding", "UTF8"),
        key(1, 2),
        ready(b'I'),
        done("SELECT 1"),
        columns(1),
        row(&[Some("x")]),
        frame(b'I', b""),
        frame(b'd', b"data"),
    ];
    for frame in early {
        let mut script = SessionScript::new().server(std::slice::from_ref(&frame));
        let reason = script.closed();
        assert!(reason.is_protocol() && reason.to_string().contains("before the login"), "{frame:?}: {reason}");
        assert!(script.news().is_empty());
    }
}

#[test]
fn a_frame_that_is_not_allowed_is_rejected_with_its_header() {
    // Nothing of it is stored first.
    let mut script = SessionScript::new().server(&[header(b'D', 16_000_000)]);
    assert!(script.closed().to_string().contains("DataRow before the login"));
    let mut script = SessionScript::ready().server(&[header(b'D', 16_000_000)]);
    assert!(script.closed().to_string().contains("DataRow without a request"));
}

// ---- parameters -----------------------------------------------------------------------------------------------

#[test]
fn a_parameter_that_changes_has_its_last_value() {
    let script = SessionScript::ready().server(&[parameter("search_path", "a"), parameter("search_path", "b")]);
    assert_eq!(script.session.parameter("search_path"), Some("b"));
}

#[test]
fn c02_another_client_encoding_ends_the_session() {
    let mut script = SessionScript::ready();
    script.query("SET client_encoding = 'SJIS'");
    script = script.server(&[done("SET"), parameter("client_encoding", "SJIS"), ready(b'I')]);
    assert!(script.closed().to_string().contains("client_encoding to \"SJIS\""));
    let mut script = SessionScript::new().server(&[authentication(0, b""), parameter("client_encoding", "LATIN1")]);
    assert!(script.closed().is_protocol());
}

#[test]
fn c02_every_spelling_of_an_encoding_is_recognized() {
    for name in ["UNICODE", "UTF-8", "utf_8", "Utf8"] {
        let mut script =
            SessionScript::ready().server(&[parameter("client_encoding", name), parameter("server_encoding", name)]);
        assert!(!script.session.is_closed(), "{name}: {}", script.closed());
        assert_eq!(script.session.limits(), sql::Limits::Exact, "{name}");
    }
    for name in ["SQL_ASCII", "sqlascii", "SQL-ASCII"] {
        let login = [authentication(0, b""), parameter("server_encoding", name), parameter("client_encoding", name)];
        let mut script = SessionScript::new().server(&login).server(&[ready(b'I')]);
        assert!(script.sent().is_empty(), "{name}: the server sends bytes as they are already");
        assert!(matches!(script.outputs()[..], [Output::Ready]), "{name}");
        assert_eq!(script.session.limits(), sql::Limits::Exact, "{name}");
    }
}

#[test]
fn c04_limits_are_exact_only_if_the_server_counts_the_clients_bytes() {
    for (encoding, limits) in [("SQL_ASCII", sql::Limits::Exact), ("LATIN1", sql::Limits::ServerDecides)] {
        let script = SessionScript::ready().server(&[parameter("server_encoding", encoding)]);
        assert_eq!(script.session.limits(), limits);
    }
}

#[test]
fn the_number_and_size_of_parameters_are_limited() {
    let many: Vec<_> = (0..300).map(|i| parameter(&format!("p{i}"), "x")).collect();
    assert!(SessionScript::ready().server(&many).closed().is_protocol());

    let large = "x".repeat(60_000);
    let many: Vec<_> = (0..200).map(|i| parameter(&format!("p{i}"), &large)).collect();
    let mut script = SessionScript::ready().server(&many);
    assert!(script.closed().is_protocol());
    assert!(script.session.held_bytes() < 4 << 20, "{}", script.session.held_bytes());

    // A parameter that changes many times is still one parameter.
    let mut script = SessionScript::ready();
    for i in 0..500 {
        script = script.server(&[parameter("application_name", &format!("{i}{large}"))]);
    }
    assert!(!script.session.is_closed());
}

// ---- notifications --------------------------------------------------------------------------------------------

#[test]
fn c08_a_notification_in_the_same_read_as_ready_for_query_is_available_with_the_reply() {
    for frames in [
        [done("SELECT 1"), ready(b'I'), notification(1, "a", "x")],
        [notification(1, "a", "x"), done("SELECT 1"), ready(b'I')],
        [done("SELECT 1"), notification(1, "a", "x"), ready(b'I')],
    ] {
        let mut script = SessionScript::ready();
        script.query("SELECT 1");
        script = script.server(&frames);
        script.reply().unwrap();
        assert_eq!(script.news(), ["a=x"]);
    }
}

#[test]
fn c08_notifications_of_several_reads_are_kept_in_order() {
    let mut script = SessionScript::ready();
    script.query("SELECT pg_sleep(1)");
    for i in 0..100 {
        script = script.server(&[notification(1, "a", format!("{i}")), parameter("x", "y"), notification(1, "b", "")]);
    }
    let expected: Vec<_> = (0..100).flat_map(|i| [format!("a={i}"), "b=".into()]).collect();
    assert_eq!(script.news(), expected);
    assert!(script.session.backlog().is_empty());
}

#[test]
fn c09_equal_notifications_are_two() {
    let mut script = SessionScript::ready().server(&[notification(1, "a", "x"), notification(1, "a", "x")]);
    assert_eq!(script.news(), ["a=x", "a=x"]);
}

#[test]
fn c15_taking_one_notification_leaves_the_rest_in_order() {
    let mut script = SessionScript::ready().server(&[notification(1, "a", "1"), notification(1, "a", "2")]);
    assert_eq!(script.session.backlog_mut().pop().unwrap().payload(), "1");
    script = script.server(&[notification(1, "a", "3")]);
    assert_eq!(script.session.backlog_mut().pop().unwrap().payload(), "2");
    assert_eq!(script.news(), ["a=3"]);
    assert!(script.session.backlog_mut().pop().is_none());
}

#[test]
fn a_frame_that_ends_with_a_read_is_handled_once() {
    let frame = notification(1, "a", "a payload");
    for cut in 1..frame.len() {
        let mut script = SessionScript::ready();
        for _ in 0..3 {
            script.receive(&frame[..cut]);
            assert!(script.session.backlog().is_empty());
            script.receive(&frame[cut..]);
            assert_eq!(script.news(), ["a=a payload"], "cut at {cut}");
        }
    }
}

#[test]
fn the_longest_possible_notification_is_received() {
    let payload = "é".repeat(120_000);
    let mut script = SessionScript::ready().server(&[notification(1, "a", "before"), notification(1, "b", &payload)]);
    script = script.server(&[notification(1, "c", "after")]);
    assert_eq!(script.news(), ["a=before", &format!("b={payload}"), "c=after"]);
}

#[test]
fn a_damaged_notification_ends_the_session_after_those_before_it() {
    let pid = 1_i32.to_be_bytes();
    let damaged = [
        frame(b'A', &[&pid, &b"no payload\0"[..]].concat()),
        frame(b'A', &[&pid, &b"no channel's end"[..]].concat()),
        frame(b'A', &[&pid, &b"a\0no payload's end"[..]].concat()),
        frame(b'A', &pid),
    ];
    for frame in damaged {
        let mut script =
            SessionScript::ready().server(&[notification(1, "a", "good"), frame, notification(1, "a", "late")]);
        assert!(script.outputs().is_empty(), "the loss is reported last");
        assert_eq!(script.news(), ["a=good"]);
        assert!(script.closed().is_protocol());
    }
}

#[test]
fn m06_the_loss_is_reported_after_every_notification_was_taken() {
    let fatal = error("FATAL", "57P01", "terminating connection");
    let mut script = SessionScript::ready().server(&[notification(1, "a", "1"), fatal, notification(1, "a", "late")]);
    assert!(script.session.is_closed() && script.outputs().is_empty());
    assert_eq!(script.session.backlog_mut().pop().unwrap().payload(), "1");
    assert_eq!(script.closed().sqlstate(), Some("57P01"));
    assert!(script.outputs().is_empty(), "it is reported once");

    let mut script = SessionScript::ready().server(&[notification(1, "a", "1")]).eof();
    assert!(script.outputs().is_empty());
    assert_eq!(script.news(), ["a=1"]);
    assert!(matches!(script.closed(), Error::Disconnected));
}

#[test]
fn a_backlog_above_the_limit_ends_the_session_and_is_kept() {
    let mut script = SessionScript::ready();
    let frame = notification(1, "a", "x".repeat(8_000));
    let mut sent = 0;
    while !script.session.is_closed() {
        script.receive(&frame);
        sent += 1;
        assert!(sent * frame.len() <= BACKLOG_MAX + frame.len());
    }
    assert!(script.session.held_bytes() <= BACKLOG_MAX + READ_SIZE);
    assert_eq!(script.news().len(), sent);
    assert!(matches!(script.closed(), Error::Overflow { .. }));
}

// ---- listening ------------------------------------------------------------------------------------------------

#[test]
fn c05_many_channels_are_one_query_and_take_effect_with_its_answer() {
    let mut script = SessionScript::ready();
    script.listen(&["b", "A \"quoted\" one"]);
    assert_eq!(script.sent(), [r#"LISTEN "b";LISTEN "A ""quoted"" one""#]);
    script = script.server(&[done("LISTEN"), done("LISTEN")]);
    assert!(script.channels().is_empty() && script.outputs().is_empty());
    script = script.server(&[ready(b'I')]);
    script.reply().unwrap();
    assert_eq!(script.channels(), ["A \"quoted\" one", "b"]);
}

#[test]
fn c05_a_listen_that_fails_adds_nothing() {
    let mut script = SessionScript::listening(&["a"]);
    script.listen(&["b", "c"]);
    let refused = error("ERROR", "25006", "cannot execute LISTEN during recovery");
    script = script.server(&[done("LISTEN"), refused, ready(b'I')]);
    assert_eq!(script.reply().unwrap_err().sqlstate(), Some("25006"));
    assert_eq!(script.channels(), ["a"]);
    assert!(script.session.is_settled());
}

#[test]
fn c05_listening_twice_and_unlistening_an_unknown_channel_are_harmless() {
    let mut script = SessionScript::listening(&["b", "a"]);
    script.listen(&["a", "a", "c"]);
    script = script.server(&[answer("LISTEN")]);
    script.reply().unwrap();
    assert_eq!(script.channels(), ["a", "b", "c"]);
    script.ask(Request::Unlisten(names(&["b", "unknown"])));
    script = script.server(&[answer("UNLISTEN")]);
    script.reply().unwrap();
    assert_eq!(script.channels(), ["a", "c"]);
    script.ask(Request::UnlistenAll);
    script = script.server(&[answer("UNLISTEN")]);
    script.reply().unwrap();
    assert!(script.channels().is_empty());
}

#[test]
fn requests_are_sent_one_by_one_and_answered_in_order() {
    let mut script = SessionScript::ready();
    let (first, second) = (script.listen(&["a"]), script.query("SELECT 1"));
    assert_eq!(script.sent(), [r#"LISTEN "a""#]);
    script = script.server(&[answer("LISTEN")]);
    assert_eq!(script.sent(), ["SELECT 1"]);
    assert!(!script.session.is_settled());
    script = script.server(&[columns(2), row(&[Some("x"), None]), answer("SELECT 1")]);
    let [Output::Reply(one, Ok(_)), Output::Reply(two, Ok(reply))] = &script.outputs()[..] else { panic!() };
    assert_eq!((*one, *two), (first, second));
    assert_eq!((reply.rows[0].get(0).as_deref(), reply.rows[0].get(1), reply.affected), (Some("x"), None, 1));
}

#[test]
fn a_request_that_cannot_be_encoded_fails_alone_and_sends_nothing() {
    let mut script = SessionScript::ready();
    script.query("SELECT 'no\0end'");
    assert!(script.reply().is_err());
    assert!(script.session.is_settled());
    script.query("SELECT 1");
    script.query("SELECT '\0'");
    script.query("SELECT 2");
    script = script.server(&[answer("SELECT 1")]);
    assert_eq!(script.sent(), ["SELECT 1", "SELECT 2"]);
    assert_eq!(script.outputs().len(), 2);
}

#[test]
fn m15_a_sync_is_answered_by_ready_for_query_alone_and_changes_nothing() {
    let mut script = SessionScript::listening(&["a"]);
    script.session.enqueue(None, Request::Sync);
    assert_eq!(script.sent(), ["Sync"]);
    assert!(!script.session.is_settled());
    script = script.server(&[notification(1, "a", "x"), ready(b'I')]);
    assert!(script.session.is_settled() && script.outputs().is_empty());
    assert_eq!((script.news(), script.channels()), (vec!["a=x".into()], vec!["a"]));

    let mut script = SessionScript::in_transaction();
    script.ask(Request::Sync);
    script = script.server(&[ready(b'T')]);
    script.reply().unwrap();
    assert_eq!(script.session.transaction_status(), TransactionStatus::InTransaction);
}

#[test]
fn a_reply_can_be_taken_before_earlier_ones() {
    let mut script = SessionScript::ready();
    let (first, second, third) = (script.query("SELECT 1"), script.query("SELECT 2"), script.query("SELECT 3"));
    script = script.server(&[answer("SELECT 1"), answer("SELECT 2")]);
    assert_eq!(script.session.take_reply(second).unwrap().unwrap().affected, 2);
    assert!(script.session.take_reply(second).is_none() && script.session.take_reply(third).is_none());
    assert!(matches!(script.outputs()[..], [Output::Reply(id, Ok(_))] if id == first));
}

// ---- transactions ---------------------------------------------------------------------------------------------

#[test]
fn c12_a_listen_in_a_transaction_takes_effect_at_commit() {
    let mut script = SessionScript::in_transaction();
    assert_eq!(script.session.transaction_status(), TransactionStatus::InTransaction);
    script.listen(&["a"]);
    script = script.server(&[done("LISTEN"), ready(b'T')]);
    script.reply().unwrap();
    assert!(script.channels().is_empty());
    script.sent();
    script.query("COMMIT");
    script = script.server(&[answer("COMMIT")]);
    assert_eq!(script.sent(), ["COMMIT", LISTENING_CHANNELS]);
    assert!(!script.session.is_settled(), "its channels are not yet known to be those of the server");
    script = script.server(&[channel_rows(&["a"])]);
    assert_eq!(script.channels(), ["a"]);
    assert!(script.session.is_settled());
}

#[test]
fn c12_the_error_of_a_failed_transaction_is_reported_and_its_listens_have_no_effect() {
    let mut script = SessionScript::in_transaction();
    script.listen(&["a"]);
    script = script.server(&[done("LISTEN"), ready(b'T')]);
    script.reply().unwrap();
    script.query("SELECT 1/0");
    script = script.server(&[error("ERROR", "22012", "division by zero"), ready(b'E')]);
    assert_eq!(script.reply().unwrap_err().sqlstate(), Some("22012"));
    assert_eq!(script.session.transaction_status(), TransactionStatus::Failed);
    script.listen(&["b"]);
    script = script.server(&[error("ERROR", "25P02", "current transaction is aborted"), ready(b'E')]);
    assert_eq!(script.reply().unwrap_err().sqlstate(), Some("25P02"));
    script.sent();
    script.query("ROLLBACK");
    script = script.server(&[answer("ROLLBACK"), channel_rows(&[])]);
    assert_eq!(script.sent(), ["ROLLBACK", LISTENING_CHANNELS]);
    assert!(script.channels().is_empty() && script.session.is_settled());
}

#[test]
fn c12_the_channels_are_read_after_sql_that_may_have_changed_them() {
    for text in ["LISTEN b", "unlisten *", "DISCARD ALL", "BEGIN; LISTEN b; COMMIT"] {
        let mut script = SessionScript::listening(&["a"]);
        script.query(text);
        script = script.server(&[answer("LISTEN")]);
        assert_eq!(script.sent(), [text, LISTENING_CHANNELS]);
        script = script.server(&[channel_rows(&["z", "b"])]);
        script.reply().unwrap();
        assert_eq!(script.channels(), ["b", "z"]);
    }
    let mut script = SessionScript::listening(&["a"]);
    script.query("SELECT 1");
    script = script.server(&[answer("SELECT 1")]);
    assert_eq!(script.sent(), ["SELECT 1"]);
    assert!(script.session.is_settled());
}

#[test]
fn c12_the_channels_are_read_after_any_explicit_transaction() {
    // A function may have run LISTEN in it.
    let mut script = SessionScript::in_transaction();
    script.query("COMMIT");
    script = script.server(&[answer("COMMIT")]);
    assert_eq!(script.sent(), ["COMMIT", LISTENING_CHANNELS]);
}

#[test]
fn c12_a_listen_in_a_query_is_kept_before_the_channels_are_read() {
    let possible = |script: &SessionScript| script.session.possible_channels().map(String::from).collect::<Vec<_>>();
    for text in ["LISTEN b", "BEGIN; LISTEN b; COMMIT; BEGIN", "DO $$BEGIN EXECUTE 'LISTEN b'; END$$"] {
        let mut script = SessionScript::listening(&["a"]);
        script.query(text);
        script = script.server(&[answer("LISTEN")]);
        assert_eq!((script.channels(), possible(&script)), (vec!["a"], vec!["a".into(), "b".into()]), "{text}");
        // The server's list is authoritative.
        script = script.server(&[channel_rows(&["a"])]);
        assert_eq!(possible(&script), ["a"], "{text}");
    }
}

#[test]
fn c12_a_listen_in_a_transaction_is_kept_before_the_channels_are_read() {
    for (commit, status) in [("COMMIT", b'I'), ("COMMIT AND CHAIN", b'T'), ("COMMIT; BEGIN", b'T')] {
        let mut script = SessionScript::in_transaction();
        script.listen(&["b"]);
        script = script.server(&[[done("LISTEN"), ready(b'T')].concat()]);
        script.query(commit);
        script = script.server(&[[done("COMMIT"), ready(status)].concat()]);
        // Inside a transaction the channels are not read: the list would be from before it.
        script.ask(Request::ReadChannels);
        if status == b'T' {
            script = script.server(&[[columns(1), done("SELECT 0"), ready(b'T')].concat()]);
        }
        script.session.handle_loss(Error::Disconnected);
        assert_eq!(script.session.possible_channels().collect::<Vec<_>>(), ["b"], "{commit}");
    }
}

#[test]
fn c12_a_listen_is_kept_only_if_its_transaction_may_have_been_committed() {
    let listening_in_transaction = || {
        let mut script = SessionScript::in_transaction();
        script.listen(&["b"]);
        script = script.server(&[done("LISTEN"), ready(b'T')]);
        script.query("listen c");
        script.server(&[done("LISTEN"), ready(b'T')])
    };
    let possible_at_end = |mut script: SessionScript| {
        script.session.handle_loss(Error::Disconnected);
        script.session.possible_channels().map(String::from).collect::<Vec<_>>()
    };
    assert!(possible_at_end(listening_in_transaction()).is_empty(), "it was open");
    for (sql, expected) in [("SELECT 1", vec![]), ("COMMIT", vec!["b", "c"]), ("end", vec!["b", "c"])] {
        let mut script = listening_in_transaction();
        script.query(sql);
        assert_eq!(possible_at_end(script), expected, "{sql} was not answered");
    }
    let mut script = listening_in_transaction();
    script.query("ROLLBACK AND CHAIN");
    script = script.server(&[done("ROLLBACK"), ready(b'T')]);
    assert!(possible_at_end(script).is_empty(), "it was rolled back");
}

#[test]
fn c12_a_transaction_right_after_another_is_distinguished_from_it() {
    let mut script = SessionScript::in_transaction();
    assert!(script.session.take_new_transaction() && !script.session.take_new_transaction());
    for (sql, tags, is_new) in [
        ("COMMIT; BEGIN", &["COMMIT", "BEGIN"][..], true),
        ("COMMIT AND CHAIN", &["COMMIT"], true),
        ("rollback and chain", &["ROLLBACK"], true),
        ("ROLLBACK; START TRANSACTION", &["ROLLBACK", "START TRANSACTION"], true),
        ("PREPARE TRANSACTION 'a'; BEGIN", &["PREPARE TRANSACTION", "BEGIN"], true),
        ("ROLLBACK TO SAVEPOINT a", &["ROLLBACK"], false),
        ("BEGIN", &["BEGIN"], false),
        ("SELECT 1", &["SELECT 1"], false),
    ] {
        script.query(sql);
        script = script.server(&[tags.iter().flat_map(|tag| done(tag)).chain(ready(b'T')).collect()]);
        assert_eq!(script.session.take_new_transaction(), is_new, "{sql}");
    }
}

#[test]
fn c12_the_channels_are_read_before_the_next_request() {
    let mut script = SessionScript::listening(&["a"]);
    script.query("DISCARD ALL");
    script.listen(&["c"]);
    script = script.server(&[answer("DISCARD ALL"), channel_rows(&[]), answer("LISTEN")]);
    assert_eq!(script.sent(), ["DISCARD ALL", LISTENING_CHANNELS, r#"LISTEN "c""#]);
    assert_eq!(script.channels(), ["c"]);
}

#[test]
fn c12_a_server_that_does_not_list_the_channels_is_asked_once_for_each_request() {
    let refusal = || [error("ERROR", "42501", "permission denied"), ready(b'I')].concat();
    let mut script = SessionScript::listening(&["a"]);
    script.query("LISTEN b");
    script = script.server(&[answer("LISTEN"), refusal()]);
    assert_eq!(script.sent(), ["LISTEN b", LISTENING_CHANNELS]);
    script.reply().unwrap();
    assert!(script.session.is_settled());
    script.query("SELECT 1");
    script = script.server(&[answer("SELECT 1"), refusal()]);
    assert_eq!(script.sent(), ["SELECT 1", LISTENING_CHANNELS]);
    assert!(script.session.is_settled());
}

#[test]
fn c07_reading_the_channels_returns_and_stores_them() {
    let mut script = SessionScript::listening(&["a"]);
    script.ask(Request::ReadChannels);
    script = script.server(&[channel_rows(&["x", "b"])]);
    assert_eq!(script.reply().unwrap().rows.len(), 2);
    assert_eq!(script.channels(), ["b", "x"]);
}

#[test]
fn c12_after_58p01_the_queue_is_read_and_the_listen_retried_once() {
    let broken = || [error("ERROR", "58P01", "could not access status of transaction"), ready(b'I')].concat();
    let mut script = SessionScript::ready();
    script.listen(&["a"]);
    script = script.server(&[broken()]);
    assert!(script.outputs().is_empty() && !script.session.is_settled());
    script = script.server(&[columns(1), row(&[Some("0")]), answer("SELECT 1"), answer("LISTEN")]);
    assert_eq!(script.sent(), [r#"LISTEN "a""#, sql::QUEUE_USAGE, r#"LISTEN "a""#]);
    script.reply().unwrap();
    assert_eq!(script.channels(), ["a"]);

    let mut script = SessionScript::ready();
    script.listen(&["a"]);
    script = script.server(&[broken(), broken(), broken()]);
    assert_eq!(script.reply().unwrap_err().sqlstate(), Some("58P01"));
    assert_eq!(script.sent().len(), 3);
    assert!(script.channels().is_empty() && script.session.is_settled());
}

#[test]
fn c12_58p01_in_a_transaction_is_reported() {
    let mut script = SessionScript::in_transaction();
    script.listen(&["a"]);
    script = script.server(&[error("ERROR", "58P01", "could not access status of transaction"), ready(b'E')]);
    assert_eq!(script.reply().unwrap_err().sqlstate(), Some("58P01"));
    assert_eq!(script.sent(), [r#"LISTEN "a""#]);
}

#[test]
fn c04_a_name_that_the_server_truncates_is_an_error_and_is_undone() {
    let cut = notice("NOTICE", "42622", "identifier \"long\" will be truncated to \"lon\"");
    let mut script = SessionScript::listening(&["a"]);
    script.listen(&["a", "long"]);
    script = script.server(&[cut.clone(), answer("LISTEN")]);
    let error = script.reply().unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("too long"), "{error}");
    assert!(!script.session.is_settled());
    assert_eq!(script.sent(), [r#"LISTEN "a";LISTEN "long""#, r#"UNLISTEN "long";LISTEN "a""#]);
    // The UNLISTEN truncates the name, too, as it should.
    script = script.server(&[cut, answer("UNLISTEN")]);
    assert_eq!(script.sent(), [LISTENING_CHANNELS]);
    script = script.server(&[channel_rows(&["a"])]);
    assert_eq!(script.channels(), ["a"]);
    assert!(script.session.is_settled() && script.outputs().is_empty());
}

#[test]
fn c04_a_truncated_name_is_undone_before_the_channels_are_read() {
    let mut script = SessionScript::listening(&["a"]);
    script.query("LISTEN b");
    // The channels are not listed, so they must still be read when the name is truncated.
    script = script.server(&[answer("LISTEN"), error("ERROR", "42501", "permission denied"), ready(b'I')]);
    script.outputs();
    script.sent();
    script.listen(&["long"]);
    script = script.server(&[notice("NOTICE", "42622", "truncated"), answer("LISTEN"), answer("UNLISTEN")]);
    assert_eq!(script.sent(), [r#"LISTEN "long""#, r#"UNLISTEN "long";LISTEN "a""#, LISTENING_CHANNELS]);
    script = script.server(&[channel_rows(&["a", "b"])]);
    assert_eq!(script.channels(), ["a", "b"]);
}

#[test]
fn c04_a_name_truncated_in_a_transaction_is_undone_in_it() {
    let mut script = SessionScript::in_transaction();
    script.listen(&["long"]);
    script = script.server(&[notice("NOTICE", "42622", "truncated"), done("LISTEN"), ready(b'T')]);
    assert!(script.reply().is_err());
    script = script.server(&[done("UNLISTEN"), ready(b'T')]);
    assert_eq!(script.sent(), [r#"LISTEN "long""#, r#"UNLISTEN "long";"#]);
    script.query("COMMIT");
    script = script.server(&[answer("COMMIT"), channel_rows(&[])]);
    assert_eq!(script.sent(), ["COMMIT", LISTENING_CHANNELS]);
    assert!(script.channels().is_empty() && script.session.is_settled());
}

#[test]
fn c04_a_name_that_the_server_refuses_to_truncate_is_an_error_and_needs_no_undo() {
    let mut script = SessionScript::listening(&["a"]).server(&[parameter("server_encoding", "EUC_JP")]);
    let long = "é".repeat(40);
    let refusal =
        [notice("NOTICE", "42622", "truncated"), error("ERROR", "22023", "channel name too long"), ready(b'I')];
    for ask in [Request::Listen(names(&["b", &long])), Request::Unlisten(names(&["a", &long]))] {
        script.ask(ask);
        let sent = script.sent();
        assert!(
            sent.len() == 1 && sent[0].starts_with("SELECT pg_catalog.pg_notify(c,'') FROM (VALUES ('é"),
            "{sent:?}"
        );
        script = script.server(&refusal);
        let error = script.reply().unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("63 bytes"), "{error}");
        assert!(script.session.is_settled());
        assert_eq!(script.channels(), ["a"]);
    }
    script.listen(&["b"]);
    assert_eq!(script.sent(), [r#"LISTEN "b""#], "one round trip, and one statement");
}

// ---- a server that does not listen ----------------------------------------------------------------------------

#[test]
fn c12_a_listen_that_the_server_reports_to_ignore_is_an_error() {
    for (severity, code) in [("WARNING", "0A000"), ("NOTICE", "0A000")] {
        let mut script = SessionScript::ready();
        script.listen(&["a"]);
        script = script.server(&[notice(severity, code, "LISTEN will be ignored"), answer("LISTEN")]);
        let error = script.reply().unwrap_err();
        assert!(error.to_string().contains("will be ignored") && error.sqlstate() == Some(code), "{error}");
        assert_eq!(script.sent(), [r#"LISTEN "a""#, r#"UNLISTEN "a";"#]);
        script = script.server(&[answer("UNLISTEN"), channel_rows(&[])]);
        assert!(script.session.is_settled() && script.channels().is_empty());
    }

    // In a transaction, and on the canary channel.
    let mut script = SessionScript::in_transaction();
    script.listen(&["a"]);
    script = script.server(&[notice("WARNING", "0A000", "ignored"), done("LISTEN"), ready(b'T')]);
    assert!(script.reply().is_err());
    let mut script = SessionScript::ready();
    script.session.join_canary("private").unwrap();
    script = script.server(&[notice("WARNING", "0A000", "ignored"), answer("LISTEN")]);
    assert!(script.reply().is_err() && !script.session.has_joined_canary());
}

#[test]
fn c12_a_listen_with_another_warning_succeeds_if_the_server_lists_it() {
    for (listed, is_good) in [(&["a", "b"][..], true), (&["a"], false), (&[], false)] {
        let mut script = SessionScript::listening(&["a"]);
        script.listen(&["a", "b"]);
        script = script.server(&[notice("WARNING", "01000", "LISTEN is disabled"), answer("LISTEN")]);
        assert!(script.outputs().is_empty());
        assert_eq!(script.sent(), [r#"LISTEN "a";LISTEN "b""#, LISTENING_CHANNELS]);
        script = script.server(&[channel_rows(listed)]);
        match script.reply() {
            Ok(_) => assert!(is_good),
            Err(error) => assert!(!is_good && error.to_string().contains("disabled"), "{error}"),
        }
        if !is_good {
            script = script.server(&[answer("UNLISTEN"), channel_rows(&["a"])]);
        }
        assert_eq!(script.channels(), if is_good { &["a", "b"][..] } else { &["a"] });
        assert!(script.session.is_settled());
    }
    // A server that is shutting down may send its warning at any time.
    let mut script = SessionScript::ready();
    script.listen(&["a"]);
    script = script.server(&[notice("WARNING", "57P02", "crash"), answer("LISTEN")]);
    script.reply().unwrap();
    assert_eq!(script.channels(), ["a"]);
}

#[test]
fn c12_a_relisten_that_the_server_ignores_is_an_error() {
    let mut script = SessionScript::listening(&["a"]);
    script.ask(Request::Relisten(names(&["a"])));
    script = script.server(&[notice("WARNING", "01000", "disabled"), answer("LISTEN")]);
    assert!(script.session.is_relistening());
    script = script.server(&[channel_rows(&[])]);
    assert!(script.closed().to_string().contains("disabled"));
}

// ---- answers --------------------------------------------------------------------------------------------------

#[test]
fn rows_of_several_statements_are_one_answer() {
    let mut script = SessionScript::ready();
    script.query("SELECT 1; INSERT ..; SELECT 1, 2");
    let first = [columns(1), row(&[Some("1")]), done("SELECT 1"), done("INSERT 0 3")].concat();
    script = script.server(&[first, columns(2), row(&[Some("1"), Some("2")]), answer("SELECT 1")]);
    let reply = script.reply().unwrap();
    assert_eq!(reply.rows.iter().map(crate::row::Row::len).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(reply.affected, 5);
}

#[test]
fn the_first_error_of_an_answer_is_reported_and_the_session_continues() {
    let mut script = SessionScript::ready();
    script.query("SELECT 1; SELECT 1/0");
    let answer_before = [columns(1), row(&[Some("1")]), done("SELECT 1")].concat();
    script = script.server(&[answer_before, error("ERROR", "22012", "x"), error("ERROR", "XX000", "y"), ready(b'I')]);
    assert_eq!(script.reply().unwrap_err().sqlstate(), Some("22012"));
    assert!(script.session.is_settled());
}

#[test]
fn an_empty_query_is_answered_too() {
    let mut script = SessionScript::ready();
    script.query("");
    script = script.server(&[frame(b'I', b""), ready(b'I')]);
    assert!(script.reply().unwrap().rows.is_empty());
}

#[test]
fn c11_a_copy_in_is_refused_once() {
    let copy_in = || frame(b'G', &[0, 0, 1, 0, 0]);
    let mut script = SessionScript::ready();
    script.query("COPY t FROM STDIN");
    script = script.server(&[copy_in()]);
    assert_eq!(script.sent(), ["COPY t FROM STDIN", "CopyFail"]);
    script = script.server(&[error("ERROR", "57014", "COPY from stdin failed"), ready(b'I')]);
    assert_eq!(script.reply().unwrap_err().sqlstate(), Some("57014"));
    assert!(script.session.is_settled());

    // The refusal ends the query. A server that requests data again is at fault.
    script.query("COPY t FROM STDIN");
    script = script.server(&[copy_in(), copy_in()]);
    assert!(matches!(script.outputs()[..], [Output::Reply(_, Err(Error::Protocol(_))), Output::Closed(_)]));
}

#[test]
fn c11_copy_both_closes() {
    let mut script = SessionScript::ready();
    script.query("START_REPLICATION ..");
    script = script.server(&[frame(b'W', &[0, 0, 1, 0, 0])]);
    assert!(script.closed().is_protocol());
}

#[test]
fn c11_a_notification_in_the_middle_of_copy_out_is_not_lost() {
    let mut script = SessionScript::ready();
    script.query("COPY t TO STDOUT");
    script = script.server(&[frame(b'H', &[0, 0, 1, 0, 0]), frame(b'd', b"row\n"), notification(1, "a", "x")]);
    script = script.server(&[frame(b'd', &vec![b'z'; 3_000_000]), notification(1, "a", "y"), frame(b'd', b"")]);
    assert!(script.session.held_bytes() < 10_000, "none of the data is kept");
    script = script.server(&[frame(b'c', b""), answer("COPY 3")]);
    assert_eq!(script.reply().unwrap().affected, 3);
    assert_eq!(script.news(), ["a=x", "a=y"]);
    assert!(script.session.is_settled());
}

#[test]
fn an_answer_that_is_too_long_is_an_error_and_the_session_continues() {
    let mut script = SessionScript::ready();
    script.query("SELECT repeat('x', 1000000) FROM generate_series(1, 80)");
    script.receive(&columns(1));
    let row = row(&[Some("x".repeat(1_000_000))]);
    for _ in 0..80 {
        script.receive(&row);
    }
    assert!(script.session.held_bytes() < 1 << 20, "notifications that cannot be returned are discarded");
    script.receive(&notification(1, "a", "x"));
    script = script.server(&[answer("SELECT 80")]);
    let error = script.reply().unwrap_err();
    assert!(matches!(error, Error::AnswerTooLong(_)) && error.to_string().contains("more than 67108864"), "{error}");
    assert!(script.session.is_settled());
    assert_eq!(script.news(), ["a=x"]);
}

#[test]
fn empty_rows_count_with_their_size_in_memory() {
    let mut script = SessionScript::ready();
    script.query("SELECT NULL, NULL, ..");
    script.receive(&columns(100));
    let rows = row::<&str>(&[None; 100]).repeat(1_000);
    for _ in 0..50 {
        script.receive(&rows);
        assert!(script.session.held_bytes() <= requests::ANSWER_MAX + READ_SIZE);
    }
    script = script.server(&[answer("SELECT 50000")]);
    assert!(matches!(script.reply(), Err(Error::AnswerTooLong(_))));
}

#[test]
fn a_row_that_is_too_long_is_an_error_and_the_session_continues() {
    let mut script = SessionScript::ready();
    script.query("SELECT repeat('x', 20000000)");
    script = script.server(&[columns(1), row(&[Some("x".repeat(20_000_000))]), notification(1, "a", "x")]);
    script = script.server(&[answer("SELECT 1")]);
    let error = script.reply().unwrap_err();
    assert!(matches!(error, Error::AnswerTooLong(_)), "{error}");
    assert!(error.to_string().contains("a row of 20000006 bytes"), "{error}");
    assert_eq!(script.news(), ["a=x"]);
    script.query("SELECT 1");
    script = script.server(&[answer("SELECT 1")]);
    script.reply().unwrap();
}

#[test]
fn rows_must_be_announced() {
    for frames in [
        vec![row(&[Some("x")])],
        vec![columns(2), row(&[Some("x")])],
        vec![columns(0), done("SELECT 0"), row::<&str>(&[])],
    ] {
        let mut script = SessionScript::ready();
        script.query("SELECT 1");
        script = script.server(&frames);
        assert!(script.closed().is_protocol(), "{frames:?}");
    }
}

// ---- notices and errors ---------------------------------------------------------------------------------------

#[test]
fn c16_the_latest_64_notices_are_kept() {
    let notices: Vec<_> = (0..100).map(|i| notice("NOTICE", "00000", &i.to_string())).collect();
    let mut script = SessionScript::ready().server(&notices);
    let taken = script.session.take_notices();
    assert_eq!(taken.len(), 64);
    assert_eq!((taken[0].message(), taken[63].message()), ("36", "99"));
    assert!(script.session.take_notices().is_empty());
}

#[test]
fn c16_the_warning_of_a_server_that_shuts_down_is_the_reason_of_the_loss() {
    let warning = notice("WARNING", "57P02", "terminating because of crash of another server process");
    let mut script = SessionScript::ready().server(std::slice::from_ref(&warning)).eof();
    assert_eq!(script.closed().sqlstate(), Some("57P02"));
    let mut script = SessionScript::ready().server(&[warning]);
    script.session.handle_loss(Error::io("reading from the server", std::io::ErrorKind::ConnectionReset.into()));
    assert_eq!(script.closed().sqlstate(), Some("57P02"));
    // Another one is not.
    let mut script = SessionScript::ready().server(&[notice("WARNING", "25P01", "there is no transaction")]).eof();
    assert!(matches!(script.closed(), Error::Disconnected));
}

#[test]
fn a_notice_of_10_megabytes_is_truncated_to_64_kilobytes() {
    let long = notice("NOTICE", "00000", &"x".repeat(10_000_000));
    let mut script = SessionScript::ready().server(&[long, notification(1, "a", "x")]);
    assert!(script.session.held_bytes() < 200_000, "{}", script.session.held_bytes());
    assert_eq!(script.news(), ["a=x"]);
    let notices = script.session.take_notices();
    assert!((60_000..=64 * 1024).contains(&notices[0].message().len()));
    assert_eq!(notices[0].code(), "00000");
}

#[test]
fn the_memory_of_notices_is_limited() {
    let long = notice("NOTICE", "00000", &"x".repeat(100_000));
    let mut script = SessionScript::new();
    for _ in 0..200 {
        script.receive(&long);
    }
    assert!(script.session.held_bytes() < 5 << 20, "{}", script.session.held_bytes());
    assert!(!script.session.is_closed());
}

#[test]
fn an_error_without_a_request_is_reported_like_a_notice() {
    let mut script =
        SessionScript::ready().server(&[error("ERROR", "57014", "canceling statement"), notification(1, "a", "x")]);
    assert!(!script.session.is_closed() && script.outputs().is_empty());
    assert_eq!(script.session.take_notices()[0].code(), "57014");
    assert_eq!(script.news(), ["a=x"]);
}

// ---- the end --------------------------------------------------------------------------------------------------

#[test]
fn a_fatal_error_is_the_reply_to_all_requests() {
    let mut script = SessionScript::ready();
    let asked = [script.query("SELECT 1"), script.listen(&["a"]), script.query("SELECT 2")];
    let fatal = error("FATAL", "57P01", "terminating connection due to administrator command");
    script = script.server(&[columns(1), row(&[Some("1")]), fatal, ready(b'I')]);
    let outputs = script.outputs();
    assert_eq!(outputs.len(), 4);
    for (output, asked) in outputs.iter().zip(asked) {
        assert!(matches!(output, Output::Reply(id, Err(e)) if *id == asked && e.sqlstate() == Some("57P01")));
    }
    assert!(matches!(&outputs[3], Output::Closed(e) if e.sqlstate() == Some("57P01")));
    assert_eq!(script.sent(), ["SELECT 1"]);
    assert!(script.channels().is_empty());

    // Later requests get the same answer.
    script.query("SELECT 3");
    assert_eq!(script.reply().unwrap_err().sqlstate(), Some("57P01"));
    script.session.enqueue(None, Request::Sync);
    assert!(script.session.is_settled() && script.sent().is_empty());
    assert_eq!(script.session.error().unwrap().sqlstate(), Some("57P01"));
}

#[test]
fn requests_of_the_session_itself_have_no_reply() {
    let mut script = SessionScript::listening(&["a"]);
    script.query("LISTEN b");
    script = script.server(&[answer("LISTEN")]);
    script.reply().unwrap();
    script = script.eof();
    assert!(matches!(script.outputs()[..], [Output::Closed(Error::Disconnected)]));
}

#[test]
fn the_end_of_the_stream_ends_a_login_a_wait_and_a_query() {
    assert!(matches!(SessionScript::new().eof().closed(), Error::Disconnected));
    assert!(matches!(SessionScript::ready().eof().closed(), Error::Disconnected));
    let mut script = SessionScript::ready();
    script.query("SELECT 1");
    script = script.server(&[columns(1)]).eof();
    let [Output::Reply(_, Err(Error::Disconnected)), Output::Closed(Error::Disconnected)] = script.outputs()[..] else {
        panic!()
    };
}

#[test]
fn c16_an_error_before_the_end_is_its_reason() {
    let last = || error("ERROR", "XX000", "scripted");
    // In answer to a request, the last of several errors is the reason.
    let mut script = SessionScript::ready();
    script.listen(&["a"]);
    script = script.server(&[error("ERROR", "42501", "no"), last()]).eof();
    let outputs = script.outputs();
    let [Output::Reply(_, Err(reply)), Output::Closed(reason)] = &outputs[..] else { panic!("{outputs:?}") };
    for error in [reply, reason] {
        assert_eq!(error.to_string(), "ERROR XX000: scripted; the connection ended with this error");
        assert!(error.is_transient() && error.server().unwrap().is_fatal());
    }

    // Without a request; and with a reset.
    let mut script = SessionScript::ready().server(&[last()]);
    assert!(!script.session.is_closed());
    script.session.handle_loss(Error::io("reading from the server", std::io::ErrorKind::ConnectionReset.into()));
    assert_eq!(script.closed().sqlstate(), Some("XX000"));

    // During the login, in any severity; and truncated by the end of the stream.
    assert_eq!(SessionScript::new().server(&[last()]).eof().closed().sqlstate(), Some("XX000"));
    for mut script in [SessionScript::new(), SessionScript::ready()] {
        let whole = error("ERROR", "53200", "out of memory");
        script.receive(&whole[..whole.len() - 5]);
        assert_eq!(script.eof().closed().to_string(), "ERROR 53200: out of mem; the connection ended with this error");
    }
}

#[test]
fn c16_an_error_before_ready_for_query_is_not_the_reason_of_a_later_end() {
    let mut script = SessionScript::ready();
    script.query("SELECT 1/0");
    script = script.server(&[error("ERROR", "22012", "division by zero"), ready(b'I')]);
    assert!(!script.reply().unwrap_err().server().unwrap().is_fatal());
    assert!(matches!(script.eof().closed(), Error::Disconnected));
}

#[test]
fn c16_plain_text_instead_of_a_message_is_the_error_of_the_login() {
    let text = b"Ecould not fork new process for connection: Resource temporarily unavailable\n\0";
    for cut in 1..=text.len() {
        // The text ends with a NUL, or with the stream.
        for end in [true, false] {
            let mut script = SessionScript::new();
            script.receive(&text[..cut]);
            script.receive(if end { &text[cut..] } else { b"" });
            let reason = script.eof().closed();
            match &reason {
                Error::Server(_) => assert!(reason.to_string().starts_with("FATAL: c"), "{reason}"),
                _ => assert!(!end && cut < 2, "{cut}: {reason}"),
            }
            assert!(reason.is_transient() && reason.sqlstate().is_none(), "{reason}");
        }
    }
    // Anything but text is a damaged length. After the login, text is one, too.
    assert!(SessionScript::new().server(&[header(b'E', 0x7fff_ffff)]).closed().is_protocol());
    let mut script = SessionScript::ready();
    script.receive(text);
    assert!(script.closed().is_protocol());
    // A text without an end is truncated.
    let mut script = SessionScript::new();
    script.receive(b"E");
    script.receive(&b"x".repeat(31_000));
    assert!(script.closed().server().is_some_and(|error| error.message().len() == 30_000));
}

#[test]
fn c13_terminate_sends_its_message_and_keeps_received_notifications() {
    let mut script = SessionScript::ready().server(&[notification(1, "a", "x")]);
    script.query("SELECT 1");
    script.session.terminate();
    script.session.terminate();
    assert_eq!(script.sent(), ["SELECT 1", "Terminate"]);
    assert!(matches!(script.outputs()[..], [Output::Reply(_, Err(Error::Closed))]));
    script = script.server(&[notification(1, "a", "late")]).eof();
    assert_eq!(script.news(), ["a=x"]);
    assert!(matches!(script.closed(), Error::Closed));
}

#[test]
fn nothing_is_handled_after_the_end() {
    let mut script = SessionScript::ready().eof();
    script.closed();
    let late = [notification(1, "a", "x"), parameter("x", "y"), notice("NOTICE", "00000", "z"), login()];
    script = script.server(&late).eof();
    assert!(script.outputs().is_empty() && script.news().is_empty() && script.session.take_notices().is_empty());
    assert_eq!(script.session.parameter("x"), None);
}

// ---- hostile servers ------------------------------------------------------------------------------------------

#[test]
fn invalid_lengths_end_the_session_and_use_no_memory() {
    for tag in b"ACDEGHIKNRSTWZcdv" {
        for length in [0, 3, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            for mut script in [SessionScript::new(), SessionScript::ready()] {
                script = script.server(&[header(*tag, length)]);
                assert!(script.closed().is_protocol(), "{:?} {length}", char::from(*tag));
                assert!(script.session.held_bytes() < 4096);
            }
        }
    }
}

#[test]
fn unknown_types_end_the_session_with_the_first_byte() {
    for tag in 0..=255 {
        if MessageKind::of(tag).is_none() {
            let mut script = SessionScript::ready();
            script.receive(&[tag]);
            assert!(script.closed().is_protocol());
        }
    }
}

#[test]
fn messages_that_are_not_allowed_end_the_session() {
    let idle = [ready(b'I'), done("SELECT 1"), columns(0), row::<&str>(&[]), frame(b'I', b""), key(1, 2)];
    let busy = [authentication(0, b""), key(1, 2), frame(b'v', &[0; 8]), ready(b'?')];
    for frame in idle {
        assert!(SessionScript::ready().server(std::slice::from_ref(&frame)).closed().is_protocol(), "{frame:?}");
    }
    for frame in busy {
        let mut script = SessionScript::ready();
        script.query("SELECT 1");
        assert!(script.server(std::slice::from_ref(&frame)).closed().is_protocol(), "{frame:?}");
    }
    for frame in [done("SELECT 1"), columns(1), authentication(0, b"")] {
        assert!(SessionScript::new().server(&[authentication(0, b""), frame]).closed().is_protocol());
    }
}

#[test]
fn every_message_with_a_truncated_body_ends_the_session_or_is_ignored() {
    for whole in [parameter("a", "b"), key(1, 2), columns(2), row(&[Some("x"), None]), done("SELECT 1"), ready(b'I')] {
        for cut in 0..whole.len() - 5 {
            let mut script = if whole[0] == b'K' {
                SessionScript::new().server(&[authentication(0, b"")])
            } else {
                SessionScript::ready()
            };
            if whole[0] != b'K' {
                script.query("SELECT 1");
            }
            if whole[0] == b'D' {
                script = script.server(&[columns(2)]);
            }
            script = script.server(&[frame(whole[0], &whole[5..5 + cut])]);
            assert!(script.closed().is_protocol(), "{:?}", &whole[..5 + cut]);
        }
    }
}
