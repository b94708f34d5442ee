//! What comes out: notifications, borrowed or owned, and the batch that carries them.
//!
//! A batch is a slice of the very bytes that were read, whole frames only, checked once as they came in. Walking it
//! costs a few comparisons for each notification.
//!
//! What may not be done on the way: copy, allocate or count for a notification, look at a payload, or check text as UTF-8
//! before it is asked for.
//!
//! ```text
//!   slab, shared:  … | 'A' len pid channel 0 payload 0 | 'S' … | 'A' len pid channel 0 payload 0 | …
//!   batch:           └──────────────────── start .. end, two notifications ────────────────────┘
//! ```

use std::borrow::Cow;
use std::fmt;
use std::iter::FusedIterator;
use std::str::Utf8Error;
use std::sync::Arc;

use crate::gap::Gap;

/// The type byte of a NotificationResponse.
pub(crate) const NOTIFICATION: u8 = b'A';
/// How long one may be, as its length field counts. A payload is under 8,000 bytes; where BLCKSZ is 32 K, under 32,000,
/// and a byte of LATIN1 becomes two.
pub(crate) const NOTIFICATION_MAX: u32 = 256 * 1024;
/// Type byte, length and pid come before the channel.
const CHANNEL_AT: usize = 9;
/// A batch smaller than this is copied out of the slab that it was read into, so that keeping it keeps nothing else.
const EXACT_BELOW: usize = 4096;

/// The length of the channel's name in a NotificationResponse, from its frame: what stands before the first NUL.
///
/// Most notifications come on the channel that the one before came on, so `last` is compared first.
#[inline]
pub(crate) fn channel_len(frame: &[u8], last: &[u8]) -> Option<usize> {
    if is_on(frame, last) {
        return Some(last.len());
    }
    frame.get(CHANNEL_AT..)?.iter().position(|&byte| byte == 0)
}

/// Whether a NotificationResponse, given its frame, is on this channel.
#[inline]
pub(crate) fn is_on(frame: &[u8], channel: &[u8]) -> bool {
    let names = frame.get(CHANNEL_AT..).unwrap_or_default();
    names.split_at_checked(channel.len()).is_some_and(|(head, rest)| rest.first() == Some(&0) && same(head, channel))
}

/// The process that sent it, from its frame.
pub(crate) fn pid_in(frame: &[u8]) -> i32 {
    frame.get(5..CHANNEL_AT).and_then(|b| b.try_into().ok()).map_or(0, i32::from_be_bytes)
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
    let (mut count, mut at) = (0, 0);
    while let Some(frame) = bytes.get(at..).and_then(|rest| rest.get(..frame_len(rest)?))
        && frame.first() == Some(&NOTIFICATION)
        && frame.len() <= NOTIFICATION_MAX as usize + 1
        && frame.get(channel.end..).and_then(<[u8]>::last) == Some(&0)
        && frame.get(channel.clone()).is_some_and(|head| same(head, name))
    {
        count += 1;
        at += frame.len();
    }
    (count, at)
}

/// Whether two short texts are equal: eight bytes at a time, since to call what compares memory costs more than that.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    // The last eight may have been compared in part already.
    let (Some(last_of_a), Some(last_of_b)) = (a.last_chunk::<8>(), b.last_chunk()) else { return a.iter().eq(b) };
    a.len() == b.len()
        && last_of_a == last_of_b
        && a.as_chunks::<8>().0.iter().zip(b.as_chunks().0).all(|(a, b)| a == b)
}

/// The channel's name in a frame, given its length.
#[inline]
pub(crate) fn channel_in(frame: &[u8], channel_len: usize) -> &[u8] {
    frame.get(CHANNEL_AT..CHANNEL_AT + channel_len).unwrap_or_default()
}

/// The length of the frame that `bytes` begin with, by its own account, if that is wholly there.
#[inline]
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(1..5)?.try_into().map(u32::from_be_bytes).ok()?;
    let total = length as usize + 1;
    (total <= bytes.len()).then_some(total)
}

/// The notifications in `bytes`, which must be whole frames that were checked at intake.
pub(crate) fn notifications_in(bytes: &[u8]) -> impl Iterator<Item = NotificationRef<'_>> {
    let mut frames = Frames::of(bytes, 0);
    std::iter::from_fn(move || frames.next().map(|(_, notification)| notification))
}

/// The first notification in `bytes`, as above, and where the next frame begins.
pub(crate) fn first_in(bytes: &[u8]) -> Option<(NotificationRef<'_>, usize)> {
    let (at, first) = Frames::of(bytes, 0).next()?;
    Some((first, at + first.frame.len()))
}

/// One notification, borrowed from its [`Batch`].
///
/// ```no_run
/// # let batch: notifyman::Batch = unimplemented!();
/// for n in &batch {
///     println!("{} {} from process {}", n.channel(), n.payload(), n.pid());
/// }
/// ```
#[derive(Clone, Copy)]
pub struct NotificationRef<'b> {
    /// The whole frame, checked at intake.
    frame: &'b [u8],
    channel_len: usize,
}

impl<'b> NotificationRef<'b> {
    /// The channel, with anything that isn't UTF-8 replaced by `U+FFFD`.
    pub fn channel(&self) -> Cow<'b, str> {
        String::from_utf8_lossy(self.channel_bytes())
    }

    /// The payload, with anything that isn't UTF-8 replaced by `U+FFFD`; empty if there is none.
    pub fn payload(&self) -> Cow<'b, str> {
        String::from_utf8_lossy(self.payload_bytes())
    }

    /// The payload as text, checked.
    ///
    /// # Errors
    /// Only a database in `SQL_ASCII` can send what isn't UTF-8;
    /// [`payload_bytes`](Self::payload_bytes) has it as it came.
    pub fn payload_str(&self) -> Result<&'b str, Utf8Error> {
        std::str::from_utf8(self.payload_bytes())
    }

    /// The channel's bytes, without the NUL that ends them.
    pub fn channel_bytes(&self) -> &'b [u8] {
        channel_in(self.frame, self.channel_len)
    }

    /// The payload's bytes, without the NUL that ends them.
    #[inline]
    pub fn payload_bytes(&self) -> &'b [u8] {
        payload_in(self.frame, self.channel_len)
    }

    /// The process that sent it: `pg_backend_pid()` of the notifying session.
    pub fn pid(&self) -> i32 {
        pid_in(self.frame)
    }

    /// The whole frame, as it came.
    pub(crate) fn frame(&self) -> &'b [u8] {
        self.frame
    }

    /// A copy that owns exactly its own bytes.
    pub fn to_owned(&self) -> Notification {
        let slab: Arc<[u8]> = self.frame.into();
        Notification { end: offset(slab.len()), slab, start: 0, channel_len: offset(self.channel_len) }
    }
}

impl fmt::Debug for NotificationRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("channel", &self.channel())
            .field("payload", &self.payload())
            .field("pid", &self.pid())
            .finish()
    }
}

impl PartialEq for NotificationRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.channel_len == other.channel_len && self.frame == other.frame
    }
}

impl Eq for NotificationRef<'_> {}

/// One notification, owned.
///
/// It may share the bytes of the batch that it came in: to keep a few out of many for long, [`detach`](Self::detach)
/// them.
///
/// ```no_run
/// # fn main() -> Result<(), notifyman::Error> {
/// let mut db = notifyman::Connection::connect("postgres://localhost/app")?;
/// db.listen(["prices"])?;
/// for n in db.wait(None).flatten() {
///     println!("{} {} from process {}", n.channel(), n.payload(), n.pid());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Notification {
    slab: Arc<[u8]>,
    start: u32,
    end: u32,
    channel_len: u32,
}

impl Notification {
    fn as_ref(&self) -> NotificationRef<'_> {
        let frame = self.slab.get(self.start as usize..self.end as usize).unwrap_or_default();
        NotificationRef { frame, channel_len: self.channel_len as usize }
    }

    /// The channel, with anything that isn't UTF-8 replaced by `U+FFFD`.
    pub fn channel(&self) -> Cow<'_, str> {
        self.as_ref().channel()
    }

    /// The payload, with anything that isn't UTF-8 replaced by `U+FFFD`; empty if there is none.
    pub fn payload(&self) -> Cow<'_, str> {
        self.as_ref().payload()
    }

    /// The payload as text, checked.
    ///
    /// # Errors
    /// Only a database in `SQL_ASCII` can send what isn't UTF-8;
    /// [`payload_bytes`](Self::payload_bytes) has it as it came.
    pub fn payload_str(&self) -> Result<&str, Utf8Error> {
        self.as_ref().payload_str()
    }

    /// The channel's bytes, without the NUL that ends them.
    pub fn channel_bytes(&self) -> &[u8] {
        self.as_ref().channel_bytes()
    }

    /// The payload's bytes, without the NUL that ends them.
    pub fn payload_bytes(&self) -> &[u8] {
        self.as_ref().payload_bytes()
    }

    /// The process that sent it: `pg_backend_pid()` of the notifying session.
    pub fn pid(&self) -> i32 {
        self.as_ref().pid()
    }

    /// Copied out of the buffer that it shares with its batch, so that keeping it keeps only its own bytes.
    #[must_use]
    pub fn detach(self) -> Self {
        if self.end - self.start == offset(self.slab.len()) { self } else { self.as_ref().to_owned() }
    }
}

#[cfg(test)]
impl Notification {
    pub(crate) fn for_test(channel: &str, payload: &str) -> Self {
        let length = 4 + 4 + channel.len() as u32 + 1 + payload.len() as u32 + 1;
        let parts: [&[u8]; 7] =
            [&[NOTIFICATION], &length.to_be_bytes(), &[0; 4], channel.as_bytes(), &[0], payload.as_bytes(), &[0]];
        let frame = parts.concat();
        Self { start: 0, end: offset(frame.len()), slab: frame.into(), channel_len: offset(channel.len()) }
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl PartialEq for Notification {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl Eq for Notification {}

/// What one connection had in one turn of the loop, in the order in which the server sent it.
///
/// Never empty, except that a restored connection's may hold nothing but its [`gap`](Self::gap). Iterate `&batch` to
/// borrow, or the batch itself to own.
///
/// A batch under 4 KiB owns exactly its bytes; a larger one shares the buffer it was read into (64 KiB), and while it
/// is alive the loop must read into another.
#[derive(Clone)]
pub struct Batch {
    slice: Slice,
    gap: Option<Box<Gap>>,
}

impl Batch {
    /// A batch that holds nothing but a gap.
    pub(crate) fn empty() -> Self {
        Slice { slab: Arc::default(), start: 0, end: 0, len: 0, common: 0 }.into()
    }

    pub(crate) fn with_gap(mut self, gap: Gap) -> Self {
        self.gap = Some(Box::new(gap));
        self
    }

    /// How many notifications there are.
    pub fn len(&self) -> usize {
        self.slice.len()
    }

    /// Whether there is none: only for a restored connection's first batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What may have been missed just before this batch, if its connection has just been restored.
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_deref()
    }

    /// The notifications, borrowed.
    pub fn iter(&self) -> Iter<'_> {
        Iter { frames: self.slice.frames(), left: self.len() }
    }
}

impl From<Slice> for Batch {
    fn from(slice: Slice) -> Self {
        Self { slice, gap: None }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("notifications", &self.iter().collect::<Vec<_>>())
            .field("gap", &self.gap)
            .finish()
    }
}

impl<'b> IntoIterator for &'b Batch {
    type Item = NotificationRef<'b>;
    type IntoIter = Iter<'b>;

    fn into_iter(self) -> Iter<'b> {
        self.iter()
    }
}

impl IntoIterator for Batch {
    type Item = Notification;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { left: self.slice }
    }
}

/// Notifications as they lie in the slab that they were read into, or in their own.
#[derive(Clone)]
pub(crate) struct Slice {
    slab: Arc<[u8]>,
    start: u32,
    end: u32,
    len: u32,
    /// How long the name of their channel is, if that is one and the same; else 0.
    common: u32,
}

impl Slice {
    /// `slab[start..end]` must hold whole frames that were checked at intake, `len` of them notifications, all on one
    /// channel if that has a name of `common` bytes; with 0 the channels may differ.
    pub(crate) fn new(slab: &Arc<[u8]>, start: usize, end: usize, len: usize, common: usize) -> Self {
        let bytes = slab.get(start..end).unwrap_or_default();
        let (len, common) = (offset(len), offset(common));
        if bytes.len() < EXACT_BELOW {
            Self { end: offset(bytes.len()), slab: bytes.into(), start: 0, len, common }
        } else {
            Self { slab: Arc::clone(slab), start: offset(start), end: offset(end), len, common }
        }
    }

    /// The frames, as they came.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.slab.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// How many notifications there are.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The first notification, taken out.
    pub(crate) fn pop_front(&mut self) -> Option<Notification> {
        let (at, first) = self.frames().next()?;
        let (start, channel_len) = (self.start + offset(at), offset(first.channel_len));
        let end = start + offset(first.frame.len());
        self.start = end;
        self.len -= 1;
        Some(Notification { slab: Arc::clone(&self.slab), start, end, channel_len })
    }

    #[inline]
    fn frames(&self) -> Frames<'_> {
        Frames::of(self.as_bytes(), self.common as usize)
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(notifications_in(self.as_bytes())).finish()
    }
}

/// A place in a slab, which is far from having 4 GiB.
#[inline]
fn offset(place: usize) -> u32 {
    place as u32
}

/// Walks the frames of a slab, and passes over those that aren't notifications.
#[derive(Clone, Debug)]
struct Frames<'b> {
    rest: &'b [u8],
    /// Where `rest` begins in the bytes that the walk began with.
    at: usize,
    /// How long the name of the channel is, if all come on one.
    common: usize,
    /// Else the channel that the last one came on.
    last: &'b [u8],
}

impl<'b> Frames<'b> {
    fn of(bytes: &'b [u8], common: usize) -> Self {
        Self { rest: bytes, at: 0, common, last: b"" }
    }

    #[inline]
    fn next(&mut self) -> Option<(usize, NotificationRef<'b>)> {
        loop {
            let (frame, rest) = self.rest.split_at_checked(frame_len(self.rest)?)?;
            let at = self.at;
            self.rest = rest;
            self.at += frame.len();
            if frame.first() == Some(&NOTIFICATION) {
                if self.common > 0 {
                    return Some((at, NotificationRef { frame, channel_len: self.common }));
                }
                let channel_len = channel_len(frame, self.last)?;
                self.last = channel_in(frame, channel_len);
                return Some((at, NotificationRef { frame, channel_len }));
            }
        }
    }
}

/// The notifications of a [`Batch`], borrowed.
#[derive(Clone, Debug)]
pub struct Iter<'b> {
    frames: Frames<'b>,
    left: usize,
}

impl<'b> Iterator for Iter<'b> {
    type Item = NotificationRef<'b>;

    #[inline]
    fn next(&mut self) -> Option<NotificationRef<'b>> {
        let (_, notification) = self.frames.next()?;
        self.left = self.left.saturating_sub(1);
        Some(notification)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl FusedIterator for Iter<'_> {}

/// The notifications of a [`Batch`], owned.
#[derive(Clone, Debug)]
pub struct IntoIter {
    left: Slice,
}

impl Iterator for IntoIter {
    type Item = Notification;

    #[inline]
    fn next(&mut self) -> Option<Notification> {
        self.left.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.len(), Some(self.left.len()))
    }
}

impl ExactSizeIterator for IntoIter {}
impl FusedIterator for IntoIter {}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(pid: i32, channel: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![NOTIFICATION];
        frame.extend((4 + 4 + channel.len() as u32 + 1 + payload.len() as u32 + 1).to_be_bytes());
        frame.extend(pid.to_be_bytes());
        frame.extend(channel);
        frame.push(0);
        frame.extend(payload);
        frame.push(0);
        frame
    }

    fn batch(frames: &[Vec<u8>]) -> Batch {
        let slab: Arc<[u8]> = frames.concat().into();
        let len = frames.iter().filter(|f| f[0] == NOTIFICATION).count();
        Slice::new(&slab, 0, slab.len(), len, 0).into()
    }

    #[test]
    fn a_batch_gives_its_notifications_in_order_borrowed_and_owned() {
        let batch =
            batch(&[frame(1, b"a", b"one"), b"N\0\0\0\x05\0".to_vec(), frame(2, b"ab", b""), frame(3, b"a", b"3")]);
        let texts: Vec<_> = batch.iter().map(|n| format!("{}={}/{}", n.channel(), n.payload(), n.pid())).collect();
        assert_eq!(texts, ["a=one/1", "ab=/2", "a=3/3"]);
        assert_eq!(batch.iter().len(), 3);
        let owned: Vec<_> =
            batch.clone().into_iter().map(|n| format!("{}={}/{}", n.channel(), n.payload(), n.pid())).collect();
        assert_eq!(owned, texts);
    }

    #[test]
    fn a_channel_that_the_last_one_begins_with_is_told_apart() {
        let batch = batch(&[frame(1, b"ab", b""), frame(1, b"a", b"b"), frame(1, b"abc", b""), frame(1, b"", b"x")]);
        let channels: Vec<_> = batch.iter().map(|n| n.channel().into_owned()).collect();
        assert_eq!(channels, ["ab", "a", "abc", ""]);
    }

    #[test]
    fn a_run_ends_before_whatever_is_not_a_faultless_notification_on_its_channel() {
        let first = frame(1, b"a channel", b"one");
        let run = [frame(2, b"a channel", b""), frame(3, b"a channel", b"a\0b")].concat();
        let mut endless = frame(4, b"a channel", b"x");
        *endless.last_mut().unwrap() = b'x';
        let long = frame(4, b"a channel", &vec![b'x'; NOTIFICATION_MAX as usize]);
        let without_payload = [&b"A\0\0\0\x12\0\0\0\x04a channel\0"[..], b"Z\0\0\0\x05I"].concat();
        let others = [
            Vec::new(),
            frame(4, b"a channe", b"l"),
            frame(4, b"a channels", b"x"),
            frame(4, b"b channel", b"x"),
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
            let expected = if other.is_empty() { (3, bytes.len()) } else { (2, run.len()) };
            assert_eq!(run_like(&first, 9, &bytes), expected, "{other:?}");
        }
    }

    #[test]
    fn texts_are_the_same_only_if_every_byte_is() {
        for len in 0..40 {
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

    #[test]
    fn an_inner_nul_stays_in_the_payload() {
        let batch = batch(&[frame(1, b"a", b"x\0y")]);
        assert_eq!(batch.iter().next().unwrap().payload_bytes(), b"x\0y");
    }

    #[test]
    fn c10_bytes_that_are_not_utf8_are_there_raw_lossy_or_refused_as_asked() {
        let batch = batch(&[frame(1, b"caf\xe9", b"\xff!")]);
        let n = batch.iter().next().unwrap();
        assert_eq!(n.channel_bytes(), b"caf\xe9");
        assert_eq!(n.channel(), "caf\u{fffd}");
        assert_eq!(n.payload_bytes(), b"\xff!");
        assert_eq!(n.payload(), "\u{fffd}!");
        assert!(n.payload_str().is_err());
    }

    #[test]
    fn a_detached_notification_shares_nothing() {
        let big = vec![b'x'; 5000];
        let batch = batch(&[frame(1, b"a", &big), frame(2, b"b", b"small")]);
        let n = batch.clone().into_iter().nth(1).unwrap();
        assert!(Arc::ptr_eq(&n.slab, &batch.slice.slab));
        let detached = n.clone().detach();
        assert_eq!(detached, n);
        assert_eq!(detached.slab.len(), frame(2, b"b", b"small").len());
    }
}
