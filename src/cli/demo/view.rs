//! How the demonstration looks: numbers become lines of at most 79 columns. It prints nothing.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::latency::Latency;
use super::meter::Meter;

/// How many servers are shown; of more, those before the last are counted, as it is the last one that ends.
const SERVERS_SHOWN: usize = 6;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const REASON_WIDTH: usize = 40;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
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
}

/// All that changes while it runs, on several lines.
pub(crate) fn live(meter: &Meter, idle_ago: Option<Duration>, paint: Paint) -> String {
    let mut text = String::new();
    let hidden = meter.clusters.len().saturating_sub(SERVERS_SHOWN);
    for (number, tally) in meter.clusters.iter().enumerate() {
        if hidden > 0 && (SERVERS_SHOWN - 1..SERVERS_SHOWN - 1 + hidden).contains(&number) {
            if number == SERVERS_SHOWN - 1 {
                let _ = write!(text, "\n  {}", paint.dim(format!("and {hidden} like these")));
            }
            continue;
        }
        let _ = write!(text, "\n  server {:<3}", number + 1);
        if tally.lost == 0 {
            let good = paint.good(format!("{:>6} good", grouped(tally.good as u64)));
            let rate = paint.bold(format!("{:>10}", grouped(tally.rate.per_second())));
            let _ = write!(text, "{good}{rate} notifications/s");
            if tally.revived > 0 {
                let _ = write!(text, "   {}", paint.dim(format!("back after {:.1} s", tally.gap.as_secs_f64())));
            }
        } else {
            let state = if tally.reviving { "being revived" } else { "in garbage" };
            let reason = tally.reason.as_ref().map(ToString::to_string).unwrap_or_default();
            let lost = paint.bad(format!("{:>6} {state}", grouped(tally.lost as u64)));
            let _ = write!(text, "{lost}  {}", paint.dim(cut(&reason, REASON_WIDTH)));
        }
    }

    let per_second = paint.bold(format!("{:>9}", grouped(meter.rate.per_second())));
    let _ = write!(text, "\n\n  delivered {per_second} /s   {}", paint.accent(spark(meter.rate.history())));
    let _ = match meter.recent.max() {
        Some(_) => write!(text, "\n  latency   {}", latency(&meter.recent, paint)),
        None => write!(text, "\n  latency   {}   {}", latency(&meter.latency, paint), paint.dim("of all")),
    };
    let ago = idle_ago.map(|ago| format!("   the last {:.1} s ago", ago.as_secs_f64())).unwrap_or_default();
    let _ = write!(text, "\n  idle      {} events{}", paint.bold(format!("{:>9}", meter.idles)), paint.dim(ago));

    let _ = write!(text, "\n\n  {}", paint.dim("some of the batches"));
    for sample in &meter.samples {
        let (connection, cluster, len) = (sample.connection.to_string(), sample.cluster + 1, sample.len);
        let what = paint.dim(cut(&sample.first, 41));
        let _ = write!(text, "\n  conn {connection:<5} server {cluster:<3} {len:>4} in one  {what}");
    }
    text
}

/// The same on one line, for a pipe.
pub(crate) fn plain(meter: &Meter) -> String {
    let (good, lost) = totals(meter);
    format!(
        "{} delivered/s, {} in all; latency {}; {good} good, {lost} away; idle {}",
        grouped(meter.rate.per_second()),
        grouped(meter.received),
        match (meter.recent.permille(500), meter.recent.permille(990)) {
            (Some(half), Some(most)) => format!("p50 {} p99 {}", time(half), time(most)),
            _ => "-".into(),
        },
        meter.idles,
    )
}

/// Good connections, and those that are away: in the garbage, or being revived.
pub(crate) fn totals(meter: &Meter) -> (usize, usize) {
    meter.clusters.iter().fold((0, 0), |(good, lost), tally| (good + tally.good, lost + tally.lost))
}

/// `p50 1.2 ms  p99 3.4 ms  max 5.6 ms`.
pub(crate) fn latency(latency: &Latency, paint: Paint) -> String {
    let shares = [("p50", latency.permille(500)), ("p99", latency.permille(990)), ("max", latency.max())];
    let shown = shares.map(|(name, micros)| {
        let text = micros.map_or("-".into(), time);
        format!("{} {}", paint.dim(name), paint.bold(format!("{text:>7}")))
    });
    shown.join("   ")
}

/// `950 µs`, `1.2 ms`, `35 ms`, `2.1 s`.
pub(crate) fn time(micros: u64) -> String {
    let number = micros as f64;
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.1} ms", number / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", number / 1e3),
        _ => format!("{:.1} s", number / 1e6),
    }
}

/// With a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A small chart.
fn spark(values: impl Iterator<Item = u64>) -> String {
    let values: Vec<u64> = values.collect();
    let most = values.iter().copied().max().unwrap_or_default().max(1);
    let bar = |value: u64| BARS[(value * (BARS.len() as u64 - 1)).div_ceil(most).min(7) as usize];
    values.into_iter().map(bar).collect()
}

/// As much of a text as fits, on one line.
pub(crate) fn cut(text: &str, width: usize) -> String {
    let mut line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut kept: String = line.by_ref().take(width).collect();
    if line.next().is_some() {
        kept.pop();
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use notifyman::Error;
    use std::time::Instant;

    #[test]
    fn nothing_is_wider_than_a_terminal_of_80_columns() {
        let mut meter = Meter::new(50, Instant::now());
        for tally in &mut meter.clusters {
            (tally.good, tally.received) = (9_999, 9_999_999);
        }
        let last = &mut meter.clusters[49];
        (last.good, last.lost, last.reason) = (0, 9_999, Some(Error::Disconnected));
        meter.received = 999_999_999;
        (0..100).for_each(|n| meter.latency.record(n * 99_999));
        meter.take_rates(Instant::now() + Duration::from_secs(60));
        let text = live(&meter, Some(Duration::from_secs(9_999)), Paint(false));
        assert!(text.contains("and 44 like these"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
    }

    #[test]
    fn numbers_and_times_are_written_to_be_read() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 1000, 9_949, 35_400, 2_100_000].map(time), ["999 µs", "1.0 ms", "9.9 ms", "35 ms", "2.1 s"]);
    }

    #[test]
    fn a_chart_spans_from_nothing_to_the_most() {
        assert_eq!(spark([0, 1, 50, 100].into_iter()), "▁▂▅█");
        assert_eq!(spark([0, 0].into_iter()), "▁▁");
    }

    #[test]
    fn a_text_that_is_too_long_says_so() {
        assert_eq!(cut("abcd", 4), "abcd");
        assert_eq!(cut("ab\ncde", 4), "ab …");
    }
}
