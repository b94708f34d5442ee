//! The memory of an idle connection.

use std::time::Duration;

use notifyman::{Backoff, NotificationManager};

use crate::server::{CHANNEL, Server};
use crate::{counted, uncounted};

/// The history of the connections that are counted.
#[derive(PartialEq)]
enum History {
    Plain,
    /// Recovery and heartbeat are enabled.
    Guarded,
    /// Like `Guarded`, and each connection was lost and restored.
    Restored,
}

/// Returns the number of bytes that each of many idle connections holds.
fn held_by_each(history: &History, channel: impl Fn(usize) -> String) -> i64 {
    rlimit::increase_nofile_limit(8192).unwrap();
    let server = Server::start();
    let held = |connections: usize| {
        let (kept, counted) = counted(|| {
            let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(1));
            if *history != History::Plain {
                let backoff = Backoff::default().first(Duration::from_millis(1)).per_second(100_000);
                nm = nm.reconnect(backoff).heartbeat(Duration::from_secs(600), Duration::from_secs(5));
            }
            let mut ends = uncounted(|| Vec::with_capacity(connections));
            for n in 0..connections {
                let channel = uncounted(|| channel(n));
                let (db, end) = server.open(&channel);
                uncounted(|| drop(channel));
                nm.insert(db);
                ends.push(end);
            }
            assert!(nm.next().unwrap().is_none(), "the connections must be idle");
            if *history == History::Restored {
                uncounted(|| ends.clear());
                let mut restored = 0;
                while restored < connections {
                    restored += usize::from(nm.next().unwrap().is_some_and(|(_, batch)| batch.gap().is_some()));
                    ends.extend(uncounted(|| server.ends()));
                }
            }
            (nm, ends)
        });
        drop(kept);
        counted.bytes_current
    };
    // The first run allocates what the thread keeps.
    held(1);
    // Powers of two, because lists grow by doubling.
    (held(2_048) - held(1_024)) / 1_024
}

#[test]
fn an_idle_connection_holds_less_than_256_bytes() {
    let each = held_by_each(&History::Plain, |_| CHANNEL.into());
    println!("{each} bytes");
    assert!(each <= 224, "{each} bytes");
}

#[test]
fn with_recovery_it_holds_less_than_256_bytes() {
    let each = held_by_each(&History::Guarded, |_| CHANNEL.into());
    println!("{each} bytes");
    assert!(each <= 240, "{each} bytes");
}

#[test]
fn after_a_restoration_it_holds_less_than_256_bytes() {
    let each = held_by_each(&History::Restored, |_| CHANNEL.into());
    println!("{each} bytes");
    assert!(each <= 256, "{each} bytes");
}

#[test]
fn with_a_channel_of_its_own_it_holds_less_than_256_bytes() {
    let each = held_by_each(&History::Guarded, |n| format!("channel_{n:08}"));
    println!("{each} bytes");
    assert!(each <= 256, "{each} bytes");
}
