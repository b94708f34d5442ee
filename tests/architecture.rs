//! The house, kept in order: which module may use which, and what is named in one file only.

use std::fs;
use std::path::{Path, PathBuf};

/// From the top down. A module may use those in lines below its own, and those at the bottom are for all.
const LAYERS: [&[&str]; 8] = [
    &["main"],
    &["cli"],
    &["changes"],
    &["notifier"],
    &["manager"],
    &["connection"],
    &["proto", "net"],
    &["config", "error", "gap", "notification", "row", "clock"],
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Each source file: its path below `src`, and its lines without comments and tests.
fn files() -> Vec<(String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let code = |path: &PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let lines = fs::read_to_string(path).unwrap();
        let lines = lines.lines().map(str::trim).take_while(|line| *line != "mod tests {");
        (name, lines.filter(|line| !line.starts_with("//")).map(str::to_owned).collect())
    };
    paths.iter().map(code).filter(|(name, _)| !is_test_code(name)).collect()
}

/// Modules that only tests and fuzzing compile.
fn is_test_code(name: &str) -> bool {
    ["simulation", "log/model"].iter().any(|part| name.contains(part))
        || ["tests.rs", "laws.rs", "properties.rs", "script.rs", "fuzz.rs"].iter().any(|file| name.ends_with(file))
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn an_arrow_never_points_back_up() {
    let mut wrong = Vec::new();
    for (name, lines) in files() {
        let module = name.split('/').next().unwrap().trim_end_matches(".rs");
        if module == "lib" || module == "docs" {
            continue;
        }
        let from = layer(module).unwrap_or_else(|| panic!("{name} belongs to no layer: add it to LAYERS"));
        for line in &lines {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let Some(to) = layer(used) else { continue };
                let sideways = from == to && module != used && from < LAYERS.len() - 1;
                if to < from || sideways {
                    wrong.push(format!("{name}: {line}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these point up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn what_talks_to_the_outside_is_named_in_one_place_only() {
    let places = [
        ("mio::", "net/reactor.rs"),
        ("socket2::", "net/stream.rs"),
        ("postgres_protocol::", "proto/"),
        ("webpki::", "net/tls/"),
        ("x509_cert::", "net/tls/"),
        ("Instant::now", "clock.rs"),
        ("SystemTime::now", "clock.rs"),
    ];
    let mut wrong = Vec::new();
    for (name, lines) in files() {
        // The program is a user of the crate like any other, and its clusters stand alone.
        for (word, place) in places.iter().filter(|_| !name.starts_with("cli/")) {
            if !name.starts_with(place) && lines.iter().any(|line| line.contains(word)) {
                wrong.push(format!("{name} says {word}, which belongs to {place}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Beside the filter, only the setting that takes a configuration of the caller's own.
#[test]
fn rustls_is_named_where_it_is_used_and_where_the_caller_gives_it() {
    let says = |(name, lines): &(String, Vec<String>)| {
        !name.starts_with("net/tls/") && lines.iter().any(|line| line.contains("rustls::"))
    };
    let others: Vec<_> = files().into_iter().filter(says).map(|(name, _)| name).collect();
    assert_eq!(others, ["config/own_tls.rs"]);
}

/// A clock that is set anew must end no session and delay nothing: the time of day is only written into gaps, and says where
/// a replay begins.
#[test]
fn no_deadline_knows_the_time_of_day() {
    let says = |word: &str| {
        let files = files()
            .into_iter()
            .filter(|(name, lines)| !name.starts_with("cli/") && lines.iter().any(|line| line.contains(word)));
        files.map(|(name, _)| name).collect::<Vec<_>>()
    };
    let mut asks = says("clock::wall");
    asks.sort();
    assert_eq!(asks, ["changes/log/follower.rs", "manager/members.rs"]);
    let mut known = says("SystemTime");
    known.retain(|name| !name.starts_with("changes/log/"));
    known.sort();
    assert_eq!(known, ["changes/worker.rs", "clock.rs", "gap.rs", "manager/members.rs"]);
}

#[test]
fn no_file_is_longer_than_fits_in_the_head() {
    let code = |lines: &[String]| lines.iter().filter(|line| !line.is_empty()).count();
    let long: Vec<_> =
        files().into_iter().map(|(name, lines)| (code(&lines), name)).filter(|(n, _)| *n > 400).collect();
    assert!(long.is_empty(), "over 400 lines of code, so look for the second noun: {long:?}");
}
