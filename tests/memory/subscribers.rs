//! The memory of the subscribers of a notifier: of an idle one, and of what waits for slow ones.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::Notifier;
use notifyman::notifier::{Policy, Queue};

use crate::server::{CHANNEL, Server};
use crate::{counted, msg};

/// Returns the number of bytes that each of many idle subscribers of one channel holds, beyond its callback.
fn held_by_each(subscribers: u64) -> u64 {
    let n = Notifier::builder("host=localhost user=test").unwrap().autorun(false).build::<u64>();
    let ((), counted) = counted(|| {
        for id in 0..subscribers {
            n.subscribe(id, "prices", |_| ()).unwrap();
        }
    });
    counted.bytes_current as u64 / subscribers
}

/// Some of these numbers are just above those at which a hash table doubles.
#[test]
fn an_idle_subscriber_of_one_channel_holds_at_most_256_bytes() {
    let held = [60_000, 70_000, 100_000, 115_000].map(|subscribers| (subscribers, held_by_each(subscribers)));
    println!("bytes by number of subscribers: {held:?}");
    assert!(held.iter().all(|(_, bytes)| *bytes <= 256), "{held:?}");
}

/// The number of subscribers, and that of the notifications that wait for each.
const SLOW: u64 = 300;
const WAITING: u64 = 9_000;

/// Has 9,000 notifications wait for 300 subscribers of some channels, which are served after a blocked one. Returns the number
/// of bytes that each holds after a call that moves notifications out of the logs of the channels.
fn held_by_each_slow(channels: &[&str], queue: Queue, call: impl FnOnce(&Notifier<u64>)) -> u64 {
    held_by_each_of(WAITING, channels, queue, call)
}

fn held_by_each_of(waiting: u64, channels: &[&str], queue: Queue, call: impl FnOnce(&Notifier<u64>)) -> u64 {
    let server = Server::start();
    let n = Notifier::builder(server.config()).unwrap().autorun(false).queue(queue).build::<u64>();
    let (release, blocked) = mpsc::channel::<()>();
    n.subscribe(0, CHANNEL, move |_| blocked.recv().unwrap_or(())).unwrap();
    for id in 1..=SLOW {
        channels.iter().for_each(|channel| n.subscribe(id, channel, |_| ()).unwrap());
    }
    n.start().unwrap();
    let mut end = server.end();
    let sent = (0..waiting).zip(channels.iter().cycle());
    let sent: Vec<_> = sent.map(|(id, channel)| msg::notification(1, channel, &format!("{id:0100}"))).collect();
    end.send(&sent.concat());
    let began = Instant::now();
    while n.stats().received < waiting {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", n.stats());
        thread::sleep(Duration::from_millis(1));
    }
    let ((), counted) = counted(|| call(&n));
    drop(release);
    n.stop();
    counted.bytes_current as u64 / (1 + SLOW)
}

#[test]
fn a_mute_does_not_copy_what_waits_for_each_subscriber() {
    let held = held_by_each_slow(&[CHANNEL], Queue::default(), |n| n.mute_channels([CHANNEL]).unwrap());
    assert!(held <= 16 * 1024, "{held} bytes for each subscriber");
}

#[test]
fn a_full_queue_does_not_copy_what_waits_for_each_subscriber() {
    let held = held_by_each_slow(&[CHANNEL], Queue::new(Policy::DropNewest).items(5_000), |n| {
        n.stats();
    });
    assert!(held <= 16 * 1024, "{held} bytes for each subscriber");
}

#[test]
fn a_mute_does_not_copy_what_waits_for_each_subscriber_of_two_channels() {
    let channels = [CHANNEL, "another_channel_"];
    let held = held_by_each_slow(&channels, Queue::default(), |n| n.mute_channels([CHANNEL]).unwrap());
    assert!(held <= 16 * 1024, "{held} bytes for each subscriber");
}

#[test]
fn a_mute_takes_little_memory_for_each_subscriber_for_which_a_notification_waits() {
    let held = held_by_each_of(1, &[CHANNEL], Queue::default(), |n| n.mute_channels([CHANNEL]).unwrap());
    println!("{held} bytes for each subscriber");
    assert!(held <= 400, "{held} bytes for each subscriber");
}
