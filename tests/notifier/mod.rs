//! The notifier with real servers: the rules N1 to N12.

mod callbacks;
mod canary;
mod changes;
mod disconnecting;
mod isolation;
mod lifecycle;
mod outages;
mod sending;
mod sessions;
mod subscribing;
mod support;
