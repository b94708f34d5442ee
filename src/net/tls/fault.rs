//! What a fault of TLS means, and what to do about it.

use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};

use crate::error::TlsError;
use crate::error::TlsErrorKind::{
    self, BadCertificate, Expired, Handshake, NoCommonVersion, RefusedByServer, Revoked, UnknownAuthority, WrongName,
};

/// The same in our words.
pub(super) fn of(error: Error, in_handshake: bool) -> TlsError {
    let (kind, message) = match error {
        Error::InvalidCertificate(bad) => certificate(&bad),
        Error::InvalidCertRevocationList(bad) => {
            (Revoked, format!("the list of revoked certificates can't be used ({bad:?}): renew sslcrl"))
        }
        Error::AlertReceived(alert) => said(alert),
        Error::PeerIncompatible(what) => (
            NoCommonVersion,
            format!(
                "the two sides have no version, cipher or signature in common ({what:?}): compare \
                 ssl_min_protocol_version and ssl_max_protocol_version with the server's settings of the same names"
            ),
        ),
        Error::InvalidMessage(what) if in_handshake => {
            (Handshake, format!("what answers doesn't speak TLS ({what:?}): check host and port, and proxies between"))
        }
        Error::DecryptError => (Handshake, "a record was damaged or forged on its way".into()),
        other => (Handshake, other.to_string()),
    };
    TlsError::new(kind, message)
}

fn certificate(bad: &Bad) -> (TlsErrorKind, String) {
    let (kind, message) = match bad {
        Bad::Expired | Bad::ExpiredContext { .. } => {
            (Expired, "the server's certificate has expired: renew it, and have the server reload")
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            (Expired, "the server's certificate isn't valid yet: check both machines' clocks")
        }
        Bad::UnknownIssuer => (
            UnknownAuthority,
            "the server's certificate is signed by nobody who is trusted here: check that sslrootcert holds its \
             authority, and that the server sends the certificates between",
        ),
        Bad::BadSignature => (
            UnknownAuthority,
            "the server's certificate has a signature that its authority didn't make: check that sslrootcert holds \
             the authority's present certificate",
        ),
        Bad::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| plain(name)).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!(
                "the server's certificate isn't for {:?} (its names: {names}): connect by one of its names, have it \
                 made anew with this one, or use sslmode=verify-ca if its authority signs for nobody else",
                expected.to_str()
            );
            return (WrongName, message);
        }
        Bad::NotValidForName => (WrongName, "the server's certificate is for another host"),
        Bad::Revoked => (Revoked, "the server's certificate has been revoked: it needs a new one"),
        Bad::UnknownRevocationStatus => (
            Revoked,
            "there is no list that tells whether the server's certificate has been revoked: sslcrl must hold one of \
             each authority between the server and the root",
        ),
        Bad::ExpiredRevocationList | Bad::ExpiredRevocationListContext { .. } => {
            (Revoked, "the list of revoked certificates has expired: renew sslcrl")
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            (BadCertificate, "the server's certificate isn't meant for servers: make it anew with serverAuth")
        }
        Bad::Other(other) if is_version_1(other) => (
            BadCertificate,
            "the server's certificate has the old form without extensions (X.509 version 1): make it anew with a \
             subjectAltName, or use sslmode=require without a root file, which doesn't check it",
        ),
        Bad::Other(other) if is_authority(other) => (
            BadCertificate,
            "the server's certificate is that of an authority (CA:TRUE): reissue it with CA:FALSE, or add it to \
             the file of sslrootcert",
        ),
        other => return (BadCertificate, format!("the server's certificate can't be used: {other}")),
    };
    (kind, message.into())
}

/// A name without what rustls wraps it in: `DnsName("db.example")`, `IpAddress(192.0.2.7)`.
fn plain(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.map_or(name, |inside| inside.trim_matches('"'))
}

/// Whether that is what is wrong with a certificate.
pub(super) fn is_version_1(error: &rustls::OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::UnsupportedCertVersion))
}

/// Returns `true` if the certificate was refused because it is an authority's: a server's must not be.
pub(super) fn is_authority(error: &rustls::OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// What the server said as it refused.
fn said(alert: Alert) -> (TlsErrorKind, String) {
    let (kind, message) = match alert {
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => (
            NoCommonVersion,
            "the server finds no version or cipher in common with us: compare ssl_min_protocol_version and \
             ssl_max_protocol_version with its settings of the same names, and see its ssl_ciphers",
        ),
        Alert::CertificateRequired => {
            (RefusedByServer, "the server wants a certificate of ours: give one with sslcert and sslkey")
        }
        Alert::UnknownCA => (
            RefusedByServer,
            "the server doesn't know who signed our certificate: its ssl_ca_file must hold that authority, and sslcert \
             the certificates between",
        ),
        Alert::CertificateExpired => {
            (RefusedByServer, "the server says that our certificate has expired: renew sslcert")
        }
        Alert::CertificateRevoked => (RefusedByServer, "the server says that our certificate has been revoked"),
        Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown | Alert::AccessDenied => {
            (RefusedByServer, "the server doesn't accept our certificate: its log tells why")
        }
        Alert::DecryptError => (
            RefusedByServer,
            "the server doesn't accept our signature: check that sslkey belongs to sslcert, and that the server \
             trusts the right authority",
        ),
        Alert::NoApplicationProtocol => (Handshake, "the server speaks TLS, but not PostgreSQL: check host and port"),
        Alert::UnrecognisedName => (Handshake, "the server, or a proxy before it, doesn't know the host's name (SNI)"),
        other => return (Handshake, format!("the server ended it ({other:?})")),
    };
    (kind, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_as_people_write_them() {
        for (wrapped, name) in [
            (r#"DnsName("db.example")"#, "db.example"),
            ("IpAddress(192.0.2.7)", "192.0.2.7"),
            ("IpAddress(::1)", "::1"),
            ("DirectoryName", "DirectoryName"),
        ] {
            assert_eq!(plain(wrapped), name);
        }
    }
}
