//! A source of events that a test sends.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notifyman::{Batch, ConnId, Error, Event, EventSource, Gap, Notification};

/// An event, and the channels that its connection carries from then on.
type ScriptedEvent = (Event, Option<Vec<&'static str>>);

/// A source whose events are those that a test sends, with the channels that its connections carry from then on.
pub struct Script {
    state: Arc<Mutex<ScriptState>>,
    events: Receiver<Option<ScriptedEvent>>,
    sender: Sender<Option<ScriptedEvent>>,
}

#[derive(Default)]
pub struct ScriptState {
    carried: Vec<(ConnId, Vec<&'static str>)>,
    pub starts: usize,
    pub refuses_to_start: bool,
    is_stopped: bool,
}

/// The hand of a test.
pub struct Hand {
    pub state: Arc<Mutex<ScriptState>>,
    sender: Sender<Option<ScriptedEvent>>,
}

pub fn berlin() -> ConnId {
    ConnId::of_source(1, "berlin")
}

pub fn oslo() -> ConnId {
    ConnId::of_source(2, "oslo")
}

pub fn script() -> (Script, Hand) {
    let (sender, events) = channel();
    let state = Arc::default();
    (Script { state: Arc::clone(&state), events, sender: sender.clone() }, Hand { state, sender })
}

impl EventSource for Script {
    fn connections(&self) -> Vec<ConnId> {
        vec![berlin(), oslo()]
    }

    fn start(&mut self) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap();
        (state.starts, state.is_stopped) = (state.starts + 1, false);
        if state.refuses_to_start { Err(Error::Unopened) } else { Ok(()) }
    }

    fn next_event(&mut self) -> Option<Event> {
        let (event, carried) = loop {
            let next = self.events.recv().unwrap();
            if self.state.lock().unwrap().is_stopped {
                return None;
            }
            // The wake-up of a stop may be from an earlier run.
            if let Some(next) = next {
                break next;
            }
        };
        let mut state = self.state.lock().unwrap();
        if let Event::Opened(id) | Event::Disconnected(id, _) | Event::Restored(id, _) | Event::Lost(id, _) = &event {
            state.carried.retain(|(conn, _)| conn != id);
            state.carried.extend(carried.map(|carried| (*id, carried)));
        }
        Some(event)
    }

    fn channels(&self, conn: ConnId) -> Option<Vec<Box<str>>> {
        let state = self.state.lock().unwrap();
        let (_, carried) = state.carried.iter().find(|(id, _)| *id == conn)?;
        Some(carried.iter().map(|channel| (*channel).into()).collect())
    }

    fn set_timeout(&mut self, _: Option<Duration>) {}

    fn stopper(&self) -> Box<dyn Fn() + Send + Sync> {
        let (state, sender) = (Arc::clone(&self.state), self.sender.clone());
        Box::new(move || {
            state.lock().unwrap().is_stopped = true;
            drop(sender.send(None));
        })
    }
}

impl Hand {
    pub fn send(&self, event: Event) {
        self.sender.send(Some((event, None))).unwrap();
    }

    pub fn open(&self, id: ConnId, carried: &[&'static str]) {
        self.sender.send(Some((Event::Opened(id), Some(carried.to_vec())))).unwrap();
    }

    pub fn restore(&self, id: ConnId, missed: &[&str], carried: &[&'static str]) {
        let gap = Gap::new(missed.iter().copied(), Error::Disconnected, Duration::from_secs(3));
        self.sender.send(Some((Event::Restored(id, gap), Some(carried.to_vec())))).unwrap();
    }

    pub fn disconnect(&self, id: ConnId) {
        self.send(Event::Disconnected(id, Error::Disconnected));
    }

    pub fn notify(&self, id: ConnId, channel: &str, payload: &str) {
        let batch: Batch = [Notification::new(channel, payload, 1)].into_iter().collect();
        self.send(Event::Notifies(id, batch));
    }
}
