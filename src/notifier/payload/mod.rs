//! The payload of a notification, as bytes, as a string, or as a value.

#[cfg(feature = "python")]
mod python;

use std::borrow::Cow;
use std::fmt;
use std::str::Utf8Error;

#[cfg(feature = "json")]
use crate::error::Escaped;

/// The payload of a notification.
///
/// It is read only on request. A payload that cannot be read is an error value with the raw text, and has no effect on the
/// subscriber or the notifier.
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

    /// Returns the bytes as received.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Returns the payload as a string, with invalid UTF-8 replaced by `U+FFFD`.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.0)
    }

    /// Returns the payload as a string, if it is valid UTF-8.
    ///
    /// ```
    /// use notifyman::notifier::Payload;
    ///
    /// assert_eq!(Payload::from("42").as_str(), Ok("42"));
    /// ```
    ///
    /// # Errors
    ///
    /// [`Utf8Error`] for invalid UTF-8, which only a database with the encoding `SQL_ASCII` can send.
    pub fn as_str(&self) -> Result<&'a str, Utf8Error> {
        std::str::from_utf8(self.0)
    }

    /// Returns `true` for an empty payload, which is that of a `NOTIFY` without one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parses the payload as JSON into a type of the program. Requires the feature `json`.
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
    /// [`PayloadError`] if the payload is not JSON, is not of that type, or is nested more than 127 levels deep.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, PayloadError> {
        serde_json::from_slice(self.0).map_err(|error| self.error("JSON", &error))
    }

    /// Parses the payload as any JSON value. Requires the feature `json`.
    ///
    /// ```
    /// # use notifyman::notifier::Payload;
    /// assert_eq!(Payload::from(r#"{"price": 42}"#).value()?["price"], 42);
    /// # Ok::<(), notifyman::notifier::PayloadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`json`](Self::json).
    #[cfg(feature = "json")]
    pub fn value(&self) -> Result<serde_json::Value, PayloadError> {
        self.json()
    }

    /// Parses the payload as a Python literal into a type of the program or a [`serde_json::Value`]. Requires the feature
    /// `python`.
    ///
    /// Lists, tuples and sets become arrays, `None` becomes null, bytes become arrays of numbers, and a key of a dict that is
    /// not a string becomes its Python notation. The [table](crate::notifier#payloads) has examples.
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
    /// [`PayloadError`] if the payload is not a literal or not of that type, contains a number that JSON cannot represent
    /// (more than 64 bits, infinite, complex), or is nested more than 100 levels deep.
    #[cfg(feature = "python")]
    #[doc(alias = "literal_eval")]
    pub fn python<T: serde::de::DeserializeOwned>(&self) -> Result<T, PayloadError> {
        const FORMAT: &str = "a Python literal";
        let text = self.as_str().map_err(|error| self.error(FORMAT, &error))?;
        let value = self::python::parse(text).map_err(|error| self.error(FORMAT, &error))?;
        serde_json::from_value(value).map_err(|error| self.error(FORMAT, &error))
    }

    #[cfg(feature = "json")]
    fn error(&self, format: &'static str, error: &dyn fmt::Display) -> PayloadError {
        PayloadError { format, reason: error.to_string().into(), raw: self.text().into() }
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

/// Like [`Payload::text`].
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

/// A payload that could not be parsed, with the reason and the raw text.
///
/// ```
/// use notifyman::notifier::Payload;
///
/// let error = Payload::from("tea").json::<u32>().unwrap_err();
/// assert_eq!(error.raw(), "tea");
/// assert!(error.to_string().contains("could not be parsed as JSON"));
/// ```
#[cfg(feature = "json")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError {
    format: &'static str,
    reason: Box<str>,
    raw: Box<str>,
}

#[cfg(feature = "json")]
impl PayloadError {
    /// Returns the payload, with invalid UTF-8 replaced by `U+FFFD`.
    pub fn raw(&self) -> &str {
        &self.raw
    }
}

/// Shows the reason without the payload, which may be long.
#[cfg(feature = "json")]
impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "payload of {} bytes could not be parsed as {}: {}",
            self.raw.len(),
            self.format,
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

    /// Checks each row of the table in the documentation: a payload and its values.
    #[test]
    fn n08_the_table_of_the_documentation_is_true() {
        let table = include_str!("values.md");
        let rows = table.lines().filter(|line| line.starts_with("| `") || line.starts_with("| (empty)"));
        let mut checked = 0;
        for row in rows {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [payload, _, json, python] = cells[..] else { panic!("{row}") };
            let payload = if payload == "(empty)" { "" } else { payload.trim_matches('`') };
            // The longest payload is abbreviated in the table.
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
    fn n08_a_parse_error_has_the_raw_text() {
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
    fn n08_json_and_python_parse_into_types() {
        let pair: (u32, String) = Payload::from("(2, 'another_id')").python().unwrap();
        assert_eq!(pair, (2, "another_id".to_owned()));
        assert_eq!(Payload::from("b'\\x00a'").python::<Vec<u8>>().unwrap(), b"\0a");
        assert_eq!(Payload::from("None").python::<Option<u8>>().unwrap(), None);
        assert!(Payload::from("300").json::<u8>().is_err());
    }
}
