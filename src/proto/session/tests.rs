//! The session's rules, one sentence each. The server is what the test writes.

use super::script::*;
use super::*;
use crate::proto::backlog::BACKLOG_MAX;
use crate::proto::buffer::READ_SIZE;
use crate::proto::buffer::ReadBuffer;
use crate::proto::frame::MessageKind;
use crate::proto::sql;

/// A session, and the server's end of the conversation.
struct SessionScript {
    session: Session,
    buffer: ReadBuffer,
}

impl SessionScript {
    fn with(config: &Config) -> Self {
        SessionScript { session: Session::new(config).unwrap(), buffer: ReadBuffer::new(READ_SIZE) }
    }

    /// Before the login; the start-up packet has been sent.
    fn new() -> Self {
        let mut talk = Self::with(&Config::new().user("app").password("pencil"));
        assert_eq!(talk.sent(), ["StartupMessage"]);
        talk
    }

    /// Logged in, with nothing asked.
    fn ready() -> Self {
        let mut talk = Self::new().server(&[login()]);
        assert!(matches!(talk.outputs()[..], [Output::Ready]));
        talk
    }

    /// Logged in, and listening.
    fn listening(channels: &[&str]) -> Self {
        let mut talk = Self::ready();
        talk.listen(channels);
        talk = talk.server(&[answer("LISTEN")]);
        talk.reply().unwrap();
        talk.sent();
        talk
    }

    /// Logged in, and inside a transaction that has done nothing.
    fn in_transaction() -> Self {
        let mut talk = Self::ready();
        talk.query("BEGIN");
        talk = talk.server(&[done("BEGIN"), ready(b'T')]);
        talk.reply().unwrap();
        talk.sent();
        talk
    }

    /// The server says all this, and it arrives in as few reads as it can.
    fn server(mut self, frames: &[Vec<u8>]) -> Self {
        self.hears(&frames.concat());
        self
    }

    fn hears(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.session.space(&mut self.buffer);
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            self.session.handle_input(&mut self.buffer, now.len());
            bytes = later;
        }
    }

    fn eof(mut self) -> Self {
        self.session.handle_eof();
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

    /// What the client has sent since the last look: the text of its queries, and the names of other messages.
    fn sent(&mut self) -> Vec<String> {
        let bytes = self.session.poll_transmit().to_vec();
        self.session.handle_transmitted(bytes.len());
        let mut rest = &bytes[..];
        let mut sent = Vec::new();
        while let Some((&tag, behind)) = rest.split_first() {
            // The start-up packet alone has no type; its length begins with a zero.
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

    /// The one output there is, which is a reply.
    fn reply(&mut self) -> Result<Reply, Error> {
        let mut outputs = self.outputs();
        match (outputs.pop(), outputs.is_empty()) {
            (Some(Output::Reply(_, reply)), true) => reply,
            (last, _) => panic!("{last:?} after {outputs:?}"),
        }
    }

    /// The reason of the loss, which is the last output.
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
        self.session.channels().iter().collect()
    }
}

fn names(channels: &[&str]) -> Vec<Box<str>> {
    channels.iter().map(|&channel| channel.into()).collect()
}

const LISTENING_CHANNELS: &str = sql::LISTENING_CHANNELS;

// ---- login ----------------------------------------------------------------------------------------------------

#[test]
fn trust_logs_in_and_tells_what_the_server_reported() {
    let mut talk = SessionScript::new();
    assert!(!talk.session.is_settled());
    talk = talk.server(&[login()]);
    assert!(matches!(talk.outputs()[..], [Output::Ready]));
    assert_eq!(talk.session.pid(), 7);
    assert!(talk.session.cancel_request().ends_with(&[0, 0, 0, 7, 0, 0, 0, 9]));
    assert_eq!(talk.session.parameter("server_version"), Some("17.2"));
    assert_eq!(talk.session.parameter("unheard_of"), None);
    assert_eq!(talk.session.limits(), sql::Limits::Exact);
    assert!(talk.session.is_settled() && talk.sent().is_empty());
}

#[test]
fn a_password_is_sent_when_it_is_asked_for() {
    let mut talk = SessionScript::new().server(&[authentication(3, b"")]);
    assert_eq!(talk.sent(), ["PasswordMessage pencil"]);
    talk = talk.server(&[login()]);
    assert!(matches!(talk.outputs()[..], [Output::Ready]));
}

#[test]
fn c2_a_method_that_require_auth_leaves_out_ends_the_login_and_sends_nothing() {
    let config = Config::new().user("app").password("pencil").require_auth([crate::config::AuthMethod::ScramSha256]);
    let mut talk = SessionScript::with(&config);
    talk.sent();
    talk = talk.server(&[authentication(3, b"")]);
    assert!(talk.sent().is_empty());
    assert!(talk.closed().is_auth());
}

#[test]
fn a_refused_login_ends_with_the_servers_word_whatever_its_severity() {
    for severity in ["FATAL", "ERROR"] {
        let mut talk = SessionScript::new().server(&[error(severity, "28P01", "password authentication failed")]);
        let reason = talk.closed();
        assert!(reason.is_auth() && reason.sqlstate() == Some("28P01"), "{reason}");
    }
}

#[test]
fn what_is_asked_during_the_login_is_sent_after_it() {
    let mut talk = SessionScript::new();
    talk.listen(&["a"]);
    assert!(talk.sent().is_empty());
    talk = talk.server(&[login()]);
    assert_eq!(talk.sent(), [r#"LISTEN "a""#]);
}

#[test]
fn a_server_that_negotiates_the_protocol_or_sends_notices_first_is_listened_to() {
    let negotiate = frame(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]);
    let mut talk = SessionScript::new().server(&[notice("NOTICE", "00000", "hello"), negotiate, login()]);
    assert!(matches!(talk.outputs()[..], [Output::Ready]));
    assert_eq!(talk.session.take_notices().len(), 1);
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
        let mut talk = SessionScript::new().server(std::slice::from_ref(&frame));
        let reason = talk.closed();
        assert!(reason.is_protocol() && reason.to_string().contains("before the login"), "{frame:?}: {reason}");
        assert!(talk.news().is_empty());
    }
}

#[test]
fn a_frame_that_cannot_come_is_refused_from_its_header() {
    // None of it is gathered first.
    let mut talk = SessionScript::new().server(&[header(b'D', 16_000_000)]);
    assert!(talk.closed().to_string().contains("DataRow before the login"));
    let mut talk = SessionScript::ready().server(&[header(b'D', 16_000_000)]);
    assert!(talk.closed().to_string().contains("DataRow without a request"));
}

// ---- parameters -----------------------------------------------------------------------------------------------

#[test]
fn a_parameter_that_changes_is_known_by_its_last_value() {
    let talk = SessionScript::ready().server(&[parameter("search_path", "a"), parameter("search_path", "b")]);
    assert_eq!(talk.session.parameter("search_path"), Some("b"));
}

#[test]
fn c2_another_client_encoding_ends_the_session() {
    let mut talk = SessionScript::ready();
    talk.query("SET client_encoding = 'SJIS'");
    talk = talk.server(&[done("SET"), parameter("client_encoding", "SJIS"), ready(b'I')]);
    assert!(talk.closed().to_string().contains("client_encoding to \"SJIS\""));
    let mut talk = SessionScript::new().server(&[authentication(0, b""), parameter("client_encoding", "LATIN1")]);
    assert!(talk.closed().is_protocol());
}

#[test]
fn c2_every_spelling_of_an_encoding_is_that_encoding() {
    for name in ["UNICODE", "UTF-8", "utf_8", "Utf8"] {
        let mut talk =
            SessionScript::ready().server(&[parameter("client_encoding", name), parameter("server_encoding", name)]);
        assert!(!talk.session.is_closed(), "{name}: {}", talk.closed());
        assert_eq!(talk.session.limits(), sql::Limits::Exact, "{name}");
    }
    for name in ["SQL_ASCII", "sqlascii", "SQL-ASCII"] {
        let login = [authentication(0, b""), parameter("server_encoding", name), parameter("client_encoding", name)];
        let mut talk = SessionScript::new().server(&login).server(&[ready(b'I')]);
        assert!(talk.sent().is_empty(), "{name}: the server sends bytes as they are already");
        assert!(matches!(talk.outputs()[..], [Output::Ready]), "{name}");
        assert_eq!(talk.session.limits(), sql::Limits::Exact, "{name}");
    }
}

#[test]
fn c4_limits_are_exact_only_where_the_server_counts_our_bytes() {
    for (encoding, limits) in [("SQL_ASCII", sql::Limits::Exact), ("LATIN1", sql::Limits::ServerDecides)] {
        let talk = SessionScript::ready().server(&[parameter("server_encoding", encoding)]);
        assert_eq!(talk.session.limits(), limits);
    }
}

#[test]
fn parameters_without_end_are_refused_by_number_and_by_size() {
    let many: Vec<_> = (0..300).map(|i| parameter(&format!("p{i}"), "x")).collect();
    assert!(SessionScript::ready().server(&many).closed().is_protocol());

    let large = "x".repeat(60_000);
    let many: Vec<_> = (0..200).map(|i| parameter(&format!("p{i}"), &large)).collect();
    let mut talk = SessionScript::ready().server(&many);
    assert!(talk.closed().is_protocol());
    assert!(talk.session.held_bytes() < 4 << 20, "{}", talk.session.held_bytes());

    // One that changes without end is still one.
    let mut talk = SessionScript::ready();
    for i in 0..500 {
        talk = talk.server(&[parameter("application_name", &format!("{i}{large}"))]);
    }
    assert!(!talk.session.is_closed());
}

// ---- notifications --------------------------------------------------------------------------------------------

#[test]
fn c8_a_notification_that_shares_a_read_with_ready_for_query_is_there_with_the_reply() {
    for frames in [
        [done("SELECT 1"), ready(b'I'), notification(1, "a", "x")],
        [notification(1, "a", "x"), done("SELECT 1"), ready(b'I')],
        [done("SELECT 1"), notification(1, "a", "x"), ready(b'I')],
    ] {
        let mut talk = SessionScript::ready();
        talk.query("SELECT 1");
        talk = talk.server(&frames);
        talk.reply().unwrap();
        assert_eq!(talk.news(), ["a=x"]);
    }
}

#[test]
fn c8_notifications_of_several_reads_are_kept_in_order() {
    let mut talk = SessionScript::ready();
    talk.query("SELECT pg_sleep(1)");
    for i in 0..100 {
        talk = talk.server(&[notification(1, "a", format!("{i}")), parameter("x", "y"), notification(1, "b", "")]);
    }
    let expected: Vec<_> = (0..100).flat_map(|i| [format!("a={i}"), "b=".into()]).collect();
    assert_eq!(talk.news(), expected);
    assert!(!talk.session.has_notifications());
}

#[test]
fn c9_equal_notifications_are_two() {
    let mut talk = SessionScript::ready().server(&[notification(1, "a", "x"), notification(1, "a", "x")]);
    assert_eq!(talk.news(), ["a=x", "a=x"]);
}

#[test]
fn c15_what_is_taken_one_by_one_leaves_the_rest_in_order() {
    let mut talk = SessionScript::ready().server(&[notification(1, "a", "1"), notification(1, "a", "2")]);
    assert_eq!(talk.session.pop_notification().unwrap().payload(), "1");
    talk = talk.server(&[notification(1, "a", "3")]);
    assert_eq!(talk.session.pop_notification().unwrap().payload(), "2");
    assert_eq!(talk.news(), ["a=3"]);
    assert!(talk.session.pop_notification().is_none());
}

#[test]
fn a_frame_that_ends_where_a_read_ends_is_read_once() {
    let frame = notification(1, "a", "a payload");
    for cut in 1..frame.len() {
        let mut talk = SessionScript::ready();
        for _ in 0..3 {
            talk.hears(&frame[..cut]);
            assert!(!talk.session.has_notifications());
            talk.hears(&frame[cut..]);
            assert_eq!(talk.news(), ["a=a payload"], "cut at {cut}");
        }
    }
}

#[test]
fn the_longest_notification_there_can_be_comes_through() {
    let payload = "é".repeat(120_000);
    let mut talk = SessionScript::ready().server(&[notification(1, "a", "before"), notification(1, "b", &payload)]);
    talk = talk.server(&[notification(1, "c", "after")]);
    assert_eq!(talk.news(), ["a=before", &format!("b={payload}"), "c=after"]);
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
        let mut talk =
            SessionScript::ready().server(&[notification(1, "a", "good"), frame, notification(1, "a", "late")]);
        assert!(talk.outputs().is_empty(), "the loss is told last");
        assert_eq!(talk.news(), ["a=good"]);
        assert!(talk.closed().is_protocol());
    }
}

#[test]
fn m6_the_loss_is_told_after_every_notification_was_taken() {
    let fatal = error("FATAL", "57P01", "terminating connection");
    let mut talk = SessionScript::ready().server(&[notification(1, "a", "1"), fatal, notification(1, "a", "late")]);
    assert!(talk.session.is_closed() && talk.outputs().is_empty());
    assert_eq!(talk.session.pop_notification().unwrap().payload(), "1");
    assert_eq!(talk.closed().sqlstate(), Some("57P01"));
    assert!(talk.outputs().is_empty(), "it is told once");

    let mut talk = SessionScript::ready().server(&[notification(1, "a", "1")]).eof();
    assert!(talk.outputs().is_empty());
    assert_eq!(talk.news(), ["a=1"]);
    assert!(matches!(talk.closed(), Error::Disconnected));
}

#[test]
fn a_backlog_that_nobody_takes_ends_the_session_and_is_kept() {
    let mut talk = SessionScript::ready();
    let frame = notification(1, "a", "x".repeat(8_000));
    let mut sent = 0;
    while !talk.session.is_closed() {
        talk.hears(&frame);
        sent += 1;
        assert!(sent * frame.len() <= BACKLOG_MAX + frame.len());
    }
    assert!(talk.session.held_bytes() <= BACKLOG_MAX + READ_SIZE);
    assert_eq!(talk.news().len(), sent);
    assert!(matches!(talk.closed(), Error::Overflow { .. }));
}

// ---- listening ------------------------------------------------------------------------------------------------

#[test]
fn c5_many_channels_are_one_query_and_count_once_it_is_answered() {
    let mut talk = SessionScript::ready();
    talk.listen(&["b", "A \"quoted\" one"]);
    assert_eq!(talk.sent(), [r#"LISTEN "b";LISTEN "A ""quoted"" one""#]);
    talk = talk.server(&[done("LISTEN"), done("LISTEN")]);
    assert!(talk.channels().is_empty() && talk.outputs().is_empty());
    talk = talk.server(&[ready(b'I')]);
    talk.reply().unwrap();
    assert_eq!(talk.channels(), ["A \"quoted\" one", "b"]);
}

#[test]
fn c5_a_listen_that_fails_adds_nothing() {
    let mut talk = SessionScript::listening(&["a"]);
    talk.listen(&["b", "c"]);
    let refused = error("ERROR", "25006", "cannot execute LISTEN during recovery");
    talk = talk.server(&[done("LISTEN"), refused, ready(b'I')]);
    assert_eq!(talk.reply().unwrap_err().sqlstate(), Some("25006"));
    assert_eq!(talk.channels(), ["a"]);
    assert!(talk.session.is_settled());
}

#[test]
fn c5_listening_twice_and_unlistening_the_unknown_are_harmless() {
    let mut talk = SessionScript::listening(&["b", "a"]);
    talk.listen(&["a", "a", "c"]);
    talk = talk.server(&[answer("LISTEN")]);
    talk.reply().unwrap();
    assert_eq!(talk.channels(), ["a", "b", "c"]);
    talk.ask(Request::Unlisten(names(&["b", "unheard of"])));
    talk = talk.server(&[answer("UNLISTEN")]);
    talk.reply().unwrap();
    assert_eq!(talk.channels(), ["a", "c"]);
    talk.ask(Request::UnlistenAll);
    talk = talk.server(&[answer("UNLISTEN")]);
    talk.reply().unwrap();
    assert!(talk.channels().is_empty());
}

#[test]
fn requests_are_sent_one_by_one_and_answered_in_order() {
    let mut talk = SessionScript::ready();
    let (first, second) = (talk.listen(&["a"]), talk.query("SELECT 1"));
    assert_eq!(talk.sent(), [r#"LISTEN "a""#]);
    talk = talk.server(&[answer("LISTEN")]);
    assert_eq!(talk.sent(), ["SELECT 1"]);
    assert!(!talk.session.is_settled());
    talk = talk.server(&[columns(2), row(&[Some("x"), None]), answer("SELECT 1")]);
    let [Output::Reply(one, Ok(_)), Output::Reply(two, Ok(reply))] = &talk.outputs()[..] else { panic!() };
    assert_eq!((*one, *two), (first, second));
    assert_eq!((reply.rows[0].get(0).as_deref(), reply.rows[0].get(1), reply.affected), (Some("x"), None, 1));
}

#[test]
fn what_cannot_be_said_fails_alone_and_leaves_no_trace_on_the_wire() {
    let mut talk = SessionScript::ready();
    talk.query("SELECT 'no\0end'");
    assert!(talk.reply().is_err());
    assert!(talk.session.is_settled());
    talk.query("SELECT 1");
    talk.query("SELECT '\0'");
    talk.query("SELECT 2");
    talk = talk.server(&[answer("SELECT 1")]);
    assert_eq!(talk.sent(), ["SELECT 1", "SELECT 2"]);
    assert_eq!(talk.outputs().len(), 2);
}

#[test]
fn m15_a_sync_is_answered_by_ready_for_query_alone_and_changes_nothing() {
    let mut talk = SessionScript::listening(&["a"]);
    talk.session.request_discarding_reply(Request::Sync);
    assert_eq!(talk.sent(), ["Sync"]);
    assert!(!talk.session.is_settled());
    talk = talk.server(&[notification(1, "a", "x"), ready(b'I')]);
    assert!(talk.session.is_settled() && talk.outputs().is_empty());
    assert_eq!((talk.news(), talk.channels()), (vec!["a=x".into()], vec!["a"]));

    let mut talk = SessionScript::in_transaction();
    talk.ask(Request::Sync);
    talk = talk.server(&[ready(b'T')]);
    talk.reply().unwrap();
    assert_eq!(talk.session.status(), TransactionStatus::InTransaction);
}

#[test]
fn a_reply_can_be_taken_out_of_turn() {
    let mut talk = SessionScript::ready();
    let (first, second, third) = (talk.query("SELECT 1"), talk.query("SELECT 2"), talk.query("SELECT 3"));
    talk = talk.server(&[answer("SELECT 1"), answer("SELECT 2")]);
    assert_eq!(talk.session.take_reply(second).unwrap().unwrap().affected, 2);
    assert!(talk.session.take_reply(second).is_none() && talk.session.take_reply(third).is_none());
    assert!(matches!(talk.outputs()[..], [Output::Reply(id, Ok(_))] if id == first));
}

// ---- transactions ---------------------------------------------------------------------------------------------

#[test]
fn c12_a_listen_in_a_transaction_counts_from_the_commit_on() {
    let mut talk = SessionScript::in_transaction();
    assert_eq!(talk.session.status(), TransactionStatus::InTransaction);
    talk.listen(&["a"]);
    talk = talk.server(&[done("LISTEN"), ready(b'T')]);
    talk.reply().unwrap();
    assert!(talk.channels().is_empty());
    talk.sent();
    talk.query("COMMIT");
    talk = talk.server(&[answer("COMMIT")]);
    assert_eq!(talk.sent(), ["COMMIT", LISTENING_CHANNELS]);
    assert!(!talk.session.is_settled(), "what it believes isn't yet what the server has");
    talk = talk.server(&[channel_rows(&["a"])]);
    assert_eq!(talk.channels(), ["a"]);
    assert!(talk.session.is_settled());
}

#[test]
fn c12_a_failed_transactions_error_comes_through_and_its_listens_count_for_nothing() {
    let mut talk = SessionScript::in_transaction();
    talk.listen(&["a"]);
    talk = talk.server(&[done("LISTEN"), ready(b'T')]);
    talk.reply().unwrap();
    talk.query("SELECT 1/0");
    talk = talk.server(&[error("ERROR", "22012", "division by zero"), ready(b'E')]);
    assert_eq!(talk.reply().unwrap_err().sqlstate(), Some("22012"));
    assert_eq!(talk.session.status(), TransactionStatus::Failed);
    talk.listen(&["b"]);
    talk = talk.server(&[error("ERROR", "25P02", "current transaction is aborted"), ready(b'E')]);
    assert_eq!(talk.reply().unwrap_err().sqlstate(), Some("25P02"));
    talk.sent();
    talk.query("ROLLBACK");
    talk = talk.server(&[answer("ROLLBACK"), channel_rows(&[])]);
    assert_eq!(talk.sent(), ["ROLLBACK", LISTENING_CHANNELS]);
    assert!(talk.channels().is_empty() && talk.session.is_settled());
}

#[test]
fn c12_the_set_is_read_again_after_sql_that_may_have_changed_it() {
    for text in ["LISTEN b", "unlisten *", "DISCARD ALL", "BEGIN; LISTEN b; COMMIT"] {
        let mut talk = SessionScript::listening(&["a"]);
        talk.query(text);
        talk = talk.server(&[answer("LISTEN")]);
        assert_eq!(talk.sent(), [text, LISTENING_CHANNELS]);
        talk = talk.server(&[channel_rows(&["z", "b"])]);
        talk.reply().unwrap();
        assert_eq!(talk.channels(), ["b", "z"]);
    }
    let mut talk = SessionScript::listening(&["a"]);
    talk.query("SELECT 1");
    talk = talk.server(&[answer("SELECT 1")]);
    assert_eq!(talk.sent(), ["SELECT 1"]);
    assert!(talk.session.is_settled());
}

#[test]
fn c12_the_set_is_read_again_after_any_explicit_transaction() {
    // A function may have listened in it.
    let mut talk = SessionScript::in_transaction();
    talk.query("COMMIT");
    talk = talk.server(&[answer("COMMIT")]);
    assert_eq!(talk.sent(), ["COMMIT", LISTENING_CHANNELS]);
}

#[test]
fn c12_a_listen_in_a_query_is_kept_before_the_channels_are_read() {
    let possible = |talk: &SessionScript| talk.session.possible_channels().map(String::from).collect::<Vec<_>>();
    for text in ["LISTEN b", "BEGIN; LISTEN b; COMMIT; BEGIN", "DO $$BEGIN EXECUTE 'LISTEN b'; END$$"] {
        let mut talk = SessionScript::listening(&["a"]);
        talk.query(text);
        talk = talk.server(&[answer("LISTEN")]);
        assert_eq!((talk.channels(), possible(&talk)), (vec!["a"], vec!["a".into(), "b".into()]), "{text}");
        // The server's list is authoritative.
        talk = talk.server(&[channel_rows(&["a"])]);
        assert_eq!(possible(&talk), ["a"], "{text}");
    }
}

#[test]
fn c12_a_listen_in_a_transaction_is_kept_before_the_channels_are_read() {
    for (commit, status) in [("COMMIT", b'I'), ("COMMIT AND CHAIN", b'T'), ("COMMIT; BEGIN", b'T')] {
        let mut talk = SessionScript::in_transaction();
        talk.listen(&["b"]);
        talk = talk.server(&[[done("LISTEN"), ready(b'T')].concat()]);
        talk.query(commit);
        talk = talk.server(&[[done("COMMIT"), ready(status)].concat()]);
        // Inside a transaction the channels are not read: the list would be from before it.
        talk.ask(Request::ReadChannels);
        if status == b'T' {
            talk = talk.server(&[[columns(1), done("SELECT 0"), ready(b'T')].concat()]);
        }
        talk.session.handle_eof();
        assert_eq!(talk.session.possible_channels().collect::<Vec<_>>(), ["b"], "{commit}");
    }
}

#[test]
fn c12_a_listen_counts_only_if_its_transaction_may_have_been_committed() {
    let listening_in_transaction = || {
        let mut talk = SessionScript::in_transaction();
        talk.listen(&["b"]);
        talk = talk.server(&[done("LISTEN"), ready(b'T')]);
        talk.query("listen c");
        talk.server(&[done("LISTEN"), ready(b'T')])
    };
    let possible_at_end = |mut talk: SessionScript| {
        talk.session.handle_eof();
        talk.session.possible_channels().map(String::from).collect::<Vec<_>>()
    };
    assert!(possible_at_end(listening_in_transaction()).is_empty(), "it was open");
    for (sql, expected) in [("SELECT 1", vec![]), ("COMMIT", vec!["b", "c"]), ("end", vec!["b", "c"])] {
        let mut talk = listening_in_transaction();
        talk.query(sql);
        assert_eq!(possible_at_end(talk), expected, "{sql} was not answered");
    }
    let mut talk = listening_in_transaction();
    talk.query("ROLLBACK AND CHAIN");
    talk = talk.server(&[done("ROLLBACK"), ready(b'T')]);
    assert!(possible_at_end(talk).is_empty(), "it was rolled back");
}

#[test]
fn c12_a_transaction_right_behind_another_is_told_apart_from_it() {
    let mut talk = SessionScript::in_transaction();
    assert!(talk.session.take_new_transaction() && !talk.session.take_new_transaction());
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
        talk.query(sql);
        talk = talk.server(&[tags.iter().flat_map(|tag| done(tag)).chain(ready(b'T')).collect()]);
        assert_eq!(talk.session.take_new_transaction(), is_new, "{sql}");
    }
}

#[test]
fn c12_the_set_is_read_before_what_was_asked_next() {
    let mut talk = SessionScript::listening(&["a"]);
    talk.query("DISCARD ALL");
    talk.listen(&["c"]);
    talk = talk.server(&[answer("DISCARD ALL"), channel_rows(&[]), answer("LISTEN")]);
    assert_eq!(talk.sent(), ["DISCARD ALL", LISTENING_CHANNELS, r#"LISTEN "c""#]);
    assert_eq!(talk.channels(), ["c"]);
}

#[test]
fn c12_a_server_that_refuses_to_tell_the_set_is_asked_once_a_request() {
    let refusal = || [error("ERROR", "42501", "permission denied"), ready(b'I')].concat();
    let mut talk = SessionScript::listening(&["a"]);
    talk.query("LISTEN b");
    talk = talk.server(&[answer("LISTEN"), refusal()]);
    assert_eq!(talk.sent(), ["LISTEN b", LISTENING_CHANNELS]);
    talk.reply().unwrap();
    assert!(talk.session.is_settled());
    talk.query("SELECT 1");
    talk = talk.server(&[answer("SELECT 1"), refusal()]);
    assert_eq!(talk.sent(), ["SELECT 1", LISTENING_CHANNELS]);
    assert!(talk.session.is_settled());
}

#[test]
fn c7_reading_the_channels_gives_them_and_believes_them() {
    let mut talk = SessionScript::listening(&["a"]);
    talk.ask(Request::ReadChannels);
    talk = talk.server(&[channel_rows(&["x", "b"])]);
    assert_eq!(talk.reply().unwrap().rows.len(), 2);
    assert_eq!(talk.channels(), ["b", "x"]);
}

#[test]
fn c12_58p01_is_healed_once_and_the_listen_tried_again() {
    let broken = || [error("ERROR", "58P01", "could not access status of transaction"), ready(b'I')].concat();
    let mut talk = SessionScript::ready();
    talk.listen(&["a"]);
    talk = talk.server(&[broken()]);
    assert!(talk.outputs().is_empty() && !talk.session.is_settled());
    talk = talk.server(&[columns(1), row(&[Some("0")]), answer("SELECT 1"), answer("LISTEN")]);
    assert_eq!(talk.sent(), [r#"LISTEN "a""#, sql::QUEUE_USAGE, r#"LISTEN "a""#]);
    talk.reply().unwrap();
    assert_eq!(talk.channels(), ["a"]);

    let mut talk = SessionScript::ready();
    talk.listen(&["a"]);
    talk = talk.server(&[broken(), broken(), broken()]);
    assert_eq!(talk.reply().unwrap_err().sqlstate(), Some("58P01"));
    assert_eq!(talk.sent().len(), 3);
    assert!(talk.channels().is_empty() && talk.session.is_settled());
}

#[test]
fn c12_58p01_in_a_transaction_comes_through() {
    let mut talk = SessionScript::in_transaction();
    talk.listen(&["a"]);
    talk = talk.server(&[error("ERROR", "58P01", "could not access status of transaction"), ready(b'E')]);
    assert_eq!(talk.reply().unwrap_err().sqlstate(), Some("58P01"));
    assert_eq!(talk.sent(), [r#"LISTEN "a""#]);
}

#[test]
fn c4_a_name_that_the_server_cuts_is_an_error_and_is_taken_back() {
    let cut = notice("NOTICE", "42622", "identifier \"long\" will be truncated to \"lon\"");
    let mut talk = SessionScript::listening(&["a"]);
    talk.listen(&["a", "long"]);
    talk = talk.server(&[cut.clone(), answer("LISTEN")]);
    let error = talk.reply().unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("too long"), "{error}");
    assert!(!talk.session.is_settled());
    assert_eq!(talk.sent(), [r#"LISTEN "a";LISTEN "long""#, r#"UNLISTEN "long";LISTEN "a""#]);
    // The taking back cuts the name too, which is what it is for.
    talk = talk.server(&[cut, answer("UNLISTEN")]);
    assert_eq!(talk.sent(), [LISTENING_CHANNELS]);
    talk = talk.server(&[channel_rows(&["a"])]);
    assert_eq!(talk.channels(), ["a"]);
    assert!(talk.session.is_settled() && talk.outputs().is_empty());
}

#[test]
fn c4_a_cut_name_is_taken_back_before_the_set_is_read() {
    let mut talk = SessionScript::listening(&["a"]);
    talk.query("LISTEN b");
    // The set isn't told, so it is still to be read when the name is cut.
    talk = talk.server(&[answer("LISTEN"), error("ERROR", "42501", "permission denied"), ready(b'I')]);
    talk.outputs();
    talk.sent();
    talk.listen(&["long"]);
    talk = talk.server(&[notice("NOTICE", "42622", "truncated"), answer("LISTEN"), answer("UNLISTEN")]);
    assert_eq!(talk.sent(), [r#"LISTEN "long""#, r#"UNLISTEN "long";LISTEN "a""#, LISTENING_CHANNELS]);
    talk = talk.server(&[channel_rows(&["a", "b"])]);
    assert_eq!(talk.channels(), ["a", "b"]);
}

#[test]
fn c4_a_name_cut_in_a_transaction_is_taken_back_in_it() {
    let mut talk = SessionScript::in_transaction();
    talk.listen(&["long"]);
    talk = talk.server(&[notice("NOTICE", "42622", "truncated"), done("LISTEN"), ready(b'T')]);
    assert!(talk.reply().is_err());
    talk = talk.server(&[done("UNLISTEN"), ready(b'T')]);
    assert_eq!(talk.sent(), [r#"LISTEN "long""#, r#"UNLISTEN "long";"#]);
    talk.query("COMMIT");
    talk = talk.server(&[answer("COMMIT"), channel_rows(&[])]);
    assert_eq!(talk.sent(), ["COMMIT", LISTENING_CHANNELS]);
    assert!(talk.channels().is_empty() && talk.session.is_settled());
}

#[test]
fn c4_a_name_that_the_server_refuses_to_truncate_is_an_error_and_needs_no_undo() {
    let mut talk = SessionScript::listening(&["a"]).server(&[parameter("server_encoding", "EUC_JP")]);
    let long = "é".repeat(40);
    let refusal =
        [notice("NOTICE", "42622", "truncated"), error("ERROR", "22023", "channel name too long"), ready(b'I')];
    for ask in [Request::Listen(names(&["b", &long])), Request::Unlisten(names(&["a", &long]))] {
        talk.ask(ask);
        let sent = talk.sent();
        assert!(
            sent.len() == 1 && sent[0].starts_with("SELECT pg_catalog.pg_notify(c,'') FROM (VALUES ('é"),
            "{sent:?}"
        );
        talk = talk.server(&refusal);
        let error = talk.reply().unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("63 bytes"), "{error}");
        assert!(talk.session.is_settled());
        assert_eq!(talk.channels(), ["a"]);
    }
    talk.listen(&["b"]);
    assert_eq!(talk.sent(), [r#"LISTEN "b""#], "one round trip, and one statement");
}

// ---- a server that does not listen ----------------------------------------------------------------------------

#[test]
fn c12_a_listen_that_the_server_says_it_ignores_is_an_error() {
    for (severity, code) in [("WARNING", "0A000"), ("NOTICE", "0A000")] {
        let mut talk = SessionScript::ready();
        talk.listen(&["a"]);
        talk = talk.server(&[notice(severity, code, "LISTEN will be ignored"), answer("LISTEN")]);
        let error = talk.reply().unwrap_err();
        assert!(error.to_string().contains("will be ignored") && error.sqlstate() == Some(code), "{error}");
        assert_eq!(talk.sent(), [r#"LISTEN "a""#, r#"UNLISTEN "a";"#]);
        talk = talk.server(&[answer("UNLISTEN"), channel_rows(&[])]);
        assert!(talk.session.is_settled() && talk.channels().is_empty());
    }

    // In a transaction, and on the private channel.
    let mut talk = SessionScript::in_transaction();
    talk.listen(&["a"]);
    talk = talk.server(&[notice("WARNING", "0A000", "ignored"), done("LISTEN"), ready(b'T')]);
    assert!(talk.reply().is_err());
    let mut talk = SessionScript::ready();
    talk.session.join_canary("private").unwrap();
    talk = talk.server(&[notice("WARNING", "0A000", "ignored"), answer("LISTEN")]);
    assert!(talk.reply().is_err() && !talk.session.has_joined_canary());
}

#[test]
fn c12_a_listen_with_another_warning_counts_if_the_server_lists_it() {
    for (listed, is_good) in [(&["a", "b"][..], true), (&["a"], false), (&[], false)] {
        let mut talk = SessionScript::listening(&["a"]);
        talk.listen(&["a", "b"]);
        talk = talk.server(&[notice("WARNING", "01000", "LISTEN is disabled"), answer("LISTEN")]);
        assert!(talk.outputs().is_empty());
        assert_eq!(talk.sent(), [r#"LISTEN "a";LISTEN "b""#, LISTENING_CHANNELS]);
        talk = talk.server(&[channel_rows(listed)]);
        match talk.reply() {
            Ok(_) => assert!(is_good),
            Err(error) => assert!(!is_good && error.to_string().contains("disabled"), "{error}"),
        }
        if !is_good {
            talk = talk.server(&[answer("UNLISTEN"), channel_rows(&["a"])]);
        }
        assert_eq!(talk.channels(), if is_good { &["a", "b"][..] } else { &["a"] });
        assert!(talk.session.is_settled());
    }
    // A server that is shutting down may send its warning at any time.
    let mut talk = SessionScript::ready();
    talk.listen(&["a"]);
    talk = talk.server(&[notice("WARNING", "57P02", "crash"), answer("LISTEN")]);
    talk.reply().unwrap();
    assert_eq!(talk.channels(), ["a"]);
}

#[test]
fn c12_a_relisten_that_the_server_ignores_is_an_error() {
    let mut talk = SessionScript::listening(&["a"]);
    talk.ask(Request::Relisten(names(&["a"])));
    talk = talk.server(&[notice("WARNING", "01000", "disabled"), answer("LISTEN")]);
    assert!(talk.session.is_relistening());
    talk = talk.server(&[channel_rows(&[])]);
    assert!(talk.closed().to_string().contains("disabled"));
}

// ---- answers --------------------------------------------------------------------------------------------------

#[test]
fn rows_of_several_statements_are_one_answer() {
    let mut talk = SessionScript::ready();
    talk.query("SELECT 1; INSERT ..; SELECT 1, 2");
    let first = [columns(1), row(&[Some("1")]), done("SELECT 1"), done("INSERT 0 3")].concat();
    talk = talk.server(&[first, columns(2), row(&[Some("1"), Some("2")]), answer("SELECT 1")]);
    let reply = talk.reply().unwrap();
    assert_eq!(reply.rows.iter().map(crate::row::Row::len).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(reply.affected, 5);
}

#[test]
fn the_first_error_of_an_answer_is_its_error_and_the_session_goes_on() {
    let mut talk = SessionScript::ready();
    talk.query("SELECT 1; SELECT 1/0");
    let answer_before = [columns(1), row(&[Some("1")]), done("SELECT 1")].concat();
    talk = talk.server(&[answer_before, error("ERROR", "22012", "x"), error("ERROR", "XX000", "y"), ready(b'I')]);
    assert_eq!(talk.reply().unwrap_err().sqlstate(), Some("22012"));
    assert!(talk.session.is_settled());
}

#[test]
fn an_empty_query_is_answered_too() {
    let mut talk = SessionScript::ready();
    talk.query("");
    talk = talk.server(&[frame(b'I', b""), ready(b'I')]);
    assert!(talk.reply().unwrap().rows.is_empty());
}

#[test]
fn c11_a_copy_in_is_refused_once() {
    let copy_in = || frame(b'G', &[0, 0, 1, 0, 0]);
    let mut talk = SessionScript::ready();
    talk.query("COPY t FROM STDIN");
    talk = talk.server(&[copy_in()]);
    assert_eq!(talk.sent(), ["COPY t FROM STDIN", "CopyFail"]);
    talk = talk.server(&[error("ERROR", "57014", "COPY from stdin failed"), ready(b'I')]);
    assert_eq!(talk.reply().unwrap_err().sqlstate(), Some("57014"));
    assert!(talk.session.is_settled());

    // The refusal ends the query. A server that goes on asking only makes us write.
    talk.query("COPY t FROM STDIN");
    talk = talk.server(&[copy_in(), copy_in()]);
    assert!(matches!(talk.outputs()[..], [Output::Reply(_, Err(Error::Protocol(_))), Output::Closed(_)]));
}

#[test]
fn c11_copy_both_closes() {
    let mut talk = SessionScript::ready();
    talk.query("START_REPLICATION ..");
    talk = talk.server(&[frame(b'W', &[0, 0, 1, 0, 0])]);
    assert!(talk.closed().is_protocol());
}

#[test]
fn c11_a_notification_in_the_middle_of_copy_out_is_not_lost() {
    let mut talk = SessionScript::ready();
    talk.query("COPY t TO STDOUT");
    talk = talk.server(&[frame(b'H', &[0, 0, 1, 0, 0]), frame(b'd', b"row\n"), notification(1, "a", "x")]);
    talk = talk.server(&[frame(b'd', &vec![b'z'; 3_000_000]), notification(1, "a", "y"), frame(b'd', b"")]);
    assert!(talk.session.held_bytes() < 10_000, "none of the data is kept");
    talk = talk.server(&[frame(b'c', b""), answer("COPY 3")]);
    assert_eq!(talk.reply().unwrap().affected, 3);
    assert_eq!(talk.news(), ["a=x", "a=y"]);
    assert!(talk.session.is_settled());
}

#[test]
fn an_answer_that_is_too_long_is_an_error_and_the_session_goes_on() {
    let mut talk = SessionScript::ready();
    talk.query("SELECT repeat('x', 1000000) FROM generate_series(1, 80)");
    talk.hears(&columns(1));
    let row = row(&[Some("x".repeat(1_000_000))]);
    for _ in 0..80 {
        talk.hears(&row);
    }
    assert!(talk.session.held_bytes() < 1 << 20, "what can't be given isn't kept");
    talk.hears(&notification(1, "a", "x"));
    talk = talk.server(&[answer("SELECT 80")]);
    let error = talk.reply().unwrap_err();
    assert!(matches!(error, Error::AnswerTooLong(_)) && error.to_string().contains("more than 67108864"), "{error}");
    assert!(talk.session.is_settled());
    assert_eq!(talk.news(), ["a=x"]);
}

#[test]
fn rows_of_nothing_count_for_what_they_take() {
    let mut talk = SessionScript::ready();
    talk.query("SELECT NULL, NULL, ..");
    talk.hears(&columns(100));
    let rows = row::<&str>(&[None; 100]).repeat(1_000);
    for _ in 0..50 {
        talk.hears(&rows);
        assert!(talk.session.held_bytes() <= requests::ANSWER_MAX + READ_SIZE);
    }
    talk = talk.server(&[answer("SELECT 50000")]);
    assert!(matches!(talk.reply(), Err(Error::AnswerTooLong(_))));
}

#[test]
fn a_row_that_is_too_long_is_an_error_and_the_session_goes_on() {
    let mut talk = SessionScript::ready();
    talk.query("SELECT repeat('x', 20000000)");
    talk = talk.server(&[columns(1), row(&[Some("x".repeat(20_000_000))]), notification(1, "a", "x")]);
    talk = talk.server(&[answer("SELECT 1")]);
    let error = talk.reply().unwrap_err();
    assert!(matches!(error, Error::AnswerTooLong(_)), "{error}");
    assert!(error.to_string().contains("a row of 20000006 bytes"), "{error}");
    assert_eq!(talk.news(), ["a=x"]);
    talk.query("SELECT 1");
    talk = talk.server(&[answer("SELECT 1")]);
    talk.reply().unwrap();
}

#[test]
fn rows_must_be_announced() {
    for frames in [
        vec![row(&[Some("x")])],
        vec![columns(2), row(&[Some("x")])],
        vec![columns(0), done("SELECT 0"), row::<&str>(&[])],
    ] {
        let mut talk = SessionScript::ready();
        talk.query("SELECT 1");
        talk = talk.server(&frames);
        assert!(talk.closed().is_protocol(), "{frames:?}");
    }
}

// ---- notices and errors ---------------------------------------------------------------------------------------

#[test]
fn c16_of_many_notices_the_latest_64_are_kept() {
    let notices: Vec<_> = (0..100).map(|i| notice("NOTICE", "00000", &i.to_string())).collect();
    let mut talk = SessionScript::ready().server(&notices);
    let taken = talk.session.take_notices();
    assert_eq!(taken.len(), 64);
    assert_eq!((taken[0].message(), taken[63].message()), ("36", "99"));
    assert!(talk.session.take_notices().is_empty());
}

#[test]
fn c16_a_warning_that_the_server_goes_down_is_the_reason_of_the_loss() {
    let warning = notice("WARNING", "57P02", "terminating because of crash of another server process");
    let mut talk = SessionScript::ready().server(std::slice::from_ref(&warning)).eof();
    assert_eq!(talk.closed().sqlstate(), Some("57P02"));
    let mut talk = SessionScript::ready().server(&[warning]);
    talk.session.handle_io_error("reading from the server", io::ErrorKind::ConnectionReset.into());
    assert_eq!(talk.closed().sqlstate(), Some("57P02"));
    // Any other is not.
    let mut talk = SessionScript::ready().server(&[notice("WARNING", "25P01", "there is no transaction")]).eof();
    assert!(matches!(talk.closed(), Error::Disconnected));
}

#[test]
fn of_a_notice_of_10_megabytes_64_kilobytes_are_kept_and_the_session_goes_on() {
    let long = notice("NOTICE", "00000", &"x".repeat(10_000_000));
    let mut talk = SessionScript::ready().server(&[long, notification(1, "a", "x")]);
    assert!(talk.session.held_bytes() < 200_000, "{}", talk.session.held_bytes());
    assert_eq!(talk.news(), ["a=x"]);
    let notices = talk.session.take_notices();
    assert!((60_000..=64 * 1024).contains(&notices[0].message().len()));
    assert_eq!(notices[0].code(), "00000");
}

#[test]
fn notices_without_end_are_held_within_bounds() {
    let long = notice("NOTICE", "00000", &"x".repeat(100_000));
    let mut talk = SessionScript::new();
    for _ in 0..200 {
        talk.hears(&long);
    }
    assert!(talk.session.held_bytes() < 5 << 20, "{}", talk.session.held_bytes());
    assert!(!talk.session.is_closed());
}

#[test]
fn an_error_that_answers_nothing_and_ends_nothing_is_told_like_a_notice() {
    let mut talk =
        SessionScript::ready().server(&[error("ERROR", "57014", "canceling statement"), notification(1, "a", "x")]);
    assert!(!talk.session.is_closed() && talk.outputs().is_empty());
    assert_eq!(talk.session.take_notices()[0].code(), "57014");
    assert_eq!(talk.news(), ["a=x"]);
}

// ---- the end --------------------------------------------------------------------------------------------------

#[test]
fn a_fatal_error_resolves_everything_asked_with_the_same_reason() {
    let mut talk = SessionScript::ready();
    let asked = [talk.query("SELECT 1"), talk.listen(&["a"]), talk.query("SELECT 2")];
    let fatal = error("FATAL", "57P01", "terminating connection due to administrator command");
    talk = talk.server(&[columns(1), row(&[Some("1")]), fatal, ready(b'I')]);
    let outputs = talk.outputs();
    assert_eq!(outputs.len(), 4);
    for (output, asked) in outputs.iter().zip(asked) {
        assert!(matches!(output, Output::Reply(id, Err(e)) if *id == asked && e.sqlstate() == Some("57P01")));
    }
    assert!(matches!(&outputs[3], Output::Closed(e) if e.sqlstate() == Some("57P01")));
    assert_eq!(talk.sent(), ["SELECT 1"]);
    assert!(talk.channels().is_empty());

    // What is asked afterwards is answered likewise.
    talk.query("SELECT 3");
    assert_eq!(talk.reply().unwrap_err().sqlstate(), Some("57P01"));
    talk.session.request_discarding_reply(Request::Sync);
    assert!(talk.session.is_settled() && talk.sent().is_empty());
    assert_eq!(talk.session.reason().unwrap().sqlstate(), Some("57P01"));
}

#[test]
fn what_the_session_asks_for_itself_is_answered_to_nobody() {
    let mut talk = SessionScript::listening(&["a"]);
    talk.query("LISTEN b");
    talk = talk.server(&[answer("LISTEN")]);
    talk.reply().unwrap();
    talk = talk.eof();
    assert!(matches!(talk.outputs()[..], [Output::Closed(Error::Disconnected)]));
}

#[test]
fn the_end_of_the_stream_ends_a_login_a_wait_and_a_query() {
    assert!(matches!(SessionScript::new().eof().closed(), Error::Disconnected));
    assert!(matches!(SessionScript::ready().eof().closed(), Error::Disconnected));
    let mut talk = SessionScript::ready();
    talk.query("SELECT 1");
    talk = talk.server(&[columns(1)]).eof();
    let [Output::Reply(_, Err(Error::Disconnected)), Output::Closed(Error::Disconnected)] = talk.outputs()[..] else {
        panic!()
    };
}

#[test]
fn c16_an_error_that_the_end_follows_is_its_reason() {
    let last = || error("ERROR", "XX000", "scripted");
    // In answer to a request, the last of several errors is the reason.
    let mut talk = SessionScript::ready();
    talk.listen(&["a"]);
    talk = talk.server(&[error("ERROR", "42501", "no"), last()]).eof();
    let outputs = talk.outputs();
    let [Output::Reply(_, Err(reply)), Output::Closed(reason)] = &outputs[..] else { panic!("{outputs:?}") };
    for error in [reply, reason] {
        assert_eq!(error.to_string(), "ERROR XX000: scripted; the connection ended with this error");
        assert!(error.is_transient() && error.server().unwrap().is_fatal());
    }

    // Without a request; and with a reset.
    let mut talk = SessionScript::ready().server(&[last()]);
    assert!(!talk.session.is_closed());
    talk.session.handle_io_error("reading from the server", io::ErrorKind::ConnectionReset.into());
    assert_eq!(talk.closed().sqlstate(), Some("XX000"));

    // During the login, in any severity; and truncated by the end of the stream.
    assert_eq!(SessionScript::new().server(&[last()]).eof().closed().sqlstate(), Some("XX000"));
    for mut talk in [SessionScript::new(), SessionScript::ready()] {
        let whole = error("ERROR", "53200", "out of memory");
        talk.hears(&whole[..whole.len() - 5]);
        assert_eq!(talk.eof().closed().to_string(), "ERROR 53200: out of mem; the connection ended with this error");
    }
}

#[test]
fn c16_an_error_that_a_ready_for_query_follows_is_no_reason_for_a_later_end() {
    let mut talk = SessionScript::ready();
    talk.query("SELECT 1/0");
    talk = talk.server(&[error("ERROR", "22012", "division by zero"), ready(b'I')]);
    assert!(!talk.reply().unwrap_err().server().unwrap().is_fatal());
    assert!(matches!(talk.eof().closed(), Error::Disconnected));
}

#[test]
fn c16_plain_text_instead_of_a_message_is_the_error_of_the_login() {
    let text = b"Ecould not fork new process for connection: Resource temporarily unavailable\n\0";
    for cut in 1..=text.len() {
        // The text ends with a NUL, or with the stream.
        for end in [true, false] {
            let mut talk = SessionScript::new();
            talk.hears(&text[..cut]);
            talk.hears(if end { &text[cut..] } else { b"" });
            let reason = talk.eof().closed();
            match &reason {
                Error::Server(_) => assert!(reason.to_string().starts_with("FATAL: c"), "{reason}"),
                _ => assert!(!end && cut < 2, "{cut}: {reason}"),
            }
            assert!(reason.is_transient() && reason.sqlstate().is_none(), "{reason}");
        }
    }
    // Anything but text is a damaged length; after the login, so is text.
    assert!(SessionScript::new().server(&[header(b'E', 0x7fff_ffff)]).closed().is_protocol());
    let mut talk = SessionScript::ready();
    talk.hears(text);
    assert!(talk.closed().is_protocol());
    // A text without an end is truncated.
    let mut talk = SessionScript::new();
    talk.hears(b"E");
    talk.hears(&b"x".repeat(31_000));
    assert!(talk.closed().server().is_some_and(|error| error.message().len() == 30_000));
}

#[test]
fn c13_terminate_says_goodbye_and_keeps_what_had_come() {
    let mut talk = SessionScript::ready().server(&[notification(1, "a", "x")]);
    talk.query("SELECT 1");
    talk.session.terminate();
    talk.session.terminate();
    assert_eq!(talk.sent(), ["SELECT 1", "Terminate"]);
    assert!(matches!(talk.outputs()[..], [Output::Reply(_, Err(Error::Closed))]));
    talk = talk.server(&[notification(1, "a", "late")]).eof();
    assert_eq!(talk.news(), ["a=x"]);
    assert!(matches!(talk.closed(), Error::Closed));
}

#[test]
fn nothing_is_learnt_after_the_end() {
    let mut talk = SessionScript::ready().eof();
    talk.closed();
    let late = [notification(1, "a", "x"), parameter("x", "y"), notice("NOTICE", "00000", "z"), login()];
    talk = talk.server(&late).eof();
    assert!(talk.outputs().is_empty() && talk.news().is_empty() && talk.session.take_notices().is_empty());
    assert_eq!(talk.session.parameter("x"), None);
}

// ---- hostile servers ------------------------------------------------------------------------------------------

#[test]
fn hostile_lengths_end_the_session_and_cost_no_memory() {
    for tag in b"ACDEGHIKNRSTWZcdv" {
        for length in [0, 3, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            for mut talk in [SessionScript::new(), SessionScript::ready()] {
                talk = talk.server(&[header(*tag, length)]);
                assert!(talk.closed().is_protocol(), "{:?} {length}", char::from(*tag));
                assert!(talk.session.held_bytes() < 4096);
            }
        }
    }
}

#[test]
fn unknown_types_end_the_session_with_the_first_byte() {
    for tag in 0..=255 {
        if MessageKind::of(tag).is_none() {
            let mut talk = SessionScript::ready();
            talk.hears(&[tag]);
            assert!(talk.closed().is_protocol());
        }
    }
}

#[test]
fn messages_out_of_place_end_the_session() {
    let idle = [ready(b'I'), done("SELECT 1"), columns(0), row::<&str>(&[]), frame(b'I', b""), key(1, 2)];
    let busy = [authentication(0, b""), key(1, 2), frame(b'v', &[0; 8]), ready(b'?')];
    for frame in idle {
        assert!(SessionScript::ready().server(std::slice::from_ref(&frame)).closed().is_protocol(), "{frame:?}");
    }
    for frame in busy {
        let mut talk = SessionScript::ready();
        talk.query("SELECT 1");
        assert!(talk.server(std::slice::from_ref(&frame)).closed().is_protocol(), "{frame:?}");
    }
    for frame in [done("SELECT 1"), columns(1), authentication(0, b"")] {
        assert!(SessionScript::new().server(&[authentication(0, b""), frame]).closed().is_protocol());
    }
}

#[test]
fn every_message_cut_short_inside_ends_the_session_or_means_nothing() {
    for whole in [parameter("a", "b"), key(1, 2), columns(2), row(&[Some("x"), None]), done("SELECT 1"), ready(b'I')] {
        for cut in 0..whole.len() - 5 {
            let mut talk = if whole[0] == b'K' {
                SessionScript::new().server(&[authentication(0, b"")])
            } else {
                SessionScript::ready()
            };
            if whole[0] != b'K' {
                talk.query("SELECT 1");
            }
            if whole[0] == b'D' {
                talk = talk.server(&[columns(2)]);
            }
            talk = talk.server(&[frame(whole[0], &whole[5..5 + cut])]);
            assert!(talk.closed().is_protocol(), "{:?}", &whole[..5 + cut]);
        }
    }
}
