//! Properties of a reader's timers: one action at a time, and no timer in the past.

use std::time::{Duration, Instant, SystemTime};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::changes::log::action::{Begin, LogAction, LogOptions, LogOutput, LogRequest};
use crate::changes::log::position::LogPlace;
use crate::changes::log::reader::LogReader;
use crate::changes::log::reply::{Claimed, LogRow, LogView, Marked};
use crate::changes::log::snapshot::Snapshot;
use crate::clock;

/// An input of a reader.
#[derive(Debug, Clone)]
enum TimerInput {
    Advance { reads: bool, has_room: bool },
    Reply { is_good: bool, is_whole: bool, rows: usize, dropped: i64 },
    Fail,
    Lose,
    Wait(u64),
    Acknowledge,
    Notify,
}

fn any_input() -> impl Strategy<Value = TimerInput> {
    let reply = (prop::bool::weighted(0.9), any::<bool>(), 0_usize..3, 0_i64..3);
    prop_oneof![
        8 => (prop::bool::weighted(0.8), prop::bool::weighted(0.9)).prop_map(|(reads, has_room)| TimerInput::Advance { reads, has_room }),
        8 => reply.prop_map(|(is_good, is_whole, rows, dropped)| TimerInput::Reply { is_good, is_whole, rows, dropped }),
        1 => Just(TimerInput::Fail),
        1 => Just(TimerInput::Lose),
        3 => prop_oneof![0_u64..50, 50_u64..3_000, 3_000_u64..60_000].prop_map(TimerInput::Wait),
        1 => Just(TimerInput::Acknowledge),
        1 => Just(TimerInput::Notify),
    ]
}

/// A reader with its pending action.
struct ReaderDriver {
    reader: LogReader,
    action: Option<LogAction>,
    outputs: Vec<LogOutput>,
    xid: u64,
    now: Instant,
}

impl ReaderDriver {
    fn new(is_named: bool, is_since: bool) -> Self {
        let begin = if is_since { Begin::Since(SystemTime::UNIX_EPOCH) } else { Begin::Default };
        let options = LogOptions { name: is_named.then(|| "name".to_owned()), begin, ..LogOptions::default() };
        Self { reader: LogReader::new(options), action: None, outputs: Vec::new(), xid: 3, now: clock::now() }
    }

    fn advance(&mut self, reads: bool, has_room: bool) -> Result<(), TestCaseError> {
        let action = self.reader.next_action(reads, has_room, self.now);
        prop_assert!(action.is_none() || self.action.is_none(), "two actions: {:?} and {action:?}", self.action);
        if self.action.is_some() || action.is_some() {
            prop_assert_eq!(self.reader.next_timer(), None);
        } else {
            let timer = self.reader.next_timer();
            prop_assert!(timer.is_none_or(|at| at > self.now), "the timer is in the past");
        }
        self.action = self.action.take().or(action);
        Ok(())
    }

    fn reply(&mut self, is_good: bool, is_whole: bool, rows: usize, dropped: i64) {
        let (reader, now) = (&mut self.reader, self.now);
        let output = match self.action.take() {
            None => None,
            Some(LogAction::Prepare) => reader.handle_prepared((!is_good).then_some("a standby"), now),
            Some(LogAction::Claim(..)) => {
                let holder = (!is_good).then(|| "another".to_owned());
                reader.handle_claimed(Claimed { holder, backend: 1, position: None, moved_at: None }, now)
            }
            Some(LogAction::FindMark(_)) => {
                reader.handle_marked(is_good.then(|| Marked { snapshot: Snapshot::empty(), dropped: 0, bound: 0 }));
                None
            }
            Some(LogAction::BeginEra) => {
                reader.handle_done(LogRequest::BeginEra, now);
                None
            }
            Some(LogAction::Poll(_) | LogAction::Page(_)) => {
                self.xid += 1;
                let view = LogView {
                    dropped,
                    bound: self.xid,
                    is_current: is_good,
                    place: LogPlace { system: 1, database: 1, start: 1 },
                    knows_start: true,
                    snapshot: Snapshot::new(self.xid, []),
                    truncated: Snapshot::empty(),
                    era_bound: 0,
                    end: 100,
                    first: 0,
                    is_whole,
                    rows: (0..rows).map(|row| LogRow { number: row as i64, payload: [].into() }).collect(),
                };
                self.outputs.extend(reader.handle_view(view, now, SystemTime::UNIX_EPOCH));
                None
            }
            Some(LogAction::Save(..)) => {
                reader.handle_done(LogRequest::Save, now);
                None
            }
            Some(LogAction::Elect) => {
                reader.handle_elected(is_good, is_whole, now);
                None
            }
            Some(LogAction::Wake | LogAction::ReportWaiting(_)) => {
                reader.handle_done(LogRequest::Send, now);
                None
            }
            Some(LogAction::Rotate) => {
                reader.handle_done(LogRequest::Rotate, now);
                None
            }
        };
        self.outputs.extend(output);
    }

    /// Exchanges actions and replies until there is no action.
    fn rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..20 {
            self.acknowledge();
            self.advance(true, true)?;
            if self.action.is_none() {
                return Ok(());
            }
            self.reply(true, true, 0, 0);
        }
        Err(TestCaseError::fail(format!("the reader does not come to rest: {:?}", self.action)))
    }

    fn acknowledge(&mut self) {
        let position = |output: &LogOutput| match output {
            LogOutput::Gap { position, .. } | LogOutput::Change(position, _) => Some(position.clone()),
            LogOutput::Refused(_) | LogOutput::Waiting(_) => None,
        };
        let positions: Vec<_> = self.outputs.drain(..).filter_map(|output| position(&output)).collect();
        if let Some(last) = positions.last() {
            self.reader.acknowledge(last.clone(), positions.len());
        }
    }

    fn handle(&mut self, input: TimerInput) -> Result<(), TestCaseError> {
        match input {
            TimerInput::Advance { reads, has_room } => self.advance(reads, has_room)?,
            TimerInput::Reply { is_good, is_whole, rows, dropped } => self.reply(is_good, is_whole, rows, dropped),
            TimerInput::Fail => match self.action.take() {
                None => {}
                Some(LogAction::Save(..)) => self.reader.handle_failed(LogRequest::Save, self.now),
                Some(LogAction::Elect | LogAction::Wake | LogAction::ReportWaiting(_) | LogAction::Rotate) => {
                    self.reader.handle_failed(LogRequest::Rotate, self.now);
                }
                Some(_) => self.reader.handle_failed(LogRequest::Read, self.now),
            },
            TimerInput::Lose => {
                self.action = None;
                self.reader.handle_lost();
            }
            TimerInput::Wait(millis) => self.now += Duration::from_millis(millis),
            TimerInput::Acknowledge => self.acknowledge(),
            TimerInput::Notify => drop(self.reader.handle_notification("")),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn there_is_one_action_at_a_time_and_no_timer_in_the_past(
        is_named in any::<bool>(),
        is_since in any::<bool>(),
        inputs in vec(any_input(), 1..80),
    ) {
        let mut driver = ReaderDriver::new(is_named, is_since);
        driver.rest()?;
        for input in inputs {
            driver.handle(input)?;
        }
    }

    #[test]
    fn a_reader_with_all_replies_comes_to_rest_until_its_next_timer(
        is_named in any::<bool>(),
        inputs in vec(any_input(), 1..60),
    ) {
        let mut driver = ReaderDriver::new(is_named, false);
        for input in inputs {
            driver.handle(input)?;
        }
        for _ in 0..5 {
            driver.rest()?;
            let timer = driver.reader.next_timer();
            prop_assert!(timer.is_some(), "the reader would never act again");
            driver.now = timer.unwrap_or(driver.now);
        }
    }
}
