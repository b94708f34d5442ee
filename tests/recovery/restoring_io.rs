//! M13 and M14: reads and writes of a connection that is being restored, with a scripted server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Poll;
use std::time::{Duration, Instant};

use notifyman::{Event, NotificationManager};

use super::support::{backoff, listener};
use crate::support::peer::Gate;
use crate::support::unix_peer::TOO_MUCH;
use crate::support::{Step, UnixPeer, msg};

/// The time limit of every wait.
const LIMIT: Duration = Duration::from_secs(20);
/// The size of the largest read.
const READ: usize = 64 << 10;

fn acknowledgement() -> Vec<u8> {
    [msg::command_complete("LISTEN"), msg::ready(b'I')].concat()
}

fn begins() -> [Step; 3] {
    [Step::startup(), Step::login_ok(), Step::expect_query("LISTEN \"ledger\"")]
}

/// Restores a connection with a session whose server sends in one write: the acknowledgement of LISTEN, these bytes, and
/// a notification. Returns the events from the restore on.
fn events_of_a_restore(between: Vec<u8>) -> Vec<Event> {
    let asked = Arc::new(AtomicBool::new(false));
    let (respond, gate) = Step::gate();
    let (responded, is_done) = Step::mark();
    let is_asked = Step::run("report the request", {
        let asked = Arc::clone(&asked);
        move |_| {
            asked.store(true, SeqCst);
            Ok(())
        }
    });
    let first = begins().into_iter().chain([Step::send([acknowledgement()]), Step::close()]).collect();
    let all = [acknowledgement(), between, msg::notification(7, "ledger", "the first")].concat();
    let second = begins().into_iter().chain([is_asked, gate, Step::send([all]), is_done, Step::serve()]).collect();
    let peer = UnixPeer::play_each(vec![first, second]);
    let mut nm = NotificationManager::new([listener(&peer.url())]).reconnect(backoff());

    let begun = Instant::now();
    while !asked.load(SeqCst) {
        assert!(begun.elapsed() < LIMIT, "LISTEN is not requested: {nm:?}");
        match nm.try_next_event() {
            Poll::Pending => std::thread::sleep(Duration::from_millis(1)),
            Poll::Ready(event) => assert!(matches!(event, Some(Event::Disconnected(..))), "{event:?}"),
        }
    }
    // All bytes have arrived when the loop polls the socket.
    respond.open();
    responded.wait();
    nm.set_timeout(Duration::from_secs(2));
    let mut events = Vec::new();
    while events.len() < 2 {
        events.push(nm.next_event().expect("the loop continues"));
    }
    drop(nm);
    peer.finish();
    events
}

fn assert_gap_then_notification(events: &[Event]) {
    let [Event::Restored(_, gap), Event::Notifies(_, batch)] = events else { panic!("{events:?}") };
    assert_eq!(gap.channels(), ["ledger".into()]);
    assert_eq!(batch.iter().map(|n| n.payload().into_owned()).collect::<Vec<_>>(), ["the first"]);
}

#[test]
fn m14_notifications_that_arrived_with_the_acknowledgement_follow_the_gap() {
    assert_gap_then_notification(&events_of_a_restore(Vec::new()));
}

#[test]
fn m14_notifications_left_unread_by_the_read_of_the_acknowledgement_follow_the_gap() {
    let notice = msg::notice("NOTICE", "00000", &"x".repeat(8_000));
    assert_gap_then_notification(&events_of_a_restore(notice.repeat(READ.div_ceil(notice.len()))));
}

#[test]
fn m13_a_list_of_channels_that_a_slow_server_reads_in_parts_is_sent_completely() {
    let channels: Vec<_> = (0..TOO_MUCH / 60).map(|n| format!("{n:0>60}")).collect();
    let (read_on, gate) = Step::gate();
    let peer = UnixPeer::play(vec![
        Step::startup(),
        Step::login_ok(),
        gate,
        Step::expect_any_query(),
        Step::send([acknowledgement()]),
        Step::serve(),
    ]);
    let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(300));
    let id = nm.dial(peer.url(), &channels).unwrap();
    let mut read_on = Some(read_on);
    let begun = Instant::now();
    loop {
        match nm.next_event().expect("the loop continues") {
            // By now the client has filled the socket's buffer.
            Event::Idle => read_on.take().into_iter().for_each(Gate::open),
            Event::Opened(opened) => break assert_eq!(opened, id),
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < 2 * LIMIT, "{nm:?}");
    }
    drop(nm);
    let queries = peer.finish()[0].queries();
    assert_eq!(queries.iter().map(|sql| sql.matches("LISTEN").count()).sum::<usize>(), channels.len());
}
