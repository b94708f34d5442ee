//! What holds for whatever a server sends, however it is cut into reads; run by proptest, and as a fuzz body.

use super::script;
use super::*;
use crate::notification::NotificationRef;
use crate::proto::backlog::BACKLOG_MAX;
use crate::proto::buffer::ReadBuffer;

/// How a stream reaches the session.
struct Delivery {
    /// The buffers that are read into, in turn.
    buffers: Vec<ReadBuffer>,
    /// How much each read brings at the most, in turn.
    cuts: Vec<usize>,
    /// Whether the client takes after each read what there is, and else at the end.
    taking: Taking,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    AtTheEnd,
    Batches,
    OneByOne,
}

impl Delivery {
    /// In one read.
    fn whole(stream: &[u8]) -> Self {
        Self { buffers: vec![ReadBuffer::new(stream.len() + 1)], cuts: vec![usize::MAX], taking: Taking::AtTheEnd }
    }
}

/// Everything that a conversation came to. Two that heard the same must be equal.
#[derive(Debug, PartialEq, Eq, Default)]
struct Outcome {
    notifications: Vec<(i32, Vec<u8>, Vec<u8>)>,
    outputs: Vec<String>,
    sent: Vec<u8>,
    channels: Vec<Box<str>>,
    parameters: Vec<(Box<str>, Box<str>)>,
    notices: Vec<ServerError>,
    status: Option<TransactionStatus>,
    cancel_request: Vec<u8>,
    told: bool,
}

impl Outcome {
    /// The client's part: everything is asked at once, and the stream ends with its last byte.
    fn of(stream: &[u8], asks: Vec<Request>, mut delivery: Delivery) -> Self {
        let mut outcome = Outcome::default();
        let Some(mut session) = session() else { return outcome };
        for ask in asks {
            session.request(ask);
        }
        let already = session.held_bytes();
        let (mut rest, mut reads) = (stream, 0);
        while !rest.is_empty() && !session.is_closed() {
            let (buffers, cuts) = (delivery.buffers.len(), delivery.cuts.len());
            let cut = delivery.cuts.get(reads % cuts).copied().unwrap_or(1);
            let Some(buffer) = delivery.buffers.get_mut(reads % buffers) else { break };
            // A read that brings nothing leaves everything as it was.
            session.space(buffer);
            let space = session.space(buffer);
            assert!(!space.is_empty(), "there is always room to read into");
            let (now, later) = rest.split_at(cut.max(1).min(space.len()).min(rest.len()));
            if let Some(space) = space.get_mut(..now.len()) {
                space.copy_from_slice(now);
            }
            session.handle_input(buffer, now.len());
            (rest, reads) = (later, reads + 1);

            // Counting the bytes held is slow, so it is not done after each of many reads.
            if reads < 64 || reads % 16 == 0 {
                let heard = stream.len() - rest.len();
                let held = session.held_bytes();
                assert!(held <= already + 64 * 1024 + 8 * heard, "{held} bytes are held after {heard} were heard");
            }
            if delivery.taking != Taking::AtTheEnd {
                outcome.take(&mut session, delivery.taking);
            }
        }
        session.handle_eof();
        outcome.take(&mut session, delivery.taking);
        outcome.take(&mut session, delivery.taking);
        assert!(outcome.told, "the end is told");
        assert!(session.receiver.partial_bytes().is_none(), "a closed session keeps no frame");
        outcome.channels = session.channels.iter().map(Box::from).collect();
        outcome.parameters = session.parameters.iter().map(|(name, value)| (name.into(), value.into())).collect();
        outcome.notices = session.take_notices();
        outcome.status = Some(session.status);
        outcome.cancel_request = session.cancel_request().to_vec();
        outcome
    }

    fn take(&mut self, session: &mut Session, taking: Taking) {
        while let Some(output) = session.poll() {
            assert!(!self.told, "nothing comes after the end");
            if let Output::Closed(_) = output {
                assert!(!session.has_notifications(), "the end comes after the last notification");
                self.told = true;
            }
            self.outputs.push(format!("{output:?}"));
        }
        let sent = session.poll_transmit().len();
        self.sent.extend(session.poll_transmit());
        session.handle_transmitted(sent);
        if taking == Taking::OneByOne {
            while let Some(n) = session.pop_notification() {
                self.keep(n.pid(), n.channel_bytes(), n.payload_bytes());
            }
        } else if let Some(batch) = session.take_notifications() {
            assert_eq!(batch.len(), batch.iter().count());
            assert!(!batch.is_empty());
            let keep = |n: NotificationRef<'_>| self.keep(n.pid(), n.channel_bytes(), n.payload_bytes());
            batch.iter().for_each(keep);
        }
        assert!(!session.has_notifications());
    }

    fn keep(&mut self, pid: i32, channel: &[u8], payload: &[u8]) {
        assert!(!self.told, "no notification comes after the end");
        self.notifications.push((pid, channel.to_vec(), payload.to_vec()));
    }
}

/// SCRAM is left out: its nonce is another each time.
fn session() -> Option<Session> {
    use crate::config::AuthMethod::{Md5, None, Password};
    let config = Config::new().user("app").dbname("shop").password("pencil").require_auth([None, Password, Md5]);
    Session::new(&config).ok()
}

/// What the client asks, by the bits of a number.
fn asks(bits: u8) -> Vec<Request> {
    let all = [
        Request::Listen(vec!["a".into(), "b\"c".into()]),
        Request::Query("LISTEN c".into()),
        Request::Listen(vec!["a name that the server may cut".into()]),
        Request::Query("SELECT 1".into()),
        Request::Unlisten(vec!["a".into()]),
        Request::Sync,
        Request::UnlistenAll,
        Request::ReadChannels,
    ];
    all.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, ask)| ask).collect()
}

/// The sizes of buffers: from less than any frame on.
const SIZES: [usize; 8] = [64, 5, 16, 97, 256, 1000, 4096, READ];
const READ: usize = crate::proto::buffer::READ_SIZE;

/// Reads how a conversation goes from the first bytes, and what the server says from the others.
///
/// The first byte: bit 0, whether the others are a list of messages, each a type, a length of one byte and so much
/// (255: so many kilobytes of filling as the next byte says), and else a stream as it is; bit 1, whether a login comes
/// before it; bits 2 and 3, what the client takes when. The second byte: what it asks. The third: two sizes of buffers.
/// The fourth: how many bytes follow that say how much each read brings.
pub(crate) fn fuzz_session(data: &[u8]) {
    let Some((&[flags, asked, sizes, cuts], rest)) = data.split_first_chunk() else { return };
    let (cuts, rest) = rest.split_at(usize::from(cuts % 16).min(rest.len()));
    let mut stream = if flags & 2 == 0 { Vec::new() } else { script::login() };
    if flags & 1 == 0 {
        stream.extend(rest);
    } else {
        write_messages(rest, &mut stream);
    }
    // Only a short stream arrives byte by byte: a fuzzer needs many executions a second.
    let least = stream.len() / 512;
    let delivery = Delivery {
        buffers: [sizes % 8, sizes / 8 % 8]
            .iter()
            .filter_map(|&i| SIZES.get(usize::from(i)))
            .copied()
            .map(ReadBuffer::new)
            .collect(),
        cuts: if cuts.is_empty() {
            vec![usize::MAX]
        } else {
            cuts.iter().map(|&cut| least + usize::from(cut)).collect()
        },
        taking: match flags >> 2 & 3 {
            0 => Taking::AtTheEnd,
            1 => Taking::OneByOne,
            _ => Taking::Batches,
        },
    };
    assert_cuts_mean_nothing(&stream, &|| asks(asked), delivery);
}

fn write_messages(mut list: &[u8], stream: &mut Vec<u8>) {
    // Far less than a backlog may hold, so that the time of taking it does not matter, and a fuzzer stays fast.
    while let Some((&[tag, length], rest)) = list.split_first_chunk()
        && stream.len() < BACKLOG_MAX / 8
    {
        let (body, rest) = match (length, rest.split_first()) {
            (255, Some((&kilobytes, rest))) => {
                ([&[b'x'].repeat(usize::from(kilobytes) * 1024)[..], b"\0\0"].concat(), rest)
            }
            _ => {
                let (body, rest) = rest.split_at(usize::from(length).min(rest.len()));
                (body.to_vec(), rest)
            }
        };
        stream.extend(script::frame(tag, &body));
        list = rest;
    }
}

/// However a stream is cut into reads, the same comes out of it.
fn assert_cuts_mean_nothing(stream: &[u8], asks: &dyn Fn() -> Vec<Request>, delivery: Delivery) {
    let whole = Outcome::of(stream, asks(), Delivery::whole(stream));
    let cut = Outcome::of(stream, asks(), delivery);
    assert_eq!(cut, whole);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What a server may say at any time.
    #[derive(Debug, Clone)]
    enum News {
        Notification(i32, Vec<u8>, Vec<u8>),
        Notice(String),
        Parameter(u8, String),
    }

    /// What a server may answer.
    #[derive(Debug, Clone)]
    enum Answer {
        Done,
        Rows(usize, Vec<Vec<u8>>),
        Error(&'static str),
        NameCut,
        CopyOut(Vec<usize>),
        CopyIn,
        Empty,
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            10 => vec(any::<u8>().prop_map(|byte| byte.max(1)), 0..20),
            5 => (0..9_000_usize).prop_map(|len| vec![b'p'; len]),
            1 => (0..262_000_usize).prop_map(|len| vec![b'P'; len]),
        ]
    }

    fn news() -> impl Strategy<Value = News> {
        prop_oneof![
            6 => (any::<i32>(), prop::sample::select(vec!["a", "ab", "", "b\"c"]), text())
                .prop_map(|(pid, channel, payload)| News::Notification(pid, channel.into(), payload)),
            1 => "[a-z]{0,9}".prop_map(News::Notice),
            1 => (60_000..70_000_usize).prop_map(|len| News::Notice("n".repeat(len))),
            1 => (0..4_u8, "[a-z]{0,9}").prop_map(|(name, value)| News::Parameter(name, value)),
        ]
    }

    fn answer() -> impl Strategy<Value = Answer> {
        prop_oneof![
            4 => Just(Answer::Done),
            2 => (0..3_usize, vec(text(), 0..3)).prop_map(|(columns, values)| Answer::Rows(columns, values)),
            2 => prop::sample::select(vec!["58P01", "25P02", "42501"]).prop_map(Answer::Error),
            1 => Just(Answer::NameCut),
            1 => vec(0..100_000_usize, 0..4).prop_map(Answer::CopyOut),
            1 => Just(Answer::CopyIn),
            1 => Just(Answer::Empty),
        ]
    }

    impl News {
        fn frame(&self) -> Vec<u8> {
            match self {
                News::Notification(pid, channel, payload) => script::notification(*pid, channel, payload),
                News::Notice(text) => script::notice("NOTICE", "00000", text),
                News::Parameter(name, value) => script::parameter(&format!("p{name}"), value),
            }
        }
    }

    impl Answer {
        fn frames(&self, status: u8) -> Vec<Vec<u8>> {
            let mut frames = match self {
                Answer::Done => vec![script::done("LISTEN")],
                Answer::Rows(columns, values) => {
                    let mut frames = vec![script::columns(*columns as u16)];
                    frames.extend(values.iter().map(|value| script::row(&vec![Some(value); *columns])));
                    frames.push(script::done("SELECT 1"));
                    frames
                }
                Answer::Error(code) => vec![script::error("ERROR", code, "refused")],
                Answer::NameCut => vec![script::notice("NOTICE", "42622", "cut"), script::done("LISTEN")],
                Answer::CopyOut(sizes) => {
                    let data = sizes.iter().map(|&len| script::frame(b'd', &vec![b'd'; len]));
                    let mut frames = vec![script::frame(b'H', &[0; 3])];
                    frames.extend(data);
                    frames.extend([script::frame(b'c', b""), script::done("COPY 1")]);
                    frames
                }
                Answer::CopyIn => vec![script::frame(b'G', &[0; 3]), script::error("ERROR", "57014", "no data")],
                Answer::Empty => vec![script::frame(b'I', b"")],
            };
            frames.push(script::ready(status));
            frames
        }
    }

    type Turn = (Answer, u8, Vec<News>);

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let status = prop_oneof![6 => Just(b'I'), 1 => Just(b'T'), 1 => Just(b'E')];
        vec((answer(), status, vec(news(), 0..5)), 0..10)
    }

    /// What ends the stream.
    fn tail() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(Vec::new()),
            Just(script::error("FATAL", "57P01", "terminating connection")),
            Just(script::notice("WARNING", "57P02", "crash of another server process")),
            (0..100_000_usize).prop_map(|len| script::error("FATAL", "57P01", &"f".repeat(len))),
            vec(any::<u8>(), 0..40),
            (prop::sample::select(b"ADENSTZd".to_vec()), any::<u32>()).prop_map(|(tag, len)| script::header(tag, len)),
            Just(script::notification(1, "a", "partial")[..9].to_vec()),
        ]
    }

    /// Pid, channel and payload.
    type Notified = (i32, Vec<u8>, Vec<u8>);

    /// A server that answers what it is asked, with its news in between; and the notifications among them.
    fn conversation(turns: &[Turn], asks: Vec<Request>) -> (Vec<u8>, Vec<Notified>) {
        let mut client = session().unwrap();
        asks.into_iter().for_each(|ask| _ = client.request(ask));
        let (mut stream, mut notified) = (Vec::new(), Vec::new());
        let mut buffer = ReadBuffer::new(1 << 20);
        let mut say = |client: &mut Session, frame: Vec<u8>| {
            client.space(&mut buffer)[..frame.len()].copy_from_slice(&frame);
            client.handle_input(&mut buffer, frame.len());
            assert!(!client.is_closed(), "{:?} to {:?}", client.reason(), frame.first());
            client.take_notifications();
            stream.extend(frame);
        };
        say(&mut client, script::login());
        for (answer, status, news) in turns {
            let mut answers = if client.is_settled() { Vec::new() } else { answer.frames(*status) }.into_iter();
            for news in news {
                say(&mut client, news.frame());
                if let News::Notification(pid, channel, payload) = news {
                    notified.push((*pid, channel.clone(), payload.clone()));
                }
                if let Some(frame) = answers.next() {
                    say(&mut client, frame);
                }
            }
            answers.for_each(|frame| say(&mut client, frame));
        }
        (stream, notified)
    }

    fn delivery() -> impl Strategy<Value = Delivery> {
        let sizes = vec(prop::sample::select(SIZES.to_vec()), 1..3);
        let cuts = vec(prop_oneof![1..20_usize, 1..5_000_usize, Just(usize::MAX)], 1..12);
        let taking = prop::sample::select(vec![Taking::AtTheEnd, Taking::Batches, Taking::OneByOne]);
        (sizes, cuts, taking).prop_map(|(sizes, cuts, taking)| {
            let buffers = sizes.into_iter().map(ReadBuffer::new).collect();
            Delivery { buffers, cuts, taking }
        })
    }

    impl std::fmt::Debug for Delivery {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let sizes: Vec<_> = self.buffers.iter().map(ReadBuffer::size).collect();
            write!(f, "into {sizes:?} by {:?} taking {:?}", self.cuts, self.taking)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn any_cut_of_a_stream_gives_the_same(
            turns in turns(), asked in any::<u8>(), tail in tail(), delivery in delivery(),
        ) {
            let (mut stream, _) = conversation(&turns, asks(asked));
            stream.extend(tail);
            assert_cuts_mean_nothing(&stream, &|| asks(asked), delivery);
        }

        #[test]
        fn each_notification_comes_once_and_in_order_before_the_loss(
            turns in turns(), asked in any::<u8>(), tail in tail(), delivery in delivery(),
        ) {
            let (mut stream, notified) = conversation(&turns, asks(asked));
            stream.extend(tail);
            // That the loss comes last is watched on the way.
            let outcome = Outcome::of(&stream, asks(asked), delivery);
            prop_assert!(outcome.notifications == notified);
        }

        #[test]
        fn a_stream_cut_off_anywhere_gives_what_had_come_in_full(
            turns in turns(), asked in any::<u8>(), keep in 0.0..1.0_f64, delivery in delivery(),
        ) {
            let (stream, notified) = conversation(&turns, asks(asked));
            let stream = &stream[..(stream.len() as f64 * keep) as usize];
            let outcome = Outcome::of(stream, asks(asked), delivery);
            prop_assert!(notified.starts_with(&outcome.notifications));
        }

        #[test]
        fn damage_anywhere_never_panics_and_is_the_same_however_cut(
            turns in turns(), asked in any::<u8>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
            delivery in delivery(),
        ) {
            let (mut stream, _) = conversation(&turns, asks(asked));
            let at = at.index(stream.len());
            stream[at] = byte;
            assert_cuts_mean_nothing(&stream, &|| asks(asked), delivery);
        }

        #[test]
        fn any_bytes_keep_the_laws(data in vec(any::<u8>(), 0..300)) {
            fuzz_session(&data);
        }

        #[test]
        fn any_messages_keep_the_laws(
            how in (prop::sample::select(vec![1_u8, 3, 7, 11]), any::<u8>(), any::<u8>(), 0..16_u8),
            messages in vec((prop::sample::select(b"ACDEGHIKNRSTWZcdv".to_vec()), vec(any::<u8>(), 0..30)), 0..20),
        ) {
            let mut data = vec![how.0, how.1, how.2, how.3];
            data.extend((0..how.3).map(|cut| cut * 7));
            for (tag, body) in messages {
                data.extend([tag, body.len() as u8]);
                data.extend(body);
            }
            fuzz_session(&data);
        }
    }
}
