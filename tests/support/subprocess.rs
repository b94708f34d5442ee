//! Tests that need their own process: with little memory, or with other environment variables.
//!
//! Such a test has two parts: one that starts the process, and one marked `#[ignore]` that runs in it.

use std::process::Command;

/// Is set in the processes that this module starts.
const MARK: &str = "NOTIFYMAN_TEST_SUBPROCESS";

/// Runs the ignored test with this full name in a new process, after a line of shell and with these variables; the test
/// must pass.
pub fn run(test: &str, shell: &str, environment: &[(&str, &str)]) {
    run_under(&["env"], test, shell, environment);
}

/// Like [`run`], but runs the process under another command, such as `unshare -n`.
pub fn run_under(wrapper: &[&str], test: &str, shell: &str, environment: &[(&str, &str)]) {
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .args(["sh", "-c", &format!(r#"{shell} && exec "$0" --exact --include-ignored --nocapture "$1""#)])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(MARK, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `tests/tools` installs missing programs", wrapper[0]));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}

/// Returns `true` in a process that this module has started. Otherwise, as under `--ignored`, the test does nothing.
pub fn is_subprocess() -> bool {
    std::env::var_os(MARK).is_some()
}
