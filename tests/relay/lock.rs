//! The lock of a stream, in a real server: which session is ended, and which are not.

use std::time::Duration;

use notifyman::Connection;
use notifyman::relay::{EngineConfig, Relay, RelayRole};

use super::support::redis;
use crate::support::server::{ask, config, connect, eventually, start};
use crate::support::{Cluster, EngineServer, Options};

/// The first key of the lock, "nmrl".
const SPACE: i32 = 1_852_666_476;

fn server() -> Cluster {
    let server = start(Options::new());
    connect(&server.url()).execute("CREATE ROLE app LOGIN").unwrap();
    server
}

fn session(server: &Cluster, user: &str) -> Connection {
    Connection::connect(config(&server.url()).user(user)).unwrap()
}

/// Takes an advisory lock.
fn hold(db: &mut Connection, keys: &str) {
    ask(db, &format!("SELECT pg_advisory_lock({keys})"));
}

fn relay(server: &Cluster, engine: &EngineServer) -> Relay {
    let second = Duration::from_secs(1);
    let to = EngineConfig::new([engine.url()]).unwrap();
    let database = config(&server.url()).user("app").label("shop");
    Relay::builder(to).unwrap().database(database, ["a"]).unwrap().canary(second, second).start().unwrap()
}

#[test]
fn r04_only_the_session_that_holds_the_lock_and_appends_nothing_is_ended() {
    let Some(engine) = redis(&[]) else { return };
    let server = server();
    let locks = [format!("{SPACE}, hashtext('other')"), "7, hashtext('shop')".to_owned(), "5".to_owned()];
    let mut others: Vec<_> = locks
        .iter()
        .map(|keys| {
            let mut db = session(&server, "app");
            hold(&mut db, keys);
            db
        })
        .collect();
    let mut holder = session(&server, "app");
    hold(&mut holder, &format!("{SPACE}, hashtext('shop')"));
    let relay = relay(&server, &engine);
    eventually("the relay leads", || relay.status()[0].role == RelayRole::Leader);
    let error = holder.execute("SELECT 1").unwrap_err();
    assert_eq!(error.sqlstate(), Some("57P01"), "{error:#}");
    for db in &mut others {
        assert_eq!(ask(db, "SELECT 1"), "1");
    }
    assert_eq!(relay.status()[0].fault, None);
}

#[test]
fn r04_a_session_of_another_role_that_may_not_be_ended_is_a_fault_until_it_ends() {
    let Some(engine) = redis(&[]) else { return };
    let server = server();
    let mut holder = session(&server, "postgres");
    hold(&mut holder, &format!("{SPACE}, hashtext('shop')"));
    let relay = relay(&server, &engine);
    eventually("the fault is reported", || relay.status()[0].fault.is_some());
    let status = relay.status().remove(0);
    let fault = status.fault.unwrap();
    assert!(fault.contains("42501") && status.role == RelayRole::Candidate, "{fault} {:?}", status.role);
    assert_eq!(ask(&mut holder, "SELECT 1"), "1");
    drop(holder);
    eventually("the relay leads", || relay.status()[0].role == RelayRole::Leader);
    eventually("the fault is over", || relay.status()[0].fault.is_none());
}

#[test]
fn r04_a_leader_of_another_engine_keeps_its_session_and_the_candidate_has_a_fault() {
    let (Some(first), Some(second)) = (redis(&[]), redis(&[])) else { return };
    let server = server();
    let leader = relay(&server, &first);
    eventually("the relay leads", || leader.status()[0].role == RelayRole::Leader);
    let term = leader.status()[0].term;
    let other = relay(&server, &second);
    let fault = || other.status().remove(0).fault.unwrap_or_default();
    eventually("the fault is reported", || fault().contains("appends to another engine"));
    assert_eq!((leader.status()[0].role, leader.status()[0].term), (RelayRole::Leader, term));
    drop(leader);
    eventually("the other one leads", || other.status()[0].role == RelayRole::Leader && fault().is_empty());
}
