//! One test for each fault of a server, a session, or a link on this machine.

use std::time::Duration;

use notifyman::Error;

use super::ledger::Ledger;
use super::support::*;
use crate::support::cluster::signal;
use crate::support::server::PausedProcess;
use crate::support::{Cluster, Options, Peer, Proxy, Step, msg};

/// Tests a fault between a reader and its server that `fault` also repairs, or that ends by itself.
fn survive(server: &mut Cluster, fault: impl FnOnce(&mut Cluster, &mut Story)) -> Ledger {
    let url = server.url();
    let mut story = Story::begin(&url, &url);
    fault(server, &mut story);
    story.end_well()
}

/// Tests a fault of a proxy between a reader and its server.
fn survive_proxied(fault: impl FnOnce(&Proxy, &mut Story)) -> Ledger {
    let (server, proxy) = proxied();
    let mut story = Story::begin(&through(&proxy), &server.url());
    fault(&proxy, &mut story);
    story.end_well()
}

fn admin(server: &Cluster, sql: &str) {
    open(&server.url()).query(sql).unwrap();
}

// ---- sessions and servers -----------------------------------------------------------------------------------------

#[test]
fn m13_a_session_that_the_administrator_ends_is_restored() {
    let ledger = survive(&mut cluster(), |server, story| {
        admin(server, &format!("SELECT pg_terminate_backend({})", pid(&story.nm)));
    });
    assert_eq!(ledger.last_gap().cause().sqlstate(), Some("57P01"));
}

#[test]
fn m13_a_session_whose_process_is_killed_is_restored() {
    let ledger = survive(&mut cluster(), |_, story| signal(pid(&story.nm).unsigned_abs(), "KILL").unwrap());
    assert!(matches!(ledger.last_gap().cause(), Error::Disconnected), "{:?}", ledger.last_gap());
}

#[test]
fn m13_a_session_is_restored_after_another_backend_was_killed() {
    let ledger = survive(&mut cluster(), |server, _| {
        let other = open(&server.url());
        signal(other.pid().unsigned_abs(), "KILL").unwrap();
    });
    assert_eq!(ledger.last_gap().cause().sqlstate(), Some("57P02"), "{:?}", ledger.last_gap());
}

#[test]
fn m13_a_session_is_restored_after_an_immediate_restart_of_its_server() {
    let ledger = survive(&mut cluster(), |server, _| {
        server.stop_immediate().unwrap();
        server.restart().unwrap();
    });
    assert!(ledger.last_gap().cause().is_transient(), "{:?}", ledger.last_gap());
    assert!(matches!(ledger.last_gap().cause().sqlstate(), Some("57P01" | "57P02") | None));
}

#[test]
fn m13_a_session_is_restored_after_its_server_was_killed() {
    let ledger = survive(&mut cluster(), |server, _| {
        server.kill().unwrap();
        server.restart().unwrap();
    });
    assert!(matches!(ledger.last_gap().cause().sqlstate(), Some("57P01" | "57P02") | None));
}

#[test]
fn m13_a_session_is_restored_after_its_server_was_down_for_long() {
    survive(&mut cluster(), |server, story| {
        server.stop().unwrap();
        story.notice();
        story.ledger.read_for(&mut story.nm, Duration::from_millis(500));
        assert_eq!(story.nm.restoring().count(), 1, "it continues to retry");
        server.restart().unwrap();
    });
}

/// Returns the error of a server that cannot accept clients yet.
fn refusal(code: &str) -> Vec<Step> {
    vec![Step::startup(), Step::send([msg::error("FATAL", code, "not now")]), Step::expect_eof()]
}

/// Directs later connections to this peer, closes the current one, and reads until this many attempts have failed.
fn fail_attempts_at(proxy: &Proxy, peer: &Peer, clients: u64, story: &mut Story) {
    let before = proxy.accepted();
    proxy.set_upstream(peer.addr());
    proxy.cut_fin();
    story.ledger.read_until(&mut story.nm, |_, _| proxy.accepted() > before + clients);
}

#[test]
fn m13_a_server_that_takes_long_to_start_is_retried() {
    for code in ["57P03", "53300", "XX000", "55000", ""] {
        let (server, proxy) = proxied();
        let mut story = Story::begin(&through(&proxy), &server.url());
        let peer = Peer::play_each((0..5).map(|_| refusal(code)).collect());
        fail_attempts_at(&proxy, &peer, 5, &mut story);
        peer.finish();
        assert_eq!(story.nm.restoring().count(), 1, "{code}: it continues to retry");
        proxy.set_upstream(([127, 0, 0, 1], server.port()).into());
        story.end_well();
    }
}

#[test]
fn m13_a_role_at_its_connection_limit_is_retried() {
    let server = cluster();
    admin(&server, "CREATE ROLE reader LOGIN");
    let url = format!("postgres://reader@127.0.0.1:{}/postgres", server.port());
    let mut story = Story::begin(&url, &server.url());
    admin(&server, "ALTER ROLE reader CONNECTION LIMIT 0");
    admin(&server, &format!("SELECT pg_terminate_backend({})", pid(&story.nm)));
    story.notice();
    story.ledger.read_for(&mut story.nm, Duration::from_millis(500));
    assert_eq!(story.nm.restoring().count(), 1, "it continues to retry");
    admin(&server, "ALTER ROLE reader CONNECTION LIMIT -1");
    story.end_well();
}

#[test]
fn m15_a_frozen_backend_is_noticed_within_the_bound_and_replaced() {
    let server = cluster();
    let mut story = Story::begin(&server.url(), &server.url());
    let _frozen = PausedProcess::process(pid(&story.nm).unsigned_abs());
    story.notice();
    assert!(story.end_well().last_gap().cause().is_timeout());
}

// ---- final failures ------------------------------------------------------------------------------------------------

/// Asserts that the connection is in the garbage for this reason, and can be revived after `repair`.
fn revive_after(mut story: Story, code: &str, repair: impl FnOnce()) {
    story.end_in_garbage();
    let (id, dead) = story.nm.take_garbage().pop().unwrap();
    assert_eq!(dead.error().sqlstate(), Some(code), "{dead:?}");
    repair();
    assert_eq!(story.nm.revive(id, dead), id);
    story.end_well();
}

#[test]
fn m13_a_changed_password_is_a_final_failure() {
    let server = Cluster::start(Options::new().auth("scram-sha-256", "super")).unwrap();
    let url = |user: &str| format!("postgres://{user}@127.0.0.1:{}/postgres", server.port());
    let mut admin = open(&url("postgres:super"));
    // Before 14, the default of password_encryption is md5.
    admin.query("SET password_encryption = 'scram-sha-256'").unwrap();
    admin.query("CREATE ROLE reader LOGIN PASSWORD 'old'").unwrap();
    let story = Story::begin(&url("reader:old"), &url("postgres:super"));
    admin.query("ALTER ROLE reader PASSWORD 'new'").unwrap();
    admin.query(&format!("SELECT pg_terminate_backend({})", pid(&story.nm))).unwrap();
    revive_after(story, "28P01", || drop(admin.query("ALTER ROLE reader PASSWORD 'old'").unwrap()));
}

#[test]
fn m13_a_role_that_may_no_longer_log_in_is_a_final_failure() {
    let server = cluster();
    admin(&server, "CREATE ROLE reader LOGIN");
    let url = format!("postgres://reader@127.0.0.1:{}/postgres", server.port());
    let story = Story::begin(&url, &server.url());
    admin(&server, "ALTER ROLE reader NOLOGIN");
    admin(&server, &format!("SELECT pg_terminate_backend({})", pid(&story.nm)));
    revive_after(story, "28000", || admin(&server, "ALTER ROLE reader LOGIN"));
}

#[test]
fn m13_a_dropped_database_is_a_final_failure() {
    let server = cluster();
    let mut admin = open(&server.url());
    admin.query("CREATE DATABASE shop").unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/shop", server.port());
    let story = Story::begin(&url, &url);
    // Sessions that are restored before the database is dropped are terminated again.
    while admin.query("DROP DATABASE shop").is_err() {
        admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'").unwrap();
    }
    revive_after(story, "3D000", || drop(admin.query("CREATE DATABASE shop").unwrap()));
}

/// Returns the script of a server that answers LISTEN with these messages.
fn answers_listen(error: (&str, &str)) -> Vec<Step> {
    let listen = Step::expect_query(r#"LISTEN "ledger""#);
    let answer = Step::send([msg::error("ERROR", error.0, error.1), msg::ready(b'I')]);
    vec![Step::startup(), Step::login_ok(), listen, answer, Step::expect_eof()]
}

#[test]
fn m13_a_refused_listen_is_retried_until_the_server_accepts_it() {
    for refusal in
        [("25006", "cannot execute LISTEN during recovery"), ("42501", "permission denied"), ("XX000", "no backend")]
    {
        let (server, proxy) = proxied();
        let mut story = Story::begin(&through(&proxy), &server.url());
        let peer = Peer::play_each((0..3).map(|_| answers_listen(refusal)).collect());
        fail_attempts_at(&proxy, &peer, 3, &mut story);
        peer.finish();
        proxy.set_upstream(([127, 0, 0, 1], server.port()).into());
        story.end_well();
    }
}

// ---- links --------------------------------------------------------------------------------------------------------

#[test]
fn m13_a_closed_link_is_restored() {
    let ledger = survive_proxied(|proxy, _| proxy.cut_fin());
    assert!(matches!(ledger.last_gap().cause(), Error::Disconnected), "{:?}", ledger.last_gap());
}

#[test]
fn m13_a_reset_link_is_restored() {
    let ledger = survive_proxied(|proxy, _| proxy.cut_rst());
    assert!(matches!(ledger.last_gap().cause(), Error::Io { .. }), "{:?}", ledger.last_gap());
}

#[test]
fn m13_a_malformed_stream_loses_only_its_session() {
    let ledger = survive_proxied(|proxy, _| proxy.inject(b"\x00\xff\x00\xff garbage"));
    assert!(ledger.last_gap().cause().is_protocol(), "{:?}", ledger.last_gap());
}

#[test]
fn m13_a_link_that_ends_inside_a_message_is_restored() {
    survive_proxied(|proxy, story| {
        proxy.one_byte_at_a_time();
        story.ledger.read_for(&mut story.nm, Duration::from_millis(30));
        proxy.cut_fin();
        proxy.resume();
    });
}

#[test]
fn m15_a_black_hole_is_noticed_within_the_bound_and_replaced() {
    let ledger = survive_proxied(|proxy, story| {
        proxy.black_hole();
        story.notice();
        story.ledger.read_for(&mut story.nm, Duration::from_millis(500));
        assert_eq!(story.nm.restoring().count(), 1, "it continues to retry");
        proxy.resume();
    });
    let gap = ledger.last_gap();
    assert!(gap.cause().is_timeout() && gap.duration() >= IDLE + Duration::from_millis(500), "{gap:?}");
}
