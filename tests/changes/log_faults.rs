//! Rule G10: a log after crashes, failovers, copies and restores. Rows of another era are never reported, and a gap is.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use notifyman::changes::{ChangeEvent, Changes, DeliveryMode, Installer, Position, Worker};

use super::log::{gap, logged, logged_by, lost, pass, read, read_from, reader};
use super::support::{Site, client_program, site_in};
use super::worker::{config, connected, ids, next_but_warnings};
use crate::support::cluster::signal;
use crate::support::server::{LIMIT, PausedProcess, ask, connect, eventually, promote, start};
use crate::support::{Cluster, Options, Proxy};

/// Returns the process of the server of this backend type.
fn process(db: &mut notifyman::Connection, backend_type: &str) -> u32 {
    let sql = format!("SELECT pid FROM pg_stat_activity WHERE backend_type = '{backend_type}'");
    ask(db, &sql).parse().unwrap()
}

/// Inserts a row, which must be the next change, and returns the position after it.
#[track_caller]
fn position_after(db: &mut notifyman::Connection, changes: &mut Changes, id: i64) -> Position {
    pass(db, changes, id);
    changes.log_position().expect("a position").clone()
}

#[test]
fn g10_a_crash_is_a_gap_and_lost_commits_are_not_confused_with_read_ones() {
    let (mut server, mut site) = logged();
    let mut changes = connected(reader(&site).name("n"), 1);
    gap(&mut changes);
    pass(&mut site.db, &mut changes, 1);
    // No commit reaches the disk, and changes are reported nevertheless.
    site.run("CHECKPOINT");
    let writer = process(&mut site.db, "walwriter");
    let frozen = PausedProcess::process(writer);
    let before = position_after(&mut site.db, &mut changes, 2);
    let next_xid = |db: &mut _| ask(db, "SELECT txid_current()").parse::<u64>().unwrap();
    let used = next_xid(&mut site.db);
    server.kill().unwrap();
    let _ = signal(writer, "KILL");
    drop(frozen);
    server.restart().unwrap();
    let mut db = connect(&server.url());
    assert_eq!(ask(&mut db, "SELECT string_agg(id::text, ' ') FROM t"), "1", "the commit is lost");
    assert!(next_xid(&mut db) <= used, "transaction ids are used again");
    assert!(gap(&mut changes).contains("the log began again"));
    pass(&mut db, &mut changes, 3);
    // A position from before the crash.
    let mut second = read_from(&site, &before);
    assert!(gap(&mut second).contains("the log began again"));
    pass(&mut db, &mut second, 4);
    assert_eq!(ids(&mut changes, 1), [4]);
    // Positions from after the crash are valid.
    let after = second.log_position().unwrap().clone();
    drop(second);
    db.execute("INSERT INTO t VALUES (5)").unwrap();
    assert_eq!(ids(&mut read_from(&site, &after), 1), [5]);
}

#[test]
fn g10_every_kind_of_crash_is_a_gap_before_later_changes() {
    let (mut server, mut site) = logged();
    let mut changes = read(&site);
    pass(&mut site.db, &mut changes, 1);
    for (id, kind) in (10..).step_by(10).zip(["stop -m immediate", "SIGKILL to the postmaster", "SIGKILL to a backend"])
    {
        let position = changes.log_position().unwrap().clone();
        // The build must survive the crash, although the servers of the tests commit asynchronously.
        site.run("CHECKPOINT");
        match kind {
            "stop -m immediate" => server.stop_immediate().unwrap(),
            "SIGKILL to the postmaster" => server.kill().unwrap(),
            _ => {
                let victim = connect(&server.url());
                signal(victim.pid().unsigned_abs(), "KILL").unwrap();
                eventually("the others have ended", || site.db.execute("SELECT 1").is_err());
            }
        }
        if kind != "SIGKILL to a backend" {
            server.restart().unwrap();
        }
        eventually("the server is there", || {
            notifyman::Connection::connect(config(&server.url())).is_ok_and(|db| {
                site.db = db;
                true
            })
        });
        // This row is written before the first reader: it is below the floor of the era, so the gap covers it.
        site.run(&format!("INSERT INTO t VALUES ({id})"));
        let cause = gap(&mut changes);
        assert!(cause.contains("the log began again"), "{kind}: {cause}");
        let came = {
            site.run(&format!("INSERT INTO t VALUES ({id} + 1)"));
            ids(&mut changes, 1)[0]
        };
        // The reader may have begun the era before.
        if came == id {
            assert_eq!(ids(&mut changes, 1), [id + 1], "{kind}");
        } else {
            assert_eq!(came, id + 1, "{kind}");
        }
        let mut second = read_from(&site, &position);
        assert!(gap(&mut second).contains("the log began again"), "{kind}");
    }
}

#[test]
fn g10_a_prepared_transaction_that_survives_a_crash_is_another_gap_when_it_ends() {
    let (mut server, mut site) = logged_by(Options::new().setting("max_prepared_transactions", "5"), Installer::new());
    let mut changes = read(&site);
    site.run("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'p'");
    pass(&mut site.db, &mut changes, 2);
    server.stop_immediate().unwrap();
    server.restart().unwrap();
    assert!(gap(&mut changes).contains("the log began again"));
    let mut db = connect(&server.url());
    pass(&mut db, &mut changes, 3);
    db.execute("COMMIT PREPARED 'p'").unwrap();
    assert!(gap(&mut changes).contains("before the log began"));
    pass(&mut db, &mut changes, 4);
}

#[test]
fn g10_a_clean_restart_is_no_gap_and_loses_nothing() {
    let (mut server, mut site) = logged();
    let mut changes = connected(reader(&site).name("n"), 1);
    gap(&mut changes);
    let first = position_after(&mut site.db, &mut changes, 0);
    for id in 1..=3 {
        site.run(&format!("INSERT INTO t VALUES ({id})"));
        server.restart().unwrap();
        site.db = connect(&server.url());
        let came = loop {
            match next_but_warnings(&mut changes) {
                (_, ChangeEvent::Connected | ChangeEvent::Disconnected(_)) => {}
                (_, ChangeEvent::Change(change)) => break change.new_data.unwrap()["id"].as_i64(),
                (_, other) => panic!("{other:?}"),
            }
        };
        assert_eq!(came, Some(id));
        // The position is of an earlier start.
        assert_eq!(ids(&mut read_from(&site, &first), id.unsigned_abs() as usize), (1..=id).collect::<Vec<_>>());
    }
    drop(changes);
    // No reader runs in the second start.
    server.restart().unwrap();
    server.restart().unwrap();
    site.db = connect(&server.url());
    site.run("INSERT INTO t VALUES (7)");
    // The last row had not been acknowledged.
    assert_eq!(ids(&mut connected(reader(&site).name("n"), 1), 2), [3, 7]);
    assert_eq!(ids(&mut read_from(&site, &first), 4), [1, 2, 3, 7]);
}

/// A primary, a standby that replicates it through a proxy, and a site whose sessions use another proxy.
struct Failover {
    primary: Cluster,
    standby: Cluster,
    replication: Proxy,
    clients: Proxy,
}

fn failover() -> Failover {
    let replicating = || {
        let options = Options::new().setting("wal_level", "replica").setting("hot_standby", "on");
        options.setting("max_worker_processes", "8").setting("max_wal_senders", "10")
    };
    let primary = start(replicating().hba("host replication all 127.0.0.1/32 trust"));
    let replication = Proxy::start(([127, 0, 0, 1], primary.port()).into());
    let follow = format!("host=127.0.0.1 port={} user=postgres", replication.port());
    let standby = start(replicating().file("standby.signal", "").setting("primary_conninfo", follow));
    let clients = Proxy::start(([127, 0, 0, 1], primary.port()).into());
    Failover { primary, standby, replication, clients }
}

impl Failover {
    /// Returns a worker that connects through the proxy.
    fn worker(&self) -> Worker {
        let url = format!("postgres://postgres@{}/postgres", self.clients.addr());
        Worker::new([config(&url)]).timeout(LIMIT).look_every(Duration::from_millis(5), Duration::from_millis(5))
    }

    /// Waits until the standby has the row.
    fn replicate(&self, id: i64) {
        let mut db = connect(&self.standby.url());
        eventually("it is replicated", || {
            db.query(&format!("SELECT FROM t WHERE id = {id}")).is_ok_and(|rows| rows.len() == 1)
        });
    }
}

#[test]
fn g10_a_promoted_standby_that_lost_commits_is_a_gap_with_and_without_a_checkpoint() {
    for with_checkpoint in [false, true] {
        let mut servers = failover();
        let mut site = Site::at(servers.primary.url());
        site.stop_listening();
        site.run("CREATE TABLE t (id int PRIMARY KEY)");
        site.build(&Installer::new().delivery(DeliveryMode::Log));
        let mut changes = connected(servers.worker().name("n"), 1);
        gap(&mut changes);
        let early = position_after(&mut site.db, &mut changes, 1);
        servers.replicate(1);
        // A worker cannot read from a standby.
        let refused = lost(&mut Worker::new([config(&servers.standby.url())]).timeout(LIMIT).start().unwrap());
        assert!(refused.contains("is a standby") && refused.contains("connect to the primary"), "{refused}");

        servers.replication.refuse();
        servers.replication.cut_rst();
        let late = position_after(&mut site.db, &mut changes, 2);
        servers.primary.kill().unwrap();
        promote(&servers.standby);
        let mut db = connect(&servers.standby.url());
        if with_checkpoint {
            db.execute("CHECKPOINT").unwrap();
        }
        assert_eq!(ask(&mut db, "SELECT string_agg(id::text, ' ') FROM t"), "1", "the last commits are lost");
        servers.clients.set_upstream(([127, 0, 0, 1], servers.standby.port()).into());
        servers.clients.cut_rst();
        assert!(gap(&mut changes).contains("the log began again"));
        pass(&mut db, &mut changes, 3);
        for position in [early, late] {
            let mut second = connected(servers.worker().position(1, position), 1);
            assert!(gap(&mut second).contains("the log began again"));
            drop(second);
        }
        // The worker continues on the new primary.
        drop(changes);
        db.execute("INSERT INTO t VALUES (4)").unwrap();
        assert_eq!(ids(&mut connected(servers.worker().name("n"), 1), 2), [3, 4]);
    }
}

/// Copies the data of a server to another one that is stopped.
fn copy_data(from: &Cluster, to: &Cluster) {
    let run = |program: &str, arguments: &[&Path]| {
        let status = Command::new(program).arg("-pPR").args(arguments).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    };
    std::fs::remove_dir_all(to.data_dir()).unwrap();
    run("cp", &[&from.data_dir(), &to.data_dir()]);
}

#[test]
fn g10_a_copied_data_directory_accepts_positions_from_before_the_copy_only() {
    let (mut original, mut site) = logged();
    let mut changes = read(&site);
    let before = position_after(&mut site.db, &mut changes, 1);
    site.run("INSERT INTO t VALUES (2)");
    assert_eq!(ids(&mut changes, 1), [2]);
    let mut copy = start(Options::new());
    original.stop().unwrap();
    copy.stop().unwrap();
    copy_data(&original, &copy);
    original.restart().unwrap();
    copy.restart().unwrap();
    site.db = connect(&original.url());
    let mut copied = Site::at(copy.url());
    // The reader of the original continues.
    assert!(matches!(next_but_warnings(&mut changes), (_, ChangeEvent::Disconnected(_))));
    assert!(matches!(next_but_warnings(&mut changes), (_, ChangeEvent::Connected)));
    let after = position_after(&mut site.db, &mut changes, 3);
    copied.run("INSERT INTO t VALUES (30), (31), (32)");
    assert_eq!(ids(&mut read_from(&site, &before), 2), [2, 3]);
    assert_eq!(ids(&mut read_from(&copied, &before), 4), [2, 30, 31, 32]);
    let mut wrong = read_from(&copied, &after);
    assert!(gap(&mut wrong).contains("the log began again"));
    pass(&mut copied.db, &mut wrong, 40);
    // The same applies in the other direction.
    let position = wrong.log_position().unwrap().clone();
    assert!(gap(&mut read_from(&site, &position)).contains("the log began again"));
}

#[test]
fn g10_a_log_in_a_copied_database_is_another_log() {
    let (server, mut site) = logged();
    let mut changes = connected(reader(&site).name("n"), 1);
    gap(&mut changes);
    let position = position_after(&mut site.db, &mut changes, 1);
    drop(changes);
    let mut site = site_in(&server);
    site.stop_listening();
    site.run("CREATE TABLE t (id int PRIMARY KEY)");
    site.build(&Installer::new().delivery(DeliveryMode::Log));
    let mut changes = connected(reader(&site).name("n"), 1);
    gap(&mut changes);
    pass(&mut site.db, &mut changes, 1);
    drop(changes);
    site.run("INSERT INTO t VALUES (2)");
    let name = site.ask("SELECT current_database()");
    drop(site);
    let mut admin = connect(&server.url());
    eventually("it is copied", || admin.execute(&format!("CREATE DATABASE copied TEMPLATE {name}")).is_ok());
    let mut copied = Site::at(server.url().strip_suffix("postgres").unwrap().to_owned() + "copied");
    assert_eq!(copied.ask("SELECT count(*) FROM notifyman.log"), "2");
    let mut changes = connected(reader(&copied).name("n"), 1);
    assert!(gap(&mut changes).contains("the log began again"));
    pass(&mut copied.db, &mut changes, 3);
    // A position of another database is refused.
    let error = lost(&mut reader(&copied).position(1, position.clone()).start().unwrap());
    assert!(error.contains(&position.to_string()) && error.contains("of another database"), "{error}");
    assert!(error.contains("Begin without a position"), "{error}");
}

#[test]
fn g10_a_dumped_log_is_not_reported_where_it_is_restored() {
    let Some(pg_dump) = client_program("pg_dump") else { return };
    let (server, mut site) = logged();
    let mut changes = connected(reader(&site).name("n"), 1);
    gap(&mut changes);
    let position = position_after(&mut site.db, &mut changes, 1);
    drop(changes);
    site.run("INSERT INTO t VALUES (2)");
    let file = server.data_dir().join("dump");
    let file = file.to_str().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let run = Command::new(pg_dump.with_file_name(program)).args(arguments).output().unwrap();
        assert!(run.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    };
    run("pg_dump", &["-Fc", "-f", file, &site.url]);
    let other = start(Options::new());
    for restored in [site_in(&server), site_in(&other)] {
        if !restored.url.contains(&format!(":{}/", server.port())) {
            connect(&other.url()).execute("CREATE ROLE notifyman_owner").unwrap();
        }
        run("pg_restore", &["-d", &restored.url, file]);
        let mut db = connect(&restored.url);
        assert_eq!(ask(&mut db, "SELECT count(*) FROM notifyman.log"), "2");
        let mut changes = connected(reader(&restored).name("n"), 1);
        assert!(gap(&mut changes).contains("the log began again"));
        pass(&mut db, &mut changes, 3);
        let error = lost(&mut reader(&restored).position(1, position.clone()).start().unwrap());
        assert!(error.contains("of another database"), "{error}");
    }

    // A restore into the same database while a reader runs.
    let mut changes = read(&site);
    pass(&mut site.db, &mut changes, 5);
    let late = changes.log_position().unwrap().clone();
    // A poll may cause a deadlock, in which the server cancels either session.
    eventually("it is restored", || {
        let mut restore = Command::new(pg_dump.with_file_name("pg_restore"));
        restore.args(["--clean", "--single-transaction", "-d", &site.url, file]).output().unwrap().status.success()
    });
    assert_eq!(site.ask("SELECT string_agg(id::text, ' ') FROM t"), "1 2", "the table is as it was");
    assert!(gap(&mut changes).contains("the log began again"));
    pass(&mut site.db, &mut changes, 6);
    for position in [position, late] {
        assert!(gap(&mut read_from(&site, &position)).contains("the log began again"));
    }
    assert!(gap(&mut connected(reader(&site).name("n"), 1)).contains("the log began again"));
}

#[test]
fn g10_a_log_after_pg_upgrade_is_another_log() {
    let Some(pg_upgrade) = client_program("pg_upgrade") else { return };
    let (mut old, mut site) = logged();
    let mut changes = connected(reader(&site).name("n"), 1);
    gap(&mut changes);
    let position = position_after(&mut site.db, &mut changes, 1);
    drop(changes);
    let mut new = start(Options::new());
    old.stop().unwrap();
    new.stop().unwrap();
    // The upgrade to the same major version also moves everything. It runs as the owner of the data, into a cluster that is
    // not a copy of the template, since the copy would have the system identifier of the old cluster.
    let (old_data, new_data) = (old.data_dir(), new.data_dir());
    let owner = std::fs::metadata(&new_data).unwrap();
    std::fs::remove_dir_all(&new_data).unwrap();
    let bin = pg_upgrade.parent().unwrap();
    let (old, new_port) = (old.port().to_string(), new.port().to_string());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (bin, old_data, new_data, socket) = (text(bin), text(&old_data), text(&new_data), text(new.socket_dir()));
    let initdb = ["--no-sync", "--locale=C", "-A", "trust", "-U", "postgres", "-E", "UTF8", "-D", &new_data];
    let upgrade = ["-b", &bin, "-B", &bin, "-d", &old_data, "-D", &new_data, "-U", "postgres", "-s", &socket];
    let upgrade = [&upgrade[..], &["-p", &old, "-P", &new_port]].concat();
    for (program, arguments) in [("initdb", &initdb[..]), ("pg_upgrade", &upgrade)] {
        let mut run = Command::new(pg_upgrade.with_file_name(program));
        run.args(arguments).current_dir(&socket).uid(owner.uid()).gid(owner.gid());
        let run = run.output().unwrap();
        assert!(run.status.success(), "{program}: {}", String::from_utf8_lossy(&run.stdout));
    }
    new.restart().unwrap();
    let mut site = Site::at(new.url());
    assert_eq!(site.ask("SELECT count(*) FROM notifyman.log"), "1");
    let mut changes = connected(reader(&site).name("n"), 1);
    assert!(gap(&mut changes).contains("the log began again"));
    pass(&mut site.db, &mut changes, 2);
    let error = lost(&mut reader(&site).position(1, position).start().unwrap());
    assert!(error.contains("of another database"), "{error}");
}
