//! Notifications, borrowed or owned, and the batches that contain them.
//!
//! ```text
//!   Batch ──&──▶ NotificationRef     a look at the bytes that were read: nothing copied, allocated or counted
//!         ────▶ Notification         owned: a copy in place if it is short, else a share in those bytes
//! ```
//!
//! [`frames`] finds where a frame ends and the next begins. Text is validated as UTF-8 only when a method returns it as
//! text.

mod batch;
mod frames;
mod owned;

use std::borrow::Cow;
use std::fmt;
use std::str::Utf8Error;

pub(crate) use self::batch::Slice;
pub use self::batch::{Batch, IntoIter, Iter};
pub(crate) use self::frames::{
    NOTIFICATION, NOTIFICATION_MAX, channel_in, channel_len, notifications_in, payload_in, pid_in, run_like,
};
pub use self::owned::Notification;

/// A notification that borrows from its [`Batch`].
///
/// ```no_run
/// # let batch: notifyman::Batch = unimplemented!();
/// for n in &batch {
///     println!("{} {} from process {}", n.channel(), n.payload(), n.pid());
/// }
/// ```
#[derive(Clone, Copy)]
#[doc(alias = "PGnotify")]
pub struct NotificationRef<'b> {
    /// The complete frame, validated when it was received.
    frame: &'b [u8],
    channel_len: usize,
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

impl PartialEq for NotificationRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.channel_len == other.channel_len && self.frame == other.frame
    }
}

impl Eq for NotificationRef<'_> {}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;

    pub(crate) fn frame(pid: i32, channel: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![NOTIFICATION];
        frame.extend((4 + 4 + channel.len() as u32 + 1 + payload.len() as u32 + 1).to_be_bytes());
        frame.extend(pid.to_be_bytes());
        frame.extend(channel);
        frame.push(0);
        frame.extend(payload);
        frame.push(0);
        frame
    }

    pub(crate) fn batch(frames: &[Vec<u8>]) -> Batch {
        let buffer: Arc<[u8]> = frames.concat().into();
        let len = frames.iter().filter(|f| f[0] == NOTIFICATION).count();
        Slice::new(&buffer, 0, buffer.len(), len, 0).into()
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
    fn a_channel_that_is_a_prefix_of_the_last_one_is_distinguished() {
        let batch = batch(&[frame(1, b"ab", b""), frame(1, b"a", b"b"), frame(1, b"abc", b""), frame(1, b"", b"x")]);
        let channels: Vec<_> = batch.iter().map(|n| n.channel().into_owned()).collect();
        assert_eq!(channels, ["ab", "a", "abc", ""]);
    }

    #[test]
    fn an_inner_nul_stays_in_the_payload() {
        let batch = batch(&[frame(1, b"a", b"x\0y")]);
        assert_eq!(batch.iter().next().unwrap().payload_bytes(), b"x\0y");
    }

    #[test]
    fn c10_invalid_utf8_is_returned_raw_or_lossy_or_as_an_error() {
        let batch = batch(&[frame(1, b"caf\xe9", b"\xff!")]);
        let n = batch.iter().next().unwrap();
        assert_eq!(n.channel_bytes(), b"caf\xe9");
        assert_eq!(n.channel(), "caf\u{fffd}");
        assert_eq!(n.payload_bytes(), b"\xff!");
        assert_eq!(n.payload(), "\u{fffd}!");
        assert!(n.payload_str().is_err());
    }
}
