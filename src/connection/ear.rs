//! How a socket is read that tells only once that it is ready.

use std::time::Instant;

use crate::connection::Connection;
use crate::proto::ReadBuffer;

/// What a conversation is listened to with.
#[derive(Debug)]
pub(crate) struct Ear<'b> {
    pub(crate) buffer: &'b mut ReadBuffer,
    /// Whether the peer may have said that it will send no more: then only a read of nothing is the end.
    pub(crate) thorough: bool,
}

impl Ear<'_> {
    /// Reads once. Says whether there may be more, of which the socket won't tell again.
    pub(crate) fn hear(&mut self, connection: &mut Connection, now: Instant) -> bool {
        connection.receive_some(self.buffer, now).is_some_and(|received| received.full || self.thorough)
    }
}
