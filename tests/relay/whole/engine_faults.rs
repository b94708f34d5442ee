//! Engines that are cut off, lose data, have no memory, or fail over.

use std::thread;
use std::time::Duration;

use super::super::support::redis;
use super::Whole;
use crate::support::server::eventually;
use crate::support::{EngineKind, Proxy};

#[test]
fn r08_relays_that_are_cut_off_from_the_engine_keep_what_they_receive() {
    let Some(engine) = redis(&[]) else { return };
    let proxy = Proxy::start(([127, 0, 0, 1], engine.port).into());
    let (whole, ledger) = Whole::start(&[format!("redis://{}", proxy.addr())], &[engine.url()]);
    proxy.black_hole();
    thread::sleep(Duration::from_secs(3));
    proxy.resume();
    ledger.wait_for_delivery();
    proxy.cut_rst();
    ledger.wait_for_delivery();
    whole.leader();
    assert_eq!(ledger.close().0, 0);
}

#[test]
fn r08_an_engine_without_memory_loses_nothing() {
    let Some(engine) = redis(&[]) else { return };
    let (_whole, ledger) = Whole::of(&engine);
    // The second time is longer than the silence after which a leader is replaced, and its history would be lost.
    for millis in [1_000, 4_000] {
        engine.ask("CONFIG SET maxmemory 1");
        thread::sleep(Duration::from_millis(millis));
        engine.ask("CONFIG SET maxmemory 0");
        ledger.wait_for_delivery();
    }
    assert_eq!(ledger.close().0, 0);
}

#[test]
fn r08_a_paused_engine_loses_nothing() {
    let Some(engine) = redis(&[]) else { return };
    let (_whole, ledger) = Whole::of(&engine);
    engine.pause();
    thread::sleep(Duration::from_secs(2));
    engine.resume();
    ledger.wait_for_delivery();
    assert_eq!(ledger.close().0, 0);
}

#[test]
fn r08_what_an_engine_forgets_is_delivered_or_a_gap() {
    for fault in ["kill", "snapshot", "DEL notifyman:shop", "FLUSHALL", "XTRIM notifyman:shop MAXLEN 1"] {
        println!("{fault}");
        let Some(mut engine) = redis(&[]) else { return };
        let (_whole, ledger) = Whole::of(&engine);
        match fault {
            "kill" => {
                engine.kill();
                engine.restart();
            }
            "snapshot" => {
                engine.ask("SAVE");
                thread::sleep(Duration::from_millis(300));
                engine.kill();
                engine.restart();
            }
            command => drop(engine.ask(command)),
        }
        ledger.wait_for_delivery();
        thread::sleep(Duration::from_millis(500));
        let (gaps, sent) = ledger.close();
        println!("{gaps} gaps, {sent} sent");
    }
}

#[test]
fn r08_what_is_lost_in_a_failover_of_the_engine_is_delivered_or_a_gap() {
    let Some(mut master) = redis(&[]) else { return };
    let replica = master.start_replica(EngineKind::Redis);
    let engines = [master.url(), replica.url()];
    let (_whole, ledger) = Whole::start(&engines, &engines);
    // Acknowledged by the master from now on, and lost.
    replica.ask(&format!("REPLICAOF 127.0.0.1 {}", crate::support::server::refusing_port()));
    ledger.wait_for_delivery();
    thread::sleep(Duration::from_millis(300));
    master.kill();
    eventually("the replica is promoted", || replica.ask("REPLICAOF NO ONE") == "OK");
    ledger.wait_for_delivery();
    let (gaps, sent) = ledger.close();
    println!("{gaps} gaps, {sent} sent");
}
