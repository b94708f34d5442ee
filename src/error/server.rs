//! An error or a notice of the server.

use std::fmt;

use super::escaped::Escaped;

/// The fields of an ErrorResponse or a NoticeResponse.
///
/// <https://www.postgresql.org/docs/current/protocol-error-fields.html>
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[doc(alias = "PgError")]
#[doc(alias = "DbError")]
#[doc(alias = "Diagnostic")]
#[doc(alias = "PQresultErrorField")]
pub struct ServerError {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// `true` if the connection ended before the server sent anything else.
    pub(crate) was_last: bool,
}

impl ServerError {
    /// Returns the size of the texts in bytes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held_bytes(&self) -> usize {
        let optional = [&self.detail, &self.hint].into_iter().flatten().map(String::len);
        self.severity.len() + self.code.len() + self.message.len() + optional.sum::<usize>()
    }

    /// Returns the severity, which is never translated: `ERROR`, `FATAL` or `PANIC`, and for a notice `WARNING`, `NOTICE`,
    /// `DEBUG`, `INFO` or `LOG`.
    pub fn severity(&self) -> &str {
        &self.severity
    }

    /// Returns the SQLSTATE, such as `42501`. The string is empty if the server sent none, for example because it could
    /// not start a process.
    #[doc(alias = "sqlstate")]
    #[doc(alias = "pgcode")]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Returns the message in the server's language. It is not escaped and may contain control characters.
    #[doc(alias = "message_primary")]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the detail, if the server sent one. It is not escaped.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Returns the hint, if the server sent one. It is not escaped. If a standby rejects LISTEN without a hint, this crate
    /// adds one.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns `true` if the session ended with this error, either because of its severity or because the connection was
    /// lost before the server sent anything else.
    pub fn is_fatal(&self) -> bool {
        self.was_last || matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl std::error::Error for ServerError {}

/// Formats the error as one line, with control characters [`Escaped`].
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, code, message, detail, hint, was_last } = self;
        let space = if code.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}: {}", Escaped(severity), Escaped(code), Escaped(message))?;
        if let Some(detail) = detail {
            write!(f, "; {}", Escaped(detail))?;
        }
        if let Some(hint) = hint {
            write!(f, "; hint: {}", Escaped(hint))?;
        }
        if *was_last {
            f.write_str("; the connection ended with this error")?;
        }
        Ok(())
    }
}
