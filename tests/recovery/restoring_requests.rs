//! M15 and M18: requests to a connection that is being restored, and its heartbeat afterwards.

use std::time::{Duration, Instant};

use notifyman::{Error, Event, NotificationManager, Ticket};

use super::support::{backoff, listener};
use crate::support::{Peer, Step, msg};

/// The time limit of every wait.
const LIMIT: Duration = Duration::from_secs(20);

fn acknowledge() -> Step {
    Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')])
}

fn session(then: impl IntoIterator<Item = Step>) -> Vec<Step> {
    let listens = [Step::startup(), Step::login_ok(), Step::expect_query("LISTEN \"ledger\""), acknowledge()];
    listens.into_iter().chain(then).collect()
}

/// The next event that is not idle.
fn event(nm: &mut NotificationManager) -> Event {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LIMIT, "nothing happens: {nm:?}");
        match nm.next_event().expect("the loop continues") {
            Event::Idle => {}
            event => return event,
        }
    }
}

fn result<T>(ticket: &mut Ticket<T>) -> Result<T, Error> {
    ticket.try_get().expect("the ticket is resolved")
}

#[test]
fn m18_requests_of_a_connection_that_cannot_be_restored_resolve_to_the_reason() {
    let (refuse, gate) = Step::gate();
    let refusal = Step::send([msg::error("FATAL", "28P01", "password authentication failed")]);
    let peer = Peer::play_each(vec![session([Step::close()]), vec![Step::startup(), gate, refusal]]);
    let mut nm = NotificationManager::new([listener(&peer.url())])
        .park_when_empty(true)
        .timeout(Duration::from_millis(10))
        .reconnect(backoff());
    assert!(matches!(event(&mut nm), Event::Disconnected(_, Error::Disconnected)));
    let (handle, id) = (nm.handle(), nm.restoring().next().unwrap().0);
    let mut tickets = [handle.listen(id, ["more"]), handle.unlisten(id, ["ledger"]), handle.unlisten_all(id)];
    let mut query = handle.query(id, "SELECT");
    let mut notify = handle.notify(id, "ledger", "");
    let next = std::iter::repeat_with(|| nm.next_event()).find(|event| !matches!(event, Some(Event::Unlistened(..))));
    assert!(matches!(next, Some(Some(Event::Idle))));
    assert!(matches!(result(&mut query), Err(Error::Disconnected)), "the request is refused immediately");
    assert!(matches!(result(&mut notify), Err(Error::Disconnected)), "the request is refused immediately");
    assert!(tickets.iter_mut().all(|ticket| ticket.try_get().is_none()));
    refuse.open();
    let Event::Lost(lost, error) = event(&mut nm) else { panic!("it cannot be restored") };
    assert_eq!((lost, error.sqlstate()), (id, Some("28P01")));
    for ticket in &mut tickets {
        assert_eq!(result(ticket).unwrap_err().sqlstate(), Some("28P01"));
    }
    peer.finish();
}

#[test]
fn m15_a_restored_connection_and_a_dialled_one_have_a_heartbeat() {
    // A server that acknowledges LISTEN, and then answers no heartbeat.
    let silent = || session([Step::expect(b'S'), Step::expect_eof()]);
    let restored = Peer::play_each(vec![session([Step::close()]), silent()]);
    let dialled = Peer::play(silent());
    let mut nm = NotificationManager::new([])
        .park_when_empty(true)
        .timeout(Duration::from_millis(10))
        .heartbeat(Duration::from_millis(200), Duration::from_secs(1));
    let first = nm.insert(listener(&restored.url()));
    assert!(matches!(event(&mut nm), Event::Lost(_, Error::Disconnected)));
    let (id, dead) = nm.take_garbage().remove(0);
    assert_eq!(nm.revive(id, dead), first);
    assert!(matches!(event(&mut nm), Event::Restored(..)));
    let Event::Lost(_, error) = event(&mut nm) else { panic!("the silence is noticed") };
    assert!(error.is_timeout() && format!("{error:#}").contains("heartbeat"), "{error}");

    nm.dial(dialled.url(), ["ledger"]).unwrap();
    assert!(matches!(event(&mut nm), Event::Opened(_)));
    let Event::Lost(_, error) = event(&mut nm) else { panic!("the silence is noticed") };
    assert!(error.is_timeout() && format!("{error:#}").contains("heartbeat"), "{error}");
    drop(nm);
    restored.finish();
    dialled.finish();
}
