//! Writers, readers with slow fills, and a link that is cut: no hit is stale. See [`fence_load`].
//!
//! `benches/fence_load.rs` runs the same load for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notifyman::fence::Admission;

use crate::support::fence_load::{self, CachedItem, FenceFindings, FenceLoad, ItemCache};
use crate::support::{Options, server};

fn run(load: FenceLoad) -> FenceFindings {
    let server = server::start(Options::new());
    let cache: Arc<dyn ItemCache> = Arc::new(Mutex::<HashMap<u64, CachedItem>>::default());
    fence_load::run(load, &server, cache, 18)
}

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn f01_no_hit_is_stale_while_writers_change_items_and_the_link_is_cut() {
    let load =
        FenceLoad { has_fence: true, operations: 100_000, invalidations: 2_000, held: 20, cuts: 8, limit: LIMIT };
    let findings = run(load);
    assert_eq!((findings.stale, findings.stale_as_of, findings.held_stored), (0, 0, 0), "{findings:#?}");
    assert!(findings.operations() >= load.operations && findings.hit_rate() >= 0.5, "{findings:#?}");
    assert!(findings.invalidations >= load.invalidations && findings.cuts >= load.cuts, "{findings:#?}");
    // What the load is for has happened.
    let fills = |admission| findings.fills.get(&admission).copied().unwrap_or_default();
    let is_exercised = [Admission::Stored, Admission::Invalidated, Admission::Away].map(fills);
    assert!(is_exercised.iter().all(|fills| *fills > 0) && findings.held > 0, "{findings:#?}");
    assert!(findings.judged_as_of > 0, "{findings:#?}");
}

#[test]
fn f01_without_a_fence_fills_that_are_held_make_hits_stale() {
    let load = FenceLoad { has_fence: false, operations: 20_000, invalidations: 200, held: 20, cuts: 0, limit: LIMIT };
    let findings = run(load);
    assert!(findings.held > 0 && findings.stale > 0, "{findings:#?}");
}
