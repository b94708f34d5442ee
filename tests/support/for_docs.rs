// A throwaway server for the examples of the documentation, which include this file.

#[path = "cluster.rs"]
mod cluster;

/// Returns a connection string. The server is started by the first call, and ends with the process.
#[allow(clippy::unwrap_used)]
fn database() -> String {
    static CLUSTER: std::sync::OnceLock<cluster::Cluster> = std::sync::OnceLock::new();
    CLUSTER.get_or_init(|| cluster::Cluster::start(cluster::Options::new()).unwrap()).url()
}
