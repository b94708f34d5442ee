//! The outage of a server: a thread shuts it down and restarts it, so that the loop does not block.

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use super::server::DemoServer;
use crate::cli::cluster::ClusterError;

pub(crate) struct Outage {
    /// The number of the server, from 0.
    pub(crate) cluster: usize,
    pub(crate) stage: OutageStage,
    thread: Option<JoinHandle<Result<DemoServer, ClusterError>>>,
    /// Restarts the server; if it is dropped, the server stays down.
    restart: Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutageStage {
    Down,
    Starting,
    /// The server runs, and its connections are being revived.
    Reviving,
    /// All connections are restored.
    Over,
}

impl Outage {
    pub(crate) fn begin(cluster: usize, mut server: DemoServer) -> Self {
        let (restart, restarted) = channel();
        let thread = thread::spawn(move || {
            server.cluster.stop()?;
            if restarted.recv().is_ok() {
                server.cluster.restart()?;
            }
            Ok(server)
        });
        Self { cluster, stage: OutageStage::Down, thread: Some(thread), restart }
    }

    pub(crate) fn restart(&mut self) {
        self.stage = OutageStage::Starting;
        // If the thread has ended, it has failed, and `take_server` returns the error.
        let _ = self.restart.send(());
    }

    /// Returns the server once it runs again, or could not be restarted.
    pub(crate) fn take_server(&mut self) -> Option<Result<DemoServer, ClusterError>> {
        let is_done = |thread: &mut JoinHandle<_>| self.stage == OutageStage::Starting && thread.is_finished();
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
