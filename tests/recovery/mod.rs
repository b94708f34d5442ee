//! Surviving faults: for each, sent = delivered + reported as gap, counted. The table that users read is
//! `src/docs/faults.md`; each of its rows is a test here.

mod audit;
mod audit_answers;
mod between;
mod canary;
mod canary_answers;
mod canary_channel;
mod cancels;
#[cfg(feature = "tls")]
mod certificates;
mod control;
mod crowd;
mod faults;
mod gaps;
mod heartbeat;
mod ledger;
mod network;
mod places;
mod policy;
mod queries;
mod restoring_io;
mod restoring_requests;
mod storm;
mod support;
