//! Formats the state of the act as lines of at most 79 columns. This module prints nothing.

use std::time::Duration;

use super::process::DemoRole;
use super::readers::ReaderCounts;
use crate::cli::demo::meter::Rate;
use crate::cli::demo::view::{latency, sparkline, time};
use crate::cli::output::{Style, counted, grouped};

/// The state that is drawn.
pub(crate) struct RelayPicture<'a> {
    pub(crate) roles: [DemoRole; 2],
    /// Notifications that the server has acknowledged.
    pub(crate) sent: u64,
    pub(crate) counts: &'a ReaderCounts,
    /// The rate of all readers together.
    pub(crate) rate: &'a Rate,
}

/// The result at the end.
pub(crate) struct RelayResult {
    pub(crate) sent: u64,
    /// The deliveries due: one for each notification and reader.
    pub(crate) due: u64,
    pub(crate) counts: ReaderCounts,
    /// The time from the death of the leader until the other relay led.
    pub(crate) takeover: Option<Duration>,
}

impl RelayResult {
    /// Returns `true` if everything that was sent was delivered once, or is in a gap that was reported.
    pub(crate) fn is_right(&self) -> bool {
        let ReaderCounts { received, in_gaps, wrong, missing, .. } = self.counts;
        wrong == 0 && missing == 0 && received + in_gaps == self.due && self.due > 0
    }

    fn verdict(&self, style: Style) -> String {
        let ReaderCounts { received, in_gaps, wrong, missing, .. } = self.counts;
        let absent = missing.max(self.due.saturating_sub(received + in_gaps));
        match (self.is_right(), wrong, absent) {
            (true, ..) if in_gaps == 0 => style.good("each once, in order"),
            (true, ..) => style.good("each once, or in a gap"),
            (false, 0, 0) => style.bad("nothing was sent"),
            (false, 0, absent) => style.bad(format!("{} are missing", grouped(absent))),
            (false, wrong, _) => style.bad(format!("{} twice, or out of order", grouped(wrong))),
        }
    }
}

/// Returns the lines before the counts.
pub(crate) fn introduction(style: Style) -> String {
    let lines = [
        "only the relays listen; one of them appends what it receives to a",
        "stream, which the readers follow, and the other one waits",
    ];
    lines.map(|line| style.dim(format!("         {line}"))).join("\n")
}

/// Formats the state as several lines, which are redrawn.
pub(crate) fn live(picture: &RelayPicture<'_>, style: Style) -> String {
    let RelayPicture { roles, sent, counts, rate } = picture;
    let role = |role: DemoRole| match role {
        DemoRole::Starting => style.dim("starting"),
        DemoRole::Candidate => "waits, and keeps what it receives".to_owned(),
        DemoRole::Leader => style.good("leads: appends what it receives"),
        DemoRole::Killed => style.bad("killed"),
    };
    let readers = format!("{:>13}", grouped(counts.open as u64));
    let gaps = match counts.gaps {
        0 => style.good("no gap"),
        gaps => style.bad(counted(gaps, "gap")),
    };
    let lines = [
        String::new(),
        format!("  relay 1     {}", role(roles[0])),
        format!("  relay 2     {}", role(roles[1])),
        String::new(),
        format!("  sent      {}", style.bold(format!("{:>13}", grouped(*sent)))),
        format!("  delivered {}   {}", style.bold(format!("{:>13}", grouped(counts.received))), gaps),
        format!("  readers   {}", style.bold(readers)),
        format!(
            "  together  {} /s   {}",
            style.bold(format!("{:>13}", grouped(rate.per_second()))),
            style.accent(sparkline(&rate.history))
        ),
        format!("  latency   {}", latency(&counts.latency, style)),
    ];
    lines.join("\n")
}

/// Formats the state as one line, for a pipe.
pub(crate) fn plain(picture: &RelayPicture<'_>) -> String {
    let RelayPicture { roles, sent, counts, rate } = picture;
    let leader = match roles.iter().position(|role| *role == DemoRole::Leader) {
        Some(leader) => format!("relay {} leads", leader + 1),
        None => "no relay leads".to_owned(),
    };
    format!(
        "{} sent, {} delivered, {}/s; {}; {leader}",
        grouped(*sent),
        grouped(counts.received),
        grouped(rate.per_second()),
        counted(counts.gaps, "gap"),
    )
}

/// Returns what was delivered, as a part of a line.
pub(crate) fn delivered(result: &RelayResult) -> String {
    let ReaderCounts { received, gaps, .. } = result.counts;
    format!("{} sent, {} delivered, {}", grouped(result.sent), grouped(received), counted(gaps, "gap"))
}

/// Returns the table and the result, after the act.
pub(crate) fn summary(result: &RelayResult, style: Style) -> Vec<String> {
    let RelayResult { sent, due, counts, takeover } = result;
    let readers = counted(counts.readers, "reader");
    let head = format!("  {:<14}{:>9}{:>13}{:>13}{:>9}", "", "sent", "to deliver", "delivered", "in gaps");
    let row = [*due, counts.received].map(|count| format!("{:>13}", grouped(count))).concat();
    let mut lines = vec![
        String::new(),
        style.dim(head),
        format!("  {readers:<14}{:>9}{row}{:>9}", grouped(*sent), grouped(counts.in_gaps)),
        format!("  {:<14}{}", "", result.verdict(style)),
        String::new(),
    ];
    match takeover {
        Some(takeover) => {
            let pause = counts.pause.map(time).unwrap_or_else(|| "-".to_owned());
            let (takeover, pause) = (style.bold(format!("{} ms", takeover.as_millis())), style.bold(pause));
            lines.push(format!("  the leader was killed, and the other relay led {takeover} later;"));
            lines.push(format!("  the longest time from NOTIFY to a reader was {pause} around that"));
        }
        None => lines.push(style.bad("  no relay has taken over")),
    }
    lines.push(format!("  from NOTIFY to a reader: {}", latency(&counts.latency, style)));
    lines.push(String::new());
    lines.push(match (result.is_right(), counts.gaps) {
        (true, 0) => style.good("  nothing lost, nothing twice, and no gap"),
        (true, gaps) => {
            style.good(format!("  nothing lost outside {}, and nothing twice", counted(gaps, "reported gap")))
        }
        (false, _) => style.bad("  notifications are missing or wrong: see the table"),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(due: u64, counts: ReaderCounts) -> RelayResult {
        RelayResult { sent: 99_999_999, due, counts, takeover: Some(Duration::from_secs(99)) }
    }

    #[test]
    fn no_line_is_wider_than_79_columns() {
        let counts = ReaderCounts {
            readers: 10_000,
            open: 10_000,
            received: 999_999_999,
            in_gaps: 9_999_999,
            gaps: 99_999,
            pause: Some(99_000_000),
            ..ReaderCounts::default()
        };
        let mut rate = Rate::default();
        (0..99).for_each(|count| rate.update(count * 9_999_999));
        let (style, sent) = (Style(false), 99_999_999);
        let picture = RelayPicture { roles: [DemoRole::Candidate; 2], sent, counts: &counts, rate: &rate };
        let texts = [introduction(style), live(&picture, style)];
        let lines = texts.iter().flat_map(|text| text.lines().map(String::from));
        for line in lines.chain(summary(&result(1_009_999_998, counts.clone()), style)) {
            assert!(line.chars().count() <= 79, "{line}");
        }
    }

    #[test]
    fn the_result_is_right_if_each_number_was_delivered_once_or_is_in_a_gap() {
        let counts = |received, in_gaps, wrong, missing| ReaderCounts {
            received,
            in_gaps,
            wrong,
            missing,
            ..ReaderCounts::default()
        };
        for (found, verdict) in [
            (counts(10, 0, 0, 0), "each once, in order"),
            (counts(7, 3, 0, 0), "each once, or in a gap"),
            (counts(7, 2, 0, 0), "1 are missing"),
            (counts(8, 0, 0, 2), "2 are missing"),
            (counts(11, 0, 1, 0), "1 twice, or out of order"),
        ] {
            let result = result(10, found);
            assert_eq!(result.verdict(Style(false)), verdict);
            assert_eq!(result.is_right(), verdict.starts_with("each"));
        }
        assert!(!result(0, counts(0, 0, 0, 0)).is_right());
    }
}
