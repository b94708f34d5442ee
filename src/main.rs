//! The program `notifyman`: receives and sends notifications, and manages table changes. See `notifyman --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
