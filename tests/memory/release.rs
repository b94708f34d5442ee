//! Memory is released: after a burst, and while received notifications are kept.

use std::time::Duration;

use notifyman::{Batch, Notification, NotificationManager};

use crate::server::{CHANNEL, Server};
use crate::{counted, msg, uncounted};

/// Receives everything that is pending, and passes the batches to `keep`.
fn receive(nm: &mut NotificationManager, mut keep: impl FnMut(Batch)) -> usize {
    let mut received = 0;
    while let Some(Some((_, batch))) = nm.next() {
        received += batch.len();
        keep(batch);
    }
    received
}

#[test]
fn after_a_burst_connections_hold_no_more_than_before() {
    let server = Server::start();
    let (connections, mut ends) = server.open_many(300);
    let mut nm = NotificationManager::new(connections).timeout(Duration::ZERO);
    ends.iter_mut().for_each(|end| end.send(&msg::notification(1, CHANNEL, "warm")));
    receive(&mut nm, drop);
    // The cut is inside a frame, so that each connection keeps a partial frame for a while.
    let burst = msg::notification(1, CHANNEL, &"x".repeat(500)).repeat(300);
    let (first, rest) = burst.split_at(burst.len() / 2 + 100);
    let (most, counted) = counted(|| {
        ends.iter_mut().for_each(|end| end.send(first));
        receive(&mut nm, drop);
        let (received, counted) = counted(|| {
            ends.iter_mut().for_each(|end| end.send(rest));
            receive(&mut nm, drop)
        });
        assert_eq!(received, 300 * 150);
        -counted.bytes_current
    });
    assert!(most > 300 * 100, "each connection must keep a partial frame: {most}");
    // The loop keeps up to 64 spare buffers for partial frames.
    assert!(counted.bytes_current < 64 * 700, "{counted:?}");
}

#[test]
fn ten_thousand_small_batches_that_are_kept_use_about_their_own_size() {
    let frame = msg::notification(1, CHANNEL, "a payload of about thirty bytes");
    let server = Server::start();
    let (connections, mut ends) = server.open_many(100);
    let mut nm = NotificationManager::new(connections).timeout(Duration::ZERO);
    let mut batches: Vec<Batch> = Vec::with_capacity(10_000);
    let mut notifications: Vec<Notification> = Vec::with_capacity(10_000);
    for keeps_batches in [true, false] {
        let (received, counted) = counted(|| {
            let mut received = 0;
            for _ in 0..100 {
                ends.iter_mut().for_each(|end| end.send(&frame));
                received += receive(&mut nm, |batch| match keeps_batches {
                    true => batches.push(batch),
                    false => notifications.extend(batch.into_iter().map(Notification::detach)),
                });
            }
            received
        });
        assert_eq!(received, 10_000);
        let each = counted.bytes_current / 10_000;
        // A batch keeps its frame and two counts; a notification as short as this is stored inline.
        let own = if keeps_batches { frame.len() as i64 + 16 + 8 } else { 0 };
        // The loop's buffer is shared by all.
        assert!(each <= own + 7, "{each} bytes for {}", frame.len());
    }
    assert!(size_of::<Batch>() <= 40 && size_of::<Notification>() <= 64);
    uncounted(|| drop((batches, notifications)));
}
