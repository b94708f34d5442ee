//! Service files: named groups of settings outside of the connection string.
//!
//! ```text
//! [shop]                     service=shop takes what stands below its name, up to the next one
//! host=db1,db2
//! dbname=shop
//! ```
//!
//! Services are read by libpq's rules (<https://www.postgresql.org/docs/current/libpq-pgservice.html>): the first
//! section with the name is used, and in it the first of several equal keywords; no white space is allowed around '=';
//! a service cannot refer to another. LDAP and unknown keywords are rejected. Errors never contain a value, which may
//! be a password.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::dsn::is_blank;
use super::environment::{Environment, one_line};
use super::keywords;
use super::values::fault;
use crate::error::ConfigError;

/// A setting of a service file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServiceEntry {
    pub(super) key: String,
    pub(super) value: String,
    /// The line number, from 1.
    pub(super) line: usize,
}

/// A service in one file.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) file: PathBuf,
    pub(super) entries: Vec<ServiceEntry>,
}

impl Service {
    /// Finds a service in the given file, or in PGSERVICEFILE, or in `~/.pg_service.conf`; if that file does not
    /// contain it, in the system-wide file.
    pub(super) fn find(name: &str, file: Option<&str>, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let named = file.map(PathBuf::from).or_else(|| environment("PGSERVICEFILE").map(PathBuf::from));
        let home = || environment("HOME").map(|home| Path::new(&home).join(".pg_service.conf"));
        let of_system = environment("PGSYSCONFDIR").map(|directory| Path::new(&directory).join("pg_service.conf"));
        let must_exist = named.is_some();
        let files = [named.or_else(home), of_system];
        let mut looked_in = Vec::new();
        for (i, file) in files.into_iter().enumerate() {
            let Some(file) = file else { continue };
            match read(&file) {
                Ok(bytes) => {
                    // Other sections and comments may have any encoding.
                    let text = String::from_utf8_lossy(&bytes);
                    let at = |line, why| fault(origin(&file, line), why);
                    if let Some(entries) = section(&text, name).map_err(|(line, why)| at(line, why))? {
                        let garbled = entries.iter().find(|entry| entry.value.contains(char::REPLACEMENT_CHARACTER));
                        if let (Some(entry), Cow::Owned(_)) = (garbled, &text) {
                            let why = "its value is not UTF-8, which is the only supported encoding".into();
                            return Err(at(entry.line, why));
                        }
                        return Ok(Self { file, entries });
                    }
                    looked_in.push(one_line(&file));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !(i == 0 && must_exist) => {}
                Err(error) => return Err(fault(format!("service file {}", one_line(&file)), error.to_string())),
            }
        }
        let why = if looked_in.is_empty() {
            "there is no service file: set servicefile= or PGSERVICEFILE, or create ~/.pg_service.conf".into()
        } else {
            format!("no section [{}] in {}", name.escape_debug(), looked_in.join(" or "))
        };
        Err(fault("service", why))
    }

    /// Returns the value of a keyword and its position.
    pub(super) fn get(&self, keyword: &str) -> Option<(&str, String)> {
        let entry = self.entries.iter().find(|entry| entry.key == keyword)?;
        Some((&entry.value, origin(&self.file, entry.line)))
    }
}

fn origin(file: &Path, line: usize) -> String {
    format!("service file {}, line {line}", one_line(file))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    // Reading a pipe might never end.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    fs::read(file)
}

/// Parses the first section with this name. An error contains its line number.
pub(super) fn section(text: &str, name: &str) -> Result<Option<Vec<ServiceEntry>>, (usize, String)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim_matches(is_blank)));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let is_this = |line: &str| {
        line.strip_prefix('[').and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with(']'))
    };
    let mut lines = lines.skip_while(|(_, line)| !is_this(line));
    if lines.next().is_none() {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for (line, text) in lines.take_while(|(_, line)| !line.starts_with('[')) {
        let (key, value) = parse(text).map_err(|why| (line, why))?;
        entries.push(ServiceEntry { key: key.into(), value: value.into(), line });
    }
    Ok(Some(entries))
}

fn parse(line: &str) -> Result<(&str, &str), String> {
    if line.starts_with("ldap") {
        return Err("LDAP is not supported: write the settings into the service".into());
    }
    let Some((key, value)) = line.split_once('=') else { return Err("a line without '=': write keyword=value".into()) };
    match key {
        "service" | "servicefile" => Err(format!("{key} is not allowed inside a service")),
        keywords::OLD_SSLMODE => Err(format!("{key} is not supported: write sslmode=")),
        key if keywords::is_known(key) => Ok((key, value)),
        key if keywords::is_known(key.trim_matches(is_blank)) => Err("white space is not allowed before '='".into()),
        key => Err(keywords::unknown(key, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str, name: &str) -> String {
        let entries = section(text, name).unwrap().unwrap();
        entries.iter().map(|e| format!("{}={}@{}", e.key, e.value, e.line)).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let text = "host=nobody\n[a]\n# comment\n\n  host=db1 \r\nport=1\n[b]\nhost=db2\n[a]\nuser=late";
        assert_eq!(pairs(text, "a"), "host=db1@5|port=1@6");
        assert_eq!(pairs(text, "b"), "host=db2@8");
        assert_eq!(section(text, "c"), Ok(None));
        assert_eq!(pairs("[a]junk\npassword= x=y\\'z ", "a"), "password= x=y\\'z@2");
    }

    #[test]
    fn lines_that_libpq_rejects_are_rejected_with_their_number() {
        for (text, line, part) in [
            ("[a]\nhost", 2, "without '='"),
            ("[a]\nuser=x\nservice=b", 3, "inside a service"),
            ("[a]\nservicefile=b", 2, "inside a service"),
            ("[a]\nprot=5", 2, "did you mean port?"),
            ("[a]\nhost = db", 2, "white space"),
            ("[a]\nldap://h/dn?description?one?(cn=x)", 2, "LDAP"),
        ] {
            let (at, why) = section(text, "a").unwrap_err();
            assert_eq!(at, line, "{text:?}");
            assert!(why.contains(part), "{text:?}: {why}");
            assert_eq!(section(text, "b"), Ok(None), "other sections are not looked at");
        }
    }
}
