//! M16: a channel that the user listens to stays the user's, even if canaries are sent on it.

use std::time::{Duration, Instant};

use notifyman::{Connection, Event, NotificationManager};

use super::support::{backoff, cluster, open, pid};
use crate::support::server::terminate;

/// The channel of both the canaries and the user.
const SHARED: &str = "PGNOTIFIER";
const PERIOD: Duration = Duration::from_millis(200);
const DEADLINE: Duration = Duration::from_millis(100);
/// The time limit of every wait.
const LIMIT: Duration = Duration::from_secs(20);

fn empty() -> NotificationManager {
    NotificationManager::new([]).park_when_empty(true).reconnect(backoff()).timeout(Duration::from_millis(10))
}

fn with_canary(nm: NotificationManager) -> NotificationManager {
    nm.canary_at_any_pace(SHARED, PERIOD, DEADLINE)
}

/// Iterates for several canary periods, then expects the next notification of another session.
fn assert_delivers(nm: &mut NotificationManager, writer: &mut Connection, payload: &str) {
    let begun = Instant::now();
    let mut sent = false;
    loop {
        assert!(begun.elapsed() < LIMIT, "{payload} was not delivered: {nm:?}");
        if !sent && begun.elapsed() > 3 * PERIOD && nm.connections().count() == 1 {
            writer.notify(SHARED, payload).unwrap();
            sent = true;
        }
        match nm.next_event().expect("the loop continues") {
            Event::Notifies(_, batch) if batch.iter().any(|n| n.payload() == payload) => break,
            Event::Disconnected(_, error) => assert!(error.is_transient(), "{error}"),
            _ => {}
        }
    }
    assert_eq!(nm.stats().not_delivering, 0);
}

#[test]
fn m16_a_channel_of_the_user_is_delivered_even_if_canaries_are_sent_there() {
    let server = cluster();
    let mut writer = open(&server.url());
    let listener = || {
        let mut db = open(&server.url());
        db.listen([SHARED]).unwrap();
        db
    };

    let mut nm = empty();
    nm.insert(listener());
    assert_delivers(&mut with_canary(nm), &mut writer, "to one that was there before");

    let mut nm = with_canary(empty());
    nm.insert(listener());
    assert_delivers(&mut nm, &mut writer, "to one that came later");
    terminate(&server, pid(&nm));
    while nm.stats().restores == 0 {
        nm.next_event();
    }
    assert_delivers(&mut nm, &mut writer, "to one that was restored");

    let mut nm = with_canary(empty());
    nm.dial(server.url(), [SHARED]).unwrap();
    assert_delivers(&mut nm, &mut writer, "to one that was dialled");
}

#[test]
fn m16_a_channel_that_the_user_listened_to_in_a_transaction_is_delivered() {
    let server = cluster();
    let mut writer = open(&server.url());
    let mut db = open(&server.url());
    db.query("BEGIN").unwrap();
    db.listen([SHARED]).unwrap();
    let mut nm = with_canary(empty());
    let id = nm.insert(db);
    nm.get_mut(id).unwrap().query("COMMIT").unwrap();
    assert_delivers(&mut nm, &mut writer, "after the commit");
    assert_eq!(nm.get_mut(id).unwrap().listening_channels().unwrap(), [SHARED]);
}
