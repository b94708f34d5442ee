//! Table changes: rules G1 to G9.

mod build;
mod harmless;
mod law;
mod replication;
mod worker;
mod payloads;
mod support;
mod tables;
