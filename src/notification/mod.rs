//! Notifications, borrowed or owned, and the batches that contain them.
//!
//! ```text
//!   Batch ──&──▶ NotificationRef     a view of the read buffer, without a copy or an allocation
//!         ────▶ Notification         owned: an inline copy if it is short, otherwise a shared buffer
//! ```
//!
//! [`frames`] finds where a frame ends and the next begins. Text is validated as UTF-8 only when a method returns it as
//! text.

mod batch;
mod frames;
mod single;
mod walk;

pub(crate) use self::batch::Slice;
pub use self::batch::{Batch, IntoIter, Iter};
pub(crate) use self::frames::{NOTIFICATION, NOTIFICATION_MAX, channel_in, channel_len, payload_in, pid_in, run_like};
pub use self::single::{Notification, NotificationRef};
pub(crate) use self::walk::notifications_in;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    pub(super) use super::frames::frame;
    use super::*;

    pub(super) fn batch(frames: &[Vec<u8>]) -> Batch {
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

    #[cfg(feature = "stream")]
    #[test]
    fn a_detached_batch_owns_exactly_its_bytes() {
        let frames: Vec<_> = (0..100).map(|pid| frame(pid, b"a", &[b'x'; 100])).collect();
        let buffer: Arc<[u8]> = [frames.concat(), vec![0; 1000]].concat().into();
        let shared: Batch = Slice::new(&buffer, 0, frames.concat().len(), 100, 0).into();
        assert_eq!(Arc::strong_count(&buffer), 2);
        let detached = shared.detach();
        assert_eq!(Arc::strong_count(&buffer), 1);
        assert_eq!(detached.byte_len(), frames.concat().len());
        assert_eq!(detached.iter().map(|n| n.pid()).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
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
