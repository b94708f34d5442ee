//! Direct connections to real servers.

use std::thread;
use std::time::Duration;

use notifyman::{Connection, Diagnosis, FindingKind, NotificationManager, Severity};

use super::{config, connect, found, is_well};
use crate::support::server::LIMIT;
use crate::support::{Cluster, Options};

fn cluster() -> Cluster {
    Cluster::start(Options::new()).unwrap()
}

fn pending(db: &mut Connection) -> Vec<String> {
    let said = |n: notifyman::Notification| format!("{}={}", n.channel(), n.payload());
    db.wait(Duration::ZERO).flatten().map(said).collect()
}

#[test]
fn m17_a_healthy_server_has_no_problems_and_no_traces_remain() {
    let server = cluster();
    let mut db = connect(&server.url());
    let diagnosis = db.diagnose().unwrap();
    is_well(&diagnosis);
    assert!(diagnosis.latency().unwrap() < LIMIT);
    assert_eq!(diagnosis.server_version(), Some(db.server_version()));
    assert_eq!((diagnosis.tls(), diagnosis.queue_usage()), (None, Some(0.0)));
    let checked = diagnosis.checked();
    assert!([FindingKind::Standby, FindingKind::Delivery].iter().all(|kind| checked.contains(kind)), "{checked:?}");
    // Servers before 14 have no idle_session_timeout.
    let has_idle_timeout = db.query("SHOW idle_session_timeout").is_ok();
    assert_eq!(checked.contains(&FindingKind::IdleTimeout), has_idle_timeout);
    assert_eq!(diagnosis.target(), config(&server.url()).to_string());
    assert!(db.listening_channels().unwrap().is_empty());
    assert!(pending(&mut db).is_empty());
    is_well(&Diagnosis::of(config(&server.url())));
}

#[test]
fn m17_notifications_that_arrive_meanwhile_are_kept_in_order() {
    let server = cluster();
    let mut db = connect(&server.url());
    db.listen(["news"]).unwrap();
    let mut other = connect(&server.url());
    let writer = thread::spawn(move || {
        for n in 0..2000 {
            other.notify("news", n.to_string()).unwrap();
        }
    });
    while !writer.is_finished() {
        is_well(&db.diagnose().unwrap());
    }
    writer.join().unwrap();
    let expected: Vec<_> = (0..2000).map(|n| format!("news={n}")).collect();
    assert_eq!(pending(&mut db), expected);
    assert_eq!(db.listening_channels().unwrap(), ["news"]);
}

#[test]
fn m17_a_connection_in_a_manager_can_be_diagnosed_without_losses() {
    let server = cluster();
    let mut db = connect(&server.url());
    db.listen(["news"]).unwrap();
    db.notify("news", "before").unwrap();
    let mut nm = NotificationManager::new([db]).timeout(LIMIT);
    let id = nm.connections().next().unwrap().0;
    is_well(&nm.get_mut(id).unwrap().diagnose().unwrap());
    let (_, batch) = nm.next().unwrap().unwrap();
    assert_eq!(batch.iter().map(|n| n.payload().into_owned()).collect::<Vec<_>>(), ["before"]);
}

#[test]
fn m17_a_standby_is_reported() {
    // Without a primary it stays in recovery, and its limits must be at least those of the server from which the data
    // came.
    let standby = Options::new().file("standby.signal", "").setting("wal_level", "replica");
    let standby = standby.setting("max_worker_processes", "8").setting("max_wal_senders", "10");
    let server = Cluster::start(standby.setting("hot_standby", "on")).unwrap();
    let diagnosis = Diagnosis::of(config(&server.url()));
    assert_eq!(found(&diagnosis, FindingKind::Standby).severity(), Severity::Failure);
    assert!(found(&diagnosis, FindingKind::Standby).advice().contains("primary"));
    assert_eq!(diagnosis.latency(), None);
}

#[test]
fn m17_a_session_in_a_transaction_is_reported_and_the_transaction_unchanged() {
    let server = cluster();
    let mut db = connect(&server.url());
    db.execute("BEGIN; CREATE TABLE kept ()").unwrap();
    let diagnosis = db.diagnose().unwrap();
    assert_eq!(found(&diagnosis, FindingKind::InTransaction).severity(), Severity::Failure);
    assert!(diagnosis.find(FindingKind::Delivery).is_none());
    db.execute("COMMIT; SELECT * FROM kept").unwrap();
    is_well(&db.diagnose().unwrap());
}

#[test]
fn m17_keepalive_settings_that_detect_losses_late_are_reported() {
    let server = cluster();
    let keepalive = |settings: &str| {
        let diagnosis = Diagnosis::of(config(&format!("{}?{settings}", server.url())));
        diagnosis.find(FindingKind::Keepalive).map(|finding| finding.what().to_owned())
    };
    assert!(keepalive("keepalives=0").unwrap().contains("never"));
    assert!(keepalive("keepalives=0&tcp_user_timeout=1000").unwrap().contains("never"));
    assert_eq!(keepalive("keepalives_idle=30&keepalives_interval=10&keepalives_count=3"), None);
    assert!(
        keepalive("keepalives_idle=3600&keepalives_interval=60&keepalives_count=10").unwrap().contains("1 h 10 min")
    );

    let socket = format!("host={} port={} user=postgres", server.socket_dir().display(), server.port());
    let diagnosis = Diagnosis::of(config(&socket));
    is_well(&diagnosis);
    assert_eq!(diagnosis.find(FindingKind::Keepalive), None, "{diagnosis}");
}

#[test]
fn m17_a_role_that_may_not_call_pg_notify_can_still_listen() {
    let server = cluster();
    let mut admin = connect(&server.url());
    admin.execute("CREATE ROLE app LOGIN; REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC").unwrap();
    let diagnosis = Diagnosis::of(config(&server.url()).user("app"));
    let finding = found(&diagnosis, FindingKind::NoPermission);
    assert!(finding.severity() == Severity::Warning && finding.advice().contains("GRANT EXECUTE"), "{finding}");
    found(&diagnosis, FindingKind::Delivery);
}

#[test]
fn m17_a_database_without_an_encoding_is_reported() {
    let server = Cluster::start(Options::new().encoding("SQL_ASCII")).unwrap();
    let diagnosis = Diagnosis::of(config(&server.url()));
    is_well(&diagnosis);
    assert_eq!(found(&diagnosis, FindingKind::Encoding).severity(), Severity::Info);
}

#[test]
fn m17_a_short_statement_timeout_is_reported() {
    let server = cluster();
    let diagnosis = Diagnosis::of(config(&server.url()).options("-c statement_timeout=900ms"));
    assert!(found(&diagnosis, FindingKind::StatementTimeout).what().contains("900"), "{diagnosis}");
}

#[test]
fn m17_a_closed_connection_returns_its_error() {
    let server = cluster();
    let mut db = connect(&server.url());
    connect(&server.url()).query(&format!("SELECT pg_terminate_backend({})", db.pid())).unwrap();
    assert_eq!(db.diagnose().unwrap_err().sqlstate(), Some("57P01"));
    assert_eq!(db.diagnose().unwrap_err().sqlstate(), Some("57P01"));
}

#[test]
fn m17_without_a_second_session_delivery_is_examined_and_that_is_reported() {
    let server = cluster();
    connect(&server.url()).execute("CREATE ROLE single LOGIN CONNECTION LIMIT 1").unwrap();
    let diagnosis = Diagnosis::of(config(&server.url()).user("single"));
    is_well(&diagnosis);
    let evidence = found(&diagnosis, FindingKind::Delivery).evidence().unwrap();
    assert!(evidence.contains("not examined") && evidence.contains("53300"), "{diagnosis}");
}
