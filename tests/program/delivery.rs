//! `notifyman listen` checks at its start that notifications are delivered.

use std::time::{Duration, Instant};

use notifyman::{Config, Connection};

use super::{LIMIT, Running, cluster, connect, run};
use crate::support::server::eventually;
use crate::support::{HoldingProxy, PgBouncer};

/// The options of both ways to consume notifications; each prints the payloads.
const WAYS: [&[&str]; 2] = [&[], &["--exec", "cat; echo"]];

#[test]
fn a_pooler_in_transaction_mode_is_reported_with_advice_and_other_connections_continue() {
    let (pooled, well) = (cluster(), cluster());
    let pooler = PgBouncer::start(&pooled, "transaction", "");
    for way in WAYS {
        let begin = Instant::now();
        let listener = Running::listener(&[pooler.url(), well.url()], &[&["a", "--count", "2"], way].concat());
        let mut db = connect(&well);
        db.notify("a", "before").unwrap();
        assert!(listener.out.next().contains("before"));
        let told = listener.err.next();
        assert!(told.starts_with("notifyman: connection 1 (127.0.0.1:") && told.contains("transaction"), "{told}");
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
    for way in WAYS {
        let finished = Running::listener(&[pooler.url()], &[&["a", "--fail-fast"], way].concat()).finish();
        finished.ends_with(1);
        assert!(finished.err().contains("pool_mode = session"), "{finished:#?}");
    }
}

#[test]
fn a_proxy_that_holds_notifications_back_is_reported() {
    let server = cluster();
    let proxy = HoldingProxy::start(server.port());
    let listener = Running::start(&["listen", "-q", "a", "--url", &proxy.url()]);
    let told = listener.err.next();
    assert!(told.contains("connection 1 (") && told.contains("together with the next answer"), "{told}");
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
    for way in WAYS {
        for url in [server.url(), pooler.url()] {
            let listener = Running::listener(&[url], &[&["a", "--count", "1"], way].concat());
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
    for way in WAYS {
        let listener = Running::listener(&[server.url()], &[&["a", "--count", &count.to_string()], way].concat());
        let mut db = connect(&server);
        for n in 0..count {
            db.notify("a", &format!("number {n}.")).unwrap();
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
    for way in WAYS {
        let listener = Running::listener(std::slice::from_ref(&url), &[&["a", "--count", "1"], way].concat());
        let told = listener.err.next();
        assert!(told.contains("delivery to connection 1 was not checked: ") && told.contains("53300"), "{told}");
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
    for way in WAYS {
        for canary in ["--canary", "--canary=30"] {
            let listener = Running::listener(&[server.url()], &[&["a", "--count", "1", canary], way].concat());
            Connection::connect(Config::without_env(&server.url()).unwrap()).unwrap().notify("a", "x").unwrap();
            listener.finish().ends_with(0);
        }
    }
    let finished = run(&["listen", "a", "--canary=5", "--url", &server.url()]);
    assert!(finished.ends_with(2).err().contains("30 to 86400"), "{finished:#?}");
}
