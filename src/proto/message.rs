//! Parses the bodies of the server's messages, with a check of every byte.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::borrow::Cow;

use crate::error::{ProtocolError, ServerError};
use crate::row::Row;

/// A message body, parsed from front to back.
struct Body<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn new(message: &'static str, rest: &'a [u8]) -> Self {
        Self { message, rest }
    }

    fn malformed(&self, reason: &'static str) -> ProtocolError {
        ProtocolError::Malformed { message: self.message, reason }
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or_else(|| self.malformed("it ends before its content does"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or_else(|| self.malformed("it ends before its content does"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn cstr(&mut self) -> Result<&'a [u8], ProtocolError> {
        let len = self.rest.iter().position(|&byte| byte == 0).ok_or_else(|| self.malformed("a string has no end"))?;
        let text = self.bytes(len)?;
        self.bytes(1)?;
        Ok(text)
    }

    fn end(self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("it is too long")) }
    }
}

pub(super) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    // Most text is valid UTF-8, which this checks faster than `from_utf8_lossy`.
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::from)
}

/// Parses an ErrorResponse or a NoticeResponse, which may be truncated.
pub(crate) fn server_error(body: &[u8]) -> ServerError {
    let mut error = ServerError::default();
    let mut never_translated = false;
    // A list of fields that ends with an empty one; a truncated list has no end.
    for field in body.split(|&byte| byte == 0) {
        let Some((&kind, value)) = field.split_first() else { break };
        match kind {
            b'V' => {
                never_translated = true;
                error.severity = lossy(value).into();
            }
            b'S' if !never_translated => error.severity = lossy(value).into(),
            b'C' => error.code = lossy(value).into(),
            b'M' => error.message = lossy(value).into(),
            b'D' => error.detail = Some(lossy(value).into()),
            b'H' => error.hint = Some(lossy(value).into()),
            _ => {}
        }
    }
    error
}

/// Parses a ParameterStatus: name and value.
pub(crate) fn parameter_status(body: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>), ProtocolError> {
    let mut body = Body::new("ParameterStatus", body);
    let (name, value) = (lossy(body.cstr()?), lossy(body.cstr()?));
    body.end()?;
    Ok((name, value))
}

/// Parses a BackendKeyData: the process id and the secret key for cancel requests.
pub(crate) fn backend_key_data(body: &[u8]) -> Result<(i32, i32), ProtocolError> {
    let mut body = Body::new("BackendKeyData", body);
    let pid = i32::from_be_bytes(body.chunk()?);
    // Protocol 3.0, which the startup packet requests, has keys of 4 bytes.
    let key = i32::from_be_bytes(body.chunk()?);
    body.end()?;
    Ok((pid, key))
}

/// Parses a RowDescription and returns the number of columns.
pub(crate) fn row_description(body: &[u8]) -> Result<usize, ProtocolError> {
    let mut body = Body::new("RowDescription", body);
    let columns = u16::from_be_bytes(body.chunk()?);
    for _ in 0..columns {
        body.cstr()?;
        body.bytes(18)?;
    }
    body.end()?;
    Ok(usize::from(columns))
}

/// Parses a DataRow, which must have the number of columns that the RowDescription announced.
pub(crate) fn data_row(body: &[u8], announced: usize) -> Result<Row, ProtocolError> {
    let mut body = Body::new("DataRow", body);
    if usize::from(u16::from_be_bytes(body.chunk()?)) != announced {
        return Err(body.malformed("its number of columns differs from the RowDescription"));
    }
    let mut columns = Vec::with_capacity(announced);
    for _ in 0..announced {
        columns.push(match i32::from_be_bytes(body.chunk()?) {
            -1 => None,
            len => {
                let len = usize::try_from(len).map_err(|_| body.malformed("a column's length is negative"))?;
                Some(body.bytes(len)?.into())
            }
        });
    }
    body.end()?;
    Ok(Row { columns: columns.into() })
}

/// Parses a CommandComplete: the tag, and the number of rows, which is the last word if that is a number.
pub(crate) fn command_complete(body: &[u8]) -> Result<(&[u8], u64), ProtocolError> {
    let mut body = Body::new("CommandComplete", body);
    let tag = body.cstr()?;
    body.end()?;
    let last = tag.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    Ok((tag, std::str::from_utf8(last).ok().and_then(|word| word.parse().ok()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_untranslated_severity_is_used() {
        let body = b"SFATALE\0VFATAL\0C57P01\0Mau revoir\0Hrevenez\0\0";
        let error = server_error(body);
        assert_eq!((error.severity(), error.code(), error.message()), ("FATAL", "57P01", "au revoir"));
        assert_eq!(error.hint(), Some("revenez"));
        assert!(error.is_fatal());
    }

    #[test]
    fn a_truncated_error_contains_the_received_fields() {
        let error = server_error(b"SERROR\0VERROR\0C22000\0Mxxxxxx");
        assert_eq!((error.code(), error.message()), ("22000", "xxxxxx"));
    }

    #[test]
    fn a_row_must_match_its_description() {
        let body = [&[0, 2][..], &[0, 0, 0, 1, b'x'], &[0xff; 4]].concat();
        let row = data_row(&body, 2).unwrap();
        assert_eq!((row.get(0).as_deref(), row.get(1), row.len()), (Some("x"), None, 2));
        assert!(data_row(&body, 1).is_err());
        for cut in 0..body.len() {
            assert!(data_row(&body[..cut], 2).is_err());
        }
        assert!(data_row(&[0, 1, 0xff, 0xff, 0xff, 0xfe], 1).is_err(), "a length of -2");
        assert!(data_row(&[0, 1, 0x7f, 0xff, 0xff, 0xff, 0], 1).is_err(), "a length beyond the message");
    }

    #[test]
    fn the_last_word_of_a_tag_is_the_number_of_rows() {
        for (tag, rows) in [("INSERT 0 12", 12), ("SELECT 3", 3), ("LISTEN", 0), ("", 0)] {
            assert_eq!(command_complete(format!("{tag}\0").as_bytes()).unwrap(), (tag.as_bytes(), rows));
        }
    }
}
