//! From bytes to messages: where the hot path begins.
//!
//! A notification is checked here, once and for all, and only counted: what is handed on is the slice of the bytes as
//! they were read. It may not be copied, allocated or looked at twice here. A frame that a read has torn is kept, and
//! stands before the next read; one too long for that is gathered aside.

use std::sync::Arc;

use super::Session;
use crate::error::{Error, ProtocolError};
use crate::notification::{NOTIFICATION, channel_in, channel_len, run_like};
use crate::proto::backlog::BACKLOG_MAX;
use crate::proto::buffer::ReadBuffer;
use crate::proto::frame::{self, HEADER, Next};

impl Session {
    /// Where the next bytes from the server go: behind the frame that was torn.
    pub(crate) fn space<'b>(&self, buffer: &'b mut ReadBuffer) -> &'b mut [u8] {
        let prefix = self.prefix(buffer.size());
        let space = buffer.space();
        if let (Some(to), Some(from)) = (space.get_mut(..prefix), self.torn.get(..prefix)) {
            to.copy_from_slice(from);
        }
        space.get_mut(prefix..).unwrap_or_default()
    }

    /// How much of the torn frame stands before the space that was lent. A frame too long to be read in one piece is
    /// gathered aside instead.
    fn prefix(&self, size: usize) -> usize {
        match self.torn_target() {
            Some((needed, _)) if needed > size / 2 => 0,
            _ => self.torn.len(),
        }
    }

    /// Of the torn frame: with how many bytes it can be handed on, and how many it has.
    fn torn_target(&self) -> Option<(usize, usize)> {
        match frame::next(&self.torn) {
            Ok(Next::Torn { known }) => known,
            _ => None,
        }
    }

    /// Takes in the `read` bytes that were put where [`space`](Self::space) said.
    pub(crate) fn handle_input(&mut self, buffer: &ReadBuffer, read: usize) {
        let prefix = self.prefix(buffer.size());
        let (mut start, end) = (0, prefix + read);
        let slab = buffer.slab();
        if prefix < self.torn.len() {
            start = self.gather(slab.get(..end).unwrap_or_default());
            if !self.torn.is_empty() {
                return;
            }
        }
        let skipped = self.skip.min(end - start);
        self.skip -= skipped;
        let rest = self.handle_frames(slab, start + skipped, end);
        self.torn.clear();
        if rest.is_empty() {
            // Idle, a session owns no buffer.
            self.torn = Vec::new();
        } else {
            self.torn.extend_from_slice(rest);
        }
    }

    /// Goes on with the frame that is gathered aside; gives how many of `bytes` belong to it.
    fn gather(&mut self, bytes: &[u8]) -> usize {
        let Some((needed, total)) = self.torn_target() else { return 0 };
        let missing = needed.saturating_sub(self.torn.len());
        let taken = bytes.get(..missing).unwrap_or(bytes);
        self.torn.extend_from_slice(taken);
        if self.torn.len() == needed {
            self.skip = total - needed;
            let whole: Arc<[u8]> = std::mem::take(&mut self.torn).into();
            if needed == total {
                self.handle_frames(&whole, 0, total);
            } else {
                self.handle_message(&whole, total);
            }
        }
        taken.len()
    }

    /// Handles the whole frames in `slab[start..end]`, and gives what is left over.
    fn handle_frames<'s>(&mut self, slab: &'s Arc<[u8]>, start: usize, end: usize) -> &'s [u8] {
        let mut rest = slab.get(start..end).unwrap_or_default();
        let mut news: Option<(usize, usize)> = None;
        let mut count = 0;
        let mut last_channel: &[u8] = b"";
        let mut common = 0;
        while !self.is_closed() {
            let (frame, behind) = match frame::next(rest) {
                Ok(Next::Whole { total }) => rest.split_at(total),
                Ok(Next::Torn { known: Some((needed, total)) }) if needed <= rest.len() => {
                    self.skip = total - rest.len();
                    self.handle_message(rest.get(..needed).unwrap_or_default(), total);
                    rest = b"";
                    break;
                }
                Ok(Next::Torn { known }) => {
                    // What can't come now isn't worth waiting for, nor gathering.
                    if let (Some(_), Some(&tag)) = (known, rest.first())
                        && let Err(error) = self.admit(tag)
                    {
                        self.fail(error.into());
                    }
                    break;
                }
                Err(error) => {
                    self.fail(error.into());
                    break;
                }
            };
            let at = end - rest.len();
            rest = behind;
            match frame.split_first() {
                Some((&NOTIFICATION, _)) => match self.check_notification(frame, last_channel) {
                    Ok(channel) => {
                        let is_common = count == 0 || common > 0 && channel == last_channel;
                        common = if is_common { channel.len() } else { 0 };
                        last_channel = channel;
                        let (more, length) = run_like(frame, channel.len(), rest);
                        rest = rest.get(length..).unwrap_or_default();
                        count += 1 + more;
                        news = Some((news.map_or(at, |(first, _)| first), at + frame.len() + length));
                    }
                    Err(error) => self.fail(error.into()),
                },
                _ => self.handle_message(frame::kept(frame), frame.len()),
            }
        }
        if let Some((first, behind_last)) = news {
            self.backlog.push(slab, first, behind_last, count, common);
            if self.backlog.size() > BACKLOG_MAX {
                self.fail(Error::Overflow { limit: BACKLOG_MAX });
            }
        }
        if self.is_closed() { b"" } else { rest }
    }

    /// Checks one notification, once and for all; gives its channel.
    #[inline]
    fn check_notification<'f>(&self, frame: &'f [u8], last: &[u8]) -> Result<&'f [u8], ProtocolError> {
        let malformed = |reason| ProtocolError::Malformed { message: "NotificationResponse", reason };
        self.admit(NOTIFICATION)?;
        if frame.last() != Some(&0) {
            return Err(malformed("its payload has no end"));
        }
        let len = channel_len(frame, last).ok_or_else(|| malformed("its channel has no end"))?;
        if HEADER + 4 + len + 1 == frame.len() {
            return Err(malformed("it has no payload"));
        }
        Ok(channel_in(frame, len))
    }
}
