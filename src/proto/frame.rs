//! Framing: finds where a message of the server ends and the next begins. Only this file handles untrusted lengths.
//!
//! Every length is checked against the range of its message type *before* memory is allocated, so an invalid length
//! causes an error, not memory usage. Some messages may be longer than the stored limit: the first 64 KiB of an error
//! or a notice are stored, and nothing of COPY data; the rest is skipped as it arrives. A row that exceeds the limit is
//! skipped, too, so that it fails the query and not the session.

use crate::error::ProtocolError;
use crate::notification::{NOTIFICATION, NOTIFICATION_MAX};

/// The length of the type byte and the length field.
pub(crate) const HEADER: usize = 5;
/// The largest message that a server can allocate (PostgreSQL's MaxAllocSize), and so send.
const MESSAGE_MAX: u32 = 0x3fff_ffff;

/// The largest row that is stored, as its length field counts it.
pub(crate) const ROW_MAX: u32 = 16 * 1024 * 1024;

/// The sender of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the server.
    Frontend,
    /// From the server to the client.
    Backend,
}

/// The name of a message type and the range of its length. Lengths include the length field, but not the type byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageKind {
    pub(crate) name: &'static str,
    min: u32,
    max: u32,
    /// The number of bytes that are stored; the rest is skipped.
    keep: u32,
}

const fn kind(name: &'static str, min: u32, max: u32) -> MessageKind {
    MessageKind { name, min, max, keep: max }
}

impl MessageKind {
    /// Returns the kind of a message that a server may send to a client with simple queries.
    pub(crate) const fn of(tag: u8) -> Option<MessageKind> {
        Some(match tag {
            NOTIFICATION => kind("NotificationResponse", 10, NOTIFICATION_MAX),
            b'C' => kind("CommandComplete", 5, 1024),
            b'D' => MessageKind { keep: ROW_MAX, ..kind("DataRow", 6, MESSAGE_MAX) },
            b'E' => MessageKind { keep: 64 * 1024, ..kind("ErrorResponse", 5, MESSAGE_MAX) },
            b'G' => kind("CopyInResponse", 7, 16 * 1024),
            b'H' => kind("CopyOutResponse", 7, 16 * 1024),
            b'I' => kind("EmptyQueryResponse", 4, 4),
            // The key has 4 bytes up to PostgreSQL 17; protocol 3.2 allows 256.
            b'K' => kind("BackendKeyData", 12, 8 + 256),
            b'N' => MessageKind { keep: 64 * 1024, ..kind("NoticeResponse", 5, MESSAGE_MAX) },
            b'R' => kind("Authentication", 8, 64 * 1024),
            b'S' => kind("ParameterStatus", 6, 1024 * 1024),
            b'T' => kind("RowDescription", 6, 1024 * 1024),
            b'W' => kind("CopyBothResponse", 7, 16 * 1024),
            b'Z' => kind("ReadyForQuery", 5, 5),
            b'c' => kind("CopyDone", 4, 4),
            b'd' => MessageKind { keep: 0, ..kind("CopyData", 4, MESSAGE_MAX) },
            b'v' => kind("NegotiateProtocolVersion", 12, 64 * 1024),
            _ => return None,
        })
    }
}

/// The frame at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// A complete frame of `total` bytes.
    Whole { total: usize },
    /// A part of a frame of `total` bytes, which can be handled with `needed` bytes. `known` is `None` while the header
    /// is incomplete.
    Partial { known: Option<(usize, usize)> },
}

/// Returns the part of a complete frame, including its header, that is stored.
pub(crate) fn kept(frame: &[u8]) -> &[u8] {
    let keep = frame.first().and_then(|&tag| MessageKind::of(tag)).map_or(0, |kind| kind.keep as usize);
    frame.get(..HEADER + keep).unwrap_or(frame)
}

/// Finds the frame at the beginning of `bytes`.
#[inline(always)]
pub(crate) fn next(bytes: &[u8]) -> Result<Next, ProtocolError> {
    let Some((&tag, rest)) = bytes.split_first() else { return Ok(Next::Partial { known: None }) };
    // A wrong type is an error before the length has been received.
    let Some(kind) = MessageKind::of(tag) else { return Err(ProtocolError::UnknownType(tag)) };
    let Some(length) = rest.first_chunk().map(|b| u32::from_be_bytes(*b)) else {
        return Ok(Next::Partial { known: None });
    };
    if length < kind.min || length > kind.max {
        return Err(ProtocolError::Length {
            message: kind.name,
            // The protocol's type is a signed 32-bit integer.
            length: i64::from(length.cast_signed()),
            min: kind.min,
            max: kind.max,
        });
    }
    let total = 1 + length as usize;
    if total <= bytes.len() {
        return Ok(Next::Whole { total });
    }
    let needed = total.min(HEADER + kind.keep as usize);
    Ok(Next::Partial { known: Some((needed, total)) })
}

/// Returns the error for a message that is not allowed.
pub(crate) fn unexpected(tag: u8, when: &'static str) -> ProtocolError {
    let message = MessageKind::of(tag).map_or("a message", |kind| kind.name);
    ProtocolError::Unexpected { message, when }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(tag: u8, length: u32) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(length.to_be_bytes());
        bytes
    }

    #[test]
    fn a_frame_is_whole_only_with_its_last_byte() {
        let mut bytes = header(b'Z', 5);
        for _ in 0..HEADER {
            assert_eq!(next(&bytes[..4]).unwrap(), Next::Partial { known: None });
        }
        assert_eq!(next(&bytes).unwrap(), Next::Partial { known: Some((6, 6)) });
        bytes.push(b'I');
        assert_eq!(next(&bytes).unwrap(), Next::Whole { total: 6 });
        bytes.push(b'A');
        assert_eq!(next(&bytes).unwrap(), Next::Whole { total: 6 });
    }

    #[test]
    fn an_invalid_length_is_rejected_with_the_header() {
        for length in [0, 3, 4, 9, 256 * 1024 + 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            let error = next(&header(b'A', length)).unwrap_err();
            assert!(
                matches!(error, ProtocolError::Length { message: "NotificationResponse", .. }),
                "{length}: {error}"
            );
        }
        let error = next(&header(b'K', 0xffff_ffff)).unwrap_err().to_string();
        assert!(error.contains("BackendKeyData of -1 bytes"), "{error}");
    }

    #[test]
    fn an_unknown_type_is_rejected_with_its_first_byte() {
        for tag in 0..=255 {
            assert_eq!(next(&[tag]).is_err(), MessageKind::of(tag).is_none());
        }
    }

    #[test]
    fn the_first_part_of_a_long_notice_is_stored_and_nothing_of_copy_data() {
        let Next::Partial { known } = next(&header(b'N', 10_000_000)).unwrap() else { panic!() };
        assert_eq!(known, Some((HEADER + 64 * 1024, 10_000_001)));
        let Next::Partial { known } = next(&header(b'd', 10_000_000)).unwrap() else { panic!() };
        assert_eq!(known, Some((HEADER, 10_000_001)));
    }
}
