//! `notifyman worker`: the changes of many databases, as lines or as a command for each.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};
use notifyman::changes::{ChangeEvent, Changes, Worker};

use super::args::{self, GiveUp};
use super::exec::{self, CommandOutcome};
use super::line::EventLine;
use crate::cli::clock;
use crate::cli::connect::configs;
use crate::cli::engine;
use crate::cli::health::{HealthServer, SourceMonitor, canary_period, proof_limit};
use crate::cli::listen::REPORT_AFTER;
use crate::cli::messages::print_message;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{counted, progress_style};
use crate::cli::reader::ReaderWatcher;
use crate::cli::signals::SignalWatcher;

/// The time between two updates of the status line while no events arrive.
const TICK: Duration = Duration::from_secs(1);
/// The time after which a missing canary is examined.
const CANARY_DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn run(args: args::WorkerArgs) -> Result<Exit, Failure> {
    let canary = canary_period(args.canary, args.health.as_ref()).map(|period| (period, CANARY_DEADLINE));
    let (Started { changes, places, labels }, proof) = match is_engine(&args.from)? {
        // A reader reports the silence of a stream by itself.
        true => (start_from_relay(&args)?, None),
        false => (start(&args, canary)?, canary.map(proof_limit)),
    };
    let names = labels.iter().zip(&places).map(|(label, place)| label.as_ref().unwrap_or(place).clone());
    let monitor = SourceMonitor::new(names, proof);
    let watch = changes.watch();
    let health = monitor.serve(args.health.as_ref(), args.quiet, move |monitor| {
        for (number, database) in (1..).zip(watch.databases()) {
            match database.is_connected {
                true => monitor.opened(number),
                false => monitor.away_because(number, "the worker is not connected to the database".to_owned()),
            }
            monitor.set_problems(number, database.problems);
            monitor.set_proven_age(number, database.proven_age);
        }
    })?;
    let stopper = changes.stopper();
    let signals = SignalWatcher::new(move || stopper.stop())?;
    let stopper = changes.stopper();
    // Commands print by themselves.
    let reader = args.exec.is_none().then(|| ReaderWatcher::new(move || stopper.stop()));
    if !args.quiet {
        for (number, place) in (1..).zip(&places) {
            print_message(format_args!("database {number} is at {place}"));
        }
    }
    let line = StatusLine::new(args.quiet);
    let silent = (1..).zip(places).collect();
    let began = clock::now();
    let consumer =
        Consumer { args, labels, monitor, _health: health, signals, reader, line, silent, began, is_complete: true };
    consumer.run(changes)
}

/// A worker that was started, with the addresses and the labels of its databases.
struct Started {
    changes: Changes,
    places: Vec<String>,
    labels: Vec<Option<String>>,
}

/// Starts a worker with sessions of its own, which have this canary.
fn start(args: &args::WorkerArgs, canary: Option<(Duration, Duration)>) -> Result<Started, Failure> {
    let configs = configs(&args.targets.urls())?;
    let places: Vec<_> = configs.iter().map(ToString::to_string).collect();
    let labels = configs.iter().map(|config| config.get_label().map(str::to_owned)).collect();
    let mut worker = Worker::new(configs)
        .tables(args.tables.clone())
        .timeout(TICK)
        .look_every(args.look_every, args.look_every_when_quiet);
    if !args.streams.is_empty() {
        return Err(Failure::Usage("--stream needs the URL of a relay's server as --from".to_owned()));
    }
    if let Some((period, deadline)) = canary {
        worker = worker.canary(period, deadline);
    }
    if let Some(name) = args.from.first() {
        worker = worker.name(name);
    }
    if let Some(time) = args.replay_since {
        worker = worker.replay_since(time);
    }
    if let Some(position) = &args.from_position {
        if places.len() != 1 {
            return Err(Failure::Usage("--from-position takes exactly one database".to_owned()));
        }
        worker = worker.position(1, position.clone());
    }
    Ok(Started { changes: worker.start()?, places, labels })
}

fn start_from_relay(args: &args::WorkerArgs) -> Result<Started, Failure> {
    let refused = [
        (args.targets.is_given(), "databases"),
        (args.replay_since.is_some(), "--replay-since"),
        (args.from_position.is_some(), "--from-position"),
        (args.positions, "--positions"),
        (args.canary.is_some(), "--canary"),
    ];
    if let Some((_, option)) = refused.iter().find(|(is_given, _)| *is_given) {
        return Err(Failure::Usage(format!("{option} cannot be used with a relay as --from")));
    }
    if args.streams.is_empty() {
        return Err(Failure::Usage("a relay as --from needs the label of each database as --stream".to_owned()));
    }
    let streams = engine::reader(&args.from, &args.streams)?;
    let changes = Worker::new([]).tables(args.tables.clone()).timeout(TICK).follow(streams.build()?)?;
    let places = args.streams.iter().map(|stream| engine::place(stream)).collect();
    Ok(Started { changes, places, labels: args.streams.iter().cloned().map(Some).collect() })
}

/// Returns `true` if the values of `--from` are the URLs of a relay's servers, and not the name of a worker.
fn is_engine(from: &[String]) -> Result<bool, Failure> {
    match (from.iter().all(|value| value.contains("://")), from) {
        (_, []) => Ok(false),
        (true, _) => Ok(true),
        (false, [_]) => Ok(false),
        (false, _) => Err(Failure::Usage("--from takes one name, or the URLs of a relay's servers".to_owned())),
    }
}

/// The consumer of the changes: prints them, or runs the command.
struct Consumer {
    args: args::WorkerArgs,
    /// The labels of the databases.
    labels: Vec<Option<String>>,
    monitor: SourceMonitor,
    _health: Option<HealthServer>,
    signals: SignalWatcher,
    reader: Option<ReaderWatcher>,
    line: StatusLine,
    /// The addresses of databases that have reported nothing yet, by number.
    silent: BTreeMap<usize, String>,
    began: Instant,
    /// `false` once something could not be done.
    is_complete: bool,
}

impl Consumer {
    fn run(mut self, mut changes: Changes) -> Result<Exit, Failure> {
        // A call of `next` acknowledges the last event, so it comes only after that has been handled.
        while let Some(event) = changes.next() {
            self.report_delays();
            if let Some((database, event)) = event {
                self.line.count(&event);
                match &event {
                    ChangeEvent::Change(_) | ChangeEvent::Schema(_) => self.monitor.received(database, 1),
                    ChangeEvent::Gap(_) | ChangeEvent::Dropped(_) => self.monitor.missed(database),
                    _ => {}
                }
                self.silent.remove(&database);
                self.report(database, &event);
                let position = changes.log_position().filter(|_| self.args.positions);
                let label = database.checked_sub(1).and_then(|index| self.labels.get(index)?.as_deref());
                let line = EventLine::of((database, label), &event, &changes.payload(), position);
                self.monitor.set_busy_since(Some(clock::now()));
                let end = match self.args.exec.clone() {
                    None => self.print(&line)?,
                    Some(command) => self.run_command(&command, &line, &mut changes),
                };
                self.monitor.set_busy_since(None);
                if let Some(end) = end {
                    return Ok(end);
                }
                if self.args.fail_fast && matches!(event, ChangeEvent::Disconnected(_) | ChangeEvent::Lost(_)) {
                    return Ok(Exit::Incomplete);
                }
            }
            self.line.show(changes.waiting());
        }
        let is_reader_gone = self.reader.as_ref().is_some_and(ReaderWatcher::is_gone);
        Ok(match (self.signals.received(), self.is_complete) {
            (Some(_), _) => self.signalled(0),
            (None, _) if is_reader_gone => {
                print_message("standard output was closed by its reader");
                Exit::ReaderGone
            }
            (None, true) => Exit::Done,
            (None, false) => Exit::Incomplete,
        })
    }

    /// Reports the databases whose servers do not answer.
    fn report_delays(&mut self) {
        if clock::now() - self.began >= REPORT_AFTER {
            for (database, place) in std::mem::take(&mut self.silent) {
                print_message(format_args!("database {database} ({place}) does not answer yet; still trying"));
            }
        }
    }

    /// Reports the state of a connection on standard error.
    fn report(&mut self, database: usize, event: &ChangeEvent) {
        match event {
            ChangeEvent::Lost(error) => {
                self.is_complete = false;
                print_message(format_args!("database {database} is lost: {error:#}"));
            }
            ChangeEvent::Disconnected(error) => {
                let outlook = if self.args.fail_fast { "" } else { ", reconnecting" };
                print_message(format_args!("database {database} is disconnected{outlook}: {error:#}"));
            }
            ChangeEvent::Connected if !self.args.quiet => {
                print_message(format_args!("database {database} is connected"))
            }
            _ => {}
        }
    }

    /// Prints a line. It counts as written once the system has accepted it. A reader that closed the output ends the worker.
    fn print(&self, line: &EventLine) -> Result<Option<Exit>, Failure> {
        let print = || {
            let mut out = io::stdout().lock();
            writeln!(out, "{}", line.text)?;
            out.flush()
        };
        match self.line.bar.suspend(print) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                print_message("standard output was closed by its reader: the last line is not acknowledged");
                Ok(Some(Exit::ReaderGone))
            }
            Err(error) => Err(Failure::Output(error)),
        }
    }

    /// Runs the command for an event of a kind that has commands; returns the exit if the worker must end.
    fn run_command(&mut self, command: &str, line: &EventLine, changes: &mut Changes) -> Option<Exit> {
        match line.kind {
            "change" | "schema" | "gap" | "dropped" | "lost" => {}
            // These events have been reported.
            "connected" | "disconnected" => return None,
            _ => {
                print_message(&line.text);
                return None;
            }
        }
        match exec::run(command, line, self.args.retries, &self.signals) {
            CommandOutcome::Done => {}
            // The change is not acknowledged, so that it is reported again.
            CommandOutcome::Interrupted => return Some(self.signalled(changes.waiting() + 1)),
            CommandOutcome::Failed(reason) => {
                self.is_complete = false;
                let times = counted(self.args.retries.saturating_add(1), "time");
                print_message(format_args!("the command failed {times}, most recently with {reason}: {}", line.text));
                if self.args.give_up == GiveUp::Stop {
                    return Some(Exit::Incomplete);
                }
            }
        }
        self.signals.received()?;
        changes.acknowledge();
        Some(self.signalled(changes.waiting()))
    }

    /// Ends because of a signal, and reports what is left.
    fn signalled(&self, left: usize) -> Exit {
        if left > 0 {
            print_message(format_args!("events for which the command was not run: {left}"));
        }
        self.signals.received().map_or(Exit::Done, Exit::Signalled)
    }
}

/// The status line: one line of standard error that is redrawn, if that is a terminal.
struct StatusLine {
    bar: ProgressBar,
    changes: u64,
    gaps: u64,
    last: String,
}

impl StatusLine {
    fn new(quiet: bool) -> Self {
        let target = match quiet || !io::stderr().is_terminal() {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(None, target).with_style(progress_style("{msg}"));
        Self { bar, changes: 0, gaps: 0, last: "none yet".to_owned() }
    }

    fn count(&mut self, event: &ChangeEvent) {
        match event {
            ChangeEvent::Change(_) | ChangeEvent::Schema(_) => {
                self.changes += 1;
                self.last = clock::stamp();
            }
            ChangeEvent::Gap(_) | ChangeEvent::Dropped(_) => self.gaps += 1,
            _ => {}
        }
    }

    fn show(&self, waiting: usize) {
        if !self.bar.is_hidden() {
            let (changes, gaps) = (counted(self.changes, "change"), counted(self.gaps, "gap"));
            self.bar.set_message(format!("{changes}, {gaps}, {waiting} waiting; the last one: {}", self.last));
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
