//! Two marks of a conversation in one byte: another one would make each idle connection 8 bytes larger.

/// Another transaction has begun.
const NEW_TRANSACTION: u8 = 1;
/// Channels that are not listened to any more are kept until they are taken.
const TRACKS_UNLISTENS: u8 = 2;

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct ConversationMarks(u8);

impl ConversationMarks {
    fn set(&mut self, mark: u8, is_set: bool) {
        self.0 = self.0 & !mark | if is_set { mark } else { 0 };
    }

    pub(super) fn note_transaction(&mut self, has_begun: bool) {
        self.0 |= if has_begun { NEW_TRANSACTION } else { 0 };
    }

    /// Returns `true` if another transaction has begun since the last call.
    pub(super) fn take_new_transaction(&mut self) -> bool {
        let is_new = self.0 & NEW_TRANSACTION != 0;
        self.set(NEW_TRANSACTION, false);
        is_new
    }

    pub(super) fn track_unlistens(&mut self, tracks: bool) {
        self.set(TRACKS_UNLISTENS, tracks);
    }

    pub(super) fn tracks_unlistens(self) -> bool {
        self.0 & TRACKS_UNLISTENS != 0
    }
}
