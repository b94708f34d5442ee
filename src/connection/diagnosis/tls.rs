//! What a fault of TLS says about a server, and about our side.

use super::FindingKind::{Disconnected, Tls};
use super::opening::Text;
use crate::error::TlsErrorKind;

pub(super) fn by_kind(kind: TlsErrorKind) -> Text {
    match kind {
        TlsErrorKind::NotOffered => (
            Tls,
            "The server has no TLS, and the settings demand it.",
            "Switch the server's setting `ssl` on, with a certificate; or use sslmode=prefer where the network is \
             trusted. If the server has TLS, something between keeps it away.",
        ),
        TlsErrorKind::Expired => (
            Tls,
            "The server's certificate has expired, or isn't valid yet.",
            "Renew it, and have the server reload (`SELECT pg_reload_conf()`); if it is valid, set this machine's clock.",
        ),
        TlsErrorKind::UnknownAuthority => (
            Tls,
            "The server's certificate is signed by nobody whom this side trusts.",
            "Name the file with its authority in `sslrootcert` (a self-signed certificate is its own), and see that \
             the server's `ssl_cert_file` also holds the certificates between. If all that is so, this may not be \
             the server.",
        ),
        TlsErrorKind::WrongName => (
            Tls,
            "The server's certificate is for another host.",
            "Connect by a name that it has, with `hostaddr` for the address if need be; or have it made anew. If it \
             should be right, this may not be the server.",
        ),
        TlsErrorKind::Revoked => (
            Tls,
            "The server's certificate has been revoked, or no current list tells that it hasn't.",
            "Give the server a new one; or renew the lists in `sslcrl` and `sslcrldir`.",
        ),
        TlsErrorKind::BadCertificate => (
            Tls,
            "The server's certificate can't be used.",
            "Have it made anew: X.509 version 3, with a subjectAltName, for servers.",
        ),
        TlsErrorKind::File => (
            Tls,
            "A file that TLS needs on this side is missing, can't be used, or may be read by others.",
            "Correct what the error names: `sslrootcert`, `sslcert`, `sslkey`, `sslcrl`, or their defaults in \
             ~/.postgresql.",
        ),
        TlsErrorKind::NoCommonVersion => (
            Tls,
            "The two sides have no version or cipher of TLS in common.",
            "Compare `ssl_min_protocol_version` and `ssl_max_protocol_version` of both sides, and the server's \
             `ssl_ciphers`; 1.2 and 1.3 are spoken here.",
        ),
        TlsErrorKind::RefusedByServer => (
            Tls,
            "The server refuses this side's certificate, or misses one.",
            "Name one that its `ssl_ca_file` trusts in `sslcert`, and its key in `sslkey`; the server's log tells more.",
        ),
        TlsErrorKind::Interrupted => (
            Disconnected,
            "The server hung up before TLS was agreed on.",
            "A server that is stopping, a proxy with none behind it, or one older than 17 that was asked for \
             sslnegotiation=direct: their logs tell.",
        ),
        _ => (
            Tls,
            "The two sides can't agree on TLS.",
            "Check that host and port are the server's; then what stands between, and the server's log.",
        ),
    }
}
