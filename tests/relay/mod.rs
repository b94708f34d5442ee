//! The relay: readers of streams in real engines.

mod away;
mod changes;
mod faults;
mod limits;
mod lock;
mod notifier;
mod refused;
mod support;
#[cfg(feature = "cli")]
mod whole;
