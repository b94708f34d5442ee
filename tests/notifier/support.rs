//! A shared server, and callbacks that record their calls.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::notifier::{DeliveredNotification, Delivery, Reason};
use notifyman::{Config, Connection, Notifier};

pub use crate::support::server::{LIMIT, ask, connect, eventually, session, utf8};

/// Returns a channel that no other test uses.
pub fn new_channel() -> String {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("notifier's channel {}", LAST.fetch_add(1, Relaxed))
}

pub fn config() -> Config {
    Config::without_env(&utf8().url()).unwrap()
}

/// Starts a notifier for the shared server.
pub fn notifier() -> Notifier<u32> {
    Notifier::new(config()).unwrap()
}

/// Waits until a notifier has received a number of notifications.
pub fn receive<I: Clone + Eq + Hash + Debug + Send + 'static>(n: &Notifier<I>, count: u64) {
    let begin = Instant::now();
    while n.stats().received != count {
        assert!(begin.elapsed() < LIMIT, "{count} have not been received within {LIMIT:?}: {n:?}, {:?}", n.stats());
        thread::sleep(Duration::from_millis(5));
    }
}

/// The recorded calls of callbacks, in order.
pub struct Records(Receiver<String>);

/// Records calls of callbacks.
#[derive(Clone)]
pub struct Recorder(Sender<String>);

pub fn recorder() -> (Recorder, Records) {
    let (sender, receiver) = channel();
    (Recorder(sender), Records(receiver))
}

impl Recorder {
    /// Returns a callback that records its calls: see [`text`].
    pub fn payloads<I>(&self) -> impl FnMut(&Delivery<'_, I>) + Send + 'static {
        let Recorder(sender) = self.clone();
        move |n| {
            let _ = sender.send(text(n));
        }
    }

    pub fn record(&self, call: impl Into<String>) {
        let _ = self.0.send(call.into());
    }
}

/// Returns the payload, or the reason of a report and the number of dropped notifications in brackets.
pub fn text<I>(delivery: &Delivery<'_, I>) -> String {
    let missed = match delivery {
        Delivery::Notification(n) => return n.payload().text().into_owned(),
        Delivery::Missed(missed) => missed,
    };
    let reason = match missed.reason() {
        Reason::Restored(_) => "restored",
        Reason::Resumed(_) => "resumed",
        Reason::Overflow => "overflow",
        Reason::Muted => "muted",
        Reason::Stopped => "stopped",
        Reason::Disconnected(_) => "disconnected",
        Reason::Unsubscribed => "unsubscribed",
        Reason::Opened => "opened",
        Reason::Lost(_) => "lost",
        other => panic!("{other:?}"),
    };
    format!("[{reason} {}]", missed.dropped())
}

/// Returns the notification of a call that is not expected to be a report.
pub fn notification<'d, 'a, I>(delivery: &'d Delivery<'a, I>) -> &'d DeliveredNotification<'a, I> {
    match delivery {
        Delivery::Notification(n) => n,
        Delivery::Missed(missed) => panic!("{missed}"),
    }
}

impl Records {
    #[track_caller]
    pub fn next(&self) -> String {
        self.0.recv_timeout(LIMIT).expect("a call")
    }

    /// Returns the next call except reports of a loss, which a slow callback does not receive if the session is restored
    /// by then.
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

    /// Returns the calls so far, without waiting.
    pub fn so_far(&self) -> Vec<String> {
        self.0.try_iter().collect()
    }
}

/// A latch that callbacks wait for.
#[derive(Clone, Default)]
pub struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn wait(&self) {
        let open = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), 2 * LIMIT, |open| !*open).unwrap().0;
        assert!(*open, "the latch was not opened");
    }
}

/// Returns a callback that records its calls once the latch is open. Before its first wait it records "blocked".
pub fn blocking<I>(latch: &Latch, recorder: &Recorder) -> impl FnMut(&Delivery<'_, I>) + Send + 'static {
    let (latch, recorder) = (latch.clone(), recorder.clone());
    let mut first = true;
    move |n| {
        if std::mem::take(&mut first) {
            recorder.record("blocked");
        }
        latch.wait();
        recorder.record(text(n));
    }
}

/// Sends each payload in a transaction of its own.
pub fn send<'p>(db: &mut Connection, channel: &str, payloads: impl IntoIterator<Item = &'p str>) {
    for payload in payloads {
        db.notify(channel, payload).unwrap();
    }
}
