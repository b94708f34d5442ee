//! The payload of the demonstration's notifications: a stale row of a cache, a sequence number, and the time of sending.

use std::fmt;

/// A payload, formatted as `stale prices:4711 #17 @123456`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DemoMessage<'a> {
    pub(crate) table: &'a str,
    pub(crate) row: u64,
    /// The sequence number, from 1 on each server.
    pub(crate) number: u64,
    /// The time in microseconds since the writers started.
    pub(crate) sent_at: u64,
}

impl fmt::Display for DemoMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stale {}:{} #{} @{}", self.table, self.row, self.number, self.sent_at)
    }
}

impl<'a> DemoMessage<'a> {
    pub(crate) fn parse(payload: &'a str) -> Option<Self> {
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
    fn a_formatted_message_can_be_parsed() {
        let message = DemoMessage { table: "prices", row: 4711, number: 17, sent_at: 123_456 };
        assert_eq!(message.to_string(), "stale prices:4711 #17 @123456");
        assert_eq!(DemoMessage::parse(&message.to_string()), Some(message));
        for other in ["", "stale", "stale prices:1 #2", "stale prices #2 @3", "stale prices:x #2 @3"] {
            assert_eq!(DemoMessage::parse(other), None, "{other}");
        }
    }
}
