//! Table changes: rules G1 to G9.

mod build;
mod dumps;
mod following;
mod harmless;
mod law;
mod migrations;
mod payloads;
mod privileges;
mod replication;
mod sessions;
mod support;
mod tables;
mod worker;
