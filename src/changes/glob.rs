//! Patterns of names: a star is any text, a question mark any character.

/// Returns `true` if a name matches a pattern.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and how much of the name it has taken.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Returns `true` if a table matches a pattern, by its own name or as `schema.name`.
pub(crate) fn fits_table(pattern: &str, schema: &str, name: &str) -> bool {
    fits(pattern, name) || fits(pattern, &format!("{schema}.{name}"))
}

/// Returns `true` if a pattern can match one name only.
pub(crate) fn is_plain(pattern: &str) -> bool {
    !pattern.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_any_character() {
        for (pattern, name, so) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "a", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("?", "é", true),
            ("?", "", false),
            ("*b?d*", "abcd", true),
            ("*x*", "abcd", false),
            ("a%_", "abc", false),
        ] {
            assert_eq!(fits(pattern, name), so, "{pattern} {name}");
        }
        assert!(fits_table("public.*", "public", "t") && fits_table("t", "public", "t"));
        assert!(!fits_table("other.t", "public", "t"));
    }
}
