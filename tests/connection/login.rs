//! C02: logins on real servers, and the encoding on which quoting relies.

use notifyman::{AuthMethod, Connection, Error, ProtocolError};

use crate::support::server::{ask, config, connect, latin1, next, pairs, refused, session, sql_ascii, start, utf8};
use crate::support::tools::not_run;
use crate::support::{Cluster, Options, Peer, Step, msg, subprocess};

fn asking(method: &str) -> Cluster {
    start(Options::new().auth(method, "it's ünïcode \\ and long"))
}

fn lets_in_by(method: &str) {
    let server = asking(method);
    let right = config(&server.url()).password("it's ünïcode \\ and long");
    let mut db = Connection::connect(right.clone()).unwrap();
    assert_eq!(ask(&mut db, "SELECT current_user"), "postgres");

    for wrong in ["", "it's", "IT'S ÜNÏCODE \\ AND LONG"] {
        let error = refused(right.clone().password(wrong));
        assert!(error.is_auth() && !error.is_transient(), "{wrong:?}: {error}");
    }
    let error = refused(config(&server.url()));
    assert!(error.is_auth() && format!("{error:#}").contains("password"), "{error}");
}

#[test]
fn c02_a_scram_login_accepts_only_the_right_password() {
    lets_in_by("scram-sha-256");
}

#[test]
fn c02_a_scram_password_with_any_characters_is_prepared_as_by_the_server() {
    let server = start(Options::new().auth("scram-sha-256", "admin"));
    let mut admin = Connection::connect(config(&server.url()).password("admin")).unwrap();
    let major = admin.server_version().split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < 14) {
        return not_run("servers before 14 prepare passwords in another way");
    }
    admin.execute("CREATE ROLE c02_any LOGIN").unwrap();
    let alone = [
        "\u{ad}",
        "\u{feff}\u{200d}",
        "\u{a0}",
        "\u{200b}",
        "\u{2150}",
        "\u{627}\u{653}",
        "\u{5d0}\u{5b4}",
        "\u{5d0}a",
        "1\u{5d0}",
        "\u{5d0}1\u{5d1}",
        "a\u{30a}",
        "\u{340}",
        "\u{7}\u{e9}",
        "\u{1f600}",
        "\u{fdfa}",
        "\u{1e9b}\u{323}",
        "\u{1100}\u{1161}\u{11a8}",
    ];
    // Characters that are mapped, normalized, prohibited and unassigned, and the bounds of the tables.
    let codes = [
        0xaa, 0xad, 0xb5, 0xc5, 0xdf, 0x149, 0x221, 0x2fe, 0x340, 0x343, 0x34f, 0x378, 0x37a, 0x5d0, 0x61c, 0x6dd,
        0x180e, 0x1d2c, 0x1e9e, 0x2000, 0x200b, 0x200c, 0x200e, 0x2024, 0x2028, 0x202f, 0x2060, 0x2064, 0x2126, 0x213b,
        0x2150, 0x2153, 0x2189, 0x2460, 0x2ffb, 0x3000, 0x3231, 0x3250, 0xac00, 0xe000, 0xf900, 0xfa30, 0xfa70, 0xfb01,
        0xfdd0, 0xfe0f, 0xfe10, 0xfeff, 0xff21, 0xfffd, 0x1d15e, 0x1d400, 0x1ee00, 0x1f100, 0x1f200, 0x2f800, 0xe0001,
        0x10fffd,
    ];
    let between = codes.map(|code| format!("x{}y", char::from_u32(code).unwrap()));
    let long = ["x".repeat(80) + "\u{2150}", "x".repeat(60) + "\u{2150}", "\u{2150}".repeat(21), "\u{e9}".repeat(50)];
    for password in alone.map(String::from).into_iter().chain(between).chain(long) {
        admin.execute(&format!("ALTER ROLE c02_any PASSWORD '{password}'")).unwrap();
        let right = config(&server.url()).user("c02_any").password(&password);
        if let Err(error) = Connection::connect(right) {
            panic!("{}: {error}", password.escape_unicode());
        }
    }
}

#[test]
fn c02_an_md5_login_accepts_only_the_right_password() {
    lets_in_by("md5");
}

#[test]
fn c02_a_cleartext_login_accepts_only_the_right_password() {
    lets_in_by("password");
}

#[test]
fn c02_a_login_with_trust_needs_no_password() {
    let mut db = session();
    assert_eq!(ask(&mut db, "SELECT current_user"), "postgres");
    assert_eq!(ask(&mut db, "SELECT pg_backend_pid()"), db.pid().to_string());
    let version = ask(&mut db, "SHOW server_version");
    assert_eq!(db.server_version(), version, "a distribution's version string included");
}

#[test]
fn c02_only_allowed_methods_are_used() {
    use AuthMethod::{Md5, None, Password, ScramSha256};
    let all = [None, Password, Md5, ScramSha256];
    for (method, used) in [("trust", None), ("password", Password), ("md5", Md5), ("scram-sha-256", ScramSha256)] {
        let server = if method == "trust" { start(Options::new()) } else { start(Options::new().auth(method, "pw")) };
        let base = config(&server.url()).password("pw");
        Connection::connect(base.clone().require_auth([used])).unwrap();
        let error = refused(base.require_auth(all.into_iter().filter(|method| *method != used)));
        assert!(matches!(&error, Error::Connect(e) if matches!(e.cause(), Error::Auth(_))), "{method}: {error}");
        assert!(error.is_auth() && !error.is_transient() && format!("{error:#}").contains("require_auth"), "{error}");
    }
}

#[test]
fn c02_a_missing_database_or_role_is_reported_with_its_code() {
    let nowhere = format!("postgres://postgres@127.0.0.1:{}/nowhere", utf8().port());
    let error = refused(config(&nowhere));
    assert_eq!(error.sqlstate(), Some("3D000"), "{error}");
    assert!(!error.is_transient() && !error.is_auth());
    let error = refused(config(&utf8().url()).user("unknown role"));
    assert_eq!(error.sqlstate(), Some("28000"), "{error}");
}

#[test]
fn c02_options_and_roles_do_not_change_the_encoding() {
    for (server, channel) in [(utf8(), "c02 utf8"), (latin1(), "c02 latin1")] {
        connect(&server.url()).execute("ALTER ROLE postgres SET client_encoding = 'LATIN1'").unwrap();
        let mut db =
            Connection::connect(config(&server.url()).options("-c client_encoding=LATIN1 -cclient_encoding=WIN1252"))
                .unwrap();
        assert_eq!(ask(&mut db, "SHOW client_encoding"), "UTF8");
        assert_eq!(db.parameter("client_encoding"), Some("UTF8"));
        db.listen([channel]).unwrap();
        db.notify(channel, "é").unwrap();
        assert_eq!(next(&mut db, 1), pairs([(channel, "é")]));
        connect(&server.url()).execute("ALTER ROLE postgres RESET client_encoding").unwrap();
    }
}

#[test]
fn c02_the_startup_packet_requests_utf8_once_and_last() {
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), Step::serve()]);
    let dsn = config(&peer.url()).options("-c client_encoding=LATIN1").application_name("tests");
    drop(Connection::connect(dsn).unwrap());
    let received = peer.finish().remove(0);
    assert_eq!(received.version, 3 << 16);
    assert_eq!(received.startup["client_encoding"], "UTF8");
    assert_eq!(received.startup["user"], "postgres");
    assert_eq!(received.startup["database"], "postgres");
    assert_eq!(received.startup["application_name"], "tests");
}

#[test]
fn c02_the_environment_does_not_change_the_encoding() {
    let options = ("PGOPTIONS", "-c client_encoding=BIG5");
    subprocess::run("connection::login::in_another_encoding", ":", &[("PGCLIENTENCODING", "SJIS"), options]);
}

#[test]
#[ignore = "not by itself: another test runs it in a process with an environment"]
fn in_another_encoding() {
    if !subprocess::is_subprocess() {
        return;
    }
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), Step::serve()]);
    drop(Connection::connect(peer.url().as_str()).unwrap());
    let received = peer.finish().remove(0);
    assert_eq!(received.startup["options"], "-c client_encoding=BIG5", "the environment was looked at");
    assert_eq!(received.startup["client_encoding"], "UTF8");
}

#[test]
fn c02_an_encoding_that_changes_later_ends_the_connection() {
    for sql in
        ["SET client_encoding = 'LATIN1'", "SET NAMES 'SJIS'", "SELECT set_config('client_encoding', 'BIG5', false)"]
    {
        let mut db = session();
        let error = db.execute(sql).unwrap_err();
        assert!(matches!(error, Error::Protocol(ProtocolError::Encoding(_))), "{sql}: {error}");
        assert!(db.is_closed() && error.is_protocol(), "{sql}");
        assert!(db.notify("c02", "é").is_err(), "nothing can be sent after that");
    }
    let mut db = session();
    db.execute("SET client_encoding = 'UTF-8'").unwrap();
    db.execute("SET client_encoding TO DEFAULT").unwrap();
    assert!(!db.is_closed(), "another spelling of the encoding is no change");
}

#[test]
fn c02_an_encoding_that_the_server_changes_ends_the_connection() {
    let (go, gate) = Step::gate();
    let change = msg::parameter_status("client_encoding", "GBK");
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), gate, Step::send([change]), Step::expect_eof()]);
    let mut db = connect(&peer.url());
    go.open();
    assert_eq!(db.wait(None).count(), 0);
    assert!(matches!(db.error(), Some(Error::Protocol(ProtocolError::Encoding(_)))), "{:?}", db.error());
    peer.finish();
}

#[test]
fn c02_a_sql_ascii_database_uses_sql_ascii() {
    let mut db = connect(&sql_ascii().url());
    db.listen(["c02 é"]).unwrap();
    db.notify("c02 é", "naïve 'quote' \\ ж").unwrap();
    assert_eq!(next(&mut db, 1), pairs([("c02 é", "naïve 'quote' \\ ж")]));
}
