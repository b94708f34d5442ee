//! Finds the channels that a caller's query may listen to, as far as its text shows.
//!
//! The names are needed if the connection breaks after the query, before the server was asked for the channels. A
//! superfluous name costs one LISTEN, but a missing name loses a channel, so strings are scanned, too: a `DO` block can
//! execute one. Names that the query computes, or that are written with Unicode escapes (`U&".."`), are not found.

/// The longest name that PostgreSQL does not truncate, in bytes: NAMEDATALEN - 1.
const NAME_MAX: usize = 63;

/// Returns the names that follow the word LISTEN, as the server would read them.
pub(crate) fn listened(sql: &str) -> Vec<Box<str>> {
    let mut names = Vec::new();
    let mut rest = sql;
    while let Some(at) = find_word(rest, LISTEN) {
        rest = rest.get(at + LISTEN.len()..).unwrap_or_default();
        names.extend(name_at(skip_blank(rest)));
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
    let is_whole = |at: usize| !at.checked_sub(1).is_some_and(is_word) && !is_word(at + word.len());
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

/// Returns the identifier that `sql` begins with: folded to lower case, or quoted.
fn name_at(sql: &str) -> Option<Box<str>> {
    let mut name = String::new();
    if let Some(quoted) = sql.strip_prefix('"') {
        let mut rest = quoted.chars();
        loop {
            match rest.next()? {
                '"' if !rest.as_str().starts_with('"') => break,
                '"' => name.extend(rest.next()),
                c => name.push(c),
            }
        }
    } else {
        let end = sql.bytes().position(|byte| !is_in_word(byte)).unwrap_or(sql.len());
        name = sql.get(..end)?.to_ascii_lowercase();
        if name.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
            return None;
        }
    }
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
            ("listen é_1$", &["é_1$"]),
            ("DO $$BEGIN EXECUTE 'LISTEN a'; END$$", &["a"]),
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
            let found = listened(&["listen ", &sql, " listen"].concat());
            prop_assert!(found.iter().all(|name| (1..=NAME_MAX).contains(&name.len())));
        }
    }
}
