//! Links that fail in both directions, or in one.

use std::thread;
use std::time::{Duration, Instant};

use super::super::support::redis;
use super::{RelayLinks, Whole};
use crate::support::Proxy;
use crate::support::server::eventually;

/// The directions in which nothing is forwarded.
const HELD: [fn(&Proxy); 2] = [Proxy::black_hole_to_server, Proxy::black_hole_to_client];

#[test]
fn r08_both_relays_that_are_cut_off_from_postgresql_have_a_gap() {
    let Some(engine) = redis(&[]) else { return };
    let (whole, ledger, links) = Whole::with_links(&engine);
    links.iter().for_each(|links| links.postgres.black_hole());
    let begin = Instant::now();
    eventually("both have noticed it", || {
        whole.relays.iter().all(|relay| relay.role().is_some_and(|it| it.starts_with("away")))
    });
    // Not only after the half minute that a request may take by default.
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    links.iter().for_each(|links| links.postgres.resume());
    ledger.wait_for_delivery();
    let (gaps, _) = ledger.close();
    assert!(gaps >= 1, "{gaps} gaps");
}

#[test]
fn r08_a_leader_with_a_link_that_is_half_open_in_one_direction_loses_nothing() {
    // Concurrently, since most of the time is spent waiting.
    thread::scope(|scope| {
        scope.spawn(|| hold(|links| &links.postgres));
        scope.spawn(|| hold(|links| &links.engine));
    });
}

/// Holds what the leader sends on a link, and then what the next leader receives on it.
fn hold(of: fn(&RelayLinks) -> &Proxy) {
    let Some(engine) = redis(&[]) else { return };
    let (whole, ledger, links) = Whole::with_links(&engine);
    for (number, hold) in HELD.into_iter().enumerate() {
        if number > 0 {
            eventually("the other one is a candidate", || whole.candidate().is_some());
            // Until both have received the same canary.
            thread::sleep(Duration::from_millis(2500));
        }
        let link = of(&links[whole.leader()]);
        hold(link);
        // Until another relay leads, or nothing was needed.
        thread::sleep(Duration::from_secs(3));
        ledger.wait_for_delivery();
        link.resume();
        ledger.wait_for_delivery();
    }
    assert_eq!(ledger.close().0, 0);
}
