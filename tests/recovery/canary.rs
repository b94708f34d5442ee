//! M16: canaries, which prove delivery, on real servers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use notifyman::{Check, Connection, Error, Event, NotificationManager, Notifier};

use super::ledger::Writer;
use super::support::{DEADLINE as HEARTBEAT_DEADLINE, IDLE, NOTICED, Story};
use super::support::{backoff, cluster, listener, open, pid, proxied, through};
use crate::support::server::{LIMIT, PausedProcess, terminate};
use crate::support::{Cluster, HoldingProxy, Options, PgBouncer};

const CANARY: &str = "the canary's";
const PERIOD: Duration = Duration::from_millis(500);
/// Longer than a busy machine delays a server process twice in a row.
const DEADLINE: Duration = Duration::from_millis(400);

/// Returns a manager of these connections with a canary and idle events.
fn watched(connections: impl IntoIterator<Item = Connection>) -> NotificationManager {
    let nm = NotificationManager::new(connections).timeout(Duration::from_millis(10));
    nm.canary_at_any_pace(CANARY, PERIOD, DEADLINE)
}

/// Iterates until the condition is true. Returns the payloads received. No connection may be lost.
fn iterate_until(nm: &mut NotificationManager, mut enough: impl FnMut(&NotificationManager) -> bool) -> Vec<String> {
    let begun = Instant::now();
    let mut received = Vec::new();
    while !enough(nm) {
        assert!(begun.elapsed() < LIMIT, "{nm:?}");
        match nm.next_event().expect("the loop continues") {
            Event::Notifies(_, batch) => received.extend(batch.iter().map(|n| n.payload().into_owned())),
            Event::Idle | Event::Unlistened(..) => {}
            other => panic!("{other:?}"),
        }
    }
    received
}

fn iterate_for(nm: &mut NotificationManager, time: Duration) -> Vec<String> {
    let begun = Instant::now();
    iterate_until(nm, |_| begun.elapsed() >= time)
}

/// Iterates until a connection is lost. A canary is held back long enough only by chance, so that can take many periods.
fn next_loss(nm: &mut NotificationManager) -> Error {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < 5 * LIMIT, "{nm:?}");
        if let Event::Disconnected(_, error) | Event::Lost(_, error) = nm.next_event().expect("the loop continues") {
            return error;
        }
    }
}

/// Returns the payloads of the canaries that another session has received so far.
fn overheard(spy: &mut Connection) -> Vec<String> {
    spy.wait(Duration::ZERO).flatten().map(|n| n.payload().into_owned()).collect()
}

fn spy(server: &Cluster) -> Connection {
    let mut spy = open(&server.url());
    spy.listen([CANARY]).unwrap();
    spy
}

#[test]
fn m16_a_period_of_less_than_a_second_is_an_error() {
    let (short, shortest) = (Duration::from_millis(999), Duration::from_secs(1));
    let nm = || NotificationManager::new([]);
    let builder = || Notifier::builder("host=localhost user=shop").unwrap();
    let errors = [
        nm().canary(short, DEADLINE).unwrap_err(),
        nm().canary_on("mine", short, DEADLINE).unwrap_err(),
        builder().canary(short, DEADLINE).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_usage(), "{error:?}");
        assert!(error.to_string().starts_with("canary: the period is 999ms, but must be at least 1s: "), "{error}");
    }
    assert!(nm().canary(shortest, DEADLINE).is_ok() && nm().canary_on("mine", shortest, DEADLINE).is_ok());
    assert!(builder().canary(shortest, DEADLINE).is_ok());
}

#[test]
fn m16_many_connections_to_one_database_share_one_canary_per_period() {
    let server = Cluster::start(Options::new().max_connections(340)).unwrap();
    let mut spy = spy(&server);
    let mut nm = watched((0..300).map(|_| listener(&server.url())));
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    overheard(&mut spy);
    let (begun, mut received) = (Instant::now(), Vec::new());
    let received = iterate_until(&mut nm, |_| {
        received.extend(overheard(&mut spy));
        received.len() >= 4
    });
    let periods = begun.elapsed().div_duration_f64(PERIOD);
    assert_eq!(received, Vec::<String>::new(), "no canary reaches the user");
    assert!(received.len() as f64 <= periods + 1.0, "{} in {periods} periods", received.len());
    assert_eq!(received.iter().collect::<BTreeSet<_>>().len(), received.len(), "no two are equal");
    assert_eq!((nm.stats().connections, nm.stats().not_delivering), (300, 0));
    assert!(nm.stats().canary_time.unwrap() < LIMIT);
}

#[test]
fn m16_each_database_has_a_canary_of_its_own() {
    let server = cluster();
    open(&server.url()).query("CREATE DATABASE other").unwrap();
    let other = format!("postgres://postgres@127.0.0.1:{}/other", server.port());
    let elsewhere = cluster();
    let urls = [server.url(), server.url(), other, elsewhere.url()];
    let mut nm = watched(urls.iter().map(|url| listener(url)));
    iterate_for(&mut nm, 8 * PERIOD);
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    assert_eq!(nm.stats().not_delivering, 0, "a connection that received only other canaries would be lost");
}

#[test]
fn m16_a_pooler_in_transaction_mode_is_found_to_deliver_nothing() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "transaction", "");
    let mut nm = watched([listener(&pooler.url())]);
    let error = next_loss(&mut nm);
    assert!(matches!(error, Error::NotDelivering { .. }) && format!("{error:#}").contains("session mode"), "{error}");
    assert_eq!(nm.stats().not_delivering, 1);
    assert_eq!(nm.garbage().count(), 1);
}

#[test]
fn m16_the_gap_after_failing_delivery_begins_where_delivery_was_last_proven() {
    let (server, proxy) = proxied();
    let pooler = PgBouncer::start(&server, "transaction", "");
    let mut story = Story::begin(&through(&proxy), &server.url());
    story.nm = story.nm.canary_at_any_pace(CANARY, PERIOD, DEADLINE);
    story.ledger.read_until(&mut story.nm, |_, nm| nm.stats().canary_time.is_some());
    // The connection is restored through a pooler that answers everything, and delivers only what arrives during an answer.
    proxy.set_upstream(pooler.url().split(['@', '/']).nth(3).unwrap().parse().unwrap());
    proxy.cut_fin();
    story.ledger.read_until(&mut story.nm, |ledger, _| ledger.gaps() == 1);
    for gaps in 2..4 {
        let listened = story.ledger.last_gap().until();
        story.ledger.read_until(&mut story.nm, |ledger, _| ledger.gaps() == gaps);
        let gap = story.ledger.last_gap();
        assert!(matches!(gap.cause(), Error::NotDelivering { .. }) && gap.since() <= listened, "{gap:?}");
    }
    // Then it is restored to a server that delivers.
    proxy.set_upstream(([127, 0, 0, 1], server.port()).into());
    story.ledger.read_until(&mut story.nm, |ledger, _| ledger.gaps() == 4);
    let not_delivering = story.nm.stats().not_delivering;
    story.receive_more();
    story.ledger.read_for(&mut story.nm, 4 * PERIOD);
    assert_eq!(story.nm.stats().not_delivering, not_delivering);
}

#[test]
fn m16_a_pooler_in_transaction_mode_that_rotates_its_sessions_is_found() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "transaction", "server_round_robin = 1");
    let mut busy: Vec<_> = (0..3).map(|_| open(&pooler.url())).collect();
    for sql in ["BEGIN", "COMMIT"] {
        busy.iter_mut().for_each(|db| drop(db.query(sql).unwrap()));
    }
    let mut nm = watched([listener(&pooler.url())]);
    assert!(matches!(next_loss(&mut nm), Error::NotDelivering { .. }));
}

#[test]
fn m16_a_proxy_that_holds_notifications_back_while_a_connection_is_idle_is_found() {
    let server = cluster();
    for connections in [1, 3] {
        let proxy = HoldingProxy::start(server.port());
        let mut nm = watched((0..connections).map(|_| listener(&proxy.url())));
        let error = next_loss(&mut nm);
        assert!(matches!(error, Error::HeldBack { .. }) && error.is_transient(), "{connections}: {error}");
        assert_eq!(nm.stats().not_delivering, 1);
    }
}

#[test]
fn m16_a_proxy_that_holds_notifications_back_until_the_next_heartbeat_is_found() {
    let server = cluster();
    for connections in [1, 2] {
        let proxy = HoldingProxy::start(server.port());
        // Each canary arrives long before its deadline, with the answer to a heartbeat.
        let mut nm = NotificationManager::new((0..connections).map(|_| listener(&proxy.url())))
            .timeout(Duration::from_millis(10))
            .heartbeat(Duration::from_millis(200), Duration::from_secs(10))
            .audit(Duration::from_secs(1))
            .canary_at_any_pace(CANARY, Duration::from_secs(1), Duration::from_secs(10));
        let error = next_loss(&mut nm);
        assert!(matches!(error, Error::HeldBack { .. }), "{connections}: {error}");
    }
}

/// Iterates until a check of delivery is reported as refused.
fn refused_check(nm: &mut NotificationManager) -> (Check, Error) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LIMIT, "{nm:?}");
        match nm.next_event().expect("the loop continues") {
            Event::CheckRefused(_, check, error) => return (check, error),
            Event::Disconnected(_, error) | Event::Lost(_, error) => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn m16_a_canary_or_an_audit_that_the_server_refuses_is_reported_once() {
    let server = cluster();
    let mut admin = open(&server.url());
    admin.execute("CREATE ROLE reader LOGIN").unwrap();
    let reader = || listener(&format!("postgres://reader@127.0.0.1:{}/postgres", server.port()));
    for (function, check) in [
        ("pg_postmaster_start_time()", Check::Canary),
        ("pg_notify(text, text)", Check::Canary),
        ("pg_listening_channels()", Check::Audit),
    ] {
        admin.execute(&format!("REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")).unwrap();
        let mut nm = watched([reader()]).audit(Duration::from_secs(1));
        let (which, error) = refused_check(&mut nm);
        assert_eq!((which, error.sqlstate()), (check, Some("42501")), "{function}: {error}");
        iterate_for(&mut nm, 4 * PERIOD);
        assert_eq!((nm.stats().checks_refused, nm.stats().connections), (1, 1), "{function}");
        admin.execute(&format!("GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")).unwrap();
    }
}

#[test]
fn m16_a_role_that_may_not_read_the_catalog_has_a_canary() {
    let server = cluster();
    let mut admin = open(&server.url());
    admin.execute("CREATE ROLE reader LOGIN; REVOKE SELECT ON pg_catalog.pg_database FROM PUBLIC").unwrap();
    let mut nm = watched([listener(&format!("postgres://reader@127.0.0.1:{}/postgres", server.port()))]);
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    assert_eq!(nm.stats().checks_refused, 0);
}

#[test]
fn m16_a_pooler_in_session_mode_delivers() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "session", "");
    let mut nm = watched((0..3).map(|_| listener(&pooler.url())));
    iterate_for(&mut nm, 6 * PERIOD);
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    assert_eq!(nm.stats().not_delivering, 0);
}

#[test]
fn m16_canaries_for_the_only_connection_behind_a_pooler_are_sent_by_another_session() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "session", "");
    let mut spy = spy(&server);
    let mut nm = watched([listener(&pooler.url())]).reconnect(backoff().at_once(1));
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    overheard(&mut spy);
    let id = nm.connections().next().unwrap().0;
    let own = nm.get_mut(id).unwrap().query("SELECT pg_backend_pid()").unwrap()[0].get(0).unwrap().into_owned();
    let mut by_others = 0;
    iterate_until(&mut nm, |_| {
        by_others += spy.wait(Duration::ZERO).flatten().filter(|n| n.pid().to_string() != own).count();
        by_others >= 3
    });
    assert_eq!(
        (nm.stats().not_delivering, nm.restoring().count(), nm.connections().count()),
        (0, 0, 1),
        "no connection receives them"
    );
}

#[test]
fn m16_another_session_sends_canaries_after_the_sender_has_ended() {
    let server = cluster();
    let mut spy = spy(&server);
    let mut nm = watched((0..3).map(|_| listener(&server.url()))).reconnect(backoff());
    for _ in 0..4 {
        let sender = loop {
            nm.next_event();
            if let Some(n) = spy.wait(Duration::ZERO).flatten().last() {
                break n.pid();
            }
        };
        terminate(&server, sender);
        let error = next_loss(&mut nm);
        assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
    }
    let begun = Instant::now();
    while begun.elapsed() < LIMIT && spy.wait(Duration::ZERO).flatten().next().is_none() {
        nm.next_event();
    }
    assert!(begun.elapsed() < LIMIT, "no other session has sent a canary");
    assert_eq!(nm.stats().not_delivering, 0);
}

#[test]
fn m16_a_registration_that_the_user_removes_is_restored_and_is_no_fault() {
    let server = cluster();
    let mut nm = watched((0..2).map(|_| listener(&server.url())));
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    let ids: Vec<_> = nm.connections().map(|(id, _)| id).collect();
    let sqls = [
        "UNLISTEN *",
        "DISCARD ALL",
        "BEGIN; UNLISTEN *; ROLLBACK",
        "BEGIN; UNLISTEN *; COMMIT",
        &format!("UNLISTEN \"{CANARY}\""),
        "DO $$ BEGIN EXECUTE 'UNLISTEN *'; END $$",
    ];
    for sql in sqls {
        for id in &ids {
            nm.get_mut(*id).unwrap().query(sql).unwrap();
        }
        nm.get_mut(ids[0]).unwrap().unlisten_all().unwrap();
        for id in &ids {
            let begun = Instant::now();
            let listens = |nm: &mut NotificationManager| {
                let reported = nm.get_mut(*id).unwrap().query("SELECT pg_listening_channels()").unwrap();
                reported.iter().any(|row| row.get(0).unwrap() == CANARY)
            };
            while !listens(&mut nm) {
                assert!(begun.elapsed() < LIMIT, "after {sql}");
                iterate_for(&mut nm, PERIOD / 2);
            }
            let known = nm.get_mut(*id).unwrap().listening_channels().unwrap();
            assert!(!known.contains(&CANARY.to_owned()), "and the user does not see it");
        }
    }
    iterate_for(&mut nm, 4 * PERIOD);
    assert_eq!((nm.stats().connections, nm.stats().not_delivering), (2, 0));
}

#[test]
fn m16_a_connection_in_a_transaction_is_not_checked_and_not_lost() {
    let server = cluster();
    let mut nm = NotificationManager::new((0..2).map(|_| listener(&server.url())))
        .timeout(Duration::from_millis(10))
        .canary_at_any_pace(CANARY, PERIOD, DEADLINE)
        .audit(Duration::from_secs(1));
    let ids: Vec<_> = nm.connections().map(|(id, _)| id).collect();
    nm.get_mut(ids[0]).unwrap().query("BEGIN").unwrap();
    nm.get_mut(ids[1]).unwrap().query("BEGIN").unwrap();
    assert!(nm.get_mut(ids[1]).unwrap().query("SELECT 1/0").is_err(), "and this one's has failed");
    let begun = Instant::now();
    let mut reported = 0;
    while begun.elapsed() < 8 * PERIOD || reported < 2 {
        assert!(begun.elapsed() < LIMIT, "{reported} reports");
        match nm.next_event() {
            Some(Event::Idle) => {}
            Some(Event::InTransaction(_)) => reported += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((reported, nm.stats().connections), (2, 2));
    let transaction = nm.get_mut(ids[0]).unwrap().query("SELECT now() = statement_timestamp()").unwrap();
    assert_eq!(transaction[0].get(0).as_deref(), Some("f"), "it is still the same transaction");
    for id in &ids {
        nm.get_mut(*id).unwrap().query("ROLLBACK").unwrap();
    }
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    iterate_for(&mut nm, 4 * PERIOD);
    assert_eq!(nm.stats().not_delivering, 0);
}

#[test]
fn m16_a_slow_body_and_a_busy_reader_are_not_failing_delivery() {
    let server = cluster();
    let mut nm = watched((0..3).map(|_| listener(&server.url())));
    let writer = Writer::start(server.url());
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    for round in 0..400 {
        assert!(!matches!(nm.next_event(), Some(Event::Disconnected(..) | Event::Lost(..))));
        if round % 50 == 0 {
            std::thread::sleep(2 * (PERIOD + DEADLINE));
        }
    }
    writer.finish();
    assert_eq!((nm.stats().not_delivering, nm.stats().losses), (0, 0));
}

#[test]
fn m16_a_frozen_server_is_found_by_the_heartbeat_and_not_by_the_canary() {
    let server = cluster();
    let mut nm = watched([listener(&server.url())]).heartbeat(IDLE, HEARTBEAT_DEADLINE);
    let mut db = listener(&server.url());
    db.set_call_timeout(Duration::from_secs(2));
    nm.insert(db);
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    let pids: Vec<_> = nm.connections().map(|(_, db)| db.pid().unsigned_abs()).collect();
    let _frozen: Vec<_> = pids.into_iter().map(PausedProcess::process).collect();
    let begun = Instant::now();
    let error = next_loss(&mut nm);
    assert!(error.is_timeout(), "{error}");
    assert!(begun.elapsed() < NOTICED, "{:?}", begun.elapsed());
    assert_eq!(nm.stats().not_delivering, 0);
}

#[test]
fn m16_without_a_heartbeat_the_canary_itself_has_a_limit() {
    let server = cluster();
    let mut db = listener(&server.url());
    db.set_call_timeout(Duration::from_secs(2));
    let mut nm = watched([db]);
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    let _frozen = PausedProcess::process(pid(&nm).unsigned_abs());
    let error = next_loss(&mut nm);
    assert!(error.is_timeout() && format!("{error:#}").contains("canary"), "{error}");
}

#[test]
fn m16_forged_canaries_are_ignored_and_not_delivered() {
    let server = cluster();
    let mut nm = watched([listener(&server.url())]);
    let mut forger = spy(&server);
    let begun = Instant::now();
    while begun.elapsed() < 4 * PERIOD {
        forger.notify_many([(CANARY, "canary 0"), (CANARY, ""), ("ledger", "1"), (CANARY, "canary")]).unwrap();
        // It sends every canary that it receives again.
        for payload in overheard(&mut forger) {
            forger.notify(CANARY, &payload).unwrap();
        }
        let event = nm.next_event().unwrap();
        match event {
            Event::Notifies(_, batch) => assert!(batch.iter().all(|n| n.channel() == "ledger" && n.payload() == "1")),
            Event::Idle => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn m16_the_user_cannot_listen_to_the_canary_channel() {
    let server = cluster();
    let mut nm = watched([listener(&server.url())]);
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    let id = nm.connections().next().unwrap().0;
    let error = nm.get_mut(id).unwrap().listen(["mine", CANARY]).unwrap_err();
    assert!(error.is_usage() && format!("{error:#}").contains("canary"), "{error}");
    let mut ticket = nm.handle().listen(id, [CANARY]);
    iterate_until(&mut nm, |_| ticket.try_get().is_some_and(|result| result.unwrap_err().is_usage()));
    assert_eq!(nm.get_mut(id).unwrap().listening_channels().unwrap(), ["ledger"], "nothing was done");
}

#[test]
fn m16_a_removed_connection_stops_listening_to_the_canary_channel() {
    let server = cluster();
    let mut nm = watched((0..4).map(|_| listener(&server.url())));
    iterate_until(&mut nm, |nm| nm.stats().canary_time.is_some());
    let ids: Vec<_> = nm.connections().map(|(id, _)| id).collect();
    nm.get_mut(ids[1]).unwrap().query("BEGIN").unwrap();
    let mut taken: Vec<_> = ids[..2].iter().map(|id| nm.remove(*id).unwrap().unwrap()).collect();
    // In a transaction nothing is queried until it ends.
    taken[1].query("COMMIT").unwrap();
    iterate_for(&mut nm, 2 * PERIOD);
    taken.extend(nm.into_connections().into_iter().map(|(_, db)| db));
    for mut db in taken {
        assert_eq!(db.query("SELECT pg_listening_channels()").unwrap().len(), 1, "{db:?}");
        assert_eq!(db.listening_channels().unwrap(), ["ledger"]);
        let mark = format!("for {}", db.pid());
        open(&server.url()).notify_many([(CANARY, "x"), ("ledger", &mark)]).unwrap();
        let received: Vec<_> = db.wait(LIMIT).map_while(|n| n).take_while(|n| n.payload() != mark).collect();
        assert!(received.iter().all(|n| n.channel() == "ledger"), "{received:?}");
        db.listen([CANARY]).unwrap();
        db.notify(CANARY, "mine now").unwrap();
        assert_eq!(overheard(&mut db), ["mine now"]);
    }
}
