//! What a connection holds that has nothing to say.

use std::time::Duration;

use allocation_counter::measure;
use notifyman::{Backoff, NotificationManager};

use crate::server::Server;

/// The bytes that so many idle connections hold.
fn held(server: &Server, connections: usize, recovers: bool) -> i64 {
    let mut kept = None;
    let counted = measure(|| {
        let mut lines = Vec::new();
        let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(1));
        if recovers {
            nm = nm.reconnect(Backoff::default()).heartbeat(Duration::from_secs(600), Duration::from_secs(5));
        }
        for _ in 0..connections {
            let (db, line) = server.open();
            nm.insert(db);
            allocation_counter::opt_out(|| lines.push(line));
        }
        assert!(nm.next().unwrap().is_none(), "they are idle");
        kept = Some((nm, lines));
    });
    counted.bytes_current
}

#[test]
fn an_idle_connection_holds_little() {
    rlimit::increase_nofile_limit(8192).unwrap();
    let server = Server::start();
    for recovers in [false, true] {
        let each = (held(&server, 2_048, recovers) - held(&server, 1_024, recovers)) / 1_024;
        println!("{each} bytes a connection, recovering: {recovers}");
        //ASSERT
    }
}
