//! The password file: the client sends the same password as libpq.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use notifyman::{Config, Connection, Error};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::recorder::{Recorder, Visit};
use crate::support::libpq::Libpq;
use crate::support::server::{config, refused, start};
use crate::support::{Options, cluster::Cluster};

/// A directory that is removed when it is dropped.
pub(super) struct TestDirectory(pub(super) PathBuf);

impl TestDirectory {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("notifyman-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the visits when libpq connects, and when this crate connects.
fn both(recorder: &Recorder, libpq: &mut Libpq, dsn: &str) -> [Vec<Visit>; 2] {
    let expected = recorder.during(|| drop(libpq.connect(dsn)));
    let actual = recorder.during(|| drop(Connection::connect(config(dsn))));
    [expected, actual]
}

#[test]
fn the_password_is_the_same_as_libpqs() {
    let (recorder, mut libpq) = (Recorder::start(), Libpq::connecting(&[]));
    let directory = TestDirectory::new("passfile");
    let port = recorder.port;
    let file = directory.file(
        "pgpass",
        &format!(
            "# 127.0.0.1:{port}:shop:ann:comment\n\n\
             127.0.0.1:{port}:shop:ann:by all\n\
             127.0.0.1:{port}:shop:ann:too late\n\
             db.example:{port}:*:*:by\\:name\\\\:rest\n\
             127.0.0.1:1:*:*:another port\n\
             localhost:*:shop:bob:by localhost\r\n\
             *:*:odd\\:name:*:by escape\n\
             ::1:*:*:*:by six\n\
             *:{port}:*:carl:\n\
             *:*:*:dora:last"
        ),
        0o600,
    );
    for (settings, sent) in [
        ("host=127.0.0.1 dbname=shop user=ann", Some("by all")),
        ("host=127.0.0.1 dbname=shop user=ann password=said", Some("said")),
        ("host=127.0.0.1 dbname=shop user=ann password=''", Some("by all")),
        ("host=127.0.0.1 dbname=else user=ann", None),
        ("host=db.example hostaddr=127.0.0.1 dbname=shop user=ann", Some(r"by:name\")),
        ("hostaddr=127.0.0.1 dbname=shop user=ann", Some("by all")),
        ("host=127.0.0.1 dbname=shop user=bob", None),
        ("host=localhost hostaddr=127.0.0.1 dbname=shop user=bob", Some("by localhost")),
        ("host=127.0.0.1 dbname=odd:name user=bob", Some("by escape")),
        ("host=::1 hostaddr=127.0.0.1 dbname=d user=u", Some("by six")),
        ("host=127.0.0.1 user=carl", None),
        ("host=127.0.0.1 user=dora", Some("last")),
        // The first host does not answer; the second has a line of its own.
        ("host=127.0.0.1,127.0.0.1 dbname=shop user=ann port=1,", Some("by all")),
    ] {
        let port = if settings.contains("port=") { format!("{port}") } else { format!(" port={port}") };
        let dsn = format!("{settings}{port} passfile={}", file.display());
        let [expected, actual] = both(&recorder, &mut libpq, &dsn);
        assert_eq!(expected, actual, "{dsn}");
        assert_eq!(actual.iter().find_map(|visit| visit.2.as_deref()), sent, "{dsn}");
    }
}

#[test]
fn the_password_is_the_same_for_any_file() {
    let (recorder, libpq) = (Recorder::start(), std::cell::RefCell::new(Libpq::connecting(&[])));
    let directory = TestDirectory::new("passfiles");
    let field = || prop_oneof![4 => r"\*", 4 => r"\\?[ab]", 1 => r"(\*|a|b|a:b|\\:|\\\\|\*a|é){0,2}"];
    let line = (field(), field(), field(), field(), r"([abé#]|\\:|\\\\|\\a|:|\\){0,4}");
    let line = line.prop_map(|(h, p, d, u, w)| format!("{h}:{p}:{d}:{u}:{w}"));
    let file = proptest::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"));
    let name = || "a|b|ab";
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() });
    let strategy = (file, name(), name(), name());
    let sent = std::cell::Cell::new(0);
    let outcome = runner.run(&strategy, |(text, host, dbname, user)| {
        let file = directory.file("pgpass", &text, 0o600);
        let (port, file) = (recorder.port, file.display());
        let dsn = format!("host={host} hostaddr=127.0.0.1 port={port} dbname={dbname} user={user} passfile={file}");
        let [expected, actual] = both(&recorder, &mut libpq.borrow_mut(), &dsn);
        sent.set(sent.get() + usize::from(actual.iter().any(|visit| visit.2.is_some())));
        prop_assert_eq!(expected, actual, "{} with\n{}", dsn, text);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(sent.get() > 10, "only {} of 150 files have a password", sent.get());
}

fn strict() -> Cluster {
    start(Options::new().auth("scram-sha-256", "right"))
}

#[test]
fn a_file_that_other_users_can_read_is_not_used_and_the_error_states_it() {
    let (server, directory) = (strict(), TestDirectory::new("modes"));
    let dsn = |file: &PathBuf| {
        config(&format!("host=127.0.0.1 port={} user=postgres passfile={}", server.port(), file.display()))
    };
    let line = "*:*:*:*:right\n";
    assert!(Connection::connect(dsn(&directory.file("good", line, 0o600))).is_ok());
    for (mode, part) in [(0o640, "chmod 600"), (0o604, "chmod 600"), (0o610, "chmod 600")] {
        let file = directory.file("open", line, mode);
        let error = refused(dsn(&file));
        let text = format!("{error:#}");
        assert!(error.is_auth() && text.contains(part) && text.contains(&*file.to_string_lossy()), "{text}");
        assert!(!text.contains("right"), "{text}");
    }
    let error = format!("{:#}", refused(dsn(&directory.0)));
    assert!(error.contains("not a regular file"), "{error}");
    let missing = format!("{:#}", refused(dsn(&directory.0.join("missing"))));
    assert!(missing.contains("PGPASSWORD") && !missing.contains("missing"), "no fault, as in libpq: {missing}");
}

#[test]
fn the_error_for_a_wrong_password_names_its_line_but_not_the_password() {
    let (server, directory) = (strict(), TestDirectory::new("wrong"));
    let file = directory.file("pgpass", "# mine\n*:*:*:*:s3cr3t90210\n", 0o600);
    let config = config(&format!("host=127.0.0.1 port={} user=postgres", server.port()));
    let error = refused(config.clone().passfile(&file));
    assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
    assert!(format!("{error:#}").contains(&format!("line 2 of {}", file.display())), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cr3t90210"));

    let file = directory.file("pgpass", "other:*:*:*:right\n", 0o600);
    let error = refused(config.clone().passfile(&file));
    assert!(matches!(&error, Error::Connect(e) if matches!(e.cause(), Error::Auth(_))), "{error}");
    assert!(format!("{error:#}").contains("has no line for this"), "{error}");
    assert!(!format!("{:?}", Config::from(&config)).contains("right"));
}
