//! `notifyman listen`: prints a line for each notification of many connections.

use std::io::{self, IsTerminal as _, StdoutLock, Write as _};
use std::time::Duration;

use notifyman::{Batch, Check, Config, ConnId, Escaped, Event, Gap, NotificationManager, NotificationRef};
use serde_json::json;

use super::connections::{Connections, monitor};
use super::delivery::DeliveryChecks;
use super::recovery::{CANARY_DEADLINE, HEARTBEAT, backoff};
use crate::cli::args::ListenArgs;
use crate::cli::clock;
use crate::cli::connect::configs;
use crate::cli::health::{SourceMonitor, canary_period, proof_limit};
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::{Style, json_line};
use crate::cli::reader::ReaderWatcher;
use crate::cli::signals::SignalWatcher;
use crate::cli::target::or_environment;

/// The shortest timeout; zero would end the manager's iteration.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

pub(super) fn run(args: ListenArgs) -> Result<Exit, Failure> {
    let configs = configs(&or_environment(&args.urls))?;
    let canary = canary_period(args.canary, args.health.as_ref());
    let monitor = monitor(&configs, canary.map(|period| proof_limit((period, CANARY_DEADLINE))));
    let _health = monitor.serve(args.health.as_ref(), args.quiet, |_| {})?;
    let connections = Connections::new(&configs, &args, monitor.clone());
    let (idle, deadline) = HEARTBEAT;
    let mut nm = NotificationManager::new([]).heartbeat(idle, deadline);
    if !args.fail_fast {
        nm = nm.reconnect(backoff(configs.len()));
    }
    if let Some(period) = canary {
        nm = nm.canary(period, CANARY_DEADLINE)?;
    }
    if args.health.is_some() {
        nm = nm.report_canaries();
    }
    let handle = nm.handle();
    let checks = DeliveryChecks::new(&args, monitor.clone(), move || drop(handle.stop()));
    let mut ids = Vec::new();
    for (number, config) in (1..).zip(&configs) {
        ids.push(nm.dial(config, args.channels.iter().chain([&checks.channel(number)]))?);
    }
    let (handle, of_reader) = (nm.handle(), nm.handle());
    let signals = SignalWatcher::new(move || drop(handle.stop()))?;
    let reader = ReaderWatcher::new(move || drop(of_reader.stop()));
    let printer = Printer::new(&args);
    Listener { args, nm, ids, configs, connections, checks, monitor, printer }.run(&signals, &reader)
}

/// The loop and its state.
struct Listener {
    args: ListenArgs,
    nm: NotificationManager,
    /// The ids in ascending order, as the manager assigns them.
    ids: Vec<ConnId>,
    configs: Vec<Config>,
    connections: Connections,
    checks: DeliveryChecks,
    monitor: SourceMonitor,
    printer: Printer,
}

impl Listener {
    fn run(mut self, signals: &SignalWatcher, reader: &ReaderWatcher) -> Result<Exit, Failure> {
        while self.set_timeout() && self.handle_events()? {}
        if let Some(signal) = signals.received() {
            return Ok(Exit::Signalled(signal));
        }
        if reader.is_gone() && self.printer.left != Some(0) {
            return Err(Failure::Output(io::ErrorKind::BrokenPipe.into()));
        }
        let (is_any_left, has_failed) = (self.connections.is_any_left(), self.has_failed());
        let is_all_received = self.connections.finish(is_any_left, self.printer.left, has_failed);
        Ok(if is_all_received && !self.checks.has_failed() { Exit::Done } else { Exit::Incomplete })
    }

    /// Returns the number of a connection, from 1.
    fn number(&self, id: ConnId) -> usize {
        self.ids.binary_search(&id).map_or(0, |index| index + 1)
    }

    /// Returns `true` if a failure has ended the program.
    fn has_failed(&self) -> bool {
        self.args.fail_fast && (self.nm.garbage().next().is_some() || self.checks.has_failed())
    }

    /// Sets the time of the next idle event to that of the next check; returns `false` if the timeout has passed.
    fn set_timeout(&mut self) -> bool {
        let Some(wait) = self.connections.next_check(self.args.timeout) else { return false };
        self.nm.set_timeout(wait.map(|wait| wait.max(TIMEOUT_MIN)));
        true
    }

    /// Handles events until something else must be checked; returns `false` at the end.
    fn handle_events(&mut self) -> Result<bool, Failure> {
        while let Some(event) = self.nm.next_event() {
            let is_batch = matches!(event, Event::Notifies(..));
            let continues = self.handle_event(event)?;
            if !continues || !is_batch {
                return Ok(continues);
            }
        }
        Ok(false)
    }

    /// Handles an event; returns `false` at the end.
    fn handle_event(&mut self, event: Event) -> Result<bool, Failure> {
        match event {
            Event::Notifies(id, batch) => {
                self.take_private(id, &batch);
                let is_shown = |n: &NotificationRef<'_>| !self.checks.is_private(n.channel_bytes());
                let busy = self.monitor.busy();
                let printed = self.printer.print(id, &batch, is_shown).map_err(Failure::Output)?;
                drop(busy);
                self.monitor.received(self.number(id), printed);
                if printed > 0 {
                    self.connections.last_received = Some(clock::now());
                }
                return Ok(self.printer.left != Some(0));
            }
            Event::Opened(id) => {
                self.connections.opened(self.number(id));
                self.check_delivery(id);
            }
            Event::Disconnected(id, error) => {
                self.checks.cancel(self.number(id));
                self.connections.disconnected(self.number(id), &error);
            }
            Event::Lost(id, error) => {
                self.checks.cancel(self.number(id));
                self.connections.lost(self.number(id), &error);
                return Ok(!self.args.fail_fast);
            }
            Event::Restored(id, gap) => {
                let is_shown = |channel: &str| !self.checks.is_private(channel.as_bytes());
                self.printer.print_gap(id, &gap, is_shown).map_err(Failure::Output)?;
                self.connections.restored(self.number(id));
                // The connection may have been lost before its check ended.
                if !self.checks.proven.contains(&self.number(id)) {
                    self.check_delivery(id);
                }
            }
            Event::CanaryReceived(id, _) => self.monitor.proven(self.number(id)),
            Event::CheckRefused(id, Check::Canary, error) => {
                self.monitor.undelivered(self.number(id), format!("delivery cannot be proven: {error:#}"));
            }
            Event::Idle => self.connections.report_delays(),
            _ => {}
        }
        Ok(true)
    }

    fn check_delivery(&mut self, id: ConnId) {
        let number = self.number(id);
        if let Some(config) = number.checked_sub(1).and_then(|index| self.configs.get(index)) {
            self.checks.begin(number, config, Some(self.checks.channel(number)));
        }
    }

    /// Ends the check of a connection if its notification is in the batch.
    fn take_private(&mut self, id: ConnId, batch: &Batch) {
        let number = self.number(id);
        if self.checks.is_pending(number) && batch.iter().any(|n| self.checks.is_private(n.channel_bytes())) {
            self.checks.arrived(number);
        }
    }
}

/// Prints notifications and gaps to standard output.
pub(super) struct Printer {
    out: StdoutLock<'static>,
    lines: Vec<u8>,
    /// The number of notifications still to print, if there is a count.
    pub(super) left: Option<u64>,
    form: OutputForm,
}

/// The form of the lines.
#[derive(Clone, Copy)]
enum OutputForm {
    Json,
    Text(Style),
}

impl OutputForm {
    fn new(args: &ListenArgs) -> Self {
        let is_text = args.text || !args.json && io::stdout().is_terminal();
        if is_text { Self::Text(Style::of_stdout()) } else { Self::Json }
    }
}

impl Printer {
    pub(super) fn new(args: &ListenArgs) -> Self {
        Self { out: io::stdout().lock(), lines: Vec::new(), left: args.count, form: OutputForm::new(args) }
    }

    /// Prints the notifications of a batch that are shown, in one write; returns their number.
    pub(super) fn print(
        &mut self,
        id: ConnId,
        batch: &Batch,
        is_shown: impl Fn(&NotificationRef<'_>) -> bool,
    ) -> io::Result<u64> {
        let wanted = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let time = clock::stamp();
        let mut printed = 0;
        for n in batch.iter().filter(is_shown).take(wanted) {
            match self.form {
                OutputForm::Json => write_line(&mut self.lines, id, n, &time)?,
                OutputForm::Text(style) => {
                    let (time, channel) = (style.dim(&time), style.accent(Escaped(n.channel())));
                    writeln!(self.lines, "{time} {id} {channel} {}", Escaped(n.payload()))?;
                }
            }
            printed += 1;
        }
        self.left = self.left.map(|left| left.saturating_sub(printed));
        self.flush()?;
        Ok(printed)
    }

    /// Prints what a connection may have missed while it was lost.
    pub(super) fn print_gap(&mut self, id: ConnId, gap: &Gap, is_shown: impl Fn(&str) -> bool) -> io::Result<()> {
        let channels: Vec<_> = gap.channels().iter().filter(|channel| is_shown(channel)).collect();
        let time = clock::stamp();
        match self.form {
            OutputForm::Json => {
                let gap = json!({
                    "channels": channels,
                    "cause": format!("{:#}", gap.cause()),
                    "since": clock::rfc3339(gap.since_wall()),
                    "until": clock::rfc3339(gap.until_wall()),
                });
                let gap = gap.to_string();
                let connection = connection_fields(id)?;
                writeln!(self.lines, "{{{connection},\"gap\":{},\"time\":\"{time}\"}}", json_line(&gap))?;
            }
            OutputForm::Text(style) => {
                let channels = channels.iter().map(|channel| channel.as_ref()).collect::<Vec<&str>>().join(", ");
                let missed = format!("gap of {:.1} s on {channels}: {:#}", gap.duration().as_secs_f64(), gap.cause());
                writeln!(self.lines, "{} {id} {}", style.dim(time), style.bad(Escaped(missed)))?;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.lines)?;
        self.lines.clear();
        self.out.flush()
    }
}

/// Returns the fields of JSON that identify a connection.
fn connection_fields(id: ConnId) -> io::Result<String> {
    let mut fields = format!("\"connection\":{}", id.number());
    for (field, name) in [("label", id.label()), ("name", id.name())] {
        if let Some(name) = name {
            fields.push_str(&format!(",\"{field}\":{}", json_line(&serde_json::to_string(name)?)));
        }
    }
    Ok(fields)
}

fn write_line(lines: &mut Vec<u8>, id: ConnId, n: NotificationRef<'_>, time: &str) -> io::Result<()> {
    write!(lines, "{{{}", connection_fields(id)?)?;
    for (name, bytes, text) in
        [("channel", n.channel_bytes(), n.channel()), ("payload", n.payload_bytes(), n.payload())]
    {
        write!(lines, ",\"{name}\":")?;
        lines.extend_from_slice(json_line(&serde_json::to_string(&text)?).as_bytes());
        if std::str::from_utf8(bytes).is_err() {
            write!(lines, ",\"{name}_hex\":\"")?;
            bytes.iter().try_for_each(|byte| write!(lines, "{byte:02x}"))?;
            lines.push(b'"');
        }
    }
    writeln!(lines, ",\"pid\":{},\"time\":\"{time}\"}}", n.pid())
}
