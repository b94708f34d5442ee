//! The keywords of libpq: for each, whether it is supported, ignored or rejected.
//!
//! The table covers PostgreSQL 12 to 18
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS>), so that a string that works with
//! `psql` either has the same meaning here, or is rejected before anything is sent. A keyword is never ignored if that
//! would weaken or redirect a connection.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::endpoints::{DEFAULT_PORT, zoned};
use super::names::Named;
use super::policy::{AuthMethods, SslMode};
use super::secret::Secret;
use super::tls::TlsVersion;
use super::values::{
    ConfigValues, INTEGER_MAX, KEEPALIVE_COUNT_MAX, KEEPALIVE_SECONDS_MAX, TimeLimit, check_database, given, given_path,
};

/// A keyword of a connection string.
pub(super) struct Keyword {
    pub(super) name: &'static str,
    /// The environment variable that is used if the string does not contain the keyword.
    pub(super) variable: Option<&'static str>,
    treatment: Treatment,
}

enum Treatment {
    /// Stores the value in the settings. An empty value means the default.
    Set(fn(&mut ConfigValues, &KeywordValue<'_>) -> Result<(), String>),
    /// Has no effect in this crate.
    Ignored,
    /// Names a source of other settings, which is read before any value is applied.
    Source,
    /// Accepts only these values (and an empty one), which are the behaviour of this crate anyway. The text for any
    /// other value states the alternative.
    Only(&'static [&'static str], &'static str),
}

use Treatment::{Ignored, Only, Set, Source};

/// A value for a keyword, which the errors name.
struct KeywordValue<'v> {
    keyword: &'static str,
    text: &'v str,
}

impl KeywordValue<'_> {
    fn text(&self) -> Result<Option<String>, String> {
        Ok(given(self.text))
    }

    fn path(&self) -> Result<Option<PathBuf>, String> {
        Ok(given_path(self.text))
    }

    fn named<T: Named + Default>(&self) -> Result<T, String> {
        T::by_name(self.text, self.keyword)
    }

    /// Parses an integer like libpq: it may be surrounded by white space, and a negative one means the default.
    fn integer(&self, unit: &str, max: u32) -> Result<Option<u32>, String> {
        let number = self.text.trim();
        if number.is_empty() {
            return Ok(None);
        }
        match number.parse::<i32>().map(u32::try_from) {
            Ok(Err(_)) => Ok(None),
            Ok(Ok(number)) if number <= max => Ok(Some(number)),
            _ => Err(format!("{}{unit} must be a whole number, at most {max}", self.keyword)),
        }
    }

    /// Parses an integer of which zero means the default, too.
    fn positive(&self, unit: &str, max: u32) -> Result<Option<u32>, String> {
        Ok(self.integer(unit, max)?.filter(|number| *number > 0))
    }

    fn seconds(&self, max: u32) -> Result<Option<Duration>, String> {
        let seconds = self.positive(", in seconds,", max)?;
        Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
    }
}

impl Keyword {
    /// Applies a value. The error does not contain it.
    pub(super) fn apply(&self, settings: &mut ConfigValues, value: &str) -> Result<(), String> {
        match self.treatment {
            Set(set) => set(settings, &KeywordValue { keyword: self.name, text: value }),
            Ignored | Source => Ok(()),
            Only(accepted, _) if value.is_empty() || accepted.contains(&value) => Ok(()),
            Only([], instead) => Err(format!("{} is {instead}", self.name)),
            Only(accepted, instead) => Err(format!("{} can be {} only: {instead}", self.name, accepted.join(" or "))),
        }
    }
}

const fn keyword(name: &'static str, variable: &'static str, treatment: Treatment) -> Keyword {
    Keyword { name, variable: if variable.is_empty() { None } else { Some(variable) }, treatment }
}

/// All keywords, each with the environment variable that libpq reads for it, if that could make a difference.
pub(super) static KEYWORDS: &[Keyword] = &[
    keyword("host", "PGHOST", Set(|s, v| store(&mut s.hosts, list(v.text, |item| Ok(item.into()))))),
    keyword("hostaddr", "PGHOSTADDR", Set(addresses)),
    keyword("port", "PGPORT", Set(|s, v| store(&mut s.ports, list(v.text, port)))),
    keyword("user", "PGUSER", Set(|s, v| store(&mut s.user, v.text()))),
    keyword("password", "PGPASSWORD", Set(|s, v| store(&mut s.password, Ok(given(v.text).map(Secret))))),
    keyword("dbname", "PGDATABASE", Set(database)),
    keyword("application_name", "PGAPPNAME", Set(|s, v| store(&mut s.application_name, v.text()))),
    keyword("fallback_application_name", "", Set(|s, v| store(&mut s.fallback_application_name, v.text()))),
    keyword("options", "PGOPTIONS", Set(|s, v| store(&mut s.options, v.text()))),
    keyword("connect_timeout", "PGCONNECT_TIMEOUT", Set(connect_timeout)),
    keyword(
        "keepalives",
        "",
        Set(|s, v| store(&mut s.omits_keepalives, v.integer("", INTEGER_MAX).map(|n| n == Some(0)))),
    ),
    keyword("keepalives_idle", "", Set(|s, v| store(&mut s.keepalives_idle, v.seconds(KEEPALIVE_SECONDS_MAX)))),
    keyword("keepalives_interval", "", Set(|s, v| store(&mut s.keepalives_interval, v.seconds(KEEPALIVE_SECONDS_MAX)))),
    keyword("keepalives_count", "", Set(|s, v| store(&mut s.keepalives_count, v.positive("", KEEPALIVE_COUNT_MAX)))),
    keyword("tcp_user_timeout", "", Set(tcp_user_timeout)),
    keyword("require_auth", "PGREQUIREAUTH", Set(|s, v| store(&mut s.require_auth, AuthMethods::parse(v.text)))),
    keyword("channel_binding", "PGCHANNELBINDING", Set(channel_binding)),
    keyword("sslmode", "PGSSLMODE", Set(sslmode)),
    // The encoding is always UTF8, on which quoting relies; PGCLIENTENCODING is ignored.
    keyword("client_encoding", "", Set(client_encoding)),
    keyword("service", "PGSERVICE", Source),
    keyword("servicefile", "PGSERVICEFILE", Source),
    keyword("passfile", "PGPASSFILE", Set(|s, v| store(&mut s.passfile, v.path()))),
    // Ignoring these would weaken the connection.
    keyword("requirepeer", "PGREQUIREPEER", Only(&[], "not supported: omit it")),
    keyword("scram_client_key", "", Only(&[], "not supported by this version: use password=")),
    keyword("scram_server_key", "", Only(&[], "not supported by this version: use password=")),
    keyword("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"], "GSSAPI is not supported")),
    // The choice of the host, and the purpose of the session.
    keyword("target_session_attrs", "PGTARGETSESSIONATTRS", Set(|s, v| store(&mut s.target_session_attrs, v.named()))),
    keyword("load_balance_hosts", "PGLOADBALANCEHOSTS", Set(|s, v| store(&mut s.load_balance_hosts, v.named()))),
    keyword(
        "replication",
        "",
        Only(&["false", "off", "no", "0"], "a replication session cannot LISTEN: omit the keyword"),
    ),
    keyword("min_protocol_version", "PGMINPROTOCOLVERSION", Only(&["3.0"], "this version speaks protocol 3.0")),
    keyword(
        "max_protocol_version",
        "PGMAXPROTOCOLVERSION",
        Only(&["3.0", "3.2", "latest"], "this version speaks protocol 3.0"),
    ),
    // TLS settings, which have no effect without the feature.
    keyword("sslnegotiation", "PGSSLNEGOTIATION", Set(|s, v| store(&mut s.tls.negotiation, v.named()))),
    keyword("sslrootcert", "PGSSLROOTCERT", Set(sslrootcert)),
    keyword("sslcert", "PGSSLCERT", Set(|s, v| store(&mut s.tls.cert, v.path()))),
    keyword("sslkey", "PGSSLKEY", Set(|s, v| store(&mut s.tls.key, v.path()))),
    keyword("sslpassword", "", Set(|s, v| store(&mut s.tls.sslpassword, Ok(given(v.text).map(|_| Secret::default()))))),
    keyword("sslcertmode", "PGSSLCERTMODE", Set(|s, v| store(&mut s.tls.cert_mode, v.named()))),
    keyword("sslcrl", "PGSSLCRL", Set(|s, v| store(&mut s.tls.crl, v.path()))),
    keyword("sslcrldir", "PGSSLCRLDIR", Set(|s, v| store(&mut s.tls.crl_dir, v.path()))),
    // Any value but 1 disables it, as in libpq.
    keyword("sslsni", "PGSSLSNI", Set(|s, v| store(&mut s.tls.omits_sni, Ok(v.text.starts_with(|c| c != '1'))))),
    keyword(
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        Set(|s, v| store(&mut s.tls.min_version, TlsVersion::parse_min(v.text))),
    ),
    keyword(
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        Set(|s, v| store(&mut s.tls.max_version, TlsVersion::parse_max(v.text))),
    ),
    // TLS compression no longer exists, and session keys are never logged.
    keyword("sslcompression", "", Ignored),
    keyword("sslkeylogfile", "", Ignored),
    // Settings of authentication methods that are not supported; a server that requests one causes an error.
    keyword("krbsrvname", "", Ignored),
    keyword("gsslib", "", Ignored),
    keyword("gssdelegation", "", Ignored),
    keyword("oauth_issuer", "", Ignored),
    keyword("oauth_client_id", "", Ignored),
    keyword("oauth_client_secret", "", Ignored),
    keyword("oauth_scope", "", Ignored),
    // libpq ignores these, too, up to version 13.
    keyword("authtype", "", Ignored),
    keyword("tty", "", Ignored),
];

/// The old spelling of `sslmode`, which libpq still accepts: 1 means `require`, any other value `prefer`.
pub(super) const OLD_SSLMODE: &str = "requiressl";

pub(super) fn is_known(name: &str) -> bool {
    name == OLD_SSLMODE || KEYWORDS.iter().any(|keyword| keyword.name == name)
}

/// Converts the value of the old `requiressl` or PGREQUIRESSL.
pub(super) fn sslmode_of_old(value: &str) -> &'static str {
    if value.starts_with('1') { "require" } else { "prefer" }
}

/// Returns the error text for an unknown keyword. It contains the keyword only if that is a plain word and `is_safe` is
/// `true`, because it may be the rest of an unquoted password.
pub(super) fn unknown(name: &str, is_safe: bool) -> String {
    let is_plain = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let named = if is_safe && is_plain { format!("unknown keyword {name}") } else { "unknown keyword".into() };
    match nearest(name) {
        Some(known) => format!("{named}; did you mean {known}?"),
        None if name.contains("://") => format!("{named}; a URL starts with postgres:// or postgresql://"),
        None => format!(
            "{named}; valid are those of libpq (host, port, user, password, dbname, ...) in lower case, and a value with \
             spaces must be quoted"
        ),
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    const OTHER_NAMES: [(&str, &str); 6] = [
        ("username", "user"),
        ("database", "dbname"),
        ("db", "dbname"),
        ("pwd", "password"),
        ("passwd", "password"),
        ("timeout", "connect_timeout"),
    ];
    let lower = name.to_ascii_lowercase();
    if let Some((_, known)) = OTHER_NAMES.iter().find(|(other, _)| *other == lower) {
        return Some(known);
    }
    let limit = (lower.len() / 2).min(2);
    KEYWORDS
        .iter()
        .filter(|keyword| keyword.name.len().abs_diff(lower.len()) <= limit)
        .map(|keyword| (edit_distance(keyword.name.as_bytes(), lower.as_bytes()), keyword.name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, known)| known)
}

/// Returns the number of bytes to insert, remove or replace to change one name into the other (Levenshtein distance).
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

fn store<T>(setting: &mut T, value: Result<T, String>) -> Result<(), String> {
    *setting = value?;
    Ok(())
}

fn list<T>(value: &str, item: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    if value.is_empty() { Ok(Vec::new()) } else { value.split(',').map(item).collect() }
}

fn addresses(settings: &mut ConfigValues, value: &KeywordValue<'_>) -> Result<(), String> {
    (settings.hostaddrs, settings.zones) = list(value.text, address)?.into_iter().unzip();
    if settings.zones.iter().all(Option::is_none) {
        settings.zones.clear();
    }
    Ok(())
}

/// Parses an address, and its zone if it has one.
fn address(item: &str) -> Result<(Option<IpAddr>, Option<Box<str>>), String> {
    if item.is_empty() {
        return Ok((None, None));
    }
    if let Some((ip, zone)) = zoned(item) {
        return Ok((Some(ip.into()), Some(zone.into())));
    }
    item.parse().map(|ip| (Some(ip), None)).map_err(|_| {
        "hostaddr must be an IPv4 or IPv6 address such as 192.0.2.7, 2001:db8::7 or fe80::7%eth0; a name goes into host"
            .into()
    })
}

fn port(item: &str) -> Result<u16, String> {
    match item.trim() {
        "" => Ok(DEFAULT_PORT),
        digits => {
            digits.parse().ok().filter(|port| *port != 0).ok_or_else(|| "port must be a number from 1 to 65535".into())
        }
    }
}

fn database(settings: &mut ConfigValues, value: &KeywordValue<'_>) -> Result<(), String> {
    check_database(value.text)?;
    store(&mut settings.dbname, value.text())
}

fn connect_timeout(settings: &mut ConfigValues, value: &KeywordValue<'_>) -> Result<(), String> {
    if !value.text.trim().is_empty() {
        settings.connect_timeout = TimeLimit(value.seconds(INTEGER_MAX)?.unwrap_or(Duration::MAX));
    }
    Ok(())
}

fn tcp_user_timeout(settings: &mut ConfigValues, value: &KeywordValue<'_>) -> Result<(), String> {
    let millis = value.positive(", in milliseconds,", INTEGER_MAX)?;
    settings.tcp_user_timeout = millis.map(|millis| Duration::from_millis(millis.into()));
    Ok(())
}

fn channel_binding(settings: &mut ConfigValues, value: &KeywordValue<'_>) -> Result<(), String> {
    settings.channel_binding = value.named()?;
    settings.channel_binding.check()
}

fn sslmode(settings: &mut ConfigValues, value: &KeywordValue<'_>) -> Result<(), String> {
    let mode: SslMode = value.named()?;
    settings.sslmode = (!value.text.is_empty()).then_some(mode);
    mode.check()
}

fn sslrootcert(settings: &mut ConfigValues, value: &KeywordValue<'_>) -> Result<(), String> {
    settings.tls.root_cert = given_path(value.text);
    if settings.tls.trusts_system() { SslMode::VerifyFull.check() } else { Ok(()) }
}

/// Accepts the spellings of UTF8 that the server accepts, such as `utf-8` and `Unicode`, and libpq's `auto` ("from the
/// locale").
fn client_encoding(_: &mut ConfigValues, value: &KeywordValue<'_>) -> Result<(), String> {
    let plain: String = value.text.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_lowercase().as_str() {
        "" | "utf8" | "unicode" | "auto" => Ok(()),
        _ => Err("client_encoding is always UTF8 here, whatever the database's own encoding: leave it out".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::libpq_tests::documented;
    use super::*;

    #[test]
    fn the_documentation_lists_the_treatment_of_each_keyword() {
        let documented = documented();
        let names = |rows: &[[&'static str; 4]]| rows.iter().map(|row| row[0]).collect::<Vec<_>>();
        assert_eq!(names(&documented), KEYWORDS.iter().map(|keyword| keyword.name).collect::<Vec<_>>());
        for (keyword, [name, variable, _, here]) in KEYWORDS.iter().zip(documented) {
            assert_eq!(keyword.variable.unwrap_or_default(), variable, "{name}");
            let becomes = match keyword.treatment {
                Set(_) => "set".to_owned(),
                Ignored => "no effect".to_owned(),
                Source => "read".to_owned(),
                Only([], _) => "refused".to_owned(),
                Only(values, _) => format!("only `{}`", values.join("`, `")),
            };
            assert_eq!(becomes, here, "{name}");
        }
    }

    #[test]
    fn an_unknown_keyword_suggests_the_nearest() {
        for (given, meant) in [
            ("prot", "port"),
            ("pasword", "password"),
            ("Host", "host"),
            ("aplication_name", "application_name"),
            ("database", "dbname"),
            ("connect-timeout", "connect_timeout"),
        ] {
            let text = unknown(given, true);
            assert!(text.contains(&format!("did you mean {meant}?")), "{given}: {text}");
        }
        assert!(!unknown("frobnicate", true).contains("mean"));
        assert!(!unknown("frobnicate", false).contains("frobnicate"));
        assert!(!unknown(&"x".repeat(100_000), true).contains("xx"));
    }

    #[test]
    fn no_keyword_and_no_variable_is_listed_twice() {
        for (i, one) in KEYWORDS.iter().enumerate() {
            for other in &KEYWORDS[i + 1..] {
                assert_ne!(one.name, other.name);
                assert!(one.variable.is_none() || one.variable != other.variable, "{}", other.name);
            }
        }
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edit_distance(b"", b"abc"), 3);
        assert_eq!(edit_distance(b"abc", b""), 3);
        assert_eq!(edit_distance(b"kitten", b"sitting"), 3);
        assert_eq!(edit_distance(b"port", b"prot"), 2);
    }
}
