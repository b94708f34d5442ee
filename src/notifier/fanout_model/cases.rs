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
    assert!(harness.subscribers[1].take_unlocked(&visit, &reader).is_some());
}
