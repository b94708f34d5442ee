//! The feature `metrics`, on a real server.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder};
use metrics_util::debugging::DebuggingRecorder;
use notifyman::{Backoff, Event, NotificationManager};

use super::support::*;
use crate::support::metrics::Metrics;

/// Returns a recorder at an address that no other will have.
fn leaked<R>(recorder: R) -> &'static R {
    Box::leak(Box::new(recorder))
}

/// Iterates until the condition is true, and what makes it true has been handed over to the recorder.
fn iterate_until(nm: &mut NotificationManager, mut enough: impl FnMut(&NotificationManager) -> bool) {
    let begun = Instant::now();
    nm.set_timeout(Duration::from_millis(5));
    while !enough(nm) {
        assert!(begun.elapsed() < LIMIT, "{nm:?}");
        nm.next_event();
    }
    let mut idle = 0;
    while idle < 2 {
        idle += usize::from(matches!(nm.next_event(), Some(Event::Idle)));
    }
}

#[test]
fn a_loss_a_restore_a_gap_and_a_canary_are_in_the_metrics_under_the_connection() {
    let recorder = leaked(DebuggingRecorder::new());
    let (snapshotter, mut metrics) = (recorder.snapshotter(), Metrics::default());
    with_local_recorder(recorder, || {
        let channel = channel();
        let mut nm = NotificationManager::new([]).reconnect(Backoff::default().first(Duration::from_millis(1)));
        nm = nm.canary_at_any_pace("canary of metrics", Duration::from_millis(50), LIMIT);
        let berlin = nm.insert_as("berlin", listener(&channel));
        let plain = nm.insert(listener(&channel));
        let plain_key = format!("connection={}", plain.name().unwrap());
        let notify = |payload: &str| open().notify(&channel, payload).unwrap();
        notify("1");
        notify("2");
        iterate_until(&mut nm, |nm| nm.stats().notifications == 4 && nm.stats().canary_time.is_some());
        metrics.update(&snapshotter);
        assert_eq!(metrics.gauge("notifyman_connections{connection=berlin,state=open}"), 1.0);
        assert_eq!(metrics.counter("notifyman_notifications_total{connection=berlin}"), 2, "{metrics:#?}");
        assert_eq!(metrics.counter(&format!("notifyman_notifications_total{{{plain_key}}}")), 2, "{metrics:#?}");
        assert!(metrics.counter("notifyman_received_bytes_total{connection=berlin}") > 50);

        terminate(nm.get(berlin).unwrap().pid());
        iterate_until(&mut nm, |nm| nm.stats().losses == 1 && nm.stats().restores == 1);
        iterate_until(&mut nm, |nm| nm.stats().gaps == 1);
        metrics.update(&snapshotter);
        for name in ["losses", "restores", "gaps", "connection_attempts"] {
            assert_eq!(metrics.counter(&format!("notifyman_{name}_total{{connection=berlin}}")), 1, "{metrics:#?}");
            assert_eq!(metrics.counter(&format!("notifyman_{name}_total{{{plain_key}}}")), 0);
        }
        assert_eq!(metrics.counter("notifyman_failed_connection_attempts_total{connection=berlin}"), 0);
        let canaries = metrics.histogram("notifyman_canary_delivery_seconds{connection=berlin}");
        assert!(!canaries.is_empty() && canaries.iter().all(|time| *time < 30.0), "{canaries:?}");

        let of_state = |metrics: &Metrics| {
            ["open", "restoring", "lost"]
                .map(|state| metrics.gauge(&format!("notifyman_connections{{connection=berlin,state={state}}}")))
        };
        assert_eq!(of_state(&metrics), [1.0, 0.0, 0.0]);
        nm = nm.reconnect(Backoff::default().first(LIMIT));
        terminate(nm.get(berlin).unwrap().pid());
        iterate_until(&mut nm, |nm| nm.stats().losses == 2);
        metrics.update(&snapshotter);
        assert_eq!(of_state(&metrics), [0.0, 1.0, 0.0]);
        drop(nm);
        metrics.update(&snapshotter);
        assert_eq!(of_state(&metrics), [0.0, 0.0, 0.0], "a dropped manager leaves the gauges");
        assert_eq!(metrics.gauge(&format!("notifyman_connections{{{plain_key},state=open}}")), 0.0);
        assert_eq!(metrics.undescribed, Vec::<String>::new());
    });
}

#[test]
fn connections_of_one_name_have_one_series_in_every_manager() {
    let recorder = leaked(DebuggingRecorder::new());
    let (snapshotter, mut metrics) = (recorder.snapshotter(), Metrics::default());
    let mut nm = NotificationManager::new((0..10).map(|_| open())).timeout(Duration::ZERO);
    assert!(nm.next().is_none(), "turns without a recorder");
    let name = format!("connection={}", nm.connections().next().unwrap().0.name().unwrap());
    with_local_recorder(recorder, || {
        let mut other = NotificationManager::new([open()]).timeout(Duration::ZERO);
        other.next();
        // A recorder that is installed late has all gauges.
        nm.insert(open());
        nm.next();
        metrics.update(&snapshotter);
        assert_eq!(metrics.gauge(&format!("notifyman_connections{{{name},state=open}}")), 12.0, "{metrics:#?}");
        assert!(metrics.len() < 6, "{metrics:#?}");
        for id in ids(&nm) {
            nm.remove(id);
        }
        nm.next();
        metrics.update(&snapshotter);
        assert_eq!(metrics.gauge(&format!("notifyman_connections{{{name},state=open}}")), 1.0, "{metrics:#?}");
        drop(other);
    });
}

/// A recorder that panics when a counter is registered.
#[derive(Default)]
struct PanickingRecorder(AtomicUsize);

impl Recorder for PanickingRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        self.0.fetch_add(1, Relaxed);
        panic!("a recorder's panic, which a test causes");
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_recorder_that_panics_does_not_end_the_loop_and_is_called_no_more() {
    let recorder = leaked(PanickingRecorder::default());
    with_local_recorder(recorder, || {
        let channel = channel();
        let mut nm = NotificationManager::new([listener(&channel)]);
        for payload in ["1", "2", "3"] {
            open().notify(&channel, payload).unwrap();
            let Some(Event::Notifies(_, batch)) = event(&mut nm) else { panic!("{nm:?}") };
            assert_eq!(payloads(&batch), [payload]);
        }
        drop(nm);
    });
    assert_eq!(recorder.0.load(Relaxed), 1);
}
