//! A notification that outlives its batch.

use std::borrow::Cow;
use std::fmt;
use std::str::Utf8Error;
use std::sync::Arc;

use super::NotificationRef;
use super::batch::offset;

/// How long a frame is kept in place: so that what is kept takes 64 bytes, as a processor's cache has it.
const SHORT: usize = 61;

/// One notification, owned.
///
/// One whose channel and payload have 50 bytes together or fewer is a copy, and takes 64 bytes. A longer one may share the
/// bytes of the batch that it came in: to keep a few out of many for long, [`detach`](Self::detach) them.
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
pub struct Notification(Held);

/// A frame that was checked at intake.
#[derive(Clone)]
enum Held {
    /// A short one: to copy it costs less than to count who shares it.
    Short { frame: [u8; SHORT], len: u8, channel_len: u8 },
    /// In a slab.
    Shared { slab: Arc<[u8]>, start: u32, end: u32, channel_len: u32 },
}

impl Notification {
    /// This one, which begins at `start` in `slab`.
    #[inline]
    pub(super) fn in_slab(slab: &Arc<[u8]>, start: u32, notification: NotificationRef<'_>) -> Self {
        Self::short(notification, slab.get(start as usize..).unwrap_or_default()).unwrap_or_else(|| {
            let end = start + offset(notification.frame.len());
            let channel_len = offset(notification.channel_len);
            Self(Held::Shared { slab: Arc::clone(slab), start, end, channel_len })
        })
    }

    /// A copy that owns exactly its own bytes.
    pub(super) fn copied(notification: NotificationRef<'_>) -> Self {
        let NotificationRef { frame, channel_len } = notification;
        Self::short(notification, frame).unwrap_or_else(|| {
            let (end, channel_len) = (offset(frame.len()), offset(channel_len));
            Self(Held::Shared { slab: frame.into(), start: 0, end, channel_len })
        })
    }

    /// A copy in place, if it is short. To copy as much as there is room for costs less than to copy what is needed, so
    /// `from` are the bytes that it stands at the beginning of.
    #[inline]
    fn short(NotificationRef { frame, channel_len }: NotificationRef<'_>, from: &[u8]) -> Option<Self> {
        let len = u8::try_from(frame.len()).ok().filter(|len| usize::from(*len) <= SHORT)?;
        let frame = from.first_chunk().copied().unwrap_or_else(|| {
            let mut copy = [0; SHORT];
            copy.iter_mut().zip(frame).for_each(|(to, from)| *to = *from);
            copy
        });
        Some(Self(Held::Short { frame, len, channel_len: channel_len as u8 }))
    }

    fn as_ref(&self) -> NotificationRef<'_> {
        let (bytes, channel_len) = match &self.0 {
            Held::Short { frame, len, channel_len } => (frame.get(..usize::from(*len)), usize::from(*channel_len)),
            Held::Shared { slab, start, end, channel_len } => {
                (slab.get(*start as usize..*end as usize), *channel_len as usize)
            }
        };
        NotificationRef { frame: bytes.unwrap_or_default(), channel_len }
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
        match &self.0 {
            Held::Shared { slab, start, end, .. } if end - start < offset(slab.len()) => self.as_ref().to_owned(),
            _ => self,
        }
    }
}

#[cfg(test)]
impl Notification {
    pub(crate) fn for_test(channel: &str, payload: &str) -> Self {
        let frame = super::tests::frame(0, channel.as_bytes(), payload.as_bytes());
        NotificationRef { frame: &frame, channel_len: channel.len() }.to_owned()
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

#[cfg(test)]
mod tests {
    use super::super::Slice;
    use super::super::tests::{batch, frame};
    use super::*;

    #[test]
    fn one_that_is_kept_takes_one_line_of_cache() {
        assert_eq!((size_of::<Notification>(), size_of::<Option<Notification>>()), (64, 64));
    }

    #[test]
    fn short_ones_and_long_ones_come_out_as_they_went_in_wherever_they_lie() {
        for payload in [0, 1, 48, 49, 50, 51, 100, 6_000] {
            let text: Vec<u8> = (0..payload).map(|n| b'a' + (n % 26) as u8).collect();
            let frames = [frame(7, b"c", &text), frame(8, b"c", b""), frame(9, b"c", &text)];
            let batch = batch(&frames);
            let borrowed: Vec<_> = batch.iter().collect();
            let owned: Vec<_> = batch.clone().into_iter().collect();
            assert_eq!(owned.len(), 3);
            for (owned, borrowed) in owned.iter().zip(&borrowed) {
                assert_eq!(owned, &borrowed.to_owned());
                assert_eq!((owned.pid(), owned.channel_bytes()), (borrowed.pid(), &b"c"[..]));
                assert_eq!(owned.payload_bytes(), borrowed.payload_bytes());
                assert_eq!(owned.clone().detach(), *owned);
            }
            assert_eq!(owned[2].payload_bytes(), text);
        }
    }

    #[test]
    fn a_detached_notification_shares_nothing_and_a_short_one_never_did() {
        let long = vec![b'x'; 5000];
        let slab: Arc<[u8]> =
            [frame(1, b"a", &long), frame(2, b"b", &long[..100]), frame(3, b"b", b"short")].concat().into();
        let mut slice = Slice::new(&slab, 0, slab.len(), 3, 0);
        let [first, second, short] = [(); 3].map(|()| slice.pop_front().unwrap());
        drop(slice);
        assert_eq!(Arc::strong_count(&slab), 3, "the short one holds no share");
        assert_eq!(short.payload(), "short");
        let detached = second.clone().detach();
        assert_eq!(detached, second);
        drop((first, second));
        assert_eq!(Arc::strong_count(&slab), 1);
        let Held::Shared { slab, .. } = &detached.0 else { panic!("{detached:?}") };
        assert_eq!(slab.len(), frame(2, b"b", &long[..100]).len());
    }
}
