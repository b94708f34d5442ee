//! M16: the evaluation of missed canaries, with a scripted server that determines the delivery of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use notifyman::{Error, Event, NotificationManager};

use super::support::{backoff, open};
use crate::support::peer::PeerStream;
use crate::support::{Peer, Step, msg};

const CANARY: &str = "canaries";
const PERIOD: Duration = Duration::from_millis(250);
const DEADLINE: Duration = Duration::from_millis(100);
/// The time limit of a script.
const LIMIT: Duration = Duration::from_secs(20);
/// The process number of each scripted session.
const PID: i32 = 4242;

/// Reads a query that contains this text, and returns it as a whole.
fn query(wire: &mut PeerStream, part: &str) -> Result<String, String> {
    let message = wire.read_message()?;
    let text = message.as_ref().map(|(_, body)| String::from_utf8_lossy(body).into_owned()).unwrap_or_default();
    match message {
        Some((b'Q', _)) if text.contains(part) => Ok(text),
        other => Err(format!("got {:?} {text:?}", other.map(|(tag, _)| char::from(tag)))),
    }
}

fn done(tag: &str) -> Vec<u8> {
    [msg::command_complete(tag), msg::ready(b'I')].concat()
}

/// Reads a query that contains this text, and answers it.
fn answers(part: &'static str, answer: Vec<u8>) -> Step {
    Step::run(format!("answer {part}"), move |wire| {
        query(wire, part)?;
        wire.write(&answer)
    })
}

/// Lets the session listen to the canary's channel.
fn joins() -> Step {
    let database = [msg::row_description(&["started", "oid"]), msg::data_row(&[Some("17.5"), Some("5")])];
    let answer = [msg::command_complete("LISTEN"), database.concat(), done("SELECT")];
    answers("LISTEN \"canaries\"", answer.concat())
}

/// Reads a canary, and returns its payload.
fn canary(wire: &mut PeerStream) -> Result<String, String> {
    let sql = query(wire, "pg_notify")?;
    let at = sql.find("canary ").ok_or("no payload")?;
    Ok(sql[at..at + "canary ".len() + 16].to_owned())
}

/// Commits a canary, and delivers it to its sender under this process number.
fn delivers_from(pid: i32) -> Step {
    Step::run("deliver a canary", move |wire| {
        let payload = canary(wire)?;
        // In one write, since the deadline begins with the commit.
        wire.write(&[msg::notification(pid, CANARY, &payload), done("SELECT")].concat())
    })
}

fn delivers() -> Step {
    delivers_from(PID)
}

/// Commits a canary that is not delivered, because the registration had lapsed; then lets the client renew that.
fn lapses() -> [Step; 3] {
    let channels = [msg::row_description(&["channel"]), msg::data_row(&[Some("news")]), done("SELECT")];
    [answers("pg_notify", done("SELECT")), answers("pg_listening_channels", channels.concat()), joins()]
}

fn begins() -> [Step; 4] {
    [Step::startup(), Step::login_ok(), answers("LISTEN \"news\"", done("LISTEN")), joins()]
}

/// Reports to the test that the script has reached this step.
fn ends(over: &Arc<AtomicBool>) -> Step {
    let over = Arc::clone(over);
    Step::run("end", move |_| {
        over.store(true, SeqCst);
        Ok(())
    })
}

fn watched(url: &str) -> NotificationManager {
    let mut db = open(url);
    db.listen(["news"]).unwrap();
    NotificationManager::new([db])
        .timeout(Duration::from_millis(10))
        .reconnect(backoff())
        .canary_at_any_pace(CANARY, PERIOD, DEADLINE)
}

/// Iterates until the script has been played, and returns the reasons of all losses.
fn play(nm: &mut NotificationManager, over: &AtomicBool) -> Vec<Error> {
    let begun = Instant::now();
    let mut lost = Vec::new();
    while !over.load(SeqCst) && begun.elapsed() < LIMIT {
        match nm.next_event().expect("the loop continues") {
            Event::Disconnected(_, error) => lost.push(error),
            Event::Idle | Event::Restored(..) | Event::CheckRefused(..) => {}
            other => panic!("{other:?}"),
        }
    }
    lost
}

/// Waits until the client closes or resets the connection: unread data causes a reset, which is no fault.
fn closes() -> Step {
    Step::run("wait for the client", |wire| wire.read(1).map_or(Ok(()), |_| Ok(())))
}

/// A session that closes before it can send the first canary for the only connection to a database, which then sends
/// its canaries itself.
fn no_sender() -> Vec<Step> {
    vec![Step::startup(), Step::close()]
}

/// A script that begins a session, plays these steps, and reports the end.
fn session(steps: impl IntoIterator<Item = Step>, over: &Arc<AtomicBool>) -> Vec<Step> {
    begins().into_iter().chain(steps).chain([ends(over), closes()]).collect()
}

#[test]
fn m16_a_registration_that_lapses_occasionally_is_renewed_and_is_no_fault() {
    let over = Arc::new(AtomicBool::new(false));
    let steps = lapses().into_iter().chain([delivers()]).chain(lapses()).chain([delivers()]);
    let peer = Peer::play_each(vec![session(steps, &over), no_sender()]);
    let mut nm = watched(&peer.url());
    assert!(play(&mut nm, &over).is_empty(), "between two lapses a canary was received");
    assert_eq!(nm.stats().not_delivering, 0);
    drop(nm);
    peer.finish();
}

#[test]
fn m16_a_registration_that_lapses_twice_in_a_row_is_a_loss() {
    let over = Arc::new(AtomicBool::new(false));
    let [misses, audited, _] = lapses();
    let first = begins().into_iter().chain(lapses()).chain([misses, audited]);
    let first = first.chain([Step::run("wait for the end", |wire| wire.read_message().map(drop))]).collect();
    let steps = lapses().into_iter().chain([delivers()]);
    let peer = Peer::play_each(vec![first, no_sender(), session(steps, &over), no_sender()]);
    let mut nm = watched(&peer.url());
    let lost = play(&mut nm, &over);
    assert!(matches!(lost[..], [Error::NotDelivering { .. }]), "{lost:?}");
    assert_eq!((nm.stats().not_delivering, nm.connections().count()), (1, 1));
    drop(nm);
    peer.finish();
}

#[test]
fn m16_a_lapse_of_an_earlier_session_does_not_count() {
    let over = Arc::new(AtomicBool::new(false));
    let first = begins().into_iter().chain(lapses()).chain([Step::close()]).collect();
    let steps = lapses().into_iter().chain([delivers()]);
    let peer = Peer::play_each(vec![first, no_sender(), session(steps, &over), no_sender()]);
    let mut nm = watched(&peer.url());
    let lost = play(&mut nm, &over);
    assert!(matches!(lost[..], [Error::Disconnected]), "{lost:?}");
    assert_eq!(nm.stats().not_delivering, 0);
    drop(nm);
    peer.finish();
}

#[test]
fn m16_a_refused_canary_is_no_fault_and_the_next_is_sent_in_the_next_period() {
    let over = Arc::new(AtomicBool::new(false));
    let refusal = [msg::error("ERROR", "54000", "too many notifications in the NOTIFY queue"), msg::ready(b'I')];
    let refuses = || answers("pg_notify", refusal.concat());
    let peer = Peer::play_each(vec![session([refuses(), refuses(), delivers()], &over), no_sender()]);
    let mut nm = watched(&peer.url());
    assert!(play(&mut nm, &over).is_empty());
    drop(nm);
    peer.finish();
}

/// A session that receives its own canaries under another process id, as through a pooler, and those of the senders.
fn pooled(payloads: mpsc::Receiver<String>, over: &Arc<AtomicBool>) -> Vec<Step> {
    let relays = Step::run("deliver what a sender has sent", move |wire| {
        let payload = payloads.recv_timeout(LIMIT).map_err(|error| error.to_string())?;
        wire.write(&msg::notification(PID + 1, CANARY, &payload))
    });
    session([delivers_from(PID + 1), relays], over)
}

#[test]
fn m16_a_sender_that_could_not_connect_releases_its_permit() {
    let over = Arc::new(AtomicBool::new(false));
    let (sender, payloads) = mpsc::channel();
    let sends = Step::run("commit a canary", move |wire| {
        sender.send(canary(wire)?).map_err(|error| error.to_string())?;
        wire.write(&done("SELECT"))
    });
    let succeeds = vec![Step::startup(), Step::login_ok(), sends, closes()];
    let peer = Peer::play_each(vec![pooled(payloads, &over), no_sender(), no_sender(), no_sender(), succeeds]);
    let mut nm = watched(&peer.url()).reconnect(backoff().at_once(1));
    assert!(play(&mut nm, &over).is_empty(), "the connection itself is well");
    assert_eq!(nm.stats().not_delivering, 0);
    drop(nm);
    peer.finish();
}
