//! From bytes to messages: the hot path of the protocol.
//!
//! A notification is checked here, once and for all, and only counted: what is handed on is the slice of the bytes as
//! they were read.
//!
//! What may not be done here: copy, allocate or count for a notification, look at its payload, or look at it twice.
//! What is rare is done elsewhere: a frame that a read has cut in `partial`, every other message in `messages`.

use std::sync::Arc;

use super::Session;
use crate::error::{Error, ProtocolError};
use crate::notification::{NOTIFICATION, channel_in, channel_len, payload_in, pid_in, run_like};
use crate::proto::backlog::BACKLOG_MAX;
use crate::proto::buffer::ReadBuffer;
use crate::proto::frame::{self, HEADER, Next};

impl Session {
    /// Where the next bytes from the server go: behind the frame that was partial.
    #[inline]
    pub(crate) fn space<'b>(&self, buffer: &'b mut ReadBuffer) -> &'b mut [u8] {
        let size = buffer.size();
        let space = buffer.space();
        let Some(partial) = &self.partial else { return space };
        let prefix = partial.prefix(size);
        if let Some(before) = space.get_mut(..prefix.len()) {
            before.copy_from_slice(prefix);
        }
        space.get_mut(prefix.len()..).unwrap_or_default()
    }

    /// Takes in the `read` bytes that were put where [`space`](Self::space) said.
    #[inline]
    pub(crate) fn handle_input(&mut self, buffer: &mut ReadBuffer, read: usize) {
        let (read_buffer, spares) = buffer.parts();
        let (start, end) = match self.partial.take() {
            None => (0, read),
            Some(partial) => self.mend(partial, read_buffer, read, spares),
        };
        let (rest, skip) = self.handle_frames(read_buffer, start, end);
        if !rest.is_empty() || skip > 0 {
            self.tear(rest, skip, spares);
        }
    }

    /// Handles the whole frames in `read_buffer[start..end]`. Gives what is left over, and how much is to come of a frame of
    /// which nothing more is needed.
    pub(super) fn handle_frames<'s>(
        &mut self,
        read_buffer: &'s Arc<[u8]>,
        start: usize,
        end: usize,
    ) -> (&'s [u8], usize) {
        let mut rest = read_buffer.get(start..end).unwrap_or_default();
        if self.pending.is_some() && self.continue_plain_error(rest) {
            return (b"", 0);
        }
        let mut skip = 0;
        let mut news: Option<(usize, usize)> = None;
        let mut count = 0;
        let mut last_channel: &[u8] = b"";
        let mut is_canary = false;
        // How long the name of the channel is that all of the news so far is on.
        let mut common = 0;
        while !self.is_closed() {
            let (frame, behind) = match frame::next(rest) {
                Ok(Next::Whole { total }) => rest.split_at(total),
                Ok(Next::Partial { known: Some(_) }) | Err(_) if self.take_plain_error(rest) => return (b"", 0),
                Ok(Next::Partial { known: Some((needed, total)) }) if needed <= rest.len() => {
                    skip = total - rest.len();
                    self.handle_message(rest.get(..needed).unwrap_or_default(), total);
                    rest = b"";
                    break;
                }
                Ok(Next::Partial { known }) => {
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
                        let is_other = channel.is_some();
                        if let Some(channel) = channel {
                            last_channel = channel;
                            is_canary = self.is_canary(channel);
                        }
                        if is_canary {
                            self.receive_canary_frame(pid_in(frame), payload_in(frame, last_channel.len()));
                            // What stood before it is handed on without it.
                            if let Some((first, behind_last)) = news.take() {
                                self.backlog.push(read_buffer, first, behind_last, std::mem::take(&mut count), common);
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
                            news = Some((news.map_or(at, |(first, _)| first), at + frame.len() + length));
                        }
                    }
                    Err(error) => self.fail(error.into()),
                },
                _ => self.handle_message(frame::kept(frame), frame.len()),
            }
        }
        if let Some((first, behind_last)) = news {
            self.backlog.push(read_buffer, first, behind_last, count, common);
        }
        if self.backlog.size() > BACKLOG_MAX {
            self.fail(Error::Overflow { limit: BACKLOG_MAX });
        }
        if self.is_closed() { (b"", 0) } else { (rest, skip) }
    }

    /// Checks one notification, once and for all; gives its channel, unless that is the last one's.
    #[inline]
    fn check_notification<'f>(&self, frame: &'f [u8], last: &[u8]) -> Result<Option<&'f [u8]>, ProtocolError> {
        let malformed = |reason| ProtocolError::Malformed { message: "NotificationResponse", reason };
        self.admit(NOTIFICATION)?;
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
}
