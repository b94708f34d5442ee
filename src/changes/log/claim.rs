//! The claim to a reader's name, which one session at a time has.

use super::action::LogAction;
use super::queries::WAITING;

/// The name under which a position is kept, if any, and the state of its claim.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(super) struct NameClaim {
    pub(super) name: Option<String>,
    is_claimed: bool,
    /// `true` if the reader that has the name must receive a report.
    must_report: bool,
    has_waited: bool,
    /// The process of the last session of this reader that had the name.
    backend: Option<i32>,
}

impl NameClaim {
    pub(super) fn new(name: Option<String>) -> Self {
        Self { name, ..Self::default() }
    }

    /// Returns `true` if the session needs no name, or has it.
    pub(super) fn is_settled(&self) -> bool {
        self.name.is_none() || self.is_claimed
    }

    /// Returns the next action, which must precede all others.
    pub(super) fn next_action(&mut self) -> Option<LogAction> {
        let name = self.name.clone().filter(|_| !self.is_claimed)?;
        Some(match std::mem::take(&mut self.must_report) {
            true => LogAction::ReportWaiting(name),
            false => LogAction::Claim(name, self.backend),
        })
    }

    /// Records that this session has the name.
    pub(super) fn handle_claimed(&mut self, backend: i32) {
        (self.is_claimed, self.has_waited, self.backend) = (true, false, Some(backend));
    }

    /// Records that another session has the name. Returns the warning, and whether that session must receive a report first.
    pub(super) fn handle_refused(&mut self, holder: &str) -> (String, bool) {
        self.must_report = !std::mem::replace(&mut self.has_waited, true);
        let name = self.name.as_deref().unwrap_or_default();
        let warning = format!(
            "another worker of the name {name:?} is running ({holder}), and this one waits until it ends. Give each a name of its \
             own, unless one takes over from the other"
        );
        (warning, self.must_report)
    }

    /// Handles a message between readers of one name, and returns a warning if it is for this one. Returns `None` for other
    /// messages.
    pub(super) fn handle_message(&self, payload: &str) -> Option<Option<String>> {
        let name = payload.strip_prefix(WAITING)?;
        let is_own = self.is_claimed && self.name.as_deref() == Some(name);
        let warning = is_own.then(|| {
            format!(
                "another worker of the name {name:?} waits until this one ends. Give each a name of its own, unless one takes \
                 over from the other"
            )
        });
        Some(warning)
    }

    /// Records that the session was lost, and the name with it.
    pub(super) fn handle_lost(&mut self) {
        self.is_claimed = false;
    }
}
