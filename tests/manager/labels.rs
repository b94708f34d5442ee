//! M21: the labels of connections.

use std::collections::HashSet;
use std::time::Duration;

use notifyman::{Backoff, Config, Connection, Error, Event, NotificationManager};

use super::support::*;
use crate::support::server::refusing_port;

fn config() -> Config {
    Config::without_env(&server().url()).unwrap()
}

#[test]
fn m21_an_id_shows_its_label_and_is_equal_without_it() {
    let mut nm = NotificationManager::new([open()]);
    let plain = nm.connections().next().unwrap().0;
    let berlin = nm.insert_as("berlin", open());
    let oslo = nm.dial_as("oslo", config(), ["a"]).unwrap();
    let labelled = nm.insert(Connection::connect(config().label("bonn")).unwrap());
    assert_eq!([plain, berlin, oslo, labelled].map(|id| id.number()), [1, 2, 3, 4]);
    let name = server().url().replace("postgres://postgres@", "");
    assert_eq!(
        [plain, berlin, oslo, labelled].map(|id| id.to_string()),
        [&*format!("{name}#1"), "berlin", "oslo", "bonn"]
    );
    assert_eq!(
        [plain, berlin].map(|id| (id.label(), id.name())),
        [(None, Some(&*name)), (Some("berlin"), Some("berlin"))]
    );
    assert_eq!(
        format!("{plain:?} {berlin:?} {berlin:>8}"),
        format!("ConnId(1, {name:?}) ConnId(2, \"berlin\")   berlin")
    );
    assert_eq!(ids(&nm), [plain, berlin, labelled]);
    // An id of another manager with the same number is equal, whatever its label is.
    let mut other = NotificationManager::new([]);
    other.insert(open());
    let same = other.insert_as("another", open());
    assert!(same == berlin && same > plain && HashSet::from([berlin]).contains(&same));
}

#[test]
fn m21_a_label_stays_through_losses_restores_and_revivals() {
    let channel = channel();
    let mut nm = NotificationManager::new([]).reconnect(Backoff::default().first(Duration::from_millis(5)));
    let id = nm.insert_as("berlin", listener(&channel));
    terminate(nm.get(id).unwrap().pid());
    let Some(Event::Disconnected(lost, _)) = event(&mut nm) else { panic!("{nm:?}") };
    let Some(Event::Restored(restored, _)) = event(&mut nm) else { panic!("{nm:?}") };
    assert_eq!([lost, restored].map(|id| id.to_string()), ["berlin", "berlin"]);
    assert_eq!(nm.get(id).unwrap().config().get_label(), Some("berlin"));

    let mut nm = NotificationManager::new([]);
    let id = nm.insert_as("oslo", listener(&channel));
    terminate(nm.get(id).unwrap().pid());
    let Some(Event::Lost(lost, _)) = event(&mut nm) else { panic!("{nm:?}") };
    assert_eq!(lost.to_string(), "oslo");
    let (id, dead) = nm.take_garbage().remove(0);
    assert_eq!(dead.config().get_label(), Some("oslo"));
    // In another manager it receives another id, with the same label.
    let mut other = NotificationManager::new([open()]);
    let id = other.revive(id, dead);
    assert_eq!((id.number(), id.label()), (2, Some("oslo")));
    assert!(matches!(event(&mut other), Some(Event::Restored(..))));
}

#[test]
fn m21_a_handle_gives_labels_too() {
    let mut nm = NotificationManager::new([]).park_when_empty(true);
    let handle = nm.handle();
    let running = std::thread::spawn(move || nm.by_ref().for_each(drop));
    let inserted = handle.insert_as("berlin", open()).wait(LIMIT).unwrap();
    let dialled = handle.dial_as("oslo", config(), ["a"]).wait(LIMIT).unwrap();
    assert_eq!([inserted, dialled].map(|id| id.label()), [Some("berlin"), Some("oslo")]);
    assert!(matches!(handle.dial_as("oslo", "host", ["a"]).wait(LIMIT), Err(Error::Config(_))));
    handle.stop();
    running.join().unwrap();
}

#[test]
fn m21_an_error_of_connecting_names_the_label_with_escapes() {
    let port = refusing_port();
    let refused = Config::without_env(&format!("host=127.0.0.1 port={port} user=app")).unwrap();
    let error = format!("{:#}", Connection::connect(refused.clone().label("berlin")).unwrap_err());
    assert!(error.starts_with(&format!("cannot connect to berlin at 127.0.0.1:{port} as \"app\"")), "{error}");
    let hostile = refused.label("a\u{1b}[2J\nb");
    assert!(hostile.to_string().starts_with("a\\u{1b}[2J\\nb at 127.0.0.1:"), "{hostile}");
    let mut nm = NotificationManager::new([]);
    let id = nm.dial(hostile, ["a"]).unwrap();
    assert_eq!((id.to_string().as_str(), id.label()), ("a\\u{1b}[2J\\nb", Some("a\u{1b}[2J\nb")));
    let Some(Event::Lost(_, error)) = event(&mut nm) else { panic!("{nm:?}") };
    assert!(format!("{error:#}").contains("to a\\u{1b}[2J\\nb at "), "{error}");
}

#[test]
fn m21_a_long_label_is_truncated_between_characters() {
    let label = |text: &str| Config::new().label(text).get_label().map(str::to_owned);
    assert_eq!(label(&"x".repeat(64)), Some("x".repeat(63)));
    assert_eq!(label(&"é".repeat(40)), Some("é".repeat(31)));
    assert_eq!((label(""), label("é")), (None, Some("é".to_owned())));
    assert_ne!(Config::new().label("a"), Config::new());
}
