//! Splits the input into frames: the hot path of the protocol.
//!
//! Each notification is validated here exactly once and counted; a batch is a slice of the bytes as they were read. This
//! file must not copy, allocate or count references for a notification, read its payload, or look at it twice. All other
//! messages are rare and are handled by the [`Conversation`].

use std::sync::Arc;

use super::conversation::Conversation;
use crate::error::{Error, ProtocolError};
use crate::notification::{NOTIFICATION, channel_in, channel_len, payload_in, pid_in, run_like};
use crate::proto::backlog::{BACKLOG_MAX, Backlog};
use crate::proto::buffer::ReadBuffer;
use crate::proto::frame::{self, HEADER, Next};
use crate::proto::partial_frame::{PartialFrame, PartialFramePool};

/// The received notifications, and the incomplete frame at the end of the last input.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    pub(super) partial: Option<Box<PartialFrame>>,
    pub(super) backlog: Backlog,
}

impl Receiver {
    /// Returns the space for the next bytes, after the incomplete frame.
    #[inline]
    pub(super) fn space<'b>(&self, buffer: &'b mut ReadBuffer) -> &'b mut [u8] {
        let size = buffer.size;
        let space = buffer.space();
        let Some(partial) = &self.partial else { return space };
        let prefix = partial.prefix(size);
        if let Some(before) = space.get_mut(..prefix.len()) {
            before.copy_from_slice(prefix);
        }
        space.get_mut(prefix.len()..).unwrap_or_default()
    }

    /// Handles the `read` bytes that were written to the [`space`](Self::space).
    #[inline]
    pub(super) fn handle_input(&mut self, buffer: &mut ReadBuffer, read: usize, conversation: &mut Conversation) {
        let (buffer, pool) = buffer.parts();
        let (start, end) = match self.partial.take() {
            None => (0, read),
            Some(partial) => self.resume(partial, buffer, read, pool, conversation),
        };
        let (rest, skip) = self.handle_frames(buffer, start, end, conversation);
        if !rest.is_empty() || skip > 0 {
            self.partial = Some(PartialFrame::save(rest, skip, pool));
        }
    }

    /// Returns the received part of an incomplete frame.
    pub(super) fn partial_bytes(&self) -> Option<&[u8]> {
        self.partial.as_deref().map(|partial| &*partial.bytes)
    }

    /// Handles the complete frames in `buffer[start..end]`. Returns the rest, and the number of bytes to skip of a frame
    /// of which nothing more is needed.
    fn handle_frames<'s>(
        &mut self,
        buffer: &'s Arc<[u8]>,
        start: usize,
        end: usize,
        conversation: &mut Conversation,
    ) -> (&'s [u8], usize) {
        let mut rest = buffer.get(start..end).unwrap_or_default();
        if conversation.continue_plain_error(rest) {
            return (b"", 0);
        }
        let mut skip = 0;
        let mut run: Option<(usize, usize)> = None;
        let mut count = 0;
        let mut last_channel: &[u8] = b"";
        let mut is_canary = false;
        // The length of the channel name if all notifications of the run are on one channel, else 0.
        let mut common = 0;
        while !conversation.is_closed() {
            let (frame, behind) = match frame::next(rest) {
                Ok(Next::Whole { total }) => rest.split_at(total),
                Ok(Next::Partial { known: Some(_) }) | Err(_) if conversation.begin_plain_error(rest) => {
                    return (b"", 0);
                }
                Ok(Next::Partial { known: Some((needed, total)) }) if needed <= rest.len() => {
                    skip = total - rest.len();
                    conversation.handle_message(rest.get(..needed).unwrap_or_default(), total);
                    rest = b"";
                    break;
                }
                Ok(Next::Partial { known }) => {
                    // A message that is not allowed now is an error before it is complete.
                    if let (Some(_), Some(&tag)) = (known, rest.first())
                        && let Err(error) = conversation.state().admit(tag)
                    {
                        conversation.close(error.into());
                    }
                    break;
                }
                Err(error) => {
                    conversation.close(error.into());
                    break;
                }
            };
            let at = end - rest.len();
            rest = behind;
            match frame.split_first() {
                Some((&NOTIFICATION, _)) => match check_notification(frame, last_channel, conversation) {
                    Ok(channel) => {
                        let is_other = channel.is_some();
                        if let Some(channel) = channel {
                            last_channel = channel;
                            is_canary = conversation.is_canary(channel);
                        }
                        if is_canary {
                            conversation.receive_canary_frame(pid_in(frame), payload_in(frame, last_channel.len()));
                            // The canary is not delivered, so the run before it ends.
                            if let Some((first, run_end)) = run.take() {
                                self.backlog.push(buffer, first, run_end, std::mem::take(&mut count), common);
                            }
                        } else {
                            if count == 0 {
                                common = last_channel.len();
                            } else if is_other {
                                common = 0;
                            }
                            let (more, length) = run_like(frame, last_channel.len(), rest);
                            rest = rest.get(length..).unwrap_or_default();
                            count += 1 + more;
                            run = Some((run.map_or(at, |(first, _)| first), at + frame.len() + length));
                        }
                    }
                    Err(error) => conversation.close(error.into()),
                },
                _ => conversation.handle_message(frame::kept(frame), frame.len()),
            }
        }
        if let Some((first, run_end)) = run {
            self.backlog.push(buffer, first, run_end, count, common);
        }
        if self.backlog.size() > BACKLOG_MAX {
            conversation.close(Error::Overflow { limit: BACKLOG_MAX });
        }
        if conversation.is_closed() { (b"", 0) } else { (rest, skip) }
    }

    /// Continues an incomplete frame with `read` more bytes. Returns the range of the read buffer that remains to be
    /// handled.
    fn resume(
        &mut self,
        mut partial: Box<PartialFrame>,
        buffer: &Arc<[u8]>,
        read: usize,
        pool: &mut PartialFramePool,
        conversation: &mut Conversation,
    ) -> (usize, usize) {
        let prefix = partial.prefix(buffer.len()).len();
        let end = prefix + read;
        let mut start = 0;
        if prefix < partial.bytes.len()
            && let Some((needed, total)) = partial.target()
        {
            start = read.min(needed.saturating_sub(partial.bytes.len()));
            partial.bytes.extend_from_slice(buffer.get(..start).unwrap_or_default());
            if partial.bytes.len() < needed {
                self.partial = Some(partial);
                return (end, end);
            }
            partial.skip = total - needed;
            let whole: Arc<[u8]> = std::mem::take(&mut partial.bytes).into();
            if needed == total {
                self.handle_frames(&whole, 0, total, conversation);
            } else {
                conversation.handle_message(&whole, total);
            }
        }
        let skipped = partial.skip.min(end - start);
        partial.skip -= skipped;
        partial.bytes.clear();
        if partial.skip > 0 && !conversation.is_closed() {
            self.partial = Some(partial);
        } else {
            pool.give_back(partial);
        }
        (start + skipped, end)
    }
}

/// Validates a notification. Returns its channel, unless it is equal to `last`.
#[inline]
fn check_notification<'f>(
    frame: &'f [u8],
    last: &[u8],
    conversation: &Conversation,
) -> Result<Option<&'f [u8]>, ProtocolError> {
    let malformed = |reason| ProtocolError::Malformed { message: "NotificationResponse", reason };
    conversation.state().admit(NOTIFICATION)?;
    if frame.last() != Some(&0) {
        return Err(malformed("its payload has no end"));
    }
    let channel = channel_len(frame, last).map(|len| channel_in(frame, len));
    let channel = channel.ok_or_else(|| malformed("its channel has no end"))?;
    if HEADER + 4 + channel.len() + 1 == frame.len() {
        return Err(malformed("it has no payload"));
    }
    Ok((channel != last).then_some(channel))
}
