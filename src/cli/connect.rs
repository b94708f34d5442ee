//! Settings from `--url` and the environment, and advice for attempts to connect that fail.

use notifyman::{Config, Connection, Error};

use super::label;
use super::outcome::Failure;

/// The error of a label that is none. It does not repeat the text, which may be a password that has lost its place.
const LABEL: &str = "the label before a URL has 1 to 63 characters, ASCII letters, digits, '_', '-' or '.', as in \
                     berlin=postgres://db1/shop";

/// Returns the settings of a connection string, which may have a label, with the `PG*` environment variables as defaults, as
/// in `psql`.
pub(crate) fn config(url: Option<&str>) -> Result<Config, Error> {
    let (label, url) = url.map(label::split).map_or((None, None), |(label, url)| (label, Some(url)));
    let config = url.map_or_else(Config::from_env, str::parse)?.label(label.unwrap_or_default());
    Ok(match config.get_application_name() {
        None => config.application_name("notifyman"),
        Some(_) => config,
    })
}

/// Like [`config`], for several connection strings; an error contains the position of its string.
pub(crate) fn configs(urls: &[Option<&str>]) -> Result<Vec<Config>, Failure> {
    let numbered = |number: usize, problem: &str| match urls.len() {
        1 => Failure::Usage(problem.to_owned()),
        _ => Failure::Usage(format!("URL number {number}: {problem}")),
    };
    let config = |(number, url): (usize, &Option<&str>)| {
        if url.is_some_and(label::is_misspelled) {
            return Err(numbered(number, LABEL));
        }
        config(*url).map_err(|error| match urls.len() {
            1 => Failure::from(error),
            _ => numbered(number, &format!("{error:#}")),
        })
    };
    (1..).zip(urls).map(config).collect()
}

/// Connects; a failure contains the address, the cause and advice.
pub(crate) fn connect(config: &Config) -> Result<Connection, Failure> {
    Connection::connect(config).map_err(failure_with_advice)
}

/// Returns the failure for an error of connecting, with advice if there is any.
pub(crate) fn failure_with_advice(error: Error) -> Failure {
    match advice(&error) {
        Some(advice) => Failure::Advised(format!("{error:#}"), advice),
        None => Failure::from(error),
    }
}

/// Returns advice for an error of connecting, unless the error contains it.
pub(crate) fn advice(error: &Error) -> Option<&'static str> {
    match error.sqlstate() {
        Some("3D000") => Some("name another database, or create this one"),
        Some("42501") => Some("ask the owner of the database to run GRANT CONNECT ON DATABASE .. TO this role"),
        Some("53300") => Some("end sessions of the server, or raise its max_connections"),
        _ if error.is_usage() => None,
        _ if is_out_of_descriptors(error) => Some("raise the limit of open files of this process (ulimit -n)"),
        _ if error.is_auth() => Some("check the user, and the password in PGPASSWORD or in the URL"),
        _ if error.is_tls() => None,
        _ if error.is_transient() => {
            Some("check that a server is running there, and that --url or PGHOST and PGPORT are right")
        }
        _ => None,
    }
}

/// Returns `true` if this process (EMFILE) or the system (ENFILE) has no file descriptor left.
fn is_out_of_descriptors(error: &Error) -> bool {
    match error {
        Error::Connect(connect) => is_out_of_descriptors(connect.cause()),
        Error::Io { error, .. } => matches!(error.raw_os_error(), Some(23 | 24)),
        _ => false,
    }
}
