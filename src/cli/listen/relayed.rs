//! `notifyman listen --from`: prints a line for each notification that relays have appended to streams.

use std::io;
use std::time::{Duration, Instant};

use notifyman::relay::RelayReader;
use notifyman::{ConnId, Error, Event, EventSource, NotificationRef};

use super::print::Printer;
use crate::cli::args::ListenArgs;
use crate::cli::clock;
use crate::cli::engine;
use crate::cli::health::SourceMonitor;
use crate::cli::messages::print_message;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::reader::ReaderWatcher;
use crate::cli::signals::SignalWatcher;

/// The shortest timeout; with zero, an idle event could come before anything has been read.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Returns the reader of the streams.
pub(super) fn reader(args: &ListenArgs) -> Result<RelayReader, Error> {
    engine::reader(&args.from, &args.streams)?.build()
}

pub(super) fn run(args: ListenArgs) -> Result<Exit, Failure> {
    let mut reader = reader(&args)?;
    reader.set_timeout(args.timeout.map(|timeout| timeout.max(TIMEOUT_MIN)));
    let (of_signals, of_reader) = (reader.handle(), reader.handle());
    let signals = SignalWatcher::new(move || of_signals.stop())?;
    let watcher = ReaderWatcher::new(move || of_reader.stop());
    let left = reader.streams().len();
    let monitor = SourceMonitor::new(reader.streams().map(|id| id.to_string()), None);
    let _health = monitor.serve(args.health.as_ref(), args.quiet, |_| {})?;
    let mut printer = Printer::new(&args);
    let mut listener = StreamListener { args, left, monitor, is_complete: true, last_received: None };
    while let Some(event) = reader.next_event() {
        if !listener.handle(event, &reader, &mut printer)? {
            break;
        }
    }
    if let Some(signal) = signals.received() {
        return Ok(Exit::Signalled(signal));
    }
    if watcher.is_gone() && printer.left != Some(0) {
        return Err(Failure::Output(io::ErrorKind::BrokenPipe.into()));
    }
    let is_complete = listener.is_complete && matches!(printer.left, None | Some(0));
    Ok(if is_complete { Exit::Done } else { Exit::Incomplete })
}

fn report_silence(id: ConnId, error: &Error) {
    print_message(format_args!("nothing arrives from stream {id}, retrying: {error:#}"));
}

/// A reader that reports on standard error that nothing arrives, for a notifier, which does not report the errors of first attempts.
pub(super) struct ReportingReader(pub(super) RelayReader);

impl EventSource for ReportingReader {
    fn connections(&self) -> Vec<ConnId> {
        self.0.connections()
    }

    fn start(&mut self) -> Result<(), Error> {
        self.0.start()
    }

    fn next_event(&mut self) -> Option<Event> {
        let event = self.0.next_event();
        if let Some(Event::Disconnected(id, error)) = &event {
            report_silence(*id, error);
        }
        event
    }

    fn channels(&self, conn: ConnId) -> Option<Vec<Box<str>>> {
        self.0.channels(conn)
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.0.set_timeout(timeout);
    }

    fn stopper(&self) -> Box<dyn Fn() + Send + Sync> {
        self.0.stopper()
    }
}

/// The state of the loop.
struct StreamListener {
    args: ListenArgs,
    /// The number of streams that are not lost.
    left: usize,
    monitor: SourceMonitor,
    /// `false` once something may have been missed.
    is_complete: bool,
    /// The time of the last notification; at first, of the first stream that was read.
    last_received: Option<Instant>,
}

impl StreamListener {
    fn is_wanted(&self, channel: &[u8]) -> bool {
        self.args.channels.iter().any(|wanted| wanted.as_bytes() == channel)
    }

    /// Makes the channels that are not relayed problems of the stream.
    fn monitor_channels(&self, id: ConnId, reader: &RelayReader) {
        let carried = reader.channels(id).unwrap_or_default();
        let missing = self.args.channels.iter().filter(|channel| carried.iter().all(|it| **it != ***channel));
        let problem = |channel: &String| Error::NotRelayed { channel: channel.as_str().into() }.to_string();
        self.monitor.set_problems(number(id), missing.map(problem).collect());
    }

    /// Handles an event; returns `false` at the end.
    fn handle(&mut self, event: Event, reader: &RelayReader, printer: &mut Printer) -> Result<bool, Failure> {
        if let Event::Opened(id) | Event::Restored(id, _) | Event::Unlistened(id, _) = &event {
            self.monitor_channels(*id, reader);
        }
        match event {
            Event::Notifies(id, batch) => {
                let is_shown = |n: &NotificationRef<'_>| self.is_wanted(n.channel_bytes());
                let busy = self.monitor.busy();
                let printed = printer.print(id, &batch, is_shown).map_err(Failure::Output)?;
                drop(busy);
                self.monitor.received(number(id), printed);
                if printed > 0 {
                    self.last_received = Some(clock::now());
                }
                return Ok(printer.left != Some(0));
            }
            Event::Opened(id) => self.report_opened(id, reader),
            Event::Restored(id, gap) => {
                self.monitor.opened(number(id));
                if gap.channels().iter().any(|channel| self.is_wanted(channel.as_bytes())) {
                    self.is_complete = false;
                    self.monitor.missed(number(id));
                    let is_shown = |channel: &str| self.is_wanted(channel.as_bytes());
                    printer.print_gap(id, &gap, is_shown).map_err(Failure::Output)?;
                }
                print_message(format_args!("stream {id} is read again"));
            }
            Event::Disconnected(id, error) => {
                self.monitor.away(number(id), &error);
                report_silence(id, &error);
            }
            Event::Unlistened(id, channels) => {
                let wanted: Vec<_> = channels.iter().filter(|it| self.is_wanted(it.as_bytes())).collect();
                wanted.into_iter().for_each(|channel| self.report_missing(id, channel));
            }
            Event::Lost(id, error) => {
                self.monitor.away(number(id), &error);
                print_message(format_args!("stream {id} is lost: {error:#}"));
                (self.is_complete, self.left) = (false, self.left.saturating_sub(1));
                return Ok(self.left > 0);
            }
            Event::Idle => {
                let quiet_for = self.last_received.map(|at| clock::now() - at);
                return Ok(self.args.timeout.zip(quiet_for).is_none_or(|(timeout, quiet_for)| quiet_for < timeout));
            }
            _ => {}
        }
        Ok(true)
    }

    fn report_opened(&mut self, id: ConnId, reader: &RelayReader) {
        self.monitor.opened(number(id));
        self.last_received.get_or_insert_with(clock::now);
        if !self.args.quiet {
            let channels = self.args.channels.join(", ");
            print_message(format_args!("connection {} listens to {channels} at stream {id}", number(id)));
        }
        let carried = reader.channels(id).unwrap_or_default();
        for channel in self.args.channels.clone() {
            if carried.iter().all(|carried| **carried != *channel) {
                self.report_missing(id, &channel);
            }
        }
    }

    fn report_missing(&mut self, id: ConnId, channel: &str) {
        self.is_complete = false;
        print_message(format_args!("stream {id}: {}", Error::NotRelayed { channel: channel.into() }));
    }
}

/// Returns the number of a stream, from 1.
fn number(id: ConnId) -> usize {
    usize::try_from(id.number()).unwrap_or(usize::MAX)
}
