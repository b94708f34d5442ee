//! Framing: where one message of the server ends and the next begins. The one place that trusts no length.
//!
//! Every length field is compared with what its type of message may have *before* a byte is kept for it, so a hostile
//! length costs an error, not memory. Some kinds may be longer than anybody wants to keep: of an error or a notice the
//! first 64 KiB are kept, of COPY's data nothing is, and the rest is passed over as it streams by. A row that is longer
//! than a query's answer may be is passed over too, so that it costs the answer and not the session.

use crate::error::ProtocolError;
use crate::notification::{NOTIFICATION, NOTIFICATION_MAX};

/// Type byte and length.
pub(crate) const HEADER: usize = 5;
/// What a server can allocate for one message (PostgreSQL's MaxAllocSize), so what it can send.
const GIBIBYTE: u32 = 0x3fff_ffff;

/// How long a row may be, as a message's length counts, to be kept.
pub(crate) const ROW_MAX: u32 = 16 * 1024 * 1024;

/// What a message of one type is called, and how long it may be. Lengths count the length field, not the type byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageKind {
    pub(crate) name: &'static str,
    min: u32,
    max: u32,
    /// How much of it is kept; the rest is passed over.
    keep: u32,
}

const fn kind(name: &'static str, min: u32, max: u32) -> MessageKind {
    MessageKind { name, min, max, keep: max }
}

impl MessageKind {
    /// What may come from a server that is spoken to by the simple protocol.
    pub(crate) const fn of(tag: u8) -> Option<MessageKind> {
        Some(match tag {
            NOTIFICATION => kind("NotificationResponse", 10, NOTIFICATION_MAX),
            b'C' => kind("CommandComplete", 5, 1024),
            b'D' => MessageKind { keep: ROW_MAX, ..kind("DataRow", 6, GIBIBYTE) },
            b'E' => MessageKind { keep: 64 * 1024, ..kind("ErrorResponse", 5, GIBIBYTE) },
            b'G' => kind("CopyInResponse", 7, 16 * 1024),
            b'H' => kind("CopyOutResponse", 7, 16 * 1024),
            b'I' => kind("EmptyQueryResponse", 4, 4),
            // The key was 4 bytes up to PostgreSQL 17; protocol 3.2 allows 256.
            b'K' => kind("BackendKeyData", 12, 8 + 256),
            b'N' => MessageKind { keep: 64 * 1024, ..kind("NoticeResponse", 5, GIBIBYTE) },
            b'R' => kind("Authentication", 8, 64 * 1024),
            b'S' => kind("ParameterStatus", 6, 1024 * 1024),
            b'T' => kind("RowDescription", 6, 1024 * 1024),
            b'W' => kind("CopyBothResponse", 7, 16 * 1024),
            b'Z' => kind("ReadyForQuery", 5, 5),
            b'c' => kind("CopyDone", 4, 4),
            b'd' => MessageKind { keep: 0, ..kind("CopyData", 4, GIBIBYTE) },
            b'v' => kind("NegotiateProtocolVersion", 12, 64 * 1024),
            _ => return None,
        })
    }
}

/// What the bytes that come next are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// A frame of `total` bytes, all there.
    Whole { total: usize },
    /// Part of a frame. With `needed` bytes there is something to hand on; `total` are the frame's. Both are `None`
    /// while not even the header is whole.
    Partial { known: Option<(usize, usize)> },
}

/// Of a whole frame, with its header, as much as is kept.
pub(crate) fn kept(frame: &[u8]) -> &[u8] {
    let keep = frame.first().and_then(|&tag| MessageKind::of(tag)).map_or(0, |kind| kind.keep as usize);
    frame.get(..HEADER + keep).unwrap_or(frame)
}

/// Looks at what `bytes` begin with.
#[inline]
pub(crate) fn next(bytes: &[u8]) -> Result<Next, ProtocolError> {
    let Some((&tag, rest)) = bytes.split_first() else { return Ok(Next::Partial { known: None }) };
    // A wrong type is told at once, without waiting for a length that may never come.
    let Some(kind) = MessageKind::of(tag) else { return Err(ProtocolError::UnknownType(tag)) };
    let Some(length) = rest.first_chunk().map(|b| u32::from_be_bytes(*b)) else {
        return Ok(Next::Partial { known: None });
    };
    if length < kind.min || length > kind.max {
        return Err(ProtocolError::Length {
            message: kind.name,
            // As the protocol has it: a signed 32-bit number.
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

/// Whatever the bytes are: a frame is told from its header on, at the same length however much of it is there; and an
/// error is the same however much comes after it.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_frames(data: &[u8]) {
    let mut rest = data;
    loop {
        match next(rest) {
            Ok(Next::Whole { total }) => {
                let (frame, behind) = rest.split_at(total);
                assert!(kept(frame).len() <= total && frame.starts_with(kept(frame)));
                for there in (0..total).take(2 * HEADER).chain(total.saturating_sub(HEADER)..total) {
                    let part = frame.get(..there).unwrap_or_default();
                    let Ok(Next::Partial { known }) = next(part) else { unreachable!("{part:?} is part of {frame:?}") };
                    assert_eq!(known, (there >= HEADER).then_some((kept(frame).len(), total)));
                }
                let body = frame.get(HEADER..).unwrap_or_default();
                super::message::fuzz_body(frame.first().copied().unwrap_or_default(), body);
                rest = behind;
            }
            Ok(Next::Partial { known }) => {
                assert!(known.is_none_or(|(needed, total)| needed <= total && rest.len() < total));
                return;
            }
            Err(error) => {
                let header = rest.get(..HEADER).unwrap_or(rest);
                assert_eq!(next(header), Err(error));
                return;
            }
        }
    }
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
    fn a_hostile_length_is_refused_from_the_header_alone() {
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
    fn an_unknown_type_is_refused_from_its_first_byte() {
        for tag in 0..=255 {
            assert_eq!(next(&[tag]).is_err(), MessageKind::of(tag).is_none());
        }
    }

    #[test]
    fn of_a_long_notice_the_first_part_is_kept_and_of_copied_data_nothing() {
        let Next::Partial { known } = next(&header(b'N', 10_000_000)).unwrap() else { panic!() };
        assert_eq!(known, Some((HEADER + 64 * 1024, 10_000_001)));
        let Next::Partial { known } = next(&header(b'd', 10_000_000)).unwrap() else { panic!() };
        assert_eq!(known, Some((HEADER, 10_000_001)));
    }
}
