//! The outage of a server: a thread shuts it down and restarts it, so that the loop does not block.

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use super::server::DemoServer;
use crate::cli::cluster::ClusterError;

pub(crate) struct Outage {
    /// The number of the server, from 0.
    pub(crate) cluster: usize,
    thread: Option<JoinHandle<Result<DemoServer, ClusterError>>>,
    /// Restarts the server, once; if it is dropped unused, the server stays down.
    restart: Option<Sender<()>>,
}

impl Outage {
    pub(crate) fn begin(cluster: usize, mut server: DemoServer) -> Self {
        let (restart, restarted) = channel();
        let thread = thread::spawn(move || {
            server.cluster.stop()?;
            if restarted.recv().is_ok() {
                server.cluster.launch()?;
            }
            Ok(server)
        });
        Self { cluster, thread: Some(thread), restart: Some(restart) }
    }

    /// Restarts the server; returns `false` if that was done before.
    pub(crate) fn restart(&mut self) -> bool {
        let Some(restart) = self.restart.take() else { return false };
        // If the thread has ended, it has failed, and `take_server` returns the error.
        let _ = restart.send(());
        true
    }

    /// Returns the server once it runs again, or could not be restarted.
    pub(crate) fn take_server(&mut self) -> Option<Result<DemoServer, ClusterError>> {
        let is_done = |thread: &mut JoinHandle<_>| self.restart.is_none() && thread.is_finished();
        self.thread.take_if(is_done)?.join().ok()
    }

    /// Ends the outage at any stage, so that the server is removed before the program ends.
    pub(crate) fn end(self) {
        drop(self.restart);
        if let Some(thread) = self.thread {
            drop(thread.join());
        }
    }
}
