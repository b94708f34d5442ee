//! The servers of the demonstration, and the connections to them.

use notifyman::{Config, Connection};

use super::cache;
use super::plan::{Plan, channel_name};
use crate::cli::cluster::{Cluster, ClusterError};

/// Sessions of a server besides the listeners: the writer, those of the cache, and those that PostgreSQL reserves for the
/// superuser.
const OTHER_SESSIONS: usize = 10 + cache::SESSIONS;

/// A throwaway server, with the settings to connect to it.
pub(crate) struct DemoServer {
    pub(crate) cluster: Cluster,
    pub(crate) config: Config,
}

impl DemoServer {
    /// Starts a server that has room for the connections of the plan.
    pub(crate) fn start(plan: &Plan, number: usize) -> Result<Self, ClusterError> {
        let sessions = plan.connections_to(number).count() + OTHER_SESSIONS;
        let mut cluster = Cluster::create("UTF8", vec![format!("max_connections={sessions}")])?;
        cluster.launch_on_free_port()?;
        // Built, not parsed, so that no environment variable has an effect.
        let config = Config::new().host("127.0.0.1").port(cluster.port).user("postgres").dbname("postgres");
        Ok(Self { cluster, config: config.application_name("notifyman demo") })
    }

    /// Opens a connection that listens to the channels of the plan.
    pub(crate) fn listener(&self, plan: &Plan, connection: usize) -> Result<Connection, notifyman::Error> {
        let mut listener = Connection::connect(&self.config)?;
        listener.listen(plan.channels_of(connection).map(channel_name))?;
        Ok(listener)
    }
}
