//! Formats the counts of the two caches as lines of at most 79 columns. This module prints nothing.

use super::counts::{CacheCounts, CacheRead, SceneCounts};
use crate::cli::output::{Style, counted, grouped};

/// Returns the lines before the counts.
pub(crate) fn introduction(style: Style) -> String {
    let lines = [
        "two programs change the price, and notify that in the same transaction",
        "readers of two equal caches read it; a miss takes 5 to 30 ms to fill",
    ];
    lines.map(|line| style.dim(format!("         {line}"))).join("\n")
}

/// Formats the counts as several lines, which are redrawn.
pub(crate) fn live(counts: &SceneCounts, style: Style) -> String {
    let [plain, fenced] =
        [("without a fence", counts.plain), ("with the fence", counts.fenced)].map(|(name, cache)| {
            let state = match cache.latest {
                CacheRead::Miss => style.dim("reads the database"),
                CacheRead::Fresh(version) => format!("version {}", grouped(version)),
                CacheRead::Stale(version) => style.bad(format!("version {}: stale", grouped(version))),
            };
            format!("  {name:<17}{state}")
        });
    let database = format!("  {:<17}version {}", "the database", grouped(counts.written));
    format!("\n{}\n\n{database}\n{plain}\n{fenced}", table(counts, style).join("\n"))
}

/// Formats the counts as one line, for a pipe.
pub(crate) fn plain(counts: &SceneCounts) -> String {
    format!(
        "{} stale of {} without a fence; {} stale of {} with it, {} refused",
        grouped(counts.plain.stale),
        counted(counts.plain.hits, "hit"),
        grouped(counts.fenced.stale),
        counted(counts.fenced.hits, "hit"),
        counted(counts.fenced.refused, "fill"),
    )
}

/// Returns the table and the result, after the act.
pub(crate) fn summary(counts: &SceneCounts, style: Style) -> Vec<String> {
    let mut lines = vec![String::new()];
    lines.extend(table(counts, style));
    lines.push(String::new());
    lines.push(format!("  the price was changed {} times", grouped(counts.written.saturating_sub(1))));
    lines.push(summary_line(counts, style));
    lines
}

/// Returns the result as one line.
pub(crate) fn summary_line(counts: &SceneCounts, style: Style) -> String {
    let without = counted(counts.plain.stale, "stale hit");
    match counts.fenced.stale {
        0 => format!("  a cache: {without} without a fence, {}", style.good("none with it")),
        stale => style.bad(format!("  a cache: {without} without a fence, and {} with it", grouped(stale))),
    }
}

/// Returns the result so far, as one line that is redrawn.
pub(crate) fn live_line(counts: &SceneCounts, style: Style) -> String {
    let [plain, fenced] = [counts.plain.stale, counts.fenced.stale].map(|stale| format!("{:>9}", grouped(stale)));
    format!("  cache     {} stale hits without a fence, {} with it", style.bold(plain), style.bold(fenced.trim_start()))
}

fn table(counts: &SceneCounts, style: Style) -> Vec<String> {
    let row = |name: &str, cache: &CacheCounts, stale: String, refused: String| {
        let (reads, hits) = (grouped(cache.reads()), cache.hit_rate());
        format!("  {name:<17}{reads:>12}{hits:>7} %{stale}{refused:>17}")
    };
    let SceneCounts { plain, fenced, .. } = counts;
    let stale = |cache: &CacheCounts| format!("{:>14}", grouped(cache.stale));
    let fenced_stale = if fenced.stale == 0 { style.good(stale(fenced)) } else { style.bad(stale(fenced)) };
    vec![
        style.dim(format!("  {:<17}{:>12}{:>9}{:>14}{:>17}", "", "reads", "hits", "stale hits", "refused fills")),
        row("without a fence", plain, style.bad(stale(plain)), "-".into()),
        row("with the fence", fenced, fenced_stale, grouped(fenced.refused)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_79_columns() {
        let latest = CacheRead::Stale(99_999_999);
        let most = CacheCounts { hits: 999_999_999, misses: 0, stale: 99_999_999, refused: 99_999_999, latest };
        let counts = SceneCounts { written: 9_999_999, plain: most, fenced: most };
        let style = Style(false);
        let lines = [live(&counts, style), introduction(style), live_line(&counts, style)];
        let lines = lines.iter().flat_map(|text| text.lines().map(String::from)).chain(summary(&counts, style));
        for line in lines {
            assert!(line.chars().count() <= 79, "{line}");
        }
    }

    #[test]
    fn the_result_is_good_only_without_stale_hits_behind_the_fence() {
        let counts = |stale| SceneCounts {
            fenced: CacheCounts { hits: 9, stale, ..CacheCounts::default() },
            plain: CacheCounts { hits: 9, stale: 1, ..CacheCounts::default() },
            ..SceneCounts::default()
        };
        assert!(counts(0).is_right() && !counts(1).is_right() && !SceneCounts::default().is_right());
        let line = |stale| summary_line(&counts(stale), Style(false));
        assert_eq!(line(0), "  a cache: 1 stale hit without a fence, none with it");
        assert_eq!(line(2), "  a cache: 1 stale hit without a fence, and 2 with it");
    }
}
