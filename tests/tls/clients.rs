//! Client certificates: accepted, missing and wrong ones, and their files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::OnceLock;

use notifyman::{AuthMethod, Config, Connection, SslCertMode, TlsErrorKind};

use super::{is_encrypted, refused_for};
use crate::support::Options;
use crate::support::pki::{Authority, Identity, TlsServer};
use crate::support::server::{ask, config, refused};

struct ByCertificate {
    ca: Authority,
    server: TlsServer,
}

/// A server that authenticates clients by certificate.
fn by_certificate() -> &'static ByCertificate {
    static SERVER: OnceLock<ByCertificate> = OnceLock::new();
    SERVER.get_or_init(|| {
        let ca = Authority::new("clients");
        let options = Options::new().hba("hostssl all all all cert").hba("hostnossl all all all reject");
        let server = TlsServer::start(&ca.server(&["127.0.0.1"]), &ca, options);
        ByCertificate { ca, server }
    })
}

impl ByCertificate {
    fn showing(&self, name: &str, identity: &Identity) -> Config {
        let certificate = self.server.file(&format!("{name}.crt"), &identity.certificate);
        let key = self.server.file(&format!("{name}.key"), &identity.key);
        config(&self.server.dsn("sslmode=require")).sslcert(certificate).sslkey(key)
    }
}

#[test]
fn a_role_is_authenticated_by_its_certificate() {
    let it = by_certificate();
    let right = it.showing("right", &it.ca.client("postgres"));
    for config in [
        right.clone(),
        right.clone().sslcertmode(SslCertMode::Require),
        right.clone().require_auth([AuthMethod::None]),
        right.clone().ssl_max_protocol_version(notifyman::TlsVersion::V1_2),
    ] {
        let mut db = Connection::connect(config).unwrap();
        assert_eq!(ask(&mut db, "SELECT current_user"), "postgres");
        assert!(is_encrypted(&mut db));
    }
    let error = refused(right.require_auth([AuthMethod::ScramSha256]));
    assert!(error.is_auth() && format!("{error:#}").contains("require_auth"), "{error}");
}

#[test]
fn a_missing_certificate_is_rejected_by_the_server() {
    let it = by_certificate();
    let right = it.showing("kept", &it.ca.client("postgres"));
    for config in [
        config(&it.server.dsn("sslmode=require")),
        config(&it.server.dsn("sslmode=require sslcert=/nowhere/my.crt")),
        right.sslcertmode(SslCertMode::Disable),
    ] {
        let error = refused(config);
        assert!(error.sqlstate() == Some("28000") && format!("{error:#}").contains("client certificate"), "{error}");
    }
}

#[test]
fn a_certificate_for_another_role_is_rejected_by_the_server() {
    let it = by_certificate();
    let error = refused(it.showing("other", &it.ca.client("another role")));
    assert!(error.is_auth() && error.sqlstate() == Some("28000"), "{error}");
}

#[test]
fn a_certificate_of_an_unknown_authority_is_rejected_by_the_server() {
    let it = by_certificate();
    let stranger = it.showing("stranger", &Authority::new("stranger").client("postgres"));
    for config in [stranger.clone(), stranger.ssl_max_protocol_version(notifyman::TlsVersion::V1_2)] {
        let error = refused_for(config, TlsErrorKind::RefusedByServer, "its ssl_ca_file must contain the");
        assert!(!error.is_transient(), "{error}");
    }
}

#[test]
fn a_required_certificate_must_exist_and_be_requested() {
    let it = by_certificate();
    let none = config(&it.server.dsn("sslmode=require sslcertmode=require"));
    refused_for(none, TlsErrorKind::File, "set sslcert");

    let asked = it.showing("unasked", &it.ca.client("postgres")).sslcertmode(SslCertMode::Require);
    // The same client at a server that trusts no authority of clients, and so requests no certificate.
    let server = it.ca.server(&["127.0.0.1"]);
    let silent = crate::support::server::start(
        Options::new()
            .setting("ssl", "on")
            .setting("ssl_cert_file", "server.crt")
            .setting("ssl_key_file", "server.key")
            .file("server.crt", server.certificate)
            .file("server.key", server.key),
    );
    let files = it.server.cluster.socket_dir();
    let unasked = config(&silent.url())
        .sslmode(notifyman::SslMode::Require)
        .sslcertmode(SslCertMode::Require)
        .sslcert(files.join("unasked.crt"))
        .sslkey(files.join("unasked.key"));
    assert!(Connection::connect(asked).is_ok());
    refused_for(unasked, TlsErrorKind::RefusedByServer, "does not request a certificate");
}

#[test]
fn keys_are_read_in_every_form() {
    let it = by_certificate();
    let sign = |key: &str| {
        let pair = if key.contains("RSA") {
            rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(include_str!("fixtures/rsa.key"), &rcgen::PKCS_RSA_SHA256)
        } else {
            rcgen::KeyPair::from_pem(include_str!("fixtures/ec-pkcs8.key"))
        };
        it.ca.sign_for(pair.unwrap(), &[], |params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, "postgres");
        })
    };
    let forms: [(&str, &[u8]); 5] = [
        ("RSA pkcs8", include_bytes!("fixtures/rsa.key")),
        ("RSA pkcs1", include_bytes!("fixtures/rsa-pkcs1.key")),
        ("EC pkcs8", include_bytes!("fixtures/ec-pkcs8.key")),
        ("EC sec1", include_bytes!("fixtures/ec.key")),
        ("EC der", include_bytes!("fixtures/ec.der")),
    ];
    for (name, key) in forms {
        let showing = it.showing("form", &sign(name)).sslkey(it.server.file("form.key", key));
        assert!(Connection::connect(showing).is_ok(), "{name}");
    }
}

#[test]
fn an_invalid_key_is_reported_with_its_reason() {
    let it = by_certificate();
    let identity = it.ca.client("postgres");
    let showing = it.showing("bad", &identity);
    let with = |content: &[u8]| showing.clone().sslkey(it.server.file("bad.key", content));

    refused_for(with(include_bytes!("fixtures/rsa-encrypted.key")), TlsErrorKind::File, "sslpassword");
    refused_for(with(b"nothing"), TlsErrorKind::File, "no private key");
    refused_for(with(Authority::new("x").client("x").key.as_bytes()), TlsErrorKind::File, "it is not the key of");
    refused_for(showing.clone().sslkey("/nowhere/my.key"), TlsErrorKind::File, "/nowhere/my.key");
    refused_for(showing.clone().sslkey("/dev"), TlsErrorKind::File, "is not a regular file");
    let empty = it.server.file("empty.crt", "");
    refused_for(showing.clone().sslcert(empty), TlsErrorKind::File, "no certificate in PEM form");
    let error = refused(showing.sslkey("/nowhere/my.key").sslmode(notifyman::SslMode::Prefer));
    assert!(
        format!("{error:#}").contains("/nowhere/my.key"),
        "also if an unencrypted connection was tried next: {error}"
    );
}

#[test]
fn a_key_that_other_users_can_read_is_rejected() {
    let it = by_certificate();
    let identity = it.ca.client("postgres");
    let showing = it.showing("open", &identity);
    let key = it.server.cluster.socket_dir().join("open.key");
    let is_root = fs::metadata(&key).map(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0).unwrap();
    let with_mode = |mode| {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        showing.clone()
    };
    for mode in [0o400, 0o600, 0o700] {
        assert!(Connection::connect(with_mode(mode)).is_ok(), "{mode:o}");
    }
    for mode in [0o604, 0o644, 0o660, 0o650, 0o602, 0o777] {
        refused_for(with_mode(mode), TlsErrorKind::File, "chmod 0600");
    }
    // A group may read a key of root.
    assert_eq!(Connection::connect(with_mode(0o640)).is_ok(), is_root);
    if is_root && std::os::unix::fs::chown(&key, Some(65_534), None).is_ok() {
        refused_for(with_mode(0o640), TlsErrorKind::File, "0640 if its owner is root");
        assert!(Connection::connect(with_mode(0o600)).is_ok());
    }
}

#[test]
fn a_renewed_certificate_is_used_by_the_next_attempt() {
    let it = by_certificate();
    let settings = it.showing("renewed", &it.ca.client("another role"));
    refused(settings.clone());
    let renewed = it.ca.client("postgres");
    it.server.file("renewed.crt", &renewed.certificate);
    // Only one of the two files was renewed: reported, and retried by a manager.
    refused_for(settings.clone(), TlsErrorKind::File, "renew both together");
    it.server.file("renewed.key", &renewed.key);
    assert!(is_encrypted(&mut Connection::connect(settings).unwrap()));
}
