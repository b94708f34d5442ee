//! Verification of server certificates: authorities and names.

use std::net::TcpListener;

use notifyman::{Config, Connection, Severity, TlsErrorKind};
use rcgen::{DnType, date_time_ymd};

use super::{Common, common, is_encrypted, open, refused_for};
use crate::support::Options;
use crate::support::pki::{Authority, Identity, TlsServer, self_signed};
use crate::support::server::config;
use crate::support::tools::not_run;

/// Starts a server with this certificate.
fn showing(identity: &Identity) -> TlsServer {
    TlsServer::start(identity, &Authority::new("clients"), Options::new())
}

/// Returns settings that verify it with this root and name.
fn by(server: &TlsServer, mode: &str, root: &str, host: &str) -> Config {
    config(&server.dsn(&format!("host={host} hostaddr=127.0.0.1 sslmode={mode} sslrootcert={root}")))
}

#[test]
fn a_certificate_is_valid_for_a_name_or_an_address() {
    let Common { server, root, .. } = common();
    for place in ["host=localhost", "host=127.0.0.1", "host=localhost hostaddr=127.0.0.1", "host='' hostaddr=127.0.0.1"]
    {
        let text = format!("{place} port={} user=postgres dbname=postgres sslmode=verify-full", server.cluster.port());
        assert!(is_encrypted(&mut open(&format!("{text} sslrootcert={root}"))), "{place}");
    }
}

#[test]
fn a_certificate_is_valid_for_an_ipv6_address() {
    if TcpListener::bind("[::1]:0").is_err() {
        return not_run("this machine has no ::1");
    }
    let ca = Authority::new("six");
    let options = Options::new().setting("listen_addresses", "127.0.0.1,::1");
    let server = TlsServer::start(&ca.server(&["::1"]), &ca, options);
    let root = server.file("root.crt", ca.pem());
    let checked = format!("sslmode=verify-full sslrootcert={root}");
    assert!(is_encrypted(&mut open(&server.dsn(&format!("host=::1 {checked}")))));
    refused_for(config(&server.dsn(&checked)), TlsErrorKind::WrongName, "127.0.0.1");
}

#[test]
fn a_wrong_name_is_rejected_only_by_verify_full() {
    let Common { server, root, .. } = common();
    for mode in ["require", "verify-ca"] {
        assert!(is_encrypted(&mut Connection::connect(by(server, mode, root, "db.example")).unwrap()), "{mode}");
    }
    let error = refused_for(by(server, "verify-full", root, "db.example"), TlsErrorKind::WrongName, "db.example");
    assert!(format!("{error:#}").contains("localhost"), "it names the certificate's names: {error}");
    assert!(!error.is_transient());
}

#[test]
fn a_host_that_is_no_name_is_accepted_only_without_verification() {
    let Common { server, root, .. } = common();
    let odd = "-no-name-.";
    assert!(is_encrypted(&mut Connection::connect(by(server, "verify-ca", root, odd)).unwrap()));
    refused_for(by(server, "verify-full", root, odd), TlsErrorKind::WrongName, odd);
}

#[test]
fn an_expired_certificate_is_rejected_as_a_transient_error() {
    let ca = Authority::new("expired");
    let past = ca.sign(&["127.0.0.1"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = ca.sign(&["127.0.0.1"], |params| params.not_before = date_time_ymd(4000, 1, 1));
    let server = showing(&past);
    let root = server.file("root.crt", ca.pem());
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = refused_for(by(&server, mode, &root, "127.0.0.1"), TlsErrorKind::Expired, "expired: renew it");
        assert!(error.is_transient(), "the server's operator can renew it: {error}");
    }
    assert!(is_encrypted(&mut open(&server.dsn("sslmode=require"))), "no verification without a root file");

    server.renew(&future);
    let checked = by(&server, "verify-ca", &root, "127.0.0.1");
    crate::support::server::eventually("the server shows the other one", || {
        Connection::connect(checked.clone()).is_err_and(|error| format!("{error:#}").contains("is not valid yet"))
    });
    server.renew(&ca.server(&["127.0.0.1"]));
    crate::support::server::eventually("the renewed one is accepted", || Connection::connect(checked.clone()).is_ok());
}

#[test]
fn a_root_file_makes_every_mode_verify() {
    let Common { server, .. } = common();
    let stranger = server.file("certificates-stranger.crt", Authority::new("stranger").pem());
    for mode in ["require", "verify-ca", "verify-full"] {
        let settings = by(server, mode, &stranger, "127.0.0.1");
        let error = refused_for(settings, TlsErrorKind::UnknownAuthority, "check that sslrootcert contains");
        assert!(!error.is_transient(), "{error}");
    }
}

#[test]
fn a_missing_root_file_is_an_error_only_in_modes_that_need_it() {
    let Common { server, .. } = common();
    let none = "/nowhere/root.crt";
    assert!(is_encrypted(&mut Connection::connect(by(server, "require", none, "127.0.0.1")).unwrap()));
    for mode in ["verify-ca", "verify-full"] {
        let error = refused_for(by(server, mode, none, "127.0.0.1"), TlsErrorKind::File, none);
        assert!(format!("{error:#}").contains("sslrootcert=system"), "{error}");
    }
}

#[test]
fn a_root_file_without_certificates_is_rejected() {
    let Common { server, .. } = common();
    let empty = server.file("certificates-empty.crt", "nothing here\n");
    refused_for(by(server, "require", &empty, "127.0.0.1"), TlsErrorKind::File, "no certificate in PEM form");
}

#[test]
fn the_systems_authorities_do_not_know_a_private_one() {
    let Common { server, .. } = common();
    let error = crate::support::server::refused(config(&server.dsn("sslrootcert=system")));
    let kind = error.tls().map(notifyman::TlsError::kind);
    // A minimal system has no authorities, and the error states that.
    assert!(matches!(kind, Some(TlsErrorKind::UnknownAuthority | TlsErrorKind::File)), "{error}");
}

#[test]
fn a_self_signed_certificate_is_its_own_root() {
    let own_authority = Identity {
        certificate: include_str!("fixtures/own-authority.crt").into(),
        key: include_str!("fixtures/ec.key").into(),
        serial: 0,
    };
    // A certificate that is an authority and has only a common name, like the one in PostgreSQL's documentation.
    for (identity, host) in [(self_signed(&["localhost"]), "localhost"), (own_authority, "localhost")] {
        let server = showing(&identity);
        let root = server.file("root.crt", &identity.certificate);
        for mode in ["require", "verify-ca", "verify-full"] {
            assert!(is_encrypted(&mut Connection::connect(by(&server, mode, &root, host)).unwrap()), "{mode}");
        }
        refused_for(by(&server, "verify-full", &root, "db.example"), TlsErrorKind::WrongName, "db.example");
        let other = server.file("other.crt", self_signed(&["localhost"]).certificate);
        let error = crate::support::server::refused(by(&server, "verify-ca", &other, host));
        assert!(error.is_tls() && !error.is_transient(), "{error}");
    }
}

#[test]
fn a_chain_is_verified_up_to_the_root() {
    let ca = Authority::new("top");
    let between = ca.below("between");
    let leaf = between.server(&["127.0.0.1"]);
    let whole = Identity { certificate: format!("{}{}", leaf.certificate, between.pem()), ..leaf.clone() };

    let server = showing(&whole);
    let root = server.file("root.crt", ca.pem());
    assert!(is_encrypted(&mut Connection::connect(by(&server, "verify-full", &root, "127.0.0.1")).unwrap()));
    let server = showing(&leaf);
    let root = server.file("root.crt", ca.pem());
    refused_for(by(&server, "verify-full", &root, "127.0.0.1"), TlsErrorKind::UnknownAuthority, "intermediate");
}

#[test]
fn name_forms_that_libpq_accepts_are_accepted() {
    let ca = Authority::new("names");
    let common_name = |name: &'static str| {
        move |params: &mut rcgen::CertificateParams| {
            params.distinguished_name.push(DnType::CommonName, name);
        }
    };
    for (identity, right, wrong) in [
        (ca.sign(&[], common_name("db.example")), "db.example", "other.example"),
        (ca.sign(&[], common_name("*.example")), "db.example", "a.db.example"),
        (ca.sign(&[], common_name("127.0.0.1")), "127.0.0.1", "127.0.0.2"),
        // An alternative address does not replace the common name for a host that is a name.
        (ca.sign(&["127.0.0.1"], common_name("db.example")), "db.example", "other.example"),
        // An alternative name of the same kind does.
        (ca.sign(&["db.example"], common_name("other.example")), "db.example", "other.example"),
    ] {
        let server = showing(&identity);
        let root = server.file("root.crt", ca.pem());
        assert!(is_encrypted(&mut Connection::connect(by(&server, "verify-full", &root, right)).unwrap()), "{right}");
        refused_for(by(&server, "verify-full", &root, wrong), TlsErrorKind::WrongName, wrong);
    }
}

#[test]
fn a_certificate_of_version_1_is_accepted_only_without_verification() {
    let old = Identity {
        certificate: include_str!("fixtures/v1.crt").into(),
        key: include_str!("fixtures/ec.key").into(),
        serial: 0,
    };
    let server = showing(&old);
    assert!(is_encrypted(&mut open(&server.dsn("sslmode=require"))));
    let root = server.file("root.crt", Authority::new("any").pem());
    refused_for(by(&server, "verify-ca", &root, "localhost"), TlsErrorKind::BadCertificate, "version 1");
}

#[test]
fn a_revoked_certificate_is_rejected() {
    let ca = Authority::new("revoking");
    let (good, bad) = (ca.server(&["127.0.0.1"]), ca.server(&["127.0.0.1"]));
    let server = showing(&good);
    let root = server.file("root.crt", ca.pem());
    let lists = [
        server.file("other.crl", ca.crl(&[&bad], 4000)),
        server.file("this.crl", ca.crl(&[&good, &bad], 4000)),
        server.file("outdated.crl", ca.crl(&[&bad], 2025)),
        server.file("strangers.crl", Authority::new("stranger").crl(&[], 4000)),
    ];
    let with = |list: &str| by(&server, "verify-full", &root, "127.0.0.1").sslcrl(list);
    let [other, this, outdated, strangers] = &lists;
    assert!(is_encrypted(&mut Connection::connect(with(other)).unwrap()));
    assert!(is_encrypted(&mut Connection::connect(with("/nowhere/root.crl")).unwrap()), "as libpq has it");
    let error = refused_for(with(this), TlsErrorKind::Revoked, "has been revoked");
    assert!(!error.is_transient());
    refused_for(with(outdated), TlsErrorKind::Revoked, "renew sslcrl");
    refused_for(with(strangers), TlsErrorKind::Revoked, "one of each authority");

    let directory = server.directory("crls");
    let in_directory = by(&server, "verify-ca", &root, "127.0.0.1").sslcrldir(&directory);
    std::fs::copy(other, directory.join("89abcdef.r0")).unwrap();
    assert!(is_encrypted(&mut Connection::connect(in_directory.clone()).unwrap()));
    std::fs::copy(this, directory.join("0123abcd.r0")).unwrap();
    refused_for(in_directory, TlsErrorKind::Revoked, "has been revoked");
}

#[test]
fn a_new_root_file_is_read_by_the_next_attempt() {
    let Common { server, ca, .. } = common();
    let root = server.file("certificates-changing.crt", Authority::new("stranger").pem());
    let settings = by(server, "verify-full", &root, "127.0.0.1");
    refused_for(settings.clone(), TlsErrorKind::UnknownAuthority, "sslrootcert");
    server.file("certificates-changing.crt", ca.pem());
    assert!(is_encrypted(&mut Connection::connect(settings).unwrap()));
}

#[test]
fn the_diagnosis_reports_tls_errors_and_their_remedies() {
    use notifyman::{Diagnosis, FindingKind};
    let Common { server, root, .. } = common();
    let stranger = server.file("certificates-diagnosis.crt", Authority::new("stranger").pem());
    for (settings, part) in [
        (by(server, "verify-full", root, "db.example"), "another host"),
        (by(server, "verify-full", &stranger, "127.0.0.1"), "not signed by a trusted"),
        (by(server, "verify-full", "/nowhere", "127.0.0.1"), "A TLS file"),
        (config(&crate::support::server::utf8().url()).sslmode(notifyman::SslMode::Require), "not support"),
    ] {
        let diagnosis = Diagnosis::of(settings);
        let finding = diagnosis.find(FindingKind::Tls).unwrap_or_else(|| panic!("{diagnosis}"));
        assert!(finding.what().contains(part) && !finding.advice().is_empty(), "{diagnosis}");
        assert_eq!(finding.severity(), Severity::Failure);
    }
    let good = Diagnosis::of(common().checked());
    assert!(good.find(FindingKind::Delivery).is_some() && good.find(FindingKind::Tls).is_none(), "{good}");
    let mut session = Connection::connect(common().checked()).unwrap();
    let sql = "SELECT 'TLS ' || substr(version, 5) || ', ' || cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let tls = session.query(sql).unwrap()[0].get(0).unwrap().into_owned();
    assert_eq!(good.tls(), Some(&*tls), "the server's names");
    assert!(good.to_string().contains(&tls), "{good}");
    let older = Diagnosis::of(common().checked().ssl_max_protocol_version(notifyman::TlsVersion::V1_2));
    assert!(older.tls().unwrap().starts_with("TLS 1.2, TLS_ECDHE_"), "{older}");
}

#[test]
fn a_file_without_a_revocation_list_is_rejected() {
    let Common { ca, server, root } = common();
    let checked = || by(server, "verify-full", root, "127.0.0.1");
    for content in ["", "no list", &ca.pem()] {
        let file = server.file("mistaken.crl", content);
        refused_for(checked().sslcrl(file), TlsErrorKind::File, "BEGIN X509 CRL");
    }
    let directory = server.directory("no-lists");
    refused_for(checked().sslcrldir(&directory), TlsErrorKind::File, "sslcrldir");
    std::fs::write(directory.join("README"), "what is here").unwrap();
    refused_for(checked().sslcrldir(&directory), TlsErrorKind::File, "sslcrldir");
}

#[test]
fn a_file_that_is_a_pipe_does_not_block() {
    let Common { server, root, .. } = common();
    let pipe = server.cluster.socket_dir().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let checked = || by(server, "verify-full", root, "127.0.0.1");
    let certificate = server.file("beside-a-pipe.crt", root);
    for config in [
        checked().sslrootcert(&pipe),
        checked().sslcert(&pipe),
        checked().sslcert(certificate).sslkey(&pipe),
        checked().sslcrl(&pipe),
    ] {
        refused_for(config, TlsErrorKind::File, "file");
    }
}
