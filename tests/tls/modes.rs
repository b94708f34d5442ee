//! `sslmode`: which connections are encrypted, unencrypted or rejected.

use notifyman::{Config, Connection, SslMode, SslNegotiation, TlsErrorKind, TlsVersion};

use super::{Common, common, is_encrypted, open, refused_for};
use crate::support::pki::{Authority, TlsServer};
use crate::support::server::{ask, config, in_time, major, refused, utf8};
use crate::support::{Options, Peer, PgBouncer, Step, msg};

const MODES: [&str; 4] = ["allow", "prefer", "require", "verify-full"];

#[test]
fn each_mode_is_encrypted_as_libpq_would() {
    let Common { server, root, .. } = common();
    for (mode, encrypted) in [
        ("disable", false),
        ("allow", false),
        ("prefer", true),
        ("require", true),
        ("verify-ca", true),
        ("verify-full", true),
    ] {
        let mut db = open(&server.dsn(&format!("sslmode={mode} sslrootcert={root}")));
        assert_eq!(is_encrypted(&mut db), encrypted, "{mode}");
        db.listen(["modes"]).unwrap();
        db.notify("modes", mode).unwrap();
        let received: Vec<_> = db.wait(std::time::Duration::ZERO).flatten().map(|n| n.payload().into_owned()).collect();
        assert_eq!(received, [mode]);
        db.close().unwrap();
    }
    assert!(is_encrypted(&mut open(&server.dsn(""))), "the default is prefer");
}

#[test]
fn a_server_without_tls_is_rejected_only_in_strict_modes() {
    let url = |mode: &str| format!("host=127.0.0.1 port={} user=postgres dbname=postgres {mode}", utf8().port());
    for mode in ["disable", "allow", "prefer"] {
        assert!(!is_encrypted(&mut open(&url(&format!("sslmode={mode}")))), "{mode}");
    }
    for mode in ["require", "sslrootcert=/none sslmode=verify-ca"] {
        let mode = mode.replace("require", "sslmode=require");
        let error = refused_for(config(&url(&mode)), TlsErrorKind::NotOffered, "turn on its setting ssl");
        assert!(error.is_tls() && !error.is_transient() && !error.is_auth(), "{error}");
    }
}

#[test]
fn a_unix_socket_is_never_encrypted() {
    let Common { server, root, .. } = common();
    let directory = server.cluster.socket_dir().display();
    for mode in MODES {
        let text = server.dsn(&format!("host={directory} sslmode={mode} sslrootcert={root}"));
        assert!(!is_encrypted(&mut open(&text)), "{mode}");
    }
}

/// Starts a server whose pg_hba.conf has lines of one kind for TCP.
fn server_with(lines: [&str; 2]) -> TlsServer {
    let ca = Authority::new("hba");
    let options = lines.iter().fold(Options::new(), |options, line| options.hba(*line));
    TlsServer::start(&ca.server(&["127.0.0.1"]), &ca, options)
}

#[test]
fn allow_retries_with_tls() {
    let server = server_with(["hostssl all all all trust", "hostnossl all all all reject"]);
    assert!(is_encrypted(&mut open(&server.dsn("sslmode=allow"))));
    let error = refused(config(&server.dsn("sslmode=disable")));
    assert!(error.sqlstate() == Some("28000"), "{error}");
}

#[test]
fn prefer_retries_without_tls() {
    let server = server_with(["hostnossl all all all trust", "hostssl all all all reject"]);
    assert!(!is_encrypted(&mut open(&server.dsn("sslmode=prefer"))));
    let error = refused(config(&server.dsn("sslmode=require")));
    assert!(error.sqlstate() == Some("28000"), "{error}");
}

#[test]
fn prefer_retries_without_tls_after_an_invalid_certificate() {
    let Common { server, .. } = common();
    let stranger = server.file("modes-stranger.crt", Authority::new("stranger").pem());
    assert!(!is_encrypted(&mut open(&server.dsn(&format!("sslmode=prefer sslrootcert={stranger}")))));
}

#[test]
fn both_errors_are_reported_if_both_attempts_fail() {
    let server = server_with(["hostssl all all all reject", "hostnossl all all all reject"]);
    for mode in ["allow", "prefer"] {
        let text = format!("{:#}", refused(config(&server.dsn(&format!("sslmode={mode}")))));
        assert_eq!(text.matches("28000").count(), 2, "{mode}: {text}");
    }
}

#[test]
fn a_wrong_password_is_tried_once() {
    let ca = Authority::new("once");
    let options = Options::new().auth("scram-sha-256", "right");
    let server = TlsServer::start(&ca.server(&["127.0.0.1"]), &ca, options);
    for mode in ["allow", "prefer"] {
        let error = refused(config(&server.dsn(&format!("sslmode={mode} password=wr0ng90210"))));
        assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
        assert_eq!(format!("{error:#}").matches("28P01").count(), 1, "{error}");
        assert!(!format!("{error:#}").contains("wr0ng90210"));
    }
}

#[test]
fn prefer_continues_unencrypted_on_the_same_connection_without_tls() {
    let peer =
        Peer::play(vec![Step::ssl_request(b"N"), Step::startup(), Step::send([msg::login()]), Step::expect_eof()]);
    drop(Connection::connect(config(&peer.url())).unwrap());
    peer.finish();
}

#[test]
fn direct_tls_works_since_version_17() {
    let common = common();
    let mut db = open(&common.server.dsn("sslmode=require"));
    let direct = common.checked().sslnegotiation(SslNegotiation::Direct);
    if major(&db) >= 17 {
        // The cancel request uses direct TLS, too.
        in_time(|| {
            let mut db = Connection::connect(direct.clone()).unwrap();
            assert!(is_encrypted(&mut db));
            db.set_call_timeout(std::time::Duration::from_secs(1));
            let error = db.query("SELECT pg_sleep(60)").unwrap_err();
            assert!(error.is_timeout(), "{error}");
            !db.is_closed()
        });
    } else {
        let error = refused_for(direct, TlsErrorKind::Interrupted, "older than 17");
        assert!(error.is_transient(), "a server that is stopped hangs up as well");
    }
    assert_eq!(ask(&mut db, "SELECT 1"), "1");
}

#[test]
fn the_tls_version_is_as_configured() {
    let common = common();
    let version = |db: &mut Connection| ask(db, "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    let with = |config: Config| version(&mut Connection::connect(config).unwrap());
    assert_eq!(with(common.checked()), "TLSv1.3");
    assert_eq!(with(common.checked().ssl_max_protocol_version(TlsVersion::V1_2)), "TLSv1.2");
    assert_eq!(with(common.checked().ssl_min_protocol_version(TlsVersion::V1_3)), "TLSv1.3");
}

#[test]
fn no_common_version_is_reported() {
    let ca = Authority::new("old");
    let options = Options::new().setting("ssl_max_protocol_version", "TLSv1.2");
    let server = TlsServer::start(&ca.server(&["127.0.0.1"]), &ca, options);
    let base = config(&server.dsn("sslmode=require"));
    assert!(is_encrypted(&mut Connection::connect(base.clone()).unwrap()));
    let newer = base.ssl_min_protocol_version(TlsVersion::V1_3);
    refused_for(newer, TlsErrorKind::NoCommonVersion, "ssl_min_protocol_version");
}

#[test]
fn a_configuration_of_the_caller_determines_the_trusted_authorities() {
    use std::sync::Arc;

    use notifyman::rustls::pki_types::CertificateDer;
    use notifyman::rustls::pki_types::pem::PemObject as _;
    use notifyman::rustls::{ClientConfig, RootCertStore, crypto};

    let common = common();
    let own = |authority: &Authority| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    };
    let base = config(&common.server.dsn("sslmode=require"));
    assert!(is_encrypted(&mut Connection::connect(base.clone().tls_config(own(&common.ca))).unwrap()));
    let stranger = own(&Authority::new("stranger"));
    refused_for(base.clone().tls_config(Arc::clone(&stranger)), TlsErrorKind::UnknownAuthority, "trusted");
    let disabled = base.clone().sslmode(SslMode::Disable).tls_config(stranger);
    assert!(!is_encrypted(&mut Connection::connect(disabled).unwrap()));

    let direct = base.tls_config(own(&common.ca)).sslnegotiation(SslNegotiation::Direct);
    if major(&open(&common.server.dsn(""))) >= 17 {
        assert!(is_encrypted(&mut Connection::connect(direct).unwrap()));
    }
    assert!(crypto::CryptoProvider::get_default().is_none(), "the process's default provider is unchanged");
}

#[test]
fn a_pooler_with_tls_is_detected_by_a_second_connection_with_tls() {
    use notifyman::{Diagnosis, FindingKind};

    let Common { server, root, .. } = common();
    let directory = server.cluster.data_dir();
    let tls = format!(
        "client_tls_sslmode = require\nclient_tls_key_file = {directory}/server.key\nclient_tls_cert_file = \
         {directory}/server.crt",
        directory = directory.display()
    );
    let pooler = PgBouncer::start(&server.cluster, "transaction", &tls);
    let checked = config(&pooler.url()).sslmode(SslMode::VerifyFull).sslrootcert(root);
    let diagnosis = Diagnosis::of(checked);
    assert!(diagnosis.find(FindingKind::TransactionPooler).is_some(), "{diagnosis}");
    // The server rejects unencrypted connections, so `allow` retries with TLS.
    assert!(Connection::connect(config(&pooler.url()).sslmode(SslMode::Allow)).is_ok());
    assert!(Connection::connect(config(&pooler.url()).sslmode(SslMode::Disable)).is_err());
}
