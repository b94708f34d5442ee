//! The registry compared with a naive model: after any sequence of calls, both give the same results.

use std::collections::{BTreeMap, BTreeSet};

use super::registry::Registry;

const CHANNELS: [&str; 5] = ["c0", "c1", "c2", "c3", "c4"];

/// The model: flat sets that are searched for each call.
#[derive(Default)]
struct NaiveRegistry {
    added: BTreeSet<&'static str>,
    muted: BTreeSet<&'static str>,
    /// By channel and id: the value, and `true` if it is muted.
    subscriptions: BTreeMap<(&'static str, u8), (u32, bool)>,
}

impl NaiveRegistry {
    fn channels(&self) -> BTreeSet<&'static str> {
        self.subscriptions.keys().map(|(channel, _)| channel).chain(&self.added).copied().collect()
    }

    fn receivers(&self, channel: &str) -> BTreeSet<u32> {
        let of = |entry: &(&(&str, u8), &(u32, bool))| entry.0.0 == channel && !entry.1.1;
        match self.muted.contains(channel) {
            true => BTreeSet::new(),
            false => self.subscriptions.iter().filter(of).map(|(_, (value, _))| *value).collect(),
        }
    }

    fn wanted(&self) -> BTreeSet<&'static str> {
        let all = self.channels().into_iter().filter(|channel| !self.muted.contains(channel));
        all.filter(|channel| self.added.contains(channel) || !self.receivers(channel).is_empty()).collect()
    }

    /// Removes the mutes of channels that were removed.
    fn remove_stale_mutes(&mut self) {
        let channels = self.channels();
        self.muted.retain(|channel| channels.contains(channel));
    }
}

/// The maximum number of steps of a run. Many short runs find more errors than a few long ones.
const STEPS: usize = 300;

/// Makes a call for every three bytes: the method, the id and the channels.
pub(crate) fn fuzz_registry(data: &[u8]) {
    let (mut registry, mut naive) = (Registry::<u8, u32>::default(), NaiveRegistry::default());
    let mut listened: BTreeSet<Box<str>> = BTreeSet::new();
    for (step, bytes) in (0u32..).zip(data.chunks_exact(3).take(STEPS)) {
        let &[method, id_byte, channel_byte] = bytes else { return };
        let (id, channel) = (id_byte % 5, CHANNELS[usize::from(channel_byte % 4)]);
        let other = CHANNELS[usize::from((channel_byte / 4) % 5)];
        let key = (channel, id);
        let known = naive.channels().contains(channel);
        match method % 9 {
            0 => {
                assert_eq!(registry.add(channel), naive.added.insert(channel));
            }
            1 => {
                assert_eq!(registry.remove(channel).is_ok(), known);
                naive.added.remove(channel);
                naive.subscriptions.retain(|(at, _), _| *at != channel);
            }
            2 | 3 => {
                let replaced = registry.subscribe(&id, channel, step);
                let muted = naive.subscriptions.get(&key).is_some_and(|(_, muted)| *muted);
                assert_eq!(replaced, naive.subscriptions.insert(key, (step, muted)).map(|(value, _)| value));
            }
            4 => {
                let ended = registry.unsubscribe(&id, channel).ok();
                assert_eq!(ended, naive.subscriptions.remove(&key).map(|(value, _)| value));
            }
            5 | 6 => {
                let mute = method % 9 == 5;
                let all_known = known && naive.channels().contains(other);
                assert_eq!(registry.mute_channels(&[channel, other], mute).is_ok(), all_known);
                for name in [channel, other].into_iter().filter(|_| all_known) {
                    if mute {
                        naive.muted.insert(name)
                    } else {
                        naive.muted.remove(name)
                    };
                }
            }
            7 => {
                let mute = method / 9 % 2 == 0;
                let all = [channel, other].iter().all(|at| naive.subscriptions.contains_key(&(*at, id)));
                assert_eq!(registry.mute_subscriber(&id, &[channel, other], mute).is_ok(), all);
                for at in [channel, other].into_iter().filter(|_| all) {
                    naive.subscriptions.entry((at, id)).and_modify(|it| it.1 = mute);
                }
            }
            _ => {
                naive.added.remove(channel);
                registry.revert_add(channel);
            }
        }
        naive.remove_stale_mutes();
        compare(&registry, &naive);
        // The changed channels alone are enough to know the wanted ones.
        if id_byte % 3 == 0 {
            for channel in registry.take_changed() {
                if registry.is_wanted(&channel) {
                    listened.insert(channel)
                } else {
                    listened.remove(&channel)
                };
            }
            assert!(listened.iter().map(|channel| &**channel).eq(naive.wanted()));
        }
    }
}

fn compare(registry: &Registry<u8, u32>, naive: &NaiveRegistry) {
    let channels = naive.channels();
    assert!(registry.channels().into_iter().eq(channels.iter().copied()));
    assert_eq!(registry.wanted().collect::<BTreeSet<_>>(), naive.wanted());
    for channel in &channels {
        assert_eq!(registry.receivers(channel).copied().collect::<BTreeSet<_>>(), naive.receivers(channel));
        assert_eq!(registry.is_muted(channel), naive.muted.contains(channel));
        let subscriptions = registry.subscriptions(channel).map(|(id, value, is_muted)| (*id, *value, is_muted));
        let expected = naive.subscriptions.iter().filter(|((at, _), _)| at == channel);
        let expected: BTreeSet<_> = expected.map(|((_, id), (value, muted))| (*id, *value, *muted)).collect();
        assert_eq!(subscriptions.collect::<BTreeSet<_>>(), expected);
    }
    for id in 0..5 {
        let of = naive.subscriptions.keys().filter(|(_, other)| *other == id).map(|(at, _)| *at);
        assert!(registry.channels_of(&id).into_iter().flatten().map(|channel| &**channel).eq(of));
    }
    let ids: BTreeSet<_> = naive.subscriptions.keys().map(|(_, id)| *id).collect();
    assert_eq!(registry.subscribers(), ids.len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn n04_n06_the_registry_agrees_with_a_naive_model(data in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz_registry(&data);
        }
    }

    #[test]
    fn n03_removing_a_callback_from_one_channel_leaves_its_others_alone() {
        let mut registry = Registry::default();
        registry.subscribe(&7, "a", "on a");
        registry.subscribe(&7, "b", "on b");
        assert_eq!(registry.unsubscribe(&7, "a").unwrap(), "on a");
        assert_eq!(registry.receivers("b").collect::<Vec<_>>(), [&"on b"]);
    }

    #[test]
    fn n02_the_last_unsubscribe_removes_a_channel_unless_it_was_added_by_name() {
        let mut registry = Registry::default();
        registry.add("named");
        for channel in ["named", "unnamed"] {
            registry.subscribe(&1, channel, ());
            registry.unsubscribe(&1, channel).unwrap();
        }
        assert_eq!(registry.channels(), ["named"]);
    }

    #[test]
    fn n06_a_subscribers_mute_survives_its_channels() {
        let mut registry = Registry::default();
        registry.subscribe(&1, "a", 1);
        registry.subscribe(&2, "a", 2);
        registry.mute_subscriber(&1, &["a"], true).unwrap();
        registry.mute_channels(&["a"], true).unwrap();
        assert!(!registry.is_wanted("a"));
        registry.mute_channels(&["a"], false).unwrap();
        assert_eq!(registry.receivers("a").collect::<Vec<_>>(), [&2]);
    }
}
