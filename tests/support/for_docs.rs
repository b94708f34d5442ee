// A server for the examples of the documentation, which include this file: so they run for real, and read as if there
// were just a database.

#[path = "../../src/cli/cluster/mod.rs"]
mod cluster;

/// Where a database is. Its cluster is started with the first call, and ends with the process.
#[allow(clippy::unwrap_used)]
fn database() -> String {
    static CLUSTER: std::sync::OnceLock<cluster::Cluster> = std::sync::OnceLock::new();
    CLUSTER.get_or_init(|| cluster::Cluster::start(cluster::Options::new()).unwrap()).url()
}
