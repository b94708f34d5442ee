//! Who is connected to which server, and who listens to what: arithmetic, so that what must arrive can be counted.

use super::super::args::Demo;

/// How many channels a connection listens to, where there are so many.
const CHANNELS_EACH: usize = 5;
/// What is cached, in the story that the demonstration tells.
const TABLES: [&str; 10] =
    ["prices", "stock", "users", "orders", "carts", "reviews", "coupons", "sessions", "images", "menus"];

/// Everything is counted from 0. Connection `i` belongs to server `i % clusters`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) clusters: usize,
    pub(crate) connections: usize,
    pub(crate) channels: usize,
}

impl Plan {
    pub(crate) fn new(args: &Demo) -> Self {
        let [clusters, connections, channels] =
            [args.clusters, args.connections, args.channels].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        Self { clusters, connections, channels }
    }

    pub(crate) fn cluster_of(&self, connection: usize) -> usize {
        connection % self.clusters
    }

    /// How many connections a server has.
    pub(crate) fn size_of(&self, cluster: usize) -> usize {
        (0..self.connections).filter(|connection| self.cluster_of(*connection) == cluster).count()
    }

    /// What a connection listens to: a stretch of the channels, and its server's next connection the next stretch.
    pub(crate) fn channels_of(&self, connection: usize) -> impl Iterator<Item = usize> + use<> {
        let each = CHANNELS_EACH.min(self.channels);
        let (first, channels) = (connection / self.clusters * each, self.channels);
        (first..first + each).map(move |channel| channel % channels)
    }

    /// How many of a server's connections listen to each channel.
    pub(crate) fn listeners(&self, cluster: usize) -> Vec<u64> {
        let mut listeners = vec![0; self.channels];
        for connection in (0..self.connections).filter(|connection| self.cluster_of(*connection) == cluster) {
            for channel in self.channels_of(connection) {
                if let Some(listeners) = listeners.get_mut(channel) {
                    *listeners += 1;
                }
            }
        }
        listeners
    }
}

/// `prices_1`, `stock_1`, and so on to `prices_2`.
pub(crate) fn channel_name(channel: usize) -> String {
    format!("{}_{}", TABLES[channel % TABLES.len()], channel / TABLES.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_connection_is_counted_on_its_server() {
        for plan in [
            Plan { clusters: 3, connections: 300, channels: 50 },
            Plan { clusters: 3, connections: 10, channels: 7 },
            Plan { clusters: 1, connections: 1, channels: 2 },
        ] {
            let sizes: usize = (0..plan.clusters).map(|cluster| plan.size_of(cluster)).sum();
            assert_eq!(sizes, plan.connections);
            let heard: u64 = (0..plan.clusters).flat_map(|cluster| plan.listeners(cluster)).sum();
            assert_eq!(heard as usize, plan.connections * CHANNELS_EACH.min(plan.channels));
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
    fn names_differ() {
        let names: HashSet<_> = (0..1000).map(channel_name).collect();
        assert_eq!(names.len(), 1000);
    }
}
