//! `Debug` of a connection: its state on one line, without the names of its channels, of which there may be thousands.

use std::fmt::{self, Debug, DebugStruct, Formatter};

use crate::connection::link::Link;
use crate::net::Transport;

/// Adds the state of a link to a description.
pub(crate) fn describe_link<S: Transport>(link: &Link<S>, entry: &mut DebugStruct<'_, '_>) {
    entry
        .field("to", &format_args!("{}", link.config()))
        .field("pid", &link.pid())
        .field("session", &link.session().phase())
        .field("channels", &link.channels().count())
        .field("transaction", &link.transaction_status())
        .field("unanswered", &link.session().unanswered())
        .field("undelivered", &link.backlog_len());
    if let Some(gap) = link.history().gap().or(link.history().relistening()) {
        entry.field("gap_channels", &gap.channels().len());
    }
    if let Some(error) = link.error() {
        entry.field("error", &format_args!("{error}"));
    }
}

impl<S: Transport> Debug for Link<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut entry = f.debug_struct("Link");
        describe_link(self, &mut entry);
        entry.finish()
    }
}
