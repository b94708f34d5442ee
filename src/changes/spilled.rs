//! Payloads that were too long for NOTIFY, and are read from the table `spilled`.
//!
//! A notification then only refers to its payload by number. While the payload is being read, later notifications of the
//! same database are held in the queue, so that the order is kept.

use super::context::LoopContext;
use super::payload::ChangePayload;
use super::queue::QueueItem;
use crate::row::Row;

/// The most bytes of a notification that refers to a spilled payload. It contains only names.
const REFERENCE_MAX: usize = 7_999;

/// A spilled payload that is being read.
#[derive(Debug)]
struct SpilledRead {
    number: i64,
    /// The notification that refers to the payload.
    reference: Box<[u8]>,
    is_requested: bool,
}

/// Adds the notifications of one database to the queue, with spilled payloads in place of the references to them.
#[derive(Debug, Default)]
pub(crate) struct SpilledReader {
    current: Option<SpilledRead>,
}

impl SpilledReader {
    /// Returns `true` if no payload is being read.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// Adds a notification to the queue. A reference to a spilled payload is kept, and later notifications are held.
    pub(crate) fn push(&mut self, payload: &[u8], cx: &LoopContext) {
        // Held payloads are examined when they are released.
        let number = if self.is_idle() { spilled_number(payload, cx) } else { None };
        match number {
            Some(number) => {
                cx.queue.hold(cx.database);
                self.begin(number, payload.into());
            }
            None => cx.push(QueueItem::Notified(payload.into())),
        }
    }

    fn begin(&mut self, number: i64, reference: Box<[u8]>) {
        self.current = Some(SpilledRead { number, reference, is_requested: false });
    }

    /// Returns the number of the payload that must be requested now, and counts it as requested.
    pub(crate) fn next_request(&mut self, cx: &LoopContext) -> Option<i64> {
        let current = self.current.as_mut().filter(|current| !current.is_requested)?;
        cx.queue.room()?;
        current.is_requested = true;
        Some(current.number)
    }

    /// Releases the payload that was read, or the reference if there is no row, and the held items up to the next reference.
    pub(crate) fn handle_reply(&mut self, number: i64, row: Option<&Row>, cx: &LoopContext) {
        if let Some(current) = self.current.take_if(|current| current.number == number) {
            let payload = row.and_then(|row| row.get_bytes(0)).map_or(current.reference, Box::from);
            self.release(payload, cx);
        }
    }

    /// Makes the request due again, because the session was lost.
    pub(crate) fn handle_lost(&mut self) {
        if let Some(current) = &mut self.current {
            current.is_requested = false;
        }
    }

    /// Releases all held items, with references in place of the payloads that have not been read.
    pub(crate) fn release_all(&mut self, cx: &LoopContext) {
        while let Some(current) = self.current.take() {
            self.release(current.reference, cx);
        }
    }

    fn release(&mut self, payload: Box<[u8]>, cx: &LoopContext) {
        cx.queue.release(cx.database, QueueItem::Notified(payload));
        while let Some(item) = cx.queue.take_held(cx.database) {
            if let QueueItem::Notified(payload) = &item
                && let Some(number) = spilled_number(payload, cx)
            {
                return self.begin(number, payload.clone());
            }
            cx.queue.release(cx.database, item);
        }
    }
}

/// Returns the number of the spilled payload to which a notification refers, if its table passes the filter.
fn spilled_number(payload: &[u8], cx: &LoopContext) -> Option<i64> {
    const MARK: &[u8] = b"\"spilled\":true";
    if payload.len() > REFERENCE_MAX || !payload.windows(MARK.len()).any(|part| part == MARK) {
        return None;
    }
    match ChangePayload::parse(payload) {
        Ok(ChangePayload::Change(change)) if change.spilled && cx.filter.accepts_change(&change) => Some(change.number),
        _ => None,
    }
}
