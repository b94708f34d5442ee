//! Connections that the loop itself opens.

use std::time::Duration;

use notifyman::{Backoff, Config, Error, Event, NotificationManager};

use super::support::*;
use crate::support::{Cluster, Options};

fn config(url: &str) -> Config {
    Config::without_env(url).unwrap()
}

#[test]
fn a_connection_opened_by_the_loop_listens_before_it_says_so() {
    let channel = channel();
    let mut nm = NotificationManager::new([]);
    let id = nm.open(config(&server().url()), [&channel]);
    assert_eq!((nm.connections().count(), nm.restoring().count()), (0, 1));
    assert!(matches!(event(&mut nm), Some(Event::Opened(opened)) if opened == id));
    open().notify(&channel, "heard").unwrap();
    assert_eq!(hear(&mut nm, 1), [(id, "heard".to_owned())]);
    let stats = nm.stats();
    assert_eq!((stats.connections, stats.restores, stats.gaps), (1, 0, 0), "nothing was restored");
}

#[test]
fn one_that_can_not_be_opened_is_in_the_garbage_with_the_reason_after_one_attempt() {
    let mut nm = NotificationManager::new([]);
    let id = nm.open(config(&server().url()).dbname("no such database"), ["a"]);
    let Some(Event::Lost(lost, error)) = event(&mut nm) else { panic!() };
    assert_eq!((lost, error.sqlstate()), (id, Some("3D000")));
    assert_eq!(dead(&nm), [id]);
    assert!(nm.next_event().is_none(), "nobody is left");
}

#[test]
fn a_name_that_can_not_be_is_refused_before_anything_is_dialled() {
    let mut nm = NotificationManager::new([]);
    let id = nm.open(config(&server().url()), ["fine", ""]);
    assert!(matches!(event(&mut nm), Some(Event::Lost(lost, Error::Value(_))) if lost == id));
    assert_eq!(dead(&nm), [id]);
}

#[test]
fn m13_with_reconnect_it_is_tried_until_it_is_open_and_has_no_gap() {
    let mut away = Cluster::start(Options::new()).unwrap();
    away.stop().unwrap();
    let backoff = Backoff::default().first(Duration::from_millis(10)).longest(Duration::from_millis(50));
    let mut nm = NotificationManager::new([]).reconnect(backoff).timeout(Duration::from_millis(100));
    let id = nm.open(config(&away.url()), ["a"]);
    until_idle(&mut nm);
    assert_eq!(nm.restoring().map(|(id, _)| id).collect::<Vec<_>>(), [id]);
    away.restart().unwrap();
    assert!(matches!(event(&mut nm), Some(Event::Opened(opened)) if opened == id));
    // From then on it is one like any other.
    away.restart().unwrap();
    assert!(matches!(event(&mut nm), Some(Event::Lost(lost, _)) if lost == id));
    let Some(Event::Restored(_, gap)) = event(&mut nm) else { panic!() };
    assert_eq!((gap.epoch(), gap.channels().len()), (1, 1));
}
