//! The one place that quotes a name or a literal, and that knows their limits.
//!
//! Names keep their case and may hold anything but NUL: `LISTEN "Foo"` hears what `pg_notify('Foo', ..)` says. What is
//! written here is read the same way whatever `standard_conforming_strings` and `search_path` are. It relies on
//! `client_encoding` being UTF8, in which no byte of a longer character can be taken for a quote or a backslash.
//!
//! Quoting doesn't check, and checking doesn't quote: whoever sends a statement calls [`check_channel`] and
//! [`check_payload`] first.

use crate::error::{Error, ValueError};

/// NAMEDATALEN - 1, in bytes of the server's encoding.
const MAX_CHANNEL: usize = 63;
/// NOTIFY_PAYLOAD_MAX_LENGTH - 1, in bytes of the server's encoding.
const MAX_PAYLOAD: usize = 7_999;

pub(crate) const UNLISTEN_ALL: &str = "UNLISTEN *";

/// One row for each channel, in the order of their bytes.
pub(crate) const LISTENING_CHANNELS: &str = "SELECT channel FROM pg_catalog.pg_listening_channels() AS channel \
    ORDER BY channel COLLATE pg_catalog.\"C\"";

/// Reading this also lets the server move the tail of its queue forward, which heals a LISTEN that failed with 58P01.
pub(crate) const QUEUE_USAGE: &str = "SELECT pg_catalog.pg_notification_queue_usage()";

/// In a SQL_ASCII database a server that is to send UTF8 ends the session (FATAL 22021) when a notification isn't UTF-8.
/// Quoting is as safe: a server without an encoding takes every byte of ours for itself, and those above 0x7f for
/// letters.
pub(crate) const SET_SQL_ASCII: &str = "SET client_encoding = 'SQL_ASCII'";

/// Identifies a database: the server's start time, to the microsecond, and the database's name. No table is read, since
/// a role may lack privileges on the catalog.
pub(crate) const DATABASE_IDENTITY: &str = "SELECT pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()), \
     pg_catalog.current_database()";

/// How far the limits can be checked before sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// The server stores our bytes as they are: its encoding is UTF8 or SQL_ASCII.
    Exact,
    /// The server counts in another encoding, in which a text may be shorter or longer than in UTF-8. Refused is only
    /// what can't fit in any, since a character takes a byte at least.
    ServerDecides,
}

/// A name is 1 to 63 bytes long and holds no NUL.
///
/// It has to be refused here, because LISTEN cuts a longer name, with no more than a notice.
pub(crate) fn check_channel(name: &str, limits: Limits) -> Result<(), Error> {
    let message = if name.is_empty() {
        format!("the channel name is empty; PostgreSQL allows 1 to {MAX_CHANNEL} bytes: give it a name")
    } else if let Some(at) = name.find('\0') {
        format!("channel name {} holds a NUL at byte {at}, which PostgreSQL can't store: remove it", shown(name))
    } else if let Some((length, unit)) = over(name, MAX_CHANNEL, limits) {
        format!(
            "channel name {} is {length} {unit} long; PostgreSQL allows 1 to {MAX_CHANNEL} bytes (NAMEDATALEN - 1): \
             shorten it",
            shown(name)
        )
    } else {
        return Ok(());
    };
    Err(ValueError { message }.into())
}

/// Refuses a name that some server might cut or count otherwise than we do.
pub(crate) fn check_canary_channel(name: &str) -> Result<(), Error> {
    check_channel(name, Limits::Exact)?;
    if name.is_ascii() {
        return Ok(());
    }
    let message = format!("the canary's channel {name:?} must be ASCII, which is as long in every server's encoding");
    Err(ValueError { message }.into())
}

/// A payload is at most 7,999 bytes long and holds no NUL. Its text is never part of the error.
pub(crate) fn check_payload(payload: &str, limits: Limits) -> Result<(), Error> {
    let message = if let Some(at) = payload.find('\0') {
        format!(
            "the payload, {} bytes long, holds a NUL at byte {at}, which PostgreSQL can't store: remove or encode it",
            payload.len()
        )
    } else if let Some((length, unit)) = over(payload, MAX_PAYLOAD, limits) {
        format!(
            "the payload is {length} {unit} long; PostgreSQL allows at most {MAX_PAYLOAD} bytes: \
             store the data in a table and send its key"
        )
    } else {
        return Ok(());
    };
    Err(ValueError { message }.into())
}

/// Appends `name` as a delimited identifier: `a"b` becomes `"a""b"`.
pub(crate) fn quote_identifier(name: &str, out: &mut String) {
    out.push('"');
    push_doubled(name, &['"'], out);
    out.push('"');
}

/// Appends `text` as a string constant: `a'b` becomes `'a''b'`, and `a\b` becomes ` E'a\\b'`.
///
/// A backslash means itself in `'..'` only while `standard_conforming_strings` is on, and means an escape in `E'..'`
/// always. The space keeps the `E` from growing together with a word before it.
pub(crate) fn quote_literal(text: &str, out: &mut String) {
    out.push_str(if text.contains('\\') { " E'" } else { "'" });
    push_doubled(text, &['\'', '\\'], out);
    out.push('\'');
}

/// Channels, checked one and all.
pub(crate) fn checked_channels<I>(channels: I, limits: Limits) -> Result<Vec<Box<str>>, Error>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    channels.into_iter().map(|name| check_channel(name.as_ref(), limits).map(|()| name.as_ref().into())).collect()
}

/// The statement that sends notifications, once all are checked.
pub(crate) fn checked_notify_many<C, P>(pairs: &[(C, P)], limits: Limits) -> Result<String, Error>
where
    C: AsRef<str>,
    P: AsRef<str>,
{
    for (at, (channel, payload)) in pairs.iter().enumerate() {
        let checked = check_channel(channel.as_ref(), limits).and_then(|()| check_payload(payload.as_ref(), limits));
        checked.map_err(|error| if pairs.len() == 1 { error } else { in_pair(at, &error) })?;
    }
    Ok(notify_many(pairs.iter().map(|(channel, payload)| (channel.as_ref(), payload.as_ref()))))
}

/// The same error, and of which of several pairs.
fn in_pair(at: usize, error: &Error) -> Error {
    ValueError { message: format!("pair {at}, counted from 0: {error}") }.into()
}

/// A query may be anything but hold a NUL, which ends it on the wire.
pub(crate) fn check_query(text: &str) -> Result<(), Error> {
    match text.find('\0') {
        None => Ok(()),
        Some(at) => Err(ValueError {
            message: format!(
                "the query has a NUL at byte {at}, where the protocol ends it: PostgreSQL has no such text"
            ),
        }
        .into()),
    }
}

/// One simple query, and so one implicit transaction: all channels or none. Empty without channels.
pub(crate) fn listen<'a>(channels: impl IntoIterator<Item = &'a str>) -> String {
    for_each("LISTEN ", channels)
}

/// One simple query, as [`listen`]. A channel named `*` is just a channel.
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
    let message = format!(
        "{which} too long in the server's encoding; PostgreSQL allows 1 to {MAX_CHANNEL} bytes (NAMEDATALEN - 1): \
         shorten it; nothing was done"
    );
    ValueError { message }.into()
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

/// One statement that sends all pairs, each a channel and a payload, in the order given. Empty without pairs.
///
/// The rows of VALUES are read in order, by one process: `pg_notify` is parallel restricted. The count makes it one row
/// of answer for any number of pairs. The first row's casts give the columns their type.
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

/// Whether a query written by somebody else may change what the session listens to.
///
/// Looks for LISTEN (and so UNLISTEN) and DISCARD anywhere, inside of longer words, strings and comments too: a DO block
/// can run what it holds in a string. A needless yes costs one question to the server, a wrong no loses a channel. What
/// it can't see is a function of the database that listens, and a transaction that ends.
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

/// By how much a text is too long, if it certainly is.
fn over(text: &str, most: usize, limits: Limits) -> Option<(usize, &'static str)> {
    // A text has at most as many characters as bytes.
    if text.len() <= most {
        return None;
    }
    match limits {
        Limits::Exact => Some((text.len(), "bytes")),
        Limits::ServerDecides => Some((text.chars().count(), "characters")).filter(|(count, _)| *count > most),
    }
}

/// A name as it may be printed: short, on one line.
fn shown(name: &str) -> String {
    const MOST: usize = 24;
    match name.char_indices().nth(MOST) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}", name.get(..end).unwrap_or_default().to_owned() + "…"),
    }
}

/// Takes `data` as texts between NULs, writes every kind of statement with them, and reads the statements as the server
/// would: they must be the same commands with the same texts.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_quoting(data: &[u8]) {
    use lexer::Token::{self, Name, Sign, Text, Word};

    let text = String::from_utf8_lossy(data);
    let texts: Vec<&str> = text.split('\0').collect();

    let commands = |word: &'static str| -> Vec<Token> {
        let each = texts.iter().flat_map(|text| [Sign(';'), Word(word.into()), Name((*text).into())]);
        each.skip(1).collect()
    };
    let pairs = || texts.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?)));
    let mut notified = Vec::new();
    if texts.len() >= 2 {
        let read = |sql| lexer::read(sql, true).unwrap_or_default();
        notified = read("SELECT pg_catalog.count(pg_catalog.pg_notify(c,p)) FROM (VALUES ");
        for (at, (channel, payload)) in pairs().enumerate() {
            let cast = read(if at == 0 { "::pg_catalog.text" } else { "" });
            notified.extend(Some(Sign(',')).filter(|_| at > 0));
            notified.extend([Sign('('), Text(channel.into())]);
            notified.extend(cast.iter().cloned());
            notified.extend([Sign(','), Text(payload.into())]);
            notified.extend(cast);
            notified.push(Sign(')'));
        }
        notified.extend(read(") AS v(c,p)"));
    }

    let (listen, unlisten) = (listen(texts.iter().copied()), unlisten(texts.iter().copied()));
    let notify = notify_many(pairs());
    for standard_conforming_strings in [true, false] {
        let read = |sql| lexer::read(sql, standard_conforming_strings);
        assert_eq!(read(&listen), Some(commands("listen")));
        assert_eq!(read(&unlisten), Some(commands("unlisten")));
        assert_eq!(read(&notify), Some(notified.clone()));
    }
    assert!(affects_listening(&listen) && affects_listening(&unlisten));
}

/// PostgreSQL's lexer (`src/backend/parser/scan.l`) as far as this module writes for it. What the module has no reason
/// to write, such as a comment or a line break between tokens, isn't read at all.
#[cfg(any(test, fuzzing))]
mod lexer {
    use std::iter::Peekable;
    use std::str::Chars;

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) enum Token {
        /// A keyword or an unquoted name, in small letters.
        Word(String),
        /// A name in double quotes.
        Name(String),
        /// A string constant.
        Text(String),
        Sign(char),
    }

    pub(super) fn read(sql: &str, standard_conforming_strings: bool) -> Option<Vec<Token>> {
        let mut rest = sql.chars().peekable();
        let mut tokens = Vec::new();
        while let Some(first) = rest.next() {
            tokens.push(match first {
                ' ' => continue,
                '"' => Token::Name(quoted('"', false, &mut rest)?),
                '\'' => Token::Text(quoted('\'', !standard_conforming_strings, &mut rest)?),
                'e' | 'E' if rest.next_if_eq(&'\'').is_some() => Token::Text(quoted('\'', true, &mut rest)?),
                'a'..='z' | 'A'..='Z' | '_' | '\u{80}'.. => {
                    let mut word = String::from(first.to_ascii_lowercase());
                    while let Some(next) =
                        rest.next_if(|c| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '$' | '\u{80}'..))
                    {
                        word.push(next.to_ascii_lowercase());
                    }
                    // `n'..'`, `b'..'`, `x'..'` and `u&'..'` are constants of other kinds.
                    if rest.peek().is_some_and(|next| matches!(next, '\'' | '&')) {
                        return None;
                    }
                    Token::Word(word)
                }
                ';' | ',' | '.' | ':' | '(' | ')' | '*' => Token::Sign(first),
                _ => return None,
            });
        }
        Some(tokens)
    }

    /// The inside of what `quote` opened, up to the same sign that isn't doubled.
    fn quoted(quote: char, escapes: bool, rest: &mut Peekable<Chars<'_>>) -> Option<String> {
        let mut inside = String::new();
        loop {
            match rest.next()? {
                c if c == quote => {
                    if rest.next_if_eq(&quote).is_none() {
                        return Some(inside);
                    }
                    inside.push(quote);
                }
                '\\' if escapes => inside.push(escaped(rest)?),
                c => inside.push(c),
            }
        }
    }

    fn escaped(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
        match rest.next()? {
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            // Characters by their number.
            '0'..='7' | 'x' | 'u' | 'U' => None,
            c => Some(c),
        }
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
    fn c06_the_pair_that_is_bad_is_named() {
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
    fn statements_read_as_they_should() {
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
    fn c4_only_a_name_that_may_be_too_long_is_asked_about() {
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
            "channel name \"aaaaaaaaaaaaaaaaaaaaaaaa…\" is 64 bytes long; \
             PostgreSQL allows 1 to 63 bytes (NAMEDATALEN - 1): shorten it"
        );
        assert!(complaint(check_channel(&"é".repeat(32), Limits::Exact)).contains("is 64 bytes long"));
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
    fn what_may_fit_in_another_encoding_is_left_to_the_server() {
        check_channel(&"é".repeat(63), Limits::ServerDecides).unwrap();
        check_payload(&"é".repeat(7_999), Limits::ServerDecides).unwrap();
        assert!(complaint(check_channel(&"é".repeat(64), Limits::ServerDecides)).contains("64 characters"));
        assert!(complaint(check_payload(&"é".repeat(8_000), Limits::ServerDecides)).contains("8000 characters"));
    }

    #[test]
    fn emptiness_and_nul_are_refused_everywhere() {
        for limits in [Limits::Exact, Limits::ServerDecides] {
            assert!(complaint(check_channel("", limits)).contains("is empty"));
            assert!(complaint(check_channel("é\0x", limits)).contains("\"é\\0x\" holds a NUL at byte 2"));
            let text = complaint(check_payload("secret\0", limits));
            assert!(text.contains("NUL at byte 6") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_complaint_stays_on_one_short_line() {
        let text = complaint(check_channel(&"\n\u{1b}\u{202e}".repeat(10_000), Limits::Exact));
        assert!(text.len() < 400 && !text.contains(['\n', '\u{1b}', '\u{202e}']), "{text}");
    }

    #[test]
    fn the_lexer_of_these_tests_knows_an_injection_when_it_sees_one() {
        use lexer::Token::{Sign, Text, Word};
        let injected = vec![Text("'".into()), Sign(';'), Word("drop".into())];
        assert_eq!(lexer::read(r"'\'", true), Some(vec![Text(r"\".into())]));
        assert_eq!(lexer::read(r"'\'", false), None);
        assert_eq!(lexer::read(r"'\'';DROP", false), Some(injected.clone()));
        assert_eq!(lexer::read(r"'\'';DROP", true), None);
        assert_eq!(lexer::read(r"E'\'';DROP", true), Some(injected));
    }

    #[test]
    fn raw_queries_that_touch_the_channels_are_noticed() {
        for sql in
            ["LISTEN a", "unlisten *", "/**/LiStEn\"a\"", "discard all", "DO $$BEGIN EXECUTE E'\\nLISTEN a'; END$$"]
        {
            assert!(affects_listening(sql), "{sql}");
        }
        for sql in ["", "SELECT 1", "NOTIFY a", "LISTE", "LIS TEN", "DISCAR"] {
            assert!(!affects_listening(sql), "{sql}");
        }
    }

    /// Mostly what could end a constant, or mean something in one.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            3 => prop::sample::select(vec!["'", "\"", "\\", "''", "\\'", "\\\\", "E'", "U&\"", "$$", "--", "/*", ";", "\n", " "]),
            1 => prop::sample::select(vec!["a", "é", "\u{2019}", "\u{ff07}", "\u{5c0f}", "\u{10ffff}", "\u{1}", "x27", "n", "0"]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back_as_it_was_meant(texts in prop::collection::vec(tricky(), 0..6)) {
            fuzz_quoting(texts.join("\0").as_bytes());
        }

        #[test]
        fn any_bytes_read_back(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_quoting(&data);
        }

        #[test]
        fn touching_is_never_missed(
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
        fn what_passes_the_exact_check_passes_the_other(text in ".{0,80}") {
            if check_channel(&text, Limits::Exact).is_ok() {
                prop_assert!((1..=63).contains(&text.len()) && !text.contains('\0'));
                prop_assert!(check_channel(&text, Limits::ServerDecides).is_ok());
            }
        }
    }
}
