//! The summary of the demonstration: the deliveries due, compared with those that arrived.

use std::cmp::Ordering;

use notifyman::Error;

use super::cache::counts::SceneCounts;
use super::cache::summary_line;
use super::meter::{Meter, ServerCounts};
use super::view::{latency, totals};
use crate::cli::output::{Style, counted, grouped};

/// The result of one server's writers.
pub(crate) struct WriterReport {
    /// Notifications that the server has acknowledged.
    pub(crate) sent: u64,
    /// The deliveries due: one for each notification and listener.
    pub(crate) due: u64,
    /// The error that ended the writer, if any.
    pub(crate) error: Option<Error>,
    pub(crate) history: WriterHistory,
}

/// The effect of an outage on a server's writer.
pub(crate) enum WriterHistory {
    /// The server was not shut down.
    Uninterrupted,
    /// The writer was ended by the outage, and not replaced.
    CutOff,
    /// The writer was ended by the outage, and replaced after it.
    Replaced(BeforeOutage),
}

/// The counts from before the writer was replaced. The last notifications among them may be lost.
pub(crate) struct BeforeOutage {
    pub(crate) sent: u64,
    pub(crate) due: u64,
    pub(crate) received: u64,
}

impl WriterReport {
    /// Returns the fault of a server's deliveries, unless each arrived once and in order.
    fn fault(&self, counts: &ServerCounts) -> Option<String> {
        if counts.wrong > 0 {
            return Some(format!("{} arrived twice, out of order or damaged", grouped(counts.wrong)));
        }
        if counts.lost > 0 {
            let reason = counts.reason.as_ref().map(|error| format!("{error:#}")).unwrap_or_default();
            return Some(format!("{} lost: {reason}", counted(counts.lost, "connection")));
        }
        let received = match &self.history {
            WriterHistory::Uninterrupted => counts.received,
            WriterHistory::CutOff => return None,
            WriterHistory::Replaced(before) => counts.received.saturating_sub(before.received),
        };
        if let Some(error) = &self.error {
            return Some(format!("its writer failed: {error:#}"));
        }
        match received.cmp(&self.due) {
            Ordering::Less if self.due - received == 1 => Some("1 is missing".into()),
            Ordering::Less => Some(format!("{} are missing", grouped(self.due - received))),
            Ordering::Greater => Some(format!("{} too many", grouped(received - self.due))),
            Ordering::Equal => None,
        }
    }

    /// Returns the notifications sent and the deliveries due, of the whole time.
    fn totals(&self) -> (u64, u64) {
        match &self.history {
            WriterHistory::Replaced(before) => (before.sent + self.sent, before.due + self.due),
            WriterHistory::Uninterrupted | WriterHistory::CutOff => (self.sent, self.due),
        }
    }
}

/// Returns `true` if everything sent has arrived, except perhaps the last notifications before the outage.
pub(crate) fn is_complete(reports: &[WriterReport], meter: &Meter) -> bool {
    reports.iter().zip(&meter.clusters).all(|(report, counts)| report.fault(counts).is_none())
}

/// Returns the summary after a signal.
pub(crate) fn interrupted(meter: &Meter) -> String {
    let ((open, lost), received) = (totals(meter), grouped(meter.received));
    format!("interrupted: {received} delivered, {} open, {lost} lost", counted(open, "connection"))
}

/// Returns the table and the result, as lines of at most 79 columns, unless a reason is longer.
pub(crate) fn lines(reports: &[WriterReport], meter: &Meter, cache: Option<&SceneCounts>, style: Style) -> Vec<String> {
    let mut lines = vec![String::new(), format!("{:>20}{:>14}{:>13}", "sent", "to deliver", "delivered")];
    for (number, (report, counts)) in reports.iter().zip(&meter.clusters).enumerate() {
        let verdict = match report.fault(counts) {
            Some(fault) => style.bad(fault),
            None if counts.restored > 0 => style.good(format!("restored after {:.1} s", counts.gap.as_secs_f64())),
            None => style.good("each once, in order"),
        };
        let (all_sent, all_due) = report.totals();
        lines.push(format!(
            "  server {:<3}{:>8}{:>14}{:>13}   {verdict}",
            number + 1,
            grouped(all_sent),
            grouped(all_due),
            grouped(counts.received),
        ));
    }
    let (open, lost) = totals(meter);
    lines.push(String::new());
    lines.push(format!(
        "  {} in {} {}, up to {} per second",
        style.bold(counted(meter.received, "notification")),
        grouped(meter.batches),
        if meter.batches == 1 { "batch" } else { "batches" },
        grouped(meter.rate.peak),
    ));
    lines.push(format!("  from NOTIFY to the loop: {}", latency(&meter.latency, style)));
    let restored: usize = meter.clusters.iter().map(|counts| counts.restored).sum();
    let (open, idles) = (counted(open, "connection"), counted(meter.idles, "idle event"));
    lines.push(format!("  {open} open, {restored} of them restored, {lost} lost; {idles}"));
    lines.extend(cache.map(|counts| summary_line(counts, style)));
    lines.push(String::new());
    let down = reports.iter().position(|report| !matches!(report.history, WriterHistory::Uninterrupted));
    lines.push(match (is_complete(reports, meter), down) {
        (true, Some(down)) => {
            let gap = meter.clusters.get(down).map(|counts| counts.gap).unwrap_or_default().as_secs_f64();
            style.good(format!("  nothing lost outside the reported gap (server {}, {gap:.1} s)", down + 1))
        }
        (true, None) => style.good("  nothing lost"),
        (false, _) => style.bad("  notifications are missing or wrong: see the table"),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(due: u64, error: Option<Error>, history: WriterHistory, counts: ServerCounts) -> String {
        WriterReport { sent: due, due, error, history }.fault(&counts).unwrap_or_default()
    }

    fn counts(received: u64, wrong: u64, lost: usize) -> ServerCounts {
        ServerCounts { received, wrong, lost, ..ServerCounts::default() }
    }

    #[test]
    fn a_server_has_no_fault_if_everything_arrived_once_and_in_order() {
        assert_eq!(fault(10, None, WriterHistory::Uninterrupted, counts(10, 0, 0)), "");
        assert_eq!(fault(1010, None, WriterHistory::Uninterrupted, counts(9, 0, 0)), "1,001 are missing");
        assert_eq!(fault(10, None, WriterHistory::Uninterrupted, counts(11, 0, 0)), "1 too many");
        assert_eq!(
            fault(10, None, WriterHistory::Uninterrupted, counts(10, 1, 0)),
            "1 arrived twice, out of order or damaged"
        );
        assert!(
            fault(10, Some(Error::Disconnected), WriterHistory::Uninterrupted, counts(10, 0, 0))
                .starts_with("its writer failed")
        );
        assert!(fault(10, None, WriterHistory::Uninterrupted, counts(10, 0, 1)).starts_with("1 connection lost"));
    }

    #[test]
    fn losses_are_allowed_before_an_outage_but_not_after_it() {
        let replaced = || WriterHistory::Replaced(BeforeOutage { sent: 100, due: 100, received: 99 });
        assert_eq!(fault(10, None, replaced(), counts(109, 0, 0)), "");
        assert_eq!(fault(10, None, replaced(), counts(108, 0, 0)), "1 is missing");
        assert_ne!(fault(10, Some(Error::Disconnected), replaced(), counts(109, 0, 0)), "");
        assert_eq!(fault(10, Some(Error::Disconnected), WriterHistory::CutOff, counts(9, 0, 0)), "");
        for history in [replaced(), WriterHistory::CutOff] {
            assert_ne!(fault(10, None, history, counts(109, 0, 5)), "", "the connections must be restored");
        }
        assert_ne!(fault(10, None, WriterHistory::CutOff, counts(9, 1, 0)), "");
    }
}
