//! The explored scenarios: each with the shipped design, and with each guard removed that it must detect.

use super::rotation::Age;
use super::{EventBudget, ModelConfig, Mutant, ReadRule, ReaderKind, StateSearch};

const NOTHING: EventBudget = EventBudget {
    polls: u8::MAX,
    drops: 0,
    rollbacks: 0,
    saves: 0,
    rotations: 0,
    reader_crashes: 0,
    losses: 0,
    crashes: 0,
    restarts: 0,
};

/// A reader without faults, which reads every change without a gap.
const SNAPSHOTS: ModelConfig = ModelConfig {
    rule: ReadRule::Difference,
    mutant: None,
    rows: &[&[0, 1], &[1, 2], &[3, 0]],
    readers: &[ReaderKind::Client],
    page: 2,
    splits_changes: false,
    splits_polls: false,
    splits_blocks: false,
    chooses_table: false,
    ages: &[],
    budget: EventBudget { rollbacks: 1, ..NOTHING },
    has_era: true,
    has_foreign: false,
    may_have_gaps: false,
};

#[track_caller]
fn prove(config: &ModelConfig) {
    let start = crate::clock::now();
    let (states, ends) = StateSearch::run(config).unwrap();
    println!("{states} states, {ends} ends, {:?}", start.elapsed());
    assert!(ends > 0);
}

/// Asserts that an error is found, and is the expected one.
#[track_caller]
fn refute(config: &ModelConfig, expected: &str) {
    let error = StateSearch::run(config).unwrap_err();
    println!("{error}");
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn each_change_is_delivered_once_and_in_order() {
    prove(&SNAPSHOTS);
    prove(&ModelConfig { page: 1, ..SNAPSHOTS });
}

#[test]
fn numbers_above_the_last_lose_changes() {
    refute(&ModelConfig { rule: ReadRule::NumberAbove, page: 9, ..SNAPSHOTS }, "change");
}

#[test]
fn reading_below_the_oldest_transaction_delays_changes() {
    refute(&ModelConfig { rule: ReadRule::BelowXmin, ..SNAPSHOTS }, "change");
}

#[test]
fn wrong_polls_are_detected() {
    refute(&ModelConfig { mutant: Some(Mutant::NoRunning), ..SNAPSHOTS }, "change");
    refute(&ModelConfig { mutant: Some(Mutant::TwoStatements), splits_polls: true, ..SNAPSHOTS }, "change");
    refute(&ModelConfig { mutant: Some(Mutant::PageOfNow), page: 1, ..SNAPSHOTS }, "change");
}

/// The consumer crashes at any time, and continues at its saved position.
const EXACTLY_ONCE: ModelConfig =
    ModelConfig { rows: &[&[0, 1], &[1], &[2]], budget: EventBudget { reader_crashes: 1, ..NOTHING }, ..SNAPSHOTS };

#[test]
fn a_position_that_is_saved_with_effects_gives_each_change_once() {
    prove(&ModelConfig { page: 1, ..EXACTLY_ONCE });
}

/// The position is saved at times, and sessions are lost.
const NAMED: ModelConfig = ModelConfig {
    rows: &[&[0, 1], &[1]],
    readers: &[ReaderKind::Named],
    page: 1,
    budget: EventBudget { saves: 2, losses: 1, reader_crashes: 1, polls: 5, ..NOTHING },
    ..SNAPSHOTS
};

#[test]
fn a_name_continues_after_acknowledged_changes() {
    prove(&NAMED);
}

/// The log is full at times.
const FULL: ModelConfig = ModelConfig {
    rows: &[&[0, 1], &[2]],
    splits_polls: true,
    budget: EventBudget { drops: 2, polls: 3, ..NOTHING },
    may_have_gaps: true,
    ..SNAPSHOTS
};

#[test]
fn changes_that_are_not_appended_are_gaps() {
    prove(&FULL);
    for mutant in [Mutant::NoBound, Mutant::BoundIsXmax, Mutant::BoundBeforeCount] {
        refute(&ModelConfig { mutant: Some(mutant), ..FULL }, "change");
    }
}

/// The database keeps the position of the reader, and the rows that it has not read.
const ROTATED: ModelConfig = ModelConfig {
    rows: &[&[0], &[0]],
    readers: &[ReaderKind::Named],
    page: 1,
    ages: &[Age::Rows],
    budget: EventBudget { saves: 2, rotations: 3, ..NOTHING },
    ..SNAPSHOTS
};

#[test]
fn a_rotation_removes_nothing_that_a_position_needs() {
    let budget = EventBudget { saves: 1, rotations: 2, ..NOTHING };
    prove(&ModelConfig { budget, ..ROTATED });
    prove(&ROTATED);
    for mutant in [Mutant::NoPositionCheck, Mutant::CheckBeforeLock, Mutant::TruncatedWhole] {
        refute(&ModelConfig { mutant: Some(mutant), splits_blocks: true, ..ROTATED }, "a gap without a cause");
    }
}

/// Rows are removed before they have been read.
const FORCED: ModelConfig = ModelConfig {
    rows: &[&[0], &[0, 1]],
    page: 1,
    ages: &[Age::All, Age::Young],
    chooses_table: true,
    splits_changes: true,
    budget: EventBudget { rotations: 3, ..NOTHING },
    may_have_gaps: true,
    ..SNAPSHOTS
};

#[test]
fn changes_that_are_removed_are_gaps() {
    prove(&FORCED);
    for mutant in [Mutant::NoTruncated, Mutant::TruncateUnlocked] {
        refute(&ModelConfig { mutant: Some(mutant), ..FORCED }, "change");
    }
}

/// The era begins while transactions are open.
const FIRST_ERA: ModelConfig = ModelConfig {
    rows: &[&[0, 1], &[1]],
    splits_changes: true,
    splits_blocks: true,
    has_era: false,
    may_have_gaps: true,
    budget: EventBudget { rotations: 1, ..NOTHING },
    ages: &[Age::Young],
    page: 1,
    ..SNAPSHOTS
};

#[test]
fn an_era_that_begins_while_transactions_are_open_loses_none() {
    prove(&FIRST_ERA);
    for mutant in [Mutant::NoEraBound, Mutant::BoundIsXmax, Mutant::NumberBeforeXid] {
        refute(&ModelConfig { mutant: Some(mutant), ..FIRST_ERA }, "change");
    }
}

#[test]
fn rows_of_another_cluster_are_not_delivered() {
    prove(&ModelConfig { has_foreign: true, ..FIRST_ERA });
    refute(&ModelConfig { has_foreign: true, mutant: Some(Mutant::NoFloor), ..FIRST_ERA }, "a row");
}

#[test]
fn reading_from_a_time_on_loses_no_change() {
    for back in [None, Some(0), Some(1)] {
        let readers: &'static [ReaderKind] = match back {
            None => &[ReaderKind::Since(None)],
            Some(0) => &[ReaderKind::Since(Some(0))],
            _ => &[ReaderKind::Client, ReaderKind::Since(Some(0))],
        };
        let polls = if readers.len() > 1 { 5 } else { u8::MAX };
        prove(&ModelConfig { readers, budget: EventBudget { polls, ..FIRST_ERA.budget }, ..FIRST_ERA });
        let budget = EventBudget { drops: 1, polls: 5, ..NOTHING };
        prove(&ModelConfig { readers, budget, ..FIRST_ERA });
    }
}

/// The server crashes, and loses the last commits.
const CRASHED: ModelConfig = ModelConfig {
    rows: &[&[0], &[0], &[1]],
    splits_blocks: true,
    may_have_gaps: true,
    budget: EventBudget { crashes: 1, ..NOTHING },
    ..SNAPSHOTS
};

#[test]
fn a_crash_that_loses_commits_is_a_gap() {
    prove(&CRASHED);
    prove(&ModelConfig {
        budget: EventBudget { drops: 1, polls: 4, ..CRASHED.budget },
        rows: &[&[0], &[1]],
        ..CRASHED
    });
    prove(&ModelConfig {
        readers: &[ReaderKind::Named],
        rows: &[&[0], &[0]],
        budget: EventBudget { saves: 1, ..CRASHED.budget },
        ..CRASHED
    });
    refute(&ModelConfig { mutant: Some(Mutant::NoStart), ..CRASHED }, "change");
}

/// The number of dropped changes may be the same again after a crash has set it back.
#[test]
fn a_crash_that_sets_the_number_of_dropped_changes_back_is_detected() {
    let budget = EventBudget { drops: 2, polls: 4, ..CRASHED.budget };
    prove(&ModelConfig { budget, rows: &[&[0], &[1]], ..CRASHED });
}

#[test]
fn a_clean_restart_is_no_gap() {
    prove(&ModelConfig { rows: &[&[0, 1], &[1], &[2]], budget: EventBudget { restarts: 1, ..NOTHING }, ..SNAPSHOTS });
}

/// The scenarios with larger bounds, which take too long for every test run.
#[test]
#[ignore = "takes minutes"]
fn larger_bounds() {
    let many: &[&[u8]] = &[&[0, 1], &[1, 2], &[3, 0]];
    prove(&ModelConfig { page: 1, budget: EventBudget { reader_crashes: 1, ..NOTHING }, ..SNAPSHOTS });
    prove(&ModelConfig { rows: &[&[0], &[1], &[2]], budget: EventBudget { polls: 4, drops: 2, ..NOTHING }, ..FULL });
    prove(&ModelConfig {
        rows: &[&[0], &[0], &[1]],
        page: 2,
        budget: EventBudget { saves: 1, rotations: 2, ..NOTHING },
        ..ROTATED
    });
    prove(&ModelConfig { rows: &[&[0], &[0], &[1, 2]], ..FORCED });
    prove(&ModelConfig { rows: many, budget: EventBudget { restarts: 2, ..NOTHING }, ..SNAPSHOTS });
    prove(&ModelConfig { budget: EventBudget { drops: 1, polls: 4, ..CRASHED.budget }, ..CRASHED });
    prove(&ModelConfig { readers: &[ReaderKind::Client, ReaderKind::Since(Some(0))], ..FIRST_ERA });
}
