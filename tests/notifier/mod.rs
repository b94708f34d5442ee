//! The notifier with real servers: the rules N01 to N12.

mod callbacks;
mod canary;
mod changes;
mod disconnecting;
mod isolation;
mod lifecycle;
mod outages;
mod sending;
mod sessions;
mod states;

mod subscriptions;
mod support;
