//! TLS with real and scripted servers: settings that work with `psql` work here, and errors state their reason.

mod certificates;
mod clients;
#[cfg(feature = "cli")]
mod home;
mod hostile;
mod logins;
mod modes;
mod streams;

use std::sync::OnceLock;

use notifyman::{Config, Connection, Error, TlsErrorKind};

use crate::support::Options;
use crate::support::pki::{Authority, TlsServer};
use crate::support::server::{ask, config, refused};

/// A server that accepts all logins, with or without TLS, and the authority of its certificate.
pub struct Common {
    pub ca: Authority,
    pub server: TlsServer,
    /// The path of the authority's certificate.
    pub root: String,
}

/// Returns the server that most tests share.
pub fn common() -> &'static Common {
    static COMMON: OnceLock<Common> = OnceLock::new();
    COMMON.get_or_init(|| {
        let ca = Authority::new("common");
        let server = TlsServer::start(&ca.server(&["localhost", "127.0.0.1", "::1"]), &ca, Options::new());
        let root = server.file("root.crt", ca.pem());
        Common { ca, server, root }
    })
}

impl Common {
    /// Returns settings that fully verify the server.
    pub fn checked(&self) -> Config {
        config(&self.server.dsn(&format!("sslmode=verify-full sslrootcert={}", self.root)))
    }
}

/// Returns `true` if the server reports that the session is encrypted.
pub fn is_encrypted(db: &mut Connection) -> bool {
    ask(db, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"
}

/// Connects, which must succeed.
pub fn open(text: &str) -> Connection {
    Connection::connect(config(text)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Checks that connecting fails with this kind of error, and that the text contains the address, the role and `part`.
pub fn refused_for(config: Config, kind: TlsErrorKind, part: &str) -> Error {
    let error = refused(config);
    assert_eq!(error.tls().map(notifyman::TlsError::kind), Some(kind), "{error}");
    let text = format!("{error:#}");
    assert!(text.contains(part), "{text}");
    assert!(text.contains("as \"postgres\", database \"postgres\"") && !text.contains('\n'), "{text}");
    error
}
