//! The channels and subscriptions of one database, with their mutes, and so the channels to listen to. Pure: no thread,
//! session or clock.
//!
//! ```text
//!   channels × subscribers × mute ──▶ wanted: not muted, and added by name or with an unmuted subscriber
//! ```
//!
//! A call that fails changes nothing. Channels that may have become wanted or unwanted are recorded until they are taken,
//! so that changes can be collected and applied together.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use crate::error::Error;
use crate::notifier::place_list::PlaceList;
use crate::notifier::subscriber_index::SubscriberIndex;

/// The channels and subscriptions of one database; `S` is the value of a subscription.
#[derive(Debug)]
pub(crate) struct Registry<I, S> {
    channels: RegisteredChannels<I, S>,
    subscribers: SubscriberIndex<I>,
    /// Channels that may have become wanted or unwanted.
    changed: BTreeSet<Box<str>>,
}

/// Channels, each with a number that is its own while it exists.
#[derive(Debug)]
struct RegisteredChannels<I, S> {
    by_name: HashMap<Arc<str>, RegisteredChannel<I, S>>,
    names: HashMap<u32, Arc<str>>,
    last_number: u32,
}

#[derive(Debug)]
struct RegisteredChannel<I, S> {
    number: u32,
    /// The channel was added by name, and so stays without a subscriber.
    is_added: bool,
    is_muted: bool,
    /// In the order in which they were made.
    subscriptions: PlaceList<(I, S)>,
    muted: HashSet<I>,
}

/// A subscription in the registry.
#[derive(Debug)]
pub(crate) struct RegistryEntry<'r, S> {
    pub(crate) value: &'r S,
    pub(crate) is_muted: bool,
}

impl<I, S> Default for Registry<I, S> {
    fn default() -> Self {
        let channels = RegisteredChannels { by_name: HashMap::new(), names: HashMap::new(), last_number: 0 };
        Self { channels, subscribers: SubscriberIndex::default(), changed: BTreeSet::new() }
    }
}

impl<I, S> RegisteredChannels<I, S> {
    /// Returns a channel, and creates it if there is none.
    fn get_or_create(&mut self, name: &str) -> &mut RegisteredChannel<I, S> {
        self.by_name.entry(name.into()).or_insert_with_key(|name| {
            while self.names.contains_key(&self.last_number) {
                self.last_number = self.last_number.wrapping_add(1);
            }
            self.names.insert(self.last_number, Arc::clone(name));
            RegisteredChannel {
                number: self.last_number,
                is_added: false,
                is_muted: false,
                subscriptions: PlaceList::default(),
                muted: HashSet::new(),
            }
        })
    }

    fn remove(&mut self, name: &str) -> Option<RegisteredChannel<I, S>> {
        let removed = self.by_name.remove(name)?;
        self.names.remove(&removed.number);
        Some(removed)
    }
}

impl<I: Eq + Hash, S> RegisteredChannel<I, S> {
    fn is_wanted(&self) -> bool {
        !self.is_muted && (self.is_added || self.subscriptions.len() > self.muted.len())
    }

    fn entry<'r>(&self, (id, value): &'r (I, S)) -> RegistryEntry<'r, S> {
        RegistryEntry { value, is_muted: self.muted.contains(id) }
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
        if let Some(it) = self.channels.by_name.get_mut(channel) {
            it.is_added = false;
            self.remove_if_unused(channel);
        }
    }

    /// Removes a channel, and returns its subscriptions.
    pub(crate) fn remove(&mut self, channel: &str) -> Result<Vec<(I, S)>, Error> {
        let removed = self.channels.remove(channel).ok_or_else(|| unknown_channel(channel))?;
        self.changed.insert(channel.into());
        for (id, _) in removed.subscriptions.iter() {
            self.subscribers.remove(id, removed.number);
        }
        Ok(removed.subscriptions.into_values().collect())
    }

    /// Subscribes, and creates the channel if there is none. Returns the value that is replaced.
    pub(crate) fn subscribe(&mut self, id: &I, channel: &str, value: S) -> Option<S> {
        self.changed.insert(channel.into());
        let it = self.channels.get_or_create(channel);
        let place = self.subscribers.get(id, it.number);
        if let Some((_, before)) = place.and_then(|place| it.subscriptions.get_mut(place)) {
            return Some(std::mem::replace(before, value));
        }
        self.subscribers.insert(id, it.number, it.subscriptions.add((id.clone(), value)));
        None
    }

    /// Removes a subscription, and with the last one the channel, unless it was added by name. Returns its value.
    pub(crate) fn unsubscribe(&mut self, id: &I, channel: &str) -> Result<S, Error> {
        let it = self.channels.by_name.get_mut(channel).ok_or_else(|| unknown_channel(channel))?;
        let place = self.subscribers.remove(id, it.number);
        let move_to = |(id, _): &(I, S), place| self.subscribers.insert(id, it.number, place);
        let Some((_, value)) = place.and_then(|place| it.subscriptions.remove(place, move_to)) else {
            return Err(Error::UnknownSubscriber { channel: Some(channel.into()) });
        };
        it.muted.remove(id);
        self.remove_if_unused(channel);
        Ok(value)
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
        if !self.subscribers.contains(id) {
            return Err(Error::UnknownSubscriber { channel: None });
        }
        for channel in channels {
            let it = self.channels.by_name.get(*channel).ok_or_else(|| unknown_channel(channel))?;
            if self.subscribers.get(id, it.number).is_none() {
                return Err(Error::UnknownSubscriber { channel: Some((*channel).into()) });
            }
        }
        for channel in channels {
            let it = self.channel(channel);
            if mute {
                it.muted.insert(id.clone());
            } else {
                it.muted.remove(id);
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
        self.channels.get_or_create(channel)
    }

    /// Removes a channel that has no subscriber and was not added by name.
    fn remove_if_unused(&mut self, channel: &str) {
        self.changed.insert(channel.into());
        if self.channels.by_name.get(channel).is_some_and(|it| !it.is_added && it.subscriptions.len() == 0) {
            self.channels.remove(channel);
        }
    }

    /// Checks that a channel exists.
    pub(crate) fn check_known(&self, channel: &str) -> Result<(), Error> {
        if self.channels.by_name.contains_key(channel) { Ok(()) } else { Err(unknown_channel(channel)) }
    }

    /// Returns `true` if the channel must be listened to.
    pub(crate) fn is_wanted(&self, channel: &str) -> bool {
        self.channels.by_name.get(channel).is_some_and(RegisteredChannel::is_wanted)
    }

    /// Returns the channels that must be listened to.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &str> {
        self.channels.by_name.iter().filter(|(_, channel)| channel.is_wanted()).map(|(name, _)| &**name)
    }

    /// Returns the number of subscriptions of a channel.
    pub(crate) fn subscriptions_of(&self, channel: &str) -> usize {
        self.channels.by_name.get(channel).map_or(0, |channel| channel.subscriptions.len())
    }

    /// Returns the ids of the latest subscriptions of a channel.
    pub(crate) fn last_ids(&self, channel: &str, count: usize) -> Vec<I> {
        let channel = self.channels.by_name.get(channel).into_iter();
        channel.flat_map(|channel| channel.subscriptions.iter().rev().take(count)).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn get(&self, id: &I, channel: &str) -> Option<RegistryEntry<'_, S>> {
        let channel = self.channels.by_name.get(channel)?;
        channel.subscriptions.get(self.subscribers.get(id, channel.number)?).map(|entry| channel.entry(entry))
    }

    /// Returns one of the subscriptions of a subscriber.
    pub(crate) fn any_of(&self, id: &I) -> Option<&S> {
        let number = self.subscribers.channels(id).next()?;
        self.get(id, self.channels.names.get(&number)?).map(|entry| entry.value)
    }

    /// Returns all channels, sorted.
    pub(crate) fn channels(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.channels.by_name.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// Returns `true` if the channel exists and is muted.
    pub(crate) fn is_muted(&self, channel: &str) -> bool {
        self.channels.by_name.get(channel).is_some_and(|channel| channel.is_muted)
    }

    /// Returns the channels of a subscriber, sorted, or `None` for an unknown one.
    pub(crate) fn channels_of(&self, id: &I) -> Option<Vec<&Arc<str>>> {
        let numbers = self.subscribers.channels(id);
        let mut names: Vec<_> = numbers.filter_map(|number| self.channels.names.get(&number)).collect();
        names.sort_unstable();
        Some(names).filter(|names| !names.is_empty())
    }

    /// Returns `true` if the subscriber has a subscription.
    pub(crate) fn has_subscriber(&self, id: &I) -> bool {
        self.subscribers.contains(id)
    }

    /// Returns the number of subscribers.
    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.len()
    }
}

fn unknown_channel(channel: &str) -> Error {
    Error::UnknownChannel { channel: channel.into() }
}

#[cfg(any(test, fuzzing))]
impl<I: Clone + Eq + Hash, S> Registry<I, S> {
    /// Returns all subscriptions of a channel in the order in which they were made, each with its id and its own mute.
    pub(crate) fn subscriptions(&self, channel: &str) -> impl Iterator<Item = (&I, &S, bool)> {
        let channel = self.channels.by_name.get(channel).into_iter();
        channel
            .flat_map(|channel| channel.subscriptions.iter().map(|(id, value)| (id, value, channel.muted.contains(id))))
    }

    /// Returns the unmuted subscriptions of an unmuted channel, in the order in which they were made.
    pub(crate) fn receivers(&self, channel: &str) -> impl Iterator<Item = &S> {
        let all = self.subscriptions(channel).filter(|(_, _, is_muted)| !is_muted && !self.is_muted(channel));
        all.map(|(_, value, _)| value)
    }
}
