//! The thread of a reader: one connection to the engine, on which it reads all streams.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use super::engine_clock::EngineClock;
use super::feed::{FeedOutput, ReadTime, StreamFeed, StreamStart};
use super::queue::ReaderQueue;
use crate::clock;
use crate::error::Error;
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::StreamEntry;
use crate::relay::redis::{EngineConfig, EngineConnection, EngineFault, FaultKind, Interrupt, RawEntry, commands};

/// The largest number of entries that one read returns of each stream.
const ENTRIES_MAX: usize = 128;
/// The largest number of entries that one read returns of all streams, if there are not too many.
const ENTRIES_OF_ALL_MAX: usize = 1024;
/// The shortest and the longest time between two attempts to connect.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The streams of a reader, and what its thread needs to read them.
pub(super) struct StreamThread {
    pub(super) config: EngineConfig,
    pub(super) feeds: Vec<StreamFeed>,
    pub(super) reports_canaries: bool,
    pub(super) queue: Arc<ReaderQueue>,
    /// The number of this thread at the queue.
    pub(super) number: u64,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) clock: EngineClock,
    pub(super) out: Vec<FeedOutput>,
}

impl StreamThread {
    /// Reads until the reader is dropped or started again, or until every stream is lost.
    pub(super) fn run(mut self) {
        let mut retry = RETRY_MIN;
        while self.may_read() {
            let fault = match EngineConnection::open(&self.config, &self.interrupt) {
                Ok(mut connection) => {
                    retry = RETRY_MIN;
                    match self.read(&mut connection) {
                        Ok(()) => break,
                        Err(fault) => fault,
                    }
                }
                Err(fault) => fault,
            };
            if !self.may_read() {
                break;
            }
            self.report(&fault);
            if !self.hand_over() || self.interrupt.sleep(with_jitter(retry)) {
                break;
            }
            retry = (retry * 2).min(RETRY_MAX);
        }
        self.hand_over();
        self.queue.end(self.number);
    }

    /// Returns `true` unless the reader was dropped or started again, or every stream is lost.
    fn may_read(&self) -> bool {
        !self.interrupt.is_stopped() && !self.feeds.iter().all(StreamFeed::is_lost)
    }

    /// Gives the events to the program. Returns `false` if it takes no more.
    fn hand_over(&mut self) -> bool {
        self.queue.add(self.number, &mut self.out)
    }

    /// Reads on a connection until it fails, or until nothing remains to be read.
    fn read(&mut self, connection: &mut EngineConnection) -> Result<(), EngineFault> {
        self.measure(connection)?;
        loop {
            for number in 0..self.feeds.len() {
                self.begin(connection, number)?;
            }
            if !self.hand_over() || !self.queue.wait_for_room(self.number) || !self.may_read() {
                return Ok(());
            }
            let now = clock::now();
            let read: Vec<usize> = (0..self.feeds.len()).filter(|number| !self.feeds[*number].is_lost()).collect();
            let deadline = read.iter().map(|number| self.feeds[*number].deadline()).min();
            let wait = deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(now));
            let streams: Vec<_> = read.iter().map(|n| (self.feeds[*n].key.as_str(), self.feeds[*n].cursor())).collect();
            let count = (ENTRIES_OF_ALL_MAX / streams.len().max(1)).clamp(8, ENTRIES_MAX);
            match commands::read_on(connection, &streams, count, wait) {
                Ok(found) => {
                    let found: Vec<_> = found.into_iter().map(|(index, entries)| (read[index], entries)).collect();
                    self.receive(connection, found)?;
                }
                Err(fault) if fault.kind == FaultKind::WrongType => self.find_wrong_types(connection, &read)?,
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Reads the end of a stream whose position is not known.
    fn begin(&mut self, connection: &mut EngineConnection, number: usize) -> Result<(), EngineFault> {
        let feed = &mut self.feeds[number];
        if !feed.must_begin() {
            return Ok(());
        }
        let (mut start, mut before) = (StreamStart::default(), None);
        loop {
            let page = match commands::read_back(connection, &feed.key, before, ENTRIES_MAX) {
                Err(fault) if fault.kind == FaultKind::WrongType => {
                    feed.handle_loss(feed.error(&fault), &mut self.out);
                    return Ok(());
                }
                other => other?,
            };
            let is_last = page.len() < ENTRIES_MAX;
            for (at, fields) in page {
                before = Some(at);
                let entry = match StreamEntry::from_fields(at, &fields) {
                    Ok(entry) => entry,
                    Err(error) => {
                        feed.handle_loss(feed.error(&error), &mut self.out);
                        return Ok(());
                    }
                };
                if !start.push(at, &entry) {
                    feed.begin(start, read_time(), &mut self.out);
                    return Ok(());
                }
            }
            if is_last {
                feed.begin(start, read_time(), &mut self.out);
                return Ok(());
            }
        }
    }

    /// Handles what one read has returned, by the number of the stream.
    fn receive(
        &mut self,
        connection: &mut EngineConnection,
        found: Vec<(usize, Vec<RawEntry>)>,
    ) -> Result<(), EngineFault> {
        let now = read_time();
        let has_canary = found.iter().any(|(_, entries)| entries.iter().any(|(_, fields)| is_canary(fields)));
        if has_canary {
            self.measure(connection)?;
        }
        let mut is_alive = vec![false; self.feeds.len()];
        for (number, entries) in &found {
            let feed = &mut self.feeds[*number];
            for (at, fields) in entries {
                let sent = |time: &EngineTime| self.clock.convert(time, now.0);
                is_alive[*number] |= feed.receive((*at, fields), now, sent, &mut self.out);
                if feed.is_lost() {
                    break;
                }
            }
        }
        for (number, _) in is_alive.iter().enumerate().filter(|(_, is_alive)| !**is_alive) {
            let feed = &mut self.feeds[number];
            if feed.is_lost() || !feed.check_silence(now, &mut self.out) {
                continue;
            }
            // The program must know of the silence before the engine is asked, which may take long.
            self.queue.add(self.number, &mut self.out);
            // A server that was demoted may have nothing more.
            commands::check_role(connection)?;
            match commands::read_back(connection, &feed.key, None, 1) {
                Ok(last) => feed.check_top(last.first().map(|(at, _)| *at)),
                Err(fault) if fault.kind == FaultKind::WrongType => feed.handle_loss(feed.error(&fault), &mut self.out),
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Ends the streams whose keys have values of another type.
    fn find_wrong_types(&mut self, connection: &mut EngineConnection, read: &[usize]) -> Result<(), EngineFault> {
        for number in read {
            let feed = &mut self.feeds[*number];
            match commands::read_back(connection, &feed.key, None, 1) {
                Err(fault) if fault.kind == FaultKind::WrongType => feed.handle_loss(feed.error(&fault), &mut self.out),
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Measures the engine's clock, if canaries are reported.
    fn measure(&mut self, connection: &mut EngineConnection) -> Result<(), EngineFault> {
        if self.reports_canaries {
            let requested = clock::now();
            let time = commands::time(connection)?;
            self.clock.measure(&commands::engine(connection)?, requested, time);
        }
        Ok(())
    }

    /// Reports a failure of the connection to the streams.
    fn report(&mut self, fault: &EngineFault) {
        let now = read_time();
        let is_final = fault.kind == FaultKind::Final;
        let error = Error::from(fault.clone());
        for feed in &mut self.feeds {
            if is_final {
                feed.handle_loss(error.clone(), &mut self.out);
            } else {
                feed.fail(&error, now, &mut self.out);
            }
        }
    }
}

/// Reads both clocks. The wall clock is for display only.
pub(super) fn read_time() -> ReadTime {
    (clock::now(), clock::wall())
}

/// Returns `true` if an entry claims to be a canary; it has not been checked yet.
fn is_canary(fields: &[(Vec<u8>, Vec<u8>)]) -> bool {
    fields.iter().any(|(name, value)| name == b"k" && value == b"canary")
}

/// Returns a random time between half and all of this one, so that many readers do not connect at the same time.
fn with_jitter(time: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1024;
    time.mul_f64(0.5 + random as f64 / 2048.0)
}
