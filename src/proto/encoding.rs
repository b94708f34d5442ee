//! Names of encodings, as PostgreSQL compares them.
//!
//! `pg_char_to_encoding` compares letters and digits only, ignoring case, and some encodings have two names. A server,
//! a fork of it or a proxy may report any spelling.

/// Returns `true` for `UTF8`, `UTF-8`, `utf_8`, `UNICODE` and the like.
pub(super) fn is_utf8(name: &str) -> bool {
    is_spelled(name, "utf8") || is_spelled(name, "unicode")
}

/// Returns `true` for `SQL_ASCII` and its other spellings.
pub(super) fn is_sql_ascii(name: &str) -> bool {
    is_spelled(name, "sqlascii")
}

fn is_spelled(name: &str, letters: &str) -> bool {
    let significant = name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    significant.eq(letters.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_letters_and_digits_count() {
        for name in ["UTF8", "UTF-8", "utf_8", " Utf 8", "UNICODE", "unicode", "Uni-Code"] {
            assert!(is_utf8(name) && !is_sql_ascii(name), "{name}");
        }
        for name in ["SQL_ASCII", "sqlascii", "SQL-ASCII", "Sql ascii"] {
            assert!(is_sql_ascii(name) && !is_utf8(name), "{name}");
        }
        for name in ["", "UTF", "UTF16", "UTF88", "MUTF8", "LATIN1", "ASCII", "UNICODE2", "ＵＴＦ8"] {
            assert!(!is_utf8(name) && !is_sql_ascii(name), "{name}");
        }
    }
}
