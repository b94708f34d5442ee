//! The feature `metrics` in a notifier. Its threads use the recorder of the process, so each test has its own process.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use metrics_util::debugging::DebuggingRecorder;
use notifyman::notifier::{Delivery, Policy, Queue};

use super::support::*;
use crate::support::metrics::Metrics;
use crate::support::subprocess;

#[test]
fn callbacks_queues_and_drops_are_in_the_metrics() {
    subprocess::run("notifier::metrics::measure_a_notifier", "true", &[]);
}

#[test]
#[ignore = "runs in a process of its own"]
fn measure_a_notifier() {
    if !subprocess::is_subprocess() {
        return;
    }
    let recorder = DebuggingRecorder::new();
    let (snapshotter, mut metrics) = (recorder.snapshotter(), Metrics::default());
    recorder.install().unwrap();
    let channel = new_channel();
    let n = notifier();
    let (release, blocked) = mpsc::channel::<()>();
    n.subscribe(7, &channel, move |delivery| {
        if let Delivery::Notification(_) = delivery {
            let _ = blocked.recv();
        }
    })
    .unwrap();
    n.set_queue(&7, Queue::new(Policy::DropOldest).items(10)).unwrap();
    let send = |count: usize| (0..count).for_each(|i| n.notify(&channel, i.to_string()).wait(LIMIT).unwrap());
    let mut until = |what: &str, enough: &dyn Fn(&Metrics) -> bool| {
        let begun = Instant::now();
        while !enough(&metrics) {
            assert!(begun.elapsed() < LIMIT, "{what}: {metrics:#?}");
            std::thread::sleep(Duration::from_millis(10));
            metrics.update(&snapshotter);
        }
    };
    send(30);
    until("the queue is full", &|it| it.gauge("notifyman_queued_notifications") == 10.0);
    until("the subscriber is counted", &|it| it.gauge("notifyman_subscribers") == 1.0);
    until("drops are counted", &|it| it.counter("notifyman_dropped_notifications_total") == 19);
    drop(release);
    until("the rest is delivered", &|it| it.counter("notifyman_deliveries_total") == 11);
    until("the queue is empty", &|it| it.gauge("notifyman_queued_notifications") == 0.0);
    // More than one, if the callback began after the first drop.
    until("a report follows", &|it| it.counter("notifyman_missed_reports_total") > 0);
    until("callbacks are timed", &|it| it.histogram("notifyman_callback_seconds").iter().any(|time| *time > 0.05));
    assert_eq!(n.stats().dropped, 19);
    n.stop();
    until("a notifier that is stopped leaves the gauges", &|it| it.gauge("notifyman_subscribers") == 0.0);
    assert_eq!(metrics.undescribed, Vec::<String>::new());
}
