//! Each authentication method over TLS, and the channel binding of SCRAM.

use notifyman::{AuthMethod, ChannelBinding, Config, Connection};

use super::{common, is_encrypted, open};
use crate::support::Options;
use crate::support::pki::{Authority, Identity, TlsServer, self_signed};
use crate::support::server::{config, refused};

const RSA: &str = include_str!("fixtures/rsa.key");
const EC: &str = include_str!("fixtures/ec.key");

fn asking(identity: &Identity, method: &str) -> TlsServer {
    TlsServer::start(identity, &Authority::new("clients"), Options::new().auth(method, "s3cr3t"))
}

fn identity(certificate: &str, key: &str) -> Identity {
    Identity { certificate: certificate.into(), key: key.into(), serial: 0 }
}

fn with(server: &TlsServer, binding: ChannelBinding) -> Config {
    config(&server.dsn("sslmode=require password=s3cr3t")).channel_binding(binding)
}

#[test]
fn each_login_goes_through_tls() {
    let ca = Authority::new("each");
    for method in ["password", "md5", "scram-sha-256"] {
        let server = asking(&ca.server(&["127.0.0.1"]), method);
        assert!(is_encrypted(&mut open(&server.dsn("sslmode=require password=s3cr3t"))), "{method}");
        let error = refused(config(&server.dsn("sslmode=require password=wr0ng90210")));
        assert!(error.is_auth() && !format!("{error:#}").contains("wr0ng90210"), "{method}: {error}");
    }
}

/// Checks the binding: the server rejects a login with a wrong one.
fn binds_to(certificate: &str, key: &str) {
    let server = asking(&identity(certificate, key), "scram-sha-256");
    for binding in [ChannelBinding::Require, ChannelBinding::Prefer, ChannelBinding::Disable] {
        assert!(is_encrypted(&mut Connection::connect(with(&server, binding)).unwrap()), "{binding}");
    }
}

#[test]
fn a_login_is_bound_to_rsa_certificates_of_every_hash() {
    binds_to(include_str!("fixtures/rsa-sha256.crt"), RSA);
    binds_to(include_str!("fixtures/rsa-sha384.crt"), RSA);
    binds_to(include_str!("fixtures/rsa-sha512.crt"), RSA);
}

#[test]
fn a_login_is_bound_to_ecdsa_certificates_of_every_hash() {
    binds_to(include_str!("fixtures/ecdsa-sha256.crt"), EC);
    binds_to(include_str!("fixtures/ecdsa-sha384.crt"), EC);
    binds_to(include_str!("fixtures/ecdsa-sha512.crt"), EC);
}

#[test]
fn a_login_is_bound_to_a_certificate_of_version_1() {
    binds_to(include_str!("fixtures/v1.crt"), EC);
}

/// OpenSSL 1.1.1 and later determine the hash of a PSS signature; a server built with an older version cannot.
#[test]
fn a_login_is_bound_to_rsa_pss_certificates_of_every_hash() {
    binds_to(include_str!("fixtures/pss-sha256.crt"), RSA);
    binds_to(include_str!("fixtures/pss-sha384.crt"), RSA);
    binds_to(include_str!("fixtures/pss-sha512.crt"), RSA);
}

#[test]
fn with_ed25519_prefer_logs_in_without_binding_and_require_fails() {
    let ed25519 = identity(include_str!("fixtures/ed25519.crt"), include_str!("fixtures/ed25519.key"));
    let server = asking(&ed25519, "scram-sha-256");
    for binding in [ChannelBinding::Prefer, ChannelBinding::Disable] {
        assert!(is_encrypted(&mut Connection::connect(with(&server, binding)).unwrap()), "{binding}");
    }
    let error = refused(with(&server, ChannelBinding::Require));
    assert!(error.is_auth() && format!("{error:#}").contains("Ed25519"), "{error}");
}

#[test]
fn a_required_binding_excludes_other_methods() {
    let ca = Authority::new("weaker");
    for method in ["password", "md5"] {
        let server = asking(&ca.server(&["127.0.0.1"]), method);
        let error = refused(with(&server, ChannelBinding::Require));
        assert!(error.is_auth() && format!("{error:#}").contains("channel_binding=require"), "{method}: {error}");
    }
    // A server that uses trust proves nothing.
    let error = refused(common().checked().channel_binding(ChannelBinding::Require));
    assert!(error.is_auth() && format!("{error:#}").contains("no authentication"), "{error}");
}

#[test]
fn a_required_binding_needs_tls() {
    let server = asking(&self_signed(&["127.0.0.1"]), "scram-sha-256");
    let clear = config(&server.dsn("sslmode=disable password=s3cr3t channel_binding=require"));
    let error = refused(clear);
    assert!(error.is_auth() && format!("{error:#}").contains("needs TLS"), "{error}");
}

#[test]
fn only_allowed_methods_are_used_over_tls() {
    let server = asking(&self_signed(&["127.0.0.1"]), "scram-sha-256");
    let base = with(&server, ChannelBinding::Require);
    Connection::connect(base.clone().require_auth([AuthMethod::ScramSha256])).unwrap();
    Connection::connect(config(&server.dsn("sslmode=require password=s3cr3t require_auth=!password,!md5"))).unwrap();
    for denied in ["!scram-sha-256", "none", "md5,password"] {
        let error = refused(config(&server.dsn(&format!("sslmode=require password=s3cr3t require_auth={denied}"))));
        assert!(error.is_auth() && format!("{error:#}").contains("require_auth"), "{denied}: {error}");
    }
}
