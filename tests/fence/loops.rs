//! A channel that a manager's loop serves, by its events or by its batches.

use std::time::Duration;

use notifyman::fence::{Admission, Fence};
use notifyman::{Backoff, Error, Event, NotificationManager};

use super::support::*;
use crate::support::{Options, Proxy, server};

fn manager() -> NotificationManager {
    let soon = Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_millis(100));
    NotificationManager::new([]).reconnect(soon).timeout(Duration::from_millis(50))
}

#[test]
fn f02_events_open_a_channel_make_it_away_and_restore_it() {
    let server = server::start(Options::new());
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let mut db = connect(&server.url());
    create_prices(&mut db);
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let canary = (Duration::from_millis(100), Duration::from_secs(5));
    let mut nm = manager().canary_at_any_pace("canary", canary.0, canary.1).report_canaries();
    let id = nm.dial(config(&format!("postgres://postgres@{}/postgres", proxy.addr())), ["prices"]).unwrap();
    let mut events = prices.events(&nm, id, cache.invalidator()).unwrap();
    assert!(!prices.is_open(), "it is not connected yet");
    let mut until = |what: &str, condition: &mut dyn FnMut() -> bool| {
        eventually(what, || {
            events.apply(&nm.next_event().unwrap());
            condition()
        });
    };
    until("it is open", &mut || prices.is_open());
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
    until("it is certified", &mut || prices.as_of().is_some());
    let lease = prices.begin(&1);
    set_price(&mut db, 1, "new");
    until("the key is invalidated", &mut || cache.fresh(&prices, 1).is_none());
    assert_eq!(lease.admit("old".to_owned(), |_| panic!("it was refused")), Admission::Invalidated);
    assert!(cache.fill(&prices, &mut db, 1).is_stored());

    proxy.refuse();
    proxy.cut_rst();
    until("it is away", &mut || !prices.is_open());
    assert_eq!((cache.fresh(&prices, 1), prices.as_of()), (None, None));
    proxy.resume();
    until("it is back", &mut || prices.is_open());
    assert_eq!(cache.fresh(&prices, 1), None);
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
    drop(events);
    assert_eq!(cache.fresh(&prices, 1), None, "nothing applies its notifications any more");
}

#[test]
fn f02_a_connection_that_does_not_listen_is_refused() {
    let server = server::start(Options::new());
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let mut nm = manager();
    let listening = nm.dial(config(&server.url()), ["prices"]).unwrap();
    let other = nm.dial(config(&server.url()), ["others"]).unwrap();
    let error = |id| prices.events(&nm, id, cache.invalidator()).unwrap_err();
    assert!(matches!(error(other), Error::NotListening { .. }), "{}", error(other));
    let early = prices.serve_when_away().batches(&nm, listening, cache.invalidator()).unwrap_err();
    assert!(matches!(early, Error::Unopened), "{early}");
    let mut left = 2;
    while left > 0 {
        left -= usize::from(matches!(nm.next_event(), Some(Event::Opened(_))));
    }
    let error = |id| prices.events(&nm, id, cache.invalidator()).unwrap_err();
    assert!(matches!(error(other), Error::NotListening { .. }));
    drop(prices.events(&nm, listening, cache.invalidator()).unwrap());
    drop(nm.remove(listening));
    assert!(matches!(prices.events(&nm, listening, cache.invalidator()), Err(Error::UnknownConnection)));
}

#[test]
fn f02_the_plain_loop_serves_while_it_is_away_and_forgets_at_the_gap() {
    let server = server::start(Options::new());
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let mut db = connect(&server.url());
    create_prices(&mut db);
    let (fence, cache) = (Fence::new(), Cache::default());
    let bypassing = fence.channel::<u64>("prices");
    let prices = bypassing.serve_when_away();
    let mut listener = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    listener.listen(["prices"]).unwrap();
    let mut nm = manager();
    let id = nm.insert(listener);
    let mut batches = prices.batches(&nm, id, cache.invalidator()).unwrap();
    let mut until = |what: &str, condition: &mut dyn FnMut() -> bool| {
        eventually(what, || {
            if let Some((conn, batch)) = nm.next().unwrap() {
                batches.apply(conn, &batch);
            }
            condition()
        });
    };
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
    assert_eq!(cache.fresh(&bypassing, 1), None, "a loss would not be reported to it");
    set_price(&mut db, 1, "new");
    until("the key is invalidated", &mut || cache.fresh(&prices, 1).is_none());
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
    let epoch = prices.stats().epoch;
    proxy.cut_rst();
    assert_eq!(cache.fresh(&prices, 1).as_deref(), Some("new"));
    until("the gap is reported", &mut || prices.stats().epoch > epoch);
    assert_eq!(cache.fresh(&prices, 1), None);
    assert!(cache.fill(&prices, &mut db, 1).is_stored());
}
