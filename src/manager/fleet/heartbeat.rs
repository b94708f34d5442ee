//! The heartbeat: when to ask a silent server for an answer, and when to treat its connection as lost.
//!
//! Each connection has one timer, which is set again only when it fires, so received bytes cost nothing.

use std::time::{Duration, Instant};

use super::jitter::Jitter;
use crate::clock::CompactInstant;

/// The settings of the heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) idle: Duration,
    pub(crate) deadline: Duration,
}

/// The next step for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeartbeatAction {
    /// Check again at this time.
    Wait(Option<Instant>),
    /// Send a `Sync`, and check again at this time.
    Ask(Option<Instant>),
    /// The server has not answered in time.
    Dead,
}

/// The facts about one connection that its heartbeat depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeartbeatInput {
    /// A number that differs between connections.
    pub(crate) number: u64,
    /// The time at which bytes were last read.
    pub(crate) last_read: Instant,
    /// `true` if no request is outstanding.
    pub(crate) is_settled: bool,
    /// `true` if a request of the client is outstanding that the server answers immediately.
    pub(crate) awaits_prompt_answer: bool,
}

/// The heartbeat of one connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeartbeatState {
    /// The time of the last `Sync`, unless bytes have been read since.
    asked: Option<CompactInstant>,
}

/// The divisor for the part of `idle` by which a period may be shortened, so that the messages come in no burst.
const SPREAD: u32 = 4;
/// The shortest time between two checks.
const STEP: Duration = Duration::from_millis(1);
/// The number of parts into which the shorter of the two times is divided. Checks happen only at the ends of parts, many
/// together, because each separate wake-up of the loop costs a timer of the system.
const PARTS: u32 = 32;

impl Heartbeat {
    /// Returns the time of a connection's first check: a random time within a period.
    pub(crate) fn first(&self, now: Instant, jitter: &mut Jitter) -> Option<Instant> {
        self.end_of_part(now.checked_add(jitter.up_to(self.period())))
    }

    fn part(&self) -> Duration {
        self.idle.min(self.deadline) / PARTS
    }

    /// Returns how long a connection may be silent before it is asked. Two checks may each be late by a part.
    fn period(&self) -> Duration {
        self.idle - 2 * self.part()
    }

    /// Returns the end of the part in which a check is due.
    fn end_of_part(&self, due: Option<Instant>) -> Option<Instant> {
        Some(CompactInstant::from(due?).round_up_to(self.part()).into())
    }

    /// Decides for a connection from which bytes were last read at `last_read`, and which was asked since at `asked`.
    fn check(&self, last_read: Instant, asked: Option<Instant>, now: Instant) -> HeartbeatAction {
        // Any byte is a sign of life.
        match asked {
            Some(asked) => match asked.checked_add(self.deadline) {
                Some(limit) if limit <= now => HeartbeatAction::Dead,
                limit => HeartbeatAction::Wait(limit),
            },
            None => match last_read.checked_add(self.idle) {
                Some(due) if due <= now => HeartbeatAction::Ask(now.checked_add(self.deadline)),
                due => HeartbeatAction::Wait(due),
            },
        }
    }
}

impl HeartbeatState {
    /// Handles the timer, after the socket has been read.
    pub(crate) fn on_timer(&mut self, heartbeat: &Heartbeat, input: HeartbeatInput, now: Instant) -> HeartbeatAction {
        // A connection is only asked after a silence, so what was read at the same time was read after it.
        self.asked.take_if(|asked| Instant::from(*asked) <= input.last_read);
        // The jitter is the same for each check of the same silence. If it were drawn again each time, the longest period
        // would win, and all connections would be asked at the end of their periods.
        let mut jitter = Jitter::of((input.number, CompactInstant::from(input.last_read)));
        let idle = heartbeat.period() - jitter.up_to(heartbeat.idle / SPREAD);
        // A deadline that is longer than a period must not hide the end of the next period.
        let latest = now.checked_add(heartbeat.period());
        let at = |next: Option<Instant>| {
            heartbeat.end_of_part([next, latest].into_iter().flatten().min().map(|next| next.max(now + STEP)))
        };
        match (Heartbeat { idle, ..*heartbeat }).check(input.last_read, self.asked.map(Instant::from), now) {
            HeartbeatAction::Wait(next) => HeartbeatAction::Wait(at(next)),
            HeartbeatAction::Ask(next) if input.is_settled => {
                self.asked = Some(now.into());
                HeartbeatAction::Ask(at(next))
            }
            // Bytes arrived after the `Sync` that were not its answer, and then nothing. The answer is still due, and only
            // this deadline limits it.
            HeartbeatAction::Ask(next) if input.awaits_prompt_answer => {
                self.asked = Some(now.into());
                HeartbeatAction::Wait(at(next))
            }
            // Another request is outstanding, which has a time limit of its own. Its answer is as good.
            HeartbeatAction::Ask(next) => HeartbeatAction::Wait(at(next)),
            HeartbeatAction::Dead => HeartbeatAction::Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn m15_a_missing_answer_is_awaited_only_until_the_deadline() {
        let heartbeat = Heartbeat { idle: 10 * SECOND, deadline: 2 * SECOND };
        let (mut state, start) = (HeartbeatState::default(), Instant::now());
        let mut input = HeartbeatInput { number: 1, last_read: start, is_settled: true, awaits_prompt_answer: false };
        assert!(matches!(state.on_timer(&heartbeat, input, start + 10 * SECOND), HeartbeatAction::Ask(_)));
        // A notification arrives that was sent earlier. Then the link fails, and the answer never arrives.
        let last_read = start + 11 * SECOND;
        input = HeartbeatInput { number: 1, last_read, is_settled: false, awaits_prompt_answer: true };
        let mut now = start + 12 * SECOND;
        while let HeartbeatAction::Wait(Some(next)) = state.on_timer(&heartbeat, input, now) {
            now = next;
            assert!(now <= last_read + heartbeat.idle + heartbeat.deadline);
        }
    }

    #[test]
    fn m15_a_silent_server_is_asked_once_and_lost_at_the_deadline() {
        let heartbeat = Heartbeat { idle: 10 * SECOND, deadline: 2 * SECOND };
        let start = Instant::now();
        assert_eq!(heartbeat.check(start, None, start + 9 * SECOND), HeartbeatAction::Wait(Some(start + 10 * SECOND)));
        let asked = start + 10 * SECOND;
        assert_eq!(heartbeat.check(start, None, asked), HeartbeatAction::Ask(Some(asked + 2 * SECOND)));
        assert_eq!(
            heartbeat.check(start, Some(asked), asked + SECOND),
            HeartbeatAction::Wait(Some(asked + 2 * SECOND))
        );
        assert_eq!(heartbeat.check(start, Some(asked), asked + 2 * SECOND), HeartbeatAction::Dead);
    }

    #[test]
    fn m15_any_byte_is_a_sign_of_life() {
        let heartbeat = Heartbeat { idle: 10 * SECOND, deadline: 2 * SECOND };
        let (mut state, start) = (HeartbeatState::default(), Instant::now());
        let mut input = HeartbeatInput { number: 1, last_read: start, is_settled: true, awaits_prompt_answer: false };
        assert!(matches!(state.on_timer(&heartbeat, input, start + 10 * SECOND), HeartbeatAction::Ask(_)));
        input.last_read = start + 11 * SECOND;
        assert!(matches!(state.on_timer(&heartbeat, input, start + 13 * SECOND), HeartbeatAction::Wait(_)));
        assert_eq!(state, HeartbeatState::default(), "nothing is outstanding");
    }

    #[test]
    fn m15_a_deadline_longer_than_a_period_keeps_the_limit() {
        let heartbeat = Heartbeat { idle: 2 * SECOND, deadline: 10 * SECOND };
        let (mut state, start) = (HeartbeatState::default(), Instant::now());
        let mut input = HeartbeatInput { number: 1, last_read: start, is_settled: true, awaits_prompt_answer: false };
        let mut now = start + heartbeat.idle;
        let HeartbeatAction::Ask(Some(mut next)) = state.on_timer(&heartbeat, input, now) else { panic!() };
        // The server answers immediately, and never again.
        input.last_read = now + SECOND / 100;
        while now < next {
            now = next;
            match state.on_timer(&heartbeat, input, now) {
                HeartbeatAction::Wait(at) | HeartbeatAction::Ask(at) => next = at.unwrap(),
                HeartbeatAction::Dead => {}
            }
        }
        assert!(now <= input.last_read + heartbeat.idle + heartbeat.deadline, "{:?}", now - input.last_read);
    }

    #[test]
    fn m15_checks_happen_together_and_keep_the_limit() {
        for heartbeat in [(30, 10), (10, 30), (600, 5)]
            .map(|(idle, deadline)| Heartbeat { idle: idle * SECOND, deadline: deadline * SECOND })
        {
            let (start, mut jitter) = (Instant::now(), Jitter::new(3));
            let mut times = std::collections::BTreeSet::new();
            for number in 0..500 {
                // All connections fall silent within a second, and never answer.
                let last_read = start + SECOND * number / 500;
                let mut state = HeartbeatState::default();
                let mut input =
                    HeartbeatInput { number: number.into(), last_read, is_settled: true, awaits_prompt_answer: false };
                let mut now = heartbeat.first(last_read, &mut jitter).unwrap();
                loop {
                    times.insert(now);
                    match state.on_timer(&heartbeat, input, now) {
                        HeartbeatAction::Dead => break,
                        HeartbeatAction::Wait(at) => now = at.unwrap(),
                        HeartbeatAction::Ask(at) => (now, input.is_settled) = (at.unwrap(), false),
                    }
                }
                assert!(now <= last_read + heartbeat.idle + heartbeat.deadline);
            }
            let longest = (heartbeat.idle + heartbeat.deadline).div_duration_f64(heartbeat.part());
            assert!(times.len() as f64 <= longest + 2.0, "{} times for {heartbeat:?}", times.len());
        }
    }

    /// The checks are at the ends of parts, so the result depends on where in a part the periods begin: here at fixed times.
    #[test]
    fn m15_heartbeats_are_spread_over_time() {
        const PHASES: u32 = 20;
        let heartbeat = Heartbeat { idle: 20 * SECOND, deadline: 100 * SECOND };
        let mut of_second = [0; 10 * 20];
        for phase in 0..PHASES {
            let start = Instant::from(CompactInstant::FIRST) + 3600 * SECOND + phase * heartbeat.part() / PHASES;
            let mut jitter = Jitter::new(phase.into());
            for number in 0..50 {
                let mut state = HeartbeatState::default();
                let mut input =
                    HeartbeatInput { number, last_read: start, is_settled: true, awaits_prompt_answer: false };
                let mut now = heartbeat.first(start, &mut jitter).unwrap();
                while let Some(asked) = of_second.get_mut((now - start).as_secs() as usize) {
                    match state.on_timer(&heartbeat, input, now) {
                        HeartbeatAction::Dead => panic!("the server answers immediately"),
                        HeartbeatAction::Wait(at) => now = at.unwrap(),
                        HeartbeatAction::Ask(_) => (*asked, input.last_read) = (*asked + 1, now + STEP),
                    }
                }
            }
        }
        let (all, most) = (PHASES as usize * 50, of_second.iter().max().unwrap());
        assert!(*most <= all / 3, "{most} of {all} are asked within a twentieth of a period: {of_second:?}");
        assert!(of_second.iter().sum::<usize>() >= all * 9, "each is asked once in a period: {of_second:?}");
    }
}
