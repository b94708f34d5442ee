//! The program `notifyman`: it prints what is notified, notifies, and shows itself. `notifyman --help` tells more.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
