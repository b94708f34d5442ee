//! Quotes names and literals, and checks their limits.
//!
//! Names are case-sensitive and may contain anything but NUL: `LISTEN "Foo"` receives the notifications of
//! `pg_notify('Foo', ..)`. The statements have the same meaning for every value of `standard_conforming_strings` and
//! `search_path`. They rely on `client_encoding` being UTF8, in which no byte of a multi-byte character can be mistaken
//! for a quote or a backslash.
//!
//! Quoting does not check, and checking does not quote: call [`check_channel`] and [`check_payload`] before sending a
//! statement.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use crate::error::{Error, ValueError};

/// NAMEDATALEN - 1, in bytes of the server's encoding.
const MAX_CHANNEL: usize = 63;
/// NOTIFY_PAYLOAD_MAX_LENGTH - 1, in bytes of the server's encoding.
const MAX_PAYLOAD: usize = 7_999;

pub(crate) const UNLISTEN_ALL: &str = "UNLISTEN *";

/// Selects one row for each channel, in the order of their bytes.
pub(crate) const LISTENING_CHANNELS: &str = "SELECT channel FROM pg_catalog.pg_listening_channels() AS channel \
    ORDER BY channel COLLATE pg_catalog.\"C\"";

/// Reads the usage of the NOTIFY queue, which also advances the queue's tail and so recovers a LISTEN that failed with
/// 58P01.
pub(crate) const QUEUE_USAGE: &str = "SELECT pg_catalog.pg_notification_queue_usage()";

/// A server with a SQL_ASCII database that sends UTF8 terminates the session (FATAL 22021) if a notification is not
/// UTF-8. Quoting remains safe: without an encoding, the server treats every byte separately, and those above 0x7f as
/// letters.
pub(crate) const SET_SQL_ASCII: &str = "SET client_encoding = 'SQL_ASCII'";

/// Selects the identity of a database: the start time of the server in microseconds, and the database's name. It reads
/// no table, because a role may lack privileges on the catalog.
pub(crate) const DATABASE_IDENTITY: &str = "SELECT pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()), \
     pg_catalog.current_database()";

/// The precision with which the limits can be checked before sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// The server stores the client's bytes unchanged: its encoding is UTF8 or SQL_ASCII.
    Exact,
    /// The server counts in another encoding, in which a string may be shorter or longer than in UTF-8. Only strings
    /// that fit in no encoding are rejected, because a character has at least one byte.
    ServerDecides,
}

/// Checks that a name has 1 to 63 bytes and contains no NUL.
///
/// The check is necessary because LISTEN truncates a longer name, with only a notice.
pub(crate) fn check_channel(name: &str, limits: Limits) -> Result<(), Error> {
    let message = if name.is_empty() {
        format!("the channel name is empty, but the range is 1 to {MAX_CHANNEL} bytes")
    } else if let Some(at) = name.find('\0') {
        format!(
            "channel name {} contains a NUL at byte {at}, which PostgreSQL does not support: remove it",
            shown(name)
        )
    } else if let Some((length, unit)) = over(name, MAX_CHANNEL, limits) {
        format!(
            "channel name {} has {length} {unit}, but the range is 1 to {MAX_CHANNEL} bytes (NAMEDATALEN - 1): shorten it",
            shown(name)
        )
    } else {
        return Ok(());
    };
    Err(invalid(message))
}

/// Rejects a name whose length depends on the server's encoding.
pub(crate) fn check_canary_channel(name: &str) -> Result<(), Error> {
    check_channel(name, Limits::Exact)?;
    if name.is_ascii() {
        return Ok(());
    }
    let message =
        format!("the canary's channel {name:?} must be ASCII, so that its length is the same in every server encoding");
    Err(invalid(message))
}

/// Checks that a payload has at most 7,999 bytes and contains no NUL. The error never contains its text.
pub(crate) fn check_payload(payload: &str, limits: Limits) -> Result<(), Error> {
    let message = if let Some(at) = payload.find('\0') {
        format!(
            "the payload of {} bytes contains a NUL at byte {at}, which PostgreSQL does not support: remove or encode it",
            payload.len()
        )
    } else if let Some((length, unit)) = over(payload, MAX_PAYLOAD, limits) {
        format!(
            "the payload has {length} {unit}, but the limit is {MAX_PAYLOAD} bytes: store the data in a table and send \
             its key"
        )
    } else {
        return Ok(());
    };
    Err(invalid(message))
}

/// Appends `name` as a delimited identifier: `a"b` becomes `"a""b"`.
pub(crate) fn quote_identifier(name: &str, out: &mut String) {
    out.push('"');
    push_doubled(name, &['"'], out);
    out.push('"');
}

/// Appends `text` as a string constant: `a'b` becomes `'a''b'`, and `a\b` becomes ` E'a\\b'`.
///
/// A backslash is an ordinary character in `'..'` only while `standard_conforming_strings` is on, and always begins an
/// escape in `E'..'`. The space separates the `E` from a word before it.
pub(crate) fn quote_literal(text: &str, out: &mut String) {
    out.push_str(if text.contains('\\') { " E'" } else { "'" });
    push_doubled(text, &['\'', '\\'], out);
    out.push('\'');
}

/// Collects channels and checks each name.
pub(crate) fn checked_channels<I>(channels: I, limits: Limits) -> Result<Vec<Box<str>>, Error>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    channels.into_iter().map(|name| check_channel(name.as_ref(), limits).map(|()| name.as_ref().into())).collect()
}

/// Returns the statement that sends notifications, after checking all of them.
pub(crate) fn checked_notify_many<C, P>(pairs: &[(C, P)], limits: Limits) -> Result<String, Error>
where
    C: AsRef<str>,
    P: AsRef<str>,
{
    for (at, (channel, payload)) in pairs.iter().enumerate() {
        let checked = check_channel(channel.as_ref(), limits).and_then(|()| check_payload(payload.as_ref(), limits));
        let in_pair = |error| invalid(format!("pair {at}, counted from 0: {error}"));
        checked.map_err(|error| if pairs.len() == 1 { error } else { in_pair(error) })?;
    }
    Ok(notify_many(pairs.iter().map(|(channel, payload)| (channel.as_ref(), payload.as_ref()))))
}

/// Checks that a query contains no NUL, which would end it in the protocol.
pub(crate) fn check_query(text: &str) -> Result<(), Error> {
    let Some(at) = text.find('\0') else { return Ok(()) };
    Err(invalid(format!("the query contains a NUL at byte {at}, which would end it in the protocol: remove it")))
}

fn invalid(message: String) -> Error {
    ValueError { message }.into()
}

/// Returns a simple query, and so an implicit transaction, that listens to all channels or to none. It is empty without
/// channels.
pub(crate) fn listen<'a>(channels: impl IntoIterator<Item = &'a str>) -> String {
    for_each("LISTEN ", channels)
}

/// Returns a simple query, like [`listen`]. A channel named `*` is an ordinary channel.
pub(crate) fn unlisten<'a>(channels: impl IntoIterator<Item = &'a str>) -> String {
    for_each("UNLISTEN ", channels)
}

/// Returns the beginning of a LISTEN or UNLISTEN query that fails if the server would truncate one of these names, and
/// so use another channel. Empty if no name can be too long.
///
/// A server truncates a name with only a notice, which `client_min_messages` may hide. `pg_notify` refuses such a name;
/// it is called for no other name, so nothing is sent.
pub(crate) fn refuse_truncation(channels: &[Box<str>], limits: Limits) -> String {
    let doubtful = channels.iter().filter(|name| may_be_truncated(name, limits));
    let mut values = String::new();
    for name in doubtful {
        values.push_str(if values.is_empty() { "(" } else { ",(" });
        quote_literal(name, &mut values);
        values.push_str("::pg_catalog.text)");
    }
    if values.is_empty() {
        return values;
    }
    format!(
        "SELECT pg_catalog.pg_notify(c,'') FROM (VALUES {values}) AS v(c) \
         WHERE pg_catalog.octet_length(c) OPERATOR(pg_catalog.>) {MAX_CHANNEL};"
    )
}

/// Returns the error of a request that failed by [`refuse_truncation`].
pub(crate) fn too_long_for_server(channels: &[Box<str>], limits: Limits) -> Error {
    let mut doubtful = channels.iter().filter(|name| may_be_truncated(name, limits));
    let which = match (doubtful.next(), doubtful.next()) {
        (Some(name), None) => format!("channel name {} is", shown(name)),
        _ => "a channel name is".into(),
    };
    invalid(format!(
        "{which} too long in the server's encoding, the range is 1 to {MAX_CHANNEL} bytes (NAMEDATALEN - 1): \
         shorten it; nothing was changed"
    ))
}

/// Returns `true` if a name may be too long in the server's encoding. No server encoding has more than four bytes for a
/// character, or more than one for an ASCII character.
fn may_be_truncated(name: &str, limits: Limits) -> bool {
    let most = match limits {
        Limits::Exact => name.len(),
        Limits::ServerDecides => name.chars().map(|c| if c.is_ascii() { 1 } else { 4 }).sum(),
    };
    most > MAX_CHANNEL
}

/// Returns a statement that sends all pairs of channel and payload, in order. It is empty without pairs.
///
/// The rows of VALUES are read in order by one process, because `pg_notify` is parallel restricted. `count` makes the
/// answer one row for any number of pairs. The casts of the first row determine the types of the columns.
pub(crate) fn notify_many<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (channel, payload) in pairs {
        let (before, cast) = if out.is_empty() {
            ("SELECT pg_catalog.count(pg_catalog.pg_notify(c,p)) FROM (VALUES (", "::pg_catalog.text")
        } else {
            (",(", "")
        };
        out.push_str(before);
        quote_literal(channel, &mut out);
        out.push_str(cast);
        out.push(',');
        quote_literal(payload, &mut out);
        out.push_str(cast);
        out.push(')');
    }
    if !out.is_empty() {
        out.push_str(") AS v(c,p)");
    }
    out
}

/// Returns `true` if a query of the caller may change the channels of the session.
///
/// It searches for LISTEN (and so UNLISTEN) and DISCARD anywhere, including inside longer words, strings and comments,
/// because a DO block can execute a string. A wrong `true` costs one query, but a wrong `false` loses a channel. It
/// cannot detect a function of the database that listens, nor the end of a transaction.
pub(crate) fn affects_listening(sql: &str) -> bool {
    let holds = |word: &str| sql.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    holds("LISTEN") || holds("DISCARD")
}

fn for_each<'a>(command: &str, channels: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for channel in channels {
        if !out.is_empty() {
            out.push(';');
        }
        out.push_str(command);
        quote_identifier(channel, &mut out);
    }
    out
}

fn push_doubled(text: &str, doubled: &[char], out: &mut String) {
    out.reserve(text.len());
    for piece in text.split_inclusive(doubled) {
        out.push_str(piece);
        out.extend(piece.chars().next_back().filter(|last| doubled.contains(last)));
    }
}

/// Returns the length and its unit if a string is certainly too long.
fn over(text: &str, most: usize, limits: Limits) -> Option<(usize, &'static str)> {
    // A string has at most as many characters as bytes.
    if text.len() <= most {
        return None;
    }
    match limits {
        Limits::Exact => Some((text.len(), "bytes")),
        Limits::ServerDecides => Some((text.chars().count(), "characters")).filter(|(count, _)| *count > most),
    }
}

/// Formats a name on one short line, for messages.
fn shown(name: &str) -> String {
    const MOST: usize = 24;
    match name.char_indices().nth(MOST) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}", name.get(..end).unwrap_or_default().to_owned() + "…"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identifier(name: &str) -> String {
        let mut out = String::new();
        quote_identifier(name, &mut out);
        out
    }

    fn literal(text: &str) -> String {
        let mut out = String::new();
        quote_literal(text, &mut out);
        out
    }

    fn complaint(result: Result<(), Error>) -> String {
        let error = result.unwrap_err();
        assert!(error.is_usage(), "{error:?}");
        error.to_string()
    }

    #[test]
    fn c06_the_error_names_the_invalid_pair() {
        let pairs = [("a", "1".to_owned()), ("b", "x".repeat(8_000)), ("", "3".to_owned())];
        let error = checked_notify_many(&pairs, Limits::Exact).unwrap_err().to_string();
        assert!(error.starts_with("pair 1, counted from 0: ") && error.contains("7999"), "{error}");
        let alone = checked_notify_many(&pairs[1..2], Limits::Exact).unwrap_err().to_string();
        assert!(!alone.contains("pair"), "{alone}");
    }

    #[test]
    fn names_and_literals_are_quoted() {
        assert_eq!(identifier("Foo"), r#""Foo""#);
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(identifier(r#"""#), r#""""""#);
        assert_eq!(identifier(r"a\'b"), r#""a\'b""#);
        assert_eq!(literal(""), "''");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b"), r" E'a\\b'");
        assert_eq!(literal(r"\';--"), r" E'\\'';--'");
        assert_eq!(literal("é\n☃"), "'é\n☃'");
    }

    #[test]
    fn statements_have_the_expected_text() {
        assert_eq!(listen(["a", "B c"]), r#"LISTEN "a";LISTEN "B c""#);
        assert_eq!(unlisten(["*"]), r#"UNLISTEN "*""#);
        assert_eq!(
            notify_many([("a", "x"), ("b", r"\")]),
            "SELECT pg_catalog.count(pg_catalog.pg_notify(c,p)) FROM \
             (VALUES ('a'::pg_catalog.text,'x'::pg_catalog.text),('b', E'\\\\')) AS v(c,p)"
        );
        assert_eq!((listen([]), unlisten([]), notify_many([])), Default::default());
    }

    #[test]
    fn c04_only_a_name_that_may_be_too_long_is_checked_by_the_server() {
        let names = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Vec<Box<str>>>();
        let fits = names(&["a", &"a".repeat(63), &"é".repeat(15)]);
        for limits in [Limits::Exact, Limits::ServerDecides] {
            assert_eq!(refuse_truncation(&fits, limits), "");
        }
        let doubtful = names(&["a", &"é".repeat(16), "it's\\日本語日本語日本語日本語日本語日本語"]);
        assert_eq!(refuse_truncation(&doubtful, Limits::Exact), "");
        assert_eq!(
            refuse_truncation(&doubtful, Limits::ServerDecides),
            "SELECT pg_catalog.pg_notify(c,'') FROM (VALUES ('éééééééééééééééé'::pg_catalog.text),( \
             E'it''s\\\\日本語日本語日本語日本語日本語日本語'::pg_catalog.text)) AS v(c) \
             WHERE pg_catalog.octet_length(c) OPERATOR(pg_catalog.>) 63;"
        );
        // A name that another server accepted in its encoding.
        assert!(refuse_truncation(&names(&[&"é".repeat(40)]), Limits::Exact).contains("pg_notify"));
        assert!(too_long_for_server(&doubtful[..2], Limits::ServerDecides).to_string().starts_with("channel name \"é"));
        assert!(too_long_for_server(&doubtful, Limits::ServerDecides).to_string().starts_with("a channel name is"));
    }

    #[test]
    fn a_name_of_63_bytes_fits_and_one_of_64_does_not() {
        for limits in [Limits::Exact, Limits::ServerDecides] {
            check_channel("a", limits).unwrap();
            check_channel(&"a".repeat(63), limits).unwrap();
        }
        assert_eq!(
            complaint(check_channel(&"a".repeat(64), Limits::Exact)),
            "channel name \"aaaaaaaaaaaaaaaaaaaaaaaa…\" has 64 bytes, but the \
             range is 1 to 63 bytes (NAMEDATALEN - 1): shorten it"
        );
        assert!(complaint(check_channel(&"é".repeat(32), Limits::Exact)).contains("has 64 bytes"));
    }

    #[test]
    fn a_payload_of_7999_bytes_fits_and_one_of_8000_does_not() {
        for limits in [Limits::Exact, Limits::ServerDecides] {
            check_payload("", limits).unwrap();
            check_payload(&"p".repeat(7_999), limits).unwrap();
        }
        let text = complaint(check_payload(&"secret??".repeat(1_000), Limits::Exact));
        assert!(text.contains("8000 bytes") && text.contains("7999") && !text.contains("secret"), "{text}");
        assert!(complaint(check_payload(&"é".repeat(4_000), Limits::Exact)).contains("8000 bytes"));
    }

    #[test]
    fn strings_that_may_fit_in_another_encoding_are_left_to_the_server() {
        check_channel(&"é".repeat(63), Limits::ServerDecides).unwrap();
        check_payload(&"é".repeat(7_999), Limits::ServerDecides).unwrap();
        assert!(complaint(check_channel(&"é".repeat(64), Limits::ServerDecides)).contains("64 characters"));
        assert!(complaint(check_payload(&"é".repeat(8_000), Limits::ServerDecides)).contains("8000 characters"));
    }

    #[test]
    fn empty_names_and_nuls_are_rejected() {
        for limits in [Limits::Exact, Limits::ServerDecides] {
            assert!(complaint(check_channel("", limits)).contains("is empty"));
            assert!(complaint(check_channel("é\0x", limits)).contains("\"é\\0x\" contains a NUL at byte 2"));
            let text = complaint(check_payload("secret\0", limits));
            assert!(text.contains("NUL at byte 6") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn an_error_is_one_short_line() {
        let text = complaint(check_channel(&"\n\u{1b}\u{202e}".repeat(10_000), Limits::Exact));
        assert!(text.len() < 400 && !text.contains(['\n', '\u{1b}', '\u{202e}']), "{text}");
    }

    #[test]
    fn queries_that_affect_the_channels_are_detected() {
        for sql in
            ["LISTEN a", "unlisten *", "/**/LiStEn\"a\"", "discard all", "DO $$BEGIN EXECUTE E'\\nLISTEN a'; END$$"]
        {
            assert!(affects_listening(sql), "{sql}");
        }
        for sql in ["", "SELECT 1", "NOTIFY a", "LISTE", "LIS TEN", "DISCAR"] {
            assert!(!affects_listening(sql), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn statements_that_affect_the_channels_are_never_missed(
            before in any::<String>(),
            word in prop::sample::select(vec!["listen", "unlisten", "discard"]),
            capitals in any::<u8>(),
            after in any::<String>(),
        ) {
            let capital = |(at, c): (usize, char)| if capitals >> (at % 8) & 1 == 1 { c.to_ascii_uppercase() } else { c };
            let word: String = word.chars().enumerate().map(capital).collect();
            let sql = [before, word, after].concat();
            prop_assert!(affects_listening(&sql));
        }

        #[test]
        fn strings_that_pass_the_exact_check_pass_the_other(text in ".{0,80}") {
            if check_channel(&text, Limits::Exact).is_ok() {
                prop_assert!((1..=63).contains(&text.len()) && !text.contains('\0'));
                prop_assert!(check_channel(&text, Limits::ServerDecides).is_ok());
            }
        }
    }
}
