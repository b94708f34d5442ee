//! `notifyman notify`.

use notifyman::Connection;

use super::{Running, cluster, connect, run};
use crate::support::Cluster;

/// A server, and a connection to it that listens to `a`.
fn heard() -> (Cluster, Connection) {
    let cluster = cluster();
    let mut db = connect(&cluster);
    db.listen(["a"]).unwrap();
    (cluster, db)
}

/// The payloads that were sent before this. A server delivers in its own time, but in order: so one more is sent.
fn payloads(db: &mut Connection) -> Vec<String> {
    const END: &str = "that was all";
    db.notify("a", END).unwrap();
    std::iter::repeat_with(|| payload(db)).take_while(|payload| payload != END).collect()
}

/// The next payload.
fn payload(db: &mut Connection) -> String {
    db.wait(super::LIMIT).next().flatten().expect("a notification").payload().into_owned()
}

#[test]
fn a_notification_is_sent_with_its_payload_or_without() {
    let (cluster, mut db) = heard();
    let url = cluster.url();
    for (args, payload) in
        [(["a", "one 'two'"].as_slice(), "one 'two'"), (&["a"], ""), (&["a", "-5"], "-5"), (&["a", "--", "--x"], "--x")]
    {
        let finished = run(&[&["notify", "--url", &url], args].concat());
        finished.ends_with(0);
        assert_eq!((finished.out(), finished.err()), (String::new(), String::new()));
        assert_eq!(payloads(&mut db), [payload]);
    }
}

#[test]
fn lines_of_standard_input_are_sent_in_order() {
    let (cluster, mut db) = heard();
    let lines: Vec<String> = (0..5000).map(|n| format!("line {n}")).collect();
    for args in [["--stdin", "a"], ["a", "-"]] {
        let mut notify = Running::start(&[&["notify", "--url", &cluster.url()], args.as_slice()].concat());
        notify.type_in(&lines.join("\n"));
        notify.finish().ends_with(0);
        assert_eq!(payloads(&mut db), lines);
    }
}

#[test]
fn equal_lines_are_each_delivered_and_empty_ones_too() {
    let (cluster, mut db) = heard();
    let mut notify = Running::start(&["notify", "--url", &cluster.url(), "--stdin", "a"]);
    notify.type_in("x\nx\n\n\nx\n");
    notify.finish().ends_with(0);
    assert_eq!(payloads(&mut db), ["x", "x", "", "", "x"]);
}

#[test]
fn a_line_is_sent_when_the_input_pauses() {
    let (cluster, mut db) = heard();
    let mut notify = Running::start(&["notify", "--url", &cluster.url(), "--stdin", "a"]);
    for line in ["first", "second"] {
        notify.type_in(&format!("{line}\n"));
        assert_eq!(payload(&mut db), line);
    }
    notify.finish().ends_with(0);
}

#[test]
fn a_line_that_can_not_be_sent_is_named_with_what_was_sent_before() {
    let (cluster, mut db) = heard();
    let long = "x".repeat(8000);
    let many: Vec<String> = (1..=700).map(|n| n.to_string()).collect();
    for (input, line, reason, sent) in [
        (format!("1\n2\n{long}\n4\n"), 3, "at most 7999 bytes", vec!["1".into(), "2".into()]),
        (format!("{long}\n2\n"), 1, "8000 bytes", vec![]),
        ("1\na\0b\n".into(), 2, "NUL", vec!["1".into()]),
        (format!("{}\n{long}\n{}", many.join("\n"), many.join("\n")), 701, "8000", many.clone()),
    ] {
        let mut notify = Running::start(&["notify", "--url", &cluster.url(), "--stdin", "a"]);
        notify.type_in(&input);
        let finished = notify.finish();
        finished.ends_with(1);
        let told = finished.err();
        assert!(told.contains(&format!("line {line} of standard input: ")) && told.contains(reason), "{told}");
        let before = match sent.len() {
            0 => "nothing was sent before".into(),
            1 => "line 1 was sent".into(),
            n => format!("lines 1 to {n} were sent"),
        };
        assert!(told.contains(&before) && told.contains(&format!("nothing from line {line} on")), "{told}");
        assert_eq!(payloads(&mut db), sent);
    }
}

#[test]
fn a_line_that_is_not_utf8_is_named() {
    let (cluster, mut db) = heard();
    let script = r#"printf 'good\nb\377d\n' | "$0" notify --url "$1" --stdin a"#;
    let sh = Running::spawn(super::command("sh").args(["-c", script, super::PROGRAM, &cluster.url()]));
    let finished = sh.finish();
    finished.ends_with(1);
    assert!(finished.err().contains("line 2 of standard input: it is not UTF-8 from its byte 1 on"), "{finished:?}");
    assert_eq!(payloads(&mut db), ["good"]);
}

#[test]
fn a_server_that_goes_away_leaves_no_doubt_about_what_was_sent() {
    let (mut cluster, mut db) = heard();
    let mut notify = Running::start(&["notify", "--url", &cluster.url(), "--stdin", "a"]);
    notify.type_in("1\n");
    assert_eq!(payload(&mut db), "1");
    cluster.stop().unwrap();
    notify.type_in("2\n");
    let finished = notify.finish();
    finished.ends_with(1);
    assert!(finished.err().contains("57P01"), "{finished:?}");
    assert!(finished.err().contains("line 1 was sent, line 2 perhaps"), "{finished:?}");
}

#[test]
fn what_can_not_be_is_a_usage_error() {
    let cluster = cluster();
    let (name, payload) = ("x".repeat(64), "x".repeat(8000));
    let url = cluster.url();
    for (args, told) in [
        (["--url", &url, &name].as_slice(), "1 to 63 bytes"),
        (&["--url", &url, "--stdin", &name], "1 to 63 bytes"),
        (&["--url", &url, "a", &payload], "7999 bytes"),
        (&["--url", "nonsense", "a"], "connection string"),
        (&["--stdin", "a", "b"], "--stdin"),
        (&["--nonsense", "a"], "--nonsense"),
        (&[], "CHANNEL"),
    ] {
        let finished = run(&[&["notify"], args].concat());
        finished.ends_with(2);
        assert!(finished.err().contains(told), "{finished:?}");
    }
}
