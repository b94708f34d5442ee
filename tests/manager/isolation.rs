//! M08: a malformed frame, a flood or a silent server affects only its own connection.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use notifyman::{Error, Event, NotificationManager};

use super::fake::{Fake, number};
use super::support::*;
use crate::support::{Proxy, msg};

#[test]
fn m08_a_flooded_connection_does_not_starve_the_others() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(20);
    let mut nm = NotificationManager::new(connections).timeout(LIMIT);
    let all = ids(&nm);
    let flooding = all[7];
    let mut expected = 0;
    for round in 0..20 {
        lines[7].flood();
        for (line, _) in lines.iter_mut().zip(&all).filter(|(_, id)| **id != flooding) {
            line.notify("me too");
        }
        let (mut floods, mut others) = (0, Vec::new());
        while others.len() < 19 {
            let (id, batch) = batch(&mut nm);
            if id == flooding {
                floods += 1;
                assert!(
                    floods <= 3,
                    "round {round}: {floods} batches of the flood before every other connection had a turn"
                );
                for n in &batch {
                    assert_eq!(number(&n.payload()), expected);
                    expected += 1;
                }
                lines[7].flood(); // there is always more to read
            } else {
                others.push(id);
            }
        }
        others.sort();
        others.dedup();
        assert_eq!(others.len(), 19);
    }
    let _watchdog = Watchdog::over(&nm);
    assert_eq!(nm.next().unwrap().unwrap().0, flooding, "the flooded connection is served again");
}

#[test]
fn m08_a_malformed_frame_loses_only_its_connection_after_the_valid_notifications() {
    let malformed: [Vec<u8>; 7] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        msg::raw_with_length(b'A', i32::MAX, b"an impossible length"),
        msg::raw_with_length(b'A', -1, b""),
        msg::raw(b'A', b"\0\0\0\x01no end of the channel"),
        msg::raw(b'A', b"\0\0\0\x01channel\0"),
        msg::raw(0, b""),
        msg::raw(b'D', &[0, 1]),
    ];
    for malformed in malformed {
        let mut fake = Fake::new();
        let (connections, mut lines) = fake.open_many(3);
        let mut nm = NotificationManager::new(connections).timeout(LIMIT);
        let all = ids(&nm);
        lines[1].send(&[msg::notification(1, "c", "valid"), malformed.clone()].concat());
        let Some(Event::Notifies(id, batch)) = event(&mut nm) else { panic!("the valid notifications") };
        assert_eq!((id, payloads(&batch)), (all[1], vec!["valid".into()]), "{malformed:?}");
        let Some(Event::Lost(id, error)) = event(&mut nm) else { panic!("the loss") };
        assert!(id == all[1] && error.is_protocol(), "{id}: {error}");

        for n in [0, 2] {
            lines[n].notify("unharmed");
            assert_eq!(receive(&mut nm, 1), [(all[n], "unharmed".into())]);
        }
        assert_eq!((ids(&nm), dead(&nm)), (vec![all[0], all[2]], vec![all[1]]));
    }
}

#[test]
fn m08_a_connection_behind_a_black_hole_delays_no_other() {
    let proxy = Proxy::start(([127, 0, 0, 1], server().port()).into());
    let channel = channel();
    let mut behind_proxy = connect(&format!("postgres://postgres@{}/postgres", proxy.addr()));
    behind_proxy.listen([&channel]).unwrap();
    let mut nm = NotificationManager::new([behind_proxy, listener(&channel)]).timeout(LIMIT);
    let all = ids(&nm);
    proxy.black_hole();
    let mut tx = open();
    for n in 0..5 {
        tx.notify(&channel, n.to_string()).unwrap();
        assert_eq!(receive(&mut nm, 1), [(all[1], n.to_string())]);
    }
    proxy.resume();
    let late: Vec<_> = receive(&mut nm, 5);
    assert_eq!(late, (0..5).map(|n| (all[0], n.to_string())).collect::<Vec<_>>());
}

#[test]
fn m08_a_frame_that_arrives_byte_by_byte_delays_no_other() {
    let mut fake = Fake::new();
    let (connections, mut lines) = fake.open_many(2);
    let mut nm = NotificationManager::new(connections).timeout(Duration::from_millis(1));
    let all = ids(&nm);
    for byte in msg::notification(1, "c", "trickle") {
        assert_eq!(until_idle(&mut nm), []);
        lines[0].send(&[byte]);
        lines[1].notify("whole");
        let received = receive(&mut nm, 1);
        if received != [(all[1], "whole".into())] {
            assert_eq!(received, [(all[0], "trickle".into())]);
            return assert_eq!(receive(&mut nm, 1), [(all[1], "whole".into())]);
        }
    }
    assert_eq!(receive(&mut nm, 1), [(all[0], "trickle".into())]);
}

#[test]
fn m08_a_revival_that_the_server_never_answers_delays_no_other() {
    let mut fake = Fake::new();
    let (sender, mut line) = fake.open();
    // A port that accepts connections and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], server().port()).into());
    let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres connect_timeout=5", proxy.port());
    let mut nm = NotificationManager::new([sender, connect(&config)]).timeout(Duration::from_millis(20));
    let all = ids(&nm);
    proxy.set_upstream(silent.local_addr().unwrap());
    proxy.cut_rst();
    assert!(matches!(event(&mut nm), Some(Event::Lost(id, _)) if id == all[1]));

    let begin = Instant::now();
    let (id, dead) = nm.take_garbage().pop().unwrap();
    nm.revive(id, dead);
    let (mut sent, mut idle) = (0, 0);
    let error = loop {
        match nm.next_event().unwrap() {
            Event::Lost(id, error) => {
                assert_eq!(id, all[1]);
                break error;
            }
            Event::Idle => {
                idle += 1;
                line.notify(&sent.to_string());
                assert_eq!(receive(&mut nm, 1), [(all[0], sent.to_string())]);
                sent += 1;
            }
            other => panic!("{other:?}"),
        }
        assert!(begin.elapsed() < LIMIT);
    };
    assert!(error.is_timeout(), "{error}");
    assert!(idle > 10, "the loop continued: {idle} idle events");
    assert!(matches!(nm.garbage().next().unwrap().1.error(), Error::Connect(_)));
}
