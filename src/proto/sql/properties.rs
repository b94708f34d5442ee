//! Properties of the statements for any names and payloads, checked by proptest and used as a fuzz body.

use self::lexer::Token::{self, Name, Sign, Text, Word};
use super::{affects_listening, listen, notify_many, unlisten};

/// Treats `data` as strings separated by NULs, writes every kind of statement with them, and parses the statements like
/// the server: they must be the same commands with the same strings.
pub(crate) fn fuzz_quoting(data: &[u8]) {
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

/// PostgreSQL's lexer (`src/backend/parser/scan.l`), as far as this module needs it. It rejects syntax that this module
/// does not write, such as a comment or a line break between tokens.
mod lexer {
    use std::iter::Peekable;
    use std::str::Chars;

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) enum Token {
        /// A keyword or an unquoted name in lower case.
        Word(String),
        /// A quoted name.
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

    /// Reads up to the closing quote; a doubled quote does not close.
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
            // Escapes with a character code.
            '0'..='7' | 'x' | 'u' | 'U' => None,
            c => Some(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lexer_of_these_tests_detects_an_injection() {
        let injected = vec![Text("'".into()), Sign(';'), Word("drop".into())];
        assert_eq!(lexer::read(r"'\'", true), Some(vec![Text(r"\".into())]));
        assert_eq!(lexer::read(r"'\'", false), None);
        assert_eq!(lexer::read(r"'\'';DROP", false), Some(injected.clone()));
        assert_eq!(lexer::read(r"'\'';DROP", true), None);
        assert_eq!(lexer::read(r"E'\'';DROP", true), Some(injected));
    }

    /// Generates mostly text that could end a constant, or that has a special meaning in one.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            3 => prop::sample::select(vec!["'", "\"", "\\", "''", "\\'", "\\\\", "E'", "U&\"", "$$", "--", "/*", ";", "\n", " "]),
            1 => prop::sample::select(vec!["a", "é", "\u{2019}", "\u{ff07}", "\u{5c0f}", "\u{10ffff}", "\u{1}", "x27", "n", "0"]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn quoted_text_is_parsed_as_the_original(texts in prop::collection::vec(tricky(), 0..6)) {
            fuzz_quoting(texts.join("\0").as_bytes());
        }

        #[test]
        fn any_quoted_bytes_are_parsed_as_the_original(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_quoting(&data);
        }
    }
}
