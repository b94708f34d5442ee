//! The memory of a fence: fixed, however many keys are used.

use std::sync::{Arc, Mutex};

use notifyman::fence::{Fence, FenceChannel, FloorQuestion, Lsn};

use crate::counted;

/// The limit of a fence with the default settings and one channel.
const LIMIT: i64 = 256 << 10;
const KEYS: u64 = 200_000;

/// Fills and invalidates many keys.
fn use_keys(prices: &FenceChannel<u64>) {
    for key in 0..KEYS {
        let lease = prices.begin(&key);
        prices.invalidate(&key, || ()).unwrap();
        assert!(!lease.admit(key, |_| ()).is_stored());
    }
    prices.invalidate_matching(|| ()).unwrap();
    prices.forget();
}

#[test]
fn f01_a_fence_has_a_fixed_size() {
    let (prices, created) = counted(|| Fence::new().channel::<u64>("prices"));
    assert!((90 << 10..LIMIT).contains(&created.bytes_current), "{created:?}");
    let ((), used) = counted(|| use_keys(&prices));
    assert_eq!(used.count_total, 0, "{used:?}");
}

#[test]
fn f04_the_floors_of_standbys_have_a_fixed_size_also_while_the_primary_does_not_answer() {
    let questions = Arc::new(Mutex::new(Vec::<FloorQuestion>::new()));
    let (prices, used) = counted(|| {
        let asked = questions.clone();
        let fence = Fence::builder().primary(move |question| asked.lock().unwrap().push(question)).build();
        let prices = fence.channel::<u64>("prices");
        use_keys(&prices);
        // So that the next question asks for all floors, and all are unknown again.
        let first = questions.lock().unwrap().pop().unwrap();
        first.answer(1, Lsn::from(1));
        use_keys(&prices);
        prices
    });
    assert_eq!(questions.lock().unwrap().len(), 1);
    assert!(used.bytes_max < LIMIT as u64, "{used:?}");
    drop(prices);
}
