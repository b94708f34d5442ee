//! The assignment of connections to servers and channels, computed so that the deliveries due can be counted.

use std::time::Duration;

use crate::cli::args::DemoArgs;

/// The time between two idle events, which also come while notifications arrive.
pub(crate) const IDLE_PERIOD: Duration = Duration::from_millis(250);
/// The most channels that a connection listens to.
const CHANNELS_EACH: usize = 5;
/// The names of the cached tables.
const TABLES: [&str; 10] =
    ["prices", "stock", "users", "orders", "carts", "reviews", "coupons", "sessions", "images", "menus"];

/// The numbers of servers, connections and channels. All are counted from 0; connection `i` is connected to server
/// `i % clusters`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) clusters: usize,
    pub(crate) connections: usize,
    pub(crate) channels: usize,
}

impl Plan {
    pub(crate) fn new(args: &DemoArgs) -> Self {
        let [clusters, connections, channels] =
            [args.clusters, args.connections, args.channels].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        Self { clusters, connections, channels }
    }

    pub(crate) fn cluster_of(&self, connection: usize) -> usize {
        connection % self.clusters
    }

    /// Returns the channels of a connection. The next connection to the same server listens to the channels that follow.
    pub(crate) fn channels_of(&self, connection: usize) -> impl Iterator<Item = usize> + use<> {
        let each = CHANNELS_EACH.min(self.channels);
        let (first, channels) = (connection / self.clusters * each, self.channels);
        (first..first + each).map(move |channel| channel % channels)
    }

    /// Returns the number of listeners on a server for each channel.
    pub(crate) fn listeners(&self, cluster: usize) -> Vec<u64> {
        let mut listeners = vec![0; self.channels];
        let channels = self.connections_to(cluster).flat_map(|connection| self.channels_of(connection));
        channels.for_each(|channel| listeners[channel] += 1);
        listeners
    }

    /// Returns the connections to a server.
    pub(crate) fn connections_to(&self, cluster: usize) -> impl Iterator<Item = usize> {
        (0..self.connections).filter(move |connection| self.cluster_of(*connection) == cluster)
    }
}

/// Returns the name of a channel: `prices_1`, `stock_1`, .., `prices_2`, ..
pub(crate) fn channel_name(channel: usize) -> String {
    format!("{}_{}", TABLES[channel % TABLES.len()], channel / TABLES.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_connection_is_counted_on_one_server() {
        for plan in [
            Plan { clusters: 3, connections: 300, channels: 50 },
            Plan { clusters: 3, connections: 10, channels: 7 },
            Plan { clusters: 1, connections: 1, channels: 2 },
        ] {
            let sizes: usize = (0..plan.clusters).map(|cluster| plan.connections_to(cluster).count()).sum();
            assert_eq!(sizes, plan.connections);
            let listeners: u64 = (0..plan.clusters).flat_map(|cluster| plan.listeners(cluster)).sum();
            assert_eq!(listeners as usize, plan.connections * CHANNELS_EACH.min(plan.channels));
        }
    }

    #[test]
    fn a_connection_listens_to_different_channels() {
        let plan = Plan { clusters: 2, connections: 40, channels: 7 };
        for connection in 0..plan.connections {
            let channels: HashSet<_> = plan.channels_of(connection).collect();
            assert_eq!(channels.len(), CHANNELS_EACH);
        }
    }

    #[test]
    fn channel_names_are_unique() {
        let names: HashSet<_> = (0..1000).map(channel_name).collect();
        assert_eq!(names.len(), 1000);
    }
}
