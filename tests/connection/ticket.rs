//! Opening connections without waiting.

use std::fs;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use notifyman::{Connection, Error};

use crate::support::block_on::block_on;
use crate::support::server::{LIMIT, ask, config, eventually, session, utf8};

/// Returns the number of this process's threads that open connections.
#[cfg(target_os = "linux")]
fn connecting_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| "notifyman connect".starts_with(name.trim())).count()
}

#[test]
fn c19_many_connections_are_opened_on_one_thread_which_ends() {
    let begin = Instant::now();
    let tickets: Vec<_> = (0..20).map(|_| Connection::connect_ticket(config(&utf8().url()))).collect();
    assert!(begin.elapsed() < LIMIT / 4);
    // One works, and others may be ending.
    #[cfg(target_os = "linux")]
    assert!(connecting_threads() <= 3);
    for ticket in tickets {
        assert_eq!(ask(&mut block_on(ticket).unwrap(), "SELECT 1"), "1");
    }
    #[cfg(target_os = "linux")]
    eventually("the thread ends", || connecting_threads() == 0);
    // Another one starts.
    drop(Connection::connect_ticket(config(&utf8().url())).wait(LIMIT).unwrap());
}

#[test]
fn c19_an_attempt_that_hangs_delays_no_other() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let hanging = config(&format!("host=127.0.0.1 port={port} user=any connect_timeout=2 sslmode=disable"));
    let hanging = Connection::connect_ticket(hanging);
    let begin = Instant::now();
    for _ in 0..3 {
        drop(block_on(Connection::connect_ticket(config(&utf8().url()))).unwrap());
    }
    assert!(begin.elapsed().as_millis() < 1_500, "{:?}", begin.elapsed());
    let error = block_on(hanging).unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[test]
fn c19_the_ticket_has_the_errors_of_connect() {
    let error = block_on(Connection::connect_ticket("host=db port=70000")).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    let error = block_on(Connection::connect_ticket(config("host=127.0.0.1 port=1 user=any"))).unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error}");
}

#[test]
fn c19_the_connection_of_a_dropped_ticket_is_closed() {
    let name = format!("dropped ticket {}", std::process::id());
    drop(Connection::connect_ticket(config(&utf8().url()).application_name(&name)));
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    // Requests are begun in their order.
    drop(block_on(Connection::connect_ticket(config(&utf8().url()))).unwrap());
    let mut db = session();
    eventually("no session is left", || ask(&mut db, &count) == "0");
}

/// A waker is code of the program: its panic harms no other attempt.
#[test]
fn c19_a_waker_that_panics_harms_no_other_ticket() {
    struct Panicking;
    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics, on purpose");
        }
    }
    let mut ticket = Connection::connect_ticket(config(&utf8().url()));
    let waker = Waker::from(Arc::new(Panicking));
    let is_ready = std::future::Future::poll(pin!(&mut ticket), &mut Context::from_waker(&waker)).is_ready();
    drop(block_on(Connection::connect_ticket(config(&utf8().url()))).unwrap());
    if !is_ready {
        drop(ticket.wait(LIMIT).unwrap());
    }
}
