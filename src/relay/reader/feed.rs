//! The state of one stream of a reader: turns its entries, its silence and failures into events. It does no I/O.
//!
//! ```text
//!            channels known            silence             an entry
//! Beginning ───────────────▶ open ──────────────▶ away ───────────────▶ open, with a gap: without channels if nothing is missing
//!     ▲                       │                    │ the stream ends before the position
//!     └── begins again ───────┼────────────────────┘
//!                             └── an entry that cannot be read ──▶ lost
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, Escaped};
use crate::gap::{Gap, GapData};
use crate::manager::{ConnId, Event};
use crate::relay::engine_time::EngineTime;
use crate::relay::entry::{EntryContent, StreamEntry};
use crate::relay::follower::{Continuity, Follower, StreamBreak, TopCheck};
use crate::relay::position::StreamPosition;

/// The channels that a stream carries.
pub(super) type CarriedChannels = Arc<[Box<str>]>;

/// A point in time on the monotonic clock and on the wall clock.
pub(super) type ReadTime = (Instant, SystemTime);

/// An event, with the channels that its stream carries from then on: `None` if the stream is not open.
#[derive(Debug)]
pub(super) struct FeedOutput {
    pub(super) event: Event,
    pub(super) channels: Option<CarriedChannels>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FeedPhase {
    /// The end of the stream must be read, to know the position and the channels.
    Beginning,
    Following,
    Lost,
}

/// The beginning of a reader in a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StreamStart {
    /// The last entry of the last term that was started, if there is one.
    last: Option<StreamPosition>,
    /// The channels and the silence of the leader.
    relayed: Option<(Vec<Box<str>>, Duration)>,
}

impl StreamStart {
    /// Adds the next older entry, beginning with the last one. Returns `true` if more are needed.
    pub(super) fn push(&mut self, at: StreamPosition, entry: &StreamEntry) -> bool {
        // A claim alone makes no leader, and a term that was started has a later entry.
        if !at.is_claim() {
            self.last.get_or_insert(at);
            if let EntryContent::Start { channels, silence_ms, .. }
            | EntryContent::Canary { channels, silence_ms, .. } = &entry.content
            {
                self.relayed.get_or_insert_with(|| (channels.clone(), Duration::from_millis(*silence_ms)));
            }
        }
        self.relayed.is_none()
    }
}

/// The time without an entry after which a stream counts as disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedSilence {
    /// That of the settings.
    Fixed(Duration),
    /// That of the leader, from its last entry.
    OfLeader(Duration),
}

impl FeedSilence {
    fn time(self) -> Duration {
        match self {
            Self::Fixed(time) | Self::OfLeader(time) => time,
        }
    }

    /// Follows a leader whose canary, with its deadline, takes this time.
    fn follow(&mut self, of_leader: Duration) {
        if let Self::OfLeader(time) = self {
            *time = of_leader;
        }
    }
}

/// One stream of a reader.
pub(super) struct StreamFeed {
    pub(super) id: ConnId,
    pub(super) name: Box<str>,
    pub(super) key: String,
    /// The time without an entry after which the stream counts as disconnected.
    silence: FeedSilence,
    reports_canaries: bool,
    phase: FeedPhase,
    follower: Follower,
    channels: Option<CarriedChannels>,
    /// `true` from [`Event::Opened`] on.
    is_open: bool,
    /// `true` between [`Event::Disconnected`] and [`Event::Restored`] or [`Event::Opened`].
    is_away: bool,
    /// The reason why the stream is away.
    away_since: Option<Error>,
    /// The reason why the reader has begun again; it is reported before the next entry.
    unreported: Option<StreamBreak>,
    /// The time at which the last entry of a leader was read; at first that of the beginning.
    last: ReadTime,
    /// The time at which the end of the silent stream is next compared with the position.
    next_check: Instant,
    epoch: u64,
}

impl StreamFeed {
    pub(super) fn new(
        id: ConnId,
        name: &str,
        key: String,
        silence: FeedSilence,
        reports_canaries: bool,
        now: ReadTime,
    ) -> Self {
        Self {
            id,
            name: name.into(),
            key,
            silence,
            reports_canaries,
            phase: FeedPhase::Beginning,
            follower: Follower::starting_at(None),
            channels: None,
            is_open: false,
            is_away: false,
            away_since: None,
            unreported: None,
            last: now,
            next_check: now.0,
            epoch: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn set_silence(&mut self, silence: FeedSilence) {
        self.silence = silence;
    }

    /// Returns `true` if [`begin`](Self::begin) must be called before entries are read.
    pub(super) fn must_begin(&self) -> bool {
        self.phase == FeedPhase::Beginning
    }

    /// Returns `true` if no more entries are read.
    pub(super) fn is_lost(&self) -> bool {
        self.phase == FeedPhase::Lost
    }

    /// Returns the position after which entries are read.
    pub(super) fn cursor(&self) -> StreamPosition {
        self.follower.cursor().unwrap_or(StreamPosition { term: 0, sequence: 0 })
    }

    /// Returns the time at which the stream must be [checked](Self::check_silence) if no entry arrives.
    pub(super) fn deadline(&self) -> Instant {
        let silent = later(self.last.0, self.silence.time());
        if self.is_away { silent.max(self.next_check) } else { silent }
    }

    /// Sets the position, from the end of the stream.
    pub(super) fn begin(&mut self, start: StreamStart, now: ReadTime, out: &mut Vec<FeedOutput>) {
        self.follower = Follower::starting_at(start.last);
        self.phase = FeedPhase::Following;
        let Some((mut channels, silence)) = start.relayed else {
            if start.last.is_none() && !self.is_open {
                let place = Escaped(&self.key).to_string();
                self.leave(
                    self.error(&format_args!(
                        "the engine has no entry of a relay at {place:?} yet: check the name and the relays"
                    )),
                    out,
                );
            }
            return;
        };
        self.silence.follow(silence);
        if !self.is_open {
            self.last = now;
            self.channels = Some(channels.into());
            self.open(out);
            return;
        }
        // The gap that follows covers both; an entry with the channels of the leader then removes the others.
        channels.extend(self.channels.iter().flat_map(|known| known.iter().cloned()));
        channels.sort_unstable();
        channels.dedup();
        self.channels = Some(channels.into());
    }

    /// Reads the next entry. `convert` converts the time at which a canary was sent. Returns `true` if the entry is one of a leader, so
    /// that the stream is not silent.
    pub(super) fn receive<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        (at, fields): (StreamPosition, &[(N, V)]),
        now: ReadTime,
        convert: impl FnOnce(&EngineTime) -> Option<Instant>,
        out: &mut Vec<FeedOutput>,
    ) -> bool {
        let entry = match StreamEntry::from_fields(at, fields) {
            Ok(entry) => entry,
            Err(error) => {
                self.handle_loss(self.error(&error), out);
                return true;
            }
        };
        let broken = match self.follower.follow(at, &entry.content) {
            Continuity::Pending => return false,
            Continuity::Contiguous => None,
            Continuity::Broken(broken) => Some(broken),
        };
        let broken = self.unreported.take().or(broken);
        let since = std::mem::replace(&mut self.last, now);
        let before = self.channels.clone().unwrap_or_default();
        if let EntryContent::Start { channels, silence_ms, .. } | EntryContent::Canary { channels, silence_ms, .. } =
            &entry.content
        {
            self.silence.follow(Duration::from_millis(*silence_ms));
            if self.channels.as_deref() != Some(channels) {
                self.channels = Some(channels.as_slice().into());
            }
        }
        if !self.is_open {
            // Nothing was promised before, so nothing is missing, and nothing is delivered.
            if self.channels.is_some() {
                self.open(out);
            }
            return true;
        }
        let after = self.channels.clone().unwrap_or_default();
        self.report_gap(broken, &entry.content, (&before, &after), (since, now), out);
        let removed = without(&before, &after);
        if !removed.is_empty() {
            self.put(Event::Unlistened(self.id, removed.into()), out);
        }
        match entry.content {
            EntryContent::Notifications(batch) => self.put(Event::Notifies(self.id, batch), out),
            EntryContent::Canary { sent, .. } if self.reports_canaries => {
                if let Some(sent) = convert(&sent) {
                    self.put(Event::CanaryReceived(self.id, sent), out);
                }
            }
            _ => {}
        }
        true
    }

    /// Checks for silence after a read that has returned no entry of a leader. Returns `true` if the end of the stream must be
    /// compared with the position: see [`check_top`](Self::check_top).
    pub(super) fn check_silence(&mut self, now: ReadTime, out: &mut Vec<FeedOutput>) -> bool {
        if now.0 < self.deadline() {
            return false;
        }
        let silence = self.silence.time();
        let error = match self.follower.position() {
            _ if self.is_away => None,
            Some(_) => Some(self.error(&format_args!(
                "no entry for {silence:?}: no relay leads, or it cannot reach the engine; check the relays"
            ))),
            None => Some(self.error(&format_args!(
                "there is no entry of a relay since {silence:?}: check the name of the stream, and that a relay runs"
            ))),
        };
        if let Some(error) = error {
            self.leave(error, out);
        }
        self.next_check = later(now.0, silence);
        true
    }

    /// Compares the position with the last entry of the silent stream.
    pub(super) fn check_top(&mut self, top: Option<StreamPosition>) {
        if let TopCheck::Broken(broken) = self.follower.check_top(top) {
            self.unreported.get_or_insert(broken);
            self.phase = FeedPhase::Beginning;
        }
    }

    /// Handles a failure to reach the engine, which is no loss before the silence is.
    pub(super) fn fail(&mut self, error: &Error, now: ReadTime, out: &mut Vec<FeedOutput>) {
        if !self.is_lost() && (!self.is_open || now.0 >= later(self.last.0, self.silence.time())) {
            self.leave(error.clone(), out);
        }
    }

    /// Ends the stream for good.
    pub(super) fn handle_loss(&mut self, error: Error, out: &mut Vec<FeedOutput>) {
        if !self.is_lost() {
            (self.phase, self.is_open) = (FeedPhase::Lost, false);
            self.put(Event::Lost(self.id, error), out);
        }
    }

    /// Returns an error that names the stream.
    pub(super) fn error(&self, problem: &dyn std::fmt::Display) -> Error {
        Error::Relay(format!("stream {:?}: {}", Escaped(&self.name).to_string(), Escaped(problem)).into())
    }

    fn open(&mut self, out: &mut Vec<FeedOutput>) {
        (self.is_open, self.is_away, self.unreported) = (true, false, None);
        self.put(Event::Opened(self.id), out);
    }

    fn leave(&mut self, error: Error, out: &mut Vec<FeedOutput>) {
        if !self.is_away {
            self.is_away = true;
            self.away_since = Some(error.clone());
            self.put(Event::Disconnected(self.id, error), out);
        }
    }

    /// Reports what is missing before an entry, or that nothing is missing although the stream was away. What was sent before on
    /// channels that the stream carries only from now on is missing.
    fn report_gap(
        &mut self,
        broken: Option<StreamBreak>,
        content: &EntryContent,
        (before, after): (&CarriedChannels, &CarriedChannels),
        (mut since, now): (ReadTime, ReadTime),
        out: &mut Vec<FeedOutput>,
    ) {
        let mut channels = BTreeSet::new();
        let mut cause = broken.map(|broken| self.error(&broken));
        let relayed = matches!(content, EntryContent::Gap { channels, .. } if channels.is_empty());
        if broken.is_some() || relayed {
            channels.extend(before.iter().chain(after.iter()).cloned());
        }
        if let EntryContent::Gap { channels: missed, cause: reported, since_unix_ms, .. } = content {
            channels.extend(missed.iter().cloned());
            cause.get_or_insert_with(|| self.error(reported));
            since = earlier_of(since, *since_unix_ms, now);
        }
        let left = self.away_since.take().filter(|_| self.is_away);
        let added = without(after, before);
        let cause = cause.or(left).or_else(|| (!added.is_empty()).then(|| self.error(&"the relay has added channels")));
        channels.extend(added);
        let Some(cause) = cause else { return };
        self.is_away = false;
        self.epoch += 1;
        let channels = channels.into_iter().collect();
        let gap: Gap = GapData { channels, cause, since, until: now, epoch: self.epoch }.into();
        self.put(Event::Restored(self.id, gap), out);
    }

    fn put(&self, event: Event, out: &mut Vec<FeedOutput>) {
        let channels = self.channels.clone().filter(|_| self.is_open && !self.is_away);
        out.push(FeedOutput { event, channels });
    }
}

/// Returns the channels of `all` that are not in `others`.
fn without(all: &[Box<str>], others: &[Box<str>]) -> Vec<Box<str>> {
    all.iter().filter(|channel| !others.contains(channel)).cloned().collect()
}

fn later(at: Instant, by: Duration) -> Instant {
    // An instant that cannot be represented is never reached.
    at.checked_add(by).unwrap_or_else(|| at + Duration::from_secs(100 * 365 * 24 * 3600))
}

/// Returns the earlier one of the last entry and a time that the relay has reported.
fn earlier_of(last: ReadTime, unix_ms: u64, now: ReadTime) -> ReadTime {
    let Some(wall) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)) else { return last };
    let ago = now.1.duration_since(wall).unwrap_or_default();
    let instant = now.0.checked_sub(ago).unwrap_or(last.0);
    (instant.min(last.0), wall.min(last.1))
}
