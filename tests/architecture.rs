//! Rules for the source code that a machine can check: layers, names and words.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/package.rs"]
mod package;
#[path = "architecture/search.rs"]
mod search;
#[path = "architecture/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use imports::Imports;
use source::{SourceFile, crate_files, pages, rust_files, texts};

/// The layers, from the top down. A module may use modules of lower layers; those of the last layer may also use each other.
const LAYERS: [&[&str]; 10] = [
    &["main"],
    &["cli"],
    &["relay"],
    &["changes"],
    &["fence"],
    &["notifier"],
    &["manager"],
    &["connection"],
    &["proto", "net"],
    &["config", "error", "gap", "handoff", "notification", "recorder", "row", "clock", "sync", "ticket"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn a_module_uses_only_lower_layers() {
    let mut wrong = Vec::new();
    for file in crate_files() {
        let module = file.name.split('/').next().unwrap().trim_end_matches(".rs");
        // These two describe or re-export all others.
        if ["lib", "docs"].contains(&module) {
            continue;
        }
        let from = layer(module).unwrap_or_else(|| panic!("{} belongs to no layer: add it to LAYERS", file.name));
        for line in &file.code {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let Some(to) = layer(used) else { continue };
                let is_same_layer = from == to && module != used && from < LAYERS.len() - 1;
                if to < from || is_same_layer {
                    wrong.push(format!("{}: {}", file.name, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these use a higher layer, or a neighbour in their own:\n{}", wrong.join("\n"));
}

#[test]
fn each_outside_crate_and_the_clock_have_one_place() {
    let places = [
        ("mio::", "net/reactor.rs"),
        ("socket2::", "net/stream.rs"),
        ("postgres_protocol::", "proto/"),
        ("webpki::", "net/tls/"),
        ("x509_cert::", "net/tls/"),
        ("rustls_native_certs::", "net/tls/"),
        ("thiserror::", "error/"),
        ("metrics::", "recorder.rs"),
        ("use redis::", "relay/redis/"),
        ("Instant::now", "clock.rs"),
        ("SystemTime::now", "clock.rs"),
    ];
    let mut wrong = Vec::new();
    // The program is a user of the crate like any other.
    for file in crate_files().iter().filter(|file| !file.is_below("cli/")) {
        for (word, place) in places {
            if !file.is_below(place) && file.says(word) {
                wrong.push(format!("{} contains {word}, which belongs in {place}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Unit tests run the notifier over chosen interleavings, in which primitives of the standard library would be left out. The
/// batcher is tested over time instead.
#[test]
fn the_notifier_takes_locks_and_atomics_from_one_module() {
    const PRIMITIVES: [&str; 7] = ["Mutex", "RwLock", "Condvar", "atomic", "Once", "mpsc", "Barrier"];
    let mut wrong = Vec::new();
    for file in crate_files().iter().filter(|file| file.is_below("notifier/") && file.name != "notifier/batcher.rs") {
        let imports = file.code.iter().filter(|line| line.contains("std::sync"));
        let of_std = imports.filter(|line| PRIMITIVES.iter().any(|word| line.contains(word)));
        wrong.extend(of_std.map(|line| format!("{}: {}", file.name, line.trim())));
    }
    assert!(wrong.is_empty(), "these do not come from crate::sync: {wrong:#?}");
}

/// Outside the TLS filter, only the setting that takes a configuration from the program names rustls.
#[test]
fn rustls_is_named_in_the_filter_and_in_one_setting() {
    let files = crate_files();
    let others = files.iter().filter(|file| !file.is_below("net/tls/") && file.says("rustls::"));
    assert_eq!(names(others), ["config/own_tls.rs"]);
}

/// A clock that is set must not end a session or change a deadline. The time of day only appears in gaps, and as the point
/// from which a log is replayed.
#[test]
fn no_deadline_depends_on_the_time_of_day() {
    let files = crate_files();
    let library = || files.iter().filter(|file| !file.is_below("cli/"));
    assert_eq!(
        names(library().filter(|file| file.says("clock::wall"))),
        ["changes/log_follower.rs", "gap.rs", "manager/dead.rs", "manager/stream/mod.rs", "relay/reader/reading.rs"]
    );
    let known = library().filter(|file| file.says("SystemTime") && !file.is_below("changes/log"));
    assert_eq!(
        names(known),
        [
            "changes/worker.rs",
            "clock.rs",
            "gap.rs",
            "manager/dead.rs",
            "manager/stream/waiting_events.rs",
            "relay/reader/feed.rs"
        ]
    );
}

/// The fleet decides; sockets, the poll and the clock are outside it, so that a simulation can take their place.
#[test]
fn the_fleet_does_no_io() {
    const OUTSIDE: [&str; 8] =
        ["mio", "net::", "clock::now", "clock::wall", "Instant::now", "SystemTime", "TcpStream", "UnixStream"];
    let mut wrong = Vec::new();
    for file in crate_files().iter().filter(|file| file.is_below("manager/fleet")) {
        wrong.extend(OUTSIDE.iter().filter(|word| file.says(word)).map(|word| format!("{}: {word}", file.name)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A file uses the files that define the names it imports; `imports` describes how re-exports are counted. Without circles,
/// each file can be read after those that it uses. Only a type and what its methods return, which holds, opens or builds one,
/// name each other.
#[test]
fn no_files_import_each_other_in_a_circle() {
    const RETURNED: [(&str, &str); 8] = [
        ("connection/connector.rs", "connection/mod.rs"),
        ("connection/diagnosis/examine.rs", "connection/mod.rs"),
        ("connection/diagnosis/mod.rs", "connection/mod.rs"),
        ("connection/many.rs", "connection/mod.rs"),
        ("connection/wait.rs", "connection/mod.rs"),
        ("notifier/builder.rs", "notifier/mod.rs"),
        ("relay/builder.rs", "relay/process.rs"),
        ("relay/reader/builder.rs", "relay/reader/mod.rs"),
    ];
    let files = crate_files();
    let imports = Imports::of(&files);
    let mut uses = imports.uses();
    for (file, type_file) in RETURNED {
        assert!(uses.get_mut(file).is_some_and(|uses| uses.remove(type_file)), "{file} needs no exception");
    }
    let circles = imports::circles(&uses);
    assert!(circles.is_empty(), "files import each other in circles: {circles:#?}");
}

#[test]
fn no_file_is_longer_than_400_lines_of_code() {
    let code = |file: &SourceFile| file.code.iter().filter(|line| !line.trim().is_empty()).count();
    let long: Vec<_> =
        crate_files().iter().map(|file| (code(file), file.name.clone())).filter(|(n, _)| *n > 400).collect();
    assert!(long.is_empty(), "these files are too long, and probably about two things: {long:?}");
}

/// Returns the name in the definition of a type, if a line begins one. Associated types are indented.
fn defined_type(line: &str) -> Option<&str> {
    let item = line.trim_start();
    let item = match item.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest.trim_start(),
        None => item,
    };
    let keyword =
        ["struct ", "enum ", "trait ", "union ", "type "].iter().find(|keyword| item.starts_with(**keyword))?;
    if *keyword == "type " && line.starts_with(' ') {
        return None;
    }
    identifier(&item[keyword.len()..]).filter(|name| name.starts_with(char::is_uppercase))
}

/// Returns the identifier with which a text begins.
fn identifier(text: &str) -> Option<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

#[test]
fn no_two_types_share_a_name() {
    // With and without a feature, these are alternatives of one type.
    const ALTERNATIVES: [&str; 3] = ["Tls", "Encryption", "EncryptionJob"];
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in crate_files() {
        for name in file.code.iter().filter_map(|line| defined_type(line)) {
            places.entry(name.to_owned()).or_default().push(file.name.clone());
        }
    }
    places.retain(|name, files| files.len() > 1 && !ALTERNATIVES.contains(&name.as_str()));
    assert!(places.is_empty(), "names belong to several types: {places:#?}");
}

/// Returns the type of an inherent `impl` block, if a line begins one.
fn extended_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("impl")?;
    let rest = match rest.strip_prefix('<') {
        Some(_) => {
            let mut depth = 0;
            let mut before = ' ';
            let end = rest.find(|c| {
                depth += i32::from(c == '<') - i32::from(c == '>' && before != '-');
                before = c;
                depth == 0
            })?;
            &rest[end + 1..]
        }
        None => rest,
    };
    let rest = rest.strip_prefix(' ')?;
    (!rest.contains(" for ")).then(|| identifier(rest)).flatten()
}

/// A type's methods are where the type is, so that one file shows all that can happen to it.
#[test]
fn no_file_extends_a_type_of_another_file() {
    let mut found = Vec::new();
    for file in crate_files() {
        let own: Vec<_> = file.code.iter().filter_map(|line| defined_type(line)).collect();
        let extended = file.code.iter().filter_map(|line| extended_type(line));
        found.extend(extended.filter(|name| !own.contains(name)).map(|name| format!("{}: {name}", file.name)));
    }
    found.dedup();
    assert!(found.is_empty(), "files have an `impl` of a type that another file defines: {found:#?}");
}

/// A doc comment begins with a verb or a noun. A page is a doc comment, too.
#[test]
fn no_doc_comment_begins_with_a_question_word() {
    const FORBIDDEN: [&str; 9] = ["What", "Whether", "Where", "Which", "Who", "Whom", "Whose", "How", "Those"];
    let is_wrong =
        |start: &str| FORBIDDEN.contains(&identifier(start).unwrap_or_default()) || start.starts_with("The same");
    let mut wrong = BTreeMap::new();
    let mut add = |place: String, start: &str| {
        if is_wrong(start) {
            wrong.entry(place).or_insert_with(Vec::new).push(start.to_owned());
        }
    };
    for directory in ["src", "tests", "benches", "fuzz"] {
        for file in rust_files(directory) {
            file.doc_starts.iter().for_each(|start| add(format!("{directory}/{}", file.name), start));
        }
        for (name, text) in texts(directory).into_iter().filter(|(name, _)| name.ends_with(".md")) {
            add(name, text.lines().next().unwrap_or_default());
        }
    }
    assert!(wrong.is_empty(), "doc comments begin with a question word: {wrong:#?}");
}

/// Names from a language that only this project spoke. Any of them has a better one.
#[test]
fn names_that_have_a_better_one_are_gone() {
    const TYPES: &[&str] = &[
        "Ear",
        "Rota",
        "Crew",
        "Wish",
        "Life",
        "Heart",
        "Beat",
        "Signs",
        "Graveyard",
        "Recent",
        "Asked",
        "Asker",
        "Ask",
        "Torn",
        "Private",
        "Messenger",
        "Rounds",
        "Talk",
        "Rare",
        "Rarer",
        "Moment",
        "Tenth",
        "LentBuffer",
        "Securing",
        "Way",
        "Manner",
        "Charge",
        "Account",
        "Promise",
        "World",
        "Inner",
        "Wire",
        "Asks",
        "After",
        "Clerk",
        "Post",
        "News",
        "Alarm",
        "Waiter",
        "What",
    ];
    const FUNCTIONS: &[&str] = &[
        "hear",
        "obey",
        "settle",
        "look",
        "looked",
        "bury",
        "exhume",
        "lose",
        "give_up",
        "abandon",
        "go_on",
        "go_on_restoring",
        "attend",
        "hear_canary",
        "ask_why_not",
        "hear_privately",
        "touch",
        "stand_in_line",
        "has_line",
        "ring",
        "feel_pulse",
        "tear",
        "mend",
        "tend_private",
    ];
    const FILES: &[&str] = &[
        "talk",
        "rounds",
        "crew",
        "pulse",
        "private",
        "past",
        "lent",
        "after",
        "running",
        "subscribing",
        "muting",
        "asks",
        "asking",
        "tally",
        "books",
        "laws",
        "law",
        "ear",
        "torn",
        "intake",
        "recent",
    ];
    let mut found = Vec::new();
    for directory in ["src", "tests", "benches"] {
        for file in rust_files(directory) {
            let stem = file.name.rsplit('/').next().unwrap().trim_end_matches(".rs");
            let file_name = FILES.contains(&stem).then_some(stem);
            let types = file.code.iter().filter_map(|line| defined_type(line)).filter(|name| TYPES.contains(name));
            let functions = file.code.iter().filter_map(|line| identifier(line.split("fn ").nth(1)?));
            let functions = functions.filter(|name| FUNCTIONS.contains(name));
            found.extend(
                file_name
                    .into_iter()
                    .chain(types)
                    .chain(functions)
                    .map(|name| format!("{directory}/{}: {name}", file.name)),
            );
        }
    }
    assert!(found.is_empty(), "names have a better one: {found:#?}");
}

/// Returns the number of the rule that a test proves, such as `m13` of `m13_an_id_stays_the_same`.
fn rule_number(test: &str) -> Option<&str> {
    let (number, _) = test.split_once('_')?;
    let digits = number.strip_prefix(['c', 'm', 'n', 'f', 'g', 'r'])?;
    (!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())).then_some(number)
}

#[test]
fn each_rule_has_tests_and_each_test_names_a_rule() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/behaviour.md"));
    let rules = page.lines().filter_map(|line| line.strip_prefix("- **")?.split_once(".**"));
    let rules: BTreeSet<_> =
        rules.map(|(number, _)| number.to_lowercase()).filter(|number| number.len() == 3).collect();
    let files: Vec<_> = ["src", "tests"].into_iter().flat_map(rust_files).collect();
    let tests =
        files.iter().flat_map(|file| &file.lines).filter_map(|line| identifier(line.trim_start().strip_prefix("fn ")?));
    let proven: BTreeSet<_> = tests.filter_map(rule_number).map(str::to_owned).collect();
    let missing: Vec<_> = rules.difference(&proven).collect();
    assert!(missing.is_empty(), "these rules have no test: {missing:?}");
    let unknown: Vec<_> = proven.difference(&rules).collect();
    assert!(unknown.is_empty(), "these numbers in test names are of no rule: {unknown:?}");
}

/// The CI script compares the names in `.ci/not-run` with those of tests that did not run.
#[test]
fn each_test_that_may_not_run_exists() {
    // A packaged crate has no CI script.
    let Ok(list) = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/not-run")) else { return };
    let files = rust_files("tests");
    let names: BTreeSet<_> = files
        .iter()
        .flat_map(|file| &file.lines)
        .filter_map(|line| identifier(line.trim_start().strip_prefix("fn ")?))
        .collect();
    let listed = list.lines().filter(|line| !line.starts_with('#'));
    let listed = listed.map(|line| line.split(' ').nth(1).unwrap().trim_end_matches(':').rsplit("::").next().unwrap());
    let unknown: Vec<_> = listed.filter(|name| !names.contains(name)).collect();
    assert!(unknown.is_empty(), "these tests of .ci/not-run do not exist: {unknown:#?}");
}

/// Returns the words of a text in lower case, each between single spaces. Comment markers count as spaces, so that a phrase
/// is found across lines; a name such as `read_folder` counts as two words.
fn plain_words(text: &str) -> String {
    let mut words = String::from(" ");
    for line in text.lines() {
        let line = line.trim_start().trim_start_matches(['/', '!', '#', '*']);
        for word in line.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty()) {
            words.push_str(&word.to_lowercase());
            words.push(' ');
        }
    }
    words
}

/// Words and phrases for which the project has one better word, each with the number of places that still have it.
#[test]
fn words_that_have_a_better_one_are_gone() {
    // This file has all of them, the measured tables are replaced by the next run, and the inputs of the fuzzer are no text.
    const EXCEPT: [&str; 3] = ["tests/architecture", "benches/results", "fuzz/corpus"];
    let mut found: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    let files = ["src", "tests", "benches", "fuzz", ".github"].into_iter().flat_map(texts).chain(pages());
    for (name, text) in files.filter(|(name, _)| !EXCEPT.iter().any(|place| name.starts_with(place))) {
        let words = plain_words(&text);
        for (word, _) in WORDS {
            let count = words.matches(&format!(" {word} ")).count();
            if count > 0 {
                found.entry(word).or_default().insert(name.clone(), count);
            }
        }
    }
    let count = |word: &str| found.get(word).map_or(0, |places| places.values().sum::<usize>());
    if std::env::var_os("COUNT_WORDS").is_some() {
        WORDS.iter().for_each(|(word, _)| println!("    (\"{word}\", {}),", count(word)));
    }
    let more: Vec<_> = WORDS
        .iter()
        .filter(|(word, most)| count(word) > *most)
        .map(|(word, most)| (word, most, &found[word]))
        .collect();
    assert!(more.is_empty(), "too many of these (word, at most, places): {more:#?}");
}

const WORDS: &[(&str, usize)] = &[
    ("told", 4),
    ("tells", 1),
    ("tell", 0),
    ("heard", 0),
    ("hears", 0),
    ("hear", 0),
    ("hearing", 0),
    ("whoever", 0),
    ("whomever", 0),
    ("who", 0),
    ("whom", 0),
    ("nobody", 18),
    ("somebody", 0),
    ("in clear", 3),
    ("goes on", 2),
    ("go on", 0),
    ("going on", 0),
    ("without a word", 0),
    ("afresh", 0),
    ("anew", 0),
    ("is to be", 0),
    ("are to be", 0),
    ("deaf", 1),
    ("wires", 0),
    ("folder", 0),
    ("folders", 0),
    ("rights", 1),
    ("mend", 0),
    ("mends", 0),
    ("mended", 0),
    ("heal", 0),
    ("heals", 0),
    ("oftener", 0),
    ("at once", 43),
    ("side by side", 0),
    ("ours", 0),
    ("our side", 0),
    ("of ours", 0),
    ("cheat", 0),
    ("cheats", 0),
    ("look up", 2),
    ("look ups", 0),
    ("stands at", 0),
    ("stand at", 0),
    ("stands in", 0),
    ("stand in", 0),
    ("passed over", 0),
    ("passes over", 0),
    ("brought back", 0),
    ("brings back", 0),
    ("beside", 2),
    ("the house", 0),
    ("the arrows", 0),
    ("the gate", 0),
    ("can't", 0),
    ("doesn't", 0),
    ("isn't", 0),
    ("don't", 0),
    ("won't", 0),
    ("didn't", 0),
    ("aren't", 0),
    ("wasn't", 0),
    ("it's", 8),
    ("that's", 0),
];

fn names<'f>(files: impl Iterator<Item = &'f SourceFile>) -> Vec<&'f str> {
    files.map(|file| file.name.as_str()).collect()
}

/// Examples fit the page of rustdoc without a scroll bar. Pictures and output, in blocks marked `text`, cannot be wrapped.
#[test]
fn examples_are_at_most_80_columns_wide() {
    let mut wide = Vec::new();
    let mut check = |name: &str, lines: &mut dyn Iterator<Item = &str>| {
        let mut block = None;
        for line in lines {
            match (line.trim_start().strip_prefix("```"), &block) {
                (Some(language), None) => block = Some(language.to_owned()),
                (Some(_), Some(_)) => block = None,
                // rustdoc hides these.
                (None, Some(language)) if language == "text" || line.starts_with("# ") => {}
                (None, Some(_)) if line.chars().count() > 80 => wide.push(format!("{name}: {line}")),
                _ => {}
            }
        }
    };
    for (name, text) in pages() {
        check(&name, &mut text.lines());
    }
    for (name, text) in texts("src").into_iter().filter(|(name, _)| name.ends_with(".md")) {
        check(&name, &mut text.lines());
    }
    for file in rust_files("src") {
        let docs = file.lines.iter().filter_map(|line| {
            let line = line.trim_start();
            let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
            Some(text.strip_prefix(' ').unwrap_or(text))
        });
        check(&file.name, &mut docs.into_iter());
    }
    assert!(wide.is_empty(), "examples are wider than 80 columns: {wide:#?}");
}
