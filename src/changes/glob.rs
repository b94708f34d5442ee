//! Patterns of names: `*` matches any text, `?` any character.

/// Returns `true` if a name matches a pattern.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The index of the last star, and the end of the part of the name that it has matched.
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
                let Some((at, matched)) = star else { return false };
                star = Some((at, matched + 1));
                p = at + 1;
                n = matched + 1;
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
    fn a_star_matches_any_text_and_a_question_mark_any_character() {
        for (pattern, name, fits_it) in [
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
            assert_eq!(fits(pattern, name), fits_it, "{pattern} {name}");
        }
        assert!(fits_table("public.*", "public", "t") && fits_table("t", "public", "t"));
        assert!(!fits_table("other.t", "public", "t"));
    }
}
