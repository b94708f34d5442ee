//! Single cases: the way in which a notification is taken, which the comparison with the naive model does not show.

use super::*;

#[test]
fn n07_a_portion_is_read_once_it_is_published_on_all_channels_of_a_subscriber() {
    // Of three, the loop notes which have unread notifications.
    for channels in [2, 3] {
        let mut harness = Harness::new(&[Queue::default()]);
        let labels: Vec<_> = (0..channels)
            .map(|c| {
                harness.run(Step::Subscribe(0, c));
                Arc::clone(&harness.naive[0].channels[&c].0)
            })
            .collect();
        let mut portion = [0, 1].map(|c| harness.channels[c].entries());
        for (position, c) in [(1, 0), (2, 1), (3, 0)] {
            portion[c].push(position, Notification::for_test(&c.to_string(), &position.to_string()).as_ref());
        }
        harness.channels.iter().zip(portion).for_each(|(channel, entries)| channel.publish(entries));
        let (subscriber, channel, counters) = (&harness.subscribers[0], &*harness.channels[0], &harness.counters);
        let take = || {
            let (until, limits) = (channel.head(), LogLimits::default());
            let mut visit = Visit { subscription: &labels[0], channel, until, limits, counters };
            let mut reader = SegmentReader::default();
            match subscriber.take(&mut visit, &mut reader) {
                Taken::Idle => None,
                Taken::Logged(index) => Some(reader.entry(index).unwrap().position),
                Taken::Pending(PendingItem { content: PendingContent::Notification { notification, .. }, .. }) => {
                    Some(notification.as_ref().payload().parse().unwrap())
                }
                _ => panic!("a report or a folded notification"),
            }
        };
        subscriber.add_unread(&labels[0]);
        assert_eq!(take(), None);
        subscriber.add_unread(&labels[1]);
        counters.published.store(3, Relaxed);
        assert_eq!([take(), take(), take(), take()], [Some(1), Some(2), Some(3), None]);
    }
}

#[test]
fn n07_a_subscriber_that_keeps_up_needs_no_lock_although_another_one_keeps_the_log_long() {
    let mut harness = Harness::new(&[Queue::default(), Queue::default().bytes(400)]);
    harness.run(Step::Subscribe(0, 0));
    harness.run(Step::Subscribe(1, 0));
    let label = Arc::clone(&harness.naive[1].channels[&0].0);
    for _ in 0..20 {
        harness.publish(&[(0, 1), (0, 1)], None);
        let until = harness.channels[0].head();
        harness.visit(&label, until, usize::MAX, true);
    }
    harness.publish(&[(0, 1), (0, 1)], None);
    let (channel, counters) = (&*harness.channels[0], &harness.counters);
    assert!(channel.read(|log| log.bytes_from(log.base())) > 2_000);
    let (until, limits) = (channel.head(), LogLimits::default());
    let mut visit = Visit { subscription: &label, channel, until, limits, counters };
    let mut reader = SegmentReader::default();
    assert!(matches!(harness.subscribers[1].begin(&mut visit, &mut reader), Taken::Logged(_)));
    assert!(harness.subscribers[1].take_unlocked(&visit, &reader, 1).is_some());
}

/// Adds notifications to the log of the first channel, like a loop that has not finished the portion.
fn add_to_log(harness: &Harness, positions: std::ops::RangeInclusive<u64>) {
    let mut entries = harness.channels[0].entries();
    for position in positions {
        entries.push(position, Notification::for_test("0", &position.to_string()).as_ref());
    }
    harness.channels[0].publish(entries);
}

fn visit_of<'v>(harness: &'v Harness, label: &'v Arc<Label>) -> Visit<'v, Label> {
    let channel = &*harness.channels[label.1];
    let (until, limits) = (channel.head(), LogLimits::default());
    Visit { subscription: label, channel, until, limits, counters: &harness.counters }
}

/// Creates a subscriber that has read the first of two notifications when its turn ends.
fn harness_with_a_laggard() -> (Harness, Arc<Label>) {
    harness_after_calls(1)
}

/// Creates a subscriber with two notifications whose turn ends after some calls, and which has another one.
fn harness_after_calls(calls: usize) -> (Harness, Arc<Label>) {
    let mut harness = Harness::new(&[Queue::default()]);
    harness.run(Step::Subscribe(0, 0));
    harness.run(Step::Publish(vec![(0, 1), (0, 2)], None));
    harness.run(Step::Pass(0, calls));
    let label = Arc::clone(&harness.naive[0].channels[&0].0);
    (harness, label)
}

#[test]
fn n07_a_laggard_keeps_the_log_until_its_cursor_changes() {
    for change in [Step::Mute(0, 0), Step::Subscribe(0, 1), Step::Replace(0, 0), Step::Unsubscribe(0, 0)] {
        let (mut harness, _) = harness_with_a_laggard();
        let kept = |harness: &Harness| harness.channels[0].read(|log| log.head() - log.base());
        assert_eq!(kept(&harness), 2);
        harness.run(change.clone());
        assert_eq!(kept(&harness), 0, "{change:?}");
        harness.finish();
    }
}

/// The receivers of the channel have the new subscription before the subscriber does.
#[test]
fn n03_a_pass_in_the_middle_of_a_replacement_keeps_what_is_unread() {
    let (mut harness, label) = harness_with_a_laggard();
    harness.run(Step::Publish(vec![(0, 3)], None));
    let replacing = Arc::new(Label(0, 0));
    harness.channels[0].lock_receivers().replace(harness.places[&(0, 0)], Some(Arc::clone(&replacing)));
    harness.run(Step::Pass(0, usize::MAX));
    harness.subscribers[0].replace(&label, &replacing, &harness.counters);
    let refs = [label, Arc::clone(&replacing)].map(SubscriptionRef);
    harness.naive[0].pending.rename(&refs[0], &refs[1]);
    harness.naive[0].channels.insert(0, (replacing, false));
    harness.finish();
}

#[test]
fn n03_a_visit_of_a_replaced_subscription_delivers_what_arrived_since() {
    for calls in [1, 2] {
        let (mut harness, _) = harness_after_calls(calls);
        harness.run(Step::Replace(0, 0));
        harness.run(Step::Publish(vec![(0, 3)], None));
        // The subscriber is being served.
        harness.run(Step::Pass(0, usize::MAX));
        harness.run(Step::Resume(0, usize::MAX));
        assert_eq!(harness.naive[0].pending.len(), 0);
        harness.finish();
    }
}

#[test]
fn n03_a_visit_of_a_replaced_subscription_does_not_call_it_with_what_is_being_published() {
    let (mut harness, label) = harness_with_a_laggard();
    harness.run(Step::Replace(0, 0));
    add_to_log(&harness, 3..=3);
    let (mut visit, mut reader) = (visit_of(&harness, &label), SegmentReader::default());
    let mut take = || harness.subscribers[0].take(&mut visit, &mut reader);
    assert!(matches!(take(), Taken::Pending(item) if !Arc::ptr_eq(&item.to.0, &label)));
    assert!(matches!(take(), Taken::Idle));
}

#[test]
fn n07_the_limits_apply_to_what_arrives_during_a_visit() {
    // A notification takes 66 bytes.
    for queue in [Queue::default().items(3), Queue::default().bytes(3 * 66)] {
        let mut harness = Harness::new(&[queue]);
        harness.run(Step::Subscribe(0, 0));
        let label = Arc::clone(&harness.naive[0].channels[&0].0);
        add_to_log(&harness, 1..=3);
        let (mut visit, mut reader) = (visit_of(&harness, &label), SegmentReader::default());
        let subscriber = &harness.subscribers[0];
        assert!(matches!(subscriber.begin(&mut visit, &mut reader), Taken::Logged(0)));
        add_to_log(&harness, 4..=4);
        assert!(subscriber.take_unlocked(&visit, &reader, 1).is_some(), "three wait, which is the limit");
        add_to_log(&harness, 5..=6);
        assert!(subscriber.take_unlocked(&visit, &reader, 1).is_none(), "four wait");
        let Taken::Pending(PendingItem { content: PendingContent::Missed(report), .. }) =
            subscriber.take(&mut visit, &mut reader)
        else {
            panic!("no report of what was dropped");
        };
        assert_eq!(report.dropped(), 1);
    }
}

#[test]
fn n07_a_queue_that_is_too_full_when_its_check_is_planned_is_found() {
    for queue in [Queue::new(Policy::Disconnect).items(1), Queue::new(Policy::Disconnect).bytes(66)] {
        let mut harness = Harness::new(&[queue]);
        harness.run(Step::Subscribe(0, 0));
        add_to_log(&harness, 1..=1);
        assert!(harness.channels[0].due().count() > 0, "a notification is larger than the largest before");
        add_to_log(&harness, 2..=2);
        harness.counters.published.store(2, Relaxed);
        // Any change of the limits plans it again.
        harness.subscribers[0].set_queue(Queue { policy: Policy::DropNewest, ..queue }, &harness.counters);
        harness.subscribers[0].set_queue(queue, &harness.counters);
        assert_eq!(harness.channels[0].due().count(), 1);
        assert!(harness.subscribers[0].check(&harness.counters).is_some());
    }
}

/// Folded notifications of which the first one has been taken still take room.
#[test]
fn n07_what_waits_in_a_folded_window_counts_towards_the_limit_in_bytes() {
    let mut harness = Harness::new(&[Queue::new(Policy::Coalesce).bytes(8 * 128)]);
    harness.run(Step::Subscribe(0, 0));
    let add = |harness: &Harness, positions: std::ops::RangeInclusive<u64>| {
        let mut entries = harness.channels[0].entries();
        for position in positions {
            // 128 bytes each.
            entries.push(position, Notification::for_test("0", &format!("{position:063}")).as_ref());
        }
        harness.channels[0].publish(entries);
    };
    add(&harness, 1..=8);
    harness.counters.published.store(8, Relaxed);
    let label = Arc::clone(&harness.naive[0].channels[&0].0);
    let (mut visit, mut reader) = (visit_of(&harness, &label), SegmentReader::default());
    assert!(matches!(harness.subscribers[0].begin(&mut visit, &mut reader), Taken::Folded(0)));
    harness.channels[0].due().for_each(drop);
    assert!(harness.subscribers[0].check(&harness.counters).is_none());
    add(&harness, 9..=9);
    assert_eq!(harness.channels[0].due().count(), 0, "eight wait");
    add(&harness, 10..=10);
    assert_eq!(harness.channels[0].due().count(), 1, "nine wait");
}

#[test]
fn n07_a_restored_subscription_plans_no_check_of_the_other_channels() {
    let mut harness = Harness::new(&[Queue::new(Policy::DropNewest)]);
    harness.run(Step::Subscribe(0, 0));
    harness.run(Step::Subscribe(0, 1));
    let planned = |harness: &Harness| [0, 1].map(|c| harness.channels[c].planned_checks());
    let label = Arc::clone(&harness.naive[0].channels[&0].0);
    let before = planned(&harness);
    harness.subscribers[0].receive(&label, None, &harness.counters);
    assert_eq!(planned(&harness), before, "nothing has changed");
    harness.run(Step::Mute(0, 0));
    harness.run(Step::Unmute(0, 0));
    let after = planned(&harness);
    assert!(after[0] > before[0]);
    assert_eq!(after[1], before[1]);
}

/// Otherwise a loop that publishes before the check is planned could drop what the policy keeps.
#[test]
fn n07_the_loop_checks_for_all_that_arrives_while_a_check_is_planned() {
    for policy in [Policy::DropNewest, Policy::Coalesce, Policy::Disconnect] {
        let mut harness = Harness::new(&[Queue::default()]);
        harness.run(Step::Subscribe(0, 0));
        let planned_by = |harness: &mut Harness, step: Step| {
            let before = harness.channels[0].planned_checks();
            harness.run(step);
            harness.channels[0].planned_checks() - before
        };
        // First for anything that arrives, and then for the number that there is room for.
        assert_eq!(planned_by(&mut harness, Step::SetQueue(0, Queue::new(policy))), 2, "{policy:?}");
        harness.run(Step::Mute(0, 0));
        assert_eq!(planned_by(&mut harness, Step::Unmute(0, 0)), 2, "{policy:?}");
    }
}

#[test]
fn n07_checks_that_are_planned_again_in_a_round_are_due_in_the_next_one() {
    let mut harness = Harness::new(&[Queue::new(Policy::DropNewest).items(1), Queue::new(Policy::DropNewest).items(1)]);
    harness.run(Step::Subscribe(0, 0));
    harness.run(Step::Subscribe(1, 0));
    add_to_log(&harness, 1..=4);
    for _ in 0..2 {
        let mut due = Vec::new();
        for label in harness.channels[0].due() {
            // Not published yet, so the queue stays too full.
            harness.subscribers[label.0].check(&harness.counters);
            due.push(label.0);
        }
        assert_eq!(due, [0, 1]);
    }
}

#[test]
fn n07_a_queue_that_is_full_of_large_notifications_is_found() {
    let mut harness = Harness::new(&[Queue::new(Policy::Disconnect).bytes(1_000)]);
    harness.run(Step::Subscribe(0, 0));
    // The loop had no reason to expect more than one byte.
    harness.run(Step::Publish(vec![(0, 40); 3], None));
    assert!(harness.naive[0].channels.is_empty());
    harness.finish();
}

#[test]
fn n07_what_is_kept_of_many_dropped_notifications_holds_no_segment() {
    let mut harness = Harness::new(&[Queue::new(Policy::DropNewest).items(1)]);
    harness.run(Step::Subscribe(0, 0));
    let label = Arc::clone(&harness.naive[0].channels[&0].0);
    harness.run(Step::Publish(vec![(0, 1); 20], None));
    let taken = harness.subscribers[0].begin(&mut visit_of(&harness, &label), &mut SegmentReader::default());
    let Taken::Pending(PendingItem { content: PendingContent::Notification { notification, .. }, .. }) = taken else {
        panic!("the first notification waits");
    };
    assert!(matches!(notification, StoredNotification::Copied(_)));
}

#[test]
fn n07_a_log_of_short_notifications_does_not_keep_the_buffer_of_a_long_one() {
    let mut harness = Harness::new(&[Queue::default()]);
    harness.run(Step::Subscribe(0, 0));
    harness.run(Step::Publish(vec![(0, 255); 10], None));
    harness.run(Step::Pass(0, usize::MAX));
    harness.run(Step::Publish(vec![(0, 0)], None));
    let size = harness.channels[0].read(|log| log.segment(log.base()).unwrap().buffer_size());
    assert!(size < 100, "{size}");
}
