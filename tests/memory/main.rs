//! What notifications and connections cost in memory: counted by the allocator, not timed.
//!
//! A program of its own, because a counting allocator is a whole program's. It counts what the test's own thread
//! allocates, so what the server does on its thread isn't in the numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod idle;
#[path = "../support/msg.rs"]
#[allow(dead_code, reason = "what a server says is needed in part")]
mod msg;
mod server;
