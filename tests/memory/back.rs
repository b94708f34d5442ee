//! Memory goes back: what was needed for a burst, and what is kept of it.

use std::time::Duration;

use notifyman::{Batch, Notification, NotificationManager};

use crate::server::{CHANNEL, Server};
use crate::{beside, counted, msg};

/// Hears all there is, and lets `keep` have it.
fn hear(nm: &mut NotificationManager, mut keep: impl FnMut(Batch)) -> usize {
    let mut heard = 0;
    while let Some(Some((_, batch))) = nm.next() {
        heard += batch.len();
        keep(batch);
    }
    heard
}

#[test]
fn after_a_burst_on_all_they_hold_what_they_held_before() {
    let server = Server::start();
    let (connections, mut lines) = server.open_many(300);
    let mut nm = NotificationManager::new(connections).timeout(Duration::ZERO);
    lines.iter_mut().for_each(|line| line.say(&msg::notification(1, CHANNEL, "warm")));
    hear(&mut nm, drop);
    // Cut in the middle of a frame, so that each of them has a part to keep for a while.
    let burst = msg::notification(1, CHANNEL, &"x".repeat(500)).repeat(300);
    let (first, rest) = burst.split_at(burst.len() / 2 + 100);
    let (most, counted) = counted(|| {
        lines.iter_mut().for_each(|line| line.say(first));
        hear(&mut nm, drop);
        let (heard, counted) = counted(|| {
            lines.iter_mut().for_each(|line| line.say(rest));
            hear(&mut nm, drop)
        });
        assert_eq!(heard, 300 * 150);
        -counted.bytes_current
    });
    assert!(most > 300 * 100, "each had a part to keep: {most}");
    // The loop's own: spares for parts of frames, 64 at the most.
    assert!(counted.bytes_current < 64 * 700, "{counted:?}");
}

#[test]
fn ten_thousand_sparse_batches_that_are_kept_take_about_their_own_bytes() {
    let frame = msg::notification(1, CHANNEL, "a payload of about thirty bytes");
    let server = Server::start();
    let (connections, mut lines) = server.open_many(100);
    let mut nm = NotificationManager::new(connections).timeout(Duration::ZERO);
    let mut batches: Vec<Batch> = Vec::with_capacity(10_000);
    let mut notifications: Vec<Notification> = Vec::with_capacity(10_000);
    for keeps_batches in [true, false] {
        let (heard, counted) = counted(|| {
            let mut heard = 0;
            for _ in 0..100 {
                lines.iter_mut().for_each(|line| line.say(&frame));
                heard += hear(&mut nm, |batch| match keeps_batches {
                    true => batches.push(batch),
                    false => notifications.extend(batch.into_iter().map(Notification::detach)),
                });
            }
            heard
        });
        assert_eq!(heard, 10_000);
        let each = counted.bytes_current / 10_000;
        // A batch its frame and two counts; a notification as short as this lies where it is kept.
        let own = if keeps_batches { frame.len() as i64 + 16 + 8 } else { 0 };
        // And for all of them the loop's buffer.
        assert!(each <= own + 7, "{each} bytes for {}", frame.len());
    }
    assert!(size_of::<Batch>() <= 40 && size_of::<Notification>() <= 64);
    beside(|| drop((batches, notifications)));
}
