//! Formats the state of the demonstration as lines that fit the terminal. This module prints nothing.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use super::cache::counts::SceneCounts;
use super::cache::live_line;
use super::latency::LatencyHistogram;
use super::meter::Meter;
use crate::cli::output::{Style, grouped};

/// The most servers that are shown. If there are more, those before the last are summed up: the outage is on the last.
const SERVERS_SHOWN: usize = 6;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The columns before the reason of a loss, and before the text of a sample.
const BEFORE_REASON: usize = 31;
const BEFORE_SAMPLE: usize = 39;

/// Formats the state as several lines of at most `width` columns, which are redrawn.
pub(crate) fn live(
    meter: &Meter,
    idle_ago: Option<Duration>,
    cache: Option<&SceneCounts>,
    style: Style,
    width: usize,
) -> String {
    let mut text = String::new();
    let hidden = meter.clusters.len().saturating_sub(SERVERS_SHOWN);
    for (number, counts) in meter.clusters.iter().enumerate() {
        if (SERVERS_SHOWN - 1..SERVERS_SHOWN - 1 + hidden).contains(&number) {
            if number == SERVERS_SHOWN - 1 {
                let _ = write!(text, "\n  {}", style.dim(format!("and {hidden} more")));
            }
            continue;
        }
        let _ = write!(text, "\n  server {:<3}", number + 1);
        if counts.lost == 0 {
            let open = style.good(format!("{:>6} open", grouped(counts.open as u64)));
            let rate = style.bold(format!("{:>10}", grouped(counts.rate.per_second())));
            let _ = write!(text, "{open}{rate} notifications/s");
            if counts.restored > 0 {
                let _ = write!(text, "   {}", style.dim(format!("restored after {:.1} s", counts.gap.as_secs_f64())));
            }
        } else {
            let state = if counts.is_reviving { "reviving" } else { "in garbage" };
            let reason = counts.reason.as_ref().map(ToString::to_string).unwrap_or_default();
            let lost = style.bad(format!("{:>6} {state}", grouped(counts.lost as u64)));
            let _ = write!(text, "{lost}  {}", style.dim(truncated(&reason, width.saturating_sub(BEFORE_REASON))));
        }
    }

    let per_second = style.bold(format!("{:>9}", grouped(meter.rate.per_second())));
    let _ = write!(text, "\n\n  delivered {per_second} /s   {}", style.accent(sparkline(&meter.rate.history)));
    let _ = match meter.recent.max() {
        Some(_) => write!(text, "\n  latency   {}", latency(&meter.recent, style)),
        None => write!(text, "\n  latency   {}   {}", latency(&meter.latency, style), style.dim("overall")),
    };
    let ago = idle_ago.map(|ago| format!("   last {:.1} s ago", ago.as_secs_f64())).unwrap_or_default();
    let _ = write!(text, "\n  idle      {} events{}", style.bold(format!("{:>9}", meter.idles)), style.dim(ago));
    if let Some(counts) = cache {
        let _ = write!(text, "\n{}", live_line(counts, style));
    }

    let _ = write!(text, "\n\n  {}", style.dim("samples of batches"));
    for sample in &meter.samples {
        let (connection, cluster, len) = (sample.connection.number(), sample.cluster + 1, sample.len);
        let what = style.dim(truncated(&sample.first, width.saturating_sub(BEFORE_SAMPLE)));
        let _ = write!(text, "\n  conn {connection:<5} server {cluster:<3} {len:>4} in batch  {what}");
    }
    text
}

/// Formats the state as one line, for a pipe.
pub(crate) fn plain(meter: &Meter) -> String {
    let (open, lost) = totals(meter);
    format!(
        "{} delivered/s, {} in total; latency {}; {open} open, {lost} lost; idle {}",
        grouped(meter.rate.per_second()),
        grouped(meter.received),
        match (meter.recent.permille(500), meter.recent.permille(990)) {
            (Some(half), Some(most)) => format!("p50 {} p99 {}", time(half), time(most)),
            _ => "-".into(),
        },
        meter.idles,
    )
}

/// Returns the numbers of open and of lost connections; the lost are in the garbage, or being revived.
pub(crate) fn totals(meter: &Meter) -> (usize, usize) {
    meter.clusters.iter().fold((0, 0), |(open, lost), counts| (open + counts.open, lost + counts.lost))
}

/// Formats percentiles: `p50 1.2 ms  p99 3.4 ms  max 5.6 ms`.
pub(crate) fn latency(latency: &LatencyHistogram, style: Style) -> String {
    let shares = [("p50", latency.permille(500)), ("p99", latency.permille(990)), ("max", latency.max())];
    let shown = shares.map(|(name, micros)| {
        let text = micros.map_or("-".into(), time);
        format!("{} {}", style.dim(name), style.bold(format!("{text:>7}")))
    });
    shown.join("   ")
}

/// Formats a time: `950 µs`, `1.2 ms`, `35 ms`, `2.1 s`.
pub(crate) fn time(micros: u64) -> String {
    let number = micros as f64;
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.1} ms", number / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", number / 1e3),
        _ => format!("{:.1} s", number / 1e6),
    }
}

/// Formats values as a chart of one line.
pub(crate) fn sparkline(values: &VecDeque<u64>) -> String {
    let most = values.iter().copied().max().unwrap_or_default().max(1);
    let bar = |value: &u64| BARS[(value * (BARS.len() as u64 - 1)).div_ceil(most).min(7) as usize];
    values.iter().map(bar).collect()
}

/// Returns a text on one line, truncated to a width.
pub(crate) fn truncated(text: &str, width: usize) -> String {
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
    use crate::cli::demo::meter::Sample;
    use notifyman::{Config, Error, NotificationManager};
    use std::time::Instant;

    #[test]
    fn nothing_is_wider_than_the_terminal_and_a_wide_one_shows_the_whole_reason() {
        let mut meter = Meter::new(50, Instant::now());
        for counts in &mut meter.clusters {
            (counts.open, counts.received) = (9_999, 9_999_999);
        }
        let last = &mut meter.clusters[49];
        (last.open, last.lost, last.reason) = (0, 9_999, Some(Error::Disconnected));
        meter.received = 999_999_999;
        let mut nm = NotificationManager::new([]);
        let config = Config::new().host("a-server-with-a-long-name.example.com").user("postgres");
        let connection = nm.dial(config, ["prices"]).unwrap();
        meter.samples.push_back(Sample { connection, cluster: 49, len: 999, first: "x".repeat(200) });
        (0..100).for_each(|n| meter.latency.record(n * 99_999));
        meter.update_rates(Instant::now() + Duration::from_secs(60));
        for width in [79, 139] {
            let text =
                live(&meter, Some(Duration::from_secs(9_999)), Some(&SceneCounts::default()), Style(false), width);
            assert!(text.contains("and 44 more"), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(width == 79 || text.contains(&Error::Disconnected.to_string()), "{text}");
        }
    }

    #[test]
    fn numbers_and_times_have_short_forms() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 1000, 9_949, 35_400, 2_100_000].map(time), ["999 µs", "1.0 ms", "9.9 ms", "35 ms", "2.1 s"]);
    }

    #[test]
    fn a_chart_spans_from_zero_to_the_maximum() {
        assert_eq!(sparkline(&[0, 1, 50, 100].into()), "▁▂▅█");
        assert_eq!(sparkline(&[0, 0].into()), "▁▁");
    }

    #[test]
    fn a_text_that_is_too_long_is_truncated() {
        assert_eq!(truncated("abcd", 4), "abcd");
        assert_eq!(truncated("ab\ncde", 4), "ab …");
    }
}
