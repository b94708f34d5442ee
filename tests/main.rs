//! All integration tests, in one program; what they have in common is in `support`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

#[cfg(feature = "changes")]
mod changes;
mod config;
mod connection;
mod diagnosis;
mod fence;
mod manager;
mod notifier;
#[cfg(feature = "cli")]
mod program;
mod recovery;
#[cfg(feature = "relay")]
mod relay;
#[cfg(feature = "stream")]
mod runtimes;
mod support;
mod support_selftest;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tracing")]
mod transcript;
