//! A single notification: borrowed from its batch, or owned.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::Utf8Error;
use std::sync::Arc;

use super::frames::{channel_in, frame, payload_in, pid_in};

/// A notification that borrows from its [`Batch`](super::Batch).
///
/// ```no_run
/// # let batch: notifyman::Batch = unimplemented!();
/// for n in &batch {
///     println!("{} {} from process {}", n.channel(), n.payload(), n.pid());
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "PGnotify")]
pub struct NotificationRef<'b> {
    pub(super) channel_len: usize,
    /// The complete frame, validated when it was received.
    pub(super) frame: &'b [u8],
}

impl<'b> NotificationRef<'b> {
    /// Returns the channel, with invalid UTF-8 replaced by `U+FFFD`.
    pub fn channel(&self) -> Cow<'b, str> {
        String::from_utf8_lossy(self.channel_bytes())
    }

    /// Returns the payload, with invalid UTF-8 replaced by `U+FFFD`. It is empty if the notification has none.
    pub fn payload(&self) -> Cow<'b, str> {
        String::from_utf8_lossy(self.payload_bytes())
    }

    /// Returns the payload as a string.
    ///
    /// # Errors
    /// Returns an error if the payload is not valid UTF-8, which only a database in `SQL_ASCII` can send.
    /// [`payload_bytes`](Self::payload_bytes) returns it unchanged.
    #[inline]
    pub fn payload_str(&self) -> Result<&'b str, Utf8Error> {
        std::str::from_utf8(self.payload_bytes())
    }

    /// Returns the bytes of the channel, without the final NUL.
    #[inline]
    pub fn channel_bytes(&self) -> &'b [u8] {
        channel_in(self.frame, self.channel_len)
    }

    /// Returns the bytes of the payload, without the final NUL.
    #[inline]
    pub fn payload_bytes(&self) -> &'b [u8] {
        payload_in(self.frame, self.channel_len)
    }

    /// Returns the id of the server process that sent the notification: `pg_backend_pid()` of the notifying session.
    pub fn pid(&self) -> i32 {
        pid_in(self.frame)
    }

    /// Returns the complete frame.
    /// Returns the notification in a frame that was validated when it was received.
    #[inline]
    pub(crate) fn in_frame(frame: &'b [u8], channel_len: usize) -> Self {
        Self { channel_len, frame }
    }

    pub(crate) fn frame(&self) -> &'b [u8] {
        self.frame
    }

    /// Creates a copy that owns exactly its bytes.
    pub fn to_owned(&self) -> Notification {
        Notification::copied(*self)
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

/// The largest frame that is stored inline, so that a notification takes 64 bytes, the size of a cache line.
const SHORT: usize = 61;

/// An owned notification.
///
/// If channel and payload have at most 50 bytes together, the notification is a copy and takes 64 bytes. A longer one
/// may share the buffer of its batch: to keep a few of many for a long time, [`detach`](Self::detach) them.
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
#[doc(alias = "Notify")]
#[doc(alias = "PGnotify")]
pub struct Notification(Held);

/// A frame that was validated when it was received.
#[derive(Clone)]
enum Held {
    /// A short frame, stored inline: copying it is cheaper than counting a reference.
    Short { frame: [u8; SHORT], len: u8, channel_len: u8 },
    /// A frame in a shared buffer.
    Shared { buffer: Arc<[u8]>, start: u32, end: u32, channel_len: u32 },
}

impl Notification {
    /// Creates a notification, for tests of code that receives some.
    ///
    /// A NUL ends the channel, as in the protocol. Neither the channel nor the payload is checked against PostgreSQL's limits.
    ///
    /// ```
    /// use notifyman::{Batch, Notification};
    ///
    /// /// Returns the keys to remove from a cache.
    /// fn keys(batch: &Batch) -> Vec<String> {
    ///     batch.iter().map(|n| n.payload().into_owned()).collect()
    /// }
    ///
    /// let sent = ["42", "7"].map(|key| Notification::new("prices", key, 1234));
    /// assert_eq!(keys(&sent.into_iter().collect()), ["42", "7"]);
    /// ```
    pub fn new(channel: impl AsRef<str>, payload: impl AsRef<str>, pid: i32) -> Self {
        let channel = channel.as_ref().split('\0').next().unwrap_or_default();
        let frame = frame(pid, channel.as_bytes(), payload.as_ref().as_bytes());
        Self::copied(NotificationRef { channel_len: channel.len(), frame: &frame })
    }

    /// Creates a notification from the frame that begins at `start` in `buffer`.
    #[inline]
    pub(super) fn in_buffer(buffer: &Arc<[u8]>, start: u32, notification: NotificationRef<'_>) -> Self {
        Self::short(notification, buffer.get(start as usize..).unwrap_or_default()).unwrap_or_else(|| {
            let end = start + offset(notification.frame.len());
            let channel_len = offset(notification.channel_len);
            Self(Held::Shared { buffer: Arc::clone(buffer), start, end, channel_len })
        })
    }

    /// Creates a copy that owns exactly its bytes.
    pub(super) fn copied(notification: NotificationRef<'_>) -> Self {
        let NotificationRef { frame, channel_len } = notification;
        Self::short(notification, frame).unwrap_or_else(|| {
            let (end, channel_len) = (offset(frame.len()), offset(channel_len));
            Self(Held::Shared { buffer: frame.into(), start: 0, end, channel_len })
        })
    }

    /// Returns an inline copy if the frame is short enough. `from` are the bytes that begin with the frame: copying a
    /// fixed number of bytes is faster than copying only the frame.
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

    pub(crate) fn as_ref(&self) -> NotificationRef<'_> {
        let (bytes, channel_len) = match &self.0 {
            Held::Short { frame, len, channel_len } => (frame.get(..usize::from(*len)), usize::from(*channel_len)),
            Held::Shared { buffer, start, end, channel_len } => {
                (buffer.get(*start as usize..*end as usize), *channel_len as usize)
            }
        };
        NotificationRef { frame: bytes.unwrap_or_default(), channel_len }
    }

    /// Returns the channel, with invalid UTF-8 replaced by `U+FFFD`.
    #[doc(alias = "relname")]
    pub fn channel(&self) -> Cow<'_, str> {
        self.as_ref().channel()
    }

    /// Returns the payload, with invalid UTF-8 replaced by `U+FFFD`. It is empty if the notification has none.
    #[doc(alias = "extra")]
    pub fn payload(&self) -> Cow<'_, str> {
        self.as_ref().payload()
    }

    /// Returns the payload as a string.
    ///
    /// # Errors
    /// Returns an error if the payload is not valid UTF-8, which only a database in `SQL_ASCII` can send.
    /// [`payload_bytes`](Self::payload_bytes) returns it unchanged.
    pub fn payload_str(&self) -> Result<&str, Utf8Error> {
        self.as_ref().payload_str()
    }

    /// Returns the bytes of the channel, without the final NUL.
    pub fn channel_bytes(&self) -> &[u8] {
        self.as_ref().channel_bytes()
    }

    /// Returns the bytes of the payload, without the final NUL.
    pub fn payload_bytes(&self) -> &[u8] {
        self.as_ref().payload_bytes()
    }

    /// Returns the id of the server process that sent the notification: `pg_backend_pid()` of the notifying session.
    #[doc(alias = "be_pid")]
    #[doc(alias = "process_id")]
    pub fn pid(&self) -> i32 {
        self.as_ref().pid()
    }

    /// Copies the notification out of the buffer that it shares with its batch, so that keeping it keeps only its own
    /// bytes in memory.
    #[must_use]
    pub fn detach(self) -> Self {
        match &self.0 {
            Held::Shared { buffer, start, end, .. } if end - start < offset(buffer.len()) => self.as_ref().to_owned(),
            _ => self,
        }
    }
}

/// Converts an offset in a read buffer, which is much smaller than 4 GiB.
#[inline]
pub(super) fn offset(place: usize) -> u32 {
    place as u32
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

impl Hash for Notification {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

/// Serializes `channel`, `payload` and `pid`. Bytes that are not UTF-8 are replaced, as by [`payload`](Self::payload).
#[cfg(feature = "json")]
impl serde::Serialize for Notification {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut notification = serializer.serialize_struct("Notification", 3)?;
        notification.serialize_field("channel", &self.channel())?;
        notification.serialize_field("payload", &self.payload())?;
        notification.serialize_field("pid", &self.pid())?;
        notification.end()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Slice;
    use super::super::tests::{batch, frame};
    use super::*;

    impl Notification {
        pub(crate) fn for_test(channel: &str, payload: &str) -> Self {
            let frame = frame(0, channel.as_bytes(), payload.as_bytes());
            NotificationRef { frame: &frame, channel_len: channel.len() }.to_owned()
        }
    }

    #[cfg(feature = "json")]
    #[test]
    fn a_notification_is_serialized_with_its_text() {
        let json = serde_json::to_string(&Notification::for_test("prices", "say \"é\"")).unwrap();
        assert_eq!(json, r#"{"channel":"prices","payload":"say \"é\"","pid":0}"#);
    }

    #[test]
    fn a_notification_has_the_size_of_a_cache_line() {
        assert_eq!((size_of::<Notification>(), size_of::<Option<Notification>>()), (64, 64));
    }

    #[test]
    fn owned_notifications_equal_the_borrowed_ones_for_every_length() {
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
    fn equal_notifications_have_equal_hashes_wherever_they_are_stored() {
        use std::collections::HashSet;
        for payload in [0, 50, 51, 6_000] {
            let frames = [frame(7, b"c", &vec![b'x'; payload]), frame(8, b"c", &vec![b'x'; payload])];
            let received: Vec<_> = batch(&frames).into_iter().collect();
            let mut seen: HashSet<_> = received.iter().cloned().collect();
            assert_eq!(seen.len(), 2, "another process is another notification");
            assert!(!seen.insert(received[0].clone().detach()));
            let borrowed: HashSet<_> = received.iter().map(Notification::as_ref).collect();
            assert!(borrowed.contains(&received[1].as_ref().to_owned().as_ref()));
        }
    }

    #[test]
    fn detached_and_short_notifications_share_no_buffer() {
        let long = vec![b'x'; 5000];
        let buffer: Arc<[u8]> =
            [frame(1, b"a", &long), frame(2, b"b", &long[..100]), frame(3, b"b", b"short")].concat().into();
        let mut slice = Slice::new(&buffer, 0, buffer.len(), 3, 0);
        let [first, second, short] = [(); 3].map(|()| slice.pop_front().unwrap());
        drop(slice);
        assert_eq!(Arc::strong_count(&buffer), 3, "the short one holds no share");
        assert_eq!(short.payload(), "short");
        let detached = second.clone().detach();
        assert_eq!(detached, second);
        drop((first, second));
        assert_eq!(Arc::strong_count(&buffer), 1);
        let Held::Shared { buffer, .. } = &detached.0 else { panic!("{detached:?}") };
        assert_eq!(buffer.len(), frame(2, b"b", &long[..100]).len());
    }
}
