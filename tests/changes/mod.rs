//! Table changes: rules G1 to G9.

mod build;
mod harmless;
mod law;
mod payloads;
mod replication;
mod sessions;
mod support;
mod tables;
mod worker;
