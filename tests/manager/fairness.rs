//! M08: a ready connection is served after a bounded number of batches of the others, however much those receive.

use std::time::Duration;

use notifyman::{Batch, ConnId, NotificationManager};

use super::fake::{Fake, Line};
use super::support::{ids, payloads};

const FLOODS: usize = 5;
const SPARSE: usize = 4;

/// Connections that receive more before each event than one read takes, and connections that rarely receive anything.
struct Crowd {
    _fake: Fake,
    nm: NotificationManager,
    ids: Vec<ConnId>,
    lines: Vec<Line>,
}

impl Crowd {
    fn new(setup: impl FnOnce(NotificationManager) -> NotificationManager) -> Self {
        let mut fake = Fake::new();
        let (connections, lines) = fake.open_many(FLOODS + SPARSE);
        let nm = setup(NotificationManager::new(connections));
        Self { ids: ids(&nm), _fake: fake, nm, lines }
    }

    /// Fills the sockets of the flooded connections, and returns the next batch.
    fn next(&mut self) -> (ConnId, Batch) {
        for line in self.lines.iter_mut().take(FLOODS) {
            line.flood();
        }
        loop {
            if let Some(received) = self.nm.next().unwrap() {
                return received;
            }
        }
    }

    /// Returns the number of batches of other connections before the one that is sent to this connection now.
    fn before(&mut self, which: usize) -> usize {
        self.lines[which].notify("sparse");
        let id = self.ids[which];
        let mut before = 0;
        loop {
            let (received, batch) = self.next();
            if received == id {
                assert_eq!(payloads(&batch), ["sparse"]);
                return before;
            }
            before += 1;
        }
    }
}

#[test]
fn m08_a_quiet_connection_waits_for_at_most_one_read_of_each_flooded_one() {
    for heartbeat in [false, true] {
        let mut crowd = Crowd::new(|nm| match heartbeat {
            true => nm.heartbeat(Duration::from_secs(60), Duration::from_secs(60)).timeout(Duration::from_millis(1)),
            false => nm,
        });
        (0..4 * FLOODS).for_each(|_| drop(crowd.next()));
        for round in 0..30 {
            // At every position within a turn.
            (0..round % FLOODS).for_each(|_| drop(crowd.next()));
            let before = crowd.before(FLOODS + round % SPARSE);
            assert!(before <= FLOODS, "{before} batches of {FLOODS} flooded connections came first, in round {round}");
        }
    }
}

#[test]
fn m08_flooded_connections_take_turns() {
    let mut crowd = Crowd::new(|nm| nm);
    (0..4 * FLOODS).for_each(|_| drop(crowd.next()));
    let received: Vec<_> = (0..20 * FLOODS).map(|_| crowd.next().0).collect();
    for turn in received.windows(2 * FLOODS) {
        let missing: Vec<_> = crowd.ids.iter().take(FLOODS).filter(|id| !turn.contains(id)).collect();
        assert!(missing.is_empty(), "{missing:?} had no turn among {turn:?}");
    }
}
