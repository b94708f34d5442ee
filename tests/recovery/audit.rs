//! M16: audits, which find channels that a server no longer listens to, on real servers.

use std::time::Duration;

use notifyman::{Connection, Error, Event, NotificationManager};

use super::ledger::CHANNEL;
use super::support::{Story, cluster, open};
use crate::support::PgBouncer;

const PERIOD: Duration = Duration::from_secs(1);

/// An UNLISTEN that the client cannot see in its SQL.
fn unlisten_in_function(nm: &mut NotificationManager) {
    let id = nm.connections().next().unwrap().0;
    nm.get_mut(id).unwrap().query("SELECT forget()").unwrap();
}

fn create_unlisten_function(db: &mut Connection) {
    db.query("CREATE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'UNLISTEN *'; END $$")
        .unwrap();
}

#[test]
fn m16_a_lost_registration_is_found_and_restored_with_a_gap() {
    let server = cluster();
    create_unlisten_function(&mut open(&server.url()));
    let mut story = Story::begin(&server.url(), &server.url());
    story.nm = story.nm.audit(PERIOD);
    let before = pid_of(&story.nm);
    for round in 1..=3 {
        unlisten_in_function(&mut story.nm);
        let gaps = story.ledger.gaps();
        story.ledger.read_until(&mut story.nm, |ledger, _| ledger.gaps() > gaps);
        story.receive_more();
        let gap = story.ledger.last_gap();
        assert!(matches!(gap.cause(), Error::Unregistered) && gap.channels() == [CHANNEL.into()], "{gap:?}");
        assert_eq!((gap.epoch(), story.nm.stats().unregistered), (round, round));
    }
    assert_eq!((story.nm.stats().losses, pid_of(&story.nm)), (0, before), "the session continues");
    story.end_well();
}

fn pid_of(nm: &NotificationManager) -> i32 {
    nm.connections().next().unwrap().1.pid()
}

#[test]
fn m16_next_event_returns_the_gap_of_a_lost_registration_as_an_event() {
    let server = cluster();
    create_unlisten_function(&mut open(&server.url()));
    let mut db = open(&server.url());
    db.listen(["a", "b"]).unwrap();
    let mut nm = NotificationManager::new([db]).audit(PERIOD);
    unlisten_in_function(&mut nm);
    let Some(Event::Restored(_, gap)) = nm.next_event() else { panic!() };
    assert_eq!(gap.channels(), ["a".into(), "b".into()]);
    assert!(gap.since() <= gap.until() && gap.since_wall() <= gap.until_wall());
}

#[test]
fn m16_an_audit_finds_a_channel_that_a_function_listens_to() {
    let server = cluster();
    let mut db = open(&server.url());
    db.query("CREATE FUNCTION more() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'LISTEN more'; END $$").unwrap();
    let mut nm = NotificationManager::new([db]).timeout(Duration::from_millis(20)).audit(PERIOD);
    let id = nm.connections().next().unwrap().0;
    nm.get_mut(id).unwrap().query("SELECT more()").unwrap();
    let known = |nm: &NotificationManager| format!("{:?}", nm.get(id).unwrap());
    while !known(&nm).contains("channels: 1") {
        assert!(matches!(nm.next_event(), Some(Event::Idle)));
    }
    assert_eq!((nm.stats().gaps, nm.stats().unregistered), (0, 0));
}

#[test]
fn m16_an_audit_does_not_interfere_with_concurrent_requests() {
    let server = cluster();
    let mut nm = NotificationManager::new([open(&server.url())]).timeout(Duration::from_millis(1)).audit(PERIOD);
    let (id, handle) = (nm.connections().next().unwrap().0, nm.handle());
    let begun = std::time::Instant::now();
    let mut tickets = Vec::new();
    while begun.elapsed() < 4 * PERIOD {
        tickets.push(handle.listen(id, ["a", "b"]));
        tickets.push(handle.unlisten(id, ["a"]));
        tickets.push(handle.unlisten_all(id));
        assert!(matches!(nm.next_event(), Some(Event::Idle | Event::Unlistened(..))));
    }
    assert_eq!((nm.stats().unregistered, nm.stats().gaps), (0, 0));
}

#[test]
fn m16_an_audit_finds_a_pooler_that_gives_the_session_to_other_clients() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "transaction", "server_round_robin = 1");
    let mut busy: Vec<_> = (0..3).map(|_| open(&pooler.url())).collect();
    for sql in ["BEGIN", "COMMIT"] {
        busy.iter_mut().for_each(|db| drop(db.query(sql).unwrap()));
    }
    let mut db = open(&pooler.url());
    db.listen([CHANNEL]).unwrap();
    let mut nm = NotificationManager::new([db]).audit(PERIOD);
    let Some(Event::Restored(_, gap)) = nm.next_event() else { panic!() };
    assert!(matches!(gap.cause(), Error::Unregistered), "{gap:?}");
}
