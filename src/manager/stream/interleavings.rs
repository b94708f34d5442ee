//! The hand-over that ships, run over chosen interleavings of the loop's thread and of a task.
//!
//! The task waits until its waker is called, so a lost wake-up is a deadlock, which `shuttle` reports. `NOTIFYMAN_SEED=123`
//! replays the schedules of a seed: see `crate::sync::explore`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use shuttle::thread;

use super::waiting_events::WaitingEvents;
use super::{EndOnDrop, hand_over};
use crate::error::Error;
use crate::handoff::Handoff;
use crate::manager::conn_id::ConnId;
use crate::manager::event::Event;
use crate::notification::Batch;
use crate::sync::explore::{ModelTask, explore, one_in, random};
use crate::sync::{Condvar, Mutex};

/// Returns events of three connections, whose notifications are numbered from 1.
fn events() -> (Vec<Event>, BTreeMap<ConnId, i32>) {
    let mut sent = BTreeMap::new();
    let events = (0..random(1..9)).map(|_| {
        let id = ConnId::for_test(random(1..4) as u64);
        if one_in(4) {
            return Event::Disconnected(id, Error::Disconnected);
        }
        let number: &mut i32 = sent.entry(id).or_default();
        *number += 1;
        Event::Notifies(id, Batch::for_test(&[(*number, "c", "")]))
    });
    (events.collect(), sent)
}

/// A limit of some batches, or one that is not reached.
fn limit() -> usize {
    if one_in(3) { usize::MAX } else { random(0..4) * 300 }
}

/// The loop's thread ends with its events, and the task takes everything.
fn a_task_that_takes_everything() {
    let handoff = Arc::new(Handoff::new(WaitingEvents::new(limit())));
    let (events, sent) = events();
    let losses = events.iter().filter(|event| matches!(event, Event::Disconnected(..))).count();
    let end = EndOnDrop(Arc::clone(&handoff));
    let mut events = events.into_iter();
    let producer = thread::spawn(move || hand_over(&end.0, || events.next()));
    let mut task = ModelTask::default();
    let mut balance: BTreeMap<ConnId, (i32, i32)> = BTreeMap::new();
    let mut seen_losses = 0;
    while let Some(event) = task.block_on(|context| handoff.poll(context)) {
        match event {
            Event::Notifies(id, batch) => {
                let (count, last) = balance.entry(id).or_default();
                for n in &batch {
                    assert!(n.pid() > *last, "connection {id} received {} after {last}", n.pid());
                    (*count, *last) = (*count + 1, n.pid());
                }
            }
            Event::Restored(id, gap) => match gap.cause() {
                Error::TooSlow { dropped } => balance.entry(id).or_default().0 += *dropped as i32,
                cause => panic!("{cause}"),
            },
            Event::Disconnected(..) => seen_losses += 1,
            other => panic!("{other:?}"),
        }
    }
    producer.join().unwrap();
    assert!(task.block_on(|context| handoff.poll(context)).is_none(), "the end stays");
    let balance: BTreeMap<_, _> = balance.into_iter().map(|(id, (count, _))| (id, count)).collect();
    assert_eq!(balance, sent, "sent = delivered + reported");
    assert_eq!(seen_losses, losses, "no loss is dropped");
}

/// The task is dropped after some events, while the loop's thread has more, or waits for them until it is stopped.
fn a_task_that_is_dropped() {
    let handoff = Arc::new(Handoff::new(WaitingEvents::new(limit())));
    let end = EndOnDrop(Arc::clone(&handoff));
    let stop = Arc::new((Mutex::new(false), Condvar::new()));
    let (stopped, mut left, mut after_stop) = (Arc::clone(&stop), random(2..6), 0);
    let producer = thread::spawn(move || {
        hand_over(&end.0, || {
            let mut is_stopped = stopped.0.lock().unwrap();
            if left == 0 {
                while !*is_stopped {
                    is_stopped = stopped.1.wait(is_stopped).unwrap_or_else(PoisonError::into_inner);
                }
                return None;
            }
            left -= 1;
            after_stop += u32::from(*is_stopped);
            assert!(after_stop <= 1, "the closed queue ends the thread");
            Some(Event::Notifies(ConnId::for_test(1), Batch::for_test(&[(1, "c", "")])))
        });
    });
    let mut task = ModelTask::default();
    for _ in 0..random(0..3) {
        // A poll whose future is dropped, perhaps with a waker that is still called.
        let _ = task.poll(|context| handoff.poll(context));
    }
    handoff.close();
    *stop.0.lock().unwrap() = true;
    stop.1.notify_all();
    producer.join().unwrap();
    assert_eq!(Arc::strong_count(&handoff), 1, "nothing is kept");
}

#[test]
fn every_event_is_taken_or_reported_and_no_wake_up_is_lost() {
    explore("every_event_is_taken_or_reported", 40, a_task_that_takes_everything);
}

#[test]
fn a_dropped_task_ends_the_thread_of_the_loop() {
    explore("a_dropped_task_ends", 20, a_task_that_is_dropped);
}
