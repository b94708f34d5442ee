//! The check of `notifyman listen` that notifications are delivered.

use std::time::{Duration, Instant};

use notifyman::{Config, Connection};

use super::{LIMIT, Running, cluster, connect, run};
use crate::support::server::eventually;
use crate::support::{HoldingProxy, PgBouncer};

/// The options of both ways to consume notifications; each prints the payloads.
const MODES: [&[&str]; 2] = [&[], &["--exec", "cat; echo"]];

#[test]
fn a_pooler_in_transaction_mode_is_reported_with_advice_and_other_connections_continue() {
    let (pooled, healthy) = (cluster(), cluster());
    let pooler = PgBouncer::start(&pooled, "transaction", "");
    for mode in MODES {
        let begin = Instant::now();
        let listener = Running::listener(&[pooler.url(), healthy.url()], &[&["a", "--count", "2"], mode].concat());
        let mut db = connect(&healthy);
        db.notify("a", "before").unwrap();
        assert!(listener.out.next().contains("before"));
        let text = listener.err.next();
        assert!(text.starts_with("notifyman: connection 1 (127.0.0.1:") && text.contains("transaction"), "{text}");
        let advice = listener.err.next();
        assert!(advice.starts_with("  to do: ") && advice.contains("pool_mode = session"), "{advice}");
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        db.notify("a", "after").unwrap();
        let finished = listener.finish();
        finished.ends_with(1);
        assert!(finished.out().contains("after"), "{finished:#?}");
    }
}

#[test]
fn with_fail_fast_failing_delivery_ends_the_program() {
    let pooled = cluster();
    let pooler = PgBouncer::start(&pooled, "transaction", "");
    for mode in MODES {
        let finished = Running::listener(&[pooler.url()], &[&["a", "--fail-fast"], mode].concat()).finish();
        finished.ends_with(1);
        assert!(finished.err().contains("pool_mode = session"), "{finished:#?}");
    }
}

#[test]
fn a_proxy_that_holds_notifications_back_is_reported() {
    let server = cluster();
    let proxy = HoldingProxy::start(server.port());
    let listener = Running::start(&["listen", "-q", "a", "--url", &proxy.url()]);
    let text = listener.err.next();
    assert!(text.contains("connection 1 (") && text.contains("together with the next answer"), "{text}");
    assert!(listener.err.next().contains("holds notifications back"));
}

/// The latest queries of the program's sessions at a server.
fn sessions(db: &mut Connection) -> Vec<String> {
    let rows = db.query("SELECT query FROM pg_stat_activity WHERE application_name = 'notifyman'").unwrap();
    rows.iter().map(|row| row.get(0).unwrap().into_owned()).collect()
}

#[test]
fn if_delivery_works_nothing_is_reported_and_no_other_session_stays() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "session", "");
    let mut db = connect(&server);
    db.listen(["a"]).unwrap();
    for mode in MODES {
        for url in [server.url(), pooler.url()] {
            let listener = Running::listener(&[url], &[&["a", "--count", "1"], mode].concat());
            std::thread::sleep(Duration::from_millis(500));
            eventually("only the listening session is there", || {
                let queries = sessions(&mut db);
                queries.len() == 1 && queries[0].starts_with("LISTEN")
            });
            db.notify("a", "only this").unwrap();
            let finished = listener.finish();
            finished.ends_with(0);
            assert_eq!((finished.out.len(), finished.err()), (1, String::new()), "{finished:#?}");
            let seen: Vec<_> = db.wait(LIMIT).flatten().take(1).map(|n| n.payload().into_owned()).collect();
            assert_eq!(seen, ["only this"], "other sessions do not receive the notification of the check");
            eventually("the program's sessions have ended", || sessions(&mut db).is_empty());
        }
    }
}

#[test]
fn nothing_is_lost_or_late_while_delivery_is_checked() {
    let server = cluster();
    let count = 500;
    for mode in MODES {
        let listener = Running::listener(&[server.url()], &[&["a", "--count", &count.to_string()], mode].concat());
        let mut db = connect(&server);
        for n in 0..count {
            db.notify("a", format!("number {n}.")).unwrap();
        }
        let finished = listener.finish();
        finished.ends_with(0);
        let lines = finished.out.iter().enumerate();
        assert!(lines.clone().count() == count && { lines }.all(|(n, line)| line.contains(&format!("number {n}."))));
    }
}

#[test]
fn without_a_second_session_listen_works_and_the_missing_check_is_reported() {
    let server = cluster();
    let mut db = connect(&server);
    db.execute("CREATE ROLE single LOGIN CONNECTION LIMIT 1").unwrap();
    let url = server.url().replace("postgres@", "single@");
    for mode in MODES {
        let listener = Running::listener(std::slice::from_ref(&url), &[&["a", "--count", "1"], mode].concat());
        let text = listener.err.next();
        assert!(text.contains("delivery to connection 1 was not checked: ") && text.contains("53300"), "{text}");
        db.notify("a", "x").unwrap();
        let finished = listener.finish();
        finished.ends_with(0);
        assert_eq!(finished.err(), "");
        eventually("the program's session has ended", || sessions(&mut db).is_empty());
    }
}

#[test]
fn the_option_canary_takes_an_optional_period() {
    let server = cluster();
    for mode in MODES {
        for canary in ["--canary", "--canary=1", "--canary=1m30s"] {
            let listener = Running::listener(&[server.url()], &[&["a", "--count", "1", canary], mode].concat());
            Connection::connect(Config::without_env(&server.url()).unwrap()).unwrap().notify("a", "x").unwrap();
            listener.finish().ends_with(0);
        }
    }
    let finished = run(&["listen", "a", "--canary=0.9", "--url", &server.url()]);
    assert!(finished.ends_with(2).err().contains("from 1s to 1d"), "{finished:#?}");
}
