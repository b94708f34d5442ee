//! What comes out: notifications, borrowed or owned, and the batch that carries them.
//!
//! ```text
//!   Batch ──&──▶ NotificationRef     a look at the bytes that were read: nothing copied, allocated or counted
//!         ────▶ Notification         owned: a copy in place if it is short, else a share in those bytes
//! ```
//!
//! What they stand on is `frames`: where one ends and the next begins. Text is checked as UTF-8 only when it is asked for.

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
    #[inline]
    pub fn payload_str(&self) -> Result<&'b str, Utf8Error> {
        std::str::from_utf8(self.payload_bytes())
    }

    /// The channel's bytes, without the NUL that ends them.
    #[inline]
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
}
