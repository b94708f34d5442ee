//! `notifyman doctor`: what is wrong, by its text, its JSON and its exit code.

use serde_json::Value;

use super::{cluster, run};

const NOWHERE: &str = "postgres://nobody:secret@127.0.0.1:1/nowhere";

#[test]
fn a_database_that_delivers_is_well() {
    let server = cluster();
    let finished = run(&["doctor", &server.url()]);
    let told = finished.out();
    // PostgreSQL 12 and 13, and older minor versions of later ones, have a bug of which the doctor warns.
    finished.ends_with(if told.contains("58P01") { 3 } else { 0 });
    assert!(told.contains("delivery") && told.contains("was delivered"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 79), "{told}");
}

#[test]
fn what_is_wrong_is_told_with_what_to_do_and_the_worst_decides() {
    let server = cluster();
    let told = run(&["doctor", &server.url(), NOWHERE, "host=db port=70000"]).ends_with(1).out();
    for words in ["refused", "do:", "was delivered", "port"] {
        assert!(told.contains(words), "{words} is missing: {told}");
    }
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn for_machines_there_is_a_line_of_json_for_each() {
    let server = cluster();
    let told = run(&["doctor", "--json", &server.url(), NOWHERE]).ends_with(1).out();
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["latency_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&lines[1]["worst"], &lines[1]["findings"][0]["kind"]), (&"failure".into(), &"refused".into()));
}
