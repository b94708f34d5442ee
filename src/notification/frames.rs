//! Reads notifications in place: whole frames, one after the other, as they were received.
//!
//! ```text
//!   'A' │ length │ pid │ channel … 0 │ payload … 0
//!   1   │ 4      │ 4   │             │
//! ```
//!
//! This is the part of the hot path that processes each notification: once when it is received ([`run_like`]) and once
//! when its batch is iterated (`Frames`). It must not copy, allocate, read a payload, or validate text.
//!
//! The position of the next frame depends on the length of the current one, so each step waits for a memory access.
//! Most frames are as long as the one before, so that length is tried first, which avoids the wait.

use std::ops::Range;

/// The type byte of a NotificationResponse.
pub(crate) const NOTIFICATION: u8 = b'A';
/// The largest length of a notification, as its length field counts it. A payload has less than 8,000 bytes, or 32,000
/// if the server was built with a BLCKSZ of 32 K, and a byte of LATIN1 may become two.
pub(crate) const NOTIFICATION_MAX: u32 = 256 * 1024;
/// The length of the type byte and the length field.
pub(super) const HEADER: usize = 5;
/// The offset of the channel, after the type byte, the length and the process id.
const CHANNEL_AT: usize = HEADER + 4;

/// Returns the length of the channel name in the frame of a NotificationResponse: the bytes before the first NUL.
///
/// Most notifications have the same channel as the one before, so `last` is compared first.
#[inline]
pub(crate) fn channel_len(frame: &[u8], last: &[u8]) -> Option<usize> {
    if is_on(frame, last) { Some(last.len()) } else { nul_in(frame.get(CHANNEL_AT..)?) }
}

/// Returns the position of the first NUL. It searches eight bytes at a time, because names are a few times as long.
#[inline]
fn nul_in(bytes: &[u8]) -> Option<usize> {
    const LOWEST: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);
    let (pieces, rest) = bytes.as_chunks::<8>();
    for (n, piece) in pieces.iter().enumerate() {
        let piece = u64::from_le_bytes(*piece);
        // The subtraction borrows from a byte that is 0 and may then change higher bytes, so only the lowest match is
        // exact.
        let nuls = piece.wrapping_sub(LOWEST) & !piece & HIGHEST;
        if nuls != 0 {
            return Some(8 * n + nuls.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|&byte| byte == 0).map(|at| 8 * pieces.len() + at)
}

/// Returns `true` if the frame of a NotificationResponse has this channel.
#[inline]
fn is_on(frame: &[u8], channel: &[u8]) -> bool {
    let names = frame.get(CHANNEL_AT..).unwrap_or_default();
    names.split_at_checked(channel.len()).is_some_and(|(head, rest)| rest.first() == Some(&0) && same(head, channel))
}

/// Returns the id of the server process that sent the notification.
pub(crate) fn pid_in(frame: &[u8]) -> i32 {
    frame.get(HEADER..CHANNEL_AT).and_then(|b| b.try_into().ok()).map_or(0, i32::from_be_bytes)
}

/// Returns the channel name in a frame.
#[inline]
pub(crate) fn channel_in(frame: &[u8], channel_len: usize) -> &[u8] {
    frame.get(CHANNEL_AT..CHANNEL_AT + channel_len).unwrap_or_default()
}

/// Returns the payload in a frame.
#[inline]
pub(crate) fn payload_in(frame: &[u8], channel_len: usize) -> &[u8] {
    let end = frame.len().saturating_sub(1);
    frame.get(CHANNEL_AT + channel_len + 1..end).unwrap_or_default()
}

/// Returns the number of frames at the beginning of `bytes` that are complete, valid notifications on the channel of
/// the frame `first`, and their total length.
///
/// Notifications arrive in long runs, and this function is the whole cost of receiving one.
#[inline]
pub(crate) fn run_like(first: &[u8], channel_len: usize, bytes: &[u8]) -> (usize, usize) {
    // Includes the NUL that ends the name.
    let channel = CHANNEL_AT..CHANNEL_AT + channel_len + 1;
    let name = first.get(channel.clone()).unwrap_or_default();
    match name.len() {
        0..4 => run(bytes, channel, |head| head.iter().eq(name)),
        4..8 => run(bytes, channel, |head| same_ends::<4>(head, name)),
        8..16 => run(bytes, channel, |head| same_ends::<8>(head, name)),
        16..32 => run(bytes, channel, |head| same_ends::<16>(head, name)),
        32..=64 => run(bytes, channel, |head| same_ends::<32>(head, name)),
        _ => run(bytes, channel, |head| head == name),
    }
}

/// Checks that `bytes` contain only complete, valid notifications. Returns their number, and the length of the channel name if
/// all have the same channel, else 0.
///
/// # Errors
///
/// The offset of the first byte that begins none.
#[cfg(feature = "relay")]
pub(super) fn check_notifications(bytes: &[u8]) -> Result<(usize, usize), usize> {
    let (mut rest, mut last, mut count, mut common) = (bytes, &b""[..], 0, 0);
    while !rest.is_empty() {
        let (frame, channel, behind) = checked_notification(rest, last).ok_or(bytes.len() - rest.len())?;
        if count == 0 {
            common = channel.len();
        } else if channel != last {
            common = 0;
        }
        last = channel;
        let (more, length) = run_like(frame, channel.len(), behind);
        rest = behind.get(length..).unwrap_or_default();
        count += 1 + more;
    }
    Ok((count, common))
}

/// Returns the valid notification at the beginning of `bytes`, its channel, and the bytes behind it.
#[cfg(feature = "relay")]
fn checked_notification<'b>(bytes: &'b [u8], last: &[u8]) -> Option<(&'b [u8], &'b [u8], &'b [u8])> {
    let header = bytes.first_chunk::<HEADER>()?;
    let len = frame_len(header).filter(|len| header[0] == NOTIFICATION && *len <= NOTIFICATION_MAX as usize + 1)?;
    let (frame, behind) = bytes.split_at_checked(len)?;
    let channel = channel_in(frame, channel_len(frame, last)?);
    let has_payload = frame.len() > CHANNEL_AT + channel.len() + 1 && frame.last() == Some(&0);
    (has_payload && !channel.is_empty()).then_some((frame, channel, behind))
}

/// Implements [`run_like`] for a channel name in the range `channel`, which `is_it` recognizes.
#[inline]
fn run(bytes: &[u8], channel: Range<usize>, is_it: impl Fn(&[u8]) -> bool) -> (usize, usize) {
    let (mut rest, mut count) = (bytes, 0);
    while let Some(&head) = rest.first_chunk::<HEADER>()
        && let Some(len) = frame_len(&head)
        && head[0] == NOTIFICATION
        && len <= NOTIFICATION_MAX as usize + 1
        && len > channel.end
    {
        let before = count;
        // Every following frame with the same header.
        while let Some((frame, behind)) = rest.split_at_checked(len)
            && frame.first_chunk() == Some(&head)
            && frame.last() == Some(&0)
            && frame.get(channel.clone()).is_some_and(&is_it)
        {
            (rest, count) = (behind, count + 1);
        }
        if count == before {
            break;
        }
    }
    (count, bytes.len() - rest.len())
}

/// Returns the frame of a notification.
pub(super) fn frame(pid: i32, channel: &[u8], payload: &[u8]) -> Vec<u8> {
    let len = 4 + 4 + channel.len() + 1 + payload.len() + 1;
    let mut frame = vec![NOTIFICATION];
    frame.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(pid.to_be_bytes());
    frame.extend([channel, b"\0", payload, b"\0"].concat());
    frame
}

/// Returns the length of a frame with this header.
#[inline]
pub(super) fn frame_len(header: &[u8; HEADER]) -> Option<usize> {
    let length = *header.last_chunk()?;
    (u32::from_be_bytes(length) as usize).checked_add(1)
}

/// Returns `true` if two names are equal. It compares chunks of a fixed size, which is faster than a call of `memcmp`.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        0..4 => a.iter().eq(b),
        4..8 => same_ends::<4>(a, b),
        8..16 => same_ends::<8>(a, b),
        16..32 => same_ends::<16>(a, b),
        32..=64 => same_ends::<32>(a, b),
        _ => a == b,
    }
}

/// Returns `true` if the first and the last `N` bytes, which may overlap, are equal.
#[inline]
fn same_ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    a.first_chunk::<N>() == b.first_chunk() && a.last_chunk::<N>() == b.last_chunk()
}

#[cfg(test)]
mod tests {
    use super::super::tests::frame;
    use super::*;

    #[test]
    fn a_run_ends_before_anything_but_a_valid_notification_on_its_channel() {
        let first = frame(1, b"a channel", b"one");
        let run =
            [frame(2, b"a channel", b""), frame(3, b"a channel", b"a\0b"), frame(4, b"a channel", b"two")].concat();
        let mut endless = frame(4, b"a channel", b"for");
        *endless.last_mut().unwrap() = b'x';
        let long = frame(4, b"a channel", &vec![b'x'; NOTIFICATION_MAX as usize]);
        let without_payload = [&b"A\0\0\0\x12\0\0\0\x04a channel\0"[..], b"Z\0\0\0\x05I"].concat();
        let others = [
            Vec::new(),
            frame(4, b"a channe", b"l"),
            frame(4, b"a channe", b"l123"),
            frame(4, b"a channels", b"x"),
            frame(4, b"b channel", b"x"),
            frame(4, b"b channel", b"for"),
            frame(4, b"", b""),
            frame(4, b"a channel", b"part")[..12].to_vec(),
            b"A\0".to_vec(),
            b"A\0\0\0\0".to_vec(),
            b"Z\0\0\0\x05I".to_vec(),
            endless,
            long,
            without_payload,
        ];
        for other in others {
            let bytes = [&run[..], &other, &first].concat();
            let expected = if other.is_empty() { (4, bytes.len()) } else { (3, run.len()) };
            assert_eq!(run_like(&first, 9, &bytes), expected, "{other:?}");
        }
    }

    #[test]
    fn a_run_has_one_channel_for_every_length_of_name() {
        for len in 1..80 {
            let name = vec![b'c'; len];
            let first = frame(1, &name, b"one");
            assert_eq!(run_like(&first, len, &[&first[..], &first].concat()), (2, 2 * first.len()));
            for at in 0..=len {
                let mut other = first.clone();
                other[CHANNEL_AT + at] ^= 0x20;
                assert_eq!(run_like(&first, len, &[&first[..], &other].concat()), (1, first.len()), "{len} {at}");
            }
        }
    }

    #[test]
    fn the_first_nul_is_found_wherever_it_is() {
        for len in 0..40 {
            for fill in [0x01, 0x7f, 0x80, 0x81, 0xff] {
                let mut bytes = vec![fill; len];
                assert_eq!(nul_in(&bytes), None);
                for at in (0..len).rev() {
                    bytes[at] = 0;
                    assert_eq!(nul_in(&bytes), Some(at));
                    // A byte after a NUL is the one most easily mistaken for a NUL.
                    bytes[at] = u8::from(at % 2 == 0);
                }
            }
        }
    }

    #[test]
    fn texts_are_equal_only_if_every_byte_is() {
        for len in 0..80 {
            let text: Vec<u8> = (0..len).collect();
            assert!(same(&text, &text.clone()));
            assert!(!same(&text, &[&text[..], b"x"].concat()));
            for at in 0..text.len() {
                let mut other = text.clone();
                other[at] ^= 0x40;
                assert!(!same(&text, &other), "{len} {at}");
            }
        }
    }
}
