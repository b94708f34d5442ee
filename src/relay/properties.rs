//! Properties of entries for any bytes of an engine, checked by proptest and used as a fuzz body.

use super::entry::{EntryContent, StreamEntry};
use super::position::StreamPosition;

/// The names of fields, and one that no version has.
const NAMES: [&str; 17] = ["v", "k", "s", "t", "r", "p", "c", "n", "e", "a", "b", "m", "u", "z", "d", "w", "g"];

/// Treats `data` as a sequence number and fields, each a byte for the name, one for the length, and the value. An entry that is
/// read from them is written and read again: both are the same.
pub(crate) fn fuzz_entries(data: &[u8]) {
    let Some((&sequence, mut rest)) = data.split_first() else { return };
    let position = StreamPosition { term: 1, sequence: sequence.into() };
    let mut fields = Vec::new();
    while let Some((&[name, len], behind)) = rest.split_first_chunk() {
        let (value, behind) = behind.split_at_checked(len.into()).unwrap_or((behind, b""));
        fields.push((NAMES[usize::from(name) % NAMES.len()].as_bytes(), value));
        rest = behind;
    }
    match StreamEntry::from_fields(position, &fields) {
        Ok(entry) => check_entry(position, &entry, &fields),
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.starts_with("the entry 1-") && text.contains(": ") && !text.contains(char::is_control),
                "{text}"
            );
        }
    }
}

/// Checks an entry that was read from `fields`.
fn check_entry(position: StreamPosition, entry: &StreamEntry, fields: &[(&[u8], &[u8])]) {
    let written = entry.to_fields();
    let again = StreamEntry::from_fields(position, &written).map(|again| format!("{again:?}"));
    assert_eq!(again, Ok(format!("{entry:?}")));
    let given = |name: &str| fields.iter().find(|(other, _)| *other == name.as_bytes()).map(|(_, value)| *value);
    for (at, (name, value)) in written.iter().enumerate() {
        assert!(written.iter().skip(at + 1).all(|(other, _)| other != name), "{name} is written twice");
        // Numbers may have been written with leading zeros.
        if !matches!(*name, "s" | "t" | "d" | "a" | "b" | "u" | "w" | "p") {
            assert_eq!(given(name), Some(&**value), "{name}");
        }
    }
    if let EntryContent::Notifications(batch) = &entry.content {
        let len: usize = batch.iter().map(|n| 11 + n.channel_bytes().len() + n.payload_bytes().len()).sum();
        assert_eq!(Some(len), given("n").map(<[u8]>::len), "every byte belongs to a notification");
        assert_eq!(batch.iter().count(), batch.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::engine_time::EngineTime;
    use super::super::entry::StreamOrigin;
    use super::*;
    use crate::notification::Batch;

    const ORIGIN: StreamOrigin = StreamOrigin { system: 7_301_234_567_890_123_456, timeline: 3, database: 5 };

    /// Returns the message NotificationResponse.
    fn frame(pid: i32, channel: &[u8], payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(4 + 4 + channel.len() + 1 + payload.len() + 1).unwrap();
        [b"A", &len.to_be_bytes()[..], &pid.to_be_bytes(), channel, b"\0", payload, b"\0"].concat()
    }

    fn at(sequence: u64) -> StreamPosition {
        StreamPosition { term: 5, sequence }
    }

    fn read(sequence: u64, fields: &[(&str, &[u8])]) -> Result<StreamEntry, String> {
        StreamEntry::from_fields(at(sequence), fields).map_err(|error| error.to_string())
    }

    /// Returns the fields of an entry as an engine stores them.
    fn stored(content: EntryContent) -> Vec<(String, Vec<u8>)> {
        let entry = StreamEntry { origin: ORIGIN, content };
        entry.to_fields().into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
    }

    fn contents() -> [(u64, EntryContent); 5] {
        let channels = || vec!["prices".into(), "Straße".into()];
        let sent = || EngineTime { unix_ms: u64::MAX, engine: "3f".into() };
        let notifications = [frame(1, b"prices", b"7"), frame(-2, b"caf\xe9", b"\xff\0\n")].concat();
        [
            (0, EntryContent::Claim { relay: "db1 42".into() }),
            (1, EntryContent::Start { continues: Some(at(9)), channels: channels(), silence_ms: 20_000 }),
            (2, EntryContent::Notifications(Batch::from_frames(&notifications).unwrap())),
            (3, EntryContent::Gap { channels: channels(), cause: "reset".into(), since_unix_ms: 1, until_unix_ms: 2 }),
            (4, EntryContent::Canary { marker: "a 1".into(), sent: sent(), channels: Vec::new(), silence_ms: 20_000 }),
        ]
    }

    #[test]
    fn r02_the_fields_of_each_kind_are_as_documented() {
        let text = |(name, value): &(String, Vec<u8>)| format!("{name}={}", value.escape_ascii());
        let common = |kind| format!("v=1 k={kind} s=7301234567890123456 t=3 d=5");
        let [claim, start, batch, gap, canary] = contents().map(|(_, content)| stored(content));
        for (fields, kind, rest) in [
            (claim, "claim", r"r=db1 42"),
            (start, "start", r"p=5-9 c=prices\x00Stra\xc3\x9fe w=20000"),
            (
                batch,
                "batch",
                r"n=A\x00\x00\x00\x11\x00\x00\x00\x01prices\x007\x00A\x00\x00\x00\x11\xff\xff\xff\xfecaf\xe9\x00\xff\x00\n\x00",
            ),
            (gap, "gap", r"c=prices\x00Stra\xc3\x9fe e=reset a=1 b=2"),
            (canary, "canary", r"m=a 1 u=18446744073709551615 g=3f c= w=20000"),
        ] {
            let texts: Vec<_> = fields.iter().map(text).collect();
            assert_eq!(texts.join(" "), format!("{} {rest}", common(kind)));
        }
        let without = stored(EntryContent::Start { continues: None, channels: Vec::new(), silence_ms: 20_000 });
        assert_eq!(without.iter().map(text).collect::<Vec<_>>().join(" "), format!("{} c= w=20000", common("start")));
    }

    #[test]
    fn r02_unknown_fields_are_ignored_and_the_order_does_not_matter() {
        for (sequence, content) in contents() {
            let mut fields = stored(content);
            let before = StreamEntry::from_fields(at(sequence), &fields).unwrap();
            fields.reverse();
            fields.insert(2, ("zz".into(), b"\xff".to_vec()));
            let after = StreamEntry::from_fields(at(sequence), &fields).unwrap();
            assert_eq!(format!("{before:?}"), format!("{after:?}"));
        }
    }

    #[test]
    fn r02_each_field_must_be_present_once() {
        for (sequence, content) in contents() {
            let fields = stored(content);
            for at_field in 0..fields.len() {
                let mut twice = fields.clone();
                twice.push(fields[at_field].clone());
                let name = &fields[at_field].0;
                let error = StreamEntry::from_fields(at(sequence), &twice).unwrap_err().to_string();
                assert!(error.contains(&format!("{name:?}")) && error.contains("occurs twice"), "{error}");
                let mut missing = fields.clone();
                missing.remove(at_field);
                match StreamEntry::from_fields(at(sequence), &missing) {
                    Ok(_) => assert_eq!(name, "p"),
                    Err(error) => assert_eq!(
                        error.to_string(),
                        format!(
                            "the entry 5-{sequence} has no field {name:?}: it was not written by a relay, so read another \
                             stream"
                        )
                    ),
                }
            }
        }
    }

    #[test]
    fn r02_another_version_and_an_unknown_kind_are_refused_with_the_remedy() {
        let error = read(2, &[("v", b"2"), ("k", b"new")]).unwrap_err();
        assert_eq!(
            error,
            r#"the entry 5-2 has the format "2", and this program reads the format 1: update this program"#
        );
        let error = read(2, &[("v", b"1"), ("k", b"new"), ("s", b"1"), ("t", b"1"), ("d", b"5")]).unwrap_err();
        assert_eq!(
            error,
            r#"the entry 5-2 is of the unknown kind "new": update this program if the relay is newer, or read another stream"#
        );
        assert!(read(2, &[("v", b"one")]).unwrap_err().contains(r#"field "v" "one" is not a version"#));
        assert!(read(2, &[("job", b"{}")]).unwrap_err().contains("was not written by a relay"));
    }

    #[test]
    fn r02_a_claim_and_a_start_have_one_place_in_their_term_and_others_have_none_there() {
        for (_, content) in contents() {
            let fields = stored(content);
            let places: Vec<_> =
                (0..4).filter(|sequence| StreamEntry::from_fields(at(*sequence), &fields).is_ok()).collect();
            let expected = match &*fields[1].1 {
                b"claim" => vec![0],
                b"start" => vec![1],
                _ => vec![2, 3],
            };
            assert_eq!(places, expected);
        }
    }

    #[test]
    fn r02_invalid_values_are_refused_with_the_field() {
        let canary = |marker: &'static [u8], sent: &'static [u8], channels: &'static [u8]| {
            let common: [(&str, &[u8]); 5] = [("v", b"1"), ("k", b"canary"), ("s", b"1"), ("t", b"1"), ("d", b"5")];
            read(2, &[&common[..], &[("m", marker), ("u", sent), ("g", b""), ("c", channels), ("w", b"1")]].concat())
        };
        let start = |silence: &'static [u8]| {
            read(1, &[("v", b"1"), ("k", b"start"), ("s", b"1"), ("t", b"1"), ("d", b"5"), ("c", b"a"), ("w", silence)])
        };
        assert!(canary(b"m", b"1", b"a\0b").is_ok() && start(b"18446744073709551615").is_ok());
        for (entry, field) in [
            (canary(b"\xff", b"1", b"a"), "m"),
            (canary(b"m", b"+1", b"a"), "u"),
            (canary(b"m", b"", b"a"), "u"),
            (canary(b"m", b"18446744073709551616", b"a"), "u"),
            (canary(b"m", b"1", b"a\0\0b"), "c"),
            (canary(b"m", b"1", b"a\0"), "c"),
            (read(2, &[("v", b"1"), ("k", b"canary"), ("s", b"1"), ("t", b"4294967296")]), "t"),
            (start(b"0"), "w"),
            (start(b"-1"), "w"),
        ] {
            let error = entry.unwrap_err();
            assert!(error.contains(&format!("its field {field:?}")), "{field}: {error}");
        }
        let error = canary(b"m", b"\x1b[2J\n", b"a").unwrap_err();
        assert!(!error.contains(char::is_control) && error.contains(r"\u{1b}[2J\\n"), "{error}");
    }

    #[test]
    fn r02_a_batch_is_only_complete_notifications() {
        let batch = |frames: &[u8]| {
            read(2, &[("v", b"1"), ("k", b"batch"), ("s", b"1"), ("t", b"1"), ("d", b"5"), ("n", frames)]).map(drop)
        };
        let good = frame(1, b"a", b"x");
        assert_eq!(batch(&good.repeat(3)), Ok(()));
        let mut without_end = good.clone();
        *without_end.last_mut().unwrap() = b'x';
        let too_long = frame(1, b"a", &vec![b'x'; 256 * 1024]);
        let no_payload = b"A\0\0\0\x0b\0\0\0\x01ab\0";
        let no_channel = frame(1, b"", b"x");
        let notice = b"N\0\0\0\x05\0";
        for bad in [&good[..good.len() - 1], &without_end, &too_long, no_payload, &no_channel, notice, b"A", b"\0"] {
            for before in [0, 1, 2] {
                let frames = [good.repeat(before), bad.to_vec()].concat();
                let at = format!("at byte {} of {}", before * good.len(), frames.len());
                assert!(batch(&frames).unwrap_err().contains(&at), "{before} {bad:?}");
            }
        }
        assert!(batch(b"").unwrap_err().contains("is empty"));
    }

    #[test]
    fn r02_a_batch_has_the_channel_of_each_notification() {
        let names: [&[u8]; 6] = [b"a", b"a", b"b", b"abc", b"abd", b"a"];
        let frames: Vec<_> = names.iter().flat_map(|name| frame(1, name, b"xyz")).collect();
        let batch = Batch::from_frames(&frames).unwrap();
        assert_eq!(batch.iter().map(|n| n.channel_bytes()).collect::<Vec<_>>(), names);
        assert!(batch.iter().all(|n| n.payload_bytes() == b"xyz"));
    }

    #[test]
    fn messages_between_notifications_are_not_written() {
        let buffer: std::sync::Arc<[u8]> =
            [frame(1, b"a", b"1"), b"N\0\0\0\x05\0".to_vec(), frame(1, b"a", b"2")].concat().into();
        let batch = crate::notification::Slice::new(&buffer, 0, buffer.len(), 2, 1).into();
        let fields = stored(EntryContent::Notifications(batch));
        assert_eq!(fields[5].1, [frame(1, b"a", b"1"), frame(1, b"a", b"2")].concat());
    }

    fn channel() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1..=255_u8, 1..63)
    }

    fn names() -> impl Strategy<Value = Vec<Box<str>>> {
        prop::collection::vec("[^\0]{1,20}".prop_map(Into::into), 0..4)
    }

    fn any_content() -> impl Strategy<Value = (u64, EntryContent)> {
        let notification = (any::<i32>(), channel(), prop::collection::vec(any::<u8>(), 0..80));
        let batch = prop::collection::vec(notification, 1..20).prop_map(|all| {
            let frames: Vec<_> = all.iter().flat_map(|(pid, channel, payload)| frame(*pid, channel, payload)).collect();
            EntryContent::Notifications(Batch::from_frames(&frames).unwrap())
        });
        let position = prop::option::of((any::<u64>(), any::<u64>()));
        let start =
            (position, names(), 1..=u64::MAX).prop_map(|(position, channels, silence_ms)| EntryContent::Start {
                continues: position.map(|(term, sequence)| StreamPosition { term, sequence }),
                channels,
                silence_ms,
            });
        let gap = (names(), any::<String>(), any::<(u64, u64)>()).prop_map(|(channels, cause, (since, until))| {
            EntryContent::Gap { channels, cause: cause.into(), since_unix_ms: since, until_unix_ms: until }
        });
        let sent = (any::<u64>(), any::<String>());
        let sent = sent.prop_map(|(unix_ms, engine)| EngineTime { unix_ms, engine: engine.into() });
        let canary = (any::<String>(), sent, names(), 1..=u64::MAX);
        let canary = canary.prop_map(|(marker, sent, channels, silence_ms)| EntryContent::Canary {
            marker: marker.into(),
            sent,
            channels,
            silence_ms,
        });
        prop_oneof![
            any::<String>().prop_map(|relay| (0, EntryContent::Claim { relay: relay.into() })),
            start.prop_map(|start| (1, start)),
            (2..9_u64, batch),
            (2..9_u64, gap),
            (2..9_u64, canary),
        ]
    }

    proptest! {
        #[test]
        fn r02_what_was_written_is_read_again((sequence, content) in any_content()) {
            let (before, fields) = (format!("{content:?}"), stored(content));
            let entry = StreamEntry::from_fields(at(sequence), &fields).unwrap();
            prop_assert_eq!(format!("{:?}", entry.content), before);
            prop_assert_eq!(entry.origin, ORIGIN);
            prop_assert_eq!(stored(entry.content), fields);
        }

        #[test]
        fn r02_any_fields_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_entries(&data);
        }

        /// Most entries of this test have only one fault.
        #[test]
        fn an_entry_with_one_changed_byte_is_read_or_refused(
            (sequence, content) in any_content(),
            field in any::<prop::sample::Index>(),
            byte in any::<prop::sample::Index>(),
            changed in any::<u8>(),
        ) {
            let mut data = vec![u8::try_from(sequence).unwrap()];
            let mut fields = stored(content);
            let (_, value) = field.get_mut(&mut fields);
            if !value.is_empty() {
                *byte.get_mut(value) = changed;
            }
            for (name, value) in &fields {
                let name = NAMES.iter().position(|known| known == name).unwrap();
                let value = value.get(..255).unwrap_or(value);
                data.extend([u8::try_from(name).unwrap(), u8::try_from(value.len()).unwrap()]);
                data.extend(value);
            }
            fuzz_entries(&data);
        }
    }
}
