//! Compares the parsing of connection strings with libpq's: both must assign the same value to each keyword, or the
//! difference is listed below with its reason.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::keywords::{self, KEYWORDS};
use super::sources;

#[path = "../cli/cluster/mod.rs"]
mod cluster;
#[path = "../../tests/support/libpq.rs"]
#[allow(dead_code, unreachable_pub, reason = "the integration tests use the rest")]
mod libpq;

use libpq::Libpq;

/// Parts of the messages for strings that this crate rejects and libpq accepts: each may contain a part of a password
/// that would be resolved or displayed.
const STRICTER: [&str; 4] = [
    "a stray '@'",
    "'?' before '@'",
    "no value after '='",
    // A string that is not UTF-8 cannot be sent to the server in UTF8.
    "percent-encoded bytes that are not UTF-8",
];

/// Since this version, libpq ignores spaces around the parts of a URL and rejects inner ones, like this crate.
const SPACES_REFUSED: u32 = 180_000;

/// Returns `true` if a string contains white space that libpq treats differently: this crate treats tabs and line
/// breaks in a URL like spaces, so that a string may be read from a file with its final line break; to libpq they are
/// part of the name.
fn has_other_blanks(text: &str, version: u32) -> bool {
    let is_other = |c| super::dsn::is_blank(c) && (c != ' ' || version < SPACES_REFUSED);
    text.starts_with("postgres") && text.contains(is_other)
}

/// Compares the results for one string and returns the difference.
fn difference(libpq: &mut Libpq, version: u32, text: &str) -> Option<String> {
    let actual = sources::known_pairs(text);
    let expected = libpq.parse(text);
    match (actual, expected) {
        (Ok(pairs), Ok(expected)) => {
            let actual: BTreeMap<_, _> = pairs.into_iter().map(|pair| (pair.key, pair.value.into_bytes())).collect();
            (actual != expected && !has_other_blanks(text, version))
                .then(|| format!("parsed {actual:?}, libpq {expected:?}"))
        }
        (Err(_), Err(_)) => None,
        (Err(error), Ok(expected)) => {
            let text_of = error.to_string();
            let known = STRICTER.iter().any(|part| text_of.contains(part)) || has_other_blanks(text, version);
            (!known).then(|| format!("refused ({error}), libpq parses {expected:?}"))
        }
        (Ok(pairs), Err(error)) => {
            // An older libpq does not know the newer keywords.
            let newer = pairs.iter().any(|pair| error.contains(&format!("\"{}\"", pair.key)));
            (!newer && !has_other_blanks(text, version)).then(|| format!("parsed, libpq refuses: {error}"))
        }
    }
}

/// Valid, unusual and invalid strings.
const CORPUS: &[&str] = &[
    "",
    " ",
    "host=a port=5",
    "host = a\tport\n=\r5",
    "host=''user='x'port=5",
    "host=",
    "host= ",
    r"password='it\'s \\ fine' user=c\ d\'",
    r"host=a\",
    r"host='a\",
    "host=a'b'",
    "host='a'b",
    "host='a''b'",
    "host=a host=b host=''",
    "user=é password=☃",
    "host",
    "host a",
    "=a",
    "host=a=b",
    "host='a",
    "host==a",
    "password= x=y",
    "host= port=5",
    "Host=a",
    "frobnicate=1",
    "requiressl=1",
    "requiressl=0 sslmode=disable",
    "sslmode=disable requiressl=1",
    "service=a servicefile=b",
    "dbname=postgres://h/d",
    "postgres://",
    "postgresql://",
    "postgres:///",
    "postgres:/h",
    "postgre://h",
    "Postgres://h",
    "postgres://u@",
    "postgres://u:p@h:5/d",
    "postgres://u:a:b@h",
    "postgres://:p@h",
    "postgres://@h",
    "postgres://:@/?",
    "postgres://%75:p%40%2Fs@%68ost:%31/d%20b",
    "postgres://a,b:2/d",
    "postgres://a:1,[::1]:2,c",
    "postgres://a:,b:/d",
    "postgres://,/d",
    "postgres://:5/d",
    "postgres://[::1]",
    "postgres://[::1]?user=u",
    "postgres://[::1",
    "postgres://[]",
    "postgres://[::1]x",
    "postgres://[::1]:5,[fe80::1%25eth0]/d",
    "postgres://h/d/x",
    "postgres://%2Ftmp/d",
    "postgres:///d?host=/tmp&port=7&",
    "postgres:///?p%61ssword=a@b&user=",
    "postgres:///?user=a+b",
    "postgres:///?ssl=true",
    "postgres:///?ssl=false",
    "postgres:///?ssl=",
    "postgres://h?sslmode=require",
    "postgres://h?",
    "postgres://h?&",
    "postgres://h?user",
    "postgres://h?user=a&&dbname=b",
    "postgres://h?user=a=b",
    "postgres://h?=a",
    "postgres://h?user=a?b",
    "postgres://h/d?user=a/b",
    "postgres://a%00",
    "postgres://a%zz",
    "postgres://a%1",
    "postgres://h/d%",
    "postgres://h/%ff",
    "postgres://%C3%A9@h",
    "postgres://é@ü/ö",
    "postgres://h/a b",
    "postgres:// h /d",
    "postgres://h? user = a & port = 5 ",
    "postgres://u:a@b@h/d",
    "postgres://u:a/b@h/d",
    "postgres://u@h:1@2",
    "postgres://h?password=a@b",
    "postgres://u%40v@h/d%3Fx",
    " postgres://h",
    "postgres://h#x",
    "postgres://h/d#x?user=a",
];

#[test]
fn every_string_of_the_corpus_has_the_same_meaning_as_in_libpq() {
    let (version, _) = libpq::keywords();
    let mut libpq = Libpq::parser();
    let differences: Vec<String> = CORPUS
        .iter()
        .filter_map(|text| Some(format!("{text:?}: {}", difference(&mut libpq, version, text)?)))
        .collect();
    assert!(differences.is_empty(), "libpq {version}:\n{}", differences.join("\n"));
}

#[test]
fn every_keyword_and_variable_of_libpq_is_known() {
    // These keywords are ignored here.
    let unread = |name: &str| {
        ["PGGSS", "PGKRB", "PGSSLCOMPRESSION"].iter().any(|start| name.starts_with(start))
            || ["PGCLIENTENCODING", "PGAUTHTYPE", "PGTTY"].contains(&name)
    };
    let (version, expected) = libpq::keywords();
    for (name, variable) in expected {
        let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.name == name) else {
            panic!("libpq {version} knows {name}");
        };
        if let Some(variable) = variable.filter(|variable| keyword.variable.is_none() && !unread(variable)) {
            panic!("libpq {version} reads {variable} for {name}");
        }
    }
}

/// Returns the rows of the table in `keywords.md`: keyword, variable, first version, and treatment.
pub(super) fn documented() -> Vec<[&'static str; 4]> {
    let rows = include_str!("../docs/keywords.md").lines().filter(|line| line.starts_with("| `"));
    let cells = |row: &'static str| row.split('|').map(|cell| cell.trim()).collect::<Vec<_>>();
    rows.map(cells).map(|cells| [cells[1].trim_matches('`'), cells[2].trim_matches('`'), cells[3], cells[4]]).collect()
}

#[test]
fn the_documentation_lists_the_first_version_of_each_keyword() {
    let (version, expected) = libpq::keywords();
    let major = version / 10_000;
    for [name, _, since, _] in documented() {
        let (first, last) = since.split_once(" to ").unwrap_or((since, "99"));
        let is_in_it = (first.parse().unwrap()..=last.parse().unwrap()).contains(&major);
        assert_eq!(expected.contains_key(name), is_in_it, "{name} in libpq {major}");
    }
}

fn keyword() -> impl Strategy<Value = String> {
    let known: Vec<_> = KEYWORDS.iter().map(|keyword| keyword.name.to_owned()).collect();
    prop_oneof![8 => proptest::sample::select(known), 1 => Just(keywords::OLD_SSLMODE.to_owned()), 1 => "[a-z_]{0,8}"]
}

fn pairs_like() -> impl Strategy<Value = String> {
    let value = prop_oneof!["[a-z0-9/.,:@-]{0,8}", r"'([a-z =@]|\\.){0,8}'", r"([a-z0-9'=]|\\.){0,8}", r"\PC{0,4}"];
    let pair =
        (keyword(), "[ \t]{0,2}=[ \n]{0,2}", value, "[ \t]{0,2}").prop_map(|(k, e, v, b)| format!("{k}{e}{v}{b}"));
    proptest::collection::vec(pair, 0..4).prop_map(|pairs| pairs.concat())
}

fn url_like() -> impl Strategy<Value = String> {
    let part =
        || prop_oneof![4 => "[a-z0-9.]{0,5}", 2 => "([a-z]|%[2-7][0-9A-F]){0,5}", 1 => r"[a-z:@/?,&=%\[\] ]{0,4}"];
    let user = prop_oneof![Just(String::new()), (part(), part()).prop_map(|(u, p)| format!("{u}:{p}@"))];
    let host =
        prop_oneof![part(), (part(), "[0-9]{0,4}").prop_map(|(h, p)| format!("{h}:{p}")), Just("[::1]:5".into())];
    let hosts = proptest::collection::vec(host, 0..3).prop_map(|hosts| hosts.join(","));
    let parameter = (keyword(), part()).prop_map(|(k, v)| format!("{k}={v}"));
    let parameters = proptest::collection::vec(parameter, 0..3).prop_map(|all| all.join("&"));
    (
        prop_oneof!["postgres://", "postgresql://"],
        user,
        hosts,
        prop_oneof![Just(String::new()), part().prop_map(|d| format!("/{d}"))],
        prop_oneof![Just(String::new()), parameters.prop_map(|p| format!("?{p}"))],
    )
        .prop_map(|(scheme, user, hosts, dbname, parameters)| format!("{scheme}{user}{hosts}{dbname}{parameters}"))
}

/// Generates strings of the corpus with a few characters inserted or removed.
fn near_the_corpus() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), proptest::option::of("[ -~é\t\n]"));
    let edits = proptest::collection::vec(edit, 0..4);
    (proptest::sample::select(CORPUS), edits).prop_map(|(text, edits)| {
        let mut text: Vec<String> = text.chars().map(String::from).collect();
        for (place, put_in) in edits {
            match put_in {
                Some(c) => text.insert(place.index(text.len() + 1), c),
                None if text.is_empty() => {}
                None => drop(text.remove(place.index(text.len()))),
            }
        }
        text.concat()
    })
}

/// Compares the results for generated strings, some of which must be valid.
fn compare(near: impl Strategy<Value = String>) {
    const CASES: u32 = 2000;
    let (version, _) = libpq::keywords();
    let (libpq, taken) = (RefCell::new(Libpq::parser()), Cell::new(0));
    let same = |text: String| {
        taken.set(taken.get() + u32::from(sources::known_pairs(&text).is_ok()));
        let differs = if text.contains('\0') { None } else { difference(&mut libpq.borrow_mut(), version, &text) };
        differs.map_or(Ok(()), |differs| Err(TestCaseError::fail(format!("{text:?}: {differs}"))))
    };
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&near, same);
    outcome.unwrap_or_else(|error| panic!("libpq {version}: {error}"));
    assert!(taken.get() > CASES / 8, "only {} of {CASES} are taken", taken.get());
}

#[test]
fn strings_similar_to_pairs_have_the_same_meaning_as_in_libpq() {
    compare(pairs_like());
}

#[test]
fn strings_similar_to_the_corpus_have_the_same_meaning_as_in_libpq() {
    compare(near_the_corpus());
}

#[test]
fn strings_similar_to_a_url_have_the_same_meaning_as_in_libpq() {
    compare(url_like());
}
