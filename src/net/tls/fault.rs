//! Translates the errors of rustls: their meaning and their remedy.

use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};

use crate::error::TlsError;
use crate::error::TlsErrorKind::{
    self, BadCertificate, Expired, Handshake, NoCommonVersion, RefusedByServer, Revoked, UnknownAuthority, WrongName,
};

/// Translates an error.
pub(super) fn of(error: Error, in_handshake: bool) -> TlsError {
    let (kind, message) = match error {
        Error::InvalidCertificate(bad) => certificate(&bad),
        Error::InvalidCertRevocationList(bad) => {
            (Revoked, format!("the certificate revocation list is invalid ({bad:?}): renew sslcrl"))
        }
        Error::AlertReceived(alert) => self::alert(alert),
        Error::PeerIncompatible(what) => (
            NoCommonVersion,
            format!(
                "client and server have no TLS version, cipher suite or signature algorithm in common ({what:?}): compare \
                 ssl_min_protocol_version and ssl_max_protocol_version with the server's settings of the same names"
            ),
        ),
        Error::InvalidMessage(what) if in_handshake => {
            (Handshake, format!("the peer does not support TLS ({what:?}): check host and port, and any proxy"))
        }
        Error::DecryptError => (Handshake, "a record was damaged or forged in transit".into()),
        other => (Handshake, other.to_string()),
    };
    TlsError::new(kind, message)
}

fn certificate(bad: &Bad) -> (TlsErrorKind, String) {
    let (kind, message) = match bad {
        Bad::Expired | Bad::ExpiredContext { .. } => {
            (Expired, "the server's certificate has expired: renew it and reload the server")
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            (Expired, "the server's certificate is not valid yet: check the clocks of both machines")
        }
        Bad::UnknownIssuer => (
            UnknownAuthority,
            "the server's certificate is not signed by a trusted certificate authority: check that sslrootcert contains \
             its authority, and that the server sends the intermediate certificates",
        ),
        Bad::BadSignature => (
            UnknownAuthority,
            "the signature of the server's certificate is not its authority's: check that sslrootcert contains the \
             authority's current certificate",
        ),
        Bad::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| plain(name)).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!(
                "the server's certificate is not valid for {:?} (its names: {names}): connect by one of its names, \
                 reissue it with this one, or use sslmode=verify-ca if its authority signs for no other host",
                expected.to_str()
            );
            return (WrongName, message);
        }
        Bad::NotValidForName => (WrongName, "the server's certificate is for another host"),
        Bad::Revoked => (Revoked, "the server's certificate has been revoked: replace it"),
        Bad::UnknownRevocationStatus => (
            Revoked,
            "there is no revocation list for the server's certificate: sslcrl must contain one of each authority \
             between the server and the root",
        ),
        Bad::ExpiredRevocationList | Bad::ExpiredRevocationListContext { .. } => {
            (Revoked, "the certificate revocation list has expired: renew sslcrl")
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            (BadCertificate, "the server's certificate is not for servers: reissue it with serverAuth")
        }
        Bad::Other(other) if is_version_1(other) => (
            BadCertificate,
            "the server's certificate has no extensions (X.509 version 1): reissue it with a subjectAltName, or use \
             sslmode=require without a root file, which does not verify it",
        ),
        Bad::Other(other) if is_authority(other) => (
            BadCertificate,
            "the server's certificate is a certificate authority (CA:TRUE): reissue it with CA:FALSE, or add it to \
             the file of sslrootcert",
        ),
        other => return (BadCertificate, format!("the server's certificate is invalid: {other}")),
    };
    (kind, message.into())
}

/// Removes the type from a name of rustls: `DnsName("db.example")`, `IpAddress(192.0.2.7)`.
fn plain(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.map_or(name, |inside| inside.trim_matches('"'))
}

/// Returns `true` if the certificate was rejected because it is of X.509 version 1.
pub(super) fn is_version_1(error: &rustls::OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::UnsupportedCertVersion))
}

/// Returns `true` if the certificate was rejected because it is a certificate authority: a server's certificate must
/// not be.
pub(super) fn is_authority(error: &rustls::OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Translates an alert of the server.
fn alert(alert: Alert) -> (TlsErrorKind, String) {
    let (kind, message) = match alert {
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => (
            NoCommonVersion,
            "the server supports no TLS version or cipher suite of the client: compare ssl_min_protocol_version and \
             ssl_max_protocol_version with its settings of the same names, and check its ssl_ciphers",
        ),
        Alert::CertificateRequired => {
            (RefusedByServer, "the server requires a client certificate: set sslcert and sslkey")
        }
        Alert::UnknownCA => (
            RefusedByServer,
            "the server does not trust the authority of the client certificate: its ssl_ca_file must contain the \
             authority, and sslcert the intermediate certificates",
        ),
        Alert::CertificateExpired => {
            (RefusedByServer, "the server reports that the client certificate has expired: renew sslcert")
        }
        Alert::CertificateRevoked => {
            (RefusedByServer, "the server reports that the client certificate has been revoked")
        }
        Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown | Alert::AccessDenied => {
            (RefusedByServer, "the server rejects the client certificate: check its log")
        }
        Alert::DecryptError => (
            RefusedByServer,
            "the server rejects the client's signature: check that sslkey matches sslcert, and that the server trusts \
             the right authority",
        ),
        Alert::NoApplicationProtocol => {
            (Handshake, "the server supports TLS, but not the protocol postgresql: check host and port")
        }
        Alert::UnrecognisedName => (Handshake, "the server, or a proxy, does not know the host name (SNI)"),
        other => return (Handshake, format!("the server ended the handshake ({other:?})")),
    };
    (kind, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_formatted_without_their_type() {
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
