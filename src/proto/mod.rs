//! The wire protocol without I/O: no socket, no clock and no thread.
//!
//! A [`Session`] is the client's side of a session with a server:
//!
//! ```text
//!            handle_input, handle_loss, fail            listen, unlisten, query, terminate
//!                          │                                        │
//!                          ▼                                        ▼
//!          ┌── frame ── message ── auth ──── session ──── request ── sql ──┐
//!          ▼                                    │                          ▼
//!   take_notifications                        poll                  poll_transmit
//! ```
//!
//! A session opens nothing, never waits and never returns an error: an error becomes the last output,
//! [`Output::Closed`], after every notification that was received before it.
//!
//! It implements PostgreSQL's protocol 3.0 with simple queries only:
//! <https://www.postgresql.org/docs/current/protocol-flow.html>

mod auth;
mod backlog;
mod buffer;
mod channels;
mod encoding;
mod frame;
mod interner;
mod listen_scan;
mod message;
mod parameters;
mod partial_frame;
mod plain_error;
#[cfg(any(test, fuzzing))]
mod properties;
mod request;
mod session;
pub(crate) mod sql;
mod ssl_request;
#[cfg(feature = "tracing")]
mod trace;

pub(crate) use auth::Binding;
#[cfg(any(test, fuzzing))]
pub(crate) use auth::properties::fuzz_handshake;
pub(crate) use backlog::Backlog;
pub(crate) use buffer::{READ_SIZE, ReadBuffer};
pub(crate) use frame::Direction;
pub(crate) use interner::Interner;
#[cfg(any(test, fuzzing))]
pub(crate) use properties::fuzz_frames;
pub(crate) use request::{CHANNELS_PER_REQUEST, Reply, Request, RequestId};
pub use session::TransactionStatus;
#[cfg(any(test, fuzzing))]
pub(crate) use session::properties::fuzz_session;
#[cfg(test)]
pub(crate) use session::script;
pub(crate) use session::{
    CanaryArrival, CanaryProbe, Conversation, Output, Session, SessionInterner, refuse_canary_channel,
};
pub(crate) use ssl_request::{SslRequest, SslResponse};
#[cfg(feature = "tracing")]
pub(crate) use trace::{MessageTrace, TracedMessage};
