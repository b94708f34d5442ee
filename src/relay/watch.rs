//! The checks by a candidate of the stream of another leader.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::relay::entry::StreamOrigin;
use crate::relay::history::History;
use crate::relay::position::StreamPosition;
use crate::relay::sink::Sink;
use crate::relay::takeover::OpenStream;

/// The size of a candidate's history from which on it looks for the part that the stream has, and the number of entries that it
/// reads for that.
const TRIM_ABOVE: usize = 1 << 20;
const TRIM_PAGE: usize = 256;

/// The end of a stream, as a candidate saw it last.
pub(crate) struct StreamWatch {
    /// The time of the next check.
    pub(crate) next: Instant,
    top: Option<StreamPosition>,
    /// The time since which the stream has had this top.
    pub(crate) changed: Instant,
    /// That time, or the time of the last attempt to replace its leader.
    pub(crate) since: Instant,
    /// The server has refused to end the session of a leader that appends nothing.
    pub(crate) is_refused: bool,
    /// The origin of the notifications in the stream, if it is another database, or a later timeline.
    pub(crate) foreign: Option<StreamOrigin>,
}

impl StreamWatch {
    /// Creates a watch whose first check is due.
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now, top: None, changed: now, since: now, is_refused: false, foreign: None }
    }

    /// Reads the end of the stream if that is due, several times in each `silence`. A long history forgets what the stream
    /// has.
    pub(crate) fn check<K: Sink>(
        &mut self,
        stream: &mut OpenStream<K>,
        history: &mut History,
        silence: Duration,
        now: Instant,
    ) -> Option<Result<(), Error>> {
        if self.next > now {
            return None;
        }
        self.next = later(now, (silence / 8).clamp(Duration::from_millis(50), Duration::from_secs(3)));
        let is_long = history.bytes() >= TRIM_ABOVE;
        let page = match stream.sink.read_back(None, if is_long { TRIM_PAGE } else { 1 }) {
            Ok(page) => page,
            Err(error) => {
                // An engine that cannot be reached proves nothing.
                (self.changed, self.since) = (now, now);
                return Some(Err(error));
            }
        };
        let top = page.first().map(|(position, _)| *position);
        if top != self.top {
            (self.top, self.changed, self.since, self.is_refused) = (top, now, now, false);
            let origin = page.first().map(|(_, entry)| entry.origin);
            self.foreign = origin.filter(|origin| !stream.origin.can_follow(*origin));
            if is_long {
                history.seen_in(page.iter().map(|(_, entry)| &entry.content));
            }
        }
        Some(Ok(()))
    }

    /// Returns `true` if nothing was appended for this time.
    pub(crate) fn is_silent(&self, silence: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > silence
    }
}

/// Returns the time after a duration, or the same time beyond the end of the clock.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or(now)
}
