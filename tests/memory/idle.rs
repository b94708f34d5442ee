//! What a connection holds that has nothing to say.

use std::time::Duration;

use notifyman::{Backoff, NotificationManager};

use crate::server::{CHANNEL, Server};
use crate::{beside, counted};

/// What has become of the connections that are counted.
#[derive(PartialEq)]
enum Life {
    Plain,
    /// With reconnect and heartbeat.
    Guarded,
    /// The same, and each of them was lost and is back.
    BroughtBack,
}

/// The bytes that each of many idle connections holds.
fn held_by_each(life: &Life, channel: impl Fn(usize) -> String) -> i64 {
    rlimit::increase_nofile_limit(8192).unwrap();
    let server = Server::start();
    let held = |connections: usize| {
        let (kept, counted) = counted(|| {
            let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(1));
            if *life != Life::Plain {
                let backoff = Backoff::default().first(Duration::from_millis(1)).per_second(100_000);
                nm = nm.reconnect(backoff).heartbeat(Duration::from_secs(600), Duration::from_secs(5));
            }
            let mut lines = beside(|| Vec::with_capacity(connections));
            for n in 0..connections {
                let channel = beside(|| channel(n));
                let (db, line) = server.open(&channel);
                beside(|| drop(channel));
                nm.insert(db);
                lines.push(line);
            }
            assert!(nm.next().unwrap().is_none(), "they are idle");
            if *life == Life::BroughtBack {
                beside(|| lines.clear());
                let mut back = 0;
                while back < connections {
                    back += usize::from(nm.next().unwrap().is_some_and(|(_, batch)| batch.gap().is_some()));
                    lines.extend(beside(|| server.lines()));
                }
            }
            (nm, lines)
        });
        drop(kept);
        counted.bytes_current
    };
    // What the thread keeps for its calls it has from now on.
    held(1);
    // Powers of two, since that is how lists grow.
    (held(2_048) - held(1_024)) / 1_024
}

#[test]
fn an_idle_connection_holds_less_than_256_bytes() {
    let each = held_by_each(&Life::Plain, |_| CHANNEL.into());
    println!("{each} bytes");
    assert!(each <= 224, "{each} bytes");
}

#[test]
fn what_recovery_remembers_is_among_them() {
    let each = held_by_each(&Life::Guarded, |_| CHANNEL.into());
    println!("{each} bytes");
    assert!(each <= 240, "{each} bytes");
}

#[test]
fn also_after_it_was_lost_and_brought_back() {
    let each = held_by_each(&Life::BroughtBack, |_| CHANNEL.into());
    println!("{each} bytes");
    assert!(each <= 256, "{each} bytes");
}

#[test]
fn so_are_channels_that_no_other_connection_listens_to() {
    let each = held_by_each(&Life::Guarded, |n| format!("channel_{n:08}"));
    println!("{each} bytes");
    assert!(each <= 256, "{each} bytes");
}
