//! Who subscribes to what, who is muted, and so what is to be listened to. Pure: no thread, no session, no clock.
//!
//! ```text
//!   channels × subscribers × mute ──▶ wanted: not muted, and added by name or with an unmuted subscriber
//! ```
//!
//! A call that fails changes nothing. Which channels may have become wanted or unwanted is noted until it is taken, so
//! that changes can be collected and carried out together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use crate::error::Error;

/// The channels and subscriptions of one database; `S` is what a subscription stands for.
#[derive(Debug)]
pub(crate) struct Registry<I, S> {
    channels: HashMap<Box<str>, Channel<I, S>>,
    /// Where each subscriber is found.
    channels_of: HashMap<I, BTreeSet<Box<str>>>,
    /// Which channels are to be looked at again.
    changed: BTreeSet<Box<str>>,
    last: u64,
}

#[derive(Debug)]
struct Channel<I, S> {
    /// Whether it was added by name, and so stays without a subscriber.
    added: bool,
    muted: bool,
    /// How many subscribers aren't muted.
    unmuted: usize,
    /// By the order in which they subscribed; and where each stands there.
    subscriptions: BTreeMap<u64, RegistryEntry<I, S>>,
    places: HashMap<I, u64>,
}

#[derive(Debug)]
pub(crate) struct RegistryEntry<I, S> {
    pub(crate) id: I,
    pub(crate) value: S,
    pub(crate) muted: bool,
}

impl<I, S> Default for Registry<I, S> {
    fn default() -> Self {
        Self { channels: HashMap::new(), channels_of: HashMap::new(), changed: BTreeSet::new(), last: 0 }
    }
}

impl<I, S> Default for Channel<I, S> {
    fn default() -> Self {
        Self { added: false, muted: false, unmuted: 0, subscriptions: BTreeMap::new(), places: HashMap::new() }
    }
}

impl<I, S> Channel<I, S> {
    fn is_wanted(&self) -> bool {
        !self.muted && (self.added || self.unmuted > 0)
    }
}

/// Changes.
impl<I: Clone + Eq + Hash, S> Registry<I, S> {
    /// Adds a channel by name; says whether it wasn't so before.
    pub(crate) fn add(&mut self, channel: &str) -> bool {
        let was_added = std::mem::replace(&mut self.channel(channel).added, true);
        !was_added
    }

    /// Takes back that a channel was added by name: without a subscriber it goes.
    pub(crate) fn withdraw(&mut self, channel: &str) {
        if let Some(it) = self.channels.get_mut(channel) {
            it.added = false;
            self.tidy(channel);
        }
    }

    /// Removes a channel with its subscriptions, which are given.
    pub(crate) fn remove(&mut self, channel: &str) -> Result<Vec<RegistryEntry<I, S>>, Error> {
        let removed = self.channels.remove(channel).ok_or_else(|| unknown_channel(channel))?;
        self.changed.insert(channel.into());
        let removed: Vec<_> = removed.subscriptions.into_values().collect();
        for subscription in &removed {
            self.forget(&subscription.id, channel);
        }
        Ok(removed)
    }

    /// Subscribes, which makes the channel where there is none. Gives what stood there for this id before.
    pub(crate) fn subscribe(&mut self, id: &I, channel: &str, value: S) -> Option<S> {
        self.last += 1;
        let place = self.last;
        let it = self.channel(channel);
        if let Some(subscription) = it.places.get(id).and_then(|place| it.subscriptions.get_mut(place)) {
            return Some(std::mem::replace(&mut subscription.value, value));
        }
        it.unmuted += 1;
        it.places.insert(id.clone(), place);
        it.subscriptions.insert(place, RegistryEntry { id: id.clone(), value, muted: false });
        self.channels_of.entry(id.clone()).or_default().insert(channel.into());
        None
    }

    /// Ends a subscription, and with the last one the channel, unless it was added by name.
    pub(crate) fn unsubscribe(&mut self, id: &I, channel: &str) -> Result<S, Error> {
        let it = self.channels.get_mut(channel).ok_or_else(|| unknown_channel(channel))?;
        let place = it.places.remove(id);
        let Some(ended) = place.and_then(|place| it.subscriptions.remove(&place)) else {
            return Err(Error::UnknownSubscriber { channel: Some(channel.into()) });
        };
        it.unmuted -= usize::from(!ended.muted);
        self.forget(id, channel);
        self.tidy(channel);
        Ok(ended.value)
    }

    /// Mutes or unmutes channels: all of them or, where one is unknown, none.
    pub(crate) fn mute_channels(&mut self, channels: &[&str], mute: bool) -> Result<(), Error> {
        channels.iter().try_for_each(|channel| self.check_known(channel))?;
        for channel in channels {
            self.channel(channel).muted = mute;
        }
        Ok(())
    }

    /// Mutes or unmutes a subscriber on these channels: on all of them or, where it isn't on one, on none.
    pub(crate) fn mute_subscriber(&mut self, id: &I, channels: &[&str], mute: bool) -> Result<(), Error> {
        let of_id = self.channels_of.get(id).ok_or(Error::UnknownSubscriber { channel: None })?;
        for channel in channels {
            self.check_known(channel)?;
            if !of_id.contains(*channel) {
                return Err(Error::UnknownSubscriber { channel: Some((*channel).into()) });
            }
        }
        for channel in channels {
            let it = self.channel(channel);
            let place = it.places.get(id);
            if let Some(subscription) = place.and_then(|place| it.subscriptions.get_mut(place))
                && std::mem::replace(&mut subscription.muted, mute) != mute
            {
                it.unmuted = if mute { it.unmuted - 1 } else { it.unmuted + 1 };
            }
        }
        Ok(())
    }

    /// Which channels may have become wanted or unwanted since this was last asked.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Box<str>> {
        std::mem::take(&mut self.changed)
    }

    /// Has a channel be among those that may have changed.
    pub(crate) fn mark_changed(&mut self, channel: &str) {
        self.changed.insert(channel.into());
    }

    /// A channel that is to be changed, made where there is none.
    fn channel(&mut self, channel: &str) -> &mut Channel<I, S> {
        self.changed.insert(channel.into());
        self.channels.entry(channel.into()).or_default()
    }

    /// Drops a channel that nobody wants by name and that has no subscriber.
    fn tidy(&mut self, channel: &str) {
        self.changed.insert(channel.into());
        if self.channels.get(channel).is_some_and(|it| !it.added && it.subscriptions.is_empty()) {
            self.channels.remove(channel);
        }
    }

    /// A subscriber isn't on this channel any more.
    fn forget(&mut self, id: &I, channel: &str) {
        if let Some(channels) = self.channels_of.get_mut(id) {
            channels.remove(channel);
            if channels.is_empty() {
                self.channels_of.remove(id);
            }
        }
    }
}

/// What there is.
impl<I: Clone + Eq + Hash, S> Registry<I, S> {
    /// Refuses a channel that isn't here.
    pub(crate) fn check_known(&self, channel: &str) -> Result<(), Error> {
        if self.channels.contains_key(channel) { Ok(()) } else { Err(unknown_channel(channel)) }
    }

    /// Whether a channel is to be listened to.
    pub(crate) fn is_wanted(&self, channel: &str) -> bool {
        self.channels.get(channel).is_some_and(Channel::is_wanted)
    }

    /// What is to be listened to.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &str> {
        self.channels.iter().filter(|(_, channel)| channel.is_wanted()).map(|(name, _)| &**name)
    }

    /// Who is to be called for a channel, in the order of their subscribing.
    pub(crate) fn audience(&self, channel: &str) -> impl Iterator<Item = &S> {
        let channel = self.channels.get(channel).filter(|channel| !channel.muted);
        let all = channel.into_iter().flat_map(|channel| channel.subscriptions.values());
        all.filter(|subscription| !subscription.muted).map(|subscription| &subscription.value)
    }

    /// All subscriptions of a channel.
    pub(crate) fn subscriptions(&self, channel: &str) -> impl Iterator<Item = &RegistryEntry<I, S>> {
        self.channels.get(channel).into_iter().flat_map(|channel| channel.subscriptions.values())
    }

    /// One subscription.
    pub(crate) fn get(&self, id: &I, channel: &str) -> Option<&RegistryEntry<I, S>> {
        let channel = self.channels.get(channel)?;
        channel.subscriptions.get(channel.places.get(id)?)
    }

    /// All channels, in the order of their names.
    pub(crate) fn channels(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.channels.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// Whether a channel is there, and is muted.
    pub(crate) fn is_muted(&self, channel: &str) -> bool {
        self.channels.get(channel).is_some_and(|channel| channel.muted)
    }

    /// The channels of one subscriber; none for one who isn't here.
    pub(crate) fn channels_of(&self, id: &I) -> Option<&BTreeSet<Box<str>>> {
        self.channels_of.get(id)
    }

    /// How many subscribers there are.
    pub(crate) fn subscribers(&self) -> usize {
        self.channels_of.len()
    }
}

fn unknown_channel(channel: &str) -> Error {
    Error::UnknownChannel { channel: channel.into() }
}
