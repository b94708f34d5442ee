//! The units for systemd in the documentation, checked by systemd itself.

use std::fs;
use std::process::Command;

use super::*;
use crate::support::tools::not_run;

#[test]
fn the_units_of_the_documentation_are_valid() {
    for page in [include_str!("../../src/docs/recipes.md"), include_str!("../../src/docs/relay.md")] {
        let unit = page.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        verify(unit);
    }
}

fn verify(unit: &str) {
    let installed = ["/usr/local/bin/notifyman", "/usr/local/bin/invalidate"];
    let unit = installed.iter().fold(unit.to_owned(), |unit, path| unit.replace(path, PROGRAM));
    let directory = std::env::temp_dir().join(format!("notifyman-unit-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let path = directory.join("notifyman.service");
    fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
    fs::remove_dir_all(&directory).unwrap();
    let Ok(output) = output else { return not_run("`systemd-analyze` is missing") };
    // Units of the system may have warnings of their own.
    let text = String::from_utf8_lossy(&output.stderr);
    let faults: Vec<_> = text.lines().filter(|line| line.contains("notifyman")).collect();
    assert!(faults.is_empty(), "{faults:?}");
}
