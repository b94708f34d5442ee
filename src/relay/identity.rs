//! The identity of a relay: its terms, and its marks of places in the order of a database's notifications, which is the same for
//! all listeners.

use std::fmt;
use std::str::FromStr;

use crate::notification::NotificationRef;
use crate::relay::engine_time::EngineTime;
use crate::relay::position::StreamPosition;

/// The text in the place of an engine that is not known.
const NO_ENGINE: &str = "-";

/// A notification of a relay on the channel that all relays of a database share: `RELAY PID COUNTER UNIX_MS ENGINE`. PID is the process
/// of its session, which the server adds to each notification: so no other session can send it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    relay: Box<str>,
    pid: i32,
    counter: u64,
    sent: EngineTime,
}

impl Marker {
    /// Returns the marker that a notification on its channel contains. Other programs may notify this channel, too.
    pub(crate) fn of(notification: NotificationRef<'_>) -> Option<Self> {
        notification.payload().parse().ok().filter(|marker: &Self| marker.pid == notification.pid())
    }

    /// Returns a time before it was sent.
    pub(crate) fn sent(&self) -> &EngineTime {
        &self.sent
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relay, pid, counter, sent: EngineTime { unix_ms, engine } } = self;
        let engine = if engine.is_empty() { NO_ENGINE } else { engine };
        write!(f, "{relay} {pid} {counter} {unix_ms} {engine}")
    }
}

impl FromStr for Marker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(' ');
        let relay = parts.next().filter(|relay| is_relay_name(relay)).ok_or(())?;
        let pid = parts.next().and_then(|part| part.parse().ok()).ok_or(())?;
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(());
        let (counter, unix_ms) = (number()?, number()?);
        let engine = match parts.next() {
            Some(NO_ENGINE) => "",
            engine => engine.filter(|engine| EngineTime::is_engine(engine)).ok_or(())?,
        };
        let marker = Self { relay: relay.into(), pid, counter, sent: EngineTime { unix_ms, engine: engine.into() } };
        // Nothing else that means the same.
        if marker.to_string() == text { Ok(marker) } else { Err(()) }
    }
}

fn is_relay_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// The identity of a relay's process in one stream.
#[derive(Debug)]
pub(crate) struct RelayIdentity {
    name: Box<str>,
    number: u64,
    last_term: u64,
    /// The process of the session.
    pid: i32,
    counter: u64,
}

impl RelayIdentity {
    /// Creates the identity of a process with a name and a number that no other one has.
    pub(crate) fn new(name: &str, number: u64) -> Self {
        Self { name: name.into(), number, last_term: 0, pid: 0, counter: 0 }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sets the process of the session that sends the markers from now on.
    pub(crate) fn set_pid(&mut self, pid: i32) {
        self.pid = pid;
    }

    /// Returns the next marker, which is sent after this time.
    pub(crate) fn next_marker(&mut self, sent: EngineTime) -> Marker {
        self.counter += 1;
        Marker { relay: self.name.clone(), pid: self.pid, counter: self.counter, sent }
    }

    /// Returns a term above `known` and above all that were returned before, or `None` if there is none.
    pub(crate) fn next_term(&mut self, unix_ms: u64, known: u64) -> Option<u64> {
        let term = StreamPosition::next_term(unix_ms, known.max(self.last_term), self.number)?;
        self.last_term = term;
        Some(term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::Notification;

    #[test]
    fn r05_a_term_is_claimed_once() {
        let mut relay = RelayIdentity::new("a", 7);
        let terms =
            [(5, 0), (5, 0), (4, 0), (5, 9_000_000), (5, 0)].map(|(unix_ms, known)| relay.next_term(unix_ms, known));
        assert_eq!(terms, [5, 6, 7, 10, 11].map(|ms| Some(ms * StreamPosition::TERMS + 7)));
        assert_eq!(relay.next_term(5, u64::MAX), None);
    }

    #[test]
    fn r05_a_marker_is_recognized_and_nothing_else() {
        let mut source = RelayIdentity::new("4711-00ff", 7);
        let sent = EngineTime { unix_ms: 9, engine: "3f".into() };
        let (first, second) = (source.next_marker(sent.clone()), source.next_marker(sent.clone()));
        assert!(first != second && *first.sent() == sent);
        for marker in [first, second, source.next_marker(EngineTime::default())] {
            assert_eq!(marker.to_string().parse(), Ok(marker));
        }
        for text in [
            "",
            "r",
            "r 1 2 3",
            "r 1 2 3 4 5",
            " r 1 2 3 4",
            "r  1 2 3 4",
            "r +1 2 3 4",
            "r 01 2 3 4",
            "r 1 2 -3 4",
            "a b c d e",
            "r\n 1 2 3 4",
            "ü 1 2 3 4",
            "r 1 2 3 ",
            "r 1 2 3 --",
        ] {
            assert_eq!(text.parse::<Marker>(), Err(()), "{text:?}");
        }
    }

    #[test]
    fn r05_a_marker_of_another_session_is_none() {
        let mut relay = RelayIdentity::new("a", 7);
        relay.set_pid(42);
        let text = relay.next_marker(EngineTime::default()).to_string();
        for (pid, is_marker) in [(42, true), (43, false)] {
            let notification = Notification::new("c", &text, pid);
            assert_eq!(Marker::of(notification.as_ref()).is_some(), is_marker);
        }
    }
}
