//! M04, M05, M07 and M11: ids, insertion and removal at any point, returned connections, and the end of an empty manager.

use std::time::{Duration, Instant};

use notifyman::NotificationManager;

use super::fake::Fake;
use super::support::*;
use crate::support::msg;

#[test]
fn m04_remove_returns_a_connection_with_its_undelivered_notifications() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(LIMIT);
    let id = ids(&nm)[0];
    let mut db = nm.get_mut(id).unwrap();
    db.notify_many([(&channel, "a"), (&channel, "b")]).unwrap();
    db.query("select 1").unwrap();
    let mut db = nm.remove(id).unwrap().unwrap();
    db.notify(&channel, "c").unwrap();
    db.query("select 1").unwrap();
    let received: Vec<_> = db.wait(Duration::ZERO).flatten().map(|n| n.payload().into_owned()).collect();
    assert_eq!(received, ["a", "b", "c"]);
    assert!(nm.next().is_none());
}

#[test]
fn m04_into_connections_returns_connections_with_their_undelivered_notifications() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(3);
    let mut nm = NotificationManager::new(connections).timeout(LIMIT);
    let all = ids(&nm);
    for line in &mut lines {
        line.send(&[msg::notification(1, "c", "a"), msg::notification(1, "c", "b")].concat());
    }
    let (first, _) = batch(&mut nm); // in the middle of a turn
    let given_back = nm.into_connections();
    assert_eq!(given_back.iter().map(|(id, _)| *id).collect::<Vec<_>>(), all);
    for (id, mut db) in given_back {
        let received: Vec<_> = db.wait(Duration::ZERO).flatten().map(|n| n.payload().into_owned()).collect();
        assert_eq!(received, if id == first { vec![] } else { vec!["a", "b"] }, "{id}");
    }
}

#[test]
fn m04_a_returned_connection_can_be_inserted_into_another_manager() {
    let channel = channel();
    let mut one = NotificationManager::new([listener(&channel)]).timeout(LIMIT);
    let id = ids(&one)[0];
    let mut db = one.get_mut(id).unwrap();
    db.notify(&channel, "undelivered").unwrap();
    db.query("select 1").unwrap();
    let mut other = NotificationManager::new(one.into_connections().into_iter().map(|(_, db)| db)).timeout(LIMIT);
    open().notify(&channel, "later").unwrap();
    let received: Vec<_> = receive(&mut other, 2).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(received, ["undelivered", "later"]);
}

#[test]
fn m04_dropping_the_manager_closes_its_sessions() {
    let sessions: Vec<_> = (0..3).map(|_| open()).collect();
    let pids: Vec<String> = sessions.iter().map(|db| db.pid().to_string()).collect();
    let sessions_query = format!("select from pg_stat_activity where pid in ({})", pids.join(","));
    let mut admin = open();
    let nm = NotificationManager::new(sessions);
    assert_eq!(admin.query(&sessions_query).unwrap().len(), 3);
    drop(nm);
    until("the sessions end", || admin.query(&sessions_query).unwrap().is_empty());
}

#[test]
fn m05_connections_can_be_inserted_and_removed_at_any_point_of_the_loop() {
    let channel = channel();
    let mut tx = open();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(Duration::from_millis(30));
    let first = ids(&nm)[0];
    let (mut second, mut reported) = (None, Vec::new());
    let _watchdog = Watchdog::over(&nm);
    while let Some(event) = nm.next() {
        match (event, second) {
            // At an idle event, a connection is inserted.
            (None, None) => {
                second = Some(nm.insert(listener(&channel)));
                tx.notify(&channel, "both").unwrap();
            }
            (None, Some(_)) if reported.len() < 2 => {}
            (None, Some(second)) => assert!(nm.remove(second).unwrap().is_ok()), // the loop ends
            // At a batch, its connection is removed.
            (Some((id, batch)), _) => {
                reported.push((id, payloads(&batch).concat()));
                if id == first {
                    assert!(nm.remove(first).unwrap().is_ok());
                }
            }
        }
    }
    reported.sort();
    assert_eq!(reported, [(first, "both".into()), (second.unwrap(), "both".into())]);
}

#[test]
fn m05_a_removed_connection_that_was_ready_yields_nothing() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(10);
    let mut nm = NotificationManager::new(connections).timeout(Duration::from_millis(30));
    lines.iter_mut().for_each(|line| line.notify("ready"));
    let (first, _) = batch(&mut nm);
    let others: Vec<_> = ids(&nm).into_iter().filter(|id| *id != first).collect();
    let taken: Vec<_> = others[1..].iter().map(|id| nm.remove(*id).unwrap().unwrap()).collect();
    // Their slots are reused immediately by connections that receive nothing.
    let (inserted, _lines) = fake.open_many(8);
    for db in inserted {
        nm.insert(db);
    }
    assert_eq!(until_idle(&mut nm), [(others[0], "ready".into())]);
    for mut db in taken {
        assert_eq!(db.wait(Duration::ZERO).count(), 1);
    }
}

#[test]
fn m05_notifications_of_an_inserted_connection_are_yielded() {
    let channel = channel();
    let mut nm = NotificationManager::new([]).timeout(LIMIT);
    let mut db = listener(&channel);
    db.notify(&channel, "brought along").unwrap();
    db.query("select 1").unwrap();
    let id = nm.insert(db);
    assert_eq!(receive(&mut nm, 1), [(id, "brought along".into())]);
}

#[test]
fn m07_an_empty_manager_ends_immediately_and_continues_after_an_insert() {
    let mut nm = NotificationManager::new([]).timeout(LIMIT);
    let begin = Instant::now();
    assert!(nm.next().is_none());
    let mut fake = Fake::new();
    for _ in 0..3 {
        let (db, mut line) = fake.open();
        let id = nm.insert(db);
        line.notify("hello");
        assert_eq!(receive(&mut nm, 1), [(id, "hello".into())]);
        assert!(nm.remove(id).unwrap().is_ok());
        assert!(nm.next().is_none());
        assert!(nm.next().is_none(), "it ends again");
    }
    assert!(begin.elapsed() < LIMIT / 2);
}

#[test]
fn m07_lost_connections_do_not_keep_the_iterator_running() {
    let mut fake = Fake::new();
    let (connections, lines) = fake.open_many(3);
    drop(lines);
    let mut nm = NotificationManager::new(connections);
    assert_eq!(until_end(&mut nm), (vec![], 0));
    assert_eq!(nm.garbage().count(), 3);
    assert!(nm.next().is_none());
}

#[test]
fn m11_ids_count_from_one_in_the_order_given_and_are_never_reused() {
    let mut fake = Fake::new();
    let (connections, _lines) = fake.open_many(3);
    let pids: Vec<i32> = connections.iter().map(|db| db.pid()).collect();
    let mut nm = NotificationManager::new(connections);
    let reported: Vec<_> = nm.connections().map(|(id, db)| (id.number(), db.pid())).collect();
    assert_eq!(reported, [(1, pids[0]), (2, pids[1]), (3, pids[2])]);

    let mut seen = ids(&nm);
    for _ in 0..20 {
        let last = *seen.last().unwrap();
        assert!(nm.remove(last).unwrap().is_ok());
        let (db, line) = fake.open();
        drop(line);
        let id = nm.insert(db);
        assert!(!seen.contains(&id) && id > last);
        seen.push(id);
    }
}

#[test]
fn m11_a_stale_id_finds_nothing() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(2);
    let mut nm = NotificationManager::new(connections).timeout(LIMIT);
    let [removed, killed] = ids(&nm)[..] else { panic!("two connections") };
    assert!(nm.remove(removed).unwrap().is_ok());
    drop(lines.pop());
    assert!(nm.next().is_none());
    assert!(nm.get(killed).is_none() && nm.get_mut(killed).is_none(), "it is in the garbage");
    assert!(nm.remove(killed).unwrap().is_err(), "it is removed from the garbage");

    // Other connections reuse their slots.
    let (connections, _lines) = fake.open_many(2);
    for db in connections {
        nm.insert(db);
    }
    for stale in [removed, killed] {
        assert!(nm.get(stale).is_none());
        assert!(nm.get_mut(stale).is_none());
        assert!(nm.remove(stale).is_none());
        assert!(!ids(&nm).contains(&stale));
    }
}

#[test]
fn m11_an_id_is_the_same_in_every_set() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(3);
    let mut nm = NotificationManager::new(connections).timeout(LIMIT);
    let all = ids(&nm);
    drop(lines.remove(1));
    lines[0].notify("hello");
    assert_eq!(receive(&mut nm, 1)[0].0, all[0]);
    until("the loss is noticed", || {
        let _ = nm.try_next_event();
        nm.garbage().count() == 1
    });
    assert_eq!((ids(&nm), dead(&nm)), (vec![all[0], all[2]], vec![all[1]]));
    let (id, dead) = nm.take_garbage().pop().unwrap();
    assert_eq!(nm.revive(id, dead), all[1]);
    assert_eq!(nm.restoring().map(|(id, _)| id).collect::<Vec<_>>(), [all[1]]);
}
