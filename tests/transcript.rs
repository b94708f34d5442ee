//! The events of the feature `tracing`: the transcript of a session, and the states of a connection.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use notifyman::{Backoff, Config, Connection, Event, NotificationManager};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Dispatch, Level, Metadata, Subscriber};

use crate::support::msg;
use crate::support::peer::{Peer, Step};

const PASSWORD: &str = "pencil";
const PAYLOAD: &str = "a secret payload";

/// A subscriber that keeps each event of this crate, up to a level, as one line.
#[derive(Clone)]
struct LineSubscriber {
    most: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A dispatcher of no thread. If there is only one dispatcher, `tracing` asks that of the current thread about a new callsite,
/// so a thread of another test, which has none, would silence the callsite for all.
static OTHER: LazyLock<Dispatch> =
    LazyLock::new(|| Dispatch::new(LineSubscriber { most: Level::TRACE, lines: Arc::default() }));

impl LineSubscriber {
    fn up_to(most: Level) -> Self {
        LazyLock::force(&OTHER);
        Self { most, lines: Arc::default() }
    }

    /// Returns the lines, with the address of the peer replaced.
    fn lines(&self, peer: &Peer) -> Vec<String> {
        let addr = peer.addr().to_string();
        self.lines.lock().unwrap().iter().map(|line| line.replace(&addr, "ADDR")).collect()
    }
}

/// The fields of an event, with its message first.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => write!(self.fields, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for LineSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "notifyman" && *metadata.level() <= self.most
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = event.metadata().level();
        self.lines.lock().unwrap().push(format!("{level} {}{}", line.message, line.fields));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn login_with_password() -> Vec<Step> {
    vec![
        Step::startup(),
        Step::send([msg::auth_cleartext()]),
        Step::expect_body(b'p', format!("{PASSWORD}\0")),
        Step::send([
            msg::auth_ok(),
            msg::parameter_status("client_encoding", "UTF8"),
            msg::backend_key_data(7, b"key!"),
            msg::ready(b'I'),
        ]),
    ]
}

/// Answers a LISTEN.
fn listen() -> [Step; 2] {
    [Step::expect_query(r#"LISTEN "news""#), Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')])]
}

fn url(peer: &Peer) -> String {
    format!("postgres://app:{PASSWORD}@{}/shop", peer.addr())
}

#[test]
fn the_transcript_names_each_message_of_a_login_and_a_listen() {
    let mut script = login_with_password();
    script.extend(listen());
    script.push(Step::send([msg::notification(7, "news", PAYLOAD)]));
    script.push(Step::expect_eof());
    let peer = Peer::play(script);
    let subscriber = LineSubscriber::up_to(Level::TRACE);
    with_default(subscriber.clone(), || {
        let mut db = Connection::connect(url(&peer) + "?sslmode=disable").unwrap();
        db.listen(["news"]).unwrap();
        assert_eq!(db.wait(None).flatten().next().unwrap().payload(), PAYLOAD);
    });
    let lines = subscriber.lines(&peer);
    let wire = |direction: &str, name: &str, length: usize| {
        let place = r#"host="ADDR" database="shop""#;
        format!(r#"TRACE message {place} direction="{direction}" name="{name}" length={length}"#)
    };
    let startup = lines.first().cloned().unwrap_or_default();
    assert!(startup.starts_with(wire("F", "StartupMessage", 0).trim_end_matches('0')), "{startup}");
    let expected = [
        wire("B", "AuthenticationCleartextPassword", 8),
        wire("F", "PasswordMessage", 4 + PASSWORD.len() + 1),
        wire("B", "AuthenticationOk", 8),
        wire("B", "ParameterStatus", 4 + "client_encoding=UTF8=".len()),
        wire("B", "BackendKeyData", 12),
        wire("B", "ReadyForQuery", 5),
        wire("F", "Query", 4 + r#"LISTEN "news"="#.len()),
        wire("B", "CommandComplete", 4 + "LISTEN=".len()),
        wire("B", "ReadyForQuery", 5),
        wire("B", "NotificationResponse", 8 + "news=".len() + PAYLOAD.len() + 1),
        wire("F", "Terminate", 4),
    ];
    assert_eq!(lines[1..], expected);
    let all = lines.concat();
    assert!(!all.contains(PASSWORD) && !all.contains(PAYLOAD) && !all.contains("key!"), "{all}");
    peer.finish();
}

#[test]
fn messages_outside_a_session_are_in_the_transcript() {
    let encryption = cfg!(feature = "tls").then(|| Step::ssl_request(b"N"));
    let ready = encryption.into_iter().chain([Step::startup(), Step::login_ok(), Step::expect_query("SELECT slow")]);
    let (cancelled, gate) = Step::gate();
    let answer = Step::send([msg::error("ERROR", "57014", "canceling statement"), msg::ready(b'I')]);
    let session = ready.chain([gate, answer, Step::expect_eof()]).collect();
    let cancel = vec![
        Step::expect_cancel(),
        Step::run("cancel", |_| {
            cancelled.open();
            Ok(())
        }),
    ];
    let peer = Peer::play_each(vec![session, cancel]);
    let subscriber = LineSubscriber::up_to(Level::TRACE);
    with_default(subscriber.clone(), || {
        let url = format!("{}?sslmode=prefer", url(&peer));
        let mut db = Connection::connect(url).unwrap();
        db.set_call_timeout(Duration::from_millis(100));
        assert!(db.query("SELECT slow").unwrap_err().is_timeout());
    });
    let lines = subscriber.lines(&peer);
    let request = |name: &str, direction: &str, length: usize| {
        format!(r#"TRACE message host="ADDR" database="shop" direction="{direction}" name="{name}" length={length}"#)
    };
    if cfg!(feature = "tls") {
        assert_eq!(lines[..2], [request("SSLRequest", "F", 8), request("SSLResponse", "B", 1)]);
    }
    assert!(lines.contains(&request("CancelRequest", "F", 16)), "{lines:#?}");
    peer.finish();
}

#[test]
fn a_manager_is_described_by_one_entry_for_each_connection() {
    let mut script = login_with_password();
    script.extend(listen());
    script.push(Step::expect_query("SELECT 1"));
    script.push(Step::expect_eof());
    let peer = Peer::play(script);
    let (addr, mut db) = (peer.addr().to_string(), Connection::connect(url(&peer)).unwrap());
    db.listen(["news"]).unwrap();
    let place = r#"to: ADDR as "app", database "shop""#;
    let session = r#"session: "idle", channels: 1, transaction: Idle, unanswered: 0, undelivered: 0"#;
    let text = format!("{db:?}").replace(&addr, "ADDR");
    assert!(text.starts_with(&format!("Connection {{ {place}, pid: 7, {session}, descriptor: ")), "{text}");
    let mut nm = NotificationManager::new([db]).reconnect(Backoff::default().first(Duration::from_secs(60)));
    let refused = format!("host=127.0.0.1 port=1 user=app dbname=shop password={PASSWORD}");
    nm.dial(refused.as_str(), ["news", "more"]).unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Disconnected(..))));
    let handle = nm.handle();
    let ticket = handle.query(nm.connections().next().unwrap().0, "SELECT 1");
    let restoring = nm.restoring().next().unwrap().0;
    let listens = ["sports", "later"].map(|channel| handle.listen(restoring, [channel]));
    let unlisten = handle.unlisten(restoring, ["more"]);
    nm.set_timeout(Duration::from_millis(1));
    let next = std::iter::repeat_with(|| nm.next_event()).find(|event| !matches!(event, Some(Event::Unlistened(..))));
    assert!(matches!(next, Some(Some(Event::Idle))));
    let text = format!("{nm:?}").replace(&addr, "ADDR");
    let busy = session.replace("idle", "busy").replace("unanswered: 0", "unanswered: 1");
    let entries = [
        format!(r#"Member {{ id: 1, state: "live", {place}, pid: 7, {busy}, outstanding: "#),
        r#"requests: ["a request by the handle"]"#.to_owned(),
        r#"Member { id: 2, state: "backoff", next_attempt: "#.to_owned(),
        r#"to: 127.0.0.1:1 as "app", database "shop", channels: 1, "#.to_owned(),
        "edits: 2 LISTENs waiting, 3 tickets unresolved, failed_attempts: 1, last_error: ".to_owned(),
        r#"dials: 0 in progress, 0 waiting"#.to_owned(),
    ];
    for entry in entries {
        assert!(text.contains(&entry), "{entry}\nis missing in\n{text}");
    }
    assert!(
        !text.contains(PASSWORD) && !["news", "more", "sports", "later"].iter().any(|name| text.contains(name)),
        "{text}"
    );
    assert!(text.len() < 3000, "{} bytes: {text}", text.len());
    drop((ticket, listens, unlisten));
    drop(nm);
    peer.finish();
}

#[test]
fn the_states_of_a_connection_are_logged_from_its_dial_to_its_restoration() {
    let (lose, gate) = Step::gate();
    let mut first = login_with_password();
    first.extend(listen());
    first.push(gate);
    let mut second = login_with_password();
    second.extend(listen());
    second.push(Step::expect_eof());
    let peer = Peer::play_each(vec![first, second]);
    let subscriber = LineSubscriber::up_to(Level::DEBUG);
    with_default(subscriber.clone(), || {
        let mut nm = NotificationManager::new([]).reconnect(Backoff::default().first(Duration::from_millis(1)));
        let id = nm.dial(url(&peer), ["news"]).unwrap();
        assert!(matches!(nm.next_event(), Some(Event::Opened(opened)) if opened == id));
        lose.open();
        assert!(matches!(nm.next_event(), Some(Event::Disconnected(lost, _)) if lost == id));
        assert!(matches!(nm.next_event(), Some(Event::Restored(restored, _)) if restored == id));
        nm.remove(id);
    });
    let place = r#"connection=1 host="ADDR" database="shop""#;
    let change = |from: &str, to: &str| format!(r#"DEBUG state changed {place} from="{from}" to="{to}""#);
    let lines = subscriber.lines(&peer);
    let changes: Vec<_> = lines.iter().filter(|line| line.starts_with("DEBUG state changed")).cloned().collect();
    let opening = |from: &str| {
        let states = [from, "backoff", "queued", "dialling", "listening", "live"];
        states.windows(2).map(|pair| change(pair[0], pair[1])).collect::<Vec<_>>()
    };
    let expected = [opening("new"), opening("live"), vec![change("live", "removed")]].concat();
    assert_eq!(changes, expected);
    let others: Vec<_> = lines.iter().filter(|line| !changes.contains(line)).collect();
    assert_eq!(others.len(), 3, "{others:#?}");
    assert_eq!(*others[0], format!("INFO connection opened {place} attempts=1"));
    assert!(others[1].starts_with(&format!("WARN connection lost {place} error=")), "{others:#?}");
    assert!(others[1].ends_with(" will_reconnect=true"), "{others:#?}");
    assert!(others[2].starts_with(&format!("INFO connection restored {place} gap_ms=")), "{others:#?}");
    assert!(!lines.concat().contains(PASSWORD));
    peer.finish();
}

#[test]
fn a_timer_that_fires_has_a_name_and_messages_carry_the_id() {
    let mut script = login_with_password();
    script.extend(listen());
    script.extend([Step::expect(b'S'), Step::send([msg::ready(b'I')]), Step::expect_eof()]);
    // The first attempt is refused by a server that has no room.
    let full = vec![Step::startup(), Step::send([msg::error("FATAL", "53300", "too many clients")])];
    let peer = Peer::play_each(vec![full, script]);
    let subscriber = LineSubscriber::up_to(Level::TRACE);
    with_default(subscriber.clone(), || {
        let mut nm = NotificationManager::new([])
            .reconnect(Backoff::default().first(Duration::from_millis(1)))
            .heartbeat(Duration::from_secs(1), Duration::from_secs(60));
        let id = nm.dial(url(&peer), ["news"]).unwrap();
        assert!(matches!(nm.next_event(), Some(Event::Disconnected(..))));
        assert!(matches!(nm.next_event(), Some(Event::Opened(_))));
        nm.set_timeout(Duration::from_millis(100));
        let has_asked = || subscriber.lines(&peer).iter().any(|line| line.contains(r#"name="Sync""#));
        while !has_asked() {
            assert!(matches!(nm.next_event(), Some(Event::Idle)));
        }
        nm.remove(id);
    });
    let lines = subscriber.lines(&peer);
    let place = r#"connection=1 host="ADDR" database="shop""#;
    for timer in ["Retry", "DialPermit", "Heartbeat"] {
        assert!(lines.contains(&format!("TRACE timer fired {place} timer={timer}")), "{timer}: {lines:#?}");
    }
    let is_idle = |line: &String| line == "TRACE timer fired timer=Idle";
    assert!(lines.iter().any(is_idle), "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains(place) || is_idle(line)), "{lines:#?}");
    let failed = format!("WARN connection attempt failed {place} error=");
    assert!(lines.iter().any(|line| line.starts_with(&failed)), "{lines:#?}");
    drop(peer);
}

#[test]
fn a_timer_of_a_task_has_the_place_of_its_owner_and_a_shared_schedule_has_none() {
    const CANARY: &str = "canaries";
    let ready = || msg::ready(b'I');
    let database = [msg::row_description(&["started", "oid"]), msg::data_row(&[Some("17.5"), Some("5")])].concat();
    let joined = [msg::command_complete("LISTEN"), database, msg::command_complete("SELECT"), ready()];
    let channels = [msg::row_description(&["channel"]), msg::data_row(&[Some(CANARY)])].concat();
    let audited = [channels, msg::command_complete("SELECT"), ready()].concat();
    let refused = [msg::error("ERROR", "54000", "too many notifications in the NOTIFY queue"), ready()].concat();
    let silent = || Step::run("wait for the client", |stream| stream.read(1).map(drop));
    let session = vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_any_query(),
        Step::send(joined),
        Step::run("answer until the late query", move |stream| {
            while let Some((_, body)) = stream.read_message()? {
                let text = String::from_utf8_lossy(&body);
                if text.contains("slow") {
                    break;
                }
                match text.contains("pg_notify") {
                    true => stream.write(&refused)?,
                    false => stream.write(&audited)?,
                }
            }
            Ok(())
        }),
        silent(),
    ];
    // The sender of a canary is not answered, and the server does not end a CancelRequest.
    let peer = Peer::play_each(vec![session, vec![Step::startup(), silent()], vec![Step::expect_cancel(), silent()]]);
    let subscriber = LineSubscriber::up_to(Level::TRACE);
    let has_fired = |timer: &str| subscriber.lines(&peer).iter().any(|line| line.ends_with(&format!("timer={timer}")));
    with_default(subscriber.clone(), || {
        let config = Config::try_from(url(&peer) + "?sslmode=disable").unwrap();
        let mut db = Connection::connect(config.connect_timeout(Duration::from_secs(1))).unwrap();
        db.set_call_timeout(Duration::from_secs(1));
        let mut nm = NotificationManager::new([db])
            .timeout(Duration::from_millis(20))
            .audit(Duration::from_secs(1))
            .canary_at_any_pace(CANARY, Duration::from_millis(300), Duration::from_millis(100));
        while !["Canary", "Audit", "Dial"].into_iter().all(has_fired) {
            let event = nm.next_event();
            assert!(matches!(event, Some(Event::Idle | Event::CheckRefused(..))), "{event:?}");
        }
        let id = nm.connections().next().unwrap().0;
        let ticket = nm.handle().query(id, "SELECT slow");
        while !has_fired("Cancel") {
            assert!(nm.next_event().is_some());
        }
        drop(ticket);
    });
    let lines = subscriber.lines(&peer);
    let place = r#"connection=1 host="ADDR" database="shop""#;
    for timer in ["DialPermit", "Dial", "Cancel"] {
        assert!(lines.contains(&format!("TRACE timer fired {place} timer={timer}")), "{timer}: {lines:#?}");
    }
    for timer in ["Canary", "Audit", "Idle"] {
        assert!(lines.contains(&format!("TRACE timer fired timer={timer}")), "{timer}: {lines:#?}");
    }
    drop(peer);
}

#[test]
fn the_first_failure_to_open_a_connection_is_a_warning_and_the_others_are_not() {
    let fails = || vec![Step::startup(), Step::send([msg::error("FATAL", "57P03", "starting up")])];
    let mut opens = login_with_password();
    opens.extend(listen());
    opens.push(Step::serve());
    let peer = Peer::play_each(vec![fails(), fails(), opens]);
    let subscriber = LineSubscriber::up_to(Level::DEBUG);
    with_default(subscriber.clone(), || {
        let mut nm = NotificationManager::new([]).reconnect(Backoff::default().first(Duration::from_millis(1)));
        let id = nm.dial(url(&peer), ["news"]).unwrap();
        while !matches!(nm.next_event(), Some(Event::Opened(_))) {}
        nm.remove(id);
    });
    let lines = subscriber.lines(&peer);
    let of = |text: &str| lines.iter().filter(|line| line.contains(text)).cloned().collect::<Vec<_>>();
    let failed = of("connection attempt failed");
    assert_eq!(failed.len(), 2, "{lines:#?}");
    assert!(failed[0].starts_with("WARN ") && failed[0].ends_with(" attempts=1 will_reconnect=true"), "{failed:#?}");
    assert!(failed[1].starts_with("DEBUG ") && failed[1].ends_with(" attempts=2 will_reconnect=true"), "{failed:#?}");
    assert!(of("connection opened").concat().ends_with(" attempts=3"), "{lines:#?}");
}

#[test]
fn m20_events_have_the_label_of_the_connection() {
    let peer = Peer::play(login_with_password().into_iter().chain(listen()).chain([Step::close()]).collect());
    let subscriber = LineSubscriber::up_to(Level::TRACE);
    with_default(subscriber.clone(), || {
        let mut nm = NotificationManager::new([]);
        nm.dial_as("berlin", Config::without_env(&url(&peer)).unwrap(), ["news"]).unwrap();
        while nm.next_event().is_some() {}
    });
    let lines = subscriber.lines(&peer);
    let of_connection = lines.iter().filter(|line| line.contains("connection=1"));
    assert!(of_connection.clone().count() > 10, "{lines:#?}");
    for line in of_connection {
        assert!(line.contains(" connection=1 label=\"berlin\" host=\"ADDR\" database=\"shop\""), "{line}");
    }
}
