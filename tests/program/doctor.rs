//! `notifyman doctor`: its text, its JSON and its exit code.

use serde_json::Value;

use super::{cluster, run};

const NOWHERE: &str = "postgres://nobody:secret@127.0.0.1:1/nowhere";

#[test]
fn a_database_that_delivers_has_no_finding() {
    let server = cluster();
    let finished = run(&["doctor", &server.url()]);
    let text = finished.out();
    // PostgreSQL 12 and 13, and older minor versions of later ones, have a bug that the doctor reports.
    finished.ends_with(if text.contains("58P01") { 3 } else { 0 });
    assert!(text.contains("delivery") && text.contains("was delivered"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 79) && !text.contains('\x1b'), "{text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [" PostgreSQL ", ", no TLS, delivery in ", " ms, NOTIFY queue 0.0 % full checked: listen-bug, "] {
        assert!(words.contains(part), "{part} is missing: {text}");
    }
}

#[test]
fn findings_have_a_remedy_and_the_worst_determines_the_exit_code() {
    let server = cluster();
    let text = run(&["doctor", &server.url(), NOWHERE, "host=db port=70000"]).ends_with(1).out();
    for words in ["refused", "do:", "was delivered", "port"] {
        assert!(text.contains(words), "{words} is missing: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn with_json_each_database_has_a_line() {
    let server = cluster();
    let text = run(&["doctor", "--json", &server.url(), NOWHERE]).ends_with(1).out();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["latency_ms"].as_f64().unwrap() > 0.0);
    assert!(lines[0]["server_version"].as_str().unwrap().starts_with(char::is_numeric));
    assert_eq!((&lines[0]["tls"], &lines[0]["queue_usage"]), (&Value::Null, &0.0.into()));
    let checked = lines[0]["checked"].as_array().unwrap();
    assert!(checked.contains(&"delivery".into()) && checked.contains(&"transaction-pooler".into()), "{checked:?}");
    assert_eq!((&lines[1]["server_version"], &lines[1]["checked"]), (&Value::Null, &Value::Array(Vec::new())));
    assert_eq!((&lines[1]["worst"], &lines[1]["findings"][0]["kind"]), (&"failure".into(), &"refused".into()));
}
