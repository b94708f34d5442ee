//! The environment variables, and what the operating system knows about its user.
//!
//! An environment is passed as a closure, so that the interpretation of settings is a pure function.

use std::ffi::OsString;
use std::path::Path;

/// An environment: returns the value of a variable, if it is set.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Returns a variable of the process, or a default for HOME and PGSYSCONFDIR.
pub(super) fn process(name: &str) -> Option<OsString> {
    let set = std::env::var_os(name).filter(|value| name != "HOME" || !value.is_empty());
    set.or_else(|| match name {
        // For a program that runs without HOME.
        "HOME" => passwd_field(&read_lossy, HOME).map(Into::into),
        "PGSYSCONFDIR" => {
            SYSTEM_DIRECTORIES.iter().find(|f| Path::new(f).join("pg_service.conf").exists()).map(Into::into)
        }
        _ => None,
    })
}

/// The directories of the system-wide service file on Debian, on Red Hat, and in a default build of PostgreSQL.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

/// Returns no variable.
pub(super) fn nothing(_: &str) -> Option<OsString> {
    None
}

/// Returns the name of the operating system's user, which is the default role of PostgreSQL's programs.
///
/// libpq uses the name of the effective user id. This function reads it from the two files that contain it on Linux;
/// elsewhere, and for a user of a directory service, it uses USER or LOGNAME.
pub(super) fn os_user() -> Option<String> {
    os_user_from(&read_lossy, &process)
}

fn os_user_from(read: &dyn Fn(&str) -> Option<String>, environment: Environment<'_>) -> Option<String> {
    passwd_field(read, NAME).or_else(|| {
        ["USER", "LOGNAME"]
            .iter()
            .find_map(|name| environment(name)?.into_string().ok().filter(|user| !user.is_empty()))
    })
}

fn read_lossy(path: &str) -> Option<String> {
    std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The fields of a line of `/etc/passwd`: `name:password:uid:gid:comment:home:shell`.
const NAME: usize = 0;
const UID: usize = 2;
const HOME: usize = 5;

/// Returns a field of the effective user's line, from Linux's files: of the first line with this id and a name.
fn passwd_field(read: &dyn Fn(&str) -> Option<String>, field: usize) -> Option<String> {
    let uid = effective_uid(&read("/proc/self/status")?)?;
    read("/etc/passwd")?.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_this = !fields.first()?.is_empty() && fields.get(UID)?.parse() == Ok(uid);
        fields.get(field).filter(|field| is_this && !field.is_empty()).map(ToString::to_string)
    })
}

/// Returns the second number of the line `Uid: real effective saved filesystem`.
fn effective_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Formats the name of a file on one line, for messages.
pub(super) fn one_line(file: &Path) -> String {
    file.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_the_effective_one() {
        let read = |path: &str| match path {
            "/proc/self/status" => Some("Name:\tx\nUid:\t0\t26\t26\t26\nGid:\t0\t0\t0\t0\n".to_owned()),
            "/etc/passwd" => Some("root:x:0:0::/:/bin/sh\n:x:26:\nbad\npostgres:x:26:26::/:/bin/sh\n".to_owned()),
            _ => None,
        };
        assert_eq!(os_user_from(&read, &|_| Some("eve".into())).as_deref(), Some("postgres"));
    }

    #[test]
    fn the_user_of_a_directory_service_comes_from_the_environment() {
        let read = |path: &str| (path == "/etc/passwd").then(|| "root:x:0:0::/:/bin/sh".to_owned());
        let env = |name: &str| Some(if name == "LOGNAME" { "ann" } else { "" }.into());
        assert_eq!(os_user_from(&read, &env).as_deref(), Some("ann"));
        assert_eq!(os_user_from(&read, &nothing), None);
    }
}
