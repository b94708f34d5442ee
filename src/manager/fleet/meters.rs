//! The counts of a fleet by the names of its connections, for the feature `metrics`. Without the feature, nothing here has a
//! size or does anything.
//!
//! Counting costs a few additions for each read and batch. At the end of a turn, the loop hands over what has changed.

#![cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "only metrics use the arguments"))]

use std::time::Duration;

#[cfg(feature = "metrics")]
use super::meter_table::MeterTable;
use super::metered::{ConnectionCount, ConnectionSet};
use crate::manager::conn_id::ConnId;

/// The counts of a fleet.
#[derive(Debug, Default)]
pub(super) struct FleetMeters {
    #[cfg(feature = "metrics")]
    pub(super) table: MeterTable,
}

impl FleetMeters {
    /// Adds to a count of a connection.
    #[inline]
    pub(super) fn add(&mut self, id: ConnId, count: ConnectionCount, n: usize) {
        #[cfg(feature = "metrics")]
        self.table.add(id, count, n as u64);
    }

    /// Records that a connection has moved between two sets, of which `None` is outside of the fleet.
    pub(super) fn moved(&mut self, id: ConnId, from: Option<ConnectionSet>, to: Option<ConnectionSet>) {
        #[cfg(feature = "metrics")]
        self.table.moved(id, from, to);
    }

    /// Records the delivery time of a canary.
    pub(super) fn add_canary(&mut self, id: ConnId, time: Duration) {
        #[cfg(feature = "metrics")]
        self.table.add_canary(id, time);
    }

    /// Records the number of connections in a transaction.
    pub(super) fn set_in_transaction(&mut self, count: usize) {
        #[cfg(feature = "metrics")]
        self.table.set_in_transaction(count);
    }

    /// Hands over to the recorder what has changed. The caller holds no lock.
    #[inline]
    pub(super) fn publish(&mut self) {
        #[cfg(feature = "metrics")]
        self.table.publish();
    }
}
