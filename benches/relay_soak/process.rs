//! The relays of the soak: processes of the program.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::cluster::signal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_notifyman");
/// The number of lines of a log that are printed after a violation.
const LINES_SHOWN: usize = 40;

/// A process of `notifyman relay`.
pub struct RelayProcess {
    child: Child,
    /// The lines that it has logged.
    lines: Arc<Mutex<Vec<String>>>,
}

impl RelayProcess {
    pub fn start(database: &str, engine: &str) -> Self {
        let mut command = Command::new(PROGRAM);
        let database = format!("shop={database}");
        command.args(["relay", "--url", &database, "--to", engine, "--canary", "1s", "--canary-deadline", "1s", "a"]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (log, output) = (Arc::clone(&lines), BufReader::new(child.stderr.take().unwrap()));
        thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| log.lock().unwrap().push(line)));
        Self { child, lines }
    }

    /// Returns the part that it has logged last.
    pub fn role(&self) -> String {
        let lines = self.lines.lock().unwrap();
        let role = lines.iter().rev().find_map(|line| Some(line.split_once("this relay is ")?.1.to_owned()));
        role.unwrap_or_default()
    }

    pub fn signal(&self, name: &str) {
        // The process may have ended.
        let _ = signal(self.child.id(), name);
    }

    pub fn wait(mut self) {
        let _ = self.child.wait();
    }

    pub fn print_log(&self, number: usize) {
        let lines = self.lines.lock().unwrap();
        lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)).for_each(|line| eprintln!("relay {number}: {line}"));
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
