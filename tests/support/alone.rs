//! Tests that need a process of their own: with little memory, or with an environment.
//!
//! Such a test is two: one that starts the process, and one marked `#[ignore]` that does the work in it.

use std::process::Command;

const MARK: &str = "NOTIFYMAN_TEST_ALONE";

/// Runs the ignored test of this full name alone, after a line of shell and with these variables; it must pass.
pub fn run(test: &str, shell: &str, environment: &[(&str, &str)]) {
    run_in(&["env"], test, shell, environment);
}

/// The same under a command that runs another, such as `unshare -n`.
pub fn run_in(under: &[&str], test: &str, shell: &str, environment: &[(&str, &str)]) {
    let output = Command::new(under[0])
        .args(&under[1..])
        .args(["sh", "-c", &format!(r#"{shell} && exec "$0" --exact --include-ignored --nocapture "$1""#)])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(MARK, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
}

/// Whether a command works here that gives a process a world of its own, such as `unshare -n`. Where it doesn't, that
/// is said, since what can't be tested must not look as if it had been.
pub fn can(under: &[&str]) -> bool {
    let tried = Command::new(under[0]).args(&under[1..]).arg("true").output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        eprintln!("\n!!! NOT TESTED: `{}` isn't allowed here, or isn't there\n", under.join(" "));
    }
    can
}

/// Runs a shell script, which must succeed. A tool that is missing is installed by `tests/tools`.
pub fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}; where a tool is missing, `tests/tools` installs it");
}

/// Whether this is such a process. Where it isn't, as under `--ignored`, there is nothing to do.
pub fn is_so() -> bool {
    std::env::var_os(MARK).is_some()
}
