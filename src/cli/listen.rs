//! `notifyman listen`: what many connections hear, one line of JSON for each notification.

use std::io::{self, Write};
use std::time::Duration;

use notifyman::{Backoff, Batch, ConnId, Event, Gap, NotificationManager, NotificationRef};
use serde_json::json;

use super::args::Listen;
use super::output::{json_line, tell};
use super::signals::Lookout;
use super::target::or_environment;
use super::{End, Failure, clock, configs, connect, exec};

/// With `--reconnect`: the silence after which a server is asked for a sign of life, and the time it has for that.
const HEARTBEAT: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(5));

pub(crate) fn run(args: Listen) -> Result<End, Failure> {
    if let Some(command) = &args.exec {
        return exec::run(&args, command);
    }
    let mut nm = open(&args)?;
    // Until here a signal ends the program the plain way: there is nothing to finish.
    let handle = nm.handle();
    let lookout = Lookout::new(move || drop(handle.stop()))
        .map_err(|e| Failure::Failed(format!("looking out for signals: {e}")))?;
    if !args.quiet {
        for (id, connection) in nm.connections() {
            tell(&format!("connection {id} listens at {}", connection.config()));
        }
    }
    let mut printer = Printer { out: io::stdout().lock(), lines: Vec::new(), left: args.count };
    let mut whole = true;
    let mut last_came = clock::now();

    while let Some(event) = nm.next_event() {
        match event {
            Event::Notifies(id, batch) => {
                printer.print(id, &batch).map_err(Failure::Output)?;
                if printer.left == Some(0) {
                    break;
                }
                last_came = clock::now();
            }
            Event::Lost(id, error) => {
                whole = false;
                let place = nm.garbage().chain(nm.restoring()).find(|(dead, _)| *dead == id);
                let place = place.map(|(_, dead)| dead.config().to_string()).unwrap_or_default();
                let outlook = if nm.restoring().any(|(away, _)| away == id) { ", and dialled again" } else { "" };
                tell(&format!("connection {id} ({place}) is lost{outlook}: {error}"));
            }
            Event::Restored(id, gap) => {
                printer.print_gap(id, &gap).map_err(Failure::Output)?;
                tell(&format!("connection {id} is back"));
                last_came = clock::now();
            }
            // An idle event comes after so long; here it must have been quiet for so long.
            Event::Idle => match args.timeout.and_then(|timeout| rest(timeout, clock::now() - last_came)) {
                Some(rest) => nm.set_timeout(rest),
                None => break,
            },
            _ => {}
        }
    }

    if let Some(signal) = lookout.got() {
        return Ok(End::Signalled(signal));
    }
    if nm.connections().next().is_none() && nm.restoring().next().is_none() {
        tell("no connection is left");
    } else if let Some(left @ 1..) = printer.left {
        tell(&format!("the timeout came before the count: {left} notifications are missing"));
        whole = false;
    }
    Ok(if whole { End::Done } else { End::Incomplete })
}

/// Connects to every place, and listens there.
fn open(args: &Listen) -> Result<NotificationManager, Failure> {
    let mut nm = NotificationManager::new([]).timeout(args.timeout);
    if args.reconnect {
        let (idle, deadline) = HEARTBEAT;
        nm = nm.reconnect(Backoff::default()).heartbeat(idle, deadline);
    }
    for config in &configs(&or_environment(&args.urls))? {
        let mut connection = connect(config)?;
        connection.listen(&args.channels).map_err(|error| match error.is_usage() {
            true => Failure::from(error),
            false => Failure::Failed(format!("listening at {config}: {error}")),
        })?;
        nm.insert(connection);
    }
    Ok(nm)
}

/// What is left of the timeout, if anything is.
pub(crate) fn rest(timeout: Duration, quiet_for: Duration) -> Option<Duration> {
    timeout.checked_sub(quiet_for).filter(|rest| !rest.is_zero())
}

struct Printer<W> {
    out: W,
    lines: Vec<u8>,
    /// How many more are to be printed, where that is limited.
    left: Option<u64>,
}

impl<W: Write> Printer<W> {
    /// Prints a batch, as far as its notifications are wanted, in one go.
    fn print(&mut self, id: ConnId, batch: &Batch) -> io::Result<()> {
        let wanted = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let time = clock::stamp();
        let mut printed = 0;
        for n in batch.iter().take(wanted) {
            write_line(&mut self.lines, id, n, &time)?;
            printed += 1;
        }
        self.left = self.left.map(|left| left.saturating_sub(printed));
        self.flush()
    }

    /// Prints what a connection may have missed while it was away.
    fn print_gap(&mut self, id: ConnId, gap: &Gap) -> io::Result<()> {
        let gap = json!({
            "channels": gap.channels(),
            "cause": gap.cause().to_string(),
            "since": clock::written(gap.since_wall()),
            "until": clock::written(gap.until_wall()),
        });
        let gap = gap.to_string();
        writeln!(self.lines, "{{\"connection\":{id},\"gap\":{},\"time\":\"{}\"}}", json_line(&gap), clock::stamp())?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.lines)?;
        self.lines.clear();
        self.out.flush()
    }
}

fn write_line(lines: &mut Vec<u8>, id: ConnId, n: NotificationRef<'_>, time: &str) -> io::Result<()> {
    write!(lines, "{{\"connection\":{id}")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_it_has_been_quiet_for_the_whole_timeout() {
        let seconds = Duration::from_secs;
        assert_eq!(rest(seconds(5), seconds(2)), Some(seconds(3)));
        assert_eq!(rest(seconds(5), seconds(5)), None);
        assert_eq!(rest(seconds(5), seconds(6)), None);
    }
}
