//! The takeover of a stream: nothing is lost or repeated, and no older leader appends any more.
//!
//! ```text
//!   1 append TERM-0, the claim      the engine refuses all older terms from here on
//!   2 read back to the last canary  so nothing can follow what is read here
//!     send a barrier                once it is back, the own session has what the last leader had
//!   3 append TERM-1, the start      continues what was read, or not: a gap
//!   4 append what the own history has behind the same place
//! ```
//!
//! All listeners of a database receive one order, and each canary marks a place in it: the last one in the stream is also in the
//! history of a candidate that has received long enough.

use std::time::Instant;

use crate::clock;
use crate::error::{Error, Escaped};
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::{EntryContent, StreamEntry, StreamOrigin};
use crate::relay::history::{HISTORY_BYTES, History, Resume, ResumeGap};
use crate::relay::identity::RelayIdentity;
use crate::relay::outbox::Outbox;
use crate::relay::position::StreamPosition;
use crate::relay::sink::{AppendError, Sink};
use crate::relay::tail::{NoCanary, Tail, TailReader};

/// The most claims in a row that another relay may precede.
const CLAIMS: usize = 16;
/// The number of entries that are read back together.
const PAGE: usize = 256;

/// A stream of a session that is prepared.
pub(crate) struct OpenStream<K> {
    pub(crate) name: Box<str>,
    pub(crate) origin: StreamOrigin,
    pub(crate) sink: K,
    /// A time of the engine's clock, and when it had been received.
    clock: Option<(EngineTime, Instant)>,
}

impl<K: Sink> OpenStream<K> {
    pub(crate) fn new(name: Box<str>, origin: StreamOrigin, sink: K) -> Self {
        Self { name, origin, sink, clock: None }
    }

    /// Returns the error for a stream that another database fills.
    pub(crate) fn foreign_error(&self, other: StreamOrigin) -> Error {
        let message = format!(
            "the stream {:?} contains notifications of {other}, and this is {}: give each database a label of its own, and stop a \
             primary that was replaced; after a migration, the stream is taken over once nothing was appended for the canary's \
             period and deadline",
            Escaped(&*self.name).to_string(),
            self.origin
        );
        Error::Relay(message.into())
    }

    /// Reads the engine's clock.
    pub(crate) fn read_clock(&mut self) -> Result<u64, Error> {
        // A time that is no longer measured is not used.
        self.clock = None;
        let time = self.sink.time()?;
        let unix_ms = time.unix_ms;
        self.clock = Some((time, clock::now()));
        Ok(unix_ms)
    }

    /// Returns a time that the engine's clock has reached, by the time of its last answer; an unknown one without. The two clocks
    /// are the same to far less than a part in a thousand.
    pub(crate) fn earliest_time(&self) -> EngineTime {
        self.clock.as_ref().map_or_else(EngineTime::default, |(time, received)| {
            let since = clock::now().saturating_duration_since(*received).as_millis();
            let since = u64::try_from(since - since / 1_000).unwrap_or_default();
            EngineTime { unix_ms: time.unix_ms.saturating_add(since), engine: time.engine.clone() }
        })
    }

    /// Claims the stream for a relay, and reads back what its former leader has appended.
    pub(crate) fn claim(&mut self, relay: &mut RelayIdentity) -> Result<ClaimedStream, Error> {
        for _ in 0..CLAIMS {
            // A stream of something else is not written to.
            self.sink.read_back(None, 1)?;
            let known = self.sink.top()?.map_or(0, |top| top.term);
            let term = relay.next_term(self.read_clock()?, known);
            let term =
                term.ok_or_else(|| Error::Relay(format!("no term is above {known}: delete the stream").into()))?;
            let claim = EntryContent::Claim { relay: relay.name().into() };
            match self
                .sink
                .append(&[(StreamPosition::claim_of(term), StreamEntry { origin: self.origin, content: claim })])
            {
                Ok(()) => {
                    let tail = self.read_tail(StreamPosition::claim_of(term))?;
                    return Ok(ClaimedStream { term, origin: self.origin, tail });
                }
                // Another relay was faster.
                Err(AppendError::Stale) => {}
                Err(AppendError::Failed(error)) => return Err(error),
            }
        }
        let message = format!("other relays claimed the stream {CLAIMS} times in a row; it is tried again in a second");
        Err(Error::Relay(message.into()))
    }

    fn read_tail(&mut self, claim: StreamPosition) -> Result<Tail, Error> {
        let mut reader = TailReader::new(Some(claim), HISTORY_BYTES);
        let mut before = claim;
        loop {
            let page = self.sink.read_back(Some(before), PAGE)?;
            for (at, entry) in &page {
                before = *at;
                if !reader.push(*at, entry) {
                    return Ok(reader.finish());
                }
            }
            if page.len() < PAGE {
                return Ok(reader.finish());
            }
        }
    }
}

/// A stream whose term is claimed and not started.
pub(crate) struct ClaimedStream {
    term: u64,
    origin: StreamOrigin,
    tail: Tail,
}

/// The channels that are relayed, and the time without an entry after which their leader has failed, in milliseconds.
pub(crate) type RelayedChannels<'c> = (&'c [Box<str>], u64);

/// A term that can be started.
pub(crate) struct StartedTerm {
    /// The start, and what follows it.
    pub(crate) outbox: Outbox,
    /// The reason why the term does not continue the one before.
    pub(crate) gap: Option<ResumeGap>,
}

impl ClaimedStream {
    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    /// Starts the term, or returns `None` if the history may yet receive what the former leader has appended: until it has the
    /// barrier, a canary that this relay has sent after its claim.
    pub(crate) fn start(&self, history: &History, barrier: &str, relayed: RelayedChannels<'_>) -> Option<StartedTerm> {
        match history.resume(&self.tail, barrier) {
            Resume::Continue(rest) => Some(self.start_term(self.tail.last.map(|(last, _)| last), relayed, rest)),
            Resume::Wait(_) => None,
            // The beginning of a stream is no gap of it.
            Resume::Gap(ResumeGap::NoCanary(NoCanary::Empty)) => Some(self.start_with_gap(relayed)),
            Resume::Gap(why) => Some(StartedTerm { gap: Some(why), ..self.start_with_gap(relayed) }),
        }
    }

    /// Starts the term behind a gap that is known.
    pub(crate) fn start_with_gap(&self, relayed: RelayedChannels<'_>) -> StartedTerm {
        self.start_term(None, relayed, Vec::new())
    }

    fn start_term(
        &self,
        continues: Option<StreamPosition>,
        (channels, silence_ms): RelayedChannels<'_>,
        rest: Vec<EntryContent>,
    ) -> StartedTerm {
        let mut outbox = Outbox::new(self.term, self.origin);
        outbox.push(EntryContent::Start { continues, channels: channels.to_vec(), silence_ms });
        rest.into_iter().for_each(|content| outbox.push(content));
        StartedTerm { outbox, gap: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::memory_sink::MemorySink;

    #[test]
    fn r03_a_clock_that_can_no_longer_be_read_dates_nothing() {
        let origin = StreamOrigin { system: 7, timeline: 1, database: 5 };
        let mut stream = OpenStream::new("shop".into(), origin, MemorySink::default());
        stream.sink.unix_ms = 5_000;
        assert_eq!(stream.earliest_time(), EngineTime::default());
        assert_eq!(stream.read_clock().unwrap(), 5_000);
        let time = stream.earliest_time();
        assert!(time.unix_ms >= 5_000 && !time.engine.is_empty(), "{time:?}");
        stream.sink.is_away = true;
        stream.read_clock().unwrap_err();
        assert_eq!(stream.earliest_time(), EngineTime::default());
    }
}
