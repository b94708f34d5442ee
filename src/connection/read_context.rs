//! The means of one read.

use std::time::Instant;

use crate::connection::transcript::TraceLabel;
use crate::net::PollWaker;
use crate::proto::ReadBuffer;

/// The means of one read.
#[derive(Debug)]
pub(crate) struct ReadContext<'b> {
    pub(crate) buffer: &'b mut ReadBuffer,
    pub(crate) now: Instant,
    /// `true` if the peer may have closed the stream without the caller's knowledge: then only a read that would block, or
    /// that returns nothing, shows that there is no more.
    pub(crate) until_empty: bool,
    /// Wakes the poll when a name has been resolved or a file has been read.
    pub(crate) waker: Option<&'b PollWaker>,
    /// The connection that is read, for the transcript.
    pub(crate) label: TraceLabel,
}

impl<'b> ReadContext<'b> {
    pub(crate) fn new(
        buffer: &'b mut ReadBuffer,
        now: Instant,
        until_empty: bool,
        waker: Option<&'b PollWaker>,
    ) -> Self {
        Self { buffer, now, until_empty, waker, label: TraceLabel::default() }
    }

    /// Returns the means of a read of one connection.
    #[inline]
    pub(crate) fn labelled(&mut self, label: TraceLabel) -> ReadContext<'_> {
        let Self { now, until_empty, waker, .. } = *self;
        ReadContext { buffer: &mut *self.buffer, now, until_empty, waker, label }
    }
}
