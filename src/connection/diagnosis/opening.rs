//! Findings for the error of a connection that could not be opened, or that was lost.

use std::io::ErrorKind;

use super::finding::FindingKind::{
    ConnectFailed, Disconnected, Login, NameNotFound, NoPermission, NoSuchDatabase, NotAccepting, NotPostgres, Refused,
    Settings, Tls, TooManyConnections, Unreachable,
};
use super::finding::{Finding, FindingText, Severity};
use crate::error::{Error, LOGGING_IN, NEGOTIATING_TLS, RESOLVING, ServerError, TlsErrorKind};

/// Returns one finding for each kind of failure among the addresses.
pub(super) fn findings(error: &Error) -> Vec<Finding> {
    let Error::Connect(failed) = error else { return vec![finding(error).because(format!("{error:#}"))] };
    let mut found: Vec<Finding> = Vec::new();
    let last = (&failed.target, &failed.cause);
    for (place, cause) in failed.earlier.iter().map(|(place, cause)| (place, cause)).chain([last]) {
        let evidence = format!("{place}: {cause:#}");
        let new = finding(cause);
        match found.iter_mut().find(|known| known.kind == new.kind && known.what == new.what) {
            Some(known) => known.evidence = known.evidence.take().map(|before| format!("{before}; {evidence}")),
            None => found.push(new.because(evidence)),
        }
    }
    found
}

/// Returns the finding for a connection that was lost while it was examined.
pub(super) fn lost(error: &Error) -> Finding {
    let what = "The connection was closed while it was examined.";
    let advice = "Check the logs of the server and of any proxy or pooler.";
    Finding::new(Disconnected, Severity::Failure, what, advice).because(format!("{error:#}"))
}

fn finding(error: &Error) -> Finding {
    let (kind, what, advice) = match error {
        Error::Server(refusal) => by_server(refusal),
        Error::Auth(_) => (
            Login,
            "The client cannot log in: no password was given, or the method that the server requests is not supported or \
             not allowed.",
            "Set a password, or allow the method in `require_auth` and `channel_binding`.",
        ),
        Error::Password { .. } => (
            Login,
            "The function of `password_with` returned no password.",
            "Correct what its error names; it is called again for each attempt.",
        ),
        Error::AfterConnect(_) | Error::LeftInTransaction => (
            Settings,
            "The SQL of `after_connect` cannot be executed.",
            "Correct the SQL, or grant the privileges that it needs.",
        ),
        Error::Config(wrong) if wrong.to_string().contains("feature `tls`") => (
            Tls,
            "The settings require TLS, which is not built into this program.",
            "Enable the feature `tls` of notifyman, or use sslmode=prefer if the network is trusted.",
        ),
        Error::Tls(wrong) => by_tls(wrong.kind()),
        Error::Config(_) | Error::Value(_) => (
            Settings,
            "The settings are invalid, so no connection was attempted.",
            "Correct the setting that the error names.",
        ),
        Error::Resolve { .. } => (
            NameNotFound,
            "The host name cannot be resolved.",
            "Check its spelling and the resolver of this machine; an address in `hostaddr` needs no name resolution.",
        ),
        Error::Timeout { action, .. } => late(action),
        Error::Io { error, .. } => by_system(error.kind()),
        Error::Protocol(_) => (
            NotPostgres,
            "The peer is not a PostgreSQL server, or a proxy modifies the messages.",
            "Check host and port; the default port of PostgreSQL is 5432.",
        ),
        Error::Disconnected => hung_up(),
        _ => other(),
    };
    Finding::new(kind, Severity::Failure, what, advice)
}

fn by_server(refusal: &ServerError) -> FindingText {
    match refusal.code() {
        // "no encryption", or "SSL off" in versions before 14, means that no hostssl line matches.
        "28000" if ["no encryption", "SSL off"].iter().any(|word| refusal.message().contains(word)) => (
            Tls,
            "The server accepts this role only with TLS, which this connection does not use, or not at all.",
            "Use sslmode=require or stricter. If the network is trusted, pg_hba.conf may instead have a line for this \
             role, database and address that begins with `host` instead of `hostssl`.",
        ),
        "28P01" => (
            Login,
            "The server rejects the password, or the role does not exist; the server does not report which.",
            "Check user and password; `ALTER ROLE .. PASSWORD` sets a new one.",
        ),
        code if code.starts_with("28") => (
            Login,
            "The server rejects the login of this role.",
            "Check the role's name, its LOGIN attribute, and the lines of pg_hba.conf for it, its database and its address.",
        ),
        "3D000" => (
            NoSuchDatabase,
            "The database does not exist.",
            "Check its name, which is case-sensitive; the default is the name of the role.",
        ),
        "53300" => (
            TooManyConnections,
            "The server, the database or the role has reached its connection limit.",
            "Share one listening session among several consumers, close idle sessions, or raise max_connections or the \
             CONNECTION LIMIT of the role or the database.",
        ),
        "57P03" => (
            NotAccepting,
            "The server is starting up, recovering or shutting down.",
            "Try again later; if the problem persists, check the server's log.",
        ),
        "42501" => {
            (NoPermission, "The role may not connect to this database.", "GRANT CONNECT ON DATABASE .. TO the role.")
        }
        _ => other(),
    }
}

fn by_tls(kind: TlsErrorKind) -> FindingText {
    let (what, advice) = match kind {
        TlsErrorKind::NotOffered => (
            "The settings require TLS, and the server does not support it.",
            "Set `ssl` to on in the server, with a certificate, or use sslmode=prefer if the network is trusted. If the \
             server supports TLS, a proxy prevents it.",
        ),
        TlsErrorKind::Expired => (
            "The server's certificate has expired or is not valid yet.",
            "Renew it and reload the server (`SELECT pg_reload_conf()`). If it is valid, set the clock of this machine.",
        ),
        TlsErrorKind::UnknownAuthority => (
            "The server's certificate is not signed by a trusted certificate authority.",
            "Set `sslrootcert` to the file of its authority (a self-signed certificate is its own), and check that \
             the server's `ssl_cert_file` contains the intermediate certificates. If both are right, this may not be \
             the server.",
        ),
        TlsErrorKind::WrongName => (
            "The server's certificate is for another host.",
            "Connect by one of its names, with the address in `hostaddr` if necessary, or reissue it with this name. \
             If it should be right, this may not be the server.",
        ),
        TlsErrorKind::Revoked => (
            "The server's certificate has been revoked, or there is no current revocation list.",
            "Replace the certificate, or renew the lists in `sslcrl` and `sslcrldir`.",
        ),
        TlsErrorKind::BadCertificate => {
            ("The server's certificate is invalid.", "Reissue it: X.509 version 3, with a subjectAltName, for servers.")
        }
        TlsErrorKind::File => (
            "A TLS file of the client is missing or invalid, or other users can read it.",
            "Correct the file that the error names: `sslrootcert`, `sslcert`, `sslkey`, `sslcrl`, or their defaults in \
             ~/.postgresql.",
        ),
        TlsErrorKind::NoCommonVersion => (
            "Client and server have no TLS version or cipher suite in common.",
            "Compare `ssl_min_protocol_version` and `ssl_max_protocol_version` of both sides, and the server's \
             `ssl_ciphers`; the client supports 1.2 and 1.3.",
        ),
        TlsErrorKind::RefusedByServer => (
            "The server rejects the client certificate, or requires one.",
            "Set `sslcert` to a certificate that its `ssl_ca_file` trusts, and `sslkey` to its key; the server's log \
             contains the reason.",
        ),
        TlsErrorKind::Interrupted => (
            "The server closed the connection during the TLS handshake.",
            "The server may be stopping, a proxy may have no server, or a server older than 17 may have received \
             sslnegotiation=direct: check their logs.",
        ),
        _ => ("The TLS handshake failed.", "Check host and port, any proxy, and the server's log."),
    };
    (if kind == TlsErrorKind::Interrupted { Disconnected } else { Tls }, what, advice)
}

fn by_system(kind: ErrorKind) -> FindingText {
    match kind {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => (
            Refused,
            "No process listens at the address.",
            "Check that the server is running, its port, and its `listen_addresses` (by default only `localhost`); for a \
             Unix socket, check its `unix_socket_directories`.",
        ),
        ErrorKind::PermissionDenied => (
            Refused,
            "The operating system denies access to the address.",
            "For a Unix socket, check its permissions and those of its directory; otherwise the local firewall.",
        ),
        ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable => late("connecting"),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => hung_up(),
        _ => other(),
    }
}

fn late(action: &str) -> FindingText {
    match action {
        LOGGING_IN | NEGOTIATING_TLS => (
            Unreachable,
            "The connection is accepted, but the peer does not answer.",
            "The server may be suspended or overloaded, a proxy may have no server, or another service may use this \
             port: check the server, and any proxy or pooler.",
        ),
        RESOLVING => (
            NameNotFound,
            "The name resolution of the host timed out.",
            "Check the resolver of this machine; an address in `hostaddr` needs no name resolution.",
        ),
        _ => (
            Unreachable,
            "The address does not respond.",
            "Check address and port, whether the host is up, and the firewalls and security groups, which may drop \
             packets.",
        ),
    }
}

fn hung_up() -> FindingText {
    (
        Disconnected,
        "The connection was accepted and then closed unexpectedly.",
        "A proxy or load balancer may have no available server, the service may not be PostgreSQL, or a server \
         process may have crashed: check their logs.",
    )
}

fn other() -> FindingText {
    (ConnectFailed, "The connection could not be opened.", "Check the error, and the log of the server or the pooler.")
}
