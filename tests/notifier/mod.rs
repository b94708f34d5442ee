//! The notifier against real servers: each rule from N1 to N12, as its users see it.

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
