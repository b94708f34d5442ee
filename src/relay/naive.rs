//! The follower, the tail and the history compared with naive models, which know what is missing instead of inferring it.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::engine_time::EngineTime;
use super::entry::{EntryContent, StreamEntry, StreamOrigin};
use super::follower::{Continuity, Follower, StreamBreak, TopCheck};
use super::history::{History, Resume, ResumeGap};
use super::position::StreamPosition;
use super::tail::{NoCanary, Tail, TailReader};
use crate::notification::{Batch, Notification};

/// More than any test needs.
const MAX_BYTES: usize = 1 << 20;

fn position(term: u64, sequence: u64) -> StreamPosition {
    StreamPosition { term, sequence }
}

/// Returns a batch of notifications whose payloads are numbers.
fn batch(numbers: impl IntoIterator<Item = usize>) -> EntryContent {
    let notifications = numbers.into_iter().map(|number| Notification::new("c", number.to_string(), 1));
    EntryContent::Notifications(notifications.collect())
}

fn canary(number: usize) -> EntryContent {
    EntryContent::Canary {
        marker: format!("m{number}").into(),
        sent: EngineTime::default(),
        channels: vec!["c".into()],
        silence_ms: 20_000,
    }
}

fn gap() -> EntryContent {
    EntryContent::Gap { channels: Vec::new(), cause: "reset".into(), since_unix_ms: 0, until_unix_ms: 0 }
}

fn start(continues: Option<StreamPosition>) -> EntryContent {
    EntryContent::Start { continues, channels: vec!["c".into()], silence_ms: 20_000 }
}

/// Returns a text such as `1 2 m3 4`.
fn shown<'c>(contents: impl IntoIterator<Item = &'c EntryContent>) -> String {
    let mut text = String::new();
    for content in contents {
        match content {
            EntryContent::Notifications(batch) => batch.iter().for_each(|n| write!(text, "{} ", n.payload()).unwrap()),
            EntryContent::Canary { marker, .. } => write!(text, "{marker} ").unwrap(),
            other => panic!("{other:?}"),
        }
    }
    text
}

type Stream = Vec<(StreamPosition, EntryContent)>;

fn tail_of(stream: &Stream, before: Option<StreamPosition>) -> Tail {
    let mut reader = TailReader::new(before, MAX_BYTES);
    let origin = StreamOrigin { system: 1, timeline: 1, database: 5 };
    for (at, content) in stream.iter().rev() {
        if !reader.push(*at, &StreamEntry { origin, content: content.clone() }) {
            break;
        }
    }
    reader.finish()
}

/// Returns a stream of several terms, some of which are only claimed, and for each entry `true` if it is kept.
fn streams() -> impl Strategy<Value = (Stream, Vec<bool>)> {
    let term = (0..4_u8, any::<bool>(), prop::collection::vec(0..8_u8, 0..6));
    let terms = prop::collection::vec(term, 1..6);
    (terms, prop::collection::vec(prop::bool::weighted(0.9), 60)).prop_map(|(terms, kept)| {
        let (mut stream, mut last, mut number) = (Stream::new(), None, 0);
        for (term, (kind, has_more, contents)) in (10..).zip(terms) {
            stream.push((position(term, 0), EntryContent::Claim { relay: "r".into() }));
            if kind == 0 {
                continue;
            }
            stream.push((position(term, 1), start(last.filter(|_| kind > 1 || has_more))));
            for (sequence, content) in (2..).zip(&contents) {
                number += 1;
                let content = match content {
                    0 => gap(),
                    1 | 2 => canary(number),
                    _ => batch([number]),
                };
                stream.push((position(term, sequence), content));
            }
            last = stream.last().map(|(at, _)| *at);
        }
        (stream, kept)
    })
}

fn is_claim(content: &EntryContent) -> bool {
    matches!(content, EntryContent::Claim { .. })
}

#[test]
fn r03_a_reader_finds_each_kind_of_break() {
    let at = |term, sequence| position(term, sequence);
    let note = || batch([1]);
    let claim = || EntryContent::Claim { relay: "r".into() };
    let jump = |from, to| Continuity::Broken(StreamBreak::Jump { from, to });
    let cases = [
        (at(5, 10), note(), Continuity::Contiguous),
        (at(5, 11), note(), jump(at(5, 9), at(5, 11))),
        (at(5, 9), note(), jump(at(5, 9), at(5, 9))),
        (at(4, 10), note(), jump(at(5, 9), at(4, 10))),
        (at(6, 10), note(), jump(at(5, 9), at(6, 10))),
        (at(6, 0), claim(), Continuity::Pending),
        (at(7, 1), start(Some(at(5, 9))), Continuity::Contiguous),
        (at(7, 1), start(None), Continuity::Broken(StreamBreak::NotContinued { at: at(7, 1) })),
        (at(4, 1), start(Some(at(5, 9))), jump(at(5, 9), at(4, 1))),
        (
            at(7, 1),
            start(Some(at(5, 8))),
            Continuity::Broken(StreamBreak::ContinuesOther { from: at(5, 9), other: at(5, 8) }),
        ),
    ];
    for (next, content, expected) in cases {
        let mut follower = Follower::starting_at(Some(at(5, 9)));
        assert_eq!(follower.follow(next, &content), expected, "{next}");
        assert_eq!(follower.cursor(), Some(next));
        // After a break the reader continues with the entry.
        let is_pending = expected == Continuity::Pending;
        assert_eq!(follower.position(), Some(if is_pending { at(5, 9) } else { next }));
    }
    let mut follower = Follower::starting_at(None);
    assert_eq!(follower.follow(at(5, 0), &claim()), Continuity::Pending);
    assert_eq!(follower.follow(at(5, 1), &start(None)), Continuity::Broken(StreamBreak::Beginning));
}

#[test]
fn r03_a_stream_that_ends_before_what_was_read_is_broken() {
    let mut follower = Follower::starting_at(Some(position(5, 9)));
    assert_eq!(follower.check_top(Some(position(5, 9))), TopCheck::Fine);
    assert_eq!(follower.check_top(Some(position(6, 0))), TopCheck::Fine);
    for top in [None, Some(position(5, 8)), Some(position(4, 100))] {
        let shortened = StreamBreak::Shortened { from: position(5, 9), top };
        assert_eq!(follower.check_top(top), TopCheck::Broken(shortened));
    }
    follower.follow(position(6, 0), &EntryContent::Claim { relay: "r".into() });
    assert_eq!(follower.check_top(Some(position(6, 0))), TopCheck::Fine);
    assert_eq!(follower.check_top(Some(position(5, 12))), TopCheck::Rewound);
    assert_eq!(follower.cursor(), Some(position(5, 9)));
    assert_eq!(follower.follow(position(5, 10), &batch([1])), Continuity::Contiguous);
    let mut empty = Follower::starting_at(None);
    assert_eq!(empty.check_top(None), TopCheck::Fine);
    empty.follow(position(6, 0), &EntryContent::Claim { relay: "r".into() });
    assert_eq!((empty.check_top(None), empty.cursor()), (TopCheck::Rewound, None));
}

#[test]
fn r05_a_candidate_reads_past_claims_and_back_through_terms_that_continue() {
    let stream = vec![
        (position(5, 8), canary(1)),
        (position(5, 9), batch([2, 3])),
        (position(6, 0), EntryContent::Claim { relay: "dangling".into() }),
        (position(7, 0), EntryContent::Claim { relay: "r".into() }),
        (position(7, 1), start(Some(position(5, 9)))),
        (position(7, 2), batch([4])),
        (position(8, 0), EntryContent::Claim { relay: "own".into() }),
        (position(9, 0), EntryContent::Claim { relay: "later".into() }),
    ];
    let tail = tail_of(&stream, Some(position(8, 0)));
    assert_eq!(tail.last.map(|(at, _)| at), Some(position(7, 2)));
    assert_eq!(tail.canary.map(|canary| canary.at), Ok(position(5, 8)));
    assert_eq!(tail.notifications.iter().flatten().map(|n| n.payload()).collect::<Vec<_>>(), ["2", "3", "4"]);
    // Without the own claim, an entry of a later term would be the last one.
    assert_eq!(tail_of(&stream, None).last.map(|(at, _)| at), Some(position(7, 2)));
    let long = TailReader::new(None, 10);
    let origin = StreamOrigin { system: 1, timeline: 1, database: 5 };
    let mut reader = long;
    assert!(!reader.push(position(5, 9), &StreamEntry { origin, content: batch([1]) }));
    assert_eq!(reader.finish().canary, Err(NoCanary::TooLong(10)));
}

#[test]
fn r05_a_canary_that_the_stream_does_not_have_is_a_gap() {
    let mut history = History::new(MAX_BYTES);
    [canary(1), batch([2]), canary(3), batch([4])].into_iter().for_each(|content| history.push(content));
    let stream = vec![(position(1, 2), canary(1)), (position(1, 3), batch([2, 4]))];
    assert_eq!(history.resume(&tail_of(&stream, None), "-"), Resume::Gap(ResumeGap::Different));
}

#[test]
fn a_history_keeps_the_canary_before_the_one_that_the_stream_has() {
    let mut history = History::new(MAX_BYTES);
    history.push(batch([1]));
    assert_eq!(history.bytes(), 0, "without a canary it is not needed");
    for number in 0..5 {
        history.push(canary(number));
        history.push(batch([100 + number]));
    }
    history.seen_in(&[batch([1]), canary(3), canary(4)]);
    let at = |number| tail_of(&vec![(position(1, 2), canary(number))], None);
    assert_eq!(history.resume(&at(1), "-"), Resume::Wait(ResumeGap::UnknownCanary));
    let Resume::Continue(rest) = history.resume(&at(2), "-") else { panic!() };
    assert_eq!(shown(&rest), "102 m3 103 m4 104 ");
    history.seen_in(&[batch([1]), canary(77), canary(4)]);
    history.seen_in(&[batch([1])]);
    history.seen_all();
    let Resume::Continue(rest) = history.resume(&at(3), "-") else { panic!() };
    assert_eq!(shown(&rest), "103 m4 104 ");
    history.push(gap());
    assert_eq!((history.bytes(), history.resume(&at(2), "-")), (0, Resume::Wait(ResumeGap::UnknownCanary)));
}

#[test]
fn a_history_is_bounded() {
    let mut history = History::new(10_000);
    let mut kept = Vec::new();
    for number in 0..500 {
        history.push(if number % 5 == 0 { canary(number) } else { batch([number; 10]) });
        assert!(history.bytes() <= 10_000);
        kept.push(history.bytes());
    }
    assert!(kept.iter().skip(100).all(|bytes| *bytes > 5_000), "{kept:?}");
    history.push(batch(0..2_000));
    assert_eq!(history.bytes(), 0, "a canary without all that follows it is useless");
}

/// The numbers of events: which are canaries, the ranges of the stream and of a candidate's history, and the sizes of batches.
fn orders() -> impl Strategy<Value = (Vec<bool>, usize, usize, usize, Vec<usize>)> {
    let canaries = prop::collection::vec(prop::bool::weighted(0.2), 1..40);
    let sizes = prop::collection::vec(1..5_usize, 1..10);
    (canaries, 0..40_usize, 0..40_usize, 0..40_usize, sizes)
}

/// Divides events into canaries and batches of these sizes.
fn contents(canaries: &[bool], range: std::ops::Range<usize>, sizes: &[usize]) -> Vec<EntryContent> {
    let (mut contents, mut sizes, mut numbers) = (Vec::new(), sizes.iter().cycle(), Vec::new());
    for number in range.clone() {
        if canaries[number] {
            contents.push(canary(number));
            continue;
        }
        numbers.push(number);
        let is_last = number + 1 == range.end || canaries[number + 1];
        if is_last || numbers.len() >= *sizes.next().unwrap() {
            contents.push(batch(numbers.drain(..)));
        }
    }
    contents
}

proptest! {
    #[test]
    fn r03_a_break_is_reported_exactly_where_entries_are_missing((stream, kept) in streams()) {
        let mut follower = Follower::starting_at(None);
        // The naive reader knows what is missing.
        let (mut is_missing, mut has_begun) = (false, false);
        for ((at, content), is_kept) in stream.iter().zip(kept) {
            if !is_kept {
                is_missing |= !is_claim(content);
                continue;
            }
            let continuity = follower.follow(*at, content);
            if is_claim(content) {
                prop_assert_eq!(continuity, Continuity::Pending);
                continue;
            }
            let is_gap = is_missing || !has_begun || matches!(content, EntryContent::Start { continues: None, .. });
            prop_assert_eq!(continuity != Continuity::Contiguous, is_gap, "{} {:?}", at, continuity);
            (is_missing, has_begun) = (false, true);
        }
    }

    #[test]
    fn r05_a_tail_is_all_that_follows_the_last_canary_without_a_gap((stream, kept) in streams(), before in 9..17_u64) {
        let stream: Stream = stream.into_iter().zip(kept).filter_map(|(entry, kept)| kept.then_some(entry)).collect();
        let tail = tail_of(&stream, Some(position(before, 0)));
        // The naive reader reads forwards, and forgets all at a gap.
        let (mut follower, mut last, mut since) = (Follower::starting_at(None), None, None);
        for (at, content) in stream.iter().filter(|(at, _)| at.term < before) {
            let continuity = follower.follow(*at, content);
            if continuity == Continuity::Pending {
                continue;
            }
            last = Some(*at);
            if continuity != Continuity::Contiguous || matches!(content, EntryContent::Gap { .. }) {
                since = None;
            }
            match content {
                EntryContent::Canary { .. } => since = Some((*at, Vec::new())),
                EntryContent::Notifications(_) => since.iter_mut().for_each(|(_, list)| list.push(content.clone())),
                _ => {}
            }
        }
        prop_assert_eq!(tail.last.map(|(at, _)| at), last);
        prop_assert_eq!(tail.canary.as_ref().ok().map(|canary| canary.at), since.as_ref().map(|(at, _)| *at));
        let expected = shown(since.iter().flat_map(|(_, list)| list));
        let found: Vec<_> = tail.notifications.into_iter().map(EntryContent::Notifications).collect();
        prop_assert_eq!(shown(&found), expected);
    }

    #[test]
    fn r05_a_candidate_continues_exactly_behind_what_the_stream_has(
        (canaries, appended, from, to, sizes) in orders(),
        cleared in prop::option::of(0..40_usize),
        has_barrier in any::<bool>(),
    ) {
        let (appended, to) = (appended.min(canaries.len()), to.min(canaries.len()));
        let from = from.min(to);
        let mut stream = vec![(position(1, 1), start(None))];
        let entries = contents(&canaries, 0..appended, &sizes);
        stream.extend((2..).zip(entries).map(|(sequence, content)| (position(1, sequence), content)));
        let tail = tail_of(&stream, None);

        let mut history = History::new(MAX_BYTES);
        let sizes: Vec<_> = sizes.iter().rev().copied().collect();
        let cleared = cleared.filter(|cleared| (from..to).contains(cleared));
        for content in contents(&canaries, from..cleared.unwrap_or(to), &sizes) {
            history.push(content);
        }
        if let Some(cleared) = cleared {
            // The session has missed one event.
            history.push(gap());
            contents(&canaries, cleared + 1..to, &sizes).into_iter().for_each(|content| history.push(content));
        }
        if has_barrier {
            history.push(canary(1000));
        }
        let begin = cleared.map_or(from, |cleared| cleared + 1);
        let undecided = |gap| if has_barrier { Resume::Gap(gap) } else { Resume::Wait(gap) };
        let result = history.resume(&tail, "m1000");
        match (0..appended).rev().find(|number| canaries[*number]) {
            None => prop_assert!(matches!(result, Resume::Gap(ResumeGap::NoCanary(NoCanary::NotContinued(_))))),
            Some(last) if last < begin || last >= to => prop_assert_eq!(result, undecided(ResumeGap::UnknownCanary)),
            Some(_) if to < appended => {
                let gap = ResumeGap::Behind { missing: appended - to };
                let is_expected = if has_barrier { matches!(result, Resume::Gap(_)) } else { result == Resume::Wait(gap) };
                prop_assert!(is_expected, "{:?}", result);
            }
            Some(_) => {
                let Resume::Continue(rest) = result else { panic!("{result:?}") };
                let mut expected = shown(&contents(&canaries, appended..to, &[1]));
                expected.push_str(if has_barrier { "m1000 " } else { "" });
                prop_assert_eq!(shown(&rest), expected);
            }
        }
    }

    #[test]
    fn r05_notifications_that_differ_in_one_byte_are_a_gap(
        payloads in prop::collection::vec("[ab]{0,3}", 1..8),
        changed in any::<prop::sample::Index>(),
        kind in 0..3_u8,
    ) {
        let batch_of = |list: &[(i32, String, String)]| {
            list.iter().map(|(pid, channel, payload)| Notification::new(channel, payload, *pid)).collect::<Batch>()
        };
        let mut list: Vec<_> = payloads.into_iter().map(|payload| (1, "c".to_owned(), payload)).collect();
        let mut history = History::new(MAX_BYTES);
        history.push(canary(1));
        history.push(EntryContent::Notifications(batch_of(&list)));
        let (pid, channel, payload) = changed.get_mut(&mut list);
        match kind {
            0 => *pid = 2,
            1 => channel.push('c'),
            _ => payload.push('c'),
        }
        let stream = vec![(position(1, 2), canary(1)), (position(1, 3), EntryContent::Notifications(batch_of(&list)))];
        prop_assert_eq!(history.resume(&tail_of(&stream, None), "-"), Resume::Gap(ResumeGap::Different));
    }
}
