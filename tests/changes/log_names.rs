//! Rule G10: positions and names, from which a reader continues.

use std::time::{Duration, SystemTime};

use notifyman::changes::{ChangeEvent, Changes, Installer, Position, Worker};
use notifyman::{Connection, Error};

use super::log::{gap, logged, logged_by, lost, pass, read, read_from, reader};
use super::support::{Site, site_in};
use super::worker::{NAME, config, connected, ids, next, next_but_warnings, worker};
use crate::support::server::{LIMIT, PausedProcess, eventually, start, terminate};
use crate::support::{Cluster, Options, Proxy};

/// Starts the first worker of this name, inserts a row, and reads it.
#[track_caller]
fn begin(site: &mut Site, name: &str, id: i64) -> Changes {
    let mut changes = connected(reader(site).name(name), 1);
    assert!(gap(&mut changes).contains("no position was kept under this name"));
    pass(&mut site.db, &mut changes, id);
    changes
}

/// Returns the next event, which must be a warning.
#[track_caller]
fn warning(changes: &mut Changes) -> String {
    match next(changes) {
        (1, ChangeEvent::Warning(warning)) => warning,
        (_, other) => panic!("{other:?} instead of a warning"),
    }
}

/// Returns the processes of the workers' sessions.
fn pids(db: &mut Connection) -> Vec<i32> {
    let rows = db.query(&format!("SELECT pid FROM pg_stat_activity WHERE application_name = '{NAME}'")).unwrap();
    rows.iter().map(|row| row.get(0).unwrap().parse().unwrap()).collect()
}

#[test]
fn g10_a_name_continues_after_the_last_acknowledged_event() {
    let (_server, mut site) = logged();
    let mut changes = begin(&mut site, "n", 1);
    site.run("INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)");
    assert_eq!(ids(&mut changes, 1), [2]);
    // The third row is in the queue, and the second is acknowledged.
    changes.acknowledge();
    drop(changes);
    site.run("INSERT INTO t VALUES (4)");
    let mut changes = connected(reader(&site).name("n"), 1);
    assert_eq!(ids(&mut changes, 2), [3, 4]);
    drop(changes);
    // The fourth row is not acknowledged, so it is reported again.
    let mut changes = connected(reader(&site).name("n"), 1);
    assert_eq!(ids(&mut changes, 1), [4]);
    changes.acknowledge();
    // Another name has a position of its own, and both are independent.
    let mut other = begin(&mut site, "other", 5);
    assert_eq!(ids(&mut changes, 1), [5]);
    pass(&mut site.db, &mut other, 6);
    assert_eq!(ids(&mut changes, 1), [6]);
    drop((changes, other));
    assert_eq!(site.ask("SELECT string_agg(name, ' ' ORDER BY name) FROM notifyman.position"), "n other");
}

#[test]
fn g10_a_worker_that_ends_or_is_stopped_saves_all_acknowledgements() {
    let (_server, mut site) = logged();
    drop(begin(&mut site, "n", 0));
    for round in 0..10 {
        let mut changes = connected(reader(&site).name("n"), 1);
        if round == 0 {
            assert_eq!(ids(&mut changes, 1), [0]);
        }
        pass(&mut site.db, &mut changes, round + 1);
        // After a stop, the end of the iterator acknowledges the last event.
        if round % 2 == 0 {
            changes.acknowledge();
        } else {
            changes.stopper().stop();
            assert!(changes.next().is_none());
        }
    }
}

#[test]
fn g10_the_second_worker_of_a_name_waits_with_warnings_and_takes_over() {
    let (_server, mut site) = logged();
    let mut first = begin(&mut site, "o'n", 1);
    let mut second = reader(&site).name("o'n").start().unwrap();
    let waits = warning(&mut second);
    assert!(
        waits.contains("another worker of the name \"o'n\" is running") && waits.contains("Give each a name"),
        "{waits}"
    );
    assert!(waits.contains(&format!("application {NAME}")) && waits.contains("role postgres"), "{waits}");
    assert!(warning(&mut first).contains("another worker of the name \"o'n\" waits"));
    pass(&mut site.db, &mut first, 2);
    first.acknowledge();
    // Each worker warns once.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((first.waiting(), second.waiting()), (0, 0));
    drop(first);
    site.run("INSERT INTO t VALUES (3)");
    assert!(matches!(next(&mut second), (1, ChangeEvent::Connected)));
    assert_eq!(ids(&mut second, 1), [3]);
    pass(&mut site.db, &mut second, 4);
}

#[test]
fn g10_a_terminated_session_is_restored_without_a_gap_or_repetition() {
    let (server, mut site) = logged();
    let mut changes = begin(&mut site, "n", 0);
    let mut expected = 1;
    for round in 0..5 {
        site.run(&format!("INSERT INTO t SELECT generate_series({expected}, {expected} + 2499)"));
        // Within a batch, and after it.
        let first = if round % 2 == 0 { 1300 } else { 2500 };
        assert_eq!(ids(&mut changes, first), (expected..).take(first).collect::<Vec<_>>());
        for pid in pids(&mut site.db) {
            terminate(&server, pid);
        }
        let mut states = Vec::new();
        let mut came = first;
        site.run(&format!("INSERT INTO t VALUES ({expected} + 2500)"));
        while came < 2501 {
            match next_but_warnings(&mut changes) {
                (_, ChangeEvent::Change(change)) => {
                    assert_eq!(change.new_data.unwrap()["id"], expected + i64::try_from(came).unwrap());
                    came += 1;
                }
                (_, ChangeEvent::Disconnected(_)) => states.push("disconnected"),
                (_, ChangeEvent::Connected) => states.push("connected"),
                (_, other) => panic!("{other:?}"),
            }
        }
        assert_eq!(states, ["disconnected", "connected"]);
        expected += 2501;
    }
}

#[test]
fn g10_a_half_open_session_of_a_worker_is_terminated_by_its_next_session() {
    let (server, mut site) = logged();
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let url = format!("postgres://postgres@{},127.0.0.1:{}/postgres?connect_timeout=2", proxy.addr(), server.port());
    let mut changes = connected(Worker::new([config(&url)]).timeout(LIMIT).name("n"), 1);
    gap(&mut changes);
    pass(&mut site.db, &mut changes, 1);
    let old = pids(&mut site.db);
    // The server does not notice that the client has closed the connection. The next connection takes another path.
    proxy.black_hole();
    site.run("INSERT INTO t VALUES (2)");
    let (_, ChangeEvent::Disconnected(error)) = next_but_warnings(&mut changes) else { panic!("not noticed") };
    assert!(error.is_timeout(), "{error}");
    assert_eq!(pids(&mut site.db), old);
    assert!(matches!(next_but_warnings(&mut changes), (_, ChangeEvent::Connected)));
    assert_eq!(ids(&mut changes, 1), [2]);
    let new = pids(&mut site.db);
    assert!(new.len() == 1 && new != old, "{old:?} {new:?}");
}

#[test]
fn g10_a_session_that_is_stopped_keeps_its_name_until_it_continues() {
    let (_server, mut site) = logged();
    let mut changes = begin(&mut site, "n", 1);
    let old = pids(&mut site.db);
    let frozen = PausedProcess::process(old[0].unsigned_abs());
    site.run("INSERT INTO t VALUES (2)");
    assert!(matches!(next_but_warnings(&mut changes), (_, ChangeEvent::Disconnected(_))));
    // The server cannot terminate the session, so the reader waits with a warning.
    let waits = warning(&mut changes);
    assert!(waits.contains("another worker of the name") && waits.contains(&format!("process {},", old[0])), "{waits}");
    drop(frozen);
    assert!(matches!(next_but_warnings(&mut changes), (_, ChangeEvent::Connected)));
    assert_eq!(ids(&mut changes, 1), [2]);
}

#[test]
fn g10_a_position_that_is_saved_with_the_effect_gives_each_change_once() {
    let (server, mut site) = logged();
    let mut effects = site_in(&server);
    effects.run("CREATE TABLE effect (id int); CREATE TABLE place (place text)");
    let mut changes = read(&site);
    pass(&mut site.db, &mut changes, 0);
    effects.run(&format!("INSERT INTO place VALUES ('{}')", changes.log_position().unwrap()));
    drop(changes);
    let mut random = 7_u64;
    let mut random = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let count = |effects: &mut Site| effects.ask("SELECT count(*) FROM effect").parse::<u64>().unwrap();
    let (mut written, mut open) = (0, site.session());
    for round in 0..40 {
        // Transactions of many sizes, some of which are open while others are read.
        let size = [1, 3, 40, 1500][random(4) as usize];
        site.run(&format!("INSERT INTO t SELECT generate_series({written} + 1, {written} + {size})"));
        written += size;
        match round % 4 {
            0 => open.execute(&format!("BEGIN; INSERT INTO t VALUES (-{round} - 1)")).unwrap(),
            2 => open.execute("COMMIT").unwrap(),
            _ => 0,
        };
        let position: Position = effects.ask("SELECT place FROM place").parse().unwrap();
        let mut changes = read_from(&site, &position);
        let committed: u64 = site.ask("SELECT count(*) FROM t WHERE id <> 0").parse().unwrap();
        for _ in 0..random(400).min(committed - count(&mut effects)) {
            let id = ids(&mut changes, 1)[0];
            let place = changes.log_position().unwrap();
            effects.run(&format!("BEGIN; INSERT INTO effect VALUES ({id}); UPDATE place SET place = '{place}'"));
            // The consumer may crash before its commit, or after it.
            if random(200) == 0 {
                effects.run("ROLLBACK");
                break;
            }
            effects.run("COMMIT");
        }
    }
    let position: Position = effects.ask("SELECT place FROM place").parse().unwrap();
    let mut changes = read_from(&site, &position);
    effects.run("BEGIN");
    while count(&mut effects) < written + 10 {
        let id = ids(&mut changes, 1)[0];
        effects.run(&format!("INSERT INTO effect VALUES ({id})"));
    }
    effects.run("COMMIT");
    pass(&mut site.db, &mut changes, written.cast_signed() + 1);
    site.run(&format!("DELETE FROM t WHERE id IN (0, {written} + 1)"));
    let table = site.ask("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t");
    assert!(effects.ask("SELECT string_agg(id::text, ' ' ORDER BY id) FROM effect") == table, "each once");
}

#[test]
fn g10_unusable_positions_are_refused_with_the_reason_and_the_remedy() {
    let (server, mut site) = logged();
    let mut changes = read(&site);
    pass(&mut site.db, &mut changes, 1);
    let text = changes.log_position().unwrap().to_string();
    for wrong in ["", "2201", &text[2..], &text[..text.len() - 2], "1.1.1.1.1:1:.0", "0/16B3748"] {
        let error = wrong.parse::<Position>().unwrap_err().to_string();
        assert!(error.contains(&format!("{wrong:?}")) && error.contains("begin without a position"), "{error}");
    }
    let refusal = |site: &Site, text: &str| {
        let error = lost(&mut reader(site).position(1, text.parse().unwrap()).start().unwrap());
        assert!(error.contains(text) && error.contains("Begin without a position"), "{error}");
        error
    };
    let built = |server: &Cluster| {
        let mut site = site_in(server);
        site.run("CREATE TABLE t (id int PRIMARY KEY)");
        site.build(&Installer::new().delivery(notifyman::changes::DeliveryMode::Log));
        site
    };
    let (other_database, other_cluster) = (built(&server), built(&start(Options::new())));
    assert!(refusal(&other_database, &text).contains("of another database"));
    drop(other_cluster);

    // The position is newer than the server.
    let parts: Vec<&str> = text.split('.').collect();
    let snapshot: Vec<&str> = parts[4].split(':').collect();
    let newer = snapshot[1].parse::<u64>().unwrap() + 1000;
    let newer = format!("{newer}:{newer}:");
    assert!(refusal(&site, &text.replace(parts[4], &newer)).contains("is newer than the server"));
    // The position is of another cluster.
    assert!(refusal(&site, &text.replacen(parts[1], "12345", 1)).contains("of another database"));
    // The position is of an unknown start, and so of another era.
    let mut changes = connected(reader(&site).position(1, text.replacen(parts[3], "12345", 1).parse().unwrap()), 1);
    assert!(gap(&mut changes).contains("the log began again"));

    // The position under a name is damaged.
    drop(begin(&mut site, "n", 2));
    site.run("UPDATE notifyman.position SET place = 'x' WHERE name = 'n'");
    let error = lost(&mut reader(&site).name("n").start().unwrap());
    assert!(error.contains("kept under \"n\" is damaged") && error.contains("\"x\""), "{error}");
    // The worker has no such database.
    let error = reader(&site).position(2, text.parse().unwrap()).start().unwrap_err();
    assert!(matches!(error, Error::Value(_)) && format!("{error:#}").contains("numbered from 1 to 1"), "{error}");
}

#[test]
fn g10_a_name_has_1_to_63_bytes_of_any_characters() {
    let (_server, mut site) = logged();
    let long = "é".repeat(32);
    for name in ["", "a\0b", &long, &"x".repeat(64)] {
        let error = worker(&[&site]).name(name).start().unwrap_err();
        assert!(matches!(error, Error::Value(_)), "{error:?}");
        let error = format!("{error:#}");
        assert!(error.contains("1 to 63 bytes") && error.contains(&format!("{name:?}")), "{error}");
    }
    for (id, name) in (1..).zip([long[..62].to_owned() + "x", "'\\\"$1 {xmax}\n".to_owned(), " ".to_owned()]) {
        drop(begin(&mut site, &name, id));
        site.run(&format!("DELETE FROM t WHERE id = {id}"));
        let mut changes = connected(reader(&site).name(&name), 1);
        assert_eq!(ids(&mut changes, 1), [id]);
    }
}

#[test]
fn g10_a_replay_reports_exactly_the_commits_after_the_last_mark_before_a_time() {
    // Marks have a distance of at least 600 ms.
    let (_server, mut site) = logged_by(Options::new(), Installer::new().keep_for(Duration::from_secs(60)));
    let early = SystemTime::now() - Duration::from_secs(3600);
    let mut changes = read(&site);
    let mut open = site.session();
    open.execute("BEGIN; INSERT INTO t VALUES (0)").unwrap();
    for id in 1..=20 {
        pass(&mut site.db, &mut changes, id);
        if id % 5 == 0 {
            let marked = format!("SELECT count(*) FROM notifyman.mark WHERE number > {id}");
            eventually("it is marked", || site.ask(&marked) != "0");
        }
    }
    open.execute("COMMIT").unwrap();
    assert_eq!(ids(&mut changes, 1), [0]);
    drop(changes);
    let marks = site.db.query("SELECT number, (extract(epoch FROM at) * 1000)::bigint FROM notifyman.mark ORDER BY at");
    for row in marks.unwrap() {
        let number: i64 = row.get(0).unwrap().parse().unwrap();
        let millis: u64 = row.get(1).unwrap().parse().unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis + 1);
        let mut changes = connected(reader(&site).replay_since(at), 1);
        // Row 0 has the first number, and was committed last. Each other number is the id plus one.
        let expected: Vec<_> = std::iter::once(0).chain(number.max(1)..=20).collect();
        let mut came = ids(&mut changes, expected.len());
        came.sort_unstable();
        assert_eq!(came, expected, "after {number}");
        assert_eq!(changes.waiting(), 0);
        drop(changes);
    }
    let mut changes = connected(reader(&site).replay_since(early), 1);
    assert!(gap(&mut changes).contains("does not go back to the requested time"));
    assert_eq!(ids(&mut changes, 21), (0..=20).collect::<Vec<_>>());
    pass(&mut site.db, &mut changes, 100);
}
