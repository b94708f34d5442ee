//! C17: passwords that a function of the program computes for each attempt.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use notifyman::{Backoff, Config, Connection, Error, Event, NotificationManager};

use crate::support::server::{LIMIT, config, eventually, refused, refusing_port, start, utf8};
use crate::support::{Options, Peer, Step, msg};

/// A login with this password on a scripted server.
fn login_with(password: &str) -> Vec<Step> {
    vec![
        Step::startup(),
        Step::send([msg::auth_cleartext()]),
        Step::expect_body(b'p', [password.as_bytes(), b"\0"].concat()),
        Step::login_ok(),
    ]
}

/// Returns a configuration whose n-th password is `token n`.
fn with_tokens(config: Config) -> Config {
    let calls = AtomicUsize::new(0);
    config.password_with(move |_| Ok(format!("token {}", calls.fetch_add(1, SeqCst) + 1)))
}

/// A function that waits until it is released, and counts its calls.
#[derive(Clone, Default)]
struct Hanging(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Hanging {
    fn applied_to(&self, config: Config) -> Config {
        let hanging = self.clone();
        config.password_with(move |_| {
            let Hanging(shared) = &hanging;
            shared.0.lock().unwrap().1 += 1;
            let state = shared.1.wait_timeout_while(shared.0.lock().unwrap(), 2 * LIMIT, |(open, _)| !*open);
            assert!(state.unwrap().0.0, "the function was not released");
            Ok("anything".into())
        })
    }

    fn calls(&self) -> usize {
        self.0.0.lock().unwrap().1
    }

    fn release(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }
}

#[test]
fn c17_each_attempt_has_a_password_of_its_own() {
    let first = login_with("token 1").into_iter().chain([Step::close()]).collect();
    let second = login_with("token 2").into_iter().chain([Step::serve()]).collect();
    let peer = Peer::play_each(vec![first, second]);
    let mut nm = NotificationManager::new([]).reconnect(Backoff::default().first(Duration::from_millis(5)));
    nm.dial(with_tokens(config(&peer.url())), ["a"]).unwrap();
    // The first session ends before it has listened.
    assert!(matches!(nm.next_event(), Some(Event::Disconnected(..))));
    let opened = nm.next_event();
    assert!(matches!(opened, Some(Event::Opened(_))), "{opened:?}");
    drop(nm);
    peer.finish();
}

#[test]
fn c17_the_function_receives_the_server_the_role_and_the_database() {
    let peer = Peer::play(login_with("127.0.0.1 app shop").into_iter().chain([Step::expect_eof()]).collect());
    let port = peer.addr().port();
    let config = config(&format!("host=127.0.0.1 port={port} user=app dbname=shop sslmode=disable"));
    let db = Connection::connect(config.password_with(move |request| {
        assert_eq!(request.port(), port);
        Ok(format!("{} {} {}", request.host(), request.user(), request.dbname()))
    }));
    drop(db.unwrap());
    peer.finish();
}

#[test]
fn c17_a_real_server_accepts_a_computed_password_and_refuses_another() {
    let server = start(Options::new().auth("scram-sha-256", "token 2"));
    let config = with_tokens(config(&server.url()));
    let error = refused(config.clone());
    assert!(error.is_auth() && format!("{error:#}").contains("from the function of password_with"), "{error}");
    Connection::connect(config).unwrap();
}

#[test]
fn c17_an_error_or_a_panic_fails_only_its_attempt() {
    let errors = AtomicUsize::new(0);
    let config = config(&utf8().url()).password_with(move |_| match errors.fetch_add(1, SeqCst) {
        0 => Err("the vault is sealed\u{1b}[2J".into()),
        1 => panic!("expected by a test"),
        _ => Ok("anything".into()),
    });
    for expected in ["could not obtain the password: the vault is sealed\\u{1b}[2J", "the function for it panicked"] {
        let error = refused(config.clone());
        assert!(format!("{error:#}").contains(expected), "{error}");
        assert!(error.is_transient() && !error.is_auth() && !error.is_usage(), "{error}");
    }
    Connection::connect(config).unwrap();
}

#[test]
fn c17_a_manager_tries_again_after_an_error() {
    let calls = AtomicUsize::new(0);
    let config = config(&utf8().url()).password_with(move |_| match calls.fetch_add(1, SeqCst) {
        0..3 => Err("no token yet".into()),
        _ => Ok("anything".into()),
    });
    let mut nm = NotificationManager::new([]).reconnect(Backoff::default().first(Duration::from_millis(5)));
    let id = nm.dial(config, ["a"]).unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Disconnected(of, Error::Connect(_))) if of == id));
    assert!(matches!(nm.next_event(), Some(Event::Opened(of)) if of == id));
}

#[test]
fn c17_a_function_that_hangs_fails_its_attempt_and_delays_no_other() {
    let hanging = Hanging::default();
    let mut nm = NotificationManager::new([]);
    let late = hanging.applied_to(config(&utf8().url()).connect_timeout(Duration::from_secs(1)));
    let late = nm.dial(late, ["a"]).unwrap();
    eventually("the function is called", || {
        let _ = nm.try_next_event();
        hanging.calls() == 1
    });
    let good = nm.dial(config(&utf8().url()).password_with(|_| Ok("anything".into())), ["a"]).unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Opened(id)) if id == good), "{nm:?}");
    let lost = nm.next_event();
    let Some(Event::Lost(id, error)) = lost else { panic!("{lost:?}") };
    assert_eq!(id, late);
    assert!(error.is_timeout() && format!("{error:#}").contains("computing the password"), "{error}");
    hanging.release();
}

#[test]
fn c17_one_function_occupies_at_most_three_threads() {
    let hanging = Hanging::default();
    let configs: Vec<_> = vec![hanging.applied_to(config(&utf8().url())); 8];
    let opening = std::thread::spawn(move || Connection::connect_many(configs).filter(|(_, db)| db.is_ok()).count());
    eventually("three calls are in progress", || hanging.calls() == 3);
    // Another function is called meanwhile, and the rest waits.
    Connection::connect(config(&utf8().url()).password_with(|_| Ok("anything".into()))).unwrap();
    assert_eq!(hanging.calls(), 3);
    hanging.release();
    assert_eq!(opening.join().unwrap(), 8);
    assert_eq!(hanging.calls(), 8, "each attempt has called it");
}

#[test]
fn c17_no_password_is_computed_for_a_server_that_does_not_accept_the_connection() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = |config: Config| {
        let calls = Arc::clone(&calls);
        config.password_with(move |_| {
            calls.fetch_add(1, SeqCst);
            Ok("anything".into())
        })
    };
    refused(counted(config(&format!("host=127.0.0.1 port={} user=app", refusing_port()))));
    assert_eq!(calls.load(SeqCst), 0);
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = config(&format!("host=127.0.0.1 port={} user=app", silent.local_addr().unwrap().port()));
    refused(counted(silent.sslmode(notifyman::SslMode::Disable).connect_timeout(Duration::from_millis(200))));
    assert_eq!(calls.load(SeqCst), 1, "a server that is only silent may want it");
}
