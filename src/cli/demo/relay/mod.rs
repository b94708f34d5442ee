//! The act of the relay: two relays, hundreds of readers behind an engine, and a leader that is killed under way.
//!
//! ```text
//! writer ──NOTIFY──▶ PostgreSQL ─┬─▶ relay 1 ──append──▶ engine ─┬─▶ reader
//!                                └─▶ relay 2 (waits)             ├─▶ reader
//!                                                                └─▶ ..
//! ```
//!
//! The relays are processes of this program, and the readers are threads. Each notification has a number, and each reader
//! must receive each number once, or report a gap in its place.

mod process;
mod readers;
mod view;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use self::process::{CHANNELS, DemoRelay, DemoRole};
use self::readers::{DemoReaders, ReaderCounts};
use self::view::RelayPicture;
use super::meter::{RATE_PERIOD, Rate};
use super::plan::Plan;
use super::screen::Screen;
use super::server::DemoServer;
use super::writer::{Writer, WriterPlan, micros};
use crate::cli::args::DemoArgs;
use crate::cli::clock;
use crate::cli::cluster::{EngineKind, EngineServer};
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::counted;
use crate::cli::signals::SignalWatcher;

/// The time between two looks at the counts.
const PERIOD: Duration = Duration::from_millis(20);
/// Transactions per second: so the time for which nothing arrives is known to a fiftieth of a second.
const TRANSACTIONS: u32 = 50;
/// The longest wait for the relays and the readers, and at the end for notifications that are still due.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// The time in which both relays have marked their place, and so a takeover needs no gap.
const MARKED: Duration = Duration::from_millis(2_200);
/// The times at which the leader is killed, is started again, and the writer stops, in percent of the whole time.
const KILL: u32 = 35;
const RESTART: u32 = 60;
const SILENCE: u32 = 85;
/// The columns of the time before an event.
const INDENT: &str = "         ";

/// Runs the act alone, on servers of its own.
pub(crate) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    let engine_kind = installed_engine()?;
    // A signal is noticed at the next look.
    let signals = SignalWatcher::new(|| ())?;
    let Some(mut show) = RelayShow::set_up(args, engine_kind, &signals)? else {
        return Ok(signals.received().map_or(Exit::Done, Exit::Signalled));
    };
    let is_whole = show.run(args.duration, &signals)?;
    show.finish(is_whole, &signals)
}

/// Returns the kind of engine that is installed on this machine.
fn installed_engine() -> Result<EngineKind, Failure> {
    let found = [EngineKind::Redis, EngineKind::Valkey].into_iter().find(|kind| kind.find().is_ok());
    let advice = "install one, such as with `apt-get install redis-server`, or run under `tests/with-postgres --tools`";
    let missing = || "neither redis-server nor valkey-server is installed on this machine".to_owned();
    found.ok_or_else(|| Failure::Advised(missing(), advice))
}

/// The servers, the processes and the threads of the act, and what has happened.
struct RelayShow {
    screen: Screen,
    server: DemoServer,
    engine: EngineServer,
    relays: [DemoRelay; 2],
    readers: DemoReaders,
    writer: Option<Writer>,
    stop_writer: Arc<AtomicBool>,
    rate: Rate,
    rates_at: Instant,
    /// The origin of the times.
    began: Instant,
    /// The leader that was killed, and when.
    killed: Option<(usize, Instant)>,
    /// The time that the other relay needed to lead.
    takeover: Option<Duration>,
    is_restarted: bool,
}

impl RelayShow {
    /// Starts everything; returns `None` if a signal interrupted this.
    fn set_up(args: &DemoArgs, kind: EngineKind, signals: &SignalWatcher) -> Result<Option<Self>, Failure> {
        let number = usize::try_from(args.connections).unwrap_or(usize::MAX);
        let mut screen = Screen::new();
        let title = format!("notifyman: two relays, and {} behind them", counted(number, "reader"));
        screen.print(&screen.style.bold(title)).map_err(Failure::Output)?;
        screen.print(&view::introduction(screen.style)).map_err(Failure::Output)?;
        screen.set_steps(number as u64 + 4);
        let progress = |screen: &mut Screen, step: usize, note: &str| {
            let plain = || format!("{INDENT}{note}");
            screen.draw(clock::now(), (step as u64, note.into()), |_, _| String::new(), plain).map_err(Failure::Output)
        };
        progress(&mut screen, 0, "starting the servers")?;
        let server = DemoServer::start(&Plan { clusters: 1, connections: 2, channels: CHANNELS }, 0)?;
        let mut engine = EngineServer::create(kind, Vec::new())?;
        engine.launch_on_free_port()?;
        let text =
            format!("PostgreSQL runs on port {}, {} on port {}", server.cluster.port, kind.program(), engine.port);
        screen.print(&format!("{INDENT}{text}")).map_err(Failure::Output)?;
        let start = || DemoRelay::start(&server, &engine.url());
        let relays = [start()?, start()?];
        progress(&mut screen, 2, "starting the relays")?;
        if !wait(signals, || is_led(&relays))? {
            return Ok(None);
        }
        let began = clock::now();
        let readers = DemoReaders::start(number, &engine.url(), began)?;
        let has_all = || {
            progress(&mut screen, readers.counts().open + 3, "opening the readers")?;
            Ok(readers.counts().open == number)
        };
        let is_open = wait(signals, has_all)?;
        let marked_at = clock::now() + MARKED;
        if !is_open || !wait(signals, || Ok(clock::now() >= marked_at))? {
            return Ok(None);
        }
        let (stop_writer, rates_at) = (Arc::default(), began);
        let mut show = Self {
            screen,
            server,
            engine,
            relays,
            readers,
            writer: None,
            stop_writer,
            rate: Rate::default(),
            rates_at,
            began,
            killed: None,
            takeover: None,
            is_restarted: false,
        };
        show.write(args.rate, number);
        Ok(Some(show))
    }

    /// Starts the writer. The times begin now.
    fn write(&mut self, rate: u32, readers: usize) {
        self.began = clock::now();
        self.readers.begin(self.began);
        self.rates_at = self.began + RATE_PERIOD;
        self.writer = Some(Writer::start(WriterPlan {
            config: self.server.config.clone(),
            listeners: vec![readers as u64; CHANNELS],
            first: 0,
            rate,
            transactions: TRANSACTIONS,
            began: self.began,
            offset: Duration::ZERO,
            stop: Arc::clone(&self.stop_writer),
        }));
    }

    /// Runs the course. Returns `false` after a signal.
    fn run(&mut self, length: Duration, signals: &SignalWatcher) -> Result<bool, Failure> {
        self.screen.set_steps(micros(length));
        loop {
            let now = clock::now();
            let passed = now - self.began;
            if signals.received().is_some() {
                return Ok(false);
            }
            self.follow_schedule(passed, length, now)?;
            let counts = self.readers.counts();
            if let Some(error) = counts.error {
                return Err(Failure::from(error));
            }
            if passed >= length && (self.has_all(&counts) || passed >= length + TIME_LIMIT) {
                return Ok(true);
            }
            self.draw(&counts, passed.min(length), length, now).map_err(Failure::Output)?;
            thread::sleep(PERIOD);
        }
    }

    /// Returns `true` if the writer has ended, and each reader has its last number.
    fn has_all(&self, counts: &ReaderCounts) -> bool {
        let is_over = |writer: &Writer| writer.thread.is_finished() && counts.slowest >= writer.sent();
        self.writer.as_ref().is_none_or(is_over)
    }

    /// Does what is scheduled for this time, and reports what the relays do.
    fn follow_schedule(&mut self, passed: Duration, length: Duration, now: Instant) -> Result<(), Failure> {
        if self.killed.is_none() && passed >= length * KILL / 100 {
            let leader = self.relays.iter().position(|relay| relay.role() == DemoRole::Leader).unwrap_or_default();
            self.relays[leader].kill();
            let killed_at = clock::now();
            self.readers.watch_pause();
            self.killed = Some((leader, killed_at));
            self.print(passed, &format!("relay {}, the leader, is killed (SIGKILL)", leader + 1))?;
        }
        let Some((dead, killed_at)) = self.killed else { return Ok(()) };
        let other = 1 - dead;
        if self.takeover.is_none() && self.relays[other].role() == DemoRole::Leader {
            let takeover = now - killed_at;
            self.takeover = Some(takeover);
            self.print(passed, &format!("relay {} leads, {} ms later", other + 1, takeover.as_millis()))?;
        }
        if !self.is_restarted && passed >= length * RESTART / 100 {
            self.is_restarted = true;
            self.relays[dead] = DemoRelay::start(&self.server, &self.engine.url())?;
            self.print(passed, &format!("relay {} is started again, and waits", dead + 1))?;
        }
        if passed >= length * SILENCE / 100 && !self.stop_writer.swap(true, Relaxed) {
            self.print(passed, "the writer stops")?;
        }
        Ok(())
    }

    fn print(&self, passed: Duration, text: &str) -> Result<(), Failure> {
        let time = self.screen.style.dim(format!("{:>5.1} s", passed.as_secs_f64()));
        self.screen.print(&format!("{time}  {text}")).map_err(Failure::Output)
    }

    fn draw(&mut self, counts: &ReaderCounts, passed: Duration, length: Duration, now: Instant) -> io::Result<()> {
        while now >= self.rates_at {
            self.rates_at += RATE_PERIOD;
            self.rate.update(counts.received);
        }
        let roles = self.relays.each_ref().map(DemoRelay::role);
        let sent = self.writer.as_ref().map(Writer::sent).unwrap_or_default();
        let picture = RelayPicture { roles, sent, counts, rate: &self.rate };
        let note = format!("{:.1} of {} s", passed.as_secs_f64(), length.as_secs_f64());
        self.screen.draw(
            now,
            (micros(passed), note),
            |style, _| view::live(&picture, style),
            || format!("{:>5.1} s  {}", passed.as_secs_f64(), view::plain(&picture)),
        )
    }

    /// Ends everything, and prints the summary.
    fn finish(mut self, is_whole: bool, signals: &SignalWatcher) -> Result<Exit, Failure> {
        self.stop_writer.store(true, Relaxed);
        self.screen.clear();
        let (sent, due, error) = self.writer.take().map(Writer::join).unwrap_or_default();
        let counts = self.readers.finish();
        if let Some(error) = error {
            return Err(error.into());
        }
        let result = view::RelayResult { sent, due, counts, takeover: self.takeover };
        let lines = match is_whole {
            true => view::summary(&result, self.screen.style),
            false => vec![format!("interrupted: {}", view::delivered(&result))],
        };
        for line in lines {
            self.screen.print(&line).map_err(Failure::Output)?;
        }
        Ok(match signals.received() {
            Some(signal) => Exit::Signalled(signal),
            None if result.is_right() => Exit::Done,
            None => Exit::Incomplete,
        })
    }
}

/// Returns `true` if one relay leads, and the other one waits.
fn is_led(relays: &[DemoRelay; 2]) -> Result<bool, Failure> {
    for relay in relays {
        if let Some(last) = relay.failure() {
            return Err(Failure::Failed(format!("a relay has ended: {last}")));
        }
    }
    let has = |role| relays.iter().any(|relay| relay.role() == role);
    Ok(has(DemoRole::Leader) && has(DemoRole::Candidate))
}

/// Waits until something is done; returns `false` after a signal.
fn wait(signals: &SignalWatcher, mut is_done: impl FnMut() -> Result<bool, Failure>) -> Result<bool, Failure> {
    let began = clock::now();
    while !is_done()? {
        if signals.received().is_some() {
            return Ok(false);
        }
        if clock::now() - began > TIME_LIMIT {
            return Err(Failure::Failed(format!("the relays and their readers were not ready within {TIME_LIMIT:?}")));
        }
        thread::sleep(PERIOD);
    }
    Ok(true)
}
