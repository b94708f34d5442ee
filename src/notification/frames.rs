//! Notifications as they lie in the bytes that were read: whole frames, one behind the other.
//!
//! ```text
//!   'A' │ length │ pid │ channel … 0 │ payload … 0
//!   1   │ 4      │ 4   │             │
//! ```
//!
//! The part of the hot path that looks at each notification: once as it comes in ([`run_like`]) and once as its batch is
//! walked ([`Frames`]). What may not be done here: copy, allocate, look at a payload, or check text.
//!
//! Where the next frame begins is known only from this one's length, so whoever goes from frame to frame waits for memory
//! at each. But most are as long as the one before: that is tried first, as it needs no look at the length to go on.

use std::ops::Range;

use super::NotificationRef;

/// The type byte of a NotificationResponse.
pub(crate) const NOTIFICATION: u8 = b'A';
/// How long one may be, as its length field counts. A payload is under 8,000 bytes; where BLCKSZ is 32 K, under 32,000,
/// and a byte of LATIN1 becomes two.
pub(crate) const NOTIFICATION_MAX: u32 = 256 * 1024;
/// Type byte and length.
const HEADER: usize = 5;
/// Type byte, length and pid come before the channel.
const CHANNEL_AT: usize = HEADER + 4;

/// The length of the channel's name in a NotificationResponse, from its frame: what stands before the first NUL.
///
/// Most notifications come on the channel that the one before came on, so `last` is compared first.
#[inline]
pub(crate) fn channel_len(frame: &[u8], last: &[u8]) -> Option<usize> {
    if is_on(frame, last) { Some(last.len()) } else { nul_in(frame.get(CHANNEL_AT..)?) }
}

/// Where the first NUL is: eight bytes at a time, since names are a few times as long.
#[inline]
fn nul_in(bytes: &[u8]) -> Option<usize> {
    const LOWEST: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);
    let (pieces, rest) = bytes.as_chunks::<8>();
    for (n, piece) in pieces.iter().enumerate() {
        let piece = u64::from_le_bytes(*piece);
        // To take one from each byte borrows where that is 0, and then from its neighbours: the lowest is right.
        let nuls = piece.wrapping_sub(LOWEST) & !piece & HIGHEST;
        if nuls != 0 {
            return Some(8 * n + nuls.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|&byte| byte == 0).map(|at| 8 * pieces.len() + at)
}

/// Whether a NotificationResponse, given its frame, is on this channel.
#[inline]
fn is_on(frame: &[u8], channel: &[u8]) -> bool {
    let names = frame.get(CHANNEL_AT..).unwrap_or_default();
    names.split_at_checked(channel.len()).is_some_and(|(head, rest)| rest.first() == Some(&0) && same(head, channel))
}

/// The process that sent it, from its frame.
pub(crate) fn pid_in(frame: &[u8]) -> i32 {
    frame.get(HEADER..CHANNEL_AT).and_then(|b| b.try_into().ok()).map_or(0, i32::from_be_bytes)
}

/// The channel's name in a frame, given its length.
#[inline]
pub(crate) fn channel_in(frame: &[u8], channel_len: usize) -> &[u8] {
    frame.get(CHANNEL_AT..CHANNEL_AT + channel_len).unwrap_or_default()
}

/// The payload in a frame, given the length of its channel.
#[inline]
pub(crate) fn payload_in(frame: &[u8], channel_len: usize) -> &[u8] {
    let end = frame.len().saturating_sub(1);
    frame.get(CHANNEL_AT + channel_len + 1..end).unwrap_or_default()
}

/// Of the frames that `bytes` begin with: how many are whole and faultless notifications on the channel that `first`, one
/// of `channel_len`, is on; and how long they are together.
///
/// They come in long runs, which cost no more than this look.
#[inline]
pub(crate) fn run_like(first: &[u8], channel_len: usize, bytes: &[u8]) -> (usize, usize) {
    // With the NUL that ends it.
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

/// The same, given where the name of the channel is and whether it is the one.
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
        // All that are as long as this one.
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

/// From frame to frame, whatever they are.
#[derive(Clone, Copy, Debug, Default)]
struct Stride {
    /// What the last one began with.
    header: [u8; HEADER],
    /// How long that frame was.
    len: usize,
}

impl Stride {
    /// The frame that `bytes` begin with, by its own account, if that is wholly there; and what is behind it.
    #[inline(always)]
    fn next<'b>(&mut self, bytes: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        if let Some((frame, behind)) = bytes.split_at_checked(self.len)
            && frame.first_chunk() == Some(&self.header)
        {
            return Some((frame, behind));
        }
        let header = *bytes.first_chunk()?;
        let len = frame_len(&header)?;
        let found = bytes.split_at_checked(len)?;
        *self = Self { header, len };
        Some(found)
    }
}

/// How long a frame is, by its header.
#[inline]
fn frame_len(header: &[u8; HEADER]) -> Option<usize> {
    let length = *header.last_chunk()?;
    (u32::from_be_bytes(length) as usize).checked_add(1)
}

/// Whether two names are equal: by pieces of a fixed size, since to call what compares memory costs more than that.
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

/// Whether the first and the last `N` bytes, which may overlap, are equal.
#[inline]
fn same_ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    a.first_chunk::<N>() == b.first_chunk() && a.last_chunk::<N>() == b.last_chunk()
}

/// The notifications in `bytes`, which must be whole frames that were checked at intake.
pub(crate) fn notifications_in(bytes: &[u8]) -> Frames<'_> {
    Frames::of(bytes, 0)
}

/// Walks frames that were checked at intake, and passes over those that aren't notifications.
#[derive(Clone, Debug)]
pub(crate) struct Frames<'b> {
    rest: &'b [u8],
    stride: Stride,
    /// How long the name of the channel is, if all come on one.
    common: usize,
    /// The last one; its channel is compared with the next one's, if they don't all come on one.
    before: NotificationRef<'b>,
}

impl<'b> Frames<'b> {
    /// All come on one channel if its name has `common` bytes; with 0 the channels may differ.
    pub(super) fn of(bytes: &'b [u8], common: usize) -> Self {
        Self { rest: bytes, stride: Stride::default(), common, before: NotificationRef { frame: b"", channel_len: 0 } }
    }

    /// How many bytes are behind the last one that was given.
    pub(crate) fn bytes_left(&self) -> usize {
        self.rest.len()
    }
}

impl<'b> Iterator for Frames<'b> {
    type Item = NotificationRef<'b>;

    // A walk that calls this for each keeps its place in memory, and takes twice as long; and compilers do as they like.
    #[inline(always)]
    fn next(&mut self) -> Option<NotificationRef<'b>> {
        loop {
            let (frame, behind) = self.stride.next(self.rest)?;
            self.rest = behind;
            if frame.first() == Some(&NOTIFICATION) {
                let channel_len =
                    if self.common > 0 { self.common } else { channel_len(frame, self.before.channel_bytes())? };
                self.before = NotificationRef { frame, channel_len };
                return Some(self.before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::frame;
    use super::*;

    #[test]
    fn a_run_ends_before_whatever_is_not_a_faultless_notification_on_its_channel() {
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
            frame(4, b"a channel", b"torn")[..12].to_vec(),
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
    fn a_run_is_on_one_channel_however_long_its_name_is() {
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
    fn a_walk_finds_frames_of_equal_and_other_lengths_alike() {
        let frames: Vec<_> = [1, 1, 2, 2, 1, 0, 0, 30, 1].map(|len| frame(1, b"a", &vec![b'x'; len])).to_vec();
        let foreign = b"N\0\0\0\x09abcde".to_vec();
        for at in 0..=frames.len() {
            let mut all = frames.clone();
            // One that is as long as its neighbours may be.
            all.insert(at, foreign.clone());
            let bytes = all.concat();
            for common in [0, 1] {
                let found: Vec<_> = Frames::of(&bytes, common).map(|n| n.frame.to_vec()).collect();
                assert_eq!(found, frames);
            }
        }
        let bytes = frames.concat();
        let mut walk = notifications_in(&bytes);
        assert_eq!((walk.next().unwrap().frame, walk.bytes_left()), (&frames[0][..], bytes.len() - frames[0].len()));
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
                    // What follows a NUL is what is most easily taken for one.
                    bytes[at] = u8::from(at % 2 == 0);
                }
            }
        }
    }

    #[test]
    fn texts_are_the_same_only_if_every_byte_is() {
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
