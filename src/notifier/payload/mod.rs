//! What a notification carries, as bytes, as text, or as a value.

#[cfg(feature = "python")]
mod python;

use std::borrow::Cow;
use std::fmt;
use std::str::Utf8Error;

#[cfg(feature = "json")]
use crate::error::Escaped;

/// What a notification carries, read as it is wanted.
///
/// Nothing is read before it is asked for, and what can't be read is an error value that has the raw text: no payload
/// stops a subscriber or the notifier.
///
/// ```
/// # #[cfg(feature = "json")]
/// # fn main() {
/// use notifyman::notifier::Payload;
///
/// let payload = Payload::from("[1, 2, 3]");
/// assert_eq!(payload.json::<Vec<u32>>().unwrap(), [1, 2, 3]);
///
/// let error = Payload::from("plain text").value().unwrap_err();
/// assert_eq!(error.raw(), "plain text");
/// # }
/// # #[cfg(not(feature = "json"))]
/// # fn main() {}
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a>(&'a [u8]);

impl<'a> Payload<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes, as they came.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// As text, with anything that isn't UTF-8 replaced by `U+FFFD`.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.0)
    }

    /// As text, checked.
    ///
    /// ```
    /// use notifyman::notifier::Payload;
    ///
    /// assert_eq!(Payload::from("42").as_str(), Ok("42"));
    /// ```
    ///
    /// # Errors
    ///
    /// Only a database in `SQL_ASCII` can send what isn't UTF-8.
    pub fn as_str(&self) -> Result<&'a str, Utf8Error> {
        std::str::from_utf8(self.0)
    }

    /// Whether there is nothing in it: `NOTIFY` without a payload.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As JSON, read into a type of yours. Feature `json`.
    ///
    /// ```
    /// # use notifyman::notifier::Payload;
    /// let price: (String, u32) = Payload::from(r#"["tea", 42]"#).json()?;
    /// assert_eq!(price, ("tea".to_owned(), 42));
    /// assert!(Payload::from("42").json::<String>().is_err());
    /// # Ok::<(), notifyman::notifier::PayloadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PayloadError`] where it isn't JSON, isn't of that type, or is nested deeper than 127 levels.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, PayloadError> {
        serde_json::from_slice(self.0).map_err(|error| self.error("JSON", &error))
    }

    /// As JSON, whatever it is. Feature `json`.
    ///
    /// ```
    /// # use notifyman::notifier::Payload;
    /// assert_eq!(Payload::from(r#"{"price": 42}"#).value()?["price"], 42);
    /// # Ok::<(), notifyman::notifier::PayloadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`json`](Self::json).
    #[cfg(feature = "json")]
    pub fn value(&self) -> Result<serde_json::Value, PayloadError> {
        self.json()
    }

    /// As a literal of Python, read into a type of yours or into a [`serde_json::Value`]. Feature `python`.
    ///
    /// Lists, tuples and sets come out as arrays, `None` as null, bytes as arrays of numbers, and a key of a dict that
    /// isn't a string as the text that it is written with. The [table](crate::notifier#payloads) has examples.
    ///
    /// ```
    /// # use notifyman::notifier::Payload;
    /// let ids: Vec<u32> = Payload::from("(1, 2)").python()?;
    /// assert_eq!(ids, [1, 2]);
    /// # Ok::<(), notifyman::notifier::PayloadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PayloadError`] where it isn't a literal or not of that type, for numbers that JSON can't hold (of more than 64
    /// bits, infinite, complex), and where it is nested deeper than 100 levels.
    #[cfg(feature = "python")]
    pub fn python<T: serde::de::DeserializeOwned>(&self) -> Result<T, PayloadError> {
        const WHAT: &str = "a literal of Python";
        let text = self.as_str().map_err(|error| self.error(WHAT, &error))?;
        let value = self::python::parse(text).map_err(|error| self.error(WHAT, &error))?;
        serde_json::from_value(value).map_err(|error| self.error(WHAT, &error))
    }

    #[cfg(feature = "json")]
    fn error(&self, what: &'static str, error: &dyn fmt::Display) -> PayloadError {
        PayloadError { what, reason: error.to_string().into(), raw: self.text().into() }
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

/// As text, lossy.
impl fmt::Display for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

/// A payload that isn't what it was read as: why, and the raw text.
///
/// ```
/// use notifyman::notifier::Payload;
///
/// let error = Payload::from("tea").json::<u32>().unwrap_err();
/// assert_eq!(error.raw(), "tea");
/// assert!(error.to_string().contains("can't be read as JSON"));
/// ```
#[cfg(feature = "json")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError {
    what: &'static str,
    reason: Box<str>,
    raw: Box<str>,
}

#[cfg(feature = "json")]
impl PayloadError {
    /// The payload as it came, with anything that isn't UTF-8 replaced by `U+FFFD`.
    pub fn raw(&self) -> &str {
        &self.raw
    }
}

/// The reason, without the payload, which may be long.
#[cfg(feature = "json")]
impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the payload, {} bytes long, can't be read as {}: {}",
            self.raw.len(),
            self.what,
            Escaped(&self.reason)
        )
    }
}

#[cfg(feature = "json")]
impl std::error::Error for PayloadError {}

#[cfg(all(test, feature = "python"))]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The table of the documentation, row by row: the payload as it is written there, and what two readings give.
    #[test]
    fn n08_the_table_of_the_documentation_is_true() {
        let table = include_str!("readings.md");
        let rows = table.lines().filter(|line| line.starts_with("| `") || line.starts_with("| (empty)"));
        let mut checked = 0;
        for row in rows {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [payload, _, json, python] = cells[..] else { panic!("{row}") };
            let payload = if payload == "(empty)" { "" } else { payload.trim_matches('`') };
            // The longest is written short.
            let long = "[".repeat(5000) + &"]".repeat(5000);
            let payload = if payload == "[[[…]]], 5,000 deep" { &long } else { payload };
            let payload = Payload::from(payload);
            let expected = |cell: &str| match cell {
                "error" => None,
                value => Some(
                    serde_json::from_str::<Value>(value.trim_matches('`')).unwrap_or_else(|e| panic!("{row}: {e}")),
                ),
            };
            assert_eq!(payload.value().ok(), expected(json), "{row}");
            assert_eq!(payload.python::<Value>().ok(), expected(python), "{row}");
            checked += 1;
        }
        assert!(checked > 20, "{checked} rows");
    }

    #[test]
    fn n08_what_does_not_parse_is_an_error_with_the_raw_text() {
        for raw in ["", "plain text", "[1,", "{'a': }", "\u{1F980}"] {
            let payload = Payload::from(raw);
            assert_eq!(payload.value().unwrap_err().raw(), raw);
            assert_eq!(payload.python::<Value>().unwrap_err().raw(), raw);
        }
        let bytes = Payload::new(b"caf\xe9");
        assert_eq!(bytes.python::<Value>().unwrap_err().raw(), "caf\u{fffd}");
        assert_eq!((bytes.bytes(), bytes.as_str().is_err()), (&b"caf\xe9"[..], true));
    }

    #[test]
    fn n08_both_read_into_types() {
        let pair: (u32, String) = Payload::from("(2, 'another_id')").python().unwrap();
        assert_eq!(pair, (2, "another_id".to_owned()));
        assert_eq!(Payload::from("b'\\x00a'").python::<Vec<u8>>().unwrap(), b"\0a");
        assert_eq!(Payload::from("None").python::<Option<u8>>().unwrap(), None);
        assert!(Payload::from("300").json::<u8>().is_err());
    }
}
