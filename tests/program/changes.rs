//! `notifyman build`, `status`, `verify`, `teardown` and `worker`.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{LIMIT, PROGRAM, Running, cluster, command, connect, run};
use crate::support::Cluster;
use crate::support::tools::not_run;

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Returns a server with a table, on which triggers are installed.
fn built(options: &[&str]) -> Cluster {
    let cluster = cluster();
    connect(&cluster).execute("CREATE TABLE price (id int PRIMARY KEY, cents int)").unwrap();
    run(&[&["build", &cluster.url()], options].concat()).ends_with(0);
    cluster
}

/// Starts a worker, and waits until every database is connected.
fn worker(urls: &[String], options: &[&str]) -> Running {
    connected(worker_command(urls, options), urls.len(), options.contains(&"--exec"))
}

fn worker_command(urls: &[String], options: &[&str]) -> Command {
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let mut command = command(PROGRAM);
    command.args([&["worker"], urls.as_slice(), options].concat());
    command
}

/// Starts a worker, and waits until it has reported that all its databases are connected.
fn connected(mut command: Command, databases: usize, has_command: bool) -> Running {
    let running = Running::spawn(&mut command);
    for number in 1..=databases {
        let line = running.err.next();
        assert!(line.starts_with(&format!("notifyman: database {number} is at ")), "{line}");
    }
    for _ in 0..databases {
        let line = running.err.next();
        assert!(line.starts_with("notifyman: database ") && line.ends_with(" is connected"), "{line}");
        if !has_command {
            assert_eq!(parsed(&running.out.next())["kind"], "connected");
        }
    }
    running
}

#[test]
fn g01_build_verify_and_teardown_have_exit_codes() {
    let cluster = cluster();
    let url = cluster.url();
    let finished = run(&["verify", &url]);
    assert!(finished.ends_with(1).out().contains("nothing is installed"));
    connect(&cluster).execute("CREATE TABLE price (id int PRIMARY KEY); CREATE TABLE \"Log\" (id int)").unwrap();
    let out = run(&["build", "--except-table", "Log", &url]).ends_with(0).out();
    assert_eq!(out, "covered          public.price");
    let out = run(&["build", "--except-table", "Log", &url]).ends_with(0).out();
    assert_eq!(out, "up to date       1 table");
    let out = run(&["verify", &url]).ends_with(0).out();
    assert!(out.contains("tables right     1 of 1") && out.contains("except tables    Log"), "{out}");
    connect(&cluster).execute("ALTER TABLE price DISABLE TRIGGER ALL").unwrap();
    let out = run(&["verify", &url]).ends_with(3).out();
    assert!(out.contains("warning: table public.price: its trigger is disabled"), "{out}");
    let out = run(&["status", "--table", "pri*", &url]).ends_with(0).out();
    assert!(out.contains("disabled         public.price"), "{out}");
    assert_eq!(run(&["teardown", &url]).ends_with(0).out(), "removed          public.price");
    run(&["teardown", &url]).ends_with(0);
    run(&["verify", &url]).ends_with(1);
}

#[test]
fn g01_tables_that_could_not_be_locked_are_listed_and_change_the_exit_code() {
    let cluster = cluster();
    let mut writer = connect(&cluster);
    writer.execute("CREATE TABLE busy (id int); CREATE TABLE calm (id int)").unwrap();
    writer.execute("BEGIN; INSERT INTO busy VALUES (1)").unwrap();
    let quick = ["build", "--lock-timeout", "0.05", "--attempts", "2", &cluster.url()];
    let finished = run(&quick);
    let out = finished.ends_with(1).out();
    assert!(
        out.contains("covered          public.calm") && out.contains("failed           public.busy: ERROR 55P03"),
        "{out}"
    );
    assert!(finished.err().contains("not done for 1 table"), "{finished:?}");
    writer.execute("COMMIT").unwrap();
    run(&quick).ends_with(0);
}

#[test]
fn g01_the_sql_of_a_dry_run_has_the_same_effect_in_psql() {
    let bin = crate::support::cluster::find_server().unwrap();
    if !bin.join("psql").exists() {
        return not_run("this server has no psql");
    }
    let psql = |url: &str, script: &str| {
        let mut psql = Command::new(bin.join("psql"));
        psql.args(["-X", "-q", "-d", url]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut psql = psql.spawn().unwrap();
        psql.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let text = psql.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&text.stderr).into_owned();
        assert!(!text.contains("ERROR") && !text.contains("WARNING"), "{text}");
    };
    let cluster = cluster();
    let url = cluster.url();
    connect(&cluster)
        .execute("CREATE TABLE price (id int PRIMARY KEY); CREATE TABLE \"sto'ck \"\"x\" (id int)")
        .unwrap();
    for options in [["--shape", "rows"].as_slice(), &["--shape", "keys", "--table", "pri*", "--with-query"]] {
        let build = [&["build", &url], options].concat();
        let script = run(&[build.as_slice(), &["--dry-run"]].concat()).ends_with(0).out();
        assert!(
            script.contains("CREATE SCHEMA IF NOT EXISTS notifyman") && script.contains("lock_timeout"),
            "{script}"
        );
        psql(&url, &script);
        run(&["verify", &url]).ends_with(0);
        // Nothing is left to do, so the build prints only the number of tables.
        let out = run(&build).ends_with(0).out();
        assert!(out.starts_with("up to date") && !out.contains('\n'), "{out}");
        psql(&url, &run(&["verify", "--dry-run", &url]).ends_with(0).out());
    }
    let script = run(&["teardown", "--dry-run", &url]).ends_with(0).out();
    run(&["verify", &url]).ends_with(0);
    psql(&url, &script);
    run(&["verify", &url]).ends_with(1);
}

#[test]
fn g01_invalid_arguments_are_usage_errors() {
    let cluster = cluster();
    let url = cluster.url();
    for (args, expected) in [
        (["build", "--table", "nonesuch", &url].as_slice(), "there is no table \"nonesuch\""),
        (&["build", "--shape", "round", &url], "[possible values: rows, keys]"),
        (&["build", "--lock-timeout", "-1", &url], "--lock-timeout"),
        (&["worker", "--retries", "3", &url], "--exec"),
        (&["verify", "host=a port=x"], "port"),
    ] {
        let finished = run(args);
        finished.ends_with(2);
        assert!(finished.err().contains(expected), "{finished:?}");
    }
    let finished = run(&["worker", &url]);
    assert!(finished.ends_with(1).err().contains("nothing is installed at 127.0.0.1"), "{finished:?}");
}

#[test]
fn g08_a_worker_prints_a_line_for_each_change_of_each_database() {
    let clusters = [built(&[]), built(&["--delivery", "log"])];
    let worker = worker(&clusters.each_ref().map(Cluster::url), &["--table", "price", "--tables", "st*"]);
    for (number, cluster) in (1..).zip(&clusters) {
        let mut db = connect(cluster);
        db.execute("INSERT INTO price VALUES (1, 42); CREATE TABLE stock (n numeric); CREATE TABLE other ()").unwrap();
        let line = parsed(&worker.out.next());
        assert_eq!((&line["kind"], &line["database"]), (&"change".into(), &number.into()));
        assert_eq!((&line["table_name"], &line["new_data"]["cents"]), (&"price".into(), &42.into()));
        let line = parsed(&worker.out.next());
        assert_eq!((&line["kind"], &line["command_tag"]), (&"schema".into(), &"CREATE TABLE".into()));
        db.execute("INSERT INTO stock VALUES (12345678901234567890.12345678901234567890)").unwrap();
        let line = worker.out.next();
        assert!(line.contains("{\"n\":12345678901234567890.12345678901234567890}"), "every digit must be kept: {line}");
    }
    worker.signal("TERM");
    worker.finish().ends_with(143);
}

#[test]
fn g08_a_lost_connection_and_the_gap_after_it_have_lines() {
    let mut cluster = built(&[]);
    let worker = worker(&[cluster.url()], &[]);
    cluster.stop().unwrap();
    let next = || loop {
        let line = parsed(&worker.out.next());
        if line["kind"] != "warning" {
            break line;
        }
    };
    assert_eq!(next()["kind"], "disconnected");
    cluster.restart().unwrap();
    assert_eq!(next()["kind"], "connected");
    let gap = next();
    assert!(gap["kind"] == "gap" && gap["cause"].as_str().unwrap().contains("57P01"), "{gap}");
    assert!(gap["since"].as_str().unwrap() < gap["until"].as_str().unwrap(), "{gap}");
    connect(&cluster).execute("INSERT INTO price VALUES (1, 1)").unwrap();
    assert_eq!(next()["kind"], "change");
}

#[test]
fn g08_a_command_is_run_for_each_change_with_the_line_as_its_input() {
    let cluster = built(&[]);
    let worker = worker(
        &[cluster.url()],
        &["--exec", "echo \"$NOTIFYMAN_KIND $NOTIFYMAN_DATABASE $NOTIFYMAN_SCHEMA.$NOTIFYMAN_TABLE\"; cat"],
    );
    connect(&cluster).execute("INSERT INTO price VALUES (1, 42)").unwrap();
    assert_eq!(worker.out.next(), "change 1 public.price");
    assert_eq!(parsed(&worker.out.next())["new_data"]["cents"], 42);
    worker.signal("INT");
    worker.finish().ends_with(130);
}

#[test]
fn g08_a_command_that_fails_is_run_again_and_then_skipped() {
    let cluster = built(&[]);
    let worker = worker(
        &[cluster.url()],
        &["--retries", "2", "--exec", "echo tried; read line; case $line in *:42}*) exit 7;; esac"],
    );
    connect(&cluster).execute("INSERT INTO price VALUES (1, 42); INSERT INTO price VALUES (2, 1)").unwrap();
    for _ in 0..4 {
        assert_eq!(worker.out.next(), "tried");
    }
    let text = worker.err.next();
    assert!(text.contains("the command failed 3 times") && text.contains("exit status: 7"), "{text}");
    worker.signal("TERM");
    worker.finish().ends_with(143);
}

/// Stores a position in a log for a name: starts and ends a worker of this name.
fn store_position(cluster: &Cluster, name: &str) {
    let worker = worker(&[cluster.url()], &["--from", name]);
    assert_eq!(parsed(&worker.out.next())["kind"], "gap");
    worker.signal("TERM");
    worker.finish().ends_with(143);
}

#[test]
fn g10_with_give_up_stop_the_next_worker_begins_with_the_change_that_failed() {
    let cluster = built(&["--delivery", "log"]);
    store_position(&cluster, "shop");
    connect(&cluster).execute("INSERT INTO price VALUES (1, 1), (2, 42), (3, 3)").unwrap();
    let fails = ["--retries", "1", "--give-up", "stop", "--exec", "read line; case $line in *:42}*) exit 1;; esac"];
    worker(&[cluster.url()], &[&["--from", "shop"], &fails[..]].concat()).finish().ends_with(1);
    let next = worker(&[cluster.url()], &["--from", "shop"]);
    assert_eq!(parsed(&next.out.next())["new_data"]["id"], 2);
    assert_eq!(parsed(&next.out.next())["new_data"]["id"], 3);
    next.signal("TERM");
    next.finish().ends_with(143);
}

#[test]
fn g08_a_signal_waits_for_the_running_command() {
    let cluster = built(&[]);
    let worker = worker(&[cluster.url()], &["--exec", "echo begun; sleep 5; echo done"]);
    connect(&cluster).execute("INSERT INTO price VALUES (1, 1), (2, 2)").unwrap();
    assert_eq!(worker.out.next(), "begun");
    worker.signal("TERM");
    assert_eq!(worker.out.next(), "done");
    let finished = worker.finish();
    finished.ends_with(143);
    assert!(finished.err().contains("events for which the command was not run: 1"), "{finished:?}");
}

#[test]
fn g08_a_terminal_shows_a_status_line_and_a_pipe_does_not() {
    let cluster = built(&[]);
    // `script` runs a program on a terminal, and copies the terminal's output.
    let Ok(_) = Command::new("script").arg("--version").output() else {
        return not_run("there is no `script`, which would run the worker on a terminal");
    };
    let line = format!("{PROGRAM} worker '{}' >/dev/null", cluster.url());
    let mut terminal = command("script");
    // A line of a terminal may end with a carriage return, so the output is not split into lines.
    terminal
        .args(["-qefc", &format!("timeout -s INT 10 {line}"), "/dev/null"])
        .stdin(Stdio::null())
        .env("TERM", "xterm");
    let shown = terminal.output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("0 changes, 0 gaps, 0 waiting"), "{shown}");

    let worker = worker(&[cluster.url()], &[]);
    connect(&cluster).execute("INSERT INTO price VALUES (1, 1)").unwrap();
    worker.out.next();
    worker.signal("INT");
    assert_eq!(worker.finish().ends_with(130).err(), "");
}

#[test]
fn g10_a_reader_that_closes_the_output_ends_a_worker_with_code_4_and_unwritten_lines_are_repeated() {
    let cluster = built(&["--delivery", "log"]);
    let mut db = connect(&cluster);
    store_position(&cluster, "shop");
    db.execute("INSERT INTO price SELECT generate_series(1, 3), 0").unwrap();
    // The reader reads `connected` and three changes, and then closes the pipe.
    let mut command = worker_command(&[cluster.url()], &["--quiet", "--from", "shop"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let read = |out: &mut std::io::BufReader<_>| {
        let mut line = String::new();
        std::io::BufRead::read_line(out, &mut line).unwrap();
        parsed(&line)
    };
    assert_eq!(read(&mut out)["kind"], "connected");
    for id in 1..=3 {
        assert_eq!(read(&mut out)["new_data"]["id"], id);
    }
    drop(out);
    let (begun, mut last) = (Instant::now(), 3);
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < LIMIT, "the worker does not notice");
        // A process that another test is starting may still hold the reader's end of the pipe.
        last += 1;
        db.execute(&format!("INSERT INTO price VALUES ({last}, 0)")).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let finished = child.wait_with_output().unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    let text = String::from_utf8_lossy(&finished.stderr).into_owned();
    assert!(text.contains("standard output was closed by its reader"), "{text}");
    // Lines that could not be written are not acknowledged; the last ones written may not be, either.
    let next = worker(&[cluster.url()], &["--from", "shop"]);
    let first = parsed(&next.out.next())["new_data"]["id"].as_i64().unwrap();
    assert!((4..=last).contains(&first), "{first} of {last}");
    for id in first + 1..=last {
        assert_eq!(parsed(&next.out.next())["new_data"]["id"], id);
    }
    next.signal("TERM");
    next.finish().ends_with(143);
}

#[test]
fn g08_json_that_no_parser_accepts_reaches_the_command() {
    for delivery in ["notify", "log"] {
        let cluster = cluster();
        let mut db = connect(&cluster);
        db.execute("CREATE TABLE t (id int PRIMARY KEY, j json)").unwrap();
        run(&["build", "--delivery", delivery, &cluster.url()]).ends_with(0);
        let worker = worker(&[cluster.url()], &["--table", "public.t", "--exec", "echo $NOTIFYMAN_TABLE; cat"]);
        let nested = "[".repeat(130) + &"]".repeat(130);
        let values = ["{}", r#"{"a": "\ud800"}"#, "1e400", &nested, "[\n1]", "{}"];
        for (id, value) in (1..).zip(values) {
            db.execute(&format!("INSERT INTO t VALUES ({id}, '{value}')")).unwrap();
        }
        for (id, value) in (1..).zip(values) {
            assert_eq!(worker.out.next(), "t");
            let line = worker.out.next();
            let expected = format!("\"new_data\":{{\"id\":{id},\"j\":{}}}", value.replace('\n', " "));
            assert!(line.contains(&expected), "{line}");
        }
        worker.signal("TERM");
        worker.finish().ends_with(143);
    }
}

#[test]
fn g08_a_worker_can_start_before_its_server_and_reports_that() {
    let mut cluster = built(&[]);
    let url = cluster.url();
    cluster.stop().unwrap();
    let worker = Running::spawn(&mut worker_command(&[url], &["--quiet"]));
    let text = worker.err.next();
    assert!(text.contains("database 1 is disconnected, reconnecting: cannot connect to 127.0.0.1"), "{text}");
    assert_eq!(parsed(&worker.out.next())["kind"], "disconnected");
    cluster.restart().unwrap();
    assert_eq!(parsed(&worker.out.next())["kind"], "connected");
    connect(&cluster).execute("INSERT INTO price VALUES (1, 1)").unwrap();
    assert_eq!(parsed(&worker.out.next())["kind"], "change");
    worker.signal("TERM");
    assert_eq!(worker.finish().ends_with(143).err(), "");
}

#[cfg(target_os = "linux")]
#[test]
fn g08_more_databases_take_more_sessions_and_no_more_threads() {
    let clusters = [built(&[]), built(&["--delivery", "log"])];
    let mut databases = clusters.each_ref().map(Cluster::url).to_vec();
    for n in 1..=4 {
        connect(&clusters[0]).execute(&format!("CREATE DATABASE shop{n} TEMPLATE template0")).unwrap();
        let url = format!("{}/shop{n}", clusters[0].url().strip_suffix("/postgres").unwrap());
        run(&["build", "--oversize", "spill", &url]).ends_with(0);
        databases.push(url);
    }
    let threads_of = |databases: &[String]| {
        let worker = worker(databases, &[]);
        let tasks = std::fs::read_dir(format!("/proc/{}/task", worker.child.id())).unwrap().count();
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'notifyman'";
        let sessions = clusters
            .each_ref()
            .map(|cluster| connect(cluster).query(sessions).unwrap()[0].get(0).unwrap().into_owned());
        worker.signal("TERM");
        worker.finish().ends_with(143);
        (tasks, sessions)
    };
    let (one, sessions) = threads_of(&databases[..1]);
    assert_eq!(sessions, ["1", "0"]);
    let (all, sessions) = threads_of(&databases);
    assert_eq!((all, sessions), (one, ["5".to_owned(), "1".to_owned()]));
}

#[test]
fn g10_a_change_is_reported_again_if_its_command_had_not_ended() {
    let cluster = built(&["--delivery", "log"]);
    store_position(&cluster, "shop");
    let exec = ["--from", "shop", "--exec", "read line; echo begun; exec >&- 2>&-; sleep 5"];
    let first = worker(&[cluster.url()], &exec);
    connect(&cluster).execute("INSERT INTO price VALUES (1, 1)").unwrap();
    assert_eq!(first.out.next(), "begun");
    first.signal("KILL");
    drop(first);
    let second = worker(&[cluster.url()], &["--from", "shop", "--exec", "cat"]);
    assert_eq!(parsed(&second.out.next())["new_data"]["id"], 1);
    second.signal("TERM");
    second.finish().ends_with(143);
}

#[test]
fn g10_a_worker_can_begin_at_a_past_time_and_at_a_position() {
    let cluster = built(&["--delivery", "log"]);
    let mut db = connect(&cluster);
    let first = worker(&[cluster.url()], &["--positions"]);
    db.execute("INSERT INTO price VALUES (1, 1), (2, 2), (3, 3)").unwrap();
    let lines: Vec<_> = (0..3).map(|_| parsed(&first.out.next())).collect();
    first.signal("TERM");
    first.finish().ends_with(143);
    let position = lines[0]["position"].as_str().unwrap();
    for options in [
        ["--from-position", position].as_slice(),
        &["--replay-since", "1h"],
        &["--replay-since", "2020-01-01T00:00:00Z"],
    ] {
        let again = worker(&[cluster.url()], options);
        let mut line = parsed(&again.out.next());
        if options[0] == "--replay-since" {
            assert!(line["cause"].as_str().unwrap().contains("does not go back"), "{line}");
            line = parsed(&again.out.next());
            assert_eq!(line["new_data"]["id"], 1);
            line = parsed(&again.out.next());
        }
        assert_eq!((&line["new_data"]["id"], line.get("position")), (&2.into(), None));
        assert_eq!(parsed(&again.out.next())["new_data"]["id"], 3);
        again.signal("TERM");
        again.finish().ends_with(143);
    }
    for (options, expected) in [
        (["--from-position", "here"], "is not a position in a log"),
        (["--replay-since", "yesterday"], "a span such as 90s"),
        (["--from", ""], "1 to 63 bytes"),
    ] {
        let finished = run(&[&["worker", &cluster.url()], &options[..]].concat());
        assert!(finished.ends_with(2).err().contains(expected), "{finished:?}");
    }
    let mut parts: Vec<_> = position.split('.').collect();
    parts[2] = "1";
    let finished = run(&["worker", &cluster.url(), "--from-position", &parts.join(".")]);
    assert!(finished.ends_with(1).err().contains("is of another database"), "{finished:?}");
}
