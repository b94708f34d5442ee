//! Where the demonstration is shown: lines that move on a terminal, plain lines in a pipe.
//!
//! A terminal gets what happens as lines that stay, and below them what changes, drawn anew. Anything else gets lines
//! without escape codes: what happens, and about once a second the numbers.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::view::Paint;

const FRAMES_A_SECOND: u8 = 12;
const LINE_PERIOD: Duration = Duration::from_secs(1);

pub(crate) struct Screen {
    /// On a terminal only.
    bar: Option<ProgressBar>,
    pub(crate) paint: Paint,
    due: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let moves = io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        let bar = moves
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout_with_hz(FRAMES_A_SECOND)))
            .filter(|bar| !bar.is_hidden());
        if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{msg}")) {
            bar.set_style(style);
        }
        let colours = bar.is_some() && env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        Self { bar, paint: Paint(colours), due: None }
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| writeln!(io::stdout(), "{line}")),
            None => writeln!(io::stdout(), "{line}"),
        }
    }

    /// Begins to show how far something is that has so many steps; the last is not said, but done.
    pub(crate) fn measure(&mut self, steps: u64) {
        self.due = None;
        let Some(bar) = &self.bar else { return };
        let colours = if self.paint.0 { ".cyan/dim" } else { "" };
        if let Ok(style) = ProgressStyle::with_template(&format!("{{msg}}\n\n  {{bar:57{colours}}} {{prefix}}")) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_length(steps);
        bar.set_position(0);
    }

    /// Shows the present state, where that is due: on a terminal the text `live`, with how far it is; else `plain`.
    pub(crate) fn show(
        &mut self,
        now: Instant,
        (step, note): (u64, String),
        live: impl FnOnce(Paint) -> String,
        plain: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if self.due.is_some_and(|due| now < due) {
            return Ok(());
        }
        match &self.bar {
            Some(bar) => {
                self.due = Some(now + Duration::from_secs(1) / FRAMES_A_SECOND.into());
                bar.update(|state| state.set_pos(step));
                bar.set_prefix(note);
                bar.set_message(live(self.paint));
                Ok(())
            }
            None => {
                // The first line comes after a period, not at once.
                let first = self.due.replace(now + LINE_PERIOD).is_none();
                if first { Ok(()) } else { writeln!(io::stdout(), "{}", plain()) }
            }
        }
    }

    /// Takes away what moves.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}
