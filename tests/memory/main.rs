//! What notifications and connections cost in memory: counted by the allocator, not timed.
//!
//! A program of its own, because a counting allocator is a whole program's. It counts what the test's own thread
//! allocates: neither what the server does on its thread, nor what the test does `beside` the library.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod back;
#[cfg(feature = "tls")]
mod encrypted;
mod idle;
#[path = "../support/msg.rs"]
#[allow(dead_code, reason = "what a server says is needed in part")]
mod msg;
mod server;
mod turns;

/// Runs without being counted.
pub fn beside<T>(run: impl FnOnce() -> T) -> T {
    let mut given = None;
    allocation_counter::opt_out(|| given = Some(run()));
    given.unwrap()
}

/// Runs, counts, and gives what that gave.
pub fn counted<T>(run: impl FnOnce() -> T) -> (T, allocation_counter::AllocationInfo) {
    let mut given = None;
    let counted = allocation_counter::measure(|| given = Some(run()));
    (given.unwrap(), counted)
}
