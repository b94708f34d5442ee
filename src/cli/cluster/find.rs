//! Where PostgreSQL's server is on this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::{BIN_VARIABLE, ClusterError};

/// The folder with a PostgreSQL server's programs: the first of those that `tests/with-postgres` looks through too.
pub fn find_server() -> Result<PathBuf, ClusterError> {
    let usable = |folder: &Path| {
        let all = ["postgres", "initdb"].iter().all(|name| is_program(&folder.join(name)));
        all.then(|| fs::canonicalize(folder).ok()).flatten()
    };
    let advice =
        format!("run it under `tests/with-postgres`, or set {BIN_VARIABLE} to a folder with postgres and initdb");
    if let Some(folder) = env::var_os(BIN_VARIABLE).filter(|folder| !folder.is_empty()) {
        let unusable = || ClusterError(format!("{BIN_VARIABLE}={} holds no server: {advice}", folder.display()));
        return usable(Path::new(&folder)).ok_or_else(unusable);
    }

    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let project = || PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut folders = versions(&target.unwrap_or_else(|| project().join("target")).join("postgres"), "", "bin");
    for (parent, prefix, below) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        folders.extend(versions(Path::new(parent), prefix, below));
    }
    if let Ok(said) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(String::from_utf8_lossy(&said.stdout).trim().into());
    }
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let nowhere = || ClusterError(format!("no PostgreSQL server found on this machine: {advice}"));
    folders.iter().find_map(|folder| usable(folder)).ok_or_else(nowhere)
}

/// The folders `parent/prefix…/below`, newest version first.
fn versions(parent: &Path, prefix: &str, below: &str) -> Vec<PathBuf> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<u32>().ok());
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            Some((number(entry.file_name().to_str()?.strip_prefix(prefix)?)?, entry.path().join(below)))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, folder)| folder).collect()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}
