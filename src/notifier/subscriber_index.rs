//! The channels of each subscriber, with the place of its subscription in the list of each. Pure.
//!
//! Most subscribers have one channel, so the first one is stored without an allocation. Channels have numbers here.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// The places of all subscriptions, by subscriber and channel.
#[derive(Debug)]
pub(crate) struct SubscriberIndex<I> {
    first: HashMap<I, SubscriptionPlace>,
    /// The places by channel of subscribers that have several, without the first one.
    others: HashMap<I, BTreeMap<u32, u32>>,
}

/// The place of a subscription in the list of a channel, which has less than 2^32 places.
#[derive(Debug, Clone, Copy)]
struct SubscriptionPlace {
    channel: u32,
    place: u32,
}

impl<I> Default for SubscriberIndex<I> {
    fn default() -> Self {
        Self { first: HashMap::new(), others: HashMap::new() }
    }
}

impl<I: Eq + Hash> SubscriberIndex<I> {
    /// Returns the number of subscribers.
    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }

    pub(crate) fn contains(&self, id: &I) -> bool {
        self.first.contains_key(id)
    }

    /// Returns the channels of a subscriber.
    pub(crate) fn channels(&self, id: &I) -> impl Iterator<Item = u32> {
        let others = self.others.get(id).into_iter().flat_map(BTreeMap::keys);
        self.first.get(id).map(|first| first.channel).into_iter().chain(others.copied())
    }

    /// Returns the place of a subscription, if there is one.
    pub(crate) fn get(&self, id: &I, channel: u32) -> Option<usize> {
        let first = self.first.get(id)?;
        let is_first = first.channel == channel;
        let place = if is_first { first.place } else { *self.others.get(id)?.get(&channel)? };
        Some(place as usize)
    }

    /// Adds a subscription, or changes its place.
    pub(crate) fn insert(&mut self, id: &I, channel: u32, place: usize)
    where
        I: Clone,
    {
        let place = place as u32;
        match self.first.get_mut(id) {
            None => drop(self.first.insert(id.clone(), SubscriptionPlace { channel, place })),
            Some(first) if first.channel == channel => first.place = place,
            Some(_) => drop(self.others.entry(id.clone()).or_default().insert(channel, place)),
        }
    }

    /// Removes a subscription, and returns its place.
    pub(crate) fn remove(&mut self, id: &I, channel: u32) -> Option<usize> {
        let first = self.first.get_mut(id)?;
        let Some(others) = self.others.get_mut(id) else {
            let is_only = first.channel == channel;
            return if is_only { self.first.remove(id).map(|removed| removed.place as usize) } else { None };
        };
        let removed = if first.channel == channel {
            let (channel, place) = others.pop_first()?;
            std::mem::replace(first, SubscriptionPlace { channel, place }).place
        } else {
            others.remove(&channel)?
        };
        if others.is_empty() {
            self.others.remove(id);
        }
        Some(removed as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The index agrees with a map of all places, also where a subscriber gets a second channel or keeps one.
        #[test]
        fn n04_the_index_agrees_with_a_flat_map(steps in prop::collection::vec((0..4u8, 0..4u32, any::<bool>()), 0..200)) {
            let (mut index, mut flat) = (SubscriberIndex::default(), BTreeMap::new());
            for (place, (id, channel, is_removal)) in steps.into_iter().enumerate() {
                if is_removal {
                    prop_assert_eq!(index.remove(&id, channel), flat.remove(&(id, channel)));
                } else {
                    index.insert(&id, channel, place);
                    flat.insert((id, channel), place);
                }
                let ids: BTreeSet<u8> = flat.keys().map(|(id, _)| *id).collect();
                prop_assert_eq!(index.len(), ids.len());
                prop_assert_eq!(index.others.len(), ids.iter().filter(|id| index.channels(id).count() > 1).count());
                for id in 0..4 {
                    prop_assert_eq!(index.contains(&id), ids.contains(&id));
                    let channels: BTreeSet<u32> = index.channels(&id).collect();
                    prop_assert!(channels.into_iter().eq((0..4).filter(|channel| flat.contains_key(&(id, *channel)))));
                    for channel in 0..4 {
                        prop_assert_eq!(index.get(&id, channel), flat.get(&(id, channel)).copied());
                    }
                }
            }
        }
    }
}
