//! Finds the channels that a caller's query may listen to, as far as its text shows.
//!
//! The names are needed if the connection breaks after the query, before the server was asked for the channels. A
//! superfluous name costs one LISTEN, but a missing name loses a channel, so strings are scanned, too: a `DO` block can
//! execute one. Names that the query computes are not found.

/// The longest name that PostgreSQL does not truncate, in bytes: NAMEDATALEN - 1.
const NAME_MAX: usize = 63;

/// Returns the names that follow the word LISTEN, as the server would read them.
pub(crate) fn listened(sql: &str) -> Vec<Box<str>> {
    let mut names = Vec::new();
    let mut rest = sql;
    while let Some(at) = find_word(rest, LISTEN) {
        rest = rest.get(at + LISTEN.len()..).unwrap_or_default();
        names.extend(names_at(skip_blank(rest)).into_iter().filter_map(kept));
    }
    names
}

/// Returns `true` if a query may commit the open transaction.
pub(crate) fn may_commit(sql: &str) -> bool {
    ["commit", "end"].iter().any(|word| find_word(sql, word).is_some())
}

const LISTEN: &str = "listen";

/// Finds a whole word.
fn find_word(sql: &str, word: &str) -> Option<usize> {
    let bytes = sql.as_bytes();
    let is_word = |at: usize| bytes.get(at).is_some_and(|byte| is_in_word(*byte));
    // A string may begin after a dollar sign.
    let is_within = |at: usize| is_word(at) && bytes.get(at) != Some(&b'$');
    let is_whole = |at: usize| !at.checked_sub(1).is_some_and(is_within) && !is_word(at + word.len());
    let mut places = bytes.windows(word.len()).enumerate().filter(|(_, it)| it.eq_ignore_ascii_case(word.as_bytes()));
    places.find(|(at, _)| is_whole(*at)).map(|(at, _)| at)
}

fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

/// Skips white space and comments.
fn skip_blank(mut sql: &str) -> &str {
    loop {
        sql = sql.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
        let end = match sql.get(..2) {
            Some("--") => sql.find(['\n', '\r']),
            Some("/*") => comment_end(sql),
            _ => return sql,
        };
        let Some(end) = end else { return "" };
        sql = sql.get(end..).unwrap_or_default();
    }
}

/// Returns the end of the comment that `sql` begins with; comments nest.
fn comment_end(sql: &str) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    loop {
        match sql.as_bytes().get(at..at + 2)? {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Returns the identifier that `sql` begins with: folded to lower case, or quoted, perhaps with Unicode escapes. If a string
/// may end within an identifier, as in `$q$LISTEN a$q$`, returns both.
fn names_at(sql: &str) -> Vec<String> {
    if let Some(quoted) = sql.strip_prefix('"') {
        return quoted_name(quoted).map(|(name, _)| name).into_iter().collect();
    }
    let is_unicode = sql.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("u&\""));
    if let Some(quoted) = sql.get(3..).filter(|_| is_unicode) {
        return quoted_name(quoted).and_then(|(name, rest)| unescaped(&name, escape_at(rest))).into_iter().collect();
    }
    let end = sql.bytes().position(|byte| !is_in_word(byte)).unwrap_or(sql.len());
    let name = sql.get(..end).unwrap_or_default().to_ascii_lowercase();
    if name.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
        return Vec::new();
    }
    let shorter = name.split_once('$').map(|(shorter, _)| shorter.to_owned());
    [Some(name), shorter].into_iter().flatten().collect()
}

/// Returns the quoted identifier that `sql` begins with, after its opening quote, and the rest.
fn quoted_name(sql: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = sql.chars();
    loop {
        match rest.next()? {
            '"' if !rest.as_str().starts_with('"') => return Some((name, rest.as_str())),
            '"' => name.extend(rest.next()),
            c => name.push(c),
        }
    }
}

/// Returns the character that `UESCAPE` gives for the identifier before it.
fn escape_at(sql: &str) -> char {
    const UESCAPE: &str = "uescape";
    let (word, rest) = skip_blank(sql).split_at_checked(UESCAPE.len()).unwrap_or_default();
    let given = skip_blank(rest).strip_prefix('\'').filter(|_| word.eq_ignore_ascii_case(UESCAPE));
    given.and_then(|given| given.chars().next()).unwrap_or('\\')
}

/// Replaces Unicode escapes: `\XXXX`, `\+XXXXXX`, and twice the escape character for itself.
fn unescaped(name: &str, escape: char) -> Option<String> {
    // As UTF-16, where an escape can be half of a character.
    let mut units = Vec::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        let mut push = |c: char| units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        if c != escape {
            push(c);
        } else if let Some(behind) = rest.strip_prefix(escape) {
            push(c);
            rest = behind;
        } else {
            let (digits, behind) = match rest.strip_prefix('+') {
                Some(long) => long.split_at_checked(6)?,
                None => rest.split_at_checked(4)?,
            };
            let code = u32::from_str_radix(digits, 16).ok()?;
            match u16::try_from(code) {
                Ok(unit) => units.push(unit),
                Err(_) => push(char::from_u32(code)?),
            }
            rest = behind;
        }
    }
    String::from_utf16(&units).ok()
}

/// Returns a name as the server keeps it, if it can be one.
fn kept(mut name: String) -> Option<Box<str>> {
    let end = (0..=NAME_MAX.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or_default();
    name.truncate(end);
    (!name.is_empty() && !name.contains('\0')).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(sql: &str) -> Vec<String> {
        listened(sql).into_iter().map(String::from).collect()
    }

    #[test]
    fn c12_names_are_read_as_the_server_reads_them() {
        for (sql, expected) in [
            ("LISTEN a", &["a"][..]),
            ("listen Foo; LISTEN \"Foo\"", &["foo", "Foo"]),
            ("begin;listen/* to /* all */ of */a;commit;begin", &["a"]),
            ("listen -- here\n\t\"a\"\"b\"", &["a\"b"]),
            ("listen\"a\"", &["a"]),
            ("listen é_1$", &["é_1$", "é_1"]),
            ("DO $$BEGIN EXECUTE 'LISTEN a'; END$$", &["a"]),
            ("DO $$BEGIN EXECUTE $q$LISTEN a$q$; EXECUTE $$listen \"b c\"$$; END$$", &["a$q$", "a", "b c"]),
            (r#"listen U&"\0061"; listen u&"d!0061t!+000061!!""d" UESCAPE '!'"#, &["a", "data!\"d"]),
            (r#"listen U&"\D83D\DE00\\"; listen U&"x" /* */ uescape '+'"#, &["\u{1f600}\\", "x"]),
            (r#"listen U&"\006"; listen U&"\D83D"; listen U&"\zzzz"; listen U&"\+110000"; listen u"#, &["u"]),
            ("unlisten a; select listen_to, xlisten y", &[]),
            ("listen 1; listen $1; listen \"\"; listen", &[]),
            ("listen \"never closed", &[]),
            ("listen /* never closed", &[]),
        ] {
            assert_eq!(names(sql), expected, "{sql}");
        }
        assert_eq!(names(&format!("listen {}", "a".repeat(64))), ["a".repeat(63)]);
        assert_eq!(names(&format!("listen \"{}\"", "é".repeat(32))), ["é".repeat(31)]);
    }

    proptest! {
        #[test]
        fn c12_a_listen_that_this_client_writes_is_always_found(
            before in "[^\"]{0,10}", channels in prop::collection::vec("[^\0]{1,15}", 1..4),
        ) {
            let sql = [before, crate::proto::sql::listen(channels.iter().map(AsRef::as_ref))].join(";");
            let found = names(&sql);
            prop_assert!(channels.iter().all(|channel| found.contains(channel)), "{sql:?}: {found:?}");
        }

        #[test]
        fn any_text_is_scanned_without_harm(sql in ".{0,60}") {
            let found = listened(&["listen ", &sql, " listen U&\"", &sql, "\" uescape '+'"].concat());
            prop_assert!(found.iter().all(|name| (1..=NAME_MAX).contains(&name.len())));
        }
    }
}
