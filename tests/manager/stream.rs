//! The events of a manager as a stream.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::{FusedStream, Stream};
use notifyman::{Backoff, Connection, Error, Event, EventStream, NotificationManager};

use super::fake::{Fake, number};
use super::support::*;
use crate::support::block_on::block_on;

/// Returns the next event other than an idle event.
fn next(events: &mut EventStream) -> Option<Event> {
    block_on(async {
        loop {
            match events.recv().await {
                Some(Event::Idle) => {}
                event => return event,
            }
        }
    })
}

fn stream(connections: impl IntoIterator<Item = Connection>) -> EventStream {
    NotificationManager::new(connections).into_stream().unwrap()
}

#[test]
fn m20_a_stream_can_be_sent_and_moved_and_its_events_too() {
    fn is_send<T: Send + 'static>() {}
    fn is_stream<T: FusedStream<Item = Event> + Send + Unpin + std::fmt::Debug + 'static>() {}
    fn future_is_send<'s>(events: &'s mut EventStream) -> impl Future<Output = Option<Event>> + Send + 's {
        events.recv()
    }
    is_stream::<EventStream>();
    is_send::<Event>();
    let mut events = stream([]);
    assert!(block_on(future_is_send(&mut events)).is_none());
}

#[test]
fn m20_events_come_in_order_and_the_handle_controls_the_manager() {
    let channel = channel();
    let mut nm = NotificationManager::new([]);
    let id = nm.dial(server().url(), [&channel]).unwrap();
    let mut events = nm.into_stream().unwrap();
    let handle = events.handle();
    assert!(matches!(next(&mut events), Some(Event::Opened(opened)) if opened == id));
    for payload in ["1", "2", "3"] {
        block_on(handle.notify(id, &channel, payload)).unwrap();
    }
    let mut received = Vec::new();
    while received.len() < 3 {
        match next(&mut events) {
            Some(Event::Notifies(from, batch)) if from == id => received.extend(payloads(&batch)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, ["1", "2", "3"]);
    let other = block_on(handle.dial(server().url(), [&channel])).unwrap();
    assert!(matches!(next(&mut events), Some(Event::Opened(opened)) if opened == other));
    assert!(block_on(handle.remove(other)).is_ok());
    assert_eq!(handle.stats().connections, 1);
}

#[test]
fn m20_a_stream_ends_when_the_manager_does_and_stays_ended() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    line.notify("last");
    let drained = NotificationManager::new([db]).timeout(Duration::ZERO).into_stream().unwrap();
    let stopped = NotificationManager::new([]).park_when_empty(true).into_stream().unwrap();
    stopped.handle().stop();
    for (mut events, expected) in [(stream([]), 0), (drained, 1), (stopped, 0)] {
        assert!(!events.is_terminated());
        for _ in 0..expected {
            assert!(matches!(next(&mut events), Some(Event::Notifies(..))));
        }
        for _ in 0..3 {
            assert!(next(&mut events).is_none());
            assert!(events.is_terminated());
        }
        let mut ticket = events.handle().set_timeout(None);
        assert!(matches!(ticket.wait(LIMIT), Err(Error::Stopped)), "the manager was dropped before the end");
    }
}

#[test]
fn m20_a_loss_and_the_gap_are_events_and_a_lost_connection_can_be_opened_again() {
    let channel = channel();
    let backoff = Backoff::default().first(Duration::from_millis(1));
    let db = listener(&channel);
    let pid = db.pid();
    let mut events = NotificationManager::new([db]).reconnect(backoff).into_stream().unwrap();
    terminate(pid);
    assert!(matches!(next(&mut events), Some(Event::Disconnected(..))));
    let Some(Event::Restored(id, gap)) = next(&mut events) else { panic!("no gap") };
    assert_eq!((&*gap.channels()[0], gap.epoch()), (&*channel, 1));

    let db = listener(&channel);
    let pid = db.pid();
    let mut events = NotificationManager::new([db]).park_when_empty(true).into_stream().unwrap();
    terminate(pid);
    assert!(matches!(next(&mut events), Some(Event::Lost(lost, _)) if lost == id));
    assert_eq!(events.handle().stats().garbage, 0, "only the stream's thread could take it");
    block_on(events.handle().dial(server().url(), [&channel])).unwrap();
    assert!(matches!(next(&mut events), Some(Event::Opened(_))));
}

/// The server sends more than the limit while the task takes nothing, and is never kept from sending.
#[test]
fn m20_a_slow_task_does_not_stop_the_reading_and_what_it_misses_is_reported() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(2);
    let mut events = NotificationManager::new(connections).into_stream_within(1 << 20).unwrap();
    let handle = events.handle();
    lines[1].notify("quiet");
    until("the quiet connection is read", || handle.stats().notifications == 1);
    let mut sent = 0;
    until("the server can send", || {
        sent = lines[0].flood();
        sent > 2000
    });
    until("everything is read", || handle.stats().notifications == sent as u64 + 1);
    let (mut received, mut reported, mut last) = (0, 0, None);
    let mut quiet = 0;
    while received + reported < sent || quiet == 0 {
        match next(&mut events) {
            Some(Event::Notifies(_, batch)) => {
                for n in &batch {
                    if n.payload() == "quiet" {
                        quiet += 1;
                        continue;
                    }
                    let number = number(&n.payload());
                    assert!(last < Some(number), "{number} after {last:?}");
                    (last, received) = (Some(number), received + 1);
                }
            }
            Some(Event::Restored(_, gap)) => {
                assert_eq!(gap.channels(), ["c".into()]);
                match gap.cause() {
                    Error::TooSlow { dropped } => reported += *dropped as usize,
                    cause => panic!("{cause}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(reported > 1000, "{received} received, {reported} reported");
    assert_eq!((received + reported, quiet), (sent, 1), "a quiet connection loses nothing");
}

#[test]
fn m20_a_dropped_stream_closes_the_sessions_and_does_not_wait() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let mut events = stream([db]);
    line.notify("1");
    assert!(matches!(next(&mut events), Some(Event::Notifies(..))));
    let handle = events.handle();
    let begin = Instant::now();
    drop(events);
    assert!(begin.elapsed() < LIMIT / 4);
    until("the session is closed", || !line.is_open());
    until("the manager is dropped", || matches!(handle.set_timeout(None).wait(LIMIT), Err(Error::Stopped)));
}

#[test]
fn m20_dropped_futures_lose_no_event() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let mut events = stream([db]);
    let mut received = Vec::new();
    for sent in 0..50 {
        line.notify(&sent.to_string());
        // Polled once and dropped, whether it is ready or not.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Some(Event::Notifies(_, batch))) = pin!(events.recv()).poll(&mut context) {
            received.extend(payloads(&batch));
        }
        if let Poll::Ready(Some(Event::Notifies(_, batch))) = Pin::new(&mut events).poll_next(&mut context) {
            received.extend(payloads(&batch));
        }
    }
    while received.len() < 50 {
        match next(&mut events) {
            Some(Event::Notifies(_, batch)) => received.extend(payloads(&batch)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn m20_an_idle_event_comes_when_everything_was_taken() {
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let mut events = NotificationManager::new([db]).timeout(Duration::from_millis(5)).into_stream().unwrap();
    let handle = events.handle();
    line.notify("1");
    until("some idle events", || handle.stats().notifications == 1 && handle.stats().turns > 20);
    let taken = block_on(async { [events.recv().await, events.recv().await] });
    assert!(matches!(taken, [Some(Event::Notifies(..)), Some(Event::Idle)]), "{taken:?}");
    let mut context = Context::from_waker(Waker::noop());
    let again = Pin::new(&mut events).poll_next(&mut context);
    assert!(again.is_pending() || matches!(again, Poll::Ready(Some(Event::Idle))), "{again:?}");
}
