//! A scripted server on a Unix socket, which connects immediately and has small buffers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::{env, fs, process};

use super::peer::{Peer, Received, Step};

/// More bytes than the socket buffers hold.
pub const TOO_MUCH: usize = 4 << 20;

const PORT: u16 = 5432;

/// A [`Peer`] with a socket in its own directory.
pub struct UnixPeer {
    peer: Peer,
    directory: Directory,
}

struct Directory(PathBuf);

impl UnixPeer {
    /// Serves one connection.
    pub fn play(script: Vec<Step>) -> Self {
        Self::play_each(vec![script])
    }

    /// Serves as many connections as there are scripts.
    pub fn play_each(scripts: Vec<Vec<Step>>) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let path = env::temp_dir().join(format!("nm-peer-{}-{}", process::id(), LAST.fetch_add(1, Relaxed)));
        fs::create_dir(&path).unwrap();
        let directory = Directory(path);
        Self { peer: Peer::play_unix(&directory.0, PORT, scripts), directory }
    }

    /// Returns the connection string for clients.
    pub fn url(&self) -> String {
        format!("host={} port={PORT} user=postgres dbname=postgres", self.directory.0.display())
    }

    /// Waits until every script has ended, and panics at the first difference.
    pub fn finish(self) -> Vec<Received> {
        self.peer.finish()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
