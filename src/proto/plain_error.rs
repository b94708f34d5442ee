//! An error in the format of protocol 2: `E`, text, NUL.
//!
//! A postmaster that cannot start a process for a connection reports that in this format, because it does not know the
//! client's protocol yet (`report_fork_failure_to_client`). libpq distinguishes the two formats by the length that
//! follows the `E`: as a length, text is far larger than any error.

use crate::error::ServerError;

/// The longest text that is kept; libpq's `MAX_ERRLEN`.
const TEXT_MAX: usize = 30_000;
/// The shortest text; fewer letters count as a damaged length.
const TEXT_MIN: usize = 3;

/// Returns `true` if `bytes`, which follow an `E`, begin with text instead of a length.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let Some(head) = bytes.first_chunk::<4>() else { return false };
    let is_printable = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..=0xfe);
    let text = up_to_nul(head);
    text.len() >= TEXT_MIN && text.iter().all(is_printable)
}

/// Returns the error once the text is complete: at a NUL, or when its length exceeds `TEXT_MAX`.
pub(super) fn whole(text: &[u8]) -> Option<ServerError> {
    (text.len() > TEXT_MAX || text.contains(&0)).then(|| parse(text))
}

/// Parses the error, which may be incomplete.
pub(super) fn parse(text: &[u8]) -> ServerError {
    let text = up_to_nul(text);
    let text = String::from_utf8_lossy(text.get(..TEXT_MAX).unwrap_or(text));
    // Servers before 14 put the severity before the text.
    let severities = ["FATAL", "PANIC", "ERROR"];
    let stripped = severities.iter().find_map(|severity| {
        let rest = text.strip_prefix(severity)?.strip_prefix(':')?;
        Some((*severity, rest))
    });
    let (severity, message) = stripped.unwrap_or(("FATAL", &text));
    ServerError { severity: severity.into(), message: message.trim().into(), ..ServerError::default() }
}

fn up_to_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_distinguished_from_a_length() {
        for text in ["could not fork", "FATAL:  x", "no\n\0", "Prozess konnte", "нет", "fork: 1"] {
            assert!(is_text(text.as_bytes()), "{text:?}");
        }
        for length in [0_u32, 4, 5, 30_000, 0x00ff_ffff, 0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            assert!(!is_text(&length.to_be_bytes()), "{length:#x}");
        }
        assert!(!is_text(b"cou"));
    }

    #[test]
    fn text_ends_with_its_nul_or_where_no_more_is_kept() {
        assert_eq!(whole(b"could not fork"), None);
        let error = whole(b"could not fork new process: Resource temporarily unavailable\n\0rest").unwrap();
        assert_eq!(error.to_string(), "FATAL: could not fork new process: Resource temporarily unavailable");
        assert_eq!(whole(&[b'x'; 40_000]).unwrap().message().len(), TEXT_MAX);
    }

    #[test]
    fn a_severity_in_the_text_is_the_severity() {
        let error = parse(b"PANIC:  out of memory\n");
        assert_eq!((error.severity(), error.code(), error.message()), ("PANIC", "", "out of memory"));
        assert_eq!(parse(b"FATAL\0").message(), "FATAL");
    }
}
