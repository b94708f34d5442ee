//! Sends and receives until a session puts out what is wanted, as far as that goes without waiting.

use std::time::Instant;

use crate::connection::Connection;
use crate::connection::dial::READS_AT_ONCE;
use crate::connection::ear::Ear;
use crate::error::Error;
use crate::proto::{Output, Reply, RequestId};

/// How far a conversation has come.
pub(super) enum Talk<T> {
    /// What was wanted has come, or the end; and whether more may have come, of which the socket won't tell again.
    Over(Result<T, Error>, bool),
    /// The server has said nothing more.
    Silent,
    /// The server has more to say, and has been listened to for long enough. A socket tells once that it is ready, so
    /// this is to be gone on with unasked.
    GoesOn,
}

/// Goes on with a login; without an ear, so far as it goes without listening.
pub(super) fn log_in(connection: &mut Connection, ear: Option<&mut Ear<'_>>, now: Instant) -> Talk<()> {
    converse(connection, ear, now, |output| matches!(output, Output::Ready).then_some(Ok(())))
}

/// Goes on waiting for an answer.
pub(super) fn ask(connection: &mut Connection, request: RequestId, ear: &mut Ear<'_>, now: Instant) -> Talk<Reply> {
    converse(connection, Some(ear), now, |output| match output {
        Output::Reply(id, reply) if id == request => Some(reply),
        _ => None,
    })
}

/// Sends and receives until the session puts out what is wanted, or its end.
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
        // In that, or with notifications that nobody waits for yet.
        if connection.is_closed() {
            return Talk::Over(Err(connection.error().cloned().unwrap_or(Error::Closed)), false);
        }
        return Talk::Silent;
    }
    Talk::GoesOn
}
