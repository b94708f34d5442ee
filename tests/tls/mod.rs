//! TLS on real servers and scripted ones: what works with `psql` works here, and what fails says why.

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

/// A server that anybody may log in to, with TLS or without, and who has signed its certificate.
pub struct Common {
    pub ca: Authority,
    pub server: TlsServer,
    /// The file with the authority.
    pub root: String,
}

/// The server that most tests share.
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
    /// Settings by which the server is checked fully.
    pub fn checked(&self) -> Config {
        config(&self.server.dsn(&format!("sslmode=verify-full sslrootcert={}", self.root)))
    }
}

/// Whether the server says that the session is encrypted.
pub fn is_encrypted(db: &mut Connection) -> bool {
    ask(db, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"
}

/// A session that must come about.
pub fn open(text: &str) -> Connection {
    Connection::connect(config(text)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Fails for this reason, and says where, as whom and what to do.
pub fn refused_for(config: Config, kind: TlsErrorKind, part: &str) -> Error {
    let error = refused(config);
    assert_eq!(error.tls().map(notifyman::TlsError::kind), Some(kind), "{error}");
    let text = error.to_string();
    assert!(text.contains(part), "{text}");
    assert!(text.contains("as \"postgres\", database \"postgres\"") && !text.contains('\n'), "{text}");
    error
}
