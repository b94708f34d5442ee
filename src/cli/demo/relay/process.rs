//! The relays of the act: processes of this program.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::cli::demo::plan::channel_name;
use crate::cli::demo::server::DemoServer;
use crate::cli::outcome::Failure;

/// The name of the stream.
pub(crate) const STREAM: &str = "demo";
/// The number of channels, all of which each reader receives.
pub(crate) const CHANNELS: usize = 5;
/// Waits until its standard input is closed, also by the end of this process, and then kills the process `$1`.
const GUARD: &str = r#"while read -r _; do :; done; kill -s KILL "$1""#;

/// The part of a relay, as it has logged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DemoRole {
    Starting,
    Candidate,
    Leader,
    Killed,
}

/// The log of a relay, as far as it is needed.
struct RelayLog {
    role: DemoRole,
    last: String,
}

/// A process of `notifyman relay`. It is killed when it is dropped, and when this process ends in any way.
pub(crate) struct DemoRelay {
    process: Child,
    guard: Child,
    log: Arc<Mutex<RelayLog>>,
}

impl DemoRelay {
    pub(crate) fn start(server: &DemoServer, engine: &str) -> Result<Self, Failure> {
        let failed = |error| Failure::Failed(format!("could not start a relay: {error}"));
        let database = format!("{STREAM}=postgres://postgres@127.0.0.1:{}/postgres", server.cluster.port);
        let mut relay = Command::new(env::current_exe().map_err(failed)?);
        relay.args(["relay", "--url", &database, "--to", engine, "--canary", "1s", "--canary-deadline", "1s"]);
        relay.args((0..CHANNELS).map(channel_name));
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            relay.env_remove(name);
        }
        // A Ctrl-C in this terminal does not reach it.
        relay.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = relay.spawn().map_err(failed)?;
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", GUARD, "sh", &process.id().to_string()]).process_group(0);
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let guard = match guard {
            Ok(guard) => guard,
            Err(error) => {
                end(&mut process);
                return Err(failed(error));
            }
        };
        let log = Arc::new(Mutex::new(RelayLog { role: DemoRole::Starting, last: String::new() }));
        if let Some(output) = process.stderr.take() {
            let log = Arc::clone(&log);
            let read = move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some((_, role)) = line.split_once("this relay is ") {
                        log.role = match role {
                            "the leader" => DemoRole::Leader,
                            "a candidate" => DemoRole::Candidate,
                            _ => DemoRole::Starting,
                        };
                    }
                    log.last = line;
                }
            };
            thread::Builder::new().name("relay log".into()).spawn(read).map_err(failed)?;
        }
        Ok(Self { process, guard, log })
    }

    pub(crate) fn role(&self) -> DemoRole {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).role
    }

    /// Returns the last line that a relay has logged, if its process has ended.
    pub(crate) fn failure(&self) -> Option<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = Arc::strong_count(&self.log) == 1;
        is_over.then(|| log.last.clone())
    }

    /// Kills the process, which has no chance to do anything before its end.
    pub(crate) fn kill(&mut self) {
        // The number of the process may be that of another one soon.
        end(&mut self.guard);
        end(&mut self.process);
        self.log.lock().unwrap_or_else(PoisonError::into_inner).role = DemoRole::Killed;
    }
}

impl Drop for DemoRelay {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills a process, if it has not ended.
fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}
