//! Behaviour that no healthy server shows, from a scripted server that otherwise answers like one.

use std::time::Duration;

use notifyman::{Connection, Diagnosis, FindingKind, Severity};

use super::{config, connect, found, is_well};
use crate::support::server::LIMIT;
use crate::support::{Cluster, Options, Peer, Step, msg};

const WARNING: &str = "The server process with PID 4711 is among those with the oldest transactions.";

/// Returns a login like [`msg::login`] by a server of this version.
fn login(version: &str) -> Vec<u8> {
    let parameters = [("server_version", version), ("server_encoding", "UTF8"), ("client_encoding", "UTF8")];
    let parameters = parameters.map(|(name, value)| msg::parameter_status(name, value)).concat();
    [msg::auth_ok(), parameters, msg::backend_key_data(4242, &[0, 0, 0, 1]), msg::ready(b'I')].concat()
}

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let columns = vec!["column"; values.len()];
    [msg::row_description(&columns), msg::data_row(values), msg::command_complete("SELECT 1")].concat()
}

/// Returns the channel that a statement of the client notifies.
fn notified(sql: &str) -> &str {
    sql.split_once("VALUES ('").unwrap().1.split_once('\'').unwrap().0
}

/// Answers queries with `instead`, or else like a healthy server, without the ReadyForQuery.
fn server(instead: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> Step {
    Step::run("be a server", move |wire| {
        while let Some((tag, body)) = wire.read_message()? {
            if tag == b'X' {
                break;
            }
            let sql = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
            let answer = instead(&sql).unwrap_or_else(|| match &*sql {
                sql if sql.contains("pg_is_in_recovery") => row(&[Some("4242"), Some("f"), Some("0"), Some("0")]),
                sql if sql.contains("queue_usage") => row(&[Some("0")]),
                sql if sql.contains("pg_notify") => {
                    [row(&[Some("1")]), msg::notification(4242, notified(sql), "probe")].concat()
                }
                sql if sql.contains("FROM") => {
                    [msg::row_description(&["x"]), msg::command_complete("SELECT 0")].concat()
                }
                sql => msg::command_complete(sql.split(' ').next().unwrap()),
            });
            wire.write(&[answer, msg::ready(b'I')].concat())?;
        }
        Ok(())
    })
}

/// Returns the findings for such a server, and the queries that it received.
fn diagnosis_at(version: &str, instead: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> (Diagnosis, Vec<String>) {
    let peer = Peer::play(vec![Step::startup(), Step::send([login(version)]), server(instead)]);
    let diagnosis = Diagnosis::of(config(&peer.url()));
    (diagnosis, peer.finish().remove(0).queries())
}

fn texts(db: &mut Connection) -> Vec<String> {
    db.wait(Duration::ZERO).flatten().map(|n| format!("{}={}", n.channel(), n.payload())).collect()
}

#[test]
fn m17_the_scripted_server_is_healthy() {
    let (diagnosis, asked) = diagnosis_at("18.4", |_| None);
    is_well(&diagnosis);
    let channel = asked.iter().find_map(|sql| sql.strip_prefix("LISTEN ")).unwrap();
    assert!(channel.starts_with("\"notifyman_diagnosis_4242_"), "{channel}");
    assert!(asked.contains(&format!("UNLISTEN {channel}")), "{asked:?}");
}

#[test]
fn m17_notifications_around_the_probe_stay_in_order_without_it() {
    let news = |text: &str| msg::notification(7, "news", text);
    let peer = Peer::play(vec![
        Step::startup(),
        Step::send([msg::login(), news("0")]),
        server(move |sql| match sql {
            sql if sql.starts_with("LISTEN") => Some([news("1"), msg::command_complete("LISTEN"), news("2")].concat()),
            sql if sql.contains("pg_notify") => {
                let probe = || msg::notification(4242, notified(sql), "probe");
                Some([news("3"), row(&[Some("1")]), news("4"), probe(), news("5"), probe(), news("6")].concat())
            }
            sql if sql.starts_with("UNLISTEN") => Some([news("7"), msg::command_complete("UNLISTEN")].concat()),
            _ => None,
        }),
    ]);
    let mut db = connect(&peer.url());
    is_well(&db.diagnose().unwrap());
    let expected: Vec<_> = (0..8).map(|n| format!("news={n}")).collect();
    assert_eq!(texts(&mut db), expected);
    drop(db);
    peer.finish();
}

#[test]
fn m17_a_late_probe_is_removed_too() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::run("answer, and deliver later", |wire| {
            let ready = msg::ready(b'I');
            let mut channel = String::new();
            while let Some((tag, body)) = wire.read_message()? {
                let sql = String::from_utf8_lossy(&body).into_owned();
                match &*sql {
                    _ if tag == b'X' => break,
                    sql if sql.contains("pg_is_in_recovery") => {
                        wire.write(&[row(&[Some("4242"), Some("f"), None, None]), ready.clone()].concat())?;
                    }
                    sql if sql.contains("pg_notify") => {
                        channel = notified(sql).to_owned();
                        wire.write(&[row(&[Some("1")]), ready.clone()].concat())?;
                        std::thread::sleep(Duration::from_millis(200));
                        wire.write(&[msg::notification(7, "news", "1"), msg::notification(1, &channel, "")].concat())?;
                    }
                    // A notification that arrives just before the answer to UNLISTEN.
                    sql if sql.starts_with("UNLISTEN") => {
                        let more = msg::notification(1, &channel, "");
                        wire.write(&[more, msg::command_complete("UNLISTEN"), ready.clone()].concat())?;
                    }
                    _ => wire.write(&[msg::command_complete("LISTEN"), ready.clone()].concat())?,
                }
            }
            Ok(())
        }),
    ]);
    let mut db = connect(&peer.url());
    let diagnosis = db.diagnose().unwrap();
    found(&diagnosis, FindingKind::Delivery);
    let latency = diagnosis.latency().unwrap();
    assert!(latency >= Duration::from_millis(200) && latency < LIMIT, "{latency:?}");
    assert_eq!(texts(&mut db), ["news=1"]);
    drop(db);
    peer.finish();
}

#[test]
fn m17_a_server_that_accepts_everything_but_delivers_nothing_is_detected() {
    let (diagnosis, asked) = diagnosis_at("18.4", |sql| sql.contains("pg_notify").then(|| row(&[Some("1")])));
    let finding = found(&diagnosis, FindingKind::DeliveryFailing);
    assert_eq!(finding.severity(), Severity::Failure);
    assert!(finding.evidence().unwrap().contains("does not list the channel"), "{finding}");
    assert!(asked.iter().any(|sql| sql.starts_with("UNLISTEN ")), "{asked:?}");
    assert_eq!(diagnosis.latency(), None);
}

#[test]
fn m17_a_version_with_the_listen_bug_is_reported_with_the_fixed_one() {
    let (diagnosis, _) = diagnosis_at("17.6 (Debian 17.6-1.pgdg12+1)", |_| None);
    let finding = found(&diagnosis, FindingKind::ListenBug);
    assert!(finding.severity() == Severity::Warning && finding.advice().contains("17.8"), "{finding}");
    found(&diagnosis, FindingKind::Delivery);
    assert_eq!(diagnosis_at("17.8", |_| None).0.find(FindingKind::ListenBug), None);
}

#[test]
fn m17_a_listen_that_fails_is_reported_with_its_reason() {
    for (code, kind, says) in [
        ("58P01", FindingKind::ListenBug, "NOTIFY queue"),
        ("25006", FindingKind::Standby, "primary"),
        ("42501", FindingKind::NoPermission, "Grant"),
        ("0A000", FindingKind::ListenRefused, "does not support LISTEN"),
        ("XX000", FindingKind::ListenRefused, "log"),
    ] {
        let refusal = move |sql: &str| sql.starts_with("LISTEN").then(|| msg::error("ERROR", code, "no"));
        let (diagnosis, asked) = diagnosis_at("18.4", refusal);
        let finding = found(&diagnosis, kind);
        assert_eq!(finding.severity(), Severity::Failure);
        assert!(finding.to_string().contains(says) && finding.evidence().unwrap().contains(code), "{finding}");
        assert!(!asked.iter().any(|sql| sql.contains("pg_notify")), "{asked:?}");
    }
}

#[test]
fn m17_a_notify_that_fails_is_reported_with_its_reason() {
    for (code, kind) in [("54000", FindingKind::QueueFilling), ("XX000", FindingKind::NotifyRefused)] {
        let refusal = move |sql: &str| sql.contains("pg_notify").then(|| msg::error("ERROR", code, "no"));
        let (diagnosis, asked) = diagnosis_at("18.4", refusal);
        assert_eq!(found(&diagnosis, kind).severity(), Severity::Failure);
        assert!(asked.iter().any(|sql| sql.starts_with("UNLISTEN ")), "{asked:?}");
    }
}

/// A server with this usage of the queue, and a reporting program in an old transaction.
fn filling(usage: &'static str, warns: bool) -> impl Fn(&str) -> Option<Vec<u8>> + Send + 'static {
    move |sql| match sql {
        sql if sql.contains("queue_usage") => Some(row(&[Some(usage)])),
        sql if sql.contains("pg_notify") && warns => {
            let warning = [(b'V', "WARNING"), (b'C', "01000"), (b'M', "NOTIFY queue is 53% full"), (b'D', WARNING)];
            let delivered = msg::notification(4242, notified(sql), "probe");
            Some([msg::report(b'N', &warning), row(&[Some("1")]), delivered].concat())
        }
        sql if sql.contains("pg_stat_activity") => {
            let since = "2026-01-31 08:00:00+00";
            let state = Some("idle in transaction");
            Some(row(&[
                Some("4711"),
                state,
                Some(since),
                Some("93780"),
                Some("report"),
                Some("shop"),
                Some("ClientRead"),
            ]))
        }
        _ => None,
    }
}

#[test]
fn m17_a_queue_that_fills_up_is_reported_with_the_process_that_holds_it() {
    for (usage, severity) in [("0.53", Severity::Warning), ("0.97", Severity::Failure)] {
        for (warns, says) in [(true, "named by a warning of the server"), (false, "oldest transaction")] {
            let (diagnosis, _) = diagnosis_at("18.4", filling(usage, warns));
            let finding = found(&diagnosis, FindingKind::QueueFilling);
            assert_eq!(finding.severity(), severity);
            for part in ["4711", "idle in transaction", "2026-01-31", "1 d 2 h", "\"report\"", "\"shop\"", says] {
                assert!(finding.evidence().unwrap().contains(part), "{part} in {finding}");
            }
            assert!(finding.advice().contains("pg_terminate_backend(4711)"), "{finding}");
        }
    }
    assert_eq!(diagnosis_at("18.4", filling("0.49", true)).0.find(FindingKind::QueueFilling), None);
}

#[test]
fn m17_a_full_queue_is_one_finding_with_the_error_and_the_process() {
    let answers = filling("1", false);
    let full = move |sql: &str| {
        let refusal = || msg::error("ERROR", "54000", "too many notifications in the NOTIFY queue");
        if sql.contains("pg_notify") { Some(refusal()) } else { answers(sql) }
    };
    let (diagnosis, _) = diagnosis_at("18.4", full);
    let kinds = diagnosis.iter().filter(|finding| finding.kind() == FindingKind::QueueFilling);
    assert_eq!(kinds.count(), 1, "{diagnosis}");
    let evidence = found(&diagnosis, FindingKind::QueueFilling).evidence().unwrap();
    assert!(evidence.contains("54000") && evidence.contains("process 4711"), "{evidence}");
}

#[test]
fn m17_a_process_that_was_named_but_is_idle_is_not_blamed() {
    let answers = filling("0.6", true);
    let (diagnosis, _) = diagnosis_at("18.4", move |sql| match sql {
        sql if sql.contains("WHERE pid = 4711") => {
            Some(row(&[Some("4711"), Some("idle"), None, None, None, None, None]))
        }
        sql if sql.contains("pg_stat_activity") => {
            Some(row(&[Some("4712"), None, None, None, None, None, Some("ClientWrite")]))
        }
        sql => answers(sql),
    });
    let evidence = found(&diagnosis, FindingKind::QueueFilling).evidence().unwrap();
    assert!(evidence.contains("4712") && evidence.contains("does not read"), "{evidence}");
    assert!(evidence.contains("pg_read_all_stats"), "{evidence}");
}

#[test]
fn m17_the_queries_about_a_full_queue_work_on_a_real_server() {
    let real = Cluster::start(Options::new()).unwrap();
    let mut idle = connect(&real.url());
    idle.execute("BEGIN; SELECT 1").unwrap();
    let mut db = connect(&real.url());
    for warns in [true, false] {
        let (_, asked) = diagnosis_at("18.4", filling("0.6", warns));
        let sql = asked.iter().find(|sql| sql.contains("pg_stat_activity")).unwrap();
        let rows = db.query(&sql.replace("4711", &idle.pid().to_string())).unwrap();
        let column = |n| rows[0].get(n).map(|text| text.into_owned());
        assert_eq!((rows.len(), column(0)), (1, Some(idle.pid().to_string())));
        assert_eq!(column(1).as_deref(), Some("idle in transaction"));
        assert!(column(3).unwrap().parse::<u64>().unwrap() < 60, "{rows:?}");
        assert_eq!(column(5).as_deref(), Some("postgres"));
    }
}

#[test]
fn m17_a_server_that_terminates_idle_sessions_is_reported() {
    let facts = |sql: &str| {
        sql.contains("pg_is_in_recovery").then(|| row(&[Some("4242"), Some("f"), Some("600000"), Some("0")]))
    };
    let (diagnosis, _) = diagnosis_at("18.4", facts);
    let finding = found(&diagnosis, FindingKind::IdleTimeout);
    assert!(finding.severity() == Severity::Warning && finding.what().contains("10 min"), "{finding}");
}

#[test]
fn m17_no_query_is_sent_in_a_transaction() {
    let peer = Peer::play(vec![
        Step::startup(),
        Step::login_ok(),
        Step::expect_query("BEGIN"),
        Step::send([msg::command_complete("BEGIN"), msg::ready(b'T')]),
        Step::expect_eof(),
    ]);
    let mut db = connect(&peer.url());
    db.execute("BEGIN").unwrap();
    found(&db.diagnose().unwrap(), FindingKind::InTransaction);
    drop(db);
    peer.finish();
}

#[test]
fn m17_a_query_that_fails_is_reported_and_the_rest_is_examined() {
    let refusal = |sql: &str| {
        let hidden = sql.contains("pg_is_in_recovery") || sql.contains("queue_usage");
        hidden.then(|| msg::error("ERROR", "42501", "permission denied for function"))
    };
    let (diagnosis, _) = diagnosis_at("18.4", refusal);
    is_well(&diagnosis);
    assert_eq!(diagnosis.iter().filter(|finding| finding.kind() == FindingKind::Unexamined).count(), 2, "{diagnosis}");
}

#[test]
fn m17_earlier_findings_are_kept_if_the_connection_is_lost() {
    let script = || {
        vec![
            Step::startup(),
            Step::send([login("17.6")]),
            Step::expect_any_query(),
            Step::send([msg::error("FATAL", "57P01", "terminating connection due to administrator command")]),
        ]
    };
    let peer = Peer::play_each(vec![script(), script()]);
    let diagnosis = Diagnosis::of(config(&peer.url()));
    assert!(found(&diagnosis, FindingKind::Disconnected).evidence().unwrap().contains("57P01"));
    found(&diagnosis, FindingKind::ListenBug);
    assert_eq!(connect(&peer.url()).diagnose().unwrap_err().sqlstate(), Some("57P01"));
    peer.finish();
}

#[test]
fn m17_texts_of_the_server_are_escaped() {
    let refusal = |sql: &str| sql.starts_with("LISTEN").then(|| msg::error("ERROR", "XX000", "a\u{1b}[2Jb\nc"));
    let (diagnosis, _) = diagnosis_at("18.4", refusal);
    let text = found(&diagnosis, FindingKind::ListenRefused).to_string();
    assert!(text.contains(r"a\u{1b}[2Jb\nc"), "{text:?}");
}

#[test]
fn m17_the_report_is_readable_on_a_terminal() {
    let (diagnosis, _) = diagnosis_at("17.6", filling("0.97", true));
    let text = diagnosis.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with("as \"postgres\", database \"postgres\": 1 failure, 1 warning"), "{text}");
    assert!(lines[1].starts_with("         PostgreSQL 17.6, no TLS, delivery in "), "{text}");
    assert!(lines[1].ends_with(" ms, NOTIFY queue 97.0 % full"), "{text}");
    assert!(lines[2].starts_with("         checked: listen-bug, ") && lines[2].ends_with(", queue-filling"), "{text}");
    assert_eq!(lines[3], "failure  queue-filling");
    assert!(lines[4].starts_with("         The NOTIFY queue is 97 % full"), "{text}");
    assert!(lines[5].starts_with("         seen: process 4711"), "{text}");
    assert!(lines[6].starts_with("         do:   End the transaction of process 4711"), "{text}");
    assert!(lines[7].starts_with("warning  listen-bug"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.ends_with('\n'), "{text}");
    let severities: Vec<_> = diagnosis.iter().map(|finding| finding.severity()).collect();
    assert!(severities.is_sorted_by(|a, b| a >= b), "{text}");
}
