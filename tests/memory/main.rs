//! The memory that notifications and connections use, counted by the allocator.
//!
//! This is a separate program, because a counting allocator applies to a whole program. Only allocations of the test's own
//! thread are counted: not those of the server's thread, and not those inside [`uncounted`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod allocations;
#[cfg(feature = "tls")]
mod encrypted;
mod fence;
mod idle;
#[path = "../support/msg.rs"]
#[allow(dead_code, reason = "only some messages are needed")]
mod msg;
mod release;
mod server;
mod subscribers;

/// Runs a function without counting its allocations.
pub fn uncounted<T>(run: impl FnOnce() -> T) -> T {
    let mut result = None;
    allocation_counter::opt_out(|| result = Some(run()));
    result.unwrap()
}

/// Runs a function, and returns its result and the counted allocations.
pub fn counted<T>(run: impl FnOnce() -> T) -> (T, allocation_counter::AllocationInfo) {
    let mut result = None;
    let counted = allocation_counter::measure(|| result = Some(run()));
    (result.unwrap(), counted)
}
