//! `notifyman notify`: one notification, or one for each line of standard input.
//!
//! A thread reads lines. Lines that are read while a batch is being sent make up the next batch. So a single line is
//! sent immediately and many are sent together, without a timer.

use std::collections::HashSet;
use std::io::{self, BufRead, Read as _};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use notifyman::Connection;

use super::args::NotifyArgs;
use super::connect::{config, connect};
use super::outcome::{Exit, Failure};

/// The most lines, and about the most bytes, of one transaction.
const BATCH_LINES: usize = 1_000;
const BATCH_BYTES: usize = 256 << 10;
/// A length that no payload can exceed in any server encoding. It limits input that has no line ends.
const LINE_MAX: u64 = 256 << 10;

pub(crate) fn run(args: NotifyArgs) -> Result<Exit, Failure> {
    let mut connection = connect(&config(args.url.as_deref())?)?;
    match args.payload.as_deref() {
        Some("-") => send_lines(&mut connection, &args.channel)?,
        None if args.stdin => send_lines(&mut connection, &args.channel)?,
        payload => connection.notify(&args.channel, payload.unwrap_or_default())?,
    }
    // Everything is acknowledged, so an error of `close` does not matter.
    let _ = connection.close();
    Ok(Exit::Done)
}

/// Sends each line of standard input, in order, and ends at the first that cannot be sent.
fn send_lines(connection: &mut Connection, channel: &str) -> Result<(), Failure> {
    // This has no effect, but fails for an invalid name, which would otherwise be reported as an error of the first line.
    connection.unlisten([channel])?;
    let lines = read_lines();
    let mut batch = LineBatch::default();
    let mut sent = 0;
    let mut end = None;
    while end.is_none() {
        end = batch.fill(&lines);
        while !batch.lines.is_empty() {
            send(connection, channel, &batch.lines, sent)?;
            sent += batch.lines.len() as u64;
            batch.advance();
        }
    }
    end.unwrap_or(Ok(())).map_err(|reason| Failure::Failed(line_error(sent, sent + 1, &reason)))
}

/// Sends lines that follow `sent` others: all of them, or those before the first that cannot be sent.
fn send(connection: &mut Connection, channel: &str, lines: &[String], sent: u64) -> Result<(), Failure> {
    let Err(error) = connection.notify_many(lines.iter().map(|line| (channel, line))) else { return Ok(()) };
    let (first, last) = (sent + 1, sent + lines.len() as u64);
    if connection.is_closed() || error.is_timeout() {
        let these = if first == last { format!("line {first}") } else { format!("lines {first} to {last}") };
        return Err(Failure::Failed(format!("{error:#}; {}, and perhaps {these}", sent_before(sent))));
    }
    if first == last {
        return Err(Failure::Failed(line_error(sent, first, &format!("{error:#}"))));
    }
    // One line made the server refuse all of them: find it by halves.
    let (head, tail) = lines.split_at(lines.len() / 2);
    send(connection, channel, head, sent)?;
    send(connection, channel, tail, sent + head.len() as u64)
}

fn line_error(sent: u64, line: u64, reason: &str) -> String {
    format!("line {line} of standard input: {reason}; {}, and nothing from line {line} on", sent_before(sent))
}

fn sent_before(sent: u64) -> String {
    match sent {
        0 => "no line was sent".into(),
        1 => "line 1 was sent".into(),
        _ => format!("lines 1 to {sent} were sent"),
    }
}

/// The lines of one transaction. No two are equal, because the server would fold them.
#[derive(Default)]
struct LineBatch {
    lines: Vec<String>,
    bytes: usize,
    seen: HashSet<String>,
    /// The first line of the next batch, if it has been read.
    next: Option<String>,
}

impl LineBatch {
    /// Waits for a line, and adds those that have been read with it. At the end of the input, returns the reason why the
    /// rest could not be read, if there is one.
    fn fill(&mut self, lines: &Receiver<Result<String, String>>) -> Option<Result<(), String>> {
        let mut arrived = lines.recv().map_err(|_| TryRecvError::Disconnected);
        loop {
            match arrived {
                Ok(Ok(line)) => {
                    if !self.add(line) {
                        return None;
                    }
                }
                Ok(Err(reason)) => return Some(Err(reason)),
                Err(TryRecvError::Disconnected) => return Some(Ok(())),
                Err(TryRecvError::Empty) => return None,
            }
            arrived = lines.try_recv();
        }
    }

    /// Adds a line and returns `true`, or keeps it for the next batch and returns `false`.
    fn add(&mut self, line: String) -> bool {
        let is_full = self.lines.len() >= BATCH_LINES || self.bytes >= BATCH_BYTES;
        if is_full || self.seen.contains(&line) {
            self.next = Some(line);
            return false;
        }
        self.bytes += line.len();
        self.seen.insert(line.clone());
        self.lines.push(line);
        true
    }

    /// Begins the next batch, after this one was sent.
    fn advance(&mut self) {
        self.lines.clear();
        self.seen.clear();
        self.bytes = 0;
        if let Some(line) = self.next.take() {
            self.add(line);
        }
    }
}

/// Reads standard input in a thread, which ends with the program, and closes the channel at the end of the input.
fn read_lines() -> Receiver<Result<String, String>> {
    let (sender, lines) = sync_channel(BATCH_LINES);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input).transpose() {
            let is_last = line.is_err();
            if sender.send(line).is_err() || is_last {
                return;
            }
        }
    });
    lines
}

/// Reads a line; `None` is the end of the input.
fn next_line(input: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
    if read.map_err(|error| format!("could not be read: {error}"))? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == LINE_MAX {
        return Err(format!("it is longer than {LINE_MAX} bytes, the longest payload; shorten it"));
    }
    let line = String::from_utf8(line);
    line.map(Some).map_err(|error| format!("it is not valid UTF-8 after byte {}", error.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_a_newline_or_at_the_end_of_input() {
        let mut input = "a\n\nb c\r\nd".as_bytes();
        let lines: Vec<_> = std::iter::from_fn(|| next_line(&mut input).unwrap()).collect();
        assert_eq!(lines, ["a", "", "b c\r", "d"]);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut input = io::repeat(b'x').take(u64::MAX);
        let mut input = io::BufReader::new(&mut input);
        assert!(matches!(next_line(&mut input), Err(reason) if reason.contains("262144")));
    }

    #[test]
    fn equal_lines_are_in_different_batches() {
        let mut batch = LineBatch::default();
        assert!(batch.add("a".into()) && batch.add("b".into()));
        assert!(!batch.add("a".into()));
        batch.advance();
        assert_eq!(batch.lines, ["a"]);
        assert_eq!(batch.next, None);
    }
}
