//! Schedules by seeds, for the unit tests that run threads over chosen interleavings.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
#[cfg(feature = "stream")]
use std::sync::{Arc, PoisonError};
#[cfg(feature = "stream")]
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

use crate::sync;

/// The number of schedules that share a seed.
const SCHEDULES: usize = 50;
/// The number of changes of priorities in a schedule of PCT.
const DEPTH: usize = 4;

/// Returns a number of a range, which the seed determines.
pub(crate) fn random(range: Range<usize>) -> usize {
    thread_rng().gen_range(range)
}

/// Returns `true` in one of `n` cases.
pub(crate) fn one_in(n: usize) -> bool {
    random(0..n) == 0
}

fn random_step() -> Duration {
    Duration::from_millis(if one_in(3) { 2 } else { 0 })
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    config.silence_warnings = true;
    // A seed is shorter than a schedule.
    config.failure_persistence = FailurePersistence::None;
    config
}

/// Runs a scenario under a scheduler.
pub(crate) fn run(
    scheduler: impl Scheduler + 'static,
    step: fn() -> Duration,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    Runner::new(scheduler, config()).run(move || sync::model(step, &scenario));
}

/// Runs a scenario under the schedules of some seeds, or of those that the environment names.
pub(crate) fn explore(name: &str, seeds: u64, scenario: fn()) {
    let seeds = match std::env::var("NOTIFYMAN_SEED") {
        Err(_) => 0..seeds,
        Ok(seeds) => match seeds.split_once("..") {
            Some((first, end)) => first.parse().unwrap()..end.parse().unwrap(),
            None => seeds.parse().unwrap()..seeds.parse::<u64>().unwrap() + 1,
        },
    };
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| match seed % 2 {
            0 => run(RandomScheduler::new_from_seed(seed, SCHEDULES), random_step, scenario),
            _ => run(PctScheduler::new_from_seed(seed, DEPTH, SCHEDULES), random_step, scenario),
        }));
        if let Err(cause) = result {
            println!("replay: NOTIFYMAN_SEED={seed} cargo test --lib interleavings::{name}");
            resume_unwind(cause);
        }
    }
}

/// A task of a model, which blocks its thread until its waker is called: a lost wake-up is a deadlock, which `shuttle`
/// reports.
#[cfg(feature = "stream")]
#[derive(Default)]
pub(crate) struct ModelTask(Arc<ModelWaker>);

#[cfg(feature = "stream")]
#[derive(Default)]
struct ModelWaker {
    is_woken: sync::Mutex<bool>,
    woken: sync::Condvar,
}

#[cfg(feature = "stream")]
impl Wake for ModelWaker {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.woken.notify_all();
    }
}

#[cfg(feature = "stream")]
impl ModelTask {
    /// Polls once. At times the waker is another one, as of a task that moves to another thread of its runtime.
    pub(crate) fn poll<T>(&mut self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if one_in(3) {
            self.0 = Arc::default();
        }
        poll(&mut Context::from_waker(&Waker::from(Arc::clone(&self.0))))
    }

    /// Polls until the result is ready.
    pub(crate) fn block_on<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        loop {
            if let Poll::Ready(result) = self.poll(&mut poll) {
                return result;
            }
            let mut is_woken = self.0.is_woken.lock().unwrap_or_else(PoisonError::into_inner);
            while !*is_woken {
                is_woken = self.0.woken.wait(is_woken).unwrap_or_else(PoisonError::into_inner);
            }
            *is_woken = false;
        }
    }
}
