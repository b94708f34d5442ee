//! Finds a PostgreSQL server's programs on this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::error::ClusterError;

/// The environment variable that names the directory with `postgres` and `initdb`.
pub const BIN_VARIABLE: &str = "NOTIFYMAN_PG_BIN";

/// Returns the directory with a server's programs: the first of those that `tests/with-postgres` searches, too.
pub fn find_server() -> Result<PathBuf, ClusterError> {
    let usable = |directory: &Path| {
        let has_all = ["postgres", "initdb"].iter().all(|name| is_program(&directory.join(name)));
        has_all.then(|| fs::canonicalize(directory).ok()).flatten()
    };
    let advice =
        format!("run under `tests/with-postgres`, or set {BIN_VARIABLE} to a directory with postgres and initdb");
    if let Some(directory) = env::var_os(BIN_VARIABLE).filter(|directory| !directory.is_empty()) {
        let unusable = || ClusterError(format!("no server in {BIN_VARIABLE}={}: {advice}", directory.display()));
        return usable(Path::new(&directory)).ok_or_else(unusable);
    }

    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let project = || PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut directories = versions(&target.unwrap_or_else(|| project().join("target")).join("postgres"), "", "bin");
    for (parent, prefix, below) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        directories.extend(versions(Path::new(parent), prefix, below));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        directories.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let not_found = || ClusterError(format!("no PostgreSQL server found on this machine: {advice}"));
    directories.iter().find_map(|directory| usable(directory)).ok_or_else(not_found)
}

/// Returns the directories `parent/prefix…/below`, newest version first.
fn versions(parent: &Path, prefix: &str, below: &str) -> Vec<PathBuf> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<u32>().ok());
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            Some((number(entry.file_name().to_str()?.strip_prefix(prefix)?)?, entry.path().join(below)))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, directory)| directory).collect()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}
