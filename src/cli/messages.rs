//! Messages of the program on standard error. They never hold it up: what the reader does not take in time is dropped and counted.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use notifyman::Escaped;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The time that a message waits for the reader, unless the message before it was dropped.
const PATIENCE: Duration = Duration::from_millis(100);
/// The number of bytes that an output takes without blocking if it takes any. POSIX guarantees that for pipes.
const PIECE: usize = 512;

/// Prints a message of the program, as one line.
pub(super) fn print_message(message: impl Display) {
    print_lines(&format!("notifyman: {}\n", Escaped(message)));
}

/// Like [`print_message`], with a second line that says what to do.
pub(super) fn print_message_with_advice(message: impl Display, advice: impl Display) {
    print_lines(&format!("notifyman: {}\n  to do: {}\n", Escaped(message), Escaped(advice)));
}

/// A failure to write is ignored: there is no other place to report it.
fn print_lines(lines: &str) {
    static MESSAGES: Mutex<MessageWriter> = Mutex::new(MessageWriter { dropped: 0, is_in_line: false });
    let mut messages = MESSAGES.lock().unwrap_or_else(PoisonError::into_inner);
    messages.print(lines, &mut io::stderr(), |patience| takes(&io::stderr(), patience));
}

/// Returns `false` if an output takes nothing for a time, because its reader does not read.
pub(super) fn takes(output: &impl AsFd, patience: Duration) -> bool {
    let mut polled = [PollFd::new(output, PollFlags::OUT)];
    match poll(&mut polled, Timespec::try_from(patience).ok().as_ref()) {
        Ok(ready) => ready > 0,
        // Not known: the write finds out.
        Err(error) => error != Errno::INTR,
    }
}

/// The state of standard error.
struct MessageWriter {
    /// The number of messages that were dropped since the last one that was written.
    dropped: u64,
    /// The last message was written in part.
    is_in_line: bool,
}

impl MessageWriter {
    /// Writes whole lines, in pieces that do not block if `takes` is true.
    fn print(&mut self, lines: &str, output: &mut impl io::Write, takes: impl Fn(Duration) -> bool) {
        if !takes(if self.dropped > 0 { Duration::ZERO } else { PATIENCE }) {
            self.dropped += 1;
            return;
        }
        let mut text = if self.is_in_line { "\n".to_owned() } else { String::new() };
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            text.push_str(&format!("notifyman: messages that were not read in time were dropped: {dropped}\n"));
        }
        text.push_str(lines);
        for (number, piece) in text.as_bytes().chunks(PIECE).enumerate() {
            if number > 0 && !takes(PATIENCE) {
                (self.dropped, self.is_in_line) = (1, true);
                return;
            }
            if output.write_all(piece).is_err() {
                return;
            }
        }
        self.is_in_line = false;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn messages_that_are_not_read_are_dropped_and_counted() {
        let (mut messages, mut output) = (MessageWriter { dropped: 0, is_in_line: false }, Vec::new());
        let takes = Cell::new(0);
        let waited = Cell::new(Duration::ZERO);
        let mut print = |pieces: usize, text: &str| {
            takes.set(pieces);
            messages.print(text, &mut output, |patience| {
                let is_ready = takes.get() > 0;
                takes.set(takes.get().saturating_sub(1));
                waited.set(waited.get() + if is_ready { Duration::ZERO } else { patience });
                is_ready
            });
        };
        print(1, "first\n");
        (0..1_000).for_each(|_| print(0, "dropped\n"));
        assert_eq!(waited.get(), PATIENCE, "only the first one waits");
        print(1, "second\n");
        print(1, &format!("{}\n", "long".repeat(200)));
        print(1, "third\n");
        let text = String::from_utf8(output).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..3],
            ["first", "notifyman: messages that were not read in time were dropped: 1000", "second"]
        );
        assert_eq!(
            (lines[3].len(), lines[4]),
            (PIECE, "notifyman: messages that were not read in time were dropped: 1")
        );
        assert_eq!(lines[5..], ["third"]);
    }
}
