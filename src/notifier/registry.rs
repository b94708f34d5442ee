//! The channels and subscriptions of one database, with their mutes, and so the channels to listen to. Pure: no thread,
//! session or clock.
//!
//! ```text
//!   channels × subscribers × mute ──▶ wanted: not muted, and added by name or with an unmuted subscriber
//! ```
//!
//! A call that fails changes nothing. Channels that may have become wanted or unwanted are recorded until they are taken,
//! so that changes can be collected and applied together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use crate::error::Error;

/// The channels and subscriptions of one database; `S` is the value of a subscription.
#[derive(Debug)]
pub(crate) struct Registry<I, S> {
    channels: HashMap<Box<str>, RegisteredChannel<I, S>>,
    /// The channels of each subscriber.
    channels_of: HashMap<I, BTreeSet<Box<str>>>,
    /// Channels that may have become wanted or unwanted.
    changed: BTreeSet<Box<str>>,
    last_position: u64,
}

#[derive(Debug)]
struct RegisteredChannel<I, S> {
    /// The channel was added by name, and so stays without a subscriber.
    is_added: bool,
    is_muted: bool,
    /// The number of subscribers that are not muted.
    unmuted: usize,
    /// By position, which is the order in which they subscribed.
    subscriptions: BTreeMap<u64, RegistryEntry<I, S>>,
    positions: HashMap<I, u64>,
}

#[derive(Debug)]
pub(crate) struct RegistryEntry<I, S> {
    pub(crate) id: I,
    pub(crate) value: S,
    pub(crate) is_muted: bool,
}

impl<I, S> Default for Registry<I, S> {
    fn default() -> Self {
        Self { channels: HashMap::new(), channels_of: HashMap::new(), changed: BTreeSet::new(), last_position: 0 }
    }
}

impl<I, S> Default for RegisteredChannel<I, S> {
    fn default() -> Self {
        Self { is_added: false, is_muted: false, unmuted: 0, subscriptions: BTreeMap::new(), positions: HashMap::new() }
    }
}

impl<I, S> RegisteredChannel<I, S> {
    fn is_wanted(&self) -> bool {
        !self.is_muted && (self.is_added || self.unmuted > 0)
    }
}

impl<I: Clone + Eq + Hash, S> Registry<I, S> {
    /// Adds a channel by name. Returns `false` if it had been added before.
    pub(crate) fn add(&mut self, channel: &str) -> bool {
        let was_added = std::mem::replace(&mut self.channel(channel).is_added, true);
        !was_added
    }

    /// Reverts [`add`](Self::add): without a subscriber the channel is removed.
    pub(crate) fn revert_add(&mut self, channel: &str) {
        if let Some(it) = self.channels.get_mut(channel) {
            it.is_added = false;
            self.remove_if_unused(channel);
        }
    }

    /// Removes a channel, and returns its subscriptions.
    pub(crate) fn remove(&mut self, channel: &str) -> Result<Vec<RegistryEntry<I, S>>, Error> {
        let removed = self.channels.remove(channel).ok_or_else(|| unknown_channel(channel))?;
        self.changed.insert(channel.into());
        let removed: Vec<_> = removed.subscriptions.into_values().collect();
        for subscription in &removed {
            self.remove_from_index(&subscription.id, channel);
        }
        Ok(removed)
    }

    /// Subscribes, and creates the channel if there is none. Returns the value that is replaced.
    pub(crate) fn subscribe(&mut self, id: &I, channel: &str, value: S) -> Option<S> {
        self.last_position += 1;
        let position = self.last_position;
        let it = self.channel(channel);
        if let Some(subscription) = it.positions.get(id).and_then(|position| it.subscriptions.get_mut(position)) {
            return Some(std::mem::replace(&mut subscription.value, value));
        }
        it.unmuted += 1;
        it.positions.insert(id.clone(), position);
        it.subscriptions.insert(position, RegistryEntry { id: id.clone(), value, is_muted: false });
        self.channels_of.entry(id.clone()).or_default().insert(channel.into());
        None
    }

    /// Removes a subscription, and with the last one the channel, unless it was added by name. Returns its value.
    pub(crate) fn unsubscribe(&mut self, id: &I, channel: &str) -> Result<S, Error> {
        let it = self.channels.get_mut(channel).ok_or_else(|| unknown_channel(channel))?;
        let position = it.positions.remove(id);
        let Some(removed) = position.and_then(|position| it.subscriptions.remove(&position)) else {
            return Err(Error::UnknownSubscriber { channel: Some(channel.into()) });
        };
        it.unmuted -= usize::from(!removed.is_muted);
        self.remove_from_index(id, channel);
        self.remove_if_unused(channel);
        Ok(removed.value)
    }

    /// Mutes or unmutes channels: all of them or, if one is unknown, none.
    pub(crate) fn mute_channels(&mut self, channels: &[&str], mute: bool) -> Result<(), Error> {
        channels.iter().try_for_each(|channel| self.check_known(channel))?;
        for channel in channels {
            self.channel(channel).is_muted = mute;
        }
        Ok(())
    }

    /// Mutes or unmutes a subscriber on these channels: on all of them or, if it does not subscribe to one, on none.
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
            let position = it.positions.get(id);
            if let Some(subscription) = position.and_then(|position| it.subscriptions.get_mut(position))
                && std::mem::replace(&mut subscription.is_muted, mute) != mute
            {
                it.unmuted = if mute { it.unmuted - 1 } else { it.unmuted + 1 };
            }
        }
        Ok(())
    }

    /// Takes the channels that may have become wanted or unwanted since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Box<str>> {
        std::mem::take(&mut self.changed)
    }

    /// Adds a channel to those that may have changed.
    pub(crate) fn mark_changed(&mut self, channel: &str) {
        self.changed.insert(channel.into());
    }

    /// Returns a channel to change, and creates it if there is none.
    fn channel(&mut self, channel: &str) -> &mut RegisteredChannel<I, S> {
        self.changed.insert(channel.into());
        self.channels.entry(channel.into()).or_default()
    }

    /// Removes a channel that has no subscriber and was not added by name.
    fn remove_if_unused(&mut self, channel: &str) {
        self.changed.insert(channel.into());
        if self.channels.get(channel).is_some_and(|it| !it.is_added && it.subscriptions.is_empty()) {
            self.channels.remove(channel);
        }
    }

    fn remove_from_index(&mut self, id: &I, channel: &str) {
        if let Some(channels) = self.channels_of.get_mut(id) {
            channels.remove(channel);
            if channels.is_empty() {
                self.channels_of.remove(id);
            }
        }
    }

    /// Checks that a channel exists.
    pub(crate) fn check_known(&self, channel: &str) -> Result<(), Error> {
        if self.channels.contains_key(channel) { Ok(()) } else { Err(unknown_channel(channel)) }
    }

    /// Returns `true` if the channel must be listened to.
    pub(crate) fn is_wanted(&self, channel: &str) -> bool {
        self.channels.get(channel).is_some_and(RegisteredChannel::is_wanted)
    }

    /// Returns the channels that must be listened to.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &str> {
        self.channels.iter().filter(|(_, channel)| channel.is_wanted()).map(|(name, _)| &**name)
    }

    /// Returns the unmuted subscriptions of an unmuted channel, in the order in which they were made.
    pub(crate) fn receivers(&self, channel: &str) -> impl Iterator<Item = &S> {
        let channel = self.channels.get(channel).filter(|channel| !channel.is_muted);
        let all = channel.into_iter().flat_map(|channel| channel.subscriptions.values());
        all.filter(|subscription| !subscription.is_muted).map(|subscription| &subscription.value)
    }

    /// Returns all subscriptions of a channel.
    pub(crate) fn subscriptions(&self, channel: &str) -> impl Iterator<Item = &RegistryEntry<I, S>> {
        self.channels.get(channel).into_iter().flat_map(|channel| channel.subscriptions.values())
    }

    pub(crate) fn get(&self, id: &I, channel: &str) -> Option<&RegistryEntry<I, S>> {
        let channel = self.channels.get(channel)?;
        channel.subscriptions.get(channel.positions.get(id)?)
    }

    /// Returns all channels, sorted.
    pub(crate) fn channels(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.channels.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// Returns `true` if the channel exists and is muted.
    pub(crate) fn is_muted(&self, channel: &str) -> bool {
        self.channels.get(channel).is_some_and(|channel| channel.is_muted)
    }

    /// Returns the channels of a subscriber, or `None` for an unknown one.
    pub(crate) fn channels_of(&self, id: &I) -> Option<&BTreeSet<Box<str>>> {
        self.channels_of.get(id)
    }

    /// Returns the number of subscribers.
    pub(crate) fn subscribers(&self) -> usize {
        self.channels_of.len()
    }
}

fn unknown_channel(channel: &str) -> Error {
    Error::UnknownChannel { channel: channel.into() }
}
