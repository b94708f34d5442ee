//! Requests of users that change or read the channels of a database.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::error::Error;
use crate::manager::Ticket;
use crate::notifier::database::{Database, DatabaseSession};
use crate::notifier::deferred::steps::STEP;
use crate::notifier::receivers::ReceiverSnapshot;
use crate::notifier::shared::NotifierCore;
use crate::notifier::source::SourceHandle;
use crate::notifier::subscription::{Subscription, SubscriptionTarget};

/// Subscribes a callback, and waits until the server has acknowledged its channel. After an error, nothing is subscribed.
pub(crate) fn subscribe<I: Clone + Eq + Hash + Send + 'static>(
    core: &Arc<NotifierCore<I>>,
    at: usize,
    id: &I,
    channel: &str,
    target: SubscriptionTarget<I>,
) -> Result<(), Error> {
    if core.is_own_thread() {
        return Err(Error::InsideCallback { instead: "use subscribe_ticket" });
    }
    let (undo, mut ticket) = core.subscribe(at, id, channel, target)?;
    let timeout = core.read(at, |database| database.config.get_call_timeout()).flatten();
    let result = ticket.wait(timeout).map_err(|error| match error {
        Error::Timeout { .. } => {
            let (action, closed) = core.read(at, awaited).unwrap_or(("opening the session", true));
            Error::Timeout { action, after: timeout.unwrap_or_default(), closed }
        }
        other => other,
    });
    match result {
        Ok(()) => drop(undo),
        Err(_) => core.revert(at, channel, undo),
    }
    core.context.deferred_drop.drop_all();
    result
}

/// Returns what a subscription waits for, and `true` if the session is not open.
fn awaited<I>(database: &Database<I>) -> (&'static str, bool) {
    match database.session {
        DatabaseSession::Open(_) => ("acknowledging the channel", false),
        _ if database.was_open => ("restoring the session", true),
        _ => ("opening the session", true),
    }
}

/// Removes a subscription. The ticket resolves once the server has acknowledged that the channel is not listened to, if
/// nothing else wants the channel.
pub(crate) fn unsubscribe<I: Clone + Eq + Hash + Send + 'static>(
    core: &Arc<NotifierCore<I>>,
    at: usize,
    id: &I,
    channel: &str,
) -> Result<Ticket<()>, Error> {
    core.change(|state, actions| {
        state.database(at)?.subscriptions.unsubscribe(id, channel)?;
        let mut session = None;
        if state.is_autorun {
            core.sync(state, at, actions);
            let database = state.database(at)?;
            session = database.session.id().filter(|_| !database.subscriptions.registry.is_wanted(channel));
        }
        Ok(match (&state.handle, session) {
            // The channel may have been unlistened before. Under the lock, this comes before any later LISTEN.
            (Some(SourceHandle::Manager(handle)), Some(session)) => handle.unlisten(session, [channel]),
            _ => Ticket::resolved(&core.threads, Ok(())),
        })
    })
}

/// Removes channels with their subscriptions: all of them, or after an error none.
pub(crate) fn remove_channels<I: Clone + Eq + Hash + Send + 'static>(
    core: &Arc<NotifierCore<I>>,
    at: usize,
    names: &[&str],
) -> Result<(), Error> {
    core.change_database(at, |database, actions| {
        names.iter().try_for_each(|channel| database.subscriptions.registry.check_known(channel))?;
        // All are known; one that is named twice is unknown the second time.
        for channel in names {
            let _ = database.remove(channel, actions);
        }
        Ok(())
    })
}

/// Mutes or unmutes channels, or one subscriber's subscriptions to them.
pub(crate) fn set_muted<I: Clone + Eq + Hash + Send + 'static>(
    core: &Arc<NotifierCore<I>>,
    at: usize,
    only: Option<&I>,
    names: &[&str],
    mute: bool,
) -> Result<Ticket<()>, Error> {
    let muted = core.change_and_wait(at, |database, actions| {
        let registry = &mut database.subscriptions.registry;
        match only {
            Some(id) => registry.mute_subscriber(id, names, mute)?,
            None => registry.mute_channels(names, mute)?,
        }
        names.iter().for_each(|channel| database.refresh(channel, only, actions));
        Ok(((), names.iter().map(|channel| ((*channel).into(), None)).collect()))
    });
    muted.map(|((), ticket)| ticket)
}

/// Returns the ids of the subscribers of each channel, or of the muted ones.
pub(crate) fn ids<I: Clone + Eq + Hash + Send + 'static>(
    core: &NotifierCore<I>,
    at: usize,
    are_muted: bool,
) -> BTreeMap<String, Vec<I>> {
    let channels = core.read(at, |database| database.subscriptions.receivers()).unwrap_or_default();
    let ids_on = |(channel, receivers): (String, ReceiverSnapshot<Subscription<I>>)| {
        let mut ids: Vec<I> = receivers.iter().map(|subscription| subscription.id()).collect();
        if are_muted {
            let is_muted = |database: &Database<I>, id: &I| {
                database.subscriptions.registry.get(id, &channel).is_some_and(|entry| entry.is_muted)
            };
            let muted = |ids: &[I]| {
                core.read(at, |database| ids.iter().filter(|id| is_muted(database, id)).cloned().collect::<Vec<_>>())
            };
            ids = ids.chunks(STEP).filter_map(muted).flatten().collect();
        }
        Some((channel, ids)).filter(|(_, ids)| !ids.is_empty())
    };
    let ids = channels.into_iter().filter_map(ids_on).collect();
    // A snapshot may have held the last reference to a subscription.
    core.context.deferred_drop.drop_all();
    ids
}
