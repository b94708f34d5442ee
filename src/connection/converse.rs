//! Sends and receives, without blocking, until a session returns a wanted output.

use std::time::Instant;

use crate::connection::Connection;
use crate::connection::dial::READS_AT_ONCE;
use crate::connection::ear::Ear;
use crate::error::Error;
use crate::proto::{Output, Reply, RequestId};

/// The progress of an exchange with the server.
pub(super) enum Talk<T> {
    /// The wanted output, or the error that ended the session; and `true` if the socket may hold more data, which it
    /// will not report again.
    Over(Result<T, Error>, bool),
    /// The socket holds no more data.
    Silent,
    /// The socket may hold more data, but the limit of reads in a row is reached. A socket reports only once that it is
    /// ready, so the caller must continue without another report.
    GoesOn,
}

/// Continues a login; without an `ear`, only as far as that is possible without reading.
pub(super) fn log_in(connection: &mut Connection, ear: Option<&mut Ear<'_>>, now: Instant) -> Talk<()> {
    converse(connection, ear, now, |output| matches!(output, Output::Ready).then_some(Ok(())))
}

/// Continues to wait for the answer to a request.
pub(super) fn ask(connection: &mut Connection, request: RequestId, ear: &mut Ear<'_>, now: Instant) -> Talk<Reply> {
    converse(connection, Some(ear), now, |output| match output {
        Output::Reply(id, reply) if id == request => Some(reply),
        _ => None,
    })
}

/// Sends and receives until the session returns a wanted output, or ends.
fn converse<T>(
    connection: &mut Connection,
    mut ear: Option<&mut Ear<'_>>,
    now: Instant,
    wanted: impl Fn(Output) -> Option<Result<T, Error>>,
) -> Talk<T> {
    for _ in 0..READS_AT_ONCE {
        connection.transmit();
        let more = ear.as_mut().is_some_and(|ear| ear.hear(connection, now));
        while let Some(output) = connection.session.poll() {
            match output {
                Output::Closed(reason) => return Talk::Over(Err(reason), false),
                output => match wanted(output) {
                    Some(result) => return Talk::Over(result, more),
                    None => continue,
                },
            }
        }
        if more {
            continue;
        }
        connection.transmit();
        // The write may have failed, or the session may have ended without an output.
        if connection.is_closed() {
            return Talk::Over(Err(connection.error().cloned().unwrap_or(Error::Closed)), false);
        }
        return Talk::Silent;
    }
    Talk::GoesOn
}
