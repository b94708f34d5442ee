//! The memory of an idle subscriber of a notifier.

use notifyman::Notifier;

use crate::counted;

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
