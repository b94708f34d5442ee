//! `notifyman worker`: what changes in many databases, line by line, or a command for each.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use notifyman::changes::{News, Worker};

use super::args::{self, GiveUp};
use super::exec::{self, Outcome};
use super::line::Line;
use crate::cli::signals::Lookout;
use crate::cli::{End, Failure, clock, config, tell};

/// How often the status line is drawn anew while nothing comes.
const TICK: Duration = Duration::from_secs(1);

pub(crate) fn run(args: args::Worker) -> Result<End, Failure> {
    let urls: Vec<_> = if args.urls.is_empty() { vec![None] } else { args.urls.iter().map(Some).collect() };
    let configs = urls.iter().map(|url| config(url.map(String::as_str))).collect::<Result<Vec<_>, _>>()?;
    let places: Vec<_> = configs.iter().map(ToString::to_string).collect();
    let mut changes = Worker::new(configs).tables(args.tables.clone()).timeout(TICK).start()?;
    let stopper = changes.stopper();
    let lookout = Lookout::new(move || stopper.stop())
        .map_err(|error| Failure::Failed(format!("looking out for signals: {error}")))?;
    if !args.quiet {
        for (number, place) in (1..).zip(&places) {
            tell(&format!("database {number} is at {place}"));
        }
    }

    let mut line = StatusLine::new(args.quiet);
    let mut whole = true;
    while let Some(event) = changes.next() {
        let Some((database, news)) = event else {
            line.show(changes.waiting());
            continue;
        };
        if let News::Lost(error) = &news {
            whole = false;
            tell(&format!("database {database} is lost: {error}"));
        }
        line.count(&news);
        let told = Line::of(database, &news, &changes.payload());
        match &args.exec {
            None => line.around(|| print(&told)).map_err(Failure::Output)?,
            Some(command) => {
                match act(command, &told, &args, &lookout) {
                    Outcome::Done => {}
                    // Neither of these two acknowledges it, so that an outbox keeps it.
                    Outcome::Interrupted => return Ok(signalled(&lookout, changes.waiting() + 1)),
                    Outcome::Failed(reason) => {
                        whole = false;
                        tell(&format!("the command failed {} times, lastly {reason}: {}", args.retries + 1, told.text));
                        if args.give_up == GiveUp::Stop {
                            return Ok(End::Incomplete);
                        }
                    }
                }
                if lookout.got().is_some() {
                    changes.acknowledge();
                    return Ok(signalled(&lookout, changes.waiting()));
                }
            }
        }
        line.show(changes.waiting());
    }
    match (lookout.got(), whole) {
        (Some(_), _) => Ok(signalled(&lookout, 0)),
        (None, true) => Ok(End::Done),
        (None, false) => Ok(End::Incomplete),
    }
}

/// Ends for a signal, and says what is left undone.
fn signalled(lookout: &Lookout, left: usize) -> End {
    if left > 0 {
        tell(&format!("the command wasn't run for what else had come: {left} of them"));
    }
    lookout.got().map_or(End::Done, End::Signalled)
}

/// Runs the command for what it is for; the rest is said.
fn act(command: &str, line: &Line, args: &args::Worker, lookout: &Lookout) -> Outcome {
    match line.kind {
        "change" | "schema" | "gap" | "dropped" | "lost" => exec::run(command, line, args.retries, lookout),
        _ => {
            tell(&line.text);
            Outcome::Done
        }
    }
}

fn print(line: &Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", line.text)?;
    out.flush()
}

/// What is going on, on a terminal: one line of standard error that is drawn anew.
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
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { bar, changes: 0, gaps: 0, last: "none yet".to_owned() }
    }

    fn count(&mut self, news: &News) {
        match news {
            News::Change(_) | News::Schema(_) => {
                self.changes += 1;
                self.last = clock::stamp();
            }
            News::Gap(_) | News::Dropped(_) => self.gaps += 1,
            _ => {}
        }
    }

    fn show(&self, waiting: usize) {
        if !self.bar.is_hidden() {
            let Self { changes, gaps, last, .. } = self;
            self.bar.set_message(format!("{changes} changes, {gaps} gaps, {waiting} waiting; the last one: {last}"));
        }
    }

    /// Prints something that the line mustn't be mixed up with.
    fn around<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
