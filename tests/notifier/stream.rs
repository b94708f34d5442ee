//! Streams of deliveries, and starting and stopping without waiting.

use std::future::{Future, IntoFuture as _};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use futures_core::{FusedStream, Stream as _};
use notifyman::notifier::{NotifierStream, OwnedDelivery, Policy, Queue, Reason, State};
use notifyman::{Connection, Error, Notifier};

use super::support::*;
use crate::support::block_on::block_on;

/// Starts a notifier for the shared server, with ids that the notifier makes.
fn start() -> Notifier {
    Notifier::new(config()).unwrap()
}

fn open(notifier: &Notifier, channel: &str) -> NotifierStream {
    block_on(notifier.stream(channel).into_future()).unwrap()
}

/// Returns the next delivery as text: see [`text`]; "end" at the end.
fn next(stream: &mut NotifierStream) -> String {
    match block_on(stream.recv()) {
        None => "end".to_owned(),
        Some(OwnedDelivery::Notification(n)) => n.payload().text().into_owned(),
        Some(OwnedDelivery::Missed(missed)) => {
            let reason = match missed.reason() {
                Reason::Restored(_) => "restored",
                Reason::Overflow => "overflow",
                Reason::Stopped => "stopped",
                Reason::Disconnected(_) => "disconnected",
                Reason::Unsubscribed => "unsubscribed",
                Reason::Opened => "opened",
                other => panic!("{other:?}"),
            };
            format!("[{reason} {}]", missed.dropped())
        }
    }
}

fn take(stream: &mut NotifierStream, n: usize) -> Vec<String> {
    (0..n).map(|_| next(stream)).collect()
}

#[test]
fn n13_streams_and_deliveries_can_be_sent_and_kept() {
    fn is_send<T: Send + 'static>(_: &T) {}
    fn is_stream<T: FusedStream<Item = OwnedDelivery> + Send + Unpin + std::fmt::Debug + 'static>(_: &T) {}
    let (notifier, channel) = (start(), new_channel());
    let request = notifier.stream(&channel);
    is_send(&request);
    let opening = request.into_future();
    is_send(&opening);
    let mut stream = block_on(opening).unwrap();
    is_stream(&stream);
    fn future_is_send(stream: &mut NotifierStream) -> impl Future<Output = Option<OwnedDelivery>> + Send + '_ {
        stream.recv()
    }
    let sent = notifier.notify(&channel, "42").wait(LIMIT);
    sent.unwrap();
    let delivery = block_on(future_is_send(&mut stream)).unwrap();
    let kept = std::thread::spawn(move || (delivery.clone(), delivery)).join().unwrap().1;
    assert_eq!((kept.channel(), kept.to_string()), (&*channel, format!("{channel}: 42")));
}

#[test]
fn n13_a_stream_receives_several_channels_in_order_and_each_stream_everything() {
    let (notifier, channels) = (start(), [new_channel(), new_channel()]);
    let mut both = block_on(notifier.stream(&channels[0]).with_channels(&channels).into_future()).unwrap();
    let mut second = open(&notifier, &channels[1]);
    let mut db = session();
    for (channel, payload) in [(0, "1"), (1, "2"), (0, "3"), (1, "4")] {
        db.notify(&channels[channel], payload).unwrap();
    }
    assert_eq!(take(&mut both, 4), ["1", "2", "3", "4"]);
    assert_eq!(take(&mut second, 2), ["2", "4"]);
    assert_eq!(notifier.stats().subscribers, 2);
}

#[test]
fn n13_the_queue_of_a_stream_has_the_policy_of_a_queue() {
    let cases = [
        (Policy::DropOldest, "[overflow 5],6,7,1", 5),
        (Policy::DropNewest, "1,2,3,[overflow 5]", 5),
        (Policy::Coalesce, "[overflow 5],6,7,1", 5),
        (Policy::Disconnect, "1,2,3,[unsubscribed 5],end,end", 5),
    ];
    for (policy, expected, dropped) in cases {
        let (notifier, channel) = (start(), new_channel());
        let request = notifier.stream(&channel).queue(Queue::new(policy).items(3));
        let mut stream = block_on(request.into_future()).unwrap();
        send(&mut session(), &channel, ["1", "2", "3", "4", "5", "6", "7", "1"]);
        // A drop is counted after the notification has reached the queue.
        eventually("everything is in the queue", || {
            let stats = notifier.stats();
            (stats.delivered, stats.dropped) == (8, dropped)
        });
        let expected: Vec<_> = expected.split(',').collect();
        assert_eq!(take(&mut stream, expected.len()), expected, "{policy:?}");
        assert_eq!(notifier.channels().is_empty(), policy == Policy::Disconnect, "{policy:?}");
        assert_eq!(stream.is_terminated(), policy == Policy::Disconnect, "{policy:?}");
    }
}

#[test]
fn n13_equal_notifications_are_folded_if_that_is_the_policy() {
    let (notifier, channel) = (start(), new_channel());
    let request = notifier.stream(&channel).queue(Queue::new(Policy::Coalesce));
    let mut stream = block_on(request.into_future()).unwrap();
    send(&mut session(), &channel, ["a", "b", "a", "a"]);
    eventually("everything is in the queue", || notifier.stats().folded == 2);
    let folded = [(); 2].map(|()| match block_on(stream.recv()) {
        Some(OwnedDelivery::Notification(n)) => (n.payload().text().into_owned(), n.folded()),
        other => panic!("{other:?}"),
    });
    assert_eq!(folded, [("b".to_owned(), 0), ("a".to_owned(), 2)]);
}

/// A task that is slower than its channel at times: sent = delivered + reported.
#[test]
fn n13_each_notification_is_delivered_or_reported_to_a_slow_task() {
    const SENT: usize = 20_000;
    let (notifier, channel) = (start(), new_channel());
    let request = notifier.stream(&channel).queue(Queue::new(Policy::DropOldest).items(50));
    let mut stream = block_on(request.into_future()).unwrap();
    let sender = std::thread::spawn(move || {
        let mut db = session();
        for first in (0..SENT).step_by(500) {
            db.notify_many((first..first + 500).map(|n| (&channel, n.to_string()))).unwrap();
        }
    });
    let (mut delivered, mut reported, mut last) = (0, 0, None);
    while delivered + reported < SENT {
        match block_on(stream.recv()).unwrap() {
            OwnedDelivery::Notification(n) => {
                let number: usize = n.payload().text().parse().unwrap();
                assert!(last < Some(number), "{number} after {last:?}");
                let missing = number - last.map_or(0, |last| last + 1);
                assert!(missing == 0 || reported > 0, "a loss is reported before the next notification");
                last = Some(number);
                delivered += 1;
                if delivered % 20 == 0 {
                    std::thread::yield_now();
                }
            }
            OwnedDelivery::Missed(missed) => reported += missed.dropped() as usize,
        }
    }
    sender.join().unwrap();
    assert_eq!((delivered + reported, last), (SENT, Some(SENT - 1)));
    assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn n13_a_dropped_stream_is_unsubscribed_and_a_request_subscribes_nothing() {
    let (notifier, channel) = (start(), new_channel());
    drop(notifier.stream(&channel));
    drop(notifier.stream(&channel).into_future());
    assert!(notifier.channels().is_empty());
    {
        let mut opening = pin!(notifier.stream(&channel).into_future());
        // The server may have acknowledged the channel already, and then this contains the stream.
        let _polled = opening.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(notifier.channels(), [&*channel]);
    }
    assert!(notifier.channels().is_empty());
    let (first, second) = (open(&notifier, &channel), open(&notifier, &channel));
    drop(first);
    assert_eq!(notifier.channels(), [&*channel]);
    drop(second);
    assert!(notifier.channels().is_empty());
}

#[test]
fn n13_a_stream_keeps_its_notifier_running_and_ends_with_its_channel() {
    let (notifier, channel) = (start(), new_channel());
    let mut stream = open(&notifier, &channel);
    let mut other = open(&notifier, &new_channel());
    notifier.remove_channel(&channel).unwrap();
    assert_eq!(take(&mut stream, 2), ["end", "end"]);
    assert!(stream.is_terminated() && !other.is_terminated());
    let left = notifier.channels();
    drop(notifier);
    send(&mut session(), &left[0], ["1"]);
    assert_eq!(next(&mut other), "1");
}

#[test]
fn n13_a_stream_outlives_a_stop_and_reports_it() {
    let (notifier, channel) = (start(), new_channel());
    let mut stream = open(&notifier, &channel);
    block_on(notifier.stop_ticket()).unwrap();
    assert!(!notifier.is_running());
    send(&mut session(), &channel, ["while it is stopped"]);
    block_on(notifier.start_ticket()).unwrap();
    assert!(matches!(notifier.state(), State::Listening));
    send(&mut session(), &channel, ["1"]);
    assert_eq!(take(&mut stream, 2), ["[stopped 0]", "1"]);
}

#[test]
fn n13_a_loss_and_the_gap_are_reported() {
    let (notifier, channel) = (start(), new_channel());
    let mut stream = open(&notifier, &channel);
    let mut db = session();
    notifier.notify(&channel, "pid").wait(LIMIT).unwrap();
    let Some(OwnedDelivery::Notification(n)) = block_on(stream.recv()) else { panic!("no notification") };
    ask(&mut db, &format!("SELECT pg_terminate_backend({})", n.pid()));
    let mut reports = vec![next(&mut stream)];
    if reports[0] == "[disconnected 0]" {
        reports.push(next(&mut stream));
    }
    assert_eq!(reports.last().unwrap(), "[restored 0]");
    send(&mut db, &channel, ["1"]);
    assert_eq!(next(&mut stream), "1");
}

#[test]
fn n13_a_channel_that_cannot_be_subscribed_to_subscribes_nothing() {
    let (notifier, channel) = (start(), new_channel());
    for wrong in ["", "PGNOTIFIER"] {
        let request = notifier.stream(&channel).with_channels([wrong]);
        assert!(matches!(block_on(request.into_future()), Err(Error::Value(_))), "{wrong:?}");
        assert!(notifier.channels().is_empty());
    }
    block_on(notifier.stop_ticket()).unwrap();
    assert!(matches!(block_on(notifier.stream(&channel).into_future()), Err(Error::NotRunning)));
}

#[test]
fn n13_a_stream_can_have_an_id_of_the_program() {
    let (notifier, channel) = (notifier(), new_channel());
    let mut stream = block_on(notifier.stream_as(7, &channel).into_future()).unwrap();
    assert_eq!(notifier.subscriptions()[&channel], [7]);
    // Another callback takes the place of the stream, and is not unsubscribed by it.
    let (recorder, records) = recorder();
    notifier.subscribe(7, &channel, recorder.payloads()).unwrap();
    assert_eq!(next(&mut stream), "end");
    drop(stream);
    send(&mut session(), &channel, ["1"]);
    assert_eq!(records.next(), "1");
}

/// A task that is woken inside the callback of the stream.
struct BlockingWaker(Latch, std::sync::mpsc::Sender<()>);

impl Wake for BlockingWaker {
    fn wake(self: Arc<Self>) {
        let _ = self.1.send(());
        self.0.wait();
    }
}

#[test]
fn n13_a_stream_that_is_dropped_during_its_callback_leaves_the_callback_in_its_place() {
    let (notifier, channel) = (notifier(), new_channel());
    let mut stream = block_on(notifier.stream_as(7, &channel).into_future()).unwrap();
    let (latch, (woken, is_woken)) = (Latch::default(), std::sync::mpsc::channel());
    let waker = Waker::from(Arc::new(BlockingWaker(latch.clone(), woken)));
    assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker)).is_pending());
    send(&mut session(), &channel, ["1"]);
    is_woken.recv_timeout(LIMIT).unwrap();
    // Its callback is still running.
    let (recorder, records) = recorder();
    notifier.subscribe(7, &channel, recorder.payloads()).unwrap();
    drop(stream);
    latch.open();
    send(&mut session(), &channel, ["2"]);
    assert_eq!(records.next(), "2");
}

#[test]
fn n13_starting_and_stopping_do_not_wait() {
    let notifier = Notifier::builder(config()).unwrap().build::<u32>();
    let channel = new_channel();
    block_on(notifier.start_ticket()).unwrap();
    let (latch, (recorder, records)) = (Latch::default(), recorder());
    notifier.subscribe(1, &channel, blocking(&latch, &recorder)).unwrap();
    send(&mut session(), &channel, ["1"]);
    assert_eq!(records.next(), "blocked");
    let begin = Instant::now();
    let mut stopped = notifier.stop_ticket();
    assert!(begin.elapsed() < LIMIT / 4 && !notifier.is_running());
    assert!(stopped.try_get().is_none(), "a callback still runs");
    latch.open();
    block_on(stopped).unwrap();
    assert!(matches!(notifier.state(), State::Stopped));

    let unreachable = "host=127.0.0.1 port=1 user=any connect_timeout=5";
    let notifier = Notifier::builder(unreachable).unwrap().build::<u32>();
    assert!(matches!(block_on(notifier.start_ticket()), Err(Error::Connect(_))));
}

/// A callback can be replaced by tickets: in it, waiting would never return.
#[test]
fn n13_a_callback_can_start_and_stop_its_notifier_by_tickets() {
    let (notifier, channel) = (notifier(), new_channel());
    let (clone, (sender, receiver)) = (notifier.clone(), std::sync::mpsc::channel());
    notifier
        .subscribe(1, &channel, move |_| {
            let mut stop = clone.stop_ticket();
            let waited = stop.wait(Duration::from_millis(1));
            sender.send((stop, waited)).unwrap();
        })
        .unwrap();
    send(&mut session(), &channel, ["1"]);
    let (stop, waited) = receiver.recv_timeout(LIMIT).unwrap();
    assert!(matches!(waited, Err(Error::WouldDeadlock)), "{waited:?}");
    block_on(stop).unwrap();
}

#[test]
fn n13_a_delivery_can_be_kept_by_a_callback() {
    let (notifier, channel) = (notifier(), new_channel());
    let (sender, receiver) = std::sync::mpsc::channel();
    notifier.subscribe(1, &channel, move |delivery| sender.send(delivery.to_owned()).unwrap()).unwrap();
    let mut db: Connection = session();
    send(&mut db, &channel, ["42"]);
    let OwnedDelivery::Notification(n) = receiver.recv_timeout(LIMIT).unwrap() else { panic!("a report") };
    assert_eq!((n.channel(), &*n.payload().text(), n.pid(), n.folded()), (&*channel, "42", db.pid(), 0));
    notifier.stop();
    notifier.start().unwrap();
    let missed = receiver.recv_timeout(LIMIT).unwrap();
    assert!(matches!(&missed, OwnedDelivery::Missed(missed) if matches!(missed.reason(), Reason::Stopped)));
    assert_eq!(missed.to_string(), format!("{channel}: notifications may be missing: the notifier was stopped"));
}
