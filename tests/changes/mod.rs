//! Table changes: rules G01 to G10.

mod build;
mod dumps;
mod following;
mod harmless;
mod log;
mod log_faults;
mod log_keep;
mod log_names;
mod log_readers;
mod log_writers;
mod migrations;
mod payloads;
mod privileges;
mod properties;
mod replication;
mod sessions;
mod sources;
mod support;
mod tables;
mod upgrade;
mod worker;
