//! The scenarios that are explored: each as the design has it, and with each guard removed that it must detect.

use super::keep::Age;
use super::{Budget, Config, Mutant, ReaderKind, Rule, Search};

const NOTHING: Budget = Budget {
    looks: u8::MAX,
    drops: 0,
    rollbacks: 0,
    saves: 0,
    keeps: 0,
    reader_crashes: 0,
    losses: 0,
    crashes: 0,
    restarts: 0,
};

/// Snapshots alone: a live reader that reads whatever comes, without a gap.
const SNAPSHOTS: Config = Config {
    rule: Rule::Difference,
    mutant: None,
    rows: &[&[0, 1], &[1, 2], &[3, 0]],
    readers: &[ReaderKind::Client],
    page: 2,
    splits_changes: false,
    splits_looks: false,
    splits_blocks: false,
    chooses_table: false,
    ages: &[],
    budget: Budget { rollbacks: 1, ..NOTHING },
    has_era: true,
    has_foreign: false,
    may_have_gaps: false,
};

#[track_caller]
fn prove(config: &Config) {
    let start = crate::clock::now();
    let (states, ends) = Search::run(config).unwrap();
    println!("{states} states, {ends} ends, {:?}", start.elapsed());
    assert!(ends > 0);
}

/// Something wrong must be found, and this must be it.
#[track_caller]
fn refute(config: &Config, expected: &str) {
    let error = Search::run(config).unwrap_err();
    println!("{error}");
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn each_change_comes_once_and_in_order() {
    prove(&SNAPSHOTS);
    prove(&Config { page: 1, ..SNAPSHOTS });
}

#[test]
fn numbers_above_the_last_lose_changes() {
    refute(&Config { rule: Rule::NumberAbove, page: 9, ..SNAPSHOTS }, "change");
}

#[test]
fn transactions_below_the_oldest_are_not_all() {
    refute(&Config { rule: Rule::BelowXmin, ..SNAPSHOTS }, "change");
}

#[test]
fn wrong_looks_are_found_out() {
    refute(&Config { mutant: Some(Mutant::NoRunning), ..SNAPSHOTS }, "change");
    refute(&Config { mutant: Some(Mutant::TwoStatements), splits_looks: true, ..SNAPSHOTS }, "change");
    refute(&Config { mutant: Some(Mutant::PageOfNow), page: 1, ..SNAPSHOTS }, "change");
}

/// The consumer fails at any time, and continues where its position says.
const EXACTLY_ONCE: Config =
    Config { rows: &[&[0, 1], &[1], &[2]], budget: Budget { reader_crashes: 1, ..NOTHING }, ..SNAPSHOTS };

#[test]
fn a_position_that_is_kept_with_effects_makes_each_exactly_one() {
    prove(&Config { page: 1, ..EXACTLY_ONCE });
}

/// The position is saved now and then, and sessions are lost.
const NAMED: Config = Config {
    rows: &[&[0, 1], &[1]],
    readers: &[ReaderKind::Named],
    page: 1,
    budget: Budget { saves: 2, losses: 1, reader_crashes: 1, looks: 5, ..NOTHING },
    ..SNAPSHOTS
};

#[test]
fn a_name_continues_after_what_was_acknowledged() {
    prove(&NAMED);
}

/// The log is full at times.
const FULL: Config = Config {
    rows: &[&[0, 1], &[2]],
    splits_looks: true,
    budget: Budget { drops: 2, looks: 3, ..NOTHING },
    may_have_gaps: true,
    ..SNAPSHOTS
};

#[test]
fn changes_that_are_not_appended_are_gaps() {
    prove(&FULL);
    for mutant in [Mutant::NoBound, Mutant::BoundIsXmax, Mutant::BoundBeforeCount] {
        refute(&Config { mutant: Some(mutant), ..FULL }, "change");
    }
}

/// A reader whose position is in the database, and keeps what it has not read.
const ROTATED: Config = Config {
    rows: &[&[0], &[0]],
    readers: &[ReaderKind::Named],
    page: 1,
    ages: &[Age::Rows],
    budget: Budget { saves: 2, keeps: 3, ..NOTHING },
    ..SNAPSHOTS
};

#[test]
fn a_rotation_removes_nothing_that_a_position_needs() {
    let budget = Budget { saves: 1, keeps: 2, ..NOTHING };
    prove(&Config { budget, ..ROTATED });
    prove(&ROTATED);
    for mutant in [Mutant::NoPositionCheck, Mutant::CheckBeforeLock, Mutant::TruncatedWhole] {
        refute(&Config { mutant: Some(mutant), splits_blocks: true, ..ROTATED }, "a gap without a cause");
    }
}

/// Rows are removed that have not been read.
const FORCED: Config = Config {
    rows: &[&[0], &[0, 1]],
    page: 1,
    ages: &[Age::All, Age::Young],
    chooses_table: true,
    splits_changes: true,
    budget: Budget { keeps: 3, ..NOTHING },
    may_have_gaps: true,
    ..SNAPSHOTS
};

#[test]
fn changes_that_are_removed_are_gaps() {
    prove(&FORCED);
    for mutant in [Mutant::NoTruncated, Mutant::TruncateUnlocked] {
        refute(&Config { mutant: Some(mutant), ..FORCED }, "change");
    }
}

/// The era begins while transactions are open.
const FIRST_ERA: Config = Config {
    rows: &[&[0, 1], &[1]],
    splits_changes: true,
    splits_blocks: true,
    has_era: false,
    may_have_gaps: true,
    budget: Budget { keeps: 1, ..NOTHING },
    ages: &[Age::Young],
    page: 1,
    ..SNAPSHOTS
};

#[test]
fn an_era_that_begins_while_transactions_are_open_loses_none() {
    prove(&FIRST_ERA);
    for mutant in [Mutant::NoEraBound, Mutant::BoundIsXmax, Mutant::NumberBeforeXid] {
        refute(&Config { mutant: Some(mutant), ..FIRST_ERA }, "change");
    }
}

#[test]
fn rows_of_another_cluster_are_not_delivered() {
    prove(&Config { has_foreign: true, ..FIRST_ERA });
    refute(&Config { has_foreign: true, mutant: Some(Mutant::NoFloor), ..FIRST_ERA }, "a row");
}

#[test]
fn a_time_to_begin_at_loses_nothing() {
    for back in [None, Some(0), Some(1)] {
        let readers: &'static [ReaderKind] = match back {
            None => &[ReaderKind::Since(None)],
            Some(0) => &[ReaderKind::Since(Some(0))],
            _ => &[ReaderKind::Client, ReaderKind::Since(Some(0))],
        };
        let looks = if readers.len() > 1 { 5 } else { u8::MAX };
        prove(&Config { readers, budget: Budget { looks, ..FIRST_ERA.budget }, ..FIRST_ERA });
        let budget = Budget { drops: 1, looks: 5, ..NOTHING };
        prove(&Config { readers, budget, ..FIRST_ERA });
    }
}

/// The server crashes, and loses what was committed last.
const CRASHED: Config = Config {
    rows: &[&[0], &[0], &[1]],
    splits_blocks: true,
    may_have_gaps: true,
    budget: Budget { crashes: 1, ..NOTHING },
    ..SNAPSHOTS
};

#[test]
fn a_crash_that_loses_commits_is_a_gap() {
    prove(&CRASHED);
    prove(&Config { budget: Budget { drops: 1, looks: 4, ..CRASHED.budget }, rows: &[&[0], &[1]], ..CRASHED });
    prove(&Config {
        readers: &[ReaderKind::Named],
        rows: &[&[0], &[0]],
        budget: Budget { saves: 1, ..CRASHED.budget },
        ..CRASHED
    });
    refute(&Config { mutant: Some(Mutant::NoStart), ..CRASHED }, "change");
}

/// The count of what was not appended may be what it was before the crash that set it back.
#[test]
fn a_crash_that_sets_a_count_back_is_noticed() {
    let budget = Budget { drops: 2, looks: 4, ..CRASHED.budget };
    prove(&Config { budget, rows: &[&[0], &[1]], ..CRASHED });
}

#[test]
fn a_restart_is_no_gap() {
    prove(&Config { rows: &[&[0, 1], &[1], &[2]], budget: Budget { restarts: 1, ..NOTHING }, ..SNAPSHOTS });
}

/// The scenarios with larger bounds, which take too long for each run of the tests.
#[test]
#[ignore = "takes minutes"]
fn larger_bounds() {
    let many: &[&[u8]] = &[&[0, 1], &[1, 2], &[3, 0]];
    prove(&Config { page: 1, budget: Budget { reader_crashes: 1, ..NOTHING }, ..SNAPSHOTS });
    prove(&Config { rows: &[&[0], &[1], &[2]], budget: Budget { looks: 4, drops: 2, ..NOTHING }, ..FULL });
    prove(&Config { rows: &[&[0], &[0], &[1]], page: 2, budget: Budget { saves: 1, keeps: 2, ..NOTHING }, ..ROTATED });
    prove(&Config { rows: &[&[0], &[0], &[1, 2]], ..FORCED });
    prove(&Config { rows: many, budget: Budget { restarts: 2, ..NOTHING }, ..SNAPSHOTS });
    prove(&Config { budget: Budget { drops: 1, looks: 4, ..CRASHED.budget }, ..CRASHED });
    prove(&Config { readers: &[ReaderKind::Client, ReaderKind::Since(Some(0))], ..FIRST_ERA });
}
