//! Relays, a server, an engine and readers in one thread, with chosen faults: the leader, the takeover and the reader's rule that
//! ship, and a ledger. A failing case prints its seed.
//!
//! ```text
//!   world       the server and the engine, with their faults
//!   driver      relays that ship, readers, the ledger, the steps
//!   leadership  chosen cases: the lock, silent leaders, faults
//!   takeovers   chosen cases: claims, markers, histories
//! ```

mod driver;
mod leadership;
mod takeovers;
mod world;

use proptest::prelude::*;

use self::driver::{Simulation, Step};

fn steps(faults: bool) -> impl Strategy<Value = Vec<Step>> {
    let plain = prop_oneof![
        6 => (1..4_usize).prop_map(Step::Notify),
        8 => (0..3_usize, 1..5_usize).prop_map(|(at, most)| Step::Deliver(at, most)),
        6 => (0..600_u64).prop_map(Step::Pass),
        4 => (0..2_usize, 1..6_usize).prop_map(|(at, count)| Step::Read(at, count)),
    ];
    let faulty = prop_oneof![
        (0..3_usize).prop_map(Step::LoseSession),
        (0..3_usize).prop_map(Step::Freeze),
        (0..3_usize).prop_map(Step::Thaw),
        (0..3_usize).prop_map(Step::Kill),
        (0..3_usize).prop_map(Step::Partition),
        Just(Step::Reconnect),
        (1..3_usize).prop_map(Step::LoseAnswers),
        (1..6_usize).prop_map(Step::RollBack),
        (1..9_usize).prop_map(Step::Trim),
        Just(Step::Delete),
        any::<bool>().prop_map(Step::LieAboutLock),
        any::<bool>().prop_map(Step::RefuseWrites),
        (0..100_000_u64).prop_map(Step::SetClock),
        (5_000..30_000_u64).prop_map(Step::Pass),
    ];
    let step = if faults { prop_oneof![4 => plain, 1 => faulty].boxed() } else { plain.boxed() };
    proptest::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r05_each_notification_is_delivered_or_covered_by_a_gap(relays in 1..4_usize, steps in steps(true)) {
        let mut simulation = Simulation::new(relays, 2);
        steps.iter().for_each(|step| simulation.step(step));
        simulation.finish();
    }

    #[test]
    fn r05_a_leader_that_is_killed_leaves_no_gap(
        before in steps(false),
        after in steps(false),
        at in 0..2_usize,
    ) {
        let mut simulation = Simulation::new(2, 2);
        before.iter().for_each(|step| simulation.step(step));
        simulation.run_all(1);
        simulation.step(&Step::Kill(at));
        // It is started again at the end.
        simulation.step(&Step::Freeze(at));
        after.iter().for_each(|step| simulation.step(step));
        simulation.finish();
        for reader in &simulation.readers {
            prop_assert_eq!(reader.gaps, 0);
        }
    }
}
