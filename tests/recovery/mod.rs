//! Recovery from faults. For each fault, the notifications sent must equal those delivered plus those within a reported gap.
//! Each row of the table in `src/docs/faults.md` is a test here.

mod audit;
mod audit_answers;
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
mod permits;
mod policy;
mod proxies;
mod queries;
mod restoring_io;
mod restoring_requests;
mod storm;
mod support;
