//! The checks by a candidate of the stream of another leader, and the end of one that appends nothing.
//!
//! ```text
//!   the stream stands still ──▶ the session that holds the lock ──▶ its term is in this stream ──▶ end it ──▶ is it gone?
//!                                                                └─ it is not: another engine ──▶ a fault
//! ```

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::relay::entry::{EntryContent, StreamEntry, StreamOrigin};
use crate::relay::history::History;
use crate::relay::position::StreamPosition;
use crate::relay::session::{LeaderSession, LockHolder, term_key};
use crate::relay::sink::Sink;
use crate::relay::status::{RelayChange, StreamStatus};
use crate::relay::takeover::OpenStream;

/// The size of a candidate's history from which on it looks for the part that the stream has, and the number of entries that it
/// reads for that.
const TRIM_ABOVE: usize = 1 << 20;
const TRIM_PAGE: usize = 256;
/// The most pages that are read to find the last start or canary, which is seldom further away than a leader marks the place.
const SILENCE_PAGES: usize = 5;

/// The end of a stream, as a candidate saw it last.
pub(crate) struct StreamWatch {
    /// The time of the next check.
    pub(crate) next: Instant,
    top: Option<StreamPosition>,
    /// The time since which the stream has had this top.
    pub(crate) changed: Instant,
    /// That time, or the time of the last attempt to replace its leader.
    pub(crate) since: Instant,
    /// The highest term that the stream has had.
    highest: u64,
    /// The time without an entry after which its leader has failed, and the term whose entries say so.
    announced: Option<(u64, Duration)>,
    /// The session of a leader that appends nothing has a fault, until the stream moves.
    pub(crate) is_stuck: bool,
    /// The process of a session that held the lock at the last attempt, without a term.
    unpublished: Option<i32>,
    /// The session that the server was asked to end, and when.
    asked: Option<(i32, Instant)>,
    /// The origin of the notifications in the stream, if it is another database, or a later timeline.
    pub(crate) foreign: Option<StreamOrigin>,
}

impl StreamWatch {
    /// Creates a watch whose first check is due.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            next: now,
            top: None,
            changed: now,
            since: now,
            highest: 0,
            announced: None,
            is_stuck: false,
            unpublished: None,
            asked: None,
            foreign: None,
        }
    }

    /// Returns the time without an entry after which the leader of the stream has failed: as its entries say, or this one.
    pub(crate) fn silence(&self, own: Duration) -> Duration {
        self.announced.map_or(own, |(_, silence)| silence)
    }

    fn check_period(&self, own: Duration) -> Duration {
        (self.silence(own) / 8).clamp(Duration::from_millis(50), Duration::from_secs(3))
    }

    /// Returns the time within which the failure of a leader is found.
    pub(crate) fn found_within(&self, own: Duration) -> Duration {
        self.silence(own).saturating_add(self.check_period(own))
    }

    /// Reads the end of the stream if that is due, several times in each `silence`. A long history forgets what the stream
    /// has.
    pub(crate) fn check<K: Sink>(
        &mut self,
        stream: &mut OpenStream<K>,
        history: &mut History,
        silence: Duration,
        time: &dyn Fn() -> Instant,
    ) -> Option<Result<(), Error>> {
        let begin = time();
        if self.next > begin {
            return None;
        }
        self.next = later(begin, self.check_period(silence));
        let is_long = history.bytes() >= TRIM_ABOVE;
        let count = if is_long { TRIM_PAGE } else { 1 };
        // A server that was demoted keeps its connections, and its stream may stand still.
        let page = stream.sink.check_writable().and_then(|()| stream.sink.read_back(None, count));
        let page = page.and_then(|page| self.read_silence(&mut stream.sink, &page).map(|()| page));
        // The engine may have been slow, and the leader not silent meanwhile.
        let now = time();
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                // An engine that cannot be reached, or appends nothing from anybody, proves nothing.
                (self.changed, self.since) = (now, now);
                return Some(Err(error));
            }
        };
        let top = page.first().map(|(position, _)| *position);
        if top != self.top {
            (self.top, self.changed, self.since, self.is_stuck) = (top, now, now, false);
            self.highest = self.highest.max(top.map_or(0, |top| top.term));
            let origin = page.first().map(|(_, entry)| entry.origin);
            self.foreign = origin.filter(|origin| !stream.origin.can_follow(*origin));
            if is_long {
                history.seen_in(page.iter().map(|(_, entry)| &entry.content));
            }
        }
        Some(Ok(()))
    }

    /// Finds the silence of the leader behind the last page of the stream, if the term is a new one.
    fn read_silence<K: Sink>(&mut self, sink: &mut K, last: &[(StreamPosition, StreamEntry)]) -> Result<(), Error> {
        let top = last.first().map(|(position, _)| *position);
        if top == self.top || self.announced.map(|(term, _)| term) == top.map(|top| top.term) {
            return Ok(());
        }
        self.announced = find_silence(last);
        let mut before = last.last().map(|(position, _)| *position);
        for _ in 0..SILENCE_PAGES {
            if self.announced.is_some() || before.is_none() {
                break;
            }
            let page = sink.read_back(before, TRIM_PAGE)?;
            (self.announced, before) = (find_silence(&page), page.last().map(|(position, _)| *position));
        }
        Ok(())
    }

    /// Ends the session of a leader that appends nothing although there is something to append, if it appends to this stream.
    pub(crate) fn replace_leader<K: Sink>(
        &mut self,
        stream: &mut OpenStream<K>,
        session: &mut impl LeaderSession,
        silence: Duration,
        status: &StreamStatus,
        now: Instant,
    ) {
        if self.asked.is_none() && !self.is_silent(silence, now) {
            return;
        }
        let holder = match session.holder(&stream.name) {
            Ok(holder) => holder,
            Err(error) => return self.get_stuck(&error, status),
        };
        if let Some((pid, at)) = self.asked {
            match holder {
                // It has continued.
                Some(holder) if holder.pid == pid && self.changed > at => self.asked = None,
                Some(holder) if holder.pid == pid => self.get_stuck(&still_there_error(pid), status),
                _ => self.report_end(status),
            }
        }
        if !self.is_silent(silence, now) {
            return;
        }
        self.since = now;
        let Some(holder) = holder else { return };
        if !self.is_of_stream(holder) {
            return self.get_stuck(&other_engine_error(holder.pid), status);
        }
        if holder.term_key.is_none() && self.unpublished.replace(holder.pid) != Some(holder.pid) {
            // It may be about to claim.
            return;
        }
        match session.end_holder(&stream.name, holder.pid) {
            Ok(true) => self.asked = Some((holder.pid, now)),
            Ok(false) => {}
            Err(error) => self.get_stuck(&error, status),
        }
    }

    /// Reports that the session has ended that the server was asked to end.
    pub(crate) fn report_end(&mut self, status: &StreamStatus) {
        if let Some((pid, _)) = self.asked.take() {
            status.report_force(RelayChange::HolderEnded(pid));
        }
    }

    /// Returns `true` unless the holder of the lock has published a term that this stream never had.
    fn is_of_stream(&self, holder: LockHolder) -> bool {
        let terms = [self.top.map_or(0, |top| top.term), self.highest];
        holder.term_key.is_none_or(|key| terms.map(term_key).contains(&key))
    }

    fn get_stuck(&mut self, error: &Error, status: &StreamStatus) {
        self.is_stuck = true;
        status.set_session_fault(Some(error));
    }

    /// Returns `true` if nothing was appended for this time.
    pub(crate) fn is_silent(&self, silence: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > silence
    }
}

/// Returns the silence in the newest entry of a page that has one, and its term.
fn find_silence(page: &[(StreamPosition, StreamEntry)]) -> Option<(u64, Duration)> {
    page.iter().find_map(|(position, entry)| match &entry.content {
        EntryContent::Start { silence_ms, .. } | EntryContent::Canary { silence_ms, .. } => {
            Some((position.term, Duration::from_millis(*silence_ms)))
        }
        _ => None,
    })
}

/// Returns the time after a duration, or the same time beyond the end of the clock.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or(now)
}

fn still_there_error(pid: i32) -> Error {
    let message = format!(
        "the leader appends nothing, and its session (process {pid} of the server) is still there although the server was asked to \
         end it: end that process"
    );
    Error::Relay(message.into())
}

fn other_engine_error(pid: i32) -> Error {
    let message = format!(
        "the leader (process {pid} of the server) appends to another engine, because its term was never in this stream: give all \
         relays of the stream the same engine, or the stream another label; if the engine has lost its data, end that process"
    );
    Error::Relay(message.into())
}
