//! When to look at whom, whatever its socket does.
//!
//! For each connection and reason one timer counts, the nearest that was set. One that doesn't count any more stays in
//! the heap, and does nothing when its time comes; so setting one costs no search. When those that count may be too few
//! for the room that all take, the others are swept out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::clock::CompactInstant;
use crate::manager::NotificationManager;

/// Why a timer was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// To look at a connection.
    Look,
    /// To feel its pulse.
    Pulse,
}

/// The timers of all connections, by token. One whose token has got another owner meanwhile counts for that one only if
/// it wanted to be looked at at that very moment.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(CompactInstant, u32, Why)>>,
    /// When the nearest goes off, at hand: every turn asks.
    next: Option<Instant>,
    /// With how many it is to be swept.
    full: usize,
}

impl Timers {
    /// When the nearest goes off.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    fn push(&mut self, at: CompactInstant, token: u32, why: Why) {
        self.heap.push(Reverse((at, token, why)));
        self.note_next();
    }

    fn pop_due(&mut self, now: Instant) -> Option<(CompactInstant, u32, Why)> {
        self.next.filter(|next| *next <= now)?;
        let due = self.heap.pop();
        self.note_next();
        due.map(|Reverse(timer)| timer)
    }

    fn note_next(&mut self) {
        self.next = self.heap.peek().map(|Reverse((at, ..))| (*at).into());
    }

    /// How many there are for this reason.
    #[cfg(test)]
    pub(super) fn count(&self, why: Why) -> usize {
        self.heap.iter().filter(|Reverse((.., of))| *of == why).count()
    }
}

/// Which timers of one connection count.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Set {
    look: Option<CompactInstant>,
    pulse: Option<CompactInstant>,
}

impl Set {
    fn of(&mut self, why: Why) -> &mut Option<CompactInstant> {
        match why {
            Why::Look => &mut self.look,
            Why::Pulse => &mut self.pulse,
        }
    }

    pub(super) fn has_pulse(&self) -> bool {
        self.pulse.is_some()
    }
}

impl NotificationManager {
    /// Sets a timer, unless a nearer one is set; for never, none.
    pub(super) fn set_timer(&mut self, token: u32, why: Why, at: Option<Instant>) {
        let (Some(at), Some(member)) = (at.map(CompactInstant::from), self.members.get_mut(token)) else { return };
        let set = member.set.of(why);
        if set.is_none_or(|set| at < set) {
            *set = Some(at);
            if self.timers.heap.len() >= self.timers.full {
                self.sweep_timers();
            }
            self.timers.push(at, token, why);
        }
    }

    /// Forgets those that don't count. There is room for a quarter more then, so it costs each that is set a few looks.
    fn sweep_timers(&mut self) {
        let Timers { heap, full, .. } = &mut self.timers;
        heap.retain(|Reverse((at, token, why))| {
            self.members.get_mut(*token).is_some_and(|member| *member.set.of(*why) == Some(*at))
        });
        *full = heap.len() + heap.len() / 4 + 64;
        heap.shrink_to(*full);
        heap.reserve_exact(*full - heap.len());
    }

    /// Queues those whose time has come: a timer says no more than "look at this one".
    pub(super) fn fire_timers(&mut self) {
        while let Some((at, token, why)) = self.timers.pop_due(self.now) {
            if let Some(member) = self.members.get_mut(token)
                && *member.set.of(why) == Some(at)
            {
                *member.set.of(why) = None;
                member.pulse_due |= why == Why::Pulse;
                self.queue(token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::net::UnixStream;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::connection::Connection;
    use crate::manager::members::Life;
    use crate::net::Stream;
    use crate::proto::Session;

    const IDLE: Duration = Duration::from_secs(15);
    const DEADLINE: Duration = Duration::from_secs(5);

    /// A manager of so many connections over socket pairs, whose other ends say nothing that isn't told to.
    fn fleet(size: usize, start: Instant) -> (NotificationManager, Vec<UnixStream>) {
        let config = Config::new().host("127.0.0.1").user("u");
        let (mut connections, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..size {
            let (end, peer) = UnixStream::pair().unwrap();
            end.set_nonblocking(true).unwrap();
            let session = Session::new(&config).unwrap();
            connections.push(Connection::new(session, Stream::from_fd(end.into()), config.clone(), start));
            peers.push(peer);
        }
        let mut manager = NotificationManager::new(connections);
        (manager.now, manager.jitter) = (start, crate::manager::recovery::Jitter::new(7));
        (manager.heartbeat(IDLE, DEADLINE), peers)
    }

    /// Lets the pulses that are due by then be felt; says how many were.
    fn feel_all(manager: &mut NotificationManager, now: Instant) -> usize {
        manager.now = now;
        manager.ready.clear();
        manager.members.tokens().into_iter().for_each(|token| manager.members.get_mut(token).unwrap().queued = false);
        manager.fire_timers();
        let due = std::mem::take(&mut manager.ready);
        for &token in &due {
            let member = manager.members.get_mut(token).unwrap();
            assert!(std::mem::take(&mut member.pulse_due));
            member.queued = false;
            manager.feel_pulse(token, now);
        }
        due.len()
    }

    #[test]
    fn m15_an_idle_connection_costs_one_timer_however_long_it_is_idle() {
        let start = crate::clock::now();
        let (mut manager, _peers) = fleet(200, start);
        let (mut now, mut felt) = (start, 0);
        while now < start + 40 * IDLE {
            // The servers answer at once.
            for token in manager.members.tokens() {
                if let Life::Good(connection) = &mut manager.members.get_mut(token).unwrap().life {
                    connection.set_last_read(now);
                }
            }
            now += IDLE / 2;
            felt += feel_all(&mut manager, now);
            assert_eq!(manager.timers.count(Why::Pulse), 200);
            assert_eq!(manager.timers.heap.len(), 200);
            let distinct: BTreeSet<_> = manager.timers.heap.iter().map(|Reverse((_, token, _))| *token).collect();
            assert_eq!(distinct.len(), 200, "one each");
        }
        assert!(felt <= 200 * 40 * 2, "and is looked at about once a period, not in each turn: {felt}");
    }

    #[test]
    fn m15_the_questions_come_in_no_burst() {
        // What is drawn depends on it, and is the same in every run.
        let start = CompactInstant::FIRST.into();
        let (mut manager, _peers) = fleet(200, start);
        let tick = IDLE / 30;
        let most = (1..=30).map(|n: u32| feel_all(&mut manager, start + n * tick)).max().unwrap();
        assert!(most < 45, "{most} of 200 in one of 30 ticks: the last quarter of a period has seven");
    }

    #[test]
    fn m16_canary_and_audit_cost_an_idle_connection_no_timer() {
        let start = crate::clock::now();
        let (manager, _peers) = fleet(200, start);
        let manager = manager.canary(IDLE, DEADLINE).audit(IDLE);
        assert_eq!(manager.timers.heap.len(), 200, "the heartbeat's");
    }

    #[test]
    fn what_came_back_goes_on_with_one_timer() {
        let start = crate::clock::now();
        let (mut manager, _peers) = fleet(1, start);
        let token = manager.members.tokens()[0];
        for restored in 1..50 {
            // As at a restore: what was set for the session before doesn't count any more.
            manager.members.get_mut(token).unwrap().set = Set::default();
            manager.now = start + restored * Duration::from_millis(10);
            manager.start_pulse(token);
        }
        // Each goes off in its time; those of before do so for nothing.
        for step in 1..200 {
            feel_all(&mut manager, start + step * IDLE / 190);
        }
        assert_eq!(manager.timers.count(Why::Pulse), 1);
    }

    #[test]
    fn timers_that_do_not_count_are_swept_out() {
        let start = crate::clock::now();
        let (mut manager, _peers) = fleet(100, start);
        for round in 0..100 {
            for token in manager.members.tokens() {
                manager.members.get_mut(token).unwrap().set = Set::default();
                manager.start_pulse(token);
                // Ever nearer, so that each counts instead of the one before.
                manager.set_timer(token, Why::Look, Some(start + (200 - round) * Duration::from_secs(1)));
            }
        }
        assert!(manager.timers.heap.len() <= 200 + 50 + 64, "{}", manager.timers.heap.len());
        assert!(manager.timers.heap.capacity() <= 2 * 200 + 64);
        for token in manager.members.tokens() {
            let Set { look, pulse } = manager.members.get(token).unwrap().set;
            for (at, why) in [(look, Why::Look), (pulse, Why::Pulse)] {
                let set = Reverse((at.unwrap(), token, why));
                assert!(manager.timers.heap.iter().any(|timer| *timer == set), "what counts stays");
            }
        }
    }

    #[test]
    fn a_request_of_a_handle_leaves_no_timer_of_its_own() {
        let start = crate::clock::now();
        let (mut manager, _peers) = fleet(1, start);
        let handle = manager.handle();
        let id = manager.connections().next().unwrap().0;
        let tickets: Vec<_> = (0..100).map(|n| handle.notify(id, "c", n.to_string())).collect();
        assert!(manager.try_next_event().is_pending());
        assert_eq!(manager.timers.count(Why::Look), 1);
        drop(tickets);
    }

    #[test]
    fn m9_a_turn_with_a_heartbeat_looks_at_nobody_who_is_silent() {
        let (mut manager, _peers) = fleet(300, crate::clock::now());
        while manager.try_next_event().is_ready() {}
        let before = manager.stats().wakeups;
        for _ in 0..50 {
            assert!(manager.try_next_event().is_pending());
            assert!(manager.ready.is_empty());
        }
        assert_eq!(manager.stats().wakeups, before);
    }
    #[test]
    fn m9_who_wakes_costs_the_same_looks_among_ten_and_among_thousands() {
        use std::io::Write as _;

        use crate::manager::Event;
        use crate::proto::script;

        rlimit::increase_nofile_limit(16_384).unwrap();
        let looks = |size: usize| {
            let (mut manager, mut peers) = fleet(size, crate::clock::now());
            for peer in &mut peers {
                peer.write_all(&script::login()).unwrap();
            }
            while manager.members.iter().any(|member| matches!(&member.life, Life::Good(c) if c.pid() == 0)) {
                assert!(manager.try_next_event().is_pending());
            }
            // The poller may still report sockets that have been read already.
            let mut before = 0;
            while before != manager.members.looks.get() {
                before = manager.members.looks.get();
                assert!(manager.try_next_event().is_pending());
            }
            for which in [0, 3, 9] {
                peers[which].write_all(&script::notification(1, "c", "x")).unwrap();
                assert!(matches!(manager.try_next_event(), Poll::Ready(Some(Event::Notifies(..)))));
                assert!(manager.try_next_event().is_pending());
            }
            manager.members.looks.get() - before
        };
        let few = looks(10);
        assert!(few <= 3 * 10, "{few} for three");
        assert_eq!(looks(2_000), few);
    }
}
