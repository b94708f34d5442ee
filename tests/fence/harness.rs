//! Writers, readers with slow fills, and a link that is cut: no hit is stale. See [`fence_load`].
//!
//! `benches/fence_load.rs` runs the same load for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notifyman::fence::Admission;

use crate::support::fence_load::{self, CachedItem, FenceFindings, FenceLoad, ItemCache, LoadSource};
use crate::support::{Options, server};

fn run(load: FenceLoad) -> FenceFindings {
    let server = server::start(Options::new());
    let cache: Arc<dyn ItemCache> = Arc::new(Mutex::<HashMap<u64, CachedItem>>::default());
    fence_load::run(load, &server, cache, 18)
}

const LIMIT: Duration = Duration::from_secs(60);

fn assert_no_hit_is_stale(source: LoadSource) {
    let load = FenceLoad { source, operations: 100_000, invalidations: 2_000, held: 20, cuts: 8, limit: LIMIT };
    let findings = run(load);
    assert_eq!((findings.stale, findings.stale_as_of, findings.held_stored), (0, 0, 0), "{findings:#?}");
    assert!(findings.operations() >= load.operations && findings.hit_rate() >= 0.5, "{findings:#?}");
    assert!(findings.invalidations >= load.invalidations && findings.cuts >= load.cuts, "{findings:#?}");
    // The situations for which the load was made have occurred.
    let fills = |admission| findings.fills.get(&admission).copied().unwrap_or_default();
    let results = [Admission::Stored, Admission::Invalidated, Admission::Away].map(fills);
    assert!(results.iter().all(|fills| *fills > 0) && findings.held >= load.held, "{findings:#?}");
    assert!(findings.judged_as_of > 0, "{findings:#?}");
}

#[test]
fn f01_no_hit_is_stale_with_a_notifier_whose_link_is_cut() {
    assert_no_hit_is_stale(LoadSource::Notifier);
}

#[test]
fn f01_no_hit_is_stale_with_events_of_a_manager_whose_link_is_cut() {
    assert_no_hit_is_stale(LoadSource::Events);
}

#[test]
fn f01_without_a_fence_fills_that_are_held_make_hits_stale() {
    let source = LoadSource::NoFence;
    let findings = run(FenceLoad { source, operations: 20_000, invalidations: 200, held: 20, cuts: 0, limit: LIMIT });
    assert!(findings.held > 0 && findings.stale > 0, "{findings:#?}");
}
