//! The command line: arguments become plain data, a command runs, and the result is one exit code.
//!
//! ```text
//! args ──> listen · notify · doctor · build, verify .. worker · relay · demo ──> Exit or Failure ──> exit code
//! ```
//!
//! Results go to standard output, everything else to standard error. The reader of the output may close it at any time:
//! that is not an error. No output contains a password.

mod args;
mod changes;
mod clock;
mod cluster;
mod connect;
mod demo;
mod doctor;
mod duration;
mod engine;
mod health;
mod label;
mod listen;
mod man;
mod messages;
mod notify;
mod outcome;
mod output;
mod reader;
mod relay;
mod shell;
mod signals;
mod target;
mod usage;
mod values;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use self::args::{Args, CliCommand};
use self::messages::{print_message, print_message_with_advice};
use self::outcome::{Exit, Failure};
use self::output::print;

/// Runs the program, from its arguments to its exit code.
pub(crate) fn run() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| usage::improved(error).exit());
    // Each connection needs a descriptor, and macOS limits a process to 256 by default. If raising the limit fails,
    // connecting reports the cause.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let result = match args.command {
        CliCommand::Listen(args) => listen::run(args),
        CliCommand::Notify(args) => notify::run(args),
        CliCommand::Doctor(args) => doctor::run(&args),
        CliCommand::Build(args) => changes::build(args),
        CliCommand::Status(args) => changes::status(&args),
        CliCommand::Verify(args) => changes::verify(&args),
        CliCommand::Teardown(args) => changes::teardown(&args),
        CliCommand::Worker(args) => changes::worker(args),
        CliCommand::Relay(args) => relay::run(&args),
        CliCommand::Demo(args) => demo::run(&args),
        CliCommand::Completions { shell } => completions(shell),
        CliCommand::Man(args) => man::run(&args),
    };
    let code = match result {
        Ok(Exit::Done) => 0,
        Ok(Exit::Incomplete) => 1,
        Ok(Exit::Warned) => 3,
        Ok(Exit::ReaderGone) => 4,
        Ok(Exit::Signalled(signal)) => u8::try_from(signal).map_or(1, |signal| signal.saturating_add(128)),
        Err(failure) => fail(failure),
    };
    ExitCode::from(code)
}

/// Reports a failure, and returns the exit code.
fn fail(failure: Failure) -> u8 {
    match failure {
        Failure::Output(error) if error.kind() == ErrorKind::BrokenPipe => return 0,
        Failure::Output(error) => print_message(format_args!("could not write to standard output: {error}")),
        Failure::Failed(message) => print_message(message),
        Failure::Advised(message, advice) => print_message_with_advice(message, advice),
        Failure::Usage(message) => {
            print_message(message);
            return 2;
        }
    }
    1
}

fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "notifyman", &mut script);
    print(&String::from_utf8_lossy(&script))
}
