//! `notifyman notify`.

use notifyman::Connection;

use super::{Running, cluster, connect, run};
use crate::support::Cluster;

/// Returns a server, and a connection to it that listens to `a`.
fn listening() -> (Cluster, Connection) {
    let cluster = cluster();
    let mut db = connect(&cluster);
    db.listen(["a"]).unwrap();
    (cluster, db)
}

/// Returns the payloads that were sent before. Notifications are delivered in order, so one more marks the end.
fn payloads(db: &mut Connection) -> Vec<String> {
    const END: &str = "end";
    db.notify("a", END).unwrap();
    std::iter::repeat_with(|| payload(db)).take_while(|payload| payload != END).collect()
}

/// Returns the next payload.
fn payload(db: &mut Connection) -> String {
    db.wait(super::LIMIT).next().flatten().expect("a notification").payload().into_owned()
}

#[test]
fn a_notification_is_sent_with_its_payload_or_without() {
    let (cluster, mut db) = listening();
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
    let (cluster, mut db) = listening();
    let lines: Vec<String> = (0..5000).map(|n| format!("line {n}")).collect();
    for args in [["--stdin", "a"], ["a", "-"]] {
        let mut notify = Running::start(&[&["notify", "--url", &cluster.url()], args.as_slice()].concat());
        notify.write_input(&lines.join("\n"));
        notify.finish().ends_with(0);
        assert_eq!(payloads(&mut db), lines);
    }
}

#[test]
fn equal_and_empty_lines_are_all_delivered() {
    let (cluster, mut db) = listening();
    let mut notify = Running::start(&["notify", "--url", &cluster.url(), "--stdin", "a"]);
    notify.write_input("x\nx\n\n\nx\n");
    notify.finish().ends_with(0);
    assert_eq!(payloads(&mut db), ["x", "x", "", "", "x"]);
}

#[test]
fn a_line_is_sent_when_the_input_pauses() {
    let (cluster, mut db) = listening();
    let mut notify = Running::start(&["notify", "--url", &cluster.url(), "--stdin", "a"]);
    for line in ["first", "second"] {
        notify.write_input(&format!("{line}\n"));
        assert_eq!(payload(&mut db), line);
    }
    notify.finish().ends_with(0);
}

#[test]
fn a_line_that_cannot_be_sent_is_reported_with_the_lines_sent_before() {
    let (cluster, mut db) = listening();
    let long = "x".repeat(8000);
    let many: Vec<String> = (1..=700).map(|n| n.to_string()).collect();
    for (input, line, reason, sent) in [
        (format!("1\n2\n{long}\n4\n"), 3, "the limit is 7999 bytes", vec!["1".into(), "2".into()]),
        (format!("{long}\n2\n"), 1, "8000 bytes", vec![]),
        ("1\na\0b\n".into(), 2, "NUL", vec!["1".into()]),
        (format!("{}\n{long}\n{}", many.join("\n"), many.join("\n")), 701, "8000", many.clone()),
    ] {
        let mut notify = Running::start(&["notify", "--url", &cluster.url(), "--stdin", "a"]);
        notify.write_input(&input);
        let finished = notify.finish();
        finished.ends_with(1);
        let text = finished.err();
        assert!(text.contains(&format!("line {line} of standard input: ")) && text.contains(reason), "{text}");
        let before = match sent.len() {
            0 => "no line was sent".into(),
            1 => "line 1 was sent".into(),
            n => format!("lines 1 to {n} were sent"),
        };
        assert!(text.contains(&before) && text.contains(&format!("nothing from line {line} on")), "{text}");
        assert_eq!(payloads(&mut db), sent);
    }
}

#[test]
fn a_line_that_is_not_utf8_is_reported() {
    let (cluster, mut db) = listening();
    let script = r#"printf 'good\nb\377d\n' | "$0" notify --url "$1" --stdin a"#;
    let sh = Running::spawn(super::command("sh").args(["-c", script, super::PROGRAM, &cluster.url()]));
    let finished = sh.finish();
    finished.ends_with(1);
    assert!(finished.err().contains("line 2 of standard input: it is not valid UTF-8 after byte 1"), "{finished:?}");
    assert_eq!(payloads(&mut db), ["good"]);
}

#[test]
fn after_a_loss_the_lines_that_were_sent_are_reported() {
    let (mut cluster, mut db) = listening();
    let mut notify = Running::start(&["notify", "--url", &cluster.url(), "--stdin", "a"]);
    notify.write_input("1\n");
    assert_eq!(payload(&mut db), "1");
    cluster.stop().unwrap();
    notify.write_input("2\n");
    let finished = notify.finish();
    finished.ends_with(1);
    assert!(finished.err().contains("57P01"), "{finished:?}");
    assert!(finished.err().contains("line 1 was sent, and perhaps line 2"), "{finished:?}");
}

#[test]
fn invalid_arguments_are_usage_errors() {
    let cluster = cluster();
    let (name, payload) = ("x".repeat(64), "x".repeat(8000));
    let url = cluster.url();
    for (args, expected) in [
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
        assert!(finished.err().contains(expected), "{finished:?}");
    }
}
