//! What an error says about a connection that couldn't be opened, or that broke.

use std::io::ErrorKind;

use super::FindingKind::{
    self, ConnectFailed, Disconnected, Login, NameNotFound, NoPermission, NoSuchDatabase, NotAccepting, NotPostgres,
    Refused, Settings, Tls, TooManyConnections, Unreachable,
};
use super::{Finding, Severity, tls};
use crate::error::{Error, ServerError};

/// One finding for each way in which the addresses failed.
pub(super) fn findings(error: &Error) -> Vec<Finding> {
    let Error::Connect(failed) = error else { return vec![finding(error).because(error.to_string())] };
    let mut found: Vec<Finding> = Vec::new();
    let last = (&failed.target, &failed.cause);
    for (place, cause) in failed.earlier.iter().map(|(place, cause)| (place, cause)).chain([last]) {
        let evidence = format!("{place}: {cause}");
        let new = finding(cause);
        match found.iter_mut().find(|known| known.kind == new.kind && known.what == new.what) {
            Some(known) => known.evidence = known.evidence.take().map(|before| format!("{before}; {evidence}")),
            None => found.push(new.because(evidence)),
        }
    }
    found
}

/// The connection broke while it was examined.
pub(super) fn lost(error: &Error) -> Finding {
    let what = "The connection was closed while it was examined.";
    let advice = "Look into the server's log for the reason, and into those of proxies and poolers between.";
    Finding::new(Disconnected, Severity::Failure, what, advice).because(error.to_string())
}

fn finding(error: &Error) -> Finding {
    let (kind, what, advice) = match error {
        Error::Server(refusal) => by_server(refusal),
        Error::Auth(_) => (
            Login,
            "The login isn't done by this side: no password was given, or the method that the server asks for isn't \
             known or allowed here.",
            "Give a password, or allow the method in `require_auth` and `channel_binding`.",
        ),
        Error::Config(wrong) if wrong.to_string().contains("feature `tls`") => (
            Tls,
            "TLS is demanded by the settings, and this program has none.",
            "Build it with notifyman's feature `tls`; or use sslmode=prefer where the network is trusted.",
        ),
        Error::Tls(wrong) => tls::by_kind(wrong.kind()),
        Error::Config(_) | Error::Value(_) => {
            (Settings, "The settings can't be used: nothing was tried.", "Correct what the error names.")
        }
        Error::Resolve { .. } => (
            NameNotFound,
            "The host's name can't be looked up.",
            "Check how it is spelt, and this machine's resolver; an address in `hostaddr` needs no look-up.",
        ),
        Error::Timeout { action, .. } => late(action),
        Error::Io { error, .. } => by_system(error.kind()),
        Error::Protocol(_) => (
            NotPostgres,
            "What answers isn't a PostgreSQL server, or something between changes what it says.",
            "Check host and port: 5432 is the usual one, and other services have theirs.",
        ),
        Error::Disconnected => hung_up(),
        _ => other(),
    };
    Finding::new(kind, Severity::Failure, what, advice)
}

/// What it is about, what was found, and what to do.
pub(super) type Text = (FindingKind, &'static str, &'static str);

fn by_server(refusal: &ServerError) -> Text {
    match refusal.code() {
        // "no encryption", in versions before 14 "SSL off": what the server's log calls a missing hostssl line.
        "28000" if ["no encryption", "SSL off"].iter().any(|word| refusal.message().contains(word)) => (
            Tls,
            "The server lets this role in only with TLS, which this connection hasn't, or not at all.",
            "Use sslmode=require or stricter; or, where the network is trusted, let pg_hba.conf have a line for this \
             role, database and address that begins with `host` instead of `hostssl`.",
        ),
        "28P01" => (
            Login,
            "The server refuses the password, or the role doesn't exist: it doesn't say which.",
            "Check user and password; `ALTER ROLE .. PASSWORD` sets a new one.",
        ),
        code if code.starts_with("28") => (
            Login,
            "The server doesn't let this role in.",
            "Check the role's name, its LOGIN right, and the lines of pg_hba.conf for it, its database and its address.",
        ),
        "3D000" => (
            NoSuchDatabase,
            "The database doesn't exist.",
            "Check its name, which has upper and lower case; without a name it is the one called like the role.",
        ),
        "53300" => (
            TooManyConnections,
            "There are as many connections as the server, the database or the role may have.",
            "Let many consumers share one listening session, close what is idle, or raise max_connections, or the \
             CONNECTION LIMIT of the role or the database.",
        ),
        "57P03" => (
            NotAccepting,
            "The server is starting up, recovering or shutting down.",
            "Try again in a while; if it lasts, its log tells what it is waiting for.",
        ),
        "42501" => {
            (NoPermission, "The role may not connect to this database.", "GRANT CONNECT ON DATABASE .. TO the role.")
        }
        _ => other(),
    }
}

fn by_system(kind: ErrorKind) -> Text {
    match kind {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => (
            Refused,
            "Nobody listens at the address.",
            "Check that the server runs, its port, and its `listen_addresses` (by default only `localhost`); for a \
             Unix socket its `unix_socket_directories`.",
        ),
        ErrorKind::PermissionDenied => (
            Refused,
            "This system doesn't let us get to the address.",
            "For a Unix socket check the rights on it and on its folder; else the local firewall.",
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

fn late(action: &str) -> Text {
    match action {
        "logging in" | "agreeing on TLS" => (
            Unreachable,
            "Somebody takes the connection and then doesn't answer.",
            "A frozen or overloaded server, a proxy with no server behind it, or another service at this port: look \
             at the server, and at what stands between.",
        ),
        "looking up the host's name" => (
            NameNotFound,
            "The host's name wasn't looked up in time.",
            "Check this machine's resolver; an address in `hostaddr` needs no look-up.",
        ),
        _ => (
            Unreachable,
            "Nobody answers at the address.",
            "Check address and port, whether the host is up, and the firewalls and security groups between, which \
             drop what they don't let through.",
        ),
    }
}

fn hung_up() -> Text {
    (
        Disconnected,
        "The connection was taken and then closed without a word.",
        "A proxy or a load balancer with no good server behind it, a service that isn't PostgreSQL, or a server \
         process that crashed: their logs tell.",
    )
}

fn other() -> Text {
    (ConnectFailed, "The connection couldn't be opened.", "Read the error, and the log of the server or the pooler.")
}
