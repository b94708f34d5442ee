//! C01: many connections that are opened concurrently.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use notifyman::{Config, Connection, Error, NotificationManager};

use crate::support::server::{LIMIT, config, connect, pairs, pending, standby, start, utf8};
use crate::support::{Options, Proxy, subprocess};

const COUNT: usize = 80;

#[test]
fn c01_a_connection_that_fails_or_hangs_delays_no_other() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let hanging = format!("host=127.0.0.1 port={} user=u connect_timeout=10", silent.local_addr().unwrap().port());
    let mut dsns = vec!["host=127.0.0.1 port=1 user=u".to_owned(), "prot=1".to_owned(), hanging];
    dsns.resize(dsns.len() + 40, utf8().url());
    dsns.push(format!("{}?dbname=missing", utf8().url()));
    let configs = dsns.iter().map(|dsn| Config::without_env(dsn));

    let (mut good, mut bad) = (Vec::new(), BTreeMap::new());
    for (i, opened) in Connection::connect_many(configs.map(Given)).at_once(10) {
        match opened {
            Ok(_) => {
                assert!(!bad.contains_key(&2), "no connection waits for one that hangs");
                good.push(i);
            }
            Err(error) => drop(bad.insert(i, error)),
        }
    }
    good.sort_unstable();
    assert_eq!(good, (3..43).collect::<Vec<_>>());
    assert_eq!(bad.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 43]);
    assert!(matches!(bad[&1], Error::Config(_)), "{}", bad[&1]);
    assert!(bad[&0].is_transient() && bad[&2].is_timeout(), "{} {}", bad[&0], bad[&2]);
    assert_eq!(bad[&43].sqlstate(), Some("3D000"));
}

/// A type that converts into a configuration or an error.
struct Given(Result<Config, Error>);

impl TryFrom<Given> for Config {
    type Error = Error;

    fn try_from(given: Given) -> Result<Self, Error> {
        given.0
    }
}

#[test]
fn c01_attempts_without_a_file_descriptor_are_postponed() {
    // The limit of open files applies to the whole process.
    let url = utf8().url();
    subprocess::run("connection::many::with_few_descriptors", "ulimit -n 40", &[("NOTIFYMAN_TEST_URL", &url)]);
}

#[test]
#[ignore = "needs a limit of open files of its own; the test above starts it"]
fn with_few_descriptors() {
    if !subprocess::is_subprocess() {
        return;
    }
    let url = std::env::var("NOTIFYMAN_TEST_URL").unwrap();
    let gone = "host=127.0.0.1 port=1 user=u".to_owned();
    let configs: Vec<_> = (0..120).map(|i| config(if i % 10 == 0 { &gone } else { &url })).collect();
    let mut numbers = Vec::new();
    for (i, opened) in Connection::connect_many(configs.clone()) {
        assert_eq!(opened.is_ok(), i % 10 != 0, "{i}: {opened:?}");
        numbers.push(i);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..120).collect::<Vec<_>>());

    // If the caller keeps all connections, those without a descriptor are errors.
    let mut opening = Connection::connect_many(configs);
    assert_eq!(opening.len(), 120);
    let results: Vec<_> = opening.by_ref().collect();
    assert_eq!((results.len(), opening.len()), (120, 0));
    let no_room = results.iter().filter_map(|(_, opened)| opened.as_ref().err());
    assert!(no_room.filter(|error| format!("{error:#}").contains("Too many open files")).count() > 50);
    assert!(results.iter().filter(|(_, opened)| opened.is_ok()).count() > 10);
}

#[test]
fn c01_at_once_limits_the_attempts_in_progress() {
    let proxy = Proxy::start(([127, 0, 0, 1], utf8().port()).into());
    let to_proxy = config(&format!("host=127.0.0.1 port={} user=postgres", proxy.addr().port()));
    let mut opening = Connection::connect_many(vec![to_proxy; 30]).at_once(3);
    assert_eq!(opening.len(), 30);
    let mut open = vec![opening.next().unwrap().1.unwrap()];
    assert!(proxy.accepted() <= 3 + 2, "those that finished, and three more: {}", proxy.accepted());
    open.extend(opening.map(|(_, opened)| opened.unwrap()));
    assert_eq!(open.len(), 30);
}

#[test]
fn c01_connections_listen_before_they_are_returned() {
    let channels = ["many", "another"];
    let opening = Connection::connect_many(vec![utf8().url(); COUNT / 2].iter().map(|url| config(url)));
    let mut open: Vec<_> = opening.listen(channels).unwrap().map(|(_, opened)| opened.unwrap()).collect();
    assert_eq!(open.len(), COUNT / 2);
    connect(&utf8().url()).notify("many", "hello").unwrap();
    for db in &mut open {
        assert_eq!(db.listening_channels().unwrap(), ["another", "many"]);
        assert_eq!(pending(db), pairs([("many", "hello")]));
    }

    // A manager can watch them immediately.
    let mut nm = NotificationManager::new(open).timeout(LIMIT);
    connect(&utf8().url()).notify("another", "again").unwrap();
    let received = nm.by_ref().take(COUNT / 2).filter(|event| event.is_some()).count();
    assert_eq!(received, COUNT / 2);
}

#[test]
fn c01_an_invalid_channel_is_an_error_before_any_attempt() {
    let opening = Connection::connect_many([config(&utf8().url())]);
    assert!(opening.listen(["fine", ""]).unwrap_err().is_usage());
    let standby = standby();
    let mut refused = Connection::connect_many([config(&standby.url())]).listen(["news"]).unwrap();
    let (0, Err(error)) = refused.next().unwrap() else { panic!("a standby listens") };
    assert_eq!(error.sqlstate(), Some("25006"), "{error}");
    assert!(refused.next().is_none() && refused.next().is_none());
}

#[test]
fn c01_without_configurations_the_iterator_ends() {
    assert!(Connection::connect_many(Vec::<Config>::new()).next().is_none());
}

#[test]
fn c01_passwords_and_host_names_work_with_many_connections() {
    // All SCRAM keys are computed on one thread, which takes long on a busy machine.
    let options = Options::new().auth("scram-sha-256", "right").max_connections(100);
    let strict = start(options.setting("authentication_timeout", "600s"));
    let dsn = |password| format!("host=localhost port={} user=postgres password={password}", strict.port());
    let config = |password| config(&dsn(password)).connect_timeout(Duration::from_secs(600));
    let configs = (0..60).map(|i| config(if i % 3 == 0 { "wrong" } else { "right" }));
    for (i, opened) in Connection::connect_many(configs) {
        match opened {
            Ok(_) => assert_ne!(i % 3, 0),
            Err(error) => assert!(i % 3 == 0 && error.is_auth(), "{i}: {error}"),
        }
    }
}
