//! The history of a connection: the session that it succeeded, and since when no notification can have been lost silently.
//!
//! Most connections have none, and pay one pointer for it.

#![cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "only the transcript uses the arguments"))]

use std::time::{Duration, Instant};

use crate::clock::CompactInstant;
use crate::config::Config;
use crate::connection::transcript::TraceLabel;
#[cfg(feature = "tracing")]
use crate::connection::transcript::Transcript;
use crate::gap::Gap;
use crate::proto::{Direction, Session};

/// The history of a connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectionHistory(Option<Box<Succession>>);

/// The history of a connection that a manager has opened or restored.
#[derive(Debug, Default)]
struct Succession {
    /// Kept apart, since few connections have one.
    audit: Option<Box<AuditHistory>>,
    /// The gap before this session, or before it listened to a channel again.
    gap: Option<Gap>,
    /// The time at which the LISTENs of this session were acknowledged.
    established: Option<CompactInstant>,
    /// The number of attempts that had failed before.
    attempts: u32,
    /// The number of sessions before this one.
    epoch: u32,
}

/// The history of a connection that has a call timeout of its own, or that an audit or a canary has examined.
#[derive(Debug, Default)]
pub(crate) struct AuditHistory {
    pub(super) call_timeout: Option<Option<Duration>>,
    /// The unfinished pass of a [`wait`](super::Connection::wait) with a zero timeout.
    pub(super) pass: Option<WaitPass>,
    /// The gap to report once the server listens again to the channels that it had forgotten.
    pub(crate) relistening: Option<Gap>,
    /// The time at which the last notification was sent that is known to have arrived because delivery works.
    pub(crate) delivery_proven: Option<CompactInstant>,
    /// The time at which the server was last asked, and listened to every channel.
    pub(crate) channels_proven: Option<CompactInstant>,
    /// The transcript of the session, if a subscriber wants it.
    #[cfg(feature = "tracing")]
    transcript: Option<Box<Transcript>>,
}

/// One pass of a zero timeout: the socket is read once until it is empty, and its notifications are yielded. Those that
/// arrive later, even because of the loop's body, belong to the next pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitPass {
    /// The number of pending notifications that belong to this pass.
    pub(super) left: usize,
    /// `true` if the socket may hold more data for this pass.
    pub(super) may_have_more: bool,
    /// The number of bytes read in this pass.
    pub(super) bytes: u32,
}

impl ConnectionHistory {
    pub(super) fn audit(&self) -> Option<&AuditHistory> {
        self.0.as_ref()?.audit.as_deref()
    }

    pub(crate) fn audit_mut(&mut self) -> &mut AuditHistory {
        self.0.get_or_insert_default().audit.get_or_insert_default()
    }

    /// Returns `true` if there is any history.
    #[inline]
    pub(super) fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Sets the unfinished pass of a zero timeout.
    pub(crate) fn set_pass(&mut self, pass: Option<WaitPass>) {
        if pass.is_some() || self.audit().is_some_and(|audit| audit.pass.is_some()) {
            self.audit_mut().pass = pass;
        }
    }

    /// Returns the gap that has not been taken.
    pub(crate) fn gap(&self) -> Option<&Gap> {
        self.0.as_ref()?.gap.as_ref()
    }

    pub(super) fn take_gap(&mut self) -> Option<Gap> {
        self.0.as_mut()?.gap.take()
    }

    /// Returns the number of sessions before this one.
    pub(crate) fn epoch(&self) -> u64 {
        self.0.as_ref().map_or(0, |succession| succession.epoch.into())
    }

    /// Returns the time at which the LISTENs of a session that a manager opened were acknowledged, and the number of
    /// attempts that had failed before.
    pub(crate) fn established(&self) -> Option<(Instant, u32)> {
        let succession = self.0.as_ref()?;
        Some((succession.established?.into(), succession.attempts))
    }

    /// Records that the LISTENs are acknowledged, after this number of failed attempts.
    pub(crate) fn establish(&mut self, now: Instant, attempts: u32) {
        let succession = self.0.get_or_insert_default();
        (succession.established, succession.attempts) = (Some(now.into()), attempts);
    }

    /// Records that the session succeeds another one, after this number of failed attempts.
    pub(crate) fn succeed(&mut self, gap: Gap, now: Instant, attempts: u32) {
        self.establish(now, attempts);
        let succession = self.0.get_or_insert_default();
        succession.epoch = u32::try_from(gap.epoch()).unwrap_or(u32::MAX);
        succession.gap = Some(gap);
    }

    /// Returns a time since which the session is known to work; `None` if that is the beginning of the session.
    pub(super) fn proven(&self, time: impl FnOnce(&AuditHistory) -> Option<CompactInstant>) -> Option<Instant> {
        let succession = self.0.as_ref()?;
        // The gap of a session that succeeds another one covers all that came before.
        let proven = succession.audit.as_deref().and_then(time).or(succession.established);
        proven.map(Instant::from)
    }

    /// Returns the gap of the channels that the server had forgotten and must listen to again.
    pub(crate) fn relistening(&self) -> Option<&Gap> {
        self.audit()?.relistening.as_ref()
    }

    /// Ends the gap of the forgotten channels, with those to which the server listens again.
    pub(super) fn finish_relisten(&mut self, now: Instant, session: &mut Session) {
        let Some(succession) = &mut self.0 else { return };
        let Some(audit) = &mut succession.audit else { return };
        if let Some(gap) = audit.relistening.take()
            && let Some(channels) = session.take_relistened(gap.channels())
        {
            audit.channels_proven = Some(now.into());
            succession.epoch = succession.epoch.saturating_add(1);
            let unreported = succession.gap.take();
            succession.gap = Some(gap.finish(channels, now, succession.epoch.into(), unreported));
        }
    }

    // ---- the transcript, which does nothing without the feature `tracing` ------------------------------------------

    /// Begins the transcript of a new session, if a subscriber wants it.
    pub(super) fn begin_transcript(&mut self, config: &Config, label: TraceLabel) {
        #[cfg(feature = "tracing")]
        if Transcript::is_wanted() {
            self.audit_mut().transcript = Some(Box::new(Transcript::begin(config, label, true)));
        }
    }

    /// Begins or ends the transcript of a session, as its subscribers want.
    #[inline]
    pub(super) fn update_transcript(&mut self, session: &Session, config: &Config, label: TraceLabel) {
        #[cfg(feature = "tracing")]
        match (Transcript::is_wanted(), self.transcript()) {
            (true, Some(transcript)) => transcript.set_label(label),
            (true, None) if session.is_between_messages() => {
                self.audit_mut().transcript = Some(Box::new(Transcript::begin(config, label, false)));
            }
            (false, Some(_)) => self.audit_mut().transcript = None,
            (_, None) => {}
        }
    }

    /// Returns the label of the connection in the transcript.
    pub(super) fn trace_label(&self) -> TraceLabel {
        #[cfg(feature = "tracing")]
        if let Some(transcript) = self.audit().and_then(|audit| audit.transcript.as_ref()) {
            return transcript.log.label;
        }
        TraceLabel::default()
    }

    /// Adds bytes that were sent or received.
    #[inline]
    pub(super) fn record(&mut self, direction: Direction, bytes: &[u8]) {
        #[cfg(feature = "tracing")]
        if let Some(transcript) = self.transcript() {
            transcript.handle(direction, bytes);
        }
    }

    #[cfg(feature = "tracing")]
    #[inline]
    fn transcript(&mut self) -> Option<&mut Transcript> {
        self.0.as_mut()?.audit.as_mut()?.transcript.as_deref_mut()
    }
}
