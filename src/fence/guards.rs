//! The conditions of fills, invalidations and floors, one by one: each test fails without the condition that it names.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use crate::clock;
use crate::error::Error;
use crate::fence::channel::{ChannelCore, FenceCore};
use crate::fence::entry::Entry;
use crate::fence::epoch::{Bypass, LinkState, Serve};
use crate::fence::fill::Admission;
use crate::fence::floor::Lsn;
use crate::fence::floors::FloorQuestion;
use crate::fence::invalidator::Outdated;
use crate::fence::lease::Lease;
use crate::fence::removal::Removal;
use crate::fence::source::SourceId;

type Questions = Arc<Mutex<Vec<FloorQuestion>>>;

/// Returns a channel with an open source, and the questions to the primary.
fn open_channel() -> (Arc<ChannelCore>, SourceId, Questions) {
    let questions = Questions::default();
    let asked = Arc::clone(&questions);
    let fence = FenceCore::new(4, Some(Box::new(move |question| asked.lock().unwrap().push(question))));
    let channel = Arc::new(ChannelCore::new(&Arc::new(fence), "c", 0));
    let source = channel.add_source(None);
    channel.set_source(source, LinkState::Open);
    (channel, source, questions)
}

fn lease(channel: &ChannelCore, stripe: usize) -> Lease<'_> {
    Lease::new(channel, channel.begin::<Bypass>(stripe))
}

/// Makes a fill of stripe 0 from a standby that has replayed up to a position.
fn fill_on_standby(channel: &ChannelCore, replayed: u64) -> Admission {
    lease(channel, 0).on_standby(Lsn::from(replayed)).admit((), |_| ())
}

/// Fills stripe 0, and returns the entry.
fn stored(channel: &ChannelCore) -> Entry<u64> {
    let mut stored = None;
    assert!(lease(channel, 0).admit(7, |entry| stored = Some(entry)).is_stored());
    stored.unwrap()
}

fn answer(questions: &Questions, timeline: u32, lsn: u64) {
    let question = questions.lock().unwrap().pop().expect("a question waits");
    question.answer(timeline, Lsn::from(lsn));
}

fn waiting(questions: &Questions) -> usize {
    questions.lock().unwrap().len()
}

fn panics(run: impl FnOnce()) {
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
}

#[test]
fn f02_a_fill_that_saw_the_channel_closed_or_away_is_away() {
    let (channel, source, _) = open_channel();
    let begun_open = lease(&channel, 0);
    channel.set_source(source, LinkState::Away);
    let begun_away = lease(&channel, 0);
    assert_eq!(begun_open.admit((), |_| ()), Admission::Away);
    channel.set_source(source, LinkState::Open);
    assert_eq!(begun_away.admit((), |_| ()), Admission::Away);
    assert_eq!(channel.counters.refused.load(Relaxed), 2);
}

#[test]
fn f01_a_fill_is_refused_by_its_stripe_a_sweep_and_a_new_epoch_alone() {
    let (channel, ..) = open_channel();
    let refuses = |invalidate: &dyn Fn(), expected: [Admission; 2]| {
        let leases = [0, 1].map(|stripe| lease(&channel, stripe));
        invalidate();
        assert_eq!(leases.map(|lease| lease.admit((), |_| ())), expected);
    };
    refuses(&|| channel.invalidate(0, |_| ()).unwrap(), [Admission::Invalidated, Admission::Stored]);
    refuses(&|| channel.sweep(|| ()).unwrap(), [Admission::Invalidated; 2]);
    refuses(&|| channel.forget(), [Admission::Invalidated; 2]);
    assert_eq!(channel.counters.invalidated.load(Relaxed), 3);
}

#[test]
fn f05_a_removal_that_panics_forgets_everything_and_frees_the_lock() {
    let (channel, ..) = open_channel();
    let old = stored(&channel);
    panics(|| channel.invalidate(0, |_| panic!("in the cache")).unwrap());
    assert_eq!(channel.fresh::<Bypass, _>(&old), None, "it may not have been removed");
    let old = stored(&channel);
    panics(|| channel.sweep(|| panic!("in the cache")).unwrap());
    assert_eq!(channel.fresh::<Bypass, _>(&old), None);
    panics(|| {
        lease(&channel, 0).admit((), |_| panic!("in the cache"));
    });
    stored(&channel);
}

#[test]
fn f05_a_fence_that_is_used_inside_its_closures_forgets_and_fails() {
    let (channel, ..) = open_channel();
    let epoch = channel.epoch.number();
    let stripe = Arc::clone(&channel);
    channel
        .invalidate(0, |_| {
            assert!(matches!(stripe.invalidate(1, |_| ()), Err(Error::InsideFence)));
            assert!(matches!(stripe.sweep(|| ()), Err(Error::InsideFence)));
            assert!(Removal::begin(&stripe, 1_u64).is_err());
            assert_eq!(lease(&stripe, 1).admit((), |_| panic!("under another lock")), Admission::Reentrant);
        })
        .unwrap();
    assert_eq!(channel.epoch.number(), epoch + 3);
    assert_eq!(channel.counters.refused.load(Relaxed), 1);
    // The lock is free again, and so is the thread.
    channel.invalidate(0, |_| ()).unwrap();
    stored(&channel);
}

#[test]
fn f05_a_removal_is_pending_until_it_is_done_and_one_that_is_dropped_forgets() {
    let (channel, ..) = open_channel();
    let lease = || lease(&channel, channel.stripe_of(&7_u64));
    let confirmed = || {
        let (entry, confirming) = lease().unconfirmed(());
        assert_eq!(lease().fresh(&entry), None, "it is not confirmed");
        assert!(confirming.confirm().is_stored());
        entry
    };
    let entry = confirmed();
    let (before, removals) = (lease(), [0, 1].map(|_| Removal::begin(&channel, 7_u64).unwrap()));
    for removal in removals {
        assert_eq!(lease().fresh(&entry), None, "a removal is pending");
        removal.done();
    }
    assert_eq!(before.fresh(&entry), None, "a reader that had begun may have found it before it was removed");
    assert!(lease().fresh(&entry).is_some(), "the caller has removed it");
    let (epoch, before) = (channel.epoch.number(), lease());
    drop(Removal::begin(&channel, 7_u64).unwrap());
    assert_eq!(channel.epoch.number(), epoch + 1);
    assert_eq!((before.fresh(&entry), lease().fresh(&entry)), (None, None));
    assert!(lease().fresh(&confirmed()).is_some(), "no removal is pending");
    let (entry, confirming) = lease().unconfirmed(());
    channel.invalidate(channel.stripe_of(&7_u64), |_| ()).unwrap();
    assert_eq!(confirming.confirm(), Admission::Invalidated);
    assert_eq!(lease().fresh(&entry), None);
}

#[test]
fn f01_a_notification_without_an_invalidation_and_one_that_panics_forget() {
    let (channel, ..) = open_channel();
    let number = || channel.epoch.number();
    let outdated = || Outdated::<u64>::for_test(&channel);
    let mut epoch = number();
    drop(outdated());
    assert_eq!(number(), epoch + 1);
    outdated().nothing();
    outdated().key(&1, || ()).unwrap();
    outdated().matching(|| ()).unwrap();
    assert_eq!(number(), epoch + 1);
    epoch = number();
    panics(|| {
        let outdated = outdated();
        outdated.nothing();
        panic!("after the first of several keys");
    });
    assert_eq!(number(), epoch + 1);
}

#[test]
fn f02_a_source_that_is_back_forgets_what_it_missed_whatever_others_do() {
    for other in [LinkState::Closed, LinkState::Away, LinkState::Open] {
        let (channel, first, _) = open_channel();
        let second = channel.add_source(None);
        channel.set_source(second, other);
        channel.set_source(first, LinkState::Away);
        let (missed, epoch) = (channel.begin::<Serve>(0), channel.epoch.number());
        channel.set_source(first, LinkState::Open);
        assert_eq!(channel.epoch.number(), epoch + 1, "the other source is {other:?}");
        assert!(!channel.admit::<Serve>(&missed, |_| ()).is_stored());
        channel.set_source(first, LinkState::Open);
        assert_eq!(channel.epoch.number(), epoch + 1, "it was open already");
    }
}

#[test]
fn f02_a_source_that_ends_closes_the_channel_until_another_one_is_open() {
    let (channel, first, _) = open_channel();
    let second = channel.add_source(None);
    assert_eq!(channel.epoch.state(), LinkState::Closed, "nothing arrives from the second yet");
    channel.remove_source(second);
    assert_eq!(channel.epoch.state(), LinkState::Open, "it has protected nothing");
    let second = channel.add_source(None);
    channel.set_source(second, LinkState::Open);
    let entry = stored(&channel);
    channel.remove_source(second);
    assert_eq!(channel.epoch.state(), LinkState::Closed, "its keys are not invalidated any more");
    assert!(channel.fresh::<Serve, _>(&entry).is_none());
    let third = channel.add_source(None);
    channel.set_source(third, LinkState::Open);
    assert_eq!(channel.epoch.state(), LinkState::Open);
    assert!(channel.fresh::<Bypass, _>(&entry).is_none());
    for source in [first, first, third] {
        channel.remove_source(source);
        assert_eq!(channel.epoch.state(), LinkState::Closed);
    }
    channel.prove(first, Some(clock::now()));
    assert_eq!(channel.as_of(), None);
}

#[test]
fn f02_a_closed_source_is_not_away_when_its_connection_is_lost() {
    let (channel, source, _) = open_channel();
    channel.set_source(source, LinkState::Closed);
    channel.set_source(source, LinkState::Away);
    assert_eq!(channel.epoch.state(), LinkState::Closed);
    assert!(!channel.begin::<Serve>(0).epoch.is_open());
}

#[test]
fn f02_an_entry_of_another_channel_or_fence_is_not_fresh() {
    let (one, other) = (open_channel().0, open_channel().0);
    let entry = stored(&one);
    assert!(one.fresh::<Bypass, _>(&entry).is_some());
    assert!(other.fresh::<Bypass, _>(&entry).is_none());
}

// ---- standbys -------------------------------------------------------------------------------------------------------

#[test]
fn f04_without_a_way_to_ask_the_primary_fills_from_standbys_are_refused() {
    let channel = Arc::new(ChannelCore::new(&Arc::new(FenceCore::new(4, None)), "c", 0));
    channel.set_source(channel.add_source(None), LinkState::Open);
    assert_eq!(fill_on_standby(&channel, u64::MAX), Admission::Behind);
    assert!(lease(&channel, 0).admit((), |_| ()).is_stored());
}

#[test]
fn f04_each_invalidation_and_each_beginning_makes_the_floor_unknown_until_it_is_answered() {
    let (channel, source, questions) = open_channel();
    // An unknown floor is above each position.
    assert_eq!(fill_on_standby(&channel, u64::MAX), Admission::Behind);
    answer(&questions, 1, 100);
    assert!(fill_on_standby(&channel, 100).is_stored());
    assert_eq!(fill_on_standby(&channel, 99), Admission::Behind);
    assert_eq!(waiting(&questions), 0, "no floor is unknown");
    let invalidations: [(&str, &dyn Fn()); 5] = [
        ("key", &|| channel.invalidate(0, |_| ()).unwrap()),
        ("sweep", &|| channel.sweep(|| ()).unwrap()),
        ("forget", &|| channel.forget()),
        ("panic", &|| panics(|| channel.invalidate(0, |_| panic!("in the cache")).unwrap())),
        ("restored", &|| {
            channel.set_source(source, LinkState::Away);
            channel.set_source(source, LinkState::Open);
        }),
    ];
    for (lsn, (name, invalidate)) in (101..).zip(invalidations) {
        invalidate();
        // What may run under a lock, or while a panic unwinds, does not ask.
        assert_eq!(waiting(&questions), usize::from(!["panic", "restored"].contains(&name)), "{name}");
        assert_eq!(fill_on_standby(&channel, u64::MAX), Admission::Behind, "{name}");
        assert_eq!(waiting(&questions), 1, "{name}: one question at a time");
        answer(&questions, 1, lsn);
        assert_eq!(fill_on_standby(&channel, lsn - 1), Admission::Behind, "{name}");
        assert!(fill_on_standby(&channel, lsn).is_stored(), "{name}");
    }
    // The floor of a key is not that of others.
    channel.invalidate(1, |_| ()).unwrap();
    assert!(fill_on_standby(&channel, 105).is_stored());
}

#[test]
fn f04_an_answer_is_no_answer_for_what_was_invalidated_since_the_question() {
    type Invalidation = fn(&ChannelCore);
    for invalidate in [(|it| it.invalidate(0, |_| ()).unwrap()) as Invalidation, |it| it.sweep(|| ()).unwrap()] {
        let (channel, _, questions) = open_channel();
        channel.forget();
        answer(&questions, 1, 100);
        invalidate(&channel);
        invalidate(&channel);
        answer(&questions, 1, 200);
        assert_eq!(fill_on_standby(&channel, 1_000), Admission::Behind, "the second one is not answered");
        answer(&questions, 1, 300);
        assert_eq!(fill_on_standby(&channel, 299), Admission::Behind);
        assert!(fill_on_standby(&channel, 300).is_stored());
    }
}

#[test]
fn f04_a_question_that_is_dropped_is_asked_again_with_all_that_it_asked() {
    let (channel, _, questions) = open_channel();
    channel.forget();
    channel.invalidate(0, |_| ()).unwrap();
    answer(&questions, 1, 100);
    assert_eq!(waiting(&questions), 1, "the key was invalidated after the question");
    questions.lock().unwrap().clear();
    channel.invalidate(1, |_| ()).unwrap();
    assert_eq!(waiting(&questions), 1);
    answer(&questions, 1, 200);
    assert_eq!(fill_on_standby(&channel, 199), Admission::Behind);
    assert!(fill_on_standby(&channel, 200).is_stored());
    // Both kinds of floors, and also without another invalidation: a fill that needs the answer asks.
    channel.sweep(|| ()).unwrap();
    questions.lock().unwrap().clear();
    assert_eq!(fill_on_standby(&channel, 300), Admission::Behind);
    answer(&questions, 1, 300);
    assert!(fill_on_standby(&channel, 300).is_stored());
}

#[test]
fn f04_a_new_timeline_discards_the_floors_of_the_last_one() {
    let (channel, _, questions) = open_channel();
    channel.forget();
    answer(&questions, 1, 1_000);
    channel.invalidate(0, |_| ()).unwrap();
    answer(&questions, 1, 2_000);
    channel.invalidate(1, |_| ()).unwrap();
    channel.invalidate(2, |_| ()).unwrap();
    // The promoted standby had not replayed all of it. Stripe 2 was invalidated again after the question.
    answer(&questions, 2, 500);
    assert_eq!(fill_on_standby(&channel, 499), Admission::Behind);
    assert!(fill_on_standby(&channel, 500).is_stored(), "positions of the last timeline mean nothing");
    let fill_2 = |replayed| lease(&channel, 2).on_standby(Lsn::from(replayed)).admit((), |_| ());
    assert_eq!(fill_2(9_000), Admission::Behind, "it is still unknown");
    answer(&questions, 2, 600);
    assert_eq!((fill_2(599), fill_2(600)), (Admission::Behind, Admission::Stored));
    // Floors that the same timeline has answered stay as they are, and so does one that nothing has raised.
    assert!(fill_on_standby(&channel, 500).is_stored());
    let fill_3 = |replayed| lease(&channel, 3).on_standby(Lsn::from(replayed)).admit((), |_| ());
    assert!(fill_3(500).is_stored());
}

// ---- size -----------------------------------------------------------------------------------------------------------

/// A fence has counters for stripes, and not for keys: nothing is allocated for a key.
#[test]
fn f01_a_fence_does_not_grow_with_the_number_of_keys() {
    let (channel, _, questions) = open_channel();
    let run = |keys: std::ops::Range<u64>| {
        for key in keys {
            let stripe = channel.stripe_of(&key);
            channel.invalidate(stripe, |_| ()).unwrap();
            assert!(lease(&channel, stripe).admit(key, |_| ()).is_stored());
        }
    };
    // Each floor has been marked once, while the question is not answered.
    run(0..10_000);
    let allocated = allocation_counter::measure(|| run(10_000..50_000));
    assert_eq!((allocated.count_total, waiting(&questions)), (0, 1));
}
