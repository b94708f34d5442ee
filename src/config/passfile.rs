//! The password file: finds the line for an address.
//!
//! ```text
//! # host:port:database:user:password          the first line that fits counts; `*` fits anything
//! db1.example:5432:shop:app:se\:cret           a ':' or '\' inside a field has a '\' before it
//! ```
//!
//! The file is read for each login by libpq's rules (<https://www.postgresql.org/docs/current/libpq-pgpass.html>), so
//! that the next attempt uses a changed password. A missing file is not an error. If a file is not used and the login
//! fails, the error contains the reason.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::endpoints::{Endpoint, Host, SOCKET_DIRECTORIES};
use super::environment::one_line;
use super::values::given;

/// The contents of the password file.
#[derive(Debug, Clone)]
pub(crate) enum Passfile {
    /// No file exists.
    Missing,
    /// The file exists but must not be used, for this reason.
    Unused(String),
    Content(Arc<[u8]>),
}

impl Passfile {
    /// Reads the file, which may block as long as its file system does.
    pub(crate) fn read(path: &Path) -> Self {
        let Ok(metadata) = fs::metadata(path) else { return Passfile::Missing };
        // Reading a pipe might never end.
        if !metadata.is_file() {
            return Passfile::Unused("it is not a regular file".into());
        }
        #[cfg(unix)]
        if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
            return Passfile::Unused("users other than its owner have access to it: run chmod 600".into());
        }
        match fs::read(path) {
            Ok(bytes) => Passfile::Content(bytes.into()),
            Err(error) => Passfile::Unused(error.to_string()),
        }
    }

    /// Returns the password for a login at this address, and a note for the error of a failed login: the number of the
    /// line, or the reason why there is no password. The note never contains the password.
    pub(super) fn password_for(
        &self,
        path: &Path,
        place: &Endpoint,
        dbname: &str,
        user: &str,
    ) -> (Option<String>, Option<String>) {
        let found = match self {
            Passfile::Missing => return (None, None),
            Passfile::Unused(reason) => Err(reason.clone()),
            Passfile::Content(bytes) => {
                first_match(bytes, &names_of(&place.host), [&place.port.to_string(), dbname, user])
            }
        };
        let file = one_line(path);
        match found {
            Ok(Some((line, password))) => (Some(password), Some(format!("the password is from line {line} of {file}"))),
            Ok(None) => (None, Some(format!("the password file {file} has no line for this address"))),
            Err(reason) => (None, Some(format!("the password file {file} was not used: {reason}"))),
        }
    }
}

/// Returns the names by which a line may refer to this host. The default sockets are also called `localhost`.
fn names_of(host: &Host) -> Vec<String> {
    match host {
        Host::Name(name) | Host::Addr { name: Some(name), .. } | Host::Zoned { name: Some(name), .. } => {
            vec![name.clone()]
        }
        Host::Zoned { address, name: None } => vec![address.clone()],
        Host::Addr { ip, name: None } => vec![ip.to_string()],
        Host::Socket(path) => {
            let directory = path.parent().unwrap_or(path).to_string_lossy();
            let directory = directory.strip_prefix('\0').map_or(directory.to_string(), |rest| format!("@{rest}"));
            let is_default = SOCKET_DIRECTORIES.contains(&directory.as_str());
            let localhost = is_default.then(|| "localhost".to_owned());
            localhost.into_iter().chain([directory]).collect()
        }
    }
}

/// Returns the number of the first line that matches, from 1, and its password; or the reason why the line cannot be used.
pub(super) fn first_match(bytes: &[u8], hosts: &[String], rest: [&str; 3]) -> Result<Option<(usize, String)>, String> {
    for (i, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") {
            continue;
        }
        let fits = |host: &String| {
            let behind_host = behind(line, host)?;
            rest.iter().try_fold(behind_host, |line, field| behind(line, field))
        };
        if let Some(password) = hosts.iter().find_map(fits) {
            let password = String::from_utf8(unescaped(password));
            let password = password.map_err(|_| format!("the password in line {} is not UTF-8", i + 1))?;
            return Ok(given(password).map(|password| (i + 1, password)));
        }
    }
    Ok(None)
}

/// Returns the line after its first field if that field is `*` or equals this text.
fn behind<'a>(line: &'a [u8], text: &str) -> Option<&'a [u8]> {
    if let Some(behind) = line.strip_prefix(b"*:") {
        return Some(behind);
    }
    let mut line = line;
    for wanted in text.bytes() {
        // As in libpq, a ':' needs no '\' if the text contains one at this position, so `::1` may be unescaped.
        let (byte, behind) = line.strip_prefix(b"\\").unwrap_or(line).split_first()?;
        if *byte != wanted {
            return None;
        }
        line = behind;
    }
    line.strip_prefix(b":")
}

/// Returns the field up to the next unescaped ':'.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    loop {
        rest = match rest {
            [] | [b':', ..] => return text,
            [b'\\', byte, behind @ ..] | [byte, behind @ ..] => {
                text.push(*byte);
                behind
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(file: &str, host: &str, rest: [&str; 3]) -> Option<String> {
        first_match(file.as_bytes(), &[host.to_owned()], rest).ok().flatten().map(|(_, password)| password)
    }

    #[test]
    fn the_first_matching_line_is_used() {
        let file = "# db:1:d:u:comment\n\ndb:2:d:u:port\r\ndb:1:d:u:first\ndb:1:d:u:second\n*:*:*:*:any";
        assert_eq!(found(file, "db", ["1", "d", "u"]).as_deref(), Some("first"));
        assert_eq!(found(file, "db", ["2", "d", "u"]).as_deref(), Some("port"));
        assert_eq!(found(file, "dbx", ["1", "d", "u"]).as_deref(), Some("any"));
        assert_eq!(found("db:1:d:u:first", "d", ["1", "d", "u"]), None);
    }

    #[test]
    fn a_field_is_wild_only_as_a_whole() {
        assert_eq!(found("*b:1:d:u:p", "db", ["1", "d", "u"]), None);
        assert_eq!(found(r"\*:1:d:u:p", "db", ["1", "d", "u"]), None);
        assert_eq!(found(r"\*:1:d:u:p", "*", ["1", "d", "u"]).as_deref(), Some("p"));
    }

    #[test]
    fn a_password_ends_at_a_colon_and_may_be_escaped() {
        assert_eq!(found(r"a:1:d:u:p\:q\\r\x:rest", "a", ["1", "d", "u"]).as_deref(), Some(r"p:q\rx"));
        assert_eq!(found(r"a:1:d:u:end\", "a", ["1", "d", "u"]).as_deref(), Some(r"end\"));
        assert_eq!(found(r"\:\:1:1:d:u:six", "::1", ["1", "d", "u"]).as_deref(), Some("six"));
        assert_eq!(found("::1:1:d:u:six", "::1", ["1", "d", "u"]).as_deref(), Some("six"));
        assert_eq!(found("a:1:d:u:", "a", ["1", "d", "u"]), None, "an empty password is none");
        assert_eq!(found("a:1:d:u", "a", ["1", "d", "u"]), None);
    }

    #[test]
    fn the_default_socket_is_called_localhost() {
        let socket = |directory: &str| names_of(&Host::Socket(super::super::endpoints::socket_in(directory, 5432)));
        assert_eq!(socket("/tmp"), ["localhost", "/tmp"]);
        assert_eq!(socket("/srv/pg"), ["/srv/pg"]);
        assert_eq!(socket("\0pg"), ["@pg"]);
        let zoned = |name: Option<&str>| Host::Zoned { address: "fe80::1%v0".into(), name: name.map(Into::into) };
        assert_eq!(
            (names_of(&zoned(None)), names_of(&zoned(Some("db")))),
            (vec!["fe80::1%v0".into()], vec!["db".into()])
        );
        let found = found("fe80\\:\\:1%v0:1:d:u:zone", "fe80::1%v0", ["1", "d", "u"]);
        assert_eq!(found.as_deref(), Some("zone"));
    }

    proptest! {
        #[test]
        fn an_escaped_field_is_found_again(
            fields in proptest::collection::vec(r"[a-z:\\*é]{1,6}", 4),
            password in r"[a-z:\\#é ]{1,8}",
        ) {
            let escaped = |text: &str| text.replace('\\', r"\\").replace(':', r"\:");
            let all: Vec<String> = fields.iter().chain([&password]).map(|text| escaped(text)).collect();
            let file = format!("other:*:*:*:no\n{}\n", all.join(":"));
            prop_assert_eq!(found(&file, &fields[0], [&fields[1], &fields[2], &fields[3]]), Some(password));
        }

        #[test]
        fn any_bytes_are_a_file(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = first_match(&bytes, &["h".into()], ["1", "d", "u"]);
        }
    }
}
