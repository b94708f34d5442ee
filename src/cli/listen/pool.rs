//! The commands of `listen --exec`: as many run concurrently as `--jobs` allows.
//!
//! ```text
//!   notifier ──▶ callback: waits for a free place ──▶ a thread with the command ──▶ its output, in whole lines
//! ```
//!
//! While all places are taken, notifications wait in the notifier's queues, and the sessions are still read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::Escaped;
use notifyman::notifier::{Delivery, Missed, Reason};

use crate::cli::args::ListenArgs;
use crate::cli::health::SourceMonitor;
use crate::cli::messages::print_message;
use crate::cli::{clock, label, shell};

/// The most bytes of a line that are passed on in one piece.
const LINE_MAX: u64 = 64 * 1024;

/// Runs the command for notifications and gaps, in threads.
pub(super) struct CommandPool {
    command: String,
    /// The labels of the connections.
    labels: Vec<Option<String>>,
    /// The connections are streams of a relay.
    is_relayed: bool,
    limit: usize,
    state: Mutex<PoolState>,
    changed: Condvar,
    monitor: SourceMonitor,
}

/// The state of the commands; at the end, their result.
#[derive(Default)]
pub(super) struct PoolState {
    pub(super) running: usize,
    /// Connections and their channels, without those that are lost.
    pub(super) subscriptions: BTreeSet<(usize, String)>,
    /// Lost connections and their channels, with the reasons.
    lost: BTreeMap<(usize, String), String>,
    /// The connections that have been open.
    pub(super) opened: BTreeSet<usize>,
    /// The time of the last notification or end of a command; at first, of the first connection.
    pub(super) last_activity: Option<Instant>,
    is_closed: bool,
    /// The number of notifications that are missing from the count, if there is one.
    pub(super) missing: Option<u64>,
    /// The number of notifications that arrived after the end.
    pub(super) skipped: u64,
    /// `true` if a command failed, or something was missed.
    pub(super) is_incomplete: bool,
    /// The error of writing to standard output.
    pub(super) output_error: Option<io::Error>,
}

impl PoolState {
    /// Returns `true` if no further command will be started.
    pub(super) fn has_ended(&self) -> bool {
        self.is_closed || self.missing == Some(0) || self.output_error.is_some() || self.subscriptions.is_empty()
    }
}

impl CommandPool {
    pub(super) fn new(command: &str, args: &ListenArgs, monitor: SourceMonitor) -> Self {
        let state = PoolState { missing: args.count, ..PoolState::default() };
        // There are either URLs or streams.
        let of_urls = args.urls.iter().map(|url| label::split(url).0.map(str::to_owned));
        let labels = of_urls.chain(args.streams.iter().cloned().map(Some)).collect();
        Self {
            command: command.to_owned(),
            labels,
            is_relayed: !args.from.is_empty(),
            limit: args.jobs,
            state: Mutex::new(state),
            changed: Condvar::new(),
            monitor,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut PoolState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Returns the time since which no command has ended although no more are started.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.last_activity.filter(|_| state.running == self.limit)
    }

    /// Starts no further command.
    pub(super) fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    /// Handles a call of the notifier: a notification, or a report that some were missed.
    pub(super) fn handle_delivery(self: &Arc<Self>, delivery: &Delivery<'_, usize>) {
        match delivery {
            Delivery::Missed(missed) => self.handle_missed(missed),
            Delivery::Notification(n) => {
                self.monitor.received(*n.id(), 1);
                self.run(CommandJob {
                    pool: Arc::clone(self),
                    connection: *n.id(),
                    channel: n.channel().to_owned(),
                    input: CommandInput::Notification { pid: n.pid(), payload: n.payload().bytes().to_owned() },
                });
            }
        }
    }

    /// Reports what may be missing, and runs the command for it in its place among the notifications.
    fn handle_missed(self: &Arc<Self>, missed: &Missed<'_, usize>) {
        let (connection, channel) = (*missed.id(), missed.channel());
        let subscription = (connection, channel.to_owned());
        let is_lost = matches!(missed.reason(), Reason::Lost(_));
        // A channel that a relay does not carry is lost again whenever the relay is back.
        let is_known = is_lost && !self.lock().subscriptions.contains(&subscription);
        // Notifications from before the first connection do not count as missed.
        if matches!(missed.reason(), Reason::Opened) || is_known {
            return;
        }
        let mut is_gap = missed.is_loss();
        if is_gap {
            self.monitor.missed(connection);
        }
        self.change(|state| {
            // The watcher reports the failure of a session that was never open.
            let was_open = self.is_relayed || state.opened.contains(&connection);
            if was_open {
                print_message(format_args!("connection {connection}, channel {channel:?}: {missed}"));
            }
            is_gap &= was_open || !is_lost;
            state.is_incomplete |= missed.is_loss();
            match is_lost {
                true => state.lost.insert(subscription.clone(), missed.to_string()),
                // A relay carries the channel again.
                false => state.lost.remove(&subscription).inspect(|_| {
                    state.subscriptions.insert(subscription.clone());
                }),
            };
            let lost = state.lost.iter().filter(|((of, _), _)| *of == connection);
            let problems = lost.map(|((_, channel), reason)| format!("channel {channel:?}: {reason}")).collect();
            self.monitor.set_problems(connection, problems);
        });
        if is_gap {
            // The value of a variable contains no NUL.
            let input = CommandInput::Gap(Escaped(missed).to_string());
            self.run(CommandJob { pool: Arc::clone(self), connection, channel: channel.to_owned(), input });
        }
        if is_lost {
            self.change(|state| {
                state.subscriptions.remove(&subscription);
            });
        }
    }

    /// Waits until a place is free, and runs a job on a thread.
    fn run(&self, job: CommandJob) {
        let mut state = self.lock();
        state.last_activity = Some(clock::now());
        while state.running == self.limit && !state.is_closed {
            state = self.wait(state, None);
        }
        let is_notification = matches!(job.input, CommandInput::Notification { .. });
        if state.is_closed || state.missing == Some(0) {
            state.skipped += u64::from(state.is_closed && is_notification);
            return;
        }
        state.running += 1;
        if is_notification {
            state.missing = state.missing.map(|missing| missing - 1);
        }
        state.last_activity = Some(clock::now());
        drop(state);
        self.changed.notify_all();

        let job = Arc::new(job);
        let same_job = Arc::clone(&job);
        // If no thread can be started, the command runs on this one.
        if thread::Builder::new().name("command".into()).spawn(move || same_job.run()).is_err() {
            job.run();
        }
    }

    pub(super) fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, PoolState>,
        wait: Option<Duration>,
    ) -> MutexGuard<'a, PoolState> {
        match wait {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(wait) => self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// Waits until no command runs, and returns the result.
    pub(super) fn finish(&self) -> MutexGuard<'_, PoolState> {
        let idle = self.changed.wait_while(self.lock(), |state| state.running > 0);
        idle.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The command for one notification, or for one gap.
struct CommandJob {
    pool: Arc<CommandPool>,
    connection: usize,
    channel: String,
    input: CommandInput,
}

/// The event that a command is run for.
enum CommandInput {
    Notification {
        pid: i32,
        payload: Vec<u8>,
    },
    /// Notifications of the channel may be missing, for this reason.
    Gap(String),
}

impl CommandJob {
    fn run(&self) {
        let failure = self.start().and_then(|child| self.supervise(child)).err();
        if let Some(failure) = &failure {
            let Self { connection, channel, input, .. } = self;
            let event = match input {
                CommandInput::Notification { pid, .. } => format!("pid {pid}"),
                CommandInput::Gap(_) => "gap".to_owned(),
            };
            print_message(format_args!(
                "the command failed for connection {connection}, channel {channel:?}, {event}: {failure}"
            ));
        }
        self.pool.change(|state| {
            state.running -= 1;
            state.last_activity = Some(clock::now());
            state.is_incomplete |= failure.is_some();
        });
    }

    fn start(&self) -> Result<Child, String> {
        let mut command = shell::command(&self.pool.command);
        command.env("NOTIFYMAN_CHANNEL", &self.channel);
        // Not those of this process.
        command.env_remove("NOTIFYMAN_PID").env_remove("NOTIFYMAN_GAP");
        match &self.input {
            CommandInput::Notification { pid, .. } => command.env("NOTIFYMAN_PID", pid.to_string()),
            CommandInput::Gap(reason) => command.env("NOTIFYMAN_GAP", reason),
        };
        command.env("NOTIFYMAN_CONNECTION", self.connection.to_string());
        if let Some(Some(label)) = self.connection.checked_sub(1).and_then(|index| self.pool.labels.get(index)) {
            command.env("NOTIFYMAN_LABEL", label);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        shell::start(command)
    }

    /// Writes the payload to the command's standard input, passes its output on, and waits for its end.
    fn supervise(&self, mut child: Child) -> Result<(), String> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let payload = match &self.input {
            CommandInput::Notification { payload, .. } => payload.as_slice(),
            CommandInput::Gap(_) => &[],
        };
        let supervised = thread::scope(|scope| {
            let thread = || thread::Builder::new().name("command-io".into());
            thread().spawn_scoped(scope, || stderr.map(|lines| relay(lines, &mut io::stderr())))?;
            let writing = thread().spawn_scoped(scope, || shell::write_input(stdin, payload))?;
            if let Some(Err(error)) = stdout.map(|lines| relay(lines, &mut io::stdout())) {
                self.pool.change(|state| state.output_error = Some(error));
            }
            Ok(writing.join().unwrap_or(Ok(())))
        });
        let supervised =
            supervised.unwrap_or_else(|error: io::Error| Err(format!("could not start a thread: {error}")));
        shell::wait(child).and(supervised)
    }
}

/// Passes lines on, each in one write, so that lines of concurrent commands do not mix. The error is that of the output.
fn relay(lines: impl Read, out: &mut impl Write) -> io::Result<()> {
    let mut lines = BufReader::new(lines);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(read) if line.last() != Some(&b'\n') && read as u64 != LINE_MAX => line.push(b'\n'),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Ok(()),
        }
        out.write_all(&line)?;
        out.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_passed_on_whole_and_the_last_line_is_terminated() {
        let mut out = Vec::new();
        relay(&b"one\ntwo"[..], &mut out).unwrap();
        assert_eq!(out, b"one\ntwo\n");
        out.clear();
        relay(&vec![b'x'; 200_000][..], &mut out).unwrap();
        assert_eq!(out.len(), 200_001);
    }
}
