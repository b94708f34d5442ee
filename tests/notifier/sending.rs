//! Notifications sent by a notifier and by its batchers.

use std::time::Duration;

use super::support::*;

#[test]
fn a_notification_is_sent_by_the_session_that_listens() {
    let n = notifier();
    let (recorder, records) = recorder();
    let channel = new_channel();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    n.notify(&channel, "to myself").wait(LIMIT).unwrap();
    assert_eq!(records.next(), "to myself");
    assert!(n.notify(&channel, "x".repeat(8000)).wait(LIMIT).unwrap_err().is_usage());
    assert!(n.notify("", "x").wait(LIMIT).unwrap_err().is_usage());
}

#[test]
fn a_batcher_sends_concurrent_notifications_in_one_transaction_with_equal_ones_folded() {
    let n = notifier();
    let channel = new_channel();
    let mut db = session();
    db.listen([&channel]).unwrap();
    let batcher = n.batcher(Duration::from_secs(2), 1000).unwrap();
    let payloads = ["a", "b", "a", "c", "b"];
    let mut tickets = payloads.map(|payload| batcher.send(&channel, payload));
    tickets.iter_mut().for_each(|ticket| ticket.wait(LIMIT).unwrap());
    let received: Vec<_> = crate::support::server::next(&mut db, 3).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(received, ["a", "b", "c"]);
    assert!(crate::support::server::pending(&mut db).is_empty());
}

#[test]
fn each_ticket_of_a_shared_batcher_resolves_after_its_commit() {
    let n = notifier();
    let channel = new_channel();
    let (recorder, records) = recorder();
    n.subscribe(1, &channel, recorder.payloads()).unwrap();
    let batcher = n.batcher(Duration::ZERO, 500).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let (batcher, channel) = (batcher.clone(), channel.clone());
            std::thread::spawn(move || {
                for i in 0..100 {
                    batcher.send(&channel, format!("{thread}.{i}")).wait(LIMIT).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut received = records.take(800);
    for thread in 0..8 {
        let mine: Vec<_> = received.extract_if(.., |it| it.starts_with(&format!("{thread}."))).collect();
        assert_eq!(mine, (0..100).map(|i| format!("{thread}.{i}")).collect::<Vec<_>>());
    }
}

#[test]
fn tickets_of_a_batcher_fail_while_its_notifier_is_stopped() {
    let n = notifier();
    let batcher = n.batcher(Duration::ZERO, 10).unwrap();
    n.stop();
    assert!(matches!(batcher.send("c", "x").wait(LIMIT).unwrap_err(), notifyman::Error::NotRunning));
    n.start().unwrap();
    batcher.send("c", "x").wait(LIMIT).unwrap();
    drop(n);
    assert!(matches!(batcher.send("c", "x").wait(LIMIT).unwrap_err(), notifyman::Error::NotRunning));
}
