//! The notifier with real servers: the rules N01 to N14.

mod callbacks;
mod canary;
mod changes;
mod disconnecting;
mod isolation;
mod lifecycle;
#[cfg(feature = "metrics")]
mod metrics;
mod outages;
mod over;
mod sending;
mod sessions;
mod states;

#[cfg(feature = "stream")]
mod stream;
mod subscriptions;
mod support;
