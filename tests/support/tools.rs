//! Programs of the system that some tests need, and reports of tests that could not run without them.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::process::Command;

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

/// Returns `true` if a wrapper that isolates a process, such as `unshare -n`, works here; otherwise reports that.
pub fn can_run(wrapper: &[&str]) -> bool {
    let output = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    let works = output.is_ok_and(|output| output.status.success());
    if !works {
        not_run(&format!("`{}` is not allowed here, or is missing", wrapper.join(" ")));
    }
    works
}

/// Runs a shell script, which must succeed. `tests/tools` installs missing programs.
pub fn run_script(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {text}; `tests/tools` installs missing programs");
}
