//! The limits on connection attempts, with real sockets. Their spread over time, and the costs of waiting, are proven on
//! simulated time, in `manager::fleet::simulation::statistics`.

use std::time::{Duration, Instant};

use notifyman::{Backoff, ConnId, Event, NotificationManager};

use super::crowd::Crowd;
use crate::support::server::LIMIT;

/// Iterates until a condition holds, and fails if that takes longer than the limit.
fn until(nm: &mut NotificationManager, what: &str, mut is_so: impl FnMut(&NotificationManager, Option<Event>) -> bool) {
    let begun = Instant::now();
    loop {
        let event = nm.next_event();
        assert!(event.is_some(), "{what}: it ended: {nm:?}");
        if is_so(nm, event) {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "not {what}: {nm:?}");
    }
}

fn ids(nm: &NotificationManager) -> Vec<ConnId> {
    nm.connections().map(|(id, _)| id).collect()
}

#[test]
fn m13_two_hundred_connections_are_restored_within_the_limits_and_under_their_ids() {
    let crowd = Crowd::start(Duration::from_millis(20));
    let backoff = Backoff::default()
        .first(Duration::from_millis(200))
        .longest(Duration::from_millis(400))
        .at_once(8)
        .per_second(200);
    let connections = crowd.listeners(200);
    let mut nm = NotificationManager::new(connections).timeout(Duration::from_millis(5)).reconnect(backoff);
    let all = ids(&nm);
    let lost = Instant::now();
    crowd.close_all(Duration::from_millis(100));
    let mut epochs = Vec::new();
    until(&mut nm, "all are restored", |_, event| {
        if let Some(Event::Restored(id, gap)) = event {
            epochs.push((id, gap.epoch()));
        }
        epochs.len() == 200
    });
    epochs.sort_unstable();
    assert_eq!(epochs, all.iter().map(|id| (*id, 1)).collect::<Vec<_>>());
    assert_eq!(ids(&nm), all);

    let dials = crowd.dials();
    assert!(crowd.most_concurrent() <= 8, "{} concurrently", crowd.most_concurrent());
    assert!(dials.len() >= 200);
    // At most 200 dials begin in a second. A busy machine can delay their arrival, but not advance it.
    for (at, n) in dials.iter().zip(0..) {
        assert!(*at >= lost + n * Duration::from_secs(1) / 200, "dial {n} after {:?}", *at - lost);
    }
}
