//! What the notifier's tests share: one server, and callbacks that write down what they are called with.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};

use notifyman::notifier::{Delivery, Reason};
use notifyman::{Config, Connection, Notifier};

pub use crate::support::server::{LIMIT, ask, connect, eventually, session, utf8};

/// A channel of nobody else.
pub fn fresh() -> String {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("notifier's channel {}", LAST.fetch_add(1, Relaxed))
}

pub fn config() -> Config {
    Config::without_env(&utf8().url()).unwrap()
}

/// A notifier of the shared server.
pub fn notifier() -> Notifier<u32> {
    Notifier::new(config()).unwrap()
}

/// What callbacks were called with, in order.
pub struct Told(Receiver<String>);

/// Writes down what callbacks are called with.
#[derive(Clone)]
pub struct Scribe(Sender<String>);

pub fn scribe() -> (Scribe, Told) {
    let (sender, receiver) = channel();
    (Scribe(sender), Told(receiver))
}

impl Scribe {
    /// A callback that writes its payload, or why something is missing.
    pub fn payloads<I>(&self) -> impl FnMut(&Delivery<'_, I>) + Send + 'static {
        let Scribe(sender) = self.clone();
        move |n| {
            let _ = sender.send(shown(n));
        }
    }

    pub fn write(&self, what: impl Into<String>) {
        let _ = self.0.send(what.into());
    }
}

/// A payload, or in brackets why something is missing and how many were dropped.
pub fn shown<I>(n: &Delivery<'_, I>) -> String {
    let Some(missed) = n.missed() else { return n.payload().text().into_owned() };
    let why = match missed.reason() {
        Reason::Restored(_) => "restored",
        Reason::Overflow => "overflow",
        Reason::Muted => "muted",
        Reason::Stopped => "stopped",
        Reason::Disconnected(_) => "disconnected",
        Reason::Unsubscribed => "unsubscribed",
        Reason::Opened => "opened",
        Reason::Lost(_) => "lost",
        other => panic!("{other:?}"),
    };
    format!("[{why} {}]", missed.dropped())
}

impl Told {
    #[track_caller]
    pub fn next(&self) -> String {
        self.0.recv_timeout(LIMIT).expect("a call")
    }

    /// The next call except reports of a loss, which a slow callback does not receive if the session is restored by
    /// then.
    #[track_caller]
    pub fn next_after_loss(&self) -> String {
        loop {
            let next = self.next();
            if next != "[disconnected 0]" {
                return next;
            }
        }
    }

    #[track_caller]
    pub fn take(&self, n: usize) -> Vec<String> {
        (0..n).map(|_| self.next()).collect()
    }

    /// What there is, and no more.
    pub fn so_far(&self) -> Vec<String> {
        self.0.try_iter().collect()
    }
}

/// A door that callbacks wait at until it is opened.
#[derive(Clone, Default)]
pub struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        let open = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), 2 * LIMIT, |open| !*open).unwrap().0;
        assert!(*open, "nobody opened the door");
    }
}

/// A callback that waits at the door, each time, after it has said that it is there, and then writes.
pub fn at_the_door<I>(door: &Door, scribe: &Scribe) -> impl FnMut(&Delivery<'_, I>) + Send + 'static {
    let (door, scribe) = (door.clone(), scribe.clone());
    let mut first = true;
    move |n| {
        if std::mem::take(&mut first) {
            scribe.write("at the door");
        }
        door.pass();
        scribe.write(shown(n));
    }
}

/// Sends each payload in a transaction of its own.
pub fn send<'p>(db: &mut Connection, channel: &str, payloads: impl IntoIterator<Item = &'p str>) {
    for payload in payloads {
        db.notify(channel, payload).unwrap();
    }
}
