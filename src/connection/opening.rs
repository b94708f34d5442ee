//! One connection being opened, up to the server's word that it listens: dial, then LISTEN without a wait between.

use std::time::Instant;

use crate::connection::Connection;
use crate::connection::converse::{Talk, ask};
use crate::connection::dial::{Dial, Step};
use crate::connection::ear::Ear;
use crate::error::Error;
use crate::net::{PollWaker, Stream};
use crate::proto::{Request, RequestId, sql};

/// A connection on its way.
#[derive(Debug)]
pub(super) struct Opening {
    phase: Phase,
    /// Which of the dial's streams is being watched.
    watched: Option<u32>,
}

#[derive(Debug)]
enum Phase {
    Dialling(Box<Dial>),
    Listening { connection: Box<Connection>, request: RequestId, until: Option<Instant> },
    Over,
}

/// How far it has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// Step again when the stream is ready, when the waker wakes the poll, and at the latest at this time.
    Wait(Option<Instant>),
    /// It is open, and listens; its stream is being watched.
    Open(Box<Connection>),
    Failed(Error),
}

impl Opening {
    pub(super) fn new(dial: Dial) -> Self {
        Self { phase: Phase::Dialling(Box::new(dial)), watched: None }
    }

    /// Goes on as far as it can, to listen to these channels.
    pub(super) fn step(&mut self, channels: &[String], now: Instant, waker: &PollWaker, ear: &mut Ear<'_>) -> Progress {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Dialling(mut dial) => match dial.step(now, Some(waker), ear) {
                    Step::Wait(until) => {
                        self.phase = Phase::Dialling(dial);
                        return Progress::Wait(until);
                    }
                    Step::Failed(error) => return Progress::Failed(error),
                    Step::Done(connection, _) if channels.is_empty() => return Progress::Open(connection),
                    Step::Done(mut connection, _) => match sql::checked_channels(channels, connection.session.limits())
                    {
                        Err(error) => return Progress::Failed(error),
                        Ok(names) => {
                            let request = connection.session.request(Request::Listen(names));
                            let until = connection.call_timeout().and_then(|timeout| now.checked_add(timeout));
                            self.phase = Phase::Listening { connection, request, until };
                        }
                    },
                },
                Phase::Listening { mut connection, request, until } => {
                    let talk = ask(&mut connection, request, ear, now);
                    return match talk {
                        Talk::Over(Ok(_), _) => Progress::Open(connection),
                        Talk::Over(Err(error), _) => Progress::Failed(error),
                        _ if until.is_some_and(|until| until <= now) => {
                            let after = connection.call_timeout().unwrap_or_default();
                            Progress::Failed(Error::Timeout { action: "LISTEN", after, closed: true })
                        }
                        Talk::Silent | Talk::GoesOn => {
                            self.phase = Phase::Listening { connection, request, until };
                            Progress::Wait(if matches!(talk, Talk::GoesOn) { Some(now) } else { until })
                        }
                    };
                }
                Phase::Over => return Progress::Failed(Error::Disconnected),
            }
        }
    }

    /// Whether it is to be stepped when the waker wakes the poll.
    pub(super) fn awaits_alarm(&self) -> bool {
        matches!(&self.phase, Phase::Dialling(dial) if dial.is_looking_up())
    }

    /// A stream that isn't watched yet; from now on it counts as watched.
    pub(super) fn unwatched(&mut self) -> Option<&Stream> {
        let Phase::Dialling(dial) = &self.phase else { return None };
        let (number, stream) = dial.stream()?;
        (self.watched.replace(number) != Some(number)).then_some(stream)
    }
}
