//! The two loops, as users write them.

use std::thread;
use std::time::Duration;

use notifyman::{ConnId, Event, NotificationManager};

use super::support::*;

#[test]
fn m01_two_connections_notify_each_other_and_removing_both_ends_the_loop() {
    let (ping, pong) = (channel(), channel());
    let mut nm = NotificationManager::new([listener(&ping), listener(&pong)]).timeout(LIMIT);
    let [a, b] = ids(&nm)[..] else { panic!("two connections") };
    nm.get_mut(a).unwrap().notify(&pong, "ping").unwrap();

    let mut received = Vec::new();
    while let Some(event) = nm.next() {
        let (id, batch) = event.expect("a batch before the idle event");
        received.extend(batch.iter().map(|n| (id, n.channel().into_owned(), n.payload().into_owned())));
        if id == b {
            nm.get_mut(b).unwrap().notify(&ping, "pong").unwrap();
        }
        assert!(nm.remove(id).unwrap().is_ok());
    }
    assert_eq!(received, [(b, pong, "ping".into()), (a, ping, "pong".into())]);
    assert_eq!(nm.connections().count() + nm.garbage().count(), 0);
}

#[test]
fn m01_a_notification_has_a_channel_a_payload_and_a_pid() {
    let channel = channel();
    let mut tx = open();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(LIMIT);
    tx.notify(&channel, "ünï").unwrap();
    let (id, batch) = batch(&mut nm);
    assert_eq!((id.number(), batch.len()), (1, 1));
    for n in &batch {
        assert_eq!((n.channel(), n.payload(), n.pid()), (channel.as_str().into(), "ünï".into(), tx.pid()));
    }
}

#[test]
fn m01_every_connection_receives_everything_in_the_servers_order() {
    const EACH: usize = 3000;
    let channel = channel();
    let mut nm = NotificationManager::new((0..3).map(|_| listener(&channel))).timeout(LIMIT);
    let mut tx = open();
    for part in 0..3 {
        let part = part * EACH / 3;
        tx.notify_many((part..part + EACH / 3).map(|n| (&channel, n.to_string()))).unwrap();
    }

    let received = receive(&mut nm, 3 * EACH);
    for id in ids(&nm) {
        let its: Vec<&str> =
            received.iter().filter(|(conn, _)| *conn == id).map(|(_, payload)| payload.as_str()).collect();
        assert_eq!(its, (0..EACH).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn m01_equal_notifications_are_all_delivered() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(LIMIT);
    let mut tx = open();
    for _ in 0..5 {
        tx.notify(&channel, "equal").unwrap();
    }
    assert!(receive(&mut nm, 5).iter().all(|(_, payload)| payload == "equal"));
    nm.set_timeout(Duration::from_millis(50));
    assert_eq!(until_idle(&mut nm), [], "no more than these");
}

#[test]
fn m02_without_a_timeout_there_are_no_idle_events() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]);
    assert_eq!(nm.current_timeout(), None);
    let handle = nm.handle();
    let sender = thread::spawn(move || {
        let mut tx = open();
        for n in 0..3 {
            thread::sleep(Duration::from_millis(100));
            tx.notify(&channel, n.to_string()).unwrap();
        }
    });
    assert_eq!(receive(&mut nm, 3).len(), 3); // panics at an idle event
    sender.join().unwrap();
    handle.stop();
    assert_eq!(nm.next().map(drop), None);
}

#[test]
fn m03_idle_events_and_notifications_alternate() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(Duration::from_millis(50));
    let id = ids(&nm)[0];
    for n in 0..4 {
        assert_eq!(until_idle(&mut nm), []);
        nm.get_mut(id).unwrap().notify(&channel, n.to_string()).unwrap();
        assert_eq!(receive(&mut nm, 1), [(id, n.to_string())]);
    }
}

#[test]
fn m06_after_a_close_inside_the_loop_pending_notifications_are_yielded_and_the_loop_ends() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(LIMIT);
    let id = ids(&nm)[0];
    let mut tx = open();
    tx.notify(&channel, "first").unwrap();

    let mut received = Vec::new();
    while let Some(event) = nm.next() {
        let (_, batch) = event.expect("it ends without an idle event");
        received.extend(payloads(&batch));
        if received == ["first"] {
            let mut db = nm.get_mut(id).unwrap();
            db.notify_many([(&channel, "second"), (&channel, "third")]).unwrap();
            db.query("select 1").unwrap(); // they have arrived by now
            db.close().unwrap();
        }
    }
    assert_eq!(received, ["first", "second", "third"]);
    let dead: Vec<(ConnId, String)> = nm.garbage().map(|(id, dead)| (id, format!("{:#}", dead.error()))).collect();
    assert_eq!(dead, [(id, "the connection was closed by this program".into())]);
}

#[test]
fn m01_next_event_returns_every_event() {
    let channel = channel();
    let mut nm = NotificationManager::new([listener(&channel)]).timeout(Duration::from_millis(50));
    let id = ids(&nm)[0];
    assert!(matches!(nm.next_event(), Some(Event::Idle)));
    nm.get_mut(id).unwrap().notify(&channel, "hello").unwrap();
    assert!(
        matches!(nm.next_event(), Some(Event::Notifies(conn, batch)) if conn == id && payloads(&batch) == ["hello"])
    );
    nm.get_mut(id).unwrap().close().unwrap();
    assert!(matches!(nm.next_event(), Some(Event::Lost(conn, notifyman::Error::Closed)) if conn == id));
    assert!(nm.next_event().is_none());
}
