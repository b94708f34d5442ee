//! Splits a connection string into settings, each with its byte offset. It does not use the environment, and does not
//! interpret keywords, which [`keywords`] does.
//!
//! Both forms of libpq are parsed by its rules
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>):
//!
//! ```text
//! host=db1,db2 user=app password='it''s' ...             keyword = value
//! postgres://user:password@db1:5432,db2:5433/shop?k=v    URL
//! ```
//!
//! The parser is stricter than libpq where libpq would treat part of a password as something that it displays or
//! resolves: an `@` after the first one, a `?` before it, and `host= port=5432`, which libpq reads as the host
//! "port=5432". Errors never contain a part of the string, because a part of a malformed string may be the password.

use super::keywords;
use crate::error::ConfigError;

/// A decoded setting of a connection string.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct DsnPair {
    pub(super) key: String,
    pub(super) value: String,
    /// The byte offset of the keyword, or of the value if there is no keyword, as for the host of a URL.
    pub(super) key_at: usize,
    /// The byte offset of the value, including its quotes.
    pub(super) value_at: usize,
}

pub(super) const ORIGIN: &str = "connection string";

/// Splits a connection string of either form. The settings are in order and may contain duplicates.
pub(super) fn split(text: &str) -> Result<Vec<DsnPair>, ConfigError> {
    if let Some(at) = text.find('\0') {
        return Err(fault(at, "a NUL byte, which PostgreSQL does not support: remove it"));
    }
    match ["postgresql://", "postgres://"].iter().find(|scheme| text.starts_with(**scheme)) {
        Some(scheme) => split_url(text, scheme.len()),
        // Before a part of it, which may be the password, is read as a keyword.
        None if is_like_a_url(text) => Err(fault(skip_blanks(text, 0), NO_URL)),
        None => split_key_values(text),
    }
}

const NO_URL: &str = "neither a URL nor key=value: a URL starts with postgres:// or postgresql://";

/// Returns `true` for text that begins like a URL, such as `postgres//db1/shop`.
fn is_like_a_url(text: &str) -> bool {
    let rest_of = |scheme: &&str| text.trim_start_matches(is_blank).strip_prefix(*scheme);
    ["postgres", "postgresql"].iter().filter_map(rest_of).any(|rest| rest.starts_with([':', '/']))
}

/// Returns an error at a byte offset of the connection string.
pub(super) fn fault(position: usize, message: impl Into<String>) -> ConfigError {
    ConfigError { origin: ORIGIN.into(), position: Some(position), message: message.into() }
}

/// Returns `true` if a message may contain a keyword: it does not follow a secret that it may be a part of, as in
/// `password=two words=1`. In a URL, any part may be one.
pub(super) fn may_be_repeated(text: &str, before: &[DsnPair]) -> bool {
    let is_secret = |pair: &DsnPair| ["pass", "secret", "key"].iter().any(|part| pair.key.contains(part));
    !text.contains("://") && !before.iter().any(is_secret)
}

/// Returns `true` for the characters that C's `isspace` classifies as white space, as libpq uses it.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

fn split_key_values(text: &str) -> Result<Vec<DsnPair>, ConfigError> {
    let mut pairs = Vec::new();
    let mut at = skip_blanks(text, 0);
    while at < text.len() {
        let key_at = at;
        let key_end = find(text, at, |c| c == '=' || is_blank(c));
        let equals = skip_blanks(text, key_end);
        if !text[equals..].starts_with('=') {
            return Err(fault(key_at, missing_equals(text)));
        }
        let value_at = skip_blanks(text, equals + 1);
        let (value, end) = match text[value_at..].starts_with('\'') {
            true => quoted(text, value_at)?,
            false => unquoted(text, value_at, equals)?,
        };
        pairs.push(DsnPair { key: text[key_at..key_end].into(), value, key_at, value_at });
        at = skip_blanks(text, end);
    }
    Ok(pairs)
}

fn missing_equals(text: &str) -> &'static str {
    if text.contains("://") {
        NO_URL
    } else {
        "a keyword without '=': write key=value, and quote a value that has spaces, as in password='two words'"
    }
}

/// Parses a quoted value. Returns the value and the offset after the closing quote.
fn quoted(text: &str, start: usize) -> Result<(String, usize), ConfigError> {
    match unescaped(text, start + 1, |c| c == '\'') {
        (value, Some(end)) => Ok((value, end + 1)),
        (_, None) => Err(fault(start, "a quote without an end: end the value with ', and write a ' inside it as \\'")),
    }
}

/// Parses a value up to the next white space.
fn unquoted(text: &str, start: usize, equals: usize) -> Result<(String, usize), ConfigError> {
    if start > equals + 1 && starts_like_a_pair(&text[start..]) {
        return Err(fault(equals, "no value after '=': write '' for an empty one, as in host=''"));
    }
    let (value, end) = unescaped(text, start, is_blank);
    Ok((value, end.unwrap_or(text.len())))
}

/// Parses a value up to a character that ends it and is not escaped. Returns the value and the offset of that character.
fn unescaped(text: &str, start: usize, is_end: impl Fn(char) -> bool) -> (String, Option<usize>) {
    let mut value = String::new();
    let mut chars = text[start..].char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c if is_end(c) => return (value, Some(start + i)),
            _ => value.push(c),
        }
    }
    (value, None)
}

fn starts_like_a_pair(text: &str) -> bool {
    let key_end = find(text, 0, |c| c == '=' || is_blank(c));
    text[skip_blanks(text, key_end)..].starts_with('=') && keywords::is_known(&text[..key_end])
}

/// Returns the offset of the first character at or after `at` that matches, or the end.
fn find(text: &str, at: usize, is: impl Fn(char) -> bool) -> usize {
    text[at..].find(is).map_or(text.len(), |i| at + i)
}

fn skip_blanks(text: &str, at: usize) -> usize {
    find(text, at, |c| !is_blank(c))
}

fn split_url(text: &str, start: usize) -> Result<Vec<DsnPair>, ConfigError> {
    let mut pairs = Vec::new();
    let mut add = |key: &str, raw: &str, at: usize| -> Result<(), ConfigError> {
        if !raw.is_empty() {
            pairs.push(DsnPair { key: key.into(), value: decode(raw, at)?, key_at: at, value_at: at });
        }
        Ok(())
    };

    // libpq searches for the user up to the first '@' or '/', and does not stop at '?'.
    let mut at = start;
    let user_end = find(text, start, |c| matches!(c, '@' | '/'));
    if text[user_end..].starts_with('@') {
        let user_info = &text[start..user_end];
        if let Some(i) = user_info.find('?') {
            return Err(fault(
                start + i,
                "'?' before '@': write it as %3F in a user or password, and '@' as %40 after it",
            ));
        }
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        add("user", user, start)?;
        add("password", password, start + user.len() + 1)?;
        at = user_end + 1;
    }

    let hosts_at = at;
    let (hosts, ports, end) = split_hosts(text, at)?;
    add("host", &hosts, hosts_at)?;
    add("port", &ports, hosts_at)?;
    at = end;

    if text[at..].starts_with('/') {
        let end = find(text, at, |c| c == '?');
        no_at_sign(text, at, end)?;
        add("dbname", &text[at + 1..end], at + 1)?;
        at = end;
    }
    if text[at..].starts_with('?') {
        split_parameters(text, at + 1, &mut pairs)?;
    }
    Ok(pairs)
}

/// Parses `h1:p1,h2:p2` into the lists of hosts and ports, which are still percent-encoded. Stops at '/', '?' or the
/// end.
fn split_hosts(text: &str, start: usize) -> Result<(String, String, usize), ConfigError> {
    let (mut hosts, mut ports) = (String::new(), String::new());
    let mut at = start;
    loop {
        let end;
        if text[at..].starts_with('[') {
            let close = find(text, at, |c| c == ']');
            if close == text.len() {
                return Err(fault(at, "'[' without ']': write an IPv6 address as [::1]"));
            }
            if close == at + 1 {
                return Err(fault(at, "an empty IPv6 address: write one between the brackets, as [::1]"));
            }
            hosts.push_str(&text[at + 1..close]);
            end = close + 1;
            if !text[end..].is_empty() && !text[end..].starts_with([':', '/', '?', ',']) {
                return Err(fault(end, "an address in brackets must be followed by ':', ',', '/' or '?'"));
            }
        } else {
            end = find(text, at, |c| matches!(c, ':' | '/' | '?' | ','));
            no_at_sign(text, at, end)?;
            hosts.push_str(&text[at..end]);
        }
        at = end;
        if text[at..].starts_with(':') {
            let end = find(text, at, |c| matches!(c, '/' | '?' | ','));
            no_at_sign(text, at, end)?;
            ports.push_str(&text[at + 1..end]);
            at = end;
        }
        if !text[at..].starts_with(',') {
            return Ok((hosts, ports, at));
        }
        hosts.push(',');
        ports.push(',');
        at += 1;
    }
}

/// Rejects a stray '@': the text after it is probably the rest of a password, and must not be resolved as a name.
fn no_at_sign(text: &str, start: usize, end: usize) -> Result<(), ConfigError> {
    match text[start..end].find('@') {
        Some(i) => Err(fault(start + i, "a stray '@': in a user, password or name write '@' as %40 and '/' as %2F")),
        None => Ok(()),
    }
}

fn split_parameters(text: &str, start: usize, pairs: &mut Vec<DsnPair>) -> Result<(), ConfigError> {
    let mut at = start;
    while at < text.len() {
        let end = find(text, at, |c| c == '&');
        let parameter = &text[at..end];
        let Some((key, value)) = parameter.split_once('=') else {
            return Err(fault(at, "a parameter without '=': write key=value, and '&' inside a value as %26"));
        };
        let value_at = at + key.len() + 1;
        if let Some(i) = value.find('=') {
            return Err(fault(value_at + i, "a second '=' in one parameter: inside a value write it as %3D"));
        }
        let (mut key, mut value) = (decode(key, at)?, decode(value, value_at)?);
        if key == "ssl" && value == "true" {
            // The spelling of JDBC, which libpq accepts in URLs only.
            (key, value) = ("sslmode".into(), "require".into());
        }
        pairs.push(DsnPair { key, value, key_at: at, value_at });
        at = end + 1;
    }
    Ok(())
}

/// Decodes percent-encoding. As in libpq 18, surrounding white space is removed and inner white space is rejected; here
/// this includes tabs and line breaks. `+` is not decoded.
fn decode(raw: &str, position: usize) -> Result<String, ConfigError> {
    let start = skip_blanks(raw, 0);
    let raw = raw.trim_matches(is_blank);
    let position = position + start;
    if let Some(i) = raw.find(is_blank) {
        return Err(fault(position + i, "white space inside a part of a URL: write it as %20"));
    }
    let mut parts = raw.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    let mut at = position + bytes.len();
    for part in parts {
        match hex_byte(part) {
            None => return Err(fault(at, "'%' without two hexadecimal digits: write a percent sign as %25")),
            Some(0) => return Err(fault(at, "%00, a NUL byte, which PostgreSQL does not support: remove it")),
            Some(byte) => bytes.push(byte),
        }
        bytes.extend_from_slice(&part.as_bytes()[2..]);
        at += 1 + part.len();
    }
    String::from_utf8(bytes).map_err(|_| {
        fault(position, "percent-encoded bytes that are not UTF-8: encode the UTF-8 form, such as %C3%A9 for é")
    })
}

/// Returns the byte that the first two hexadecimal digits encode.
fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Formats the pairs as `key=value|key=value`.
    fn pairs(text: &str) -> String {
        let pairs = split(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        pairs.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect::<Vec<_>>().join("|")
    }

    fn assert_refused(cases: &[(&str, usize, &str)]) {
        for (text, position, part) in cases {
            let error = split(text).err().unwrap_or_else(|| panic!("{text:?} is accepted"));
            assert_eq!(error.position(), Some(*position), "{text:?}: {error}");
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn key_value_pairs_are_read_as_libpq_does() {
        for (text, expected) in [
            ("", ""),
            (" \t\n", ""),
            ("host=a port=5", "host=a|port=5"),
            ("host = a  port\x0b=\x0c5 ", "host=a|port=5"),
            ("host=''user='x'port=5", "host=|user=x|port=5"),
            ("host=", "host="),
            (r"password='it\'s \\ fine' user=c\ d\'", r"password=it's \ fine|user=c d'"),
            (r"host=a\", "host=a"),
            ("host=a'b'", "host=a'b'"),
            ("host=a host=b", "host=a|host=b"),
            ("user=é password=☃", "user=é|password=☃"),
            ("options= -c", "options=-c"),
            ("password= a=b", "password=a=b"),
            ("dbname=postgres://h/d", "dbname=postgres://h/d"),
        ] {
            assert_eq!(pairs(text), expected, "{text:?}");
        }
    }

    #[test]
    fn malformed_pairs_are_rejected_with_their_position() {
        assert_refused(&[
            ("host", 0, "without '='"),
            ("user=x host 'a'", 7, "without '='"),
            ("password=two words", 13, "quote a value"),
            ("user=é host='a", 13, "without an end"),
            (r"host='a\", 5, "without an end"),
            ("host= port=5", 4, "host=''"),
            ("host= port =5", 4, "host=''"),
            ("host=a\0", 6, "NUL"),
            ("postgre://u:p@h", 0, "postgres://"),
            (" postgres://h", 1, "postgres://"),
            ("postgres//h/d", 0, "a URL starts with postgres://"),
            ("postgresql:h", 0, "a URL starts with postgres://"),
            (" postgres:/u:secret@h?sslmode=require", 1, "a URL starts with postgres://"),
        ]);
    }

    #[test]
    fn urls_are_read_as_libpq_does() {
        for (text, expected) in [
            ("postgres://", ""),
            ("postgresql:///", ""),
            ("postgres://:@/?", ""),
            ("postgres://u@", "user=u"),
            ("postgres://u:p@h:5/d", "user=u|password=p|host=h|port=5|dbname=d"),
            ("postgres://u:a:b@h", "user=u|password=a:b|host=h"),
            ("postgres://%75:p%40%2Fs@%68ost:%31/d%20b", "user=u|password=p@/s|host=host|port=1|dbname=d b"),
            ("postgres://a,b:2/d", "host=a,b|port=,2|dbname=d"),
            ("postgres://a:1,[::1]:2,c", "host=a,::1,c|port=1,2,"),
            ("postgres://[::1]", "host=::1"),
            ("postgres://[::1]?user=u", "host=::1|user=u"),
            ("postgres://h:/d", "host=h|dbname=d"),
            ("postgres://h/d/x", "host=h|dbname=d/x"),
            ("postgres://%2Ftmp/d", "host=/tmp|dbname=d"),
            ("postgres:///d?host=/tmp&port=7&", "dbname=d|host=/tmp|port=7"),
            ("postgres:///?p%61ssword=a@b&user=", "password=a@b|user="),
            ("postgres:///?user=a+b", "user=a+b"),
            ("postgres:///?ssl=true", "sslmode=require"),
            ("postgres://h? user = a & port = 5 ", "host=h|user=a|port=5"),
            ("postgres://%C3%A9@h", "user=é|host=h"),
        ] {
            assert_eq!(pairs(text), expected, "{text:?}");
        }
    }

    #[test]
    fn malformed_urls_are_rejected_with_their_position() {
        assert_refused(&[
            ("postgres://[::1", 11, "without ']'"),
            ("postgres://a,[]", 13, "empty IPv6"),
            ("postgres://[::1]x", 16, "in brackets"),
            ("postgres://h/?a", 14, "without '='"),
            ("postgres://h/?user=a&&dbname=b", 21, "without '='"),
            ("postgres://h/?user=a=b", 20, "second '='"),
            ("postgres://a%00", 12, "NUL"),
            ("postgres://u:p@a%zz", 16, "%25"),
            ("postgres://a%1", 12, "%25"),
            ("postgres://h/d%", 14, "%25"),
            ("postgres://h/%ff", 13, "not UTF-8"),
            ("postgres://h/a b", 14, "%20"),
        ]);
    }

    #[test]
    fn a_stray_at_sign_never_turns_a_password_into_a_name() {
        assert_refused(&[
            ("postgres://u:a@b@h/d", 16, "%40"),
            ("postgres://u:a/b@h/d", 16, "%2F"),
            ("postgres://u:1/b@h/d", 16, "%2F"),
            ("postgres://u@h:1@2", 16, "%40"),
            ("postgres://h?password=a@b", 12, "%3F"),
        ]);
    }
}
