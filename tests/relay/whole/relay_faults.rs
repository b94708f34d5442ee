//! Relays that are killed, stopped or cut off from PostgreSQL.

use std::thread;
use std::time::{Duration, Instant};

use super::super::support::{redis, with_engines};
use super::{RelayProcess, Whole};
use crate::support::Proxy;
use crate::support::server::{ask, connect, eventually, primary_and_standby, promote};

#[test]
fn r08_a_leader_that_is_killed_is_replaced_without_a_loss_a_repetition_or_a_gap() {
    with_engines(&[], |engine| {
        let (mut whole, ledger) = Whole::of(&engine);
        let mut longest = Duration::ZERO;
        for _ in 0..3 {
            let leader = whole.leader();
            whole.relays[leader].signal("KILL");
            let begin = Instant::now();
            ledger.wait_for_delivery();
            longest = longest.max(begin.elapsed());
            whole.replace(leader);
            eventually("the new one is a candidate", || whole.candidate().is_some());
            // Until both have received the same canary.
            thread::sleep(Duration::from_millis(2500));
        }
        let (gaps, sent) = ledger.close();
        println!("{sent} sent, back after at most {longest:?}");
        assert!(gaps == 0 && sent > 500, "{gaps} gaps, {sent} sent");
    });
}

#[test]
fn r08_a_leader_that_hands_over_on_sigterm_loses_nothing() {
    let Some(engine) = redis(&[]) else { return };
    let (whole, ledger) = Whole::of(&engine);
    let leader = whole.leader();
    whole.relays[leader].signal("TERM");
    ledger.wait_for_delivery();
    assert_eq!(ledger.close().0, 0);
}

#[test]
fn r08_a_stopped_leader_is_replaced_and_can_append_nothing_when_it_continues() {
    let Some(engine) = redis(&[]) else { return };
    let (whole, ledger) = Whole::of(&engine);
    let mut other = connect(&whole.postgres.url());
    ask(&mut other, "SELECT pg_advisory_lock(1, 2)::text");
    let leader = whole.leader();
    whole.relays[leader].signal("STOP");
    ledger.wait_for_delivery();
    thread::sleep(Duration::from_millis(500));
    whole.relays[leader].signal("CONT");
    eventually("it is no leader any more", || {
        whole.relays[leader].role().is_some_and(|role| !role.starts_with("the leader"))
    });
    thread::sleep(Duration::from_secs(1));
    assert_eq!(ledger.close().0, 0);
    assert_eq!(ask(&mut other, "SELECT 1"), "1", "the session of another program, which holds another lock");
}

#[test]
fn r08_a_leader_whose_session_is_terminated_loses_nothing() {
    let Some(engine) = redis(&[]) else { return };
    let (whole, ledger) = Whole::of(&engine);
    for _ in 0..3 {
        let mut admin = connect(&whole.postgres.url());
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1852666476";
        assert_eq!(ask(&mut admin, sql), "1");
        ledger.wait_for_delivery();
        eventually("there are two", || whole.candidate().is_some());
        thread::sleep(Duration::from_millis(2500));
    }
    assert_eq!(ledger.close().0, 0);
}

#[test]
fn r08_a_leader_with_a_half_open_session_is_replaced_without_a_loss() {
    let Some(engine) = redis(&[]) else { return };
    let (mut whole, ledger) = Whole::of(&engine);
    let proxy = Proxy::start(([127, 0, 0, 1], whole.postgres.port()).into());
    let behind_proxy = format!("postgres://postgres@{}/postgres", proxy.addr());
    let (leader, candidate) = (whole.leader(), whole.candidate().unwrap());
    whole.relays[candidate] = RelayProcess::start(&behind_proxy, &whole.engines);
    eventually("the new one is a candidate", || whole.candidate().is_some());
    thread::sleep(Duration::from_millis(2500));
    whole.replace(leader);
    eventually("it leads", || whole.relays[candidate].role().is_some_and(|role| role.starts_with("the leader")));
    eventually("the new one is a candidate", || whole.candidate().is_some());
    thread::sleep(Duration::from_millis(2500));
    proxy.black_hole();
    ledger.wait_for_delivery();
    thread::sleep(Duration::from_secs(3));
    proxy.resume();
    ledger.wait_for_delivery();
    assert_eq!(ledger.close().0, 0);
}

#[test]
fn r08_what_both_relays_miss_is_a_gap() {
    let Some(engine) = redis(&[]) else { return };
    let (mut whole, ledger) = Whole::of(&engine);
    whole.relays.iter().for_each(|relay| relay.signal("KILL"));
    thread::sleep(Duration::from_millis(500));
    whole.relays = vec![RelayProcess::start(&whole.postgres.url(), &whole.engines)];
    ledger.wait_for_delivery();
    let (gaps, _) = ledger.close();
    assert!(gaps >= 1, "{gaps} gaps");
}

#[test]
fn r08_what_is_sent_while_postgresql_restarts_is_delivered_or_a_gap() {
    let Some(engine) = redis(&[]) else { return };
    let (mut whole, ledger) = Whole::of(&engine);
    whole.postgres.restart().unwrap();
    ledger.wait_for_delivery();
    whole.postgres.kill().unwrap();
    whole.postgres.restart().unwrap();
    ledger.wait_for_delivery();
    let (gaps, _) = ledger.close();
    assert!(gaps >= 1, "{gaps} gaps");
}

#[test]
fn r08_a_failover_of_postgresql_to_another_timeline_is_a_gap() {
    let Some(engine) = redis(&[]) else { return };
    let (primary, standby) = primary_and_standby();
    let [first, second] = [primary.port(), standby.port()];
    let either = format!(
        "postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres?target_session_attrs=read-write&connect_timeout=10"
    );
    let engines = vec![engine.url()];
    let relays = (0..2).map(|_| RelayProcess::start(&either, &engines)).collect();
    let (mut whole, ledger) =
        Whole { postgres: primary, relays, engines: engines.clone() }.open(Some(&either), &engines);
    whole.postgres.stop_immediate().unwrap();
    promote(&standby);
    ledger.wait_for_delivery();
    let last = engine.ask("XREVRANGE notifyman:shop + - COUNT 1");
    assert!(last.contains("\nt\n2\n"), "{last}");
    let (gaps, _) = ledger.close();
    assert!(gaps >= 1, "{gaps} gaps");
}
