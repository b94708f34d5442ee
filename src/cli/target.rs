//! The databases of a command, and the detection of misplaced connection strings.
//!
//! A connection string can contain a password, so no message repeats one, and none is sent as a channel name.

use notifyman::Escaped;

/// The placeholder for a connection string in command-line errors.
const HIDDEN: &str = "(connection string)";

/// One database, named by position or by option.
#[derive(Debug, clap::Args)]
pub(crate) struct OneTarget {
    /// Database [default: from the PG* variables]
    #[arg(value_name = "URL", conflicts_with = "url_option")]
    url: Option<String>,
    /// Same as the argument URL
    #[arg(id = "url_option", long = "url", short, value_name = "URL", hide_short_help = true)]
    option: Option<String>,
}

impl OneTarget {
    /// Returns the connection string, if one was given.
    pub(crate) fn url(&self) -> Option<&str> {
        self.url.as_deref().or(self.option.as_deref())
    }
}

/// Several databases, named by position or by option.
#[derive(Debug, clap::Args)]
pub(crate) struct Targets {
    /// Databases [default: from the PG* variables]
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// Same as an argument URL; these come first
    #[arg(id = "url_option", long = "url", short, value_name = "URL", hide_short_help = true)]
    options: Vec<String>,
}

impl Targets {
    /// Returns `true` if a connection string was given.
    pub(crate) fn is_given(&self) -> bool {
        !self.options.is_empty() || !self.urls.is_empty()
    }

    /// Returns the connection strings, or `None` alone for the environment.
    pub(crate) fn urls(&self) -> Vec<Option<&str>> {
        or_environment(self.options.iter().chain(&self.urls))
    }
}

/// Returns the connection strings, or `None` alone for the environment.
pub(crate) fn or_environment<'u>(urls: impl IntoIterator<Item = &'u String>) -> Vec<Option<&'u str>> {
    let urls: Vec<_> = urls.into_iter().map(|url| Some(url.as_str())).collect();
    if urls.is_empty() { vec![None] } else { urls }
}

/// Returns a channel name unchanged, unless it may be a misplaced connection string.
pub(crate) fn channel(text: &str) -> Result<String, &'static str> {
    match is_connection_string(text) {
        true => Err("a connection string is not a channel name, and can contain a password: give it with --url"),
        false => Ok(text.to_owned()),
    }
}

/// Returns `true` for a text that may be a URL, or contain a password.
fn is_connection_string(text: &str) -> bool {
    let text = text.to_lowercase();
    let has_password = |(at, word): (usize, &str)| {
        let rest = text.get(at + word.len()..).unwrap_or_default();
        rest.trim_start().starts_with('=')
    };
    text.contains("://") || text.match_indices("password").any(has_password)
}

/// Returns the text to show instead of one that contains a connection string, or controls a terminal.
pub(super) fn shown_instead(text: &str) -> Option<String> {
    match is_connection_string(text) {
        true => Some(HIDDEN.to_owned()),
        false => Some(Escaped(text).to_string()).filter(|escaped| escaped != text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_no_channels() {
        for text in [
            "postgres://app:secret@db/shop",
            "POSTGRESQL://db",
            "x://",
            "host=db password=secret",
            "PassWord = secret",
            "password of a=b password\t=c",
            "sslpassword=x",
        ] {
            assert!(channel(text).is_err(), "{text}");
        }
        for text in ["prices", "Passwords", "a:b/c", "password", "a=b", "password_reset", "/tmp", "é"] {
            assert_eq!(channel(text).as_deref(), Ok(text));
        }
    }
}
