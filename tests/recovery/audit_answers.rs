//! M16: the evaluation of the answers to audits, with a scripted server that determines each of them.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use notifyman::{Check, Error, Event, NotificationManager};

use super::support::open;
use crate::support::{Peer, Step, msg};

/// The shortest period of an audit.
const PERIOD: Duration = Duration::from_secs(1);

const AUDIT: &str = "SELECT channel FROM pg_catalog.pg_listening_channels() AS channel \
                     ORDER BY channel COLLATE pg_catalog.\"C\"";

/// The answer to an audit.
fn channels(names: &[&str]) -> Step {
    let rows = names.iter().map(|name| msg::data_row(&[Some(name)]));
    let answer = [msg::row_description(&["channel"])].into_iter().chain(rows);
    Step::send(answer.chain([msg::command_complete("SELECT"), msg::ready(b'I')]))
}

fn acknowledge() -> Step {
    Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')])
}

fn refuse() -> Step {
    Step::send([msg::error("ERROR", "42501", "permission denied for function pg_listening_channels"), msg::ready(b'I')])
}

/// Reads an audit, and sends the time at which it arrived.
fn timed_audit(times: &mpsc::Sender<Instant>) -> [Step; 2] {
    let times = times.clone();
    let report = Step::run("report the time", move |_| times.send(Instant::now()).map_err(|error| error.to_string()));
    [Step::expect_query(AUDIT), report]
}

#[test]
fn m16_a_refused_audit_does_not_count_as_passed() {
    let (sender, times) = mpsc::channel();
    let mut script = vec![Step::startup(), Step::login_ok(), Step::expect_query("LISTEN \"news\""), acknowledge()];
    // The first audit passes, the second is refused, and the third finds the channel missing.
    for answer in [channels(&["news"]), refuse(), channels(&[])] {
        script.extend(timed_audit(&sender));
        script.push(answer);
    }
    script.extend([Step::expect_query("LISTEN \"news\""), acknowledge(), Step::serve()]);
    let peer = Peer::play(script);
    let mut db = open(&peer.url());
    db.listen(["news"]).unwrap();
    let opened = Instant::now();
    let mut nm = NotificationManager::new([db]).timeout(10 * PERIOD).audit(PERIOD);

    let Some(Event::CheckRefused(_, Check::Audit, _)) = nm.next_event() else { panic!("a refusal") };
    let Some(Event::Restored(_, gap)) = nm.next_event() else { panic!("a gap") };
    let [passed, refused, _] = [(); 3].map(|()| times.recv().unwrap());
    assert!(matches!(gap.cause(), Error::Unregistered) && gap.channels() == ["news".into()], "{gap:?}");
    assert!(gap.since() <= passed, "it begins {:?} before the refused audit", refused.duration_since(gap.since()));
    assert!(gap.since() >= opened, "the audit that passed counts");
    drop(nm);
    peer.finish();
}

#[test]
fn m16_a_refused_listen_after_an_audit_ends_the_session_and_it_is_restored() {
    let begin = || vec![Step::startup(), Step::login_ok(), Step::expect_query("LISTEN \"news\""), acknowledge()];
    let mut first = begin();
    first.extend([Step::expect_query(AUDIT), channels(&[]), Step::expect_query("LISTEN \"news\"")]);
    first.extend([Step::send([msg::error("ERROR", "XX000", "scripted"), msg::ready(b'I')]), Step::expect_eof()]);
    let mut second = begin();
    second.push(Step::serve());
    let peer = Peer::play_each(vec![first, second]);
    let mut db = open(&peer.url());
    db.listen(["news"]).unwrap();
    let opened = Instant::now();
    let mut nm = NotificationManager::new([db]).reconnect(super::support::backoff()).audit(PERIOD);
    // The session has ended, so the channels that the audit found missing are reported first.
    let Some(Event::Restored(_, gap)) = nm.next_event() else { panic!("a gap") };
    assert!(matches!(gap.cause(), Error::Unregistered) && gap.channels() == ["news".into()], "{gap:?}");
    let Some(Event::Disconnected(_, error)) = nm.next_event() else { panic!("a loss") };
    assert_eq!(error.sqlstate(), Some("XX000"), "{error}");
    let Some(Event::Restored(_, gap)) = nm.next_event() else { panic!("a gap") };
    assert!(gap.channels() == ["news".into()] && gap.since() > opened, "{gap:?}");
    drop(nm);
    peer.finish();
}

#[test]
fn m16_many_forgotten_channels_are_listened_to_by_several_requests_with_one_gap() {
    const ALL: usize = 20_001;
    let listens = |count: usize| {
        Step::run("LISTEN", move |wire| {
            let (_, body) = wire.read_message()?.ok_or("the end")?;
            let found = String::from_utf8_lossy(&body).matches("LISTEN").count();
            wire.write(&[msg::command_complete("LISTEN"), msg::ready(b'I')].concat())?;
            if found == count { Ok(()) } else { Err(format!("{found} channels")) }
        })
    };
    let mut script = vec![Step::startup(), Step::login_ok(), listens(ALL), Step::expect_query(AUDIT), channels(&[])];
    script.extend([listens(10_000), listens(10_000), listens(1), Step::serve()]);
    let peer = Peer::play(script);
    let mut db = open(&peer.url());
    db.listen((0..ALL).map(|n| format!("c{n}"))).unwrap();
    let mut nm = NotificationManager::new([db]).audit(PERIOD);
    let Some(Event::Restored(_, gap)) = nm.next_event() else { panic!("a gap") };
    assert_eq!(gap.channels().len(), ALL);
    drop(nm);
    peer.finish();
}
