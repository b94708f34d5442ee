//! The label before a URL: `berlin=postgres://db1/shop`.

use notifyman::Config;

/// Splits a label from a URL, if there is one in exactly this form. The name of a connection keyword is no label, since
/// `dbname=postgres://..` is a mistake in a connection string.
pub(super) fn split(text: &str) -> (Option<&str>, &str) {
    let is_url = |rest: &str| rest.starts_with("postgres://") || rest.starts_with("postgresql://");
    match text.split_once('=') {
        Some((label, url)) if is_url(url) && is_label(label) => (Some(label), url),
        _ => (None, text),
    }
}

/// Returns `true` if there is something before a URL that is neither a label nor a keyword, such as `a/b=postgres://h`.
pub(super) fn is_misspelled(text: &str) -> bool {
    let is_url = |rest: &str| ["postgres://", "postgresql://"].iter().any(|scheme| starts_with(rest, scheme));
    let (label, rest) = text.split_once('=').unwrap_or(("", text));
    let has_scheme = |text: &str| text.contains("://");
    is_url(rest.trim_start())
        && text.contains('=')
        && !has_scheme(label)
        && !is_keyword(label)
        && split(text).0.is_none()
}

fn starts_with(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// Returns `true` for the name of a connection keyword, each of which accepts an empty value.
fn is_keyword(text: &str) -> bool {
    Config::without_env(&format!("{text}=''")).is_ok()
}

fn is_label(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=63).contains(&text.len()) && text.chars().all(is_part) && !is_keyword(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_recognized_only_before_a_url() {
        for (text, label, url) in [
            ("berlin=postgres://db1/shop", "berlin", "postgres://db1/shop"),
            ("eu-west_1.a=postgresql://", "eu-west_1.a", "postgresql://"),
            ("7=postgres://u:p=w@h/d?options=-c%20x=y", "7", "postgres://u:p=w@h/d?options=-c%20x=y"),
        ] {
            assert_eq!(split(text), (Some(label), url));
        }
        let long = format!("{}=postgres://h", "x".repeat(64));
        let misspelled = ["a/b=postgres://h", "münchen=postgres://h", "ber lin=postgres://h", "=postgres://h", &long];
        for text in misspelled.into_iter().chain(["berlin=POSTGRES://h", "berlin= postgres://h"]) {
            assert!(is_misspelled(text), "{text}");
        }
        for text in
            ["postgres://h/d?a=postgres://", "postgres://u:p=w@h", "host=db1", "berlin=postgres://h", "a/b=c", ""]
        {
            assert!(!is_misspelled(text), "{text}");
        }
        for text in [
            "postgres://h/d?a=postgres://",
            "postgres://h/d",
            "host=db1",
            "berlin=host=db1",
            "berlin= postgres://h",
            "berlin =postgres://h",
            "=postgres://h",
            "ber lin=postgres://h",
            "münchen=postgres://h",
            "a/b=postgres://h",
            "berlin=POSTGRES://h",
            &long,
        ] {
            assert_eq!(split(text), (None, text));
        }
    }

    #[test]
    fn a_keyword_is_no_label() {
        for keyword in ["dbname", "host", "password", "user", "sslmode", "service", "passfile", "options", "port"] {
            let text = format!("{keyword}=postgres://u:secret@h/d");
            assert_eq!(split(&text), (None, text.as_str()), "{keyword}");
            assert!(!is_misspelled(&text), "{keyword}");
        }
    }
}
