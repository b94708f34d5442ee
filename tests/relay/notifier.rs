//! A notifier behind a relay.

use std::sync::mpsc::channel;

use notifyman::notifier::{Delivery, Reason};
use notifyman::{Error, Notifier};

use super::support::{SILENCE, StreamWriter, settings, with_engines};
use crate::support::server::LIMIT;

#[test]
fn r01_a_notifier_behind_a_relay_receives_what_is_relayed_and_learns_what_is_missing() {
    with_engines(&[], |engine| {
        let writer = StreamWriter::start(&engine, "shop", 5);
        let reader = settings(&engine).stream("other").silence(SILENCE).build().unwrap();
        StreamWriter::start(&engine, "other", 5);
        let n = Notifier::over(reader).start().unwrap();
        let (sender, received) = channel();
        let record = move |delivery: &Delivery<'_, u32>| {
            let text = match delivery {
                Delivery::Notification(n) => n.payload().text().into_owned(),
                Delivery::Missed(missed) => match missed.reason() {
                    Reason::Disconnected(_) => "disconnected".into(),
                    Reason::Resumed(_) => "resumed".into(),
                    Reason::Restored(gap) => format!("restored [{}]", gap.channels().join(" ")),
                    other => format!("{other:?}"),
                },
            };
            sender.send(text).unwrap();
        };
        n.databases()[0].subscribe(1, "a", record).unwrap();
        let refused = n.subscribe(1, "c", |_| ());
        assert!(matches!(refused, Err(Error::NotRelayed { .. })), "{refused:?}");
        let next = || received.recv_timeout(LIMIT).unwrap();
        writer.batch(&engine, &["1"]);
        assert_eq!((next(), next()), ("1".into(), "disconnected".into()));
        writer.batch(&engine, &["2"]);
        assert_eq!((next(), next()), ("resumed".into(), "2".into()));
        writer.set_next(writer.next() + 1);
        writer.batch(&engine, &["3"]);
        assert_eq!((next(), next()), ("restored [a b]".into(), "3".into()));
        n.stop();
        writer.batch(&engine, &["4"]);
        n.start().unwrap();
        assert_eq!(next(), "Stopped");
        writer.batch(&engine, &["5"]);
        assert_eq!(next(), "5");
    });
}
