//! Properties of any history: each notification is yielded exactly once, in order, before its connection's loss; and each
//! connection is in exactly one of connections, restoring, garbage and taken.

use std::collections::BTreeMap;
use std::time::Duration;

use notifyman::{ConnId, Dead, Event, NotificationManager};
use proptest::prelude::*;

use super::fake::{Fake, Line};
use super::support::*;
use crate::support::msg;

/// One step of a history. The first number selects the connection.
#[derive(Debug, Clone)]
enum Act {
    /// The server sends this many notifications in one write.
    Send(usize, usize),
    /// The server sends a part of a notification, and the rest with the next.
    SendPart(usize),
    HangUp(usize),
    SendMalformed(usize),
    Insert,
    Remove(usize),
    /// A lost connection is revived.
    Revive(usize),
    Cancel(usize),
    /// The server accepts a connection that is being restored, or closes it.
    Admit(usize),
    Refuse(usize),
    Take,
    /// This many events are taken.
    Iterate(usize),
    SetTimeout(Option<u64>),
}

fn act() -> impl Strategy<Value = Act> {
    let pick = 0..8_usize;
    prop_oneof![
        6 => (pick.clone(), 1..40_usize).prop_map(|(pick, n)| Act::Send(pick, n)),
        2 => pick.clone().prop_map(Act::SendPart),
        1 => pick.clone().prop_map(Act::HangUp),
        1 => pick.clone().prop_map(Act::SendMalformed),
        2 => Just(Act::Insert),
        1 => pick.clone().prop_map(Act::Remove),
        2 => pick.clone().prop_map(Act::Revive),
        1 => pick.clone().prop_map(Act::Cancel),
        3 => pick.clone().prop_map(Act::Admit),
        1 => pick.prop_map(Act::Refuse),
        2 => Just(Act::Take),
        5 => (1..6_usize).prop_map(Act::Iterate),
        1 => prop_oneof![Just(Some(0)), Just(Some(1)), Just(Some(20))].prop_map(Act::SetTimeout),
    ]
}

/// The state of one connection, as the test expects it.
#[derive(Default)]
struct Known {
    line: Option<Line>,
    partial: Vec<u8>,
    sent: usize,
    received: usize,
    lost: bool,
}

struct TestState {
    fake: Fake,
    nm: NotificationManager,
    known: BTreeMap<ConnId, Known>,
    taken: Vec<ConnId>,
    held_dead: Vec<(ConnId, Dead)>,
    /// The server's ends of restored connections, by process id, until the restore is reported.
    admitted: BTreeMap<i32, Line>,
}

impl TestState {
    fn new() -> Self {
        let nm = NotificationManager::new([]).timeout(Duration::from_millis(1));
        let (known, taken, held_dead, admitted) = Default::default();
        Self { fake: Fake::new(), nm, known, taken, held_dead, admitted }
    }

    fn insert(&mut self) {
        let (db, line) = self.fake.open();
        let id = self.nm.insert(db);
        assert!(self.known.insert(id, Known { line: Some(line), ..Known::default() }).is_none(), "{id} is used again");
    }

    /// Returns a connection whose line is open.
    fn sender(&mut self, pick: usize) -> Option<&mut Known> {
        let mut open: Vec<&mut Known> = self.known.values_mut().filter(|known| known.line.is_some()).collect();
        if open.is_empty() { None } else { Some(open.swap_remove(pick % open.len())) }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Send(pick, n) => drop(self.sender(pick).map(|known| known.send(n))),
            Act::SendPart(pick) => drop(self.sender(pick).map(Known::send_part)),
            Act::HangUp(pick) => drop(self.sender(pick).map(|known| known.line.take())),
            Act::SendMalformed(pick) => {
                if let Some(known) = self.sender(pick).filter(|known| known.partial.is_empty()) {
                    known.line.take().unwrap().send(&msg::raw(b'!', b""));
                }
            }
            Act::Insert => self.insert(),
            Act::Remove(pick) => {
                let good = ids(&self.nm);
                if let Some(id) = good.get(pick % good.len().max(1)) {
                    let mut db = self.nm.remove(*id).unwrap().unwrap();
                    self.taken.push(*id);
                    let known = self.known.get_mut(id).unwrap();
                    known.line = None;
                    // It contains the undelivered notifications.
                    for n in db.wait(Duration::ZERO).flatten() {
                        known.receive(&n.payload());
                    }
                    assert_eq!(known.received, known.sent, "{id}");
                }
            }
            Act::Revive(pick) => {
                if !self.held_dead.is_empty() {
                    let (id, dead) = self.held_dead.swap_remove(pick % self.held_dead.len());
                    assert_eq!(self.nm.revive(id, dead), id);
                    self.taken.retain(|taken| *taken != id);
                }
            }
            Act::Cancel(pick) => {
                let restoring: Vec<ConnId> = self.nm.restoring().map(|(id, _)| id).collect();
                if let Some(id) = restoring.get(pick % restoring.len().max(1)) {
                    assert!(self.nm.remove(*id).unwrap().is_err());
                    self.taken.push(*id);
                }
            }
            Act::Admit(pick) => {
                let strays = self.fake.strays();
                if !strays.is_empty() {
                    let (pid, mut line) = strays.swap_remove(pick % strays.len());
                    match line.answer() {
                        true => drop(self.admitted.insert(pid, line)),
                        false => strays.push((pid, line)),
                    }
                }
            }
            Act::Refuse(pick) => {
                let strays = self.fake.strays();
                if !strays.is_empty() {
                    strays.swap_remove(pick % strays.len());
                }
            }
            Act::Take => {
                let garbage = self.nm.take_garbage();
                self.taken.extend(garbage.iter().map(|(id, _)| *id));
                self.held_dead.extend(garbage);
            }
            Act::Iterate(n) => drop((0..n).take_while(|_| self.iterate()).count()),
            Act::SetTimeout(millis) => self.nm.set_timeout(millis.map(Duration::from_millis)),
        }
        self.assert_each_is_in_one_place();
    }

    /// Takes one event. Returns `false` at the end.
    fn iterate(&mut self) -> bool {
        let Some(event) = self.nm.next_event() else { return false };
        match event {
            Event::Idle => {}
            Event::Notifies(id, batch) => {
                assert!(!batch.is_empty());
                let known = self.known.get_mut(&id).unwrap();
                batch.iter().for_each(|n| known.receive(&n.payload()));
            }
            Event::Lost(id, _) => {
                let known = self.known.get_mut(&id).unwrap();
                assert_eq!(known.received, known.sent, "{id} was lost before all its notifications were yielded");
                known.lost = true;
            }
            Event::Restored(id, _) => {
                let line = self.admitted.remove(&self.nm.get(id).unwrap().pid());
                assert!(line.is_some() && self.known[&id].lost, "{id}");
                self.known.insert(id, Known { line, ..Known::default() });
            }
            other => panic!("{other:?}"),
        }
        true
    }

    fn assert_each_is_in_one_place(&self) {
        let (nm, stats) = (&self.nm, self.nm.stats());
        let restoring: Vec<ConnId> = nm.restoring().map(|(id, _)| id).collect();
        let counts = [stats.connections, stats.restoring, stats.garbage].map(|n| n as usize);
        assert_eq!(counts, [ids(nm).len(), restoring.len(), dead(nm).len()]);
        let mut everywhere = [ids(nm), restoring, dead(nm), self.taken.clone()].concat();
        everywhere.sort();
        assert_eq!(everywhere, self.known.keys().copied().collect::<Vec<_>>());
    }
}

impl Known {
    fn send(&mut self, n: usize) {
        let mut bytes = std::mem::take(&mut self.partial);
        self.sent += usize::from(!bytes.is_empty());
        for _ in 0..n {
            bytes.extend(msg::notification(1, "c", &self.sent.to_string()));
            self.sent += 1;
        }
        self.line.as_mut().unwrap().send(&bytes);
    }

    /// Sends the first part of a notification, or the rest of one. It counts when the rest has been sent.
    fn send_part(&mut self) {
        if self.partial.is_empty() {
            let mut first = msg::notification(1, "c", &self.sent.to_string());
            self.partial = first.split_off(9);
            self.line.as_mut().unwrap().send(&first);
        } else {
            self.send(0);
        }
    }

    fn receive(&mut self, payload: &str) {
        assert!(!self.lost, "received after the loss");
        assert_eq!(payload, self.received.to_string());
        self.received += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn m06_each_notification_comes_once_in_order_before_the_loss_and_each_connection_is_in_one_set(
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut state = TestState::new();
        for _ in 0..3 {
            state.insert();
        }
        for act in acts {
            state.act(act);
        }
    }
}
