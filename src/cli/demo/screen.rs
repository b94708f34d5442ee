//! The output of the demonstration.
//!
//! On a terminal, events are lines that stay, and the current state is redrawn below them. Otherwise, events and about
//! once a second the state are lines without escape codes.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::cli::output::{Style, columns, progress_style};

const FRAMES_PER_SECOND: u8 = 12;
const LINE_PERIOD: Duration = Duration::from_secs(1);

pub(crate) struct Screen {
    /// The redrawn part, on a terminal only.
    bar: Option<ProgressBar>,
    pub(crate) style: Style,
    next_draw: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let can_redraw = io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        let target = || ProgressDrawTarget::stdout_with_hz(FRAMES_PER_SECOND);
        let bar = can_redraw
            .then(|| ProgressBar::with_draw_target(None, target()).with_style(progress_style("{msg}")))
            .filter(|bar| !bar.is_hidden());
        let style = if bar.is_some() { Style::of_stdout() } else { Style(false) };
        Self { bar, style, next_draw: None }
    }

    /// Returns the number of columns of the terminal, less one; in a pipe there is no limit.
    pub(crate) fn width(&self) -> usize {
        self.bar.as_ref().and_then(|_| columns()).unwrap_or(usize::MAX)
    }

    /// Prints a line that stays.
    pub(crate) fn print(&self, line: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| writeln!(io::stdout(), "{line}")),
            None => writeln!(io::stdout(), "{line}"),
        }
    }

    /// Shows a progress bar with this number of steps.
    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.next_draw = None;
        let Some(bar) = &self.bar else { return };
        let colours = if self.style.0 { ".cyan/dim" } else { "" };
        bar.set_style(progress_style(&format!("{{msg}}\n\n  {{bar:57{colours}}} {{prefix}}")));
        bar.set_length(steps);
        bar.set_position(0);
    }

    /// Draws the current state if it is time to: on a terminal `live` and the progress bar, otherwise `plain`.
    pub(crate) fn draw(
        &mut self,
        now: Instant,
        (step, note): (u64, String),
        live: impl FnOnce(Style, usize) -> String,
        plain: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if self.next_draw.is_some_and(|next| now < next) {
            return Ok(());
        }
        match &self.bar {
            Some(bar) => {
                self.next_draw = Some(now + Duration::from_secs(1) / FRAMES_PER_SECOND.into());
                bar.update(|state| state.set_pos(step));
                bar.set_prefix(note);
                bar.set_message(live(self.style, self.width()));
                Ok(())
            }
            None => {
                // The first line is printed after a period, not immediately.
                let is_first = self.next_draw.replace(now + LINE_PERIOD).is_none();
                if is_first { Ok(()) } else { writeln!(io::stdout(), "{}", plain()) }
            }
        }
    }

    /// Removes the redrawn part.
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
