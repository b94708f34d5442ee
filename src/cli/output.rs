//! Standard output, in which external text cannot control a terminal or imitate the program's messages.

use std::borrow::Cow;
use std::env;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{HumanCount, ProgressStyle};
use notifyman::Escaped;
use rustix::termios::tcgetwinsize;

use super::outcome::{Exit, Failure};

/// Returns a number with a comma between thousands.
pub(super) fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

/// Returns a number and a noun: `1 table`, `2 tables`.
pub(super) fn counted(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{} {noun}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}

/// Prints text that needs no escapes on standard output.
pub(super) fn print(text: &str) -> Result<Exit, Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(Failure::Output)?;
    Ok(Exit::Done)
}

/// Prints an SQL script, which may contain any name: unchanged for `psql`, escaped on a terminal.
pub(super) fn print_script(sql: &str) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() {
        return print(sql);
    }
    let lines: Vec<_> = sql.split('\n').map(|line| Escaped(line).to_string()).collect();
    print(&lines.join("\n"))
}

/// Returns the number of columns of a line on standard output, less one so that no line is wrapped, if that is a terminal.
pub(super) fn columns() -> Option<usize> {
    let columns = tcgetwinsize(io::stdout()).ok()?.ws_col;
    // A terminal without a size reports zero.
    usize::from(columns).checked_sub(1)
}

/// Returns the form of a redrawn part of the output.
pub(super) fn progress_style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

/// Returns JSON as one line that is safe on a terminal, with the same meaning.
///
/// Only strings can contain a character that must be escaped, and JSON has an escape for each; between values, line
/// breaks and tabs become spaces.
pub(super) fn json_line(json: &str) -> Cow<'_, str> {
    if !json.chars().any(|c| Escaped(c).is_needed()) {
        return json.into();
    }
    let mut line = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if Escaped(c).is_needed() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
            c => line.push(c),
        }
    }
    line.into()
}

/// Text styles, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style(pub(crate) bool);

impl Style {
    /// Returns styles if standard output is a terminal that can show them, and `NO_COLOR` is not set.
    pub(crate) fn of_stdout() -> Self {
        let is_capable = env::var_os("TERM").is_none_or(|term| term != "dumb");
        let is_wanted = env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        Self(io::stdout().is_terminal() && is_capable && is_wanted)
    }

    fn with(self, code: &str, text: impl Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub(crate) fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: impl Display) -> String {
        self.with("2", text)
    }

    pub(crate) fn good(self, text: impl Display) -> String {
        self.with("32", text)
    }

    pub(crate) fn bad(self, text: impl Display) -> String {
        self.with("31", text)
    }

    pub(crate) fn accent(self, text: impl Display) -> String {
        self.with("36", text)
    }

    pub(crate) fn warning(self, text: impl Display) -> String {
        self.with("33", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_value_without_characters_that_control_a_terminal() {
        let text = "é \u{7f}\u{80}\u{9b}\u{9f} \u{2028}\u{202e}\u{2066} \u{e0041} \u{1f600} \u{1b}\n\t\"\\";
        let json = serde_json::to_string(text).unwrap();
        let line = json_line(&json);
        assert!(line.chars().all(|c| !Escaped(c).is_needed()), "{line}");
        assert!(line.contains(r"\u009b") && line.contains(r"\udb40\udc41") && line.contains("é"), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        assert_eq!(json_line("{\"a\":\n\t1}"), "{\"a\":  1}");
    }
}
