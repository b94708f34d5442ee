//! A channel that a manager's loop serves, by its events or by its batches.

use std::time::Duration;

use notifyman::fence::{Admission, Fence};
use notifyman::{Backoff, ConnId, Error, Event, NotificationManager};

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

/// A way in which a connection ends to listen to a channel, on the thread of the loop.
type Unlisten = fn(&mut NotificationManager, ConnId);

#[test]
fn m22_every_way_to_end_a_listen_closes_the_channel_before_anything_that_comes_later() {
    let ways: [(&str, Unlisten); 13] = [
        ("handle", |nm, id| drop(nm.handle().unlisten(id, ["other", "prices"]))),
        ("handle, all", |nm, id| drop(nm.handle().unlisten_all(id))),
        ("query", |nm, id| drop(nm.handle().query(id, "UNLISTEN prices"))),
        ("query, all", |nm, id| drop(nm.handle().query(id, "UNLISTEN *"))),
        ("discard", |nm, id| drop(nm.handle().query(id, "DISCARD ALL"))),
        ("transaction", |nm, id| {
            let handle = nm.handle();
            ["BEGIN", "UNLISTEN prices", "COMMIT"].iter().for_each(|sql| drop(handle.query(id, sql)));
        }),
        ("call", |nm, id| nm.get_mut(id).unwrap().unlisten(["prices"]).unwrap()),
        ("call, all", |nm, id| nm.get_mut(id).unwrap().unlisten_all().unwrap()),
        ("call of a query", |nm, id| drop(nm.get_mut(id).unwrap().query("UNLISTEN prices").unwrap())),
        ("listened again", |nm, id| {
            let mut db = nm.get_mut(id).unwrap();
            db.unlisten(["prices"]).unwrap();
            db.listen(["prices"]).unwrap();
        }),
        ("call, and removed", |nm, id| {
            nm.get_mut(id).unwrap().unlisten(["prices"]).unwrap();
            drop(nm.remove(id).unwrap().unwrap());
        }),
        ("removed", |nm, id| drop(nm.remove(id).unwrap().unwrap())),
        ("removed by the handle", |nm, id| drop(nm.handle().remove(id))),
    ];
    let server = server::start(Options::new());
    let mut writer = connect(&server.url());
    create_prices(&mut writer);
    for (way, unlisten) in ways {
        let (fence, cache) = (Fence::new(), Cache::default());
        let prices = fence.channel::<u64>("prices");
        let canary = (Duration::from_millis(50), Duration::from_millis(50));
        let mut nm = manager().canary_at_any_pace("canary", canary.0, canary.1).report_canaries().park_when_empty(true);
        let mut listener = connect(&server.url());
        listener.listen(["prices", "markers"]).unwrap();
        let id = nm.insert(listener);
        let mut events = prices.events(&nm, id, cache.invalidator()).unwrap();
        eventually("it is certified", || {
            events.apply(&nm.next_event().unwrap());
            prices.as_of().is_some()
        });
        assert!(cache.fill(&prices, &mut writer, 1).is_stored());
        unlisten(&mut nm, id);
        let mut received = Vec::new();
        while prices.is_open() {
            let event = nm.next_event().unwrap();
            events.apply(&event);
            received.push(event);
        }
        let is_before = |event: &Event| !matches!(event, Event::Restored(..) | Event::Lost(..));
        assert!(received.iter().all(is_before), "{way}: {received:?}");
        assert!(matches!(received.last(), Some(Event::Unlistened(of, _)) if *of == id), "{way}: {received:?}");
        // What is committed from now on does not arrive, and is not certified.
        set_price(&mut writer, 1, "unnoticed");
        for _ in 0..10 {
            events.apply(&nm.next_event().unwrap());
            assert!(!prices.is_open() && prices.as_of().is_none() && cache.fresh(&prices, 1).is_none(), "{way}");
        }
    }
}

#[test]
fn m22_an_unlisten_during_an_absence_keeps_the_channel_closed() {
    let server = server::start(Options::new());
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let (fence, cache) = (Fence::new(), Cache::default());
    let prices = fence.channel::<u64>("prices");
    let ways: [Unlisten; 3] = [
        |nm, id| drop(nm.handle().unlisten(id, ["prices"])),
        |nm, id| drop(nm.handle().unlisten_all(id)),
        |nm, id| {
            let dead = nm.remove(id).unwrap().unwrap_err();
            nm.revive(id, dead);
        },
    ];
    for unlisten in ways {
        let mut nm = manager();
        let id = nm.dial(config(&format!("postgres://postgres@{}/postgres", proxy.addr())), ["prices"]).unwrap();
        let mut events = prices.events(&nm, id, cache.invalidator()).unwrap();
        let mut until = |nm: &mut NotificationManager, wanted: fn(&Event) -> bool| loop {
            let event = nm.next_event().unwrap();
            events.apply(&event);
            if wanted(&event) {
                break;
            }
        };
        until(&mut nm, |event| matches!(event, Event::Opened(_)));
        assert!(prices.is_open());
        proxy.refuse();
        proxy.cut_rst();
        until(&mut nm, |event| matches!(event, Event::Disconnected(..)));
        unlisten(&mut nm, id);
        proxy.resume();
        until(&mut nm, |event| matches!(event, Event::Restored(..)));
        assert!(!prices.is_open());
    }
}
