//! A server that is shut down under way, and started again, by a thread of its own: the loop waits for nobody.

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use super::super::cluster::ClusterError;
use super::fleet::Server;

pub(crate) struct Outage {
    /// Which server.
    pub(crate) cluster: usize,
    pub(crate) stage: Stage,
    thread: Option<JoinHandle<Result<Server, ClusterError>>>,
    /// Dropped without a word, it leaves the server down.
    start_again: Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Down,
    Starting,
    /// It runs, and its connections are being brought back.
    Reviving,
    /// All of them are back.
    Over,
}

impl Outage {
    pub(crate) fn begin(cluster: usize, mut server: Server) -> Self {
        let (start_again, word) = channel();
        let thread = thread::spawn(move || {
            server.stop()?;
            if word.recv().is_ok() {
                server.restart()?;
            }
            Ok(server)
        });
        Self { cluster, stage: Stage::Down, thread: Some(thread), start_again }
    }

    pub(crate) fn start_again(&mut self) {
        self.stage = Stage::Starting;
        // Where nobody listens, the thread has failed; it tells when it is joined.
        let _ = self.start_again.send(());
    }

    /// The server, once it runs again or couldn't.
    pub(crate) fn take_server(&mut self) -> Option<Result<Server, ClusterError>> {
        let thread = self.thread.take_if(|thread| self.stage == Stage::Starting && thread.is_finished())?;
        thread.join().ok()
    }

    /// Ends it wherever it is, so that the server is removed before the program ends.
    pub(crate) fn end(self) {
        drop(self.start_again);
        if let Some(thread) = self.thread {
            drop(thread.join());
        }
    }
}
