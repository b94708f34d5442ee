//! Prepares a password for SCRAM by SASLprep, or leaves it unchanged, as PostgreSQL does (`src/common/saslprep.c`).
//!
//! `postgres-protocol` prepares passwords, too, but looks for forbidden characters after the normalisation, and
//! PostgreSQL before it: U+2150 is unassigned in Unicode 3.2, but its normal form is not. So the decision is made here,
//! and a password that must stay unchanged is passed on in a form that `postgres-protocol` cannot prepare.
//!
//! This module does not normalise. So a password that PostgreSQL prepares and `postgres-protocol` refuses to prepare is
//! hashed unchanged. Such a password has right-to-left letters together with compatibility characters whose normal form
//! breaks the rules for bidirectional text: U+2121, which becomes the letters TEL, or an isolated Arabic vowel sign
//! (U+FE76) at the end.

use std::borrow::Cow;

use super::sha256::sha256;
use super::stringprep_tables::{DROPPED, LEFT_TO_RIGHT, REFUSED, RIGHT_TO_LEFT, SPACES};

/// The block size of SHA-256. HMAC fills a shorter key with zeros, and hashes a longer one first.
const BLOCK: usize = 64;

/// Returns the password to pass to `postgres-protocol`, so that it hashes the same string as PostgreSQL.
pub(super) fn for_scram(password: &str) -> Cow<'_, [u8]> {
    let bytes = password.as_bytes();
    if password.is_ascii() || is_prepared(password) {
        return Cow::Borrowed(bytes);
    }
    // The zero-padded key is the same HMAC key, and contains a control character, which SASLprep prohibits.
    let mut key = if bytes.len() > BLOCK { sha256(bytes).to_vec() } else { bytes.to_vec() };
    // A key that fills its block cannot be padded, so `postgres-protocol` may prepare it.
    if key.len() < BLOCK {
        key.push(0);
    }
    Cow::Owned(key)
}

/// Returns `true` if PostgreSQL prepares the password.
fn is_prepared(password: &str) -> bool {
    let mapped = password.chars().filter(|&c| is_in(SPACES, c) || !is_in(DROPPED, c));
    let mapped: Vec<char> = mapped.map(|c| if is_in(SPACES, c) { ' ' } else { c }).collect();
    let (Some(&first), Some(&last)) = (mapped.first(), mapped.last()) else { return false };
    let any = |table| mapped.iter().any(|&c| is_in(table, c));
    let is_bidi_good = || is_in(RIGHT_TO_LEFT, first) && is_in(RIGHT_TO_LEFT, last) && !any(LEFT_TO_RIGHT);
    !any(REFUSED) && (!any(RIGHT_TO_LEFT) || is_bidi_good())
}

/// Returns `true` if one of the ranges contains the character.
fn is_in(ranges: &[u32], c: char) -> bool {
    let code = u32::from(c);
    // The first bound that is not less is the end of a range that contains the character, or the start of one.
    let at = ranges.partition_point(|bound| *bound < code);
    ranges.get(at).is_some_and(|bound| at % 2 == 1 || *bound == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_order_and_are_searched_up_to_their_bounds() {
        for table in [SPACES, DROPPED, REFUSED, RIGHT_TO_LEFT, LEFT_TO_RIGHT] {
            assert!(table.len() % 2 == 0 && table.chunks(2).all(|range| range[0] <= range[1]));
            assert!(table.windows(2).skip(1).step_by(2).all(|gap| gap[0] < gap[1]));
        }
        for (c, is) in
            [('\u{1fff}', false), ('\u{2000}', true), ('\u{2001}', true), ('\u{200b}', true), ('\u{200c}', false)]
        {
            assert_eq!(is_in(SPACES, c), is, "{c:?}");
        }
        assert!(is_in(SPACES, '\u{3000}') && !is_in(SPACES, '\u{3001}') && !is_in(SPACES, 'a'));
    }

    #[test]
    fn c02_a_password_is_prepared_where_postgresql_does() {
        for password in [
            "é",
            "x\u{df}y",
            "x\u{a0}y",
            "soft\u{ad}hyphen",
            "\u{200b}",
            "ﬁ",
            "Å",
            "a\u{30a}",
            "①",
            "日本",
            "ª",
            "\u{5d0}1\u{5d1}",
            "\u{627}\u{653}\u{627}",
            "\u{5d0} \u{5d1}",
        ] {
            assert!(is_prepared(password), "{password:?}");
            assert_eq!(*for_scram(password), *password.as_bytes());
        }
        for password in [
            "x\u{2150}y",       // unassigned in 3.2, unlike its normal form
            "x\u{1f600}y",      // unassigned
            "x\u{340}y",        // prohibited, unlike its normal form
            "x\u{2028}y",       // prohibited
            "\u{e000}",         // private use
            "é\u{7}",           // a control character
            "\u{ad}",           // becomes empty
            "\u{feff}\u{2060}", // becomes empty
            "\u{5d0}a\u{5d1}",  // both directions
            "1\u{5d0}",         // begins with no right-to-left letter
            "\u{627}\u{653}",   // ends with a mark, before it is normalised
        ] {
            assert!(!is_prepared(password), "{password:?}");
            let key = for_scram(password);
            assert_eq!(key.split_last(), Some((&0, password.as_bytes())));
        }
    }

    #[test]
    fn c02_a_long_password_that_is_not_prepared_is_the_key_that_hmac_makes_of_it() {
        use sha2::Digest as _;
        let long = "x".repeat(70) + "\u{2150}";
        let key = for_scram(&long);
        assert_eq!(key.split_last(), Some((&0, &sha2::Sha256::digest(&long)[..])));
        let block = "x".repeat(61) + "\u{2150}";
        assert_eq!(*for_scram(&block), *block.as_bytes(), "no room");
        assert_eq!(*for_scram(&"x".repeat(100)), *"x".repeat(100).as_bytes(), "ASCII is never changed");
    }
}
