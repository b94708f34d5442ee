//! The law: each notification comes out exactly once, in order, before its connection's loss; and each connection is
//! in exactly one of connections, restoring, garbage and taken.

use std::collections::BTreeMap;
use std::time::Duration;

use notifyman::{ConnId, Dead, Event, NotificationManager};
use proptest::prelude::*;

use super::fake::{Fake, Line};
use super::support::*;
use crate::support::msg;

/// What happens next; the number picks the connection.
#[derive(Debug, Clone)]
enum Act {
    /// The server says so many notifications in one go.
    Say(usize, usize),
    /// The server says a piece of one, and the rest with the next.
    SendHalf(usize),
    HangUp(usize),
    Nonsense(usize),
    Insert,
    Remove(usize),
    /// One of the dead is to come back.
    Revive(usize),
    Cancel(usize),
    /// The server lets one that comes back in, or hangs up on it.
    Admit(usize),
    Refuse(usize),
    Take,
    /// So many events are taken.
    Iterate(usize),
    SetTimeout(Option<u64>),
}

fn act() -> impl Strategy<Value = Act> {
    let which = 0..8_usize;
    prop_oneof![
        6 => (which.clone(), 1..40_usize).prop_map(|(which, n)| Act::Say(which, n)),
        2 => which.clone().prop_map(Act::SendHalf),
        1 => which.clone().prop_map(Act::HangUp),
        1 => which.clone().prop_map(Act::Nonsense),
        2 => Just(Act::Insert),
        1 => which.clone().prop_map(Act::Remove),
        2 => which.clone().prop_map(Act::Revive),
        1 => which.clone().prop_map(Act::Cancel),
        3 => which.clone().prop_map(Act::Admit),
        1 => which.prop_map(Act::Refuse),
        2 => Just(Act::Take),
        5 => (1..6_usize).prop_map(Act::Iterate),
        1 => prop_oneof![Just(Some(0)), Just(Some(1)), Just(Some(20))].prop_map(Act::SetTimeout),
    ]
}

/// What the test knows of one connection.
#[derive(Default)]
struct Known {
    line: Option<Line>,
    partial: Vec<u8>,
    said: usize,
    received: usize,
    lost: bool,
}

struct ManagerModel {
    fake: Fake,
    nm: NotificationManager,
    known: BTreeMap<ConnId, Known>,
    taken: Vec<ConnId>,
    garbage: Vec<(ConnId, Dead)>,
    /// The server's ends of those that came back, by process number, until that is reported.
    admitted: BTreeMap<i32, Line>,
}

impl ManagerModel {
    fn new() -> Self {
        let nm = NotificationManager::new([]).timeout(Duration::from_millis(1));
        let (known, taken, garbage, admitted) = Default::default();
        Self { fake: Fake::new(), nm, known, taken, garbage, admitted }
    }

    fn insert(&mut self) {
        let (db, line) = self.fake.open();
        let id = self.nm.insert(db);
        assert!(self.known.insert(id, Known { line: Some(line), ..Known::default() }).is_none(), "{id} is used again");
    }

    /// The server's end of one whose line is open.
    fn open_line(&mut self, which: usize) -> Option<&mut Known> {
        let mut open: Vec<&mut Known> = self.known.values_mut().filter(|known| known.line.is_some()).collect();
        if open.is_empty() { None } else { Some(open.swap_remove(which % open.len())) }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Say(which, n) => drop(self.open_line(which).map(|known| known.say(n))),
            Act::SendHalf(which) => drop(self.open_line(which).map(Known::send_half)),
            Act::HangUp(which) => drop(self.open_line(which).map(|known| known.line.take())),
            Act::Nonsense(which) => {
                if let Some(known) = self.open_line(which).filter(|known| known.partial.is_empty()) {
                    known.line.take().unwrap().say(&msg::raw(b'!', b""));
                }
            }
            Act::Insert => self.insert(),
            Act::Remove(which) => {
                let good = ids(&self.nm);
                if let Some(id) = good.get(which % good.len().max(1)) {
                    let mut db = self.nm.remove(*id).unwrap().unwrap();
                    self.taken.push(*id);
                    let known = self.known.get_mut(id).unwrap();
                    known.line = None;
                    // What was not delivered is in it.
                    for n in db.wait(Duration::ZERO).flatten() {
                        known.receive(&n.payload());
                    }
                    assert_eq!(known.received, known.said, "{id}");
                }
            }
            Act::Revive(which) => {
                if !self.garbage.is_empty() {
                    let (id, dead) = self.garbage.swap_remove(which % self.garbage.len());
                    assert_eq!(self.nm.revive(id, dead), id);
                    self.taken.retain(|taken| *taken != id);
                }
            }
            Act::Cancel(which) => {
                let restoring: Vec<ConnId> = self.nm.restoring().map(|(id, _)| id).collect();
                if let Some(id) = restoring.get(which % restoring.len().max(1)) {
                    assert!(self.nm.remove(*id).unwrap().is_err());
                    self.taken.push(*id);
                }
            }
            Act::Admit(which) => {
                let strays = self.fake.strays();
                if !strays.is_empty() {
                    let (pid, mut line) = strays.swap_remove(which % strays.len());
                    match line.answer() {
                        true => drop(self.admitted.insert(pid, line)),
                        false => strays.push((pid, line)),
                    }
                }
            }
            Act::Refuse(which) => {
                let strays = self.fake.strays();
                if !strays.is_empty() {
                    strays.swap_remove(which % strays.len());
                }
            }
            Act::Take => {
                let garbage = self.nm.take_garbage();
                self.taken.extend(garbage.iter().map(|(id, _)| *id));
                self.garbage.extend(garbage);
            }
            Act::Iterate(n) => drop((0..n).take_while(|_| self.iterate()).count()),
            Act::SetTimeout(millis) => self.nm.set_timeout(millis.map(Duration::from_millis)),
        }
        self.assert_each_is_in_one_place();
    }

    /// Takes one event; says whether there was one.
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
                assert_eq!(known.received, known.said, "{id} was lost before everything was reported");
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
    fn say(&mut self, n: usize) {
        let mut bytes = std::mem::take(&mut self.partial);
        self.said += usize::from(!bytes.is_empty());
        for _ in 0..n {
            bytes.extend(msg::notification(1, "c", &self.said.to_string()));
            self.said += 1;
        }
        self.line.as_mut().unwrap().say(&bytes);
    }

    /// Says the first half of a message, which does not count before the rest is said.
    fn send_half(&mut self) {
        if self.partial.is_empty() {
            let mut first = msg::notification(1, "c", &self.said.to_string());
            self.partial = first.split_off(9);
            self.line.as_mut().unwrap().say(&first);
        } else {
            self.say(0);
        }
    }

    fn receive(&mut self, payload: &str) {
        assert!(!self.lost, "reported after its loss");
        assert_eq!(payload, self.received.to_string());
        self.received += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn m06_each_notification_comes_once_in_order_before_the_loss_and_none_is_in_two_places(
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut model = ManagerModel::new();
        for _ in 0..3 {
            model.insert();
        }
        for act in acts {
            model.act(act);
        }
    }
}
