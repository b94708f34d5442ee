//! What the demonstration comes to: what was to arrive against what did.

use std::cmp::Ordering;

use notifyman::Error;

use super::meter::{Meter, Tally};
use super::view::{Paint, grouped, latency, totals};

/// What one server's writer has sent.
pub(crate) struct Sent {
    /// Notifications that the server has acknowledged.
    pub(crate) sent: u64,
    /// How many deliveries these make.
    pub(crate) due: u64,
    /// Why the writer ended early, if it did.
    pub(crate) error: Option<Error>,
    pub(crate) outage: Outage,
}

/// Whether the server was shut down under way.
pub(crate) enum Outage {
    None,
    /// It was, and nobody has notified since.
    CutOff,
    /// It was, and another writer has gone on.
    Over(Before),
}

/// What there was before a server was back: of this the very last may be lost.
pub(crate) struct Before {
    pub(crate) sent: u64,
    pub(crate) due: u64,
    pub(crate) received: u64,
}

impl Sent {
    /// What is wrong with a server's deliveries; nothing, if everything came once and in order.
    fn fault(&self, tally: &Tally) -> Option<String> {
        if tally.wrong > 0 {
            return Some(format!("{} came twice, out of order or damaged", grouped(tally.wrong)));
        }
        if tally.lost > 0 {
            let reason = tally.reason.as_ref().map(ToString::to_string).unwrap_or_default();
            return Some(format!("{} connections lost: {reason}", tally.lost));
        }
        let received = match &self.outage {
            Outage::None => tally.received,
            Outage::CutOff => return None,
            Outage::Over(before) => tally.received.saturating_sub(before.received),
        };
        if let Some(error) = &self.error {
            return Some(format!("its writer failed: {error}"));
        }
        match received.cmp(&self.due) {
            Ordering::Less => Some(format!("{} are missing", grouped(self.due - received))),
            Ordering::Greater => Some(format!("{} too many", grouped(received - self.due))),
            Ordering::Equal => None,
        }
    }

    /// Sent and due, of the whole time.
    fn totals(&self) -> (u64, u64) {
        match &self.outage {
            Outage::Over(before) => (before.sent + self.sent, before.due + self.due),
            Outage::None | Outage::CutOff => (self.sent, self.due),
        }
    }
}

/// Whether all that the servers sent has come, apart from what one may have lost as it was shut down.
pub(crate) fn is_complete(sent: &[Sent], meter: &Meter) -> bool {
    sent.iter().zip(&meter.clusters).all(|(sent, tally)| sent.fault(tally).is_none())
}

/// What there was until a signal came.
pub(crate) fn interrupted(meter: &Meter) -> String {
    let ((good, lost), received) = (totals(meter), grouped(meter.received));
    format!("interrupted: {received} delivered, {good} connections good, {lost} away")
}

/// The table and the verdict, as lines of at most 79 columns, unless a reason is longer.
pub(crate) fn lines(sent: &[Sent], meter: &Meter, paint: Paint) -> Vec<String> {
    let mut lines = vec![String::new(), format!("{:>20}{:>14}{:>13}", "sent", "to deliver", "delivered")];
    for (number, (sent, tally)) in sent.iter().zip(&meter.clusters).enumerate() {
        let verdict = match sent.fault(tally) {
            Some(fault) => paint.bad(fault),
            None if tally.revived > 0 => paint.good(format!("back after {:.1} s", tally.gap.as_secs_f64())),
            None => paint.good("each once, in order"),
        };
        let (all_sent, all_due) = sent.totals();
        lines.push(format!(
            "  server {:<3}{:>8}{:>14}{:>13}   {verdict}",
            number + 1,
            grouped(all_sent),
            grouped(all_due),
            grouped(tally.received),
        ));
    }
    let (good, lost) = totals(meter);
    lines.push(String::new());
    lines.push(format!(
        "  {} notifications in {} batches, up to {} a second",
        paint.bold(grouped(meter.received)),
        grouped(meter.batches),
        grouped(meter.rate.peak),
    ));
    lines.push(format!("  from NOTIFY to the loop: {}", latency(&meter.latency, paint)));
    let revived: usize = meter.clusters.iter().map(|tally| tally.revived).sum();
    let idles = meter.idles;
    lines.push(format!("  {good} connections good, {revived} of them revived, {lost} away; {idles} idle events"));
    lines.push(String::new());
    let down = sent.iter().position(|sent| !matches!(sent.outage, Outage::None));
    lines.push(match (is_complete(sent, meter), down) {
        (true, Some(down)) => {
            paint.good(format!("  nothing lost (except perhaps in the instant server {} went down)", down + 1))
        }
        (true, None) => paint.good("  nothing lost"),
        (false, _) => paint.bad("  something is wrong: see the table"),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(due: u64, error: Option<Error>, outage: Outage, tally: Tally) -> String {
        Sent { sent: due, due, error, outage }.fault(&tally).unwrap_or_default()
    }

    fn tally(received: u64, wrong: u64, lost: usize) -> Tally {
        Tally { received, wrong, lost, ..Tally::default() }
    }

    #[test]
    fn a_server_is_right_if_all_came_once_and_in_order() {
        assert_eq!(fault(10, None, Outage::None, tally(10, 0, 0)), "");
        assert_eq!(fault(1010, None, Outage::None, tally(9, 0, 0)), "1,001 are missing");
        assert_eq!(fault(10, None, Outage::None, tally(11, 0, 0)), "1 too many");
        assert_eq!(fault(10, None, Outage::None, tally(10, 1, 0)), "1 came twice, out of order or damaged");
        assert!(fault(10, Some(Error::Disconnected), Outage::None, tally(10, 0, 0)).starts_with("its writer failed"));
        assert!(fault(10, None, Outage::None, tally(10, 0, 1)).starts_with("1 connections lost"));
    }

    #[test]
    fn a_server_that_was_down_may_have_lost_something_before_but_not_since() {
        let over = || Outage::Over(Before { sent: 100, due: 100, received: 99 });
        assert_eq!(fault(10, None, over(), tally(109, 0, 0)), "");
        assert_eq!(fault(10, None, over(), tally(108, 0, 0)), "1 are missing");
        assert_ne!(fault(10, Some(Error::Disconnected), over(), tally(109, 0, 0)), "");
        assert_eq!(fault(10, Some(Error::Disconnected), Outage::CutOff, tally(9, 0, 0)), "");
        for outage in [over(), Outage::CutOff] {
            assert_ne!(fault(10, None, outage, tally(109, 0, 5)), "", "they were to come back");
        }
        assert_ne!(fault(10, None, Outage::CutOff, tally(9, 1, 0)), "");
    }
}
