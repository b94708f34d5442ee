//! The precedence of connection string, service, environment and defaults: this crate connects to the same server with
//! the same role as libpq.

use std::cell::{Cell, RefCell};
use std::process::Command;

use notifyman::{Config, Connection};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::passfile::TestDirectory;
use super::recorder::{Recorder, Visit};
use crate::support::libpq::{self, Libpq};

/// The variable that contains the connection string for the process that connects.
const DSN: &str = "NOTIFYMAN_TEST_DSN";

/// Connects in a child process, which has an environment of its own.
fn dial(environment: &[(&str, &str)], dsn: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "config::sources::child_that_connects", "--nocapture"]);
    let visit = command.env_clear().envs(environment.iter().copied()).env(DSN, dsn).output().unwrap();
    let text = String::from_utf8_lossy(&visit.stdout).into_owned();
    assert!(visit.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&visit.stderr));
    text.lines().find_map(|line| line.split_once("said: ")).map(|(_, said)| said.to_owned()).unwrap_or_default()
}

#[test]
fn child_that_connects() {
    if let Ok(dsn) = std::env::var(DSN) {
        let error = Connection::connect(dsn).expect_err("no login is accepted");
        println!("said: {error}");
    }
}

/// Returns the login attempts in this environment, which must be the same for both clients, and this crate's error.
fn visits(recorder: &Recorder, environment: &[(&str, &str)], dsn: &str) -> (Vec<Visit>, String) {
    let expected = recorder.during(|| drop(Libpq::connecting(environment).connect(dsn)));
    let mut said = String::new();
    let actual = recorder.during(|| said = dial(environment, dsn));
    // Before version 15, libpq asks the system for the home directory, which a test cannot change.
    if libpq::keywords().0 >= 150_000 {
        assert_eq!(expected, actual, "{dsn:?} in {environment:?}: {said}");
    }
    (actual, said)
}

/// Returns a login attempt as `user/database/application_name/password`.
fn visit(recorder: &Recorder, environment: &[(&str, &str)], dsn: &str) -> String {
    let (visits, said) = visits(recorder, environment, dsn);
    let [(_, parameters, password)] = visits.as_slice() else { panic!("{dsn:?}: {visits:?}, {said}") };
    let of = |name: &str| parameters.get(name).cloned().unwrap_or_default();
    format!("{}/{}/{}/{}", of("user"), of("database"), of("application_name"), password.as_deref().unwrap_or_default())
}

#[test]
fn the_sources_have_the_documented_precedence() {
    let recorder = Recorder::start();
    let directory = TestDirectory::new("sources");
    let (port, home) = (recorder.port.to_string(), directory.0.to_string_lossy().into_owned());
    let shop = format!("[shop]\nhost=127.0.0.1\nport={port}\nuser=of_service\ndbname=d\nuser=late\n");
    directory.file(".pg_service.conf", &format!("[other]\nuser=no\n{shop}[shop]\nuser=again\n"), 0o644);
    let services = directory.file("services", &format!("{shop}application_name=of_file\n"), 0o644);
    directory.file("pg_service.conf", "[system]\nuser=of_system\nhost=127.0.0.1\n", 0o644);
    directory.file(".pgpass", "*:*:*:*:of_home\n", 0o600);
    let pgpass = directory.file("pgpass", "*:*:*:*:of_variable\n", 0o600);
    let (services, pgpass) = (services.to_string_lossy().into_owned(), pgpass.to_string_lossy().into_owned());

    let me = Command::new("id").arg("-un").output().unwrap().stdout;
    let me = String::from_utf8(me).unwrap().trim().to_owned();
    let home = ("HOME", home.as_str());
    let place = [home, ("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "of_env"), ("PGAPPNAME", "app")];
    let and = |more: &[(&'static str, &str)]| {
        [&place[..], more].concat().iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>()
    };
    let check = |more: &[(&'static str, &str)], dsn: &str, expected: &str| {
        let environment = and(more);
        let environment: Vec<_> = environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(visit(&recorder, &environment, dsn), expected, "{dsn:?}");
    };
    check(&[], "", "of_env/of_env/app/of_home");
    check(&[("PGDATABASE", "db"), ("PGPASSWORD", "pw")], "", "of_env/db/app/pw");
    check(&[("PGPASSWORD", "pw")], "user=me password=''", "me/me/app/of_home");
    check(&[("PGPASSFILE", &pgpass)], "dbname=d", "of_env/d/app/of_variable");
    check(&[("PGPASSFILE", "/nowhere")], &format!("passfile={pgpass}"), "of_env/of_env/app/of_variable");
    check(&[("PGPASSFILE", "/nowhere")], "application_name=''", "of_env/of_env//");
    check(&[("PGPASSFILE", "")], "", "of_env/of_env/app/of_home");
    // Services.
    check(&[], "service=shop", "of_service/d/app/of_home");
    check(&[("PGSERVICE", "shop")], "", "of_service/d/app/of_home");
    check(&[("PGSERVICE", "missing")], "service=shop user=said", "said/d/app/of_home");
    check(&[("PGSERVICE", "shop"), ("USER", &me)], "user=''", &format!("{me}/d/app/of_home"));
    check(&[("PGSERVICE", "shop"), ("PGSERVICEFILE", &services)], "", "of_service/d/of_file/of_home");
    check(&[("PGSYSCONFDIR", home.1)], "service=system", "of_system/of_system/app/of_home");
    check(
        &[("PGSYSCONFDIR", home.1), ("PGSERVICEFILE", &services)],
        "service=system",
        "of_system/of_system/app/of_home",
    );
    check(&[], "postgres:///d?service=shop", "of_service/d/app/of_home");
    // A keyword of version 19.
    if libpq::keywords().1.contains_key("servicefile") {
        let dsn = format!("service=shop servicefile={services}");
        check(&[("PGSERVICEFILE", "/nowhere")], &dsn, "of_service/d/of_file/of_home");
    }
}

#[test]
fn an_empty_host_is_the_default_and_not_the_variable() {
    let recorder = Recorder::start();
    let port = recorder.port.to_string();
    let said = dial(&[("HOME", "/nowhere"), ("PGHOST", "/no/such/directory"), ("PGPORT", &port)], "host='' user=u");
    // libpq tries only a socket; this crate also tries localhost, as documented.
    assert!(!said.contains("/no/such/directory") && said.contains(&port), "{said}");
    let dsn = "user=u";
    let said = dial(&[("HOME", "/nowhere"), ("PGHOST", "/no/such/directory"), ("PGPORT", &port)], dsn);
    assert!(said.contains("/no/such/directory"), "{said}");
}

#[test]
fn the_service_file_in_the_string_has_precedence() {
    let recorder = Recorder::start();
    let directory = TestDirectory::new("named");
    let text = format!("[shop]\nhost=127.0.0.1\nport={}\nuser=of_file\n", recorder.port);
    let services = directory.file("services", &text, 0o644);
    let dsn = format!("service=shop servicefile={}", services.display());
    let environment = [("HOME", "/nowhere"), ("PGSERVICEFILE", "/nowhere"), ("PGSERVICE", "none")];
    let visits = recorder.during(|| drop(dial(&environment, &dsn)));
    assert_eq!(visits[0].1["user"], "of_file");

    // Without an environment, nothing else is read.
    let config = Config::without_env(&dsn).unwrap();
    assert_eq!((config.get_user(), config.get_passfile()), (Some("of_file"), None));
    let error = Config::without_env("service=shop").unwrap_err();
    assert!(format!("{error:#}").contains("servicefile="), "{error}");
}

#[test]
fn other_parts_of_a_service_file_may_have_any_encoding() {
    let directory = TestDirectory::new("latin1");
    let text = b"# caf\xe9\n[other]\nuser=andr\xe9\n[shop]\nuser=ann # no comment\n[bad]\nport=1\nuser=andr\xe9\n";
    let path = directory.0.join("latin1");
    std::fs::write(&path, text).unwrap();
    let service = |name| Config::without_env(&format!("service={name} servicefile={}", path.display()));
    assert_eq!(service("shop").unwrap().get_user(), Some("ann # no comment"));
    let error = service("bad").unwrap_err().to_string();
    assert!(error.contains("line 8: its value is not UTF-8") && !error.contains("andr"), "{error}");
}

#[test]
fn the_startup_packet_is_the_same_for_any_service_file() {
    let (recorder, directory) = (Recorder::start(), TestDirectory::new("services"));
    let path = directory.0.join("services").to_string_lossy().into_owned();
    let libpq = RefCell::new(Libpq::connecting(&[("HOME", "/nowhere"), ("PGSERVICEFILE", &path)]));
    let line = prop_oneof![
        4 => r"(user|dbname|password|application_name)=[a-z '=#\\]{0,4}",
        3 => r"\[(a|b|ab)\][ x]?",
        1 => r"[ \t]{0,2}(#|user|\[a|a\]|user =x|prot=1|service=b|USER=x)?[ \t\r]{0,2}",
    ];
    let file = proptest::collection::vec(line, 0..10).prop_map(|lines| lines.join("\n"));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() });
    let came = Cell::new(0);
    // An old libpq keeps the white space at the end of a line.
    let keeps_blanks = libpq::keywords().0 < 140_000;
    let outcome = runner.run(&file, |text| {
        prop_assume!(!keeps_blanks || text.lines().all(|line| line == line.trim_end()));
        directory.file("services", &text, 0o644);
        let dsn = format!("service=a host=127.0.0.1 port={} connect_timeout=60", recorder.port);
        let expected = recorder.during(|| drop(libpq.borrow_mut().connect(&dsn)));
        let named = format!("{dsn} servicefile={path}");
        let actual = recorder.during(|| drop(Config::without_env(&named).and_then(Connection::connect)));
        came.set(came.get() + actual.len());
        prop_assert_eq!(expected, actual, "with\n{}", text);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(came.get() > 20, "only {} of 200 files have the service", came.get());
}

#[test]
fn invalid_settings_connect_to_no_server() {
    let recorder = Recorder::start();
    let directory = TestDirectory::new("faults");
    let (port, home) = (recorder.port.to_string(), directory.0.to_string_lossy().into_owned());
    let text = "[nested]\nservice=a\n[unknown]\nprot=1\n[bare]\nhost\n[spaced]\nuser = x\n[good]\nuser=x\n[a]\nb]\n";
    directory.file(".pg_service.conf", text, 0o644);
    let place = [("HOME", home.as_str()), ("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "u")];
    for (dsn, part) in [
        ("service=missing", "no section [missing]"),
        ("service=nested", "line 2: service is not allowed"),
        ("service=unknown", "line 4: unknown keyword prot; did you mean port?"),
        ("service=bare", "line 6"),
        ("service=spaced", "line 8"),
        ("service=good port=none", "port must"),
        ("target_session_attrs=master", "prefer-standby"),
        ("port=1,2", "2 ports for 1"),
        ("hostaddr=1.2.3.4,5.6.7.8 host=a", "1 in host"),
    ] {
        let (visits, said) = visits(&recorder, &place, dsn);
        assert!(visits.is_empty() && said.contains(part), "{dsn}: {visits:?}, {said}");
    }
    let named = [&place[..], &[("PGSERVICEFILE", "/nowhere"), ("PGSERVICE", "good")]].concat();
    let (none, said) = visits(&recorder, &named, "");
    assert!(none.is_empty() && said.contains("service file /nowhere"), "{said}");
}

#[test]
fn values_are_read_as_libpq_reads_them() {
    let recorder = Recorder::start();
    let port = recorder.port;
    let place = [("HOME", "/nowhere")];
    for dsn in [
        format!("host=127.0.0.1 port=' {port} ' user=u connect_timeout=' 5 '"),
        format!("host=127.0.0.1,127.0.0.1 port=1,{port} user=u"),
        format!("host=nowhere.invalid,x hostaddr=127.0.0.1,127.0.0.1 port=1,{port} user=u dbname=' d '"),
        format!("host=127.0.0.1 port={port} user=u keepalives=0 keepalives_idle=-1 options='-c a=b\\\\ c'"),
        format!("host=127.0.0.1 port={port} user=u connect_timeout=5s"),
        format!("host=127.0.0.1 port={port} user=u keepalives=yes"),
        format!("host=127.0.0.1 port={port}x user=u"),
        format!("host=127.0.0.1 port=0x{port:x} user=u"),
        format!("host=127.0.0.1 port={port}, user=u"),
        "host=127.0.0.1 port=65536 user=u".into(),
        format!("host=127.0.0.1 hostaddr=localhost port={port} user=u"),
        format!("postgres://u%40v:p@127.0.0.1:{port}/a%2Fb?application_name=x%20y"),
        format!("postgres://u@127.0.0.1:1,127.0.0.1:{port}/d?fallback_application_name=f"),
        format!("postgres://127.0.0.1:{port}/d?user=é&password=☃"),
    ] {
        visits(&recorder, &place, &dsn);
    }
}
