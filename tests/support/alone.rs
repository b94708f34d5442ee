//! Tests that need a process of their own: with little memory, or with an environment.
//!
//! Such a test is two: one that starts the process, and one marked `#[ignore]` that does the work in it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
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
        .unwrap_or_else(|error| panic!("{}: {error}; `tests/tools` installs what is missing", under[0]));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
}

/// Reports that the running test, or a part of it, could not run on this machine.
///
/// `tests/with-postgres` lists the reports at the end of a run, from the file that `NOTIFYMAN_NOT_RUN` names. The report
/// is also written to standard error directly, because the test harness hides `eprintln!` in a test that passes.
pub fn not_run(reason: &str) {
    let test = std::thread::current();
    let report = format!("{}: {reason}\n", test.name().unwrap_or("a test"));
    let _ = io::stderr().write_all(format!("\nNOT RUN: {report}").as_bytes());
    if let Some(list) = std::env::var_os("NOTIFYMAN_NOT_RUN") {
        let list = OpenOptions::new().append(true).create(true).open(list);
        list.unwrap().write_all(report.as_bytes()).unwrap();
    }
}

/// Whether a command works here that gives a process a world of its own, such as `unshare -n`. Where it doesn't, that
/// is reported.
pub fn can(under: &[&str]) -> bool {
    let tried = Command::new(under[0]).args(&under[1..]).arg("true").output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        not_run(&format!("`{}` is not allowed here, or is missing", under.join(" ")));
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
