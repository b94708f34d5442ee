//! The servers of the demonstration, and the connections to them.

use notifyman::{Config, Connection};

use super::super::cluster::{Cluster, ClusterError, Options};
use super::plan::{Plan, channel_name};

/// Sessions of a server besides the listeners: the writer, and those that PostgreSQL keeps for its superuser.
const OTHER_SESSIONS: usize = 10;

/// A server of its own, with the address of its database.
pub(crate) struct Server {
    cluster: Cluster,
    config: Config,
}

impl Server {
    /// Starts a server that has room for the connections of the plan.
    pub(crate) fn start(plan: &Plan, number: usize) -> Result<Self, ClusterError> {
        let sessions = plan.size_of(number) + OTHER_SESSIONS;
        let cluster = Cluster::start(Options::new().max_connections(u32::try_from(sessions).unwrap_or(u32::MAX)))?;
        // Built rather than parsed: nothing of the user's environment belongs here.
        let config = Config::new().host("127.0.0.1").port(cluster.port()).user("postgres").dbname("postgres");
        Ok(Self { cluster, config: config.application_name("notifyman demo") })
    }

    pub(crate) fn port(&self) -> u16 {
        self.cluster.port()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// A connection that listens to what the plan says.
    pub(crate) fn listener(&self, plan: &Plan, connection: usize) -> Result<Connection, notifyman::Error> {
        let mut listener = Connection::connect(&self.config)?;
        listener.listen(plan.channels_of(connection).map(channel_name))?;
        Ok(listener)
    }

    /// Ends the server, and with it all its sessions; it tells them.
    pub(crate) fn stop(&mut self) -> Result<(), ClusterError> {
        self.cluster.stop()
    }

    /// Starts it again, on the same port.
    pub(crate) fn restart(&mut self) -> Result<(), ClusterError> {
        self.cluster.restart()
    }
}
