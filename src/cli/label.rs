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

fn is_label(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    // Every keyword accepts an empty value.
    let is_keyword = || Config::without_env(&format!("{text}=''")).is_ok();
    (1..=63).contains(&text.len()) && text.chars().all(is_part) && !is_keyword()
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
        }
    }
}
