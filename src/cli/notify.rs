//! `notifyman notify`: one notification, or one for each line of standard input.
//!
//! A thread reads lines. Whatever has come while a batch was on its way makes the next batch, so that one line is sent
//! at once and many are sent together, without a clock.

use std::collections::HashSet;
use std::io::{self, BufRead, Read as _};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use notifyman::Connection;

use super::args::NotifyArgs;
use super::connect::{config, connect};
use super::outcome::{Exit, Failure};

/// The most lines and about the most bytes that go in one transaction.
const BATCH_LINES: usize = 1_000;
const BATCH_BYTES: usize = 256 << 10;
/// What no payload can be longer than, in any of the server's encodings; so that input without an end of line ends.
const LINE_MAX: u64 = 256 << 10;

pub(crate) fn run(args: NotifyArgs) -> Result<Exit, Failure> {
    let mut connection = connect(&config(args.url.as_deref())?)?;
    match args.payload.as_deref() {
        Some("-") => send_lines(&mut connection, &args.channel)?,
        None if args.stdin => send_lines(&mut connection, &args.channel)?,
        payload => connection.notify(&args.channel, payload.unwrap_or_default())?,
    }
    // What was acknowledged is sent, whatever becomes of the goodbye.
    let _ = connection.close();
    Ok(Exit::Done)
}

/// Sends each line of standard input, in order, and ends at the first that can't be sent.
fn send_lines(connection: &mut Connection, channel: &str) -> Result<(), Failure> {
    // Harmless, and refused for a name that can't be; else a wrong name would be blamed on the first line.
    connection.unlisten([channel])?;
    let lines = read_lines();
    let mut batch = LineBatch::default();
    let mut sent = 0;
    let mut over = None;
    while over.is_none() {
        over = batch.fill(&lines);
        while !batch.lines.is_empty() {
            send(connection, channel, &batch.lines, sent)?;
            sent += batch.lines.len() as u64;
            batch.turn();
        }
    }
    match over {
        Some(InputEnd::Failed(reason)) => Err(Failure::Failed(told(sent, sent + 1, &reason))),
        _ => Ok(()),
    }
}

/// Sends lines that follow `sent` others: all of them, or those before the first that can't be sent.
fn send(connection: &mut Connection, channel: &str, lines: &[String], sent: u64) -> Result<(), Failure> {
    let Err(error) = connection.notify_many(lines.iter().map(|line| (channel, line))) else { return Ok(()) };
    let (first, last) = (sent + 1, sent + lines.len() as u64);
    if connection.is_closed() || error.is_timeout() {
        let these = if first == last { format!("line {first}") } else { format!("lines {first} to {last}") };
        return Err(Failure::Failed(format!("{error}; {}, {these} perhaps", before(sent))));
    }
    if first == last {
        return Err(Failure::Failed(told(sent, first, &error.to_string())));
    }
    // None of them was sent, because of one of them: look for it in the first half, and then in the other.
    let (head, tail) = lines.split_at(lines.len() / 2);
    send(connection, channel, head, sent)?;
    send(connection, channel, tail, sent + head.len() as u64)
}

fn told(sent: u64, line: u64, reason: &str) -> String {
    format!("line {line} of standard input: {reason}; {}, nothing from line {line} on", before(sent))
}

fn before(sent: u64) -> String {
    match sent {
        0 => "nothing was sent before".into(),
        1 => "line 1 was sent".into(),
        _ => format!("lines 1 to {sent} were sent"),
    }
}

/// What goes in one transaction. No two lines in it are equal, since the server would fold them.
#[derive(Default)]
struct LineBatch {
    lines: Vec<String>,
    bytes: usize,
    seen: HashSet<String>,
    /// The line that didn't fit any more.
    next: Option<String>,
}

impl LineBatch {
    /// Waits for a line, and takes those that have come with it; says so when there will be no more.
    fn fill(&mut self, lines: &Receiver<Result<String, InputEnd>>) -> Option<InputEnd> {
        let mut arrived = lines.recv();
        loop {
            match arrived {
                Err(_) => return Some(InputEnd::Complete),
                Ok(Err(ended)) => return Some(ended),
                Ok(Ok(line)) => {
                    if !self.add(line) {
                        return None;
                    }
                }
            }
            arrived = match lines.try_recv() {
                Ok(line) => Ok(line),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => return Some(InputEnd::Complete),
            };
        }
    }

    /// Adds a line, or keeps it for the batch that follows: then it says no.
    fn add(&mut self, line: String) -> bool {
        let full = self.lines.len() >= BATCH_LINES || self.bytes >= BATCH_BYTES;
        if full || self.seen.contains(&line) {
            self.next = Some(line);
            return false;
        }
        self.bytes += line.len();
        self.seen.insert(line.clone());
        self.lines.push(line);
        true
    }

    /// It has been sent: begins the one that follows.
    fn turn(&mut self) {
        self.lines.clear();
        self.seen.clear();
        self.bytes = 0;
        if let Some(line) = self.next.take() {
            self.add(line);
        }
    }
}

/// Why there is no further line.
enum InputEnd {
    Complete,
    Failed(String),
}

/// Reads standard input in a thread of its own, which is left alone when the program ends.
fn read_lines() -> Receiver<Result<String, InputEnd>> {
    let (sender, lines) = sync_channel(BATCH_LINES);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let line = next_line(&mut input);
            let last = line.is_err();
            if sender.send(line).is_err() || last {
                return;
            }
        }
    });
    lines
}

fn next_line(input: &mut impl BufRead) -> Result<String, InputEnd> {
    let mut line = Vec::new();
    let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
    if read.map_err(|error| InputEnd::Failed(format!("reading it: {error}")))? == 0 {
        return Err(InputEnd::Complete);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == LINE_MAX {
        return Err(InputEnd::Failed(format!("it is longer than {LINE_MAX} bytes, and no payload can be: shorten it")));
    }
    String::from_utf8(line).map_err(|error| {
        InputEnd::Failed(format!("it is not UTF-8 from its byte {} on", error.utf8_error().valid_up_to()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_a_newline_or_the_input() {
        let mut input = "a\n\nb c\r\nd".as_bytes();
        let lines: Vec<_> = std::iter::from_fn(|| next_line(&mut input).ok()).collect();
        assert_eq!(lines, ["a", "", "b c\r", "d"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut input = io::repeat(b'x').take(u64::MAX);
        let mut input = io::BufReader::new(&mut input);
        assert!(matches!(next_line(&mut input), Err(InputEnd::Failed(reason)) if reason.contains("262144")));
    }

    #[test]
    fn equal_lines_go_in_different_batches() {
        let mut batch = LineBatch::default();
        assert!(batch.add("a".into()) && batch.add("b".into()));
        assert!(!batch.add("a".into()));
        batch.turn();
        assert_eq!(batch.lines, ["a"]);
        assert_eq!(batch.next, None);
    }
}
