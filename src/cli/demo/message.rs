//! What a notification of the demonstration says: which row of a cache is stale, which number the notification has on
//! its server, and when it was sent.

use std::fmt;

/// Written as `stale prices:4711 #17 @123456`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) table: &'a str,
    pub(crate) row: u64,
    /// Counted from 1 on each server.
    pub(crate) number: u64,
    /// In microseconds since the demonstration began.
    pub(crate) sent_at: u64,
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stale {}:{} #{} @{}", self.table, self.row, self.number, self.sent_at)
    }
}

impl<'a> Message<'a> {
    pub(crate) fn read(payload: &'a str) -> Option<Self> {
        let (row, rest) = payload.strip_prefix("stale ")?.split_once(" #")?;
        let (number, sent_at) = rest.split_once(" @")?;
        let (table, row) = row.split_once(':')?;
        Some(Self { table, row: row.parse().ok()?, number: number.parse().ok()?, sent_at: sent_at.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let message = Message { table: "prices", row: 4711, number: 17, sent_at: 123_456 };
        assert_eq!(message.to_string(), "stale prices:4711 #17 @123456");
        assert_eq!(Message::read(&message.to_string()), Some(message));
        for other in ["", "stale", "stale prices:1 #2", "stale prices #2 @3", "stale prices:x #2 @3"] {
            assert_eq!(Message::read(other), None, "{other}");
        }
    }
}
