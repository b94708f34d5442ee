//! Connections through PgBouncer.

use std::time::Duration;

use notifyman::{Diagnosis, FindingKind, Severity};

use super::{config, connect, found, is_well};
use crate::support::{Cluster, HoldingProxy, Options, PgBouncer};

fn cluster() -> Cluster {
    Cluster::start(Options::new()).unwrap()
}

/// Checks that the pooler is reported as one that delivers nothing.
fn delivers_nothing(diagnosis: &Diagnosis) {
    let finding = found(diagnosis, FindingKind::TransactionPooler);
    assert!(finding.severity() == Severity::Failure && finding.evidence().is_some(), "{finding}");
    assert!(finding.advice().contains("session"), "{finding}");
    assert_eq!(diagnosis.find(FindingKind::Delivery), None, "{diagnosis}");
}

#[test]
fn m17_an_idle_pooler_in_transaction_mode_delivers_nothing() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "transaction", "");
    delivers_nothing(&Diagnosis::of(config(&pooler.url())));
    let mut db = connect(&pooler.url());
    db.listen(["news"]).unwrap();
    delivers_nothing(&db.diagnose().unwrap());
}

#[test]
fn m17_a_pooler_that_assigns_sessions_in_turn_is_detected() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "transaction", "server_round_robin = 1");
    let mut busy: Vec<_> = (0..3).map(|_| connect(&pooler.url())).collect();
    for sql in ["BEGIN", "COMMIT"] {
        busy.iter_mut().for_each(|db| assert_eq!(db.execute(sql).unwrap(), 0));
    }
    delivers_nothing(&Diagnosis::of(config(&pooler.url())));
}

#[test]
fn m17_a_pooler_in_statement_mode_delivers_nothing() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "statement", "");
    delivers_nothing(&Diagnosis::of(config(&pooler.url())));
}

#[test]
fn m17_a_pooler_in_session_mode_delivers_and_is_reported() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "session", "");
    let mut db = connect(&pooler.url());
    db.listen(["news"]).unwrap();
    connect(&server.url()).notify("news", "1").unwrap();
    let diagnosis = db.diagnose().unwrap();
    is_well(&diagnosis);
    assert_eq!(found(&diagnosis, FindingKind::SessionPooler).severity(), Severity::Info);
    let news: Vec<_> = db.wait(Duration::ZERO).flatten().map(|n| n.payload().into_owned()).collect();
    assert_eq!(news, ["1"]);
}

#[test]
fn m17_a_pooler_without_a_free_session_is_reported_with_what_is_unknown() {
    let server = cluster();
    let pooler = PgBouncer::start(&server, "session", "max_client_conn = 1");
    let diagnosis = Diagnosis::of(config(&pooler.url()));
    assert_eq!(found(&diagnosis, FindingKind::Unexamined).severity(), Severity::Warning, "{diagnosis}");
    found(&diagnosis, FindingKind::Delivery);
}

#[test]
fn m17_a_database_that_the_pooler_cannot_serve_is_a_finding() {
    let mut server = cluster();
    let pooler = PgBouncer::start(&server, "transaction", "");
    server.stop().unwrap();
    let diagnosis = Diagnosis::of(config(&pooler.url()).connect_timeout(Duration::from_secs(10)));
    assert_eq!(diagnosis.worst(), Severity::Failure, "{diagnosis}");
}

#[test]
fn m17_a_proxy_that_holds_notifications_back_until_the_next_answer_is_found() {
    let server = cluster();
    let proxy = HoldingProxy::start(server.port());
    let mut db = connect(&proxy.url());
    for diagnosis in [Diagnosis::of(config(&proxy.url())), db.diagnose().unwrap()] {
        let finding = found(&diagnosis, FindingKind::DeliveryFailing);
        assert!(finding.severity() == Severity::Failure && finding.advice().contains("holds notifications back"));
        assert_eq!(diagnosis.find(FindingKind::Delivery), None, "{diagnosis}");
        assert_eq!(diagnosis.latency(), None);
    }
    assert!(db.listening_channels().unwrap().is_empty());
    assert!(db.wait(Duration::ZERO).flatten().next().is_none());
}
