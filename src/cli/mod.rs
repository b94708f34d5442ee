//! The command line: arguments become plain data, a command acts, and one exit code comes out.
//!
//! ```text
//! args ──> listen · notify · doctor · build, verify .. worker · demo ──> End or Failure ──> exit code
//! ```
//!
//! Results go to standard output, everything else to standard error. Whoever reads the output may go away at any time:
//! that is no error. Nothing here prints a password.

mod args;
mod changes;
mod clock;
mod cluster;
mod connections;
mod delivery;
mod demo;
mod doctor;
mod exec;
mod listen;
mod notify;
mod output;
mod shell;
mod signals;
mod target;
mod usage;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use notifyman::{Config, Connection, Error};

use self::args::{Args, Command};
use self::output::{print, tell, tell_with_advice};

/// How a command ended that did what it could.
enum End {
    Done,
    /// Something went wrong on the way, and was told when it did.
    Incomplete,
    /// It works, and something was told that had better be done.
    Warned,
    /// By this signal.
    Signalled(i32),
    /// The reader of standard output has gone, with work left to be done.
    ReaderGone,
}

/// Why a command couldn't go on.
enum Failure {
    /// It was asked for what can't be.
    Usage(String),
    Failed(String),
    /// Like `Failed`, with advice.
    Advised(String, &'static str),
    /// Standard output can't be written to.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_usage() { Failure::Usage(error.to_string()) } else { Failure::Failed(error.to_string()) }
    }
}

/// The program, from its arguments to its exit code.
pub(crate) fn run() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| usage::improved(error).exit());
    // Each connection is a descriptor, and macOS gives a process 256 unless it asks. Where that fails, connecting says so.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let ended = match args.command {
        Command::Listen(args) => listen::run(args),
        Command::Notify(args) => notify::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Build(args) => changes::build(args),
        Command::Status(args) => changes::status(&args),
        Command::Verify(args) => changes::verify(&args),
        Command::Teardown(args) => changes::teardown(&args),
        Command::Worker(args) => changes::worker(args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions { shell } => completions(shell),
    };
    let code = match ended {
        Ok(End::Done) => 0,
        Ok(End::Incomplete) => 1,
        Ok(End::Warned) => 3,
        Ok(End::ReaderGone) => 4,
        Ok(End::Signalled(signal)) => u8::try_from(signal).map_or(1, |signal| signal.saturating_add(128)),
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => 0,
        Err(Failure::Output(error)) => fail(1, &format!("writing the output: {error}")),
        Err(Failure::Failed(message)) => fail(1, &message),
        Err(Failure::Advised(message, advice)) => {
            tell_with_advice(message, advice);
            1
        }
        Err(Failure::Usage(message)) => fail(2, &message),
    };
    ExitCode::from(code)
}

fn fail(code: u8, message: &str) -> u8 {
    tell(message);
    code
}

fn completions(shell: clap_complete::Shell) -> Result<End, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "notifyman", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// What a `--url` says over the environment; without one the environment alone, as with `psql`.
fn config(url: Option<&str>) -> Result<Config, Error> {
    let config = url.map_or_else(Config::from_env, str::parse)?;
    Ok(match config.get_application_name() {
        None => config.application_name("notifyman"),
        Some(_) => config,
    })
}

/// Like [`config`], for several URLs; an error gives the number of its URL.
fn configs(urls: &[Option<&str>]) -> Result<Vec<Config>, Failure> {
    let config = |(number, url): (usize, &Option<&str>)| {
        config(*url).map_err(|error| match urls.len() {
            1 => Failure::from(error),
            _ => Failure::Usage(format!("URL number {number}: {error}")),
        })
    };
    (1..).zip(urls).map(config).collect()
}

/// Connects; a failure says where, why, and what may help.
fn connect(config: &Config) -> Result<Connection, Failure> {
    Connection::connect(config).map_err(advise)
}

/// Why connecting failed, with what may help.
fn advise(error: Error) -> Failure {
    match advice(&error) {
        Some(advice) => Failure::Advised(error.to_string(), advice),
        None => Failure::from(error),
    }
}

/// Returns advice for an error of connecting, unless the error contains it.
fn advice(error: &Error) -> Option<&'static str> {
    match error.sqlstate() {
        Some("3D000") => Some("name another database, or create it"),
        Some("42501") => Some("have the owner of the database run GRANT CONNECT ON DATABASE .. TO this role"),
        Some("53300") => Some("close sessions of the server, or raise its max_connections"),
        _ if error.is_usage() => None,
        _ if is_out_of_descriptors(error) => Some("raise this process's limit of open files (ulimit -n)"),
        _ if error.is_auth() => Some("see that the user is right, and give the password by PGPASSWORD or in the URL"),
        _ if error.is_tls() => None,
        _ if error.is_transient() => Some("see that a server runs there, and that --url or PGHOST and PGPORT name it"),
        _ => None,
    }
}

/// Whether the system has no descriptor left for this process (EMFILE), or for anybody (ENFILE).
fn is_out_of_descriptors(error: &Error) -> bool {
    match error {
        Error::Connect(connect) => is_out_of_descriptors(connect.cause()),
        Error::Io { error, .. } => matches!(error.raw_os_error(), Some(23 | 24)),
        _ => false,
    }
}
