//! Findings for TLS errors.

use super::finding::FindingKind::{Disconnected, Tls};
use super::finding::FindingText;
use crate::error::TlsErrorKind;

pub(super) fn by_kind(kind: TlsErrorKind) -> FindingText {
    match kind {
        TlsErrorKind::NotOffered => (
            Tls,
            "The settings require TLS, and the server does not support it.",
            "Set `ssl` to on in the server, with a certificate, or use sslmode=prefer if the network is trusted. If the \
             server supports TLS, a proxy prevents it.",
        ),
        TlsErrorKind::Expired => (
            Tls,
            "The server's certificate has expired or is not valid yet.",
            "Renew it and reload the server (`SELECT pg_reload_conf()`). If it is valid, set the clock of this machine.",
        ),
        TlsErrorKind::UnknownAuthority => (
            Tls,
            "The server's certificate is not signed by a trusted certificate authority.",
            "Set `sslrootcert` to the file of its authority (a self-signed certificate is its own), and check that \
             the server's `ssl_cert_file` contains the intermediate certificates. If both are right, this may not be \
             the server.",
        ),
        TlsErrorKind::WrongName => (
            Tls,
            "The server's certificate is for another host.",
            "Connect by one of its names, with the address in `hostaddr` if necessary, or reissue it with this name. \
             If it should be right, this may not be the server.",
        ),
        TlsErrorKind::Revoked => (
            Tls,
            "The server's certificate has been revoked, or there is no current revocation list.",
            "Replace the certificate, or renew the lists in `sslcrl` and `sslcrldir`.",
        ),
        TlsErrorKind::BadCertificate => (
            Tls,
            "The server's certificate is invalid.",
            "Reissue it: X.509 version 3, with a subjectAltName, for servers.",
        ),
        TlsErrorKind::File => (
            Tls,
            "A TLS file of the client is missing or invalid, or other users can read it.",
            "Correct the file that the error names: `sslrootcert`, `sslcert`, `sslkey`, `sslcrl`, or their defaults in \
             ~/.postgresql.",
        ),
        TlsErrorKind::NoCommonVersion => (
            Tls,
            "Client and server have no TLS version or cipher suite in common.",
            "Compare `ssl_min_protocol_version` and `ssl_max_protocol_version` of both sides, and the server's \
             `ssl_ciphers`; the client supports 1.2 and 1.3.",
        ),
        TlsErrorKind::RefusedByServer => (
            Tls,
            "The server rejects the client certificate, or requires one.",
            "Set `sslcert` to a certificate that its `ssl_ca_file` trusts, and `sslkey` to its key; the server's log \
             contains the reason.",
        ),
        TlsErrorKind::Interrupted => (
            Disconnected,
            "The server closed the connection during the TLS handshake.",
            "The server may be stopping, a proxy may have no server, or a server older than 17 may have received \
             sslnegotiation=direct: check their logs.",
        ),
        _ => (Tls, "The TLS handshake failed.", "Check host and port, any proxy, and the server's log."),
    }
}
