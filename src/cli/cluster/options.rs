//! The options of a throwaway server.

/// The options of a cluster. [`Options::new`] sets 100 connections, the encoding UTF8, and logins without a password.
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) encoding: String,
    pub(super) settings: Vec<(String, String)>,
    pub(super) hba: Vec<String>,
    pub(super) method: String,
    pub(super) password: Option<String>,
    pub(super) files: Vec<(String, Vec<u8>)>,
}

impl Options {
    /// Returns the defaults: 100 connections, UTF8, and any role can log in without a password.
    pub fn new() -> Self {
        Self {
            encoding: "UTF8".into(),
            settings: Vec::new(),
            hba: Vec::new(),
            method: "trust".into(),
            password: None,
            files: Vec::new(),
        }
    }

    /// Sets the server's `max_connections`.
    pub fn max_connections(self, n: u32) -> Self {
        self.setting("max_connections", n.to_string())
    }

    /// Adds a setting, as in `postgresql.conf`. If a name is repeated, the last value is used.
    pub fn setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Adds a line to `pg_hba.conf`, before those that allow every login. The first line that matches is used.
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.hba.push(line.into());
        self
    }

    /// Requires a login by `scram-sha-256`, `md5` or `password`, and gives `postgres` this password.
    pub fn auth(mut self, method: &str, password: &str) -> Self {
        self.method = method.into();
        self.password = Some(password.into());
        self
    }

    /// Sets the encoding of all databases: `UTF8`, `LATIN1`, `SQL_ASCII`.
    pub fn encoding(mut self, encoding: &str) -> Self {
        self.encoding = encoding.into();
        self
    }

    /// Adds a file to the data directory that only the server can read, such as a TLS key. Settings refer to it by its
    /// name alone.
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }
}
