//! Escapes external text so that it is safe to print.

use std::fmt::{self, Write as _};

/// Formats text from a server, a peer or the environment as one line that is safe to print on a terminal.
///
/// Line breaks and other control characters, C1 and DEL included, are written as Rust escapes, and so are characters
/// that are invisible or change the order in which text is displayed: the text can neither control the terminal nor
/// imitate a line of another program. Everything else is unchanged, so escaping twice has no further effect.
///
/// Every `Display` of this crate that contains external text, such as [`Error`](crate::Error) and
/// [`Diagnosis`](crate::Diagnosis), escapes it already. Accessors such as
/// [`ServerError::message`](crate::ServerError::message), channels and payloads return the raw text.
///
/// ```
/// use notifyman::Escaped;
///
/// assert_eq!(Escaped("déjà vu: 100 %").to_string(), "déjà vu: 100 %");
/// assert_eq!(
///     Escaped("red: \u{1b}[31m\nroot# ").to_string(),
///     r"red: \u{1b}[31m\nroot# "
/// );
/// assert_eq!(
///     Escaped(format_args!("{}", '\u{202e}')).to_string(),
///     r"\u{202e}"
/// );
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escaped<T>(
    /// The text, or anything that can be formatted.
    pub T,
);

impl Escaped<char> {
    /// Returns `true` if the character is written as an escape.
    ///
    /// ```
    /// use notifyman::Escaped;
    ///
    /// assert!(Escaped('\u{85}').is_needed() && !Escaped('é').is_needed());
    /// ```
    pub fn is_needed(self) -> bool {
        self.0.is_control()
            || matches!(
                self.0,
                // Arabic letter mark; marks, separators, embeddings and overrides; isolates and deprecated controls.
                '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                // A byte order mark, annotations, and tags.
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
            )
    }
}

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { write!(Escaper(f), "{:#}", self.0) } else { write!(Escaper(f), "{}", self.0) }
    }
}

/// A writer that escapes the text written to it.
struct Escaper<'f, 'b>(&'f mut fmt::Formatter<'b>);

impl fmt::Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| Escaped(*c).is_needed()) {
            let (plain, escaped) = rest.split_at_checked(at).unwrap_or((rest, ""));
            self.0.write_str(plain)?;
            write!(self.0, "{}", c.escape_default())?;
            rest = escaped.get(c.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_others_are_not() {
        for (text, escaped) in [
            ("", ""),
            (
                "plain \\ \"text\" 'é' 日本 \u{a0}», \u{1f469}\u{200d}\u{1f4bb}",
                "plain \\ \"text\" 'é' 日本 \u{a0}», \u{1f469}\u{200d}\u{1f4bb}",
            ),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\u{0}"),
            ("\u{1b}[2J\u{7f}\u{80}\u{9b}\u{9f}", "\\u{1b}[2J\\u{7f}\\u{80}\\u{9b}\\u{9f}"),
            ("\u{2028}x\u{2029}", "\\u{2028}x\\u{2029}"),
            (
                "\u{202a}\u{202e}\u{2066}\u{2069}\u{200f}\u{feff}",
                "\\u{202a}\\u{202e}\\u{2066}\\u{2069}\\u{200f}\\u{feff}",
            ),
        ] {
            assert_eq!(Escaped(text).to_string(), escaped);
            assert_eq!(Escaped(escaped).to_string(), escaped);
            assert_eq!(Escaped(Escaped(text)).to_string(), escaped);
        }
    }
}
