//! `notifyman listen --exec`: a command for each notification, on the notifier.
//!
//! ```text
//!   notifier ──▶ callback: waits for a free place ──▶ a thread with the command ──▶ its lines, whole
//! ```
//!
//! While all places are taken, what comes waits in the notifier's queues; the sessions are read all the same.

mod watch;

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use notifyman::Notifier;
use notifyman::notifier::{Delivery, Reason};

use self::watch::{StateChange, Watch};
use super::args::Listen;
use super::connections::rest;
use super::delivery::DeliveryChecks;
use super::output::tell;
use super::signals::Lookout;
use super::target::or_environment;
use super::{End, Failure, advise, clock, configs, listen, shell};

/// Longer lines are passed on in pieces.
const LINE_MAX: u64 = 64 * 1024;

pub(crate) fn run(args: &Listen, command: &str) -> Result<End, Failure> {
    let configs = configs(&or_environment(&args.urls))?;
    let jobs = Arc::new(Jobs::new(command, args));
    let Some(first) = configs.first() else { return Ok(End::Done) };
    let backoff = listen::backoff(configs.len());
    let mut builder = Notifier::builder(first)?.autorun(false).keep_trying(true).reconnect(backoff);
    if let Some(period) = args.canary {
        builder = builder.canary(period, listen::CANARY_DEADLINE);
    }
    let notifier = builder.build::<usize>();
    let (failing, ends_at_failure) = (Arc::clone(&jobs), args.fail_fast);
    let checks = DeliveryChecks::new(args.quiet, move || {
        if ends_at_failure {
            failing.close();
        }
    });
    let mut watch = Watch::new(&configs, args, checks);
    for (config, number) in configs.iter().zip(1..) {
        let there = notifier.at(config)?;
        for channel in &args.channels {
            jobs.lock().heard.insert((number, channel.clone()));
            let jobs = Arc::clone(&jobs);
            there.subscribe(number, channel, move |n| jobs.take(n))?;
        }
        watch.opening.push((number, there));
    }
    notifier.start().map_err(advise)?;
    let signalled = Arc::clone(&jobs);
    let lookout = Lookout::new(move || signalled.close())
        .map_err(|e| Failure::Failed(format!("looking out for signals: {e}")))?;
    jobs.wait_for_the_end(args, &mut watch);
    // What runs is waited for, what waits is not: until the stop it is skipped one by one, and the rest is dropped there.
    jobs.close();
    notifier.stop();
    let mut ended = jobs.wait_until_idle();
    if let Some(error) = ended.output.take() {
        return Err(Failure::Output(error));
    }
    let skipped = notifier.stats().dropped + ended.skipped;
    if let Some(signal) = lookout.got() {
        if skipped > 0 {
            tell(format_args!("{skipped} notifications arrived for which the command was not run"));
        }
        return Ok(End::Signalled(signal));
    }
    let receives_nothing = watch.checks.has_failed();
    let has_failed = watch.has_failed || args.fail_fast && receives_nothing;
    if ended.heard.is_empty() {
        tell("no connection is left");
    } else if let Some(left @ 1..) = ended.left
        && !has_failed
    {
        tell(format_args!("the timeout came before the count: {left} notifications are missing"));
        ended.whole = false;
    }
    let is_complete = watch.connections.finish(has_failed) && ended.whole && !has_failed && !receives_nothing;
    Ok(if is_complete { End::Done } else { End::Incomplete })
}

/// The commands that run, and how many may.
struct Jobs {
    command: String,
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    running: usize,
    /// Connections and their channels, without those that are lost for good.
    heard: BTreeSet<(usize, String)>,
    /// The connections that have been open.
    opened: BTreeSet<usize>,
    /// How many more notifications are wanted, where that is limited.
    left: Option<u64>,
    /// The time of the last notification or end of a command; at first, of the first connection.
    last_came: Option<Instant>,
    /// Whether no more are to be run.
    closed: bool,
    skipped: u64,
    /// Whether every command succeeded, and nothing was missed.
    whole: bool,
    /// Why standard output can't be written to.
    output: Option<io::Error>,
}

impl State {
    fn handle(&mut self, changes: Vec<StateChange>) {
        for change in changes {
            match change {
                StateChange::Opened(number) => {
                    self.opened.insert(number);
                    self.last_came.get_or_insert_with(clock::now);
                }
                StateChange::Lost(number) => self.heard.retain(|(lost, _)| *lost != number),
            }
        }
    }
}

impl Jobs {
    fn new(command: &str, args: &Listen) -> Self {
        let state = State {
            running: 0,
            heard: BTreeSet::new(),
            opened: BTreeSet::new(),
            left: args.count,
            last_came: None,
            closed: false,
            skipped: 0,
            whole: true,
            output: None,
        };
        Self { command: command.to_owned(), limit: args.jobs, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// Runs the command for a notification, as soon as there is a place for it.
    fn take(self: &Arc<Self>, n: &Delivery<'_, usize>) {
        if let Some(missed) = n.missed() {
            // Before the first connection nothing counts as missed.
            if matches!(missed.reason(), Reason::Opened) {
                return;
            }
            return self.change(|state| {
                // `Watch` reports the failure of a connection that was never open.
                if state.opened.contains(n.id()) {
                    tell(format_args!("connection {}, channel {:?}: {missed}", n.id(), n.channel()));
                }
                state.whole &= matches!(missed.reason(), Reason::Disconnected(_));
                if let Reason::Lost(_) = missed.reason() {
                    state.heard.remove(&(*n.id(), n.channel().to_owned()));
                }
            });
        }
        let mut state = self.lock();
        state.last_came = Some(clock::now());
        while state.running == self.limit && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed || state.left == Some(0) {
            state.skipped += u64::from(state.closed);
            return;
        }
        state.running += 1;
        state.left = state.left.map(|left| left - 1);
        state.last_came = Some(clock::now());
        drop(state);
        self.changed.notify_all();

        let job = Job {
            jobs: Arc::clone(self),
            connection: *n.id(),
            channel: n.channel().to_owned(),
            pid: n.pid(),
            payload: n.payload().bytes().to_owned(),
        };
        // Where there is no thread to be had, this one does it.
        let job = Arc::new(job);
        let same = Arc::clone(&job);
        if thread::Builder::new().name("command".into()).spawn(move || same.run()).is_err() {
            job.run();
        }
    }

    /// Waits for a signal, for the count, until nothing can come any more, or nothing has for the whole timeout.
    fn wait_for_the_end(&self, args: &Listen, watch: &mut Watch) {
        let mut state = self.lock();
        while !state.closed && state.left != Some(0) && state.output.is_none() && !state.heard.is_empty() {
            state.handle(watch.poll());
            if watch.has_failed || state.heard.is_empty() {
                return;
            }
            // While a command runs, it isn't quiet.
            let quiet_for = match state.last_came {
                Some(last_came) if state.running == 0 => Some(clock::now() - last_came),
                _ => None,
            };
            let rest = match (args.timeout, quiet_for) {
                (Some(timeout), Some(quiet_for)) if !watch.connections.is_undecided() => {
                    match rest(timeout, quiet_for) {
                        None => return,
                        rest => rest,
                    }
                }
                _ => None,
            };
            let wait = watch.next_poll().into_iter().chain(rest).min();
            state = match wait {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        state.handle(watch.poll());
    }

    fn wait_until_idle(&self) -> MutexGuard<'_, State> {
        let state = self.lock();
        self.changed.wait_while(state, |state| state.running > 0).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The command for one notification.
struct Job {
    jobs: Arc<Jobs>,
    connection: usize,
    channel: String,
    pid: i32,
    payload: Vec<u8>,
}

impl Job {
    fn run(&self) {
        let failure = self.start().and_then(|child| self.attend(child)).err();
        if let Some(failure) = &failure {
            let Self { connection, channel, pid, .. } = self;
            tell(format_args!(
                "the command failed for connection {connection}, channel {channel:?}, pid {pid}: {failure}"
            ));
        }
        self.jobs.change(|state| {
            state.running -= 1;
            state.last_came = Some(clock::now());
            state.whole &= failure.is_none();
        });
    }

    fn start(&self) -> Result<Child, String> {
        let mut command = shell::command(&self.jobs.command);
        command.env("NOTIFYMAN_CHANNEL", &self.channel);
        command.env("NOTIFYMAN_PID", self.pid.to_string());
        command.env("NOTIFYMAN_CONNECTION", self.connection.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        shell::start(command)
    }

    /// Gives it the payload, passes its lines on, and waits for its end.
    fn attend(&self, mut child: Child) -> Result<(), String> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let attended = thread::scope(|scope| {
            let thread = || thread::Builder::new().name("command's".into());
            thread().spawn_scoped(scope, || stderr.map(|lines| relay(lines, &mut io::stderr())))?;
            let feeding = thread().spawn_scoped(scope, || shell::feed(stdin, &self.payload))?;
            if let Some(Err(error)) = stdout.map(|lines| relay(lines, &mut io::stdout())) {
                self.jobs.change(|state| state.output = Some(error));
            }
            Ok(feeding.join().unwrap_or(Ok(())))
        });
        let attended = attended.unwrap_or_else(|error: io::Error| Err(format!("starting a thread: {error}")));
        shell::finish(child).and(attended)
    }
}

/// Passes lines on, each whole, so that those of several commands don't run into each other. The error is the output's.
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
    fn lines_are_passed_on_whole_and_the_last_one_is_ended() {
        let mut out = Vec::new();
        relay(&b"one\ntwo"[..], &mut out).unwrap();
        assert_eq!(out, b"one\ntwo\n");
        out.clear();
        relay(&vec![b'x'; 200_000][..], &mut out).unwrap();
        assert_eq!(out.len(), 200_001);
    }
}
