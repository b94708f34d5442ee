//! Properties of a session for any input of a server in any division into reads, checked by proptest and used as a fuzz
//! body.

use super::pending::PendingIo;
use super::script;
use super::*;
use crate::notification::NotificationRef;
use crate::proto::backlog::BACKLOG_MAX;
use crate::proto::buffer::ReadBuffer;

/// The way in which a stream reaches the session.
struct StreamDivision {
    /// The read buffers, used in turn.
    buffers: Vec<ReadBuffer>,
    /// The largest sizes of the reads, used in turn.
    cuts: Vec<usize>,
    /// The times at which the client takes the notifications.
    taking: Taking,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    AtTheEnd,
    Batches,
    OneByOne,
}

impl StreamDivision {
    /// In one read.
    fn whole(stream: &[u8]) -> Self {
        Self { buffers: vec![ReadBuffer::new(stream.len() + 1)], cuts: vec![usize::MAX], taking: Taking::AtTheEnd }
    }
}

/// All results of a session. They must be equal for equal streams.
#[derive(Debug, PartialEq, Eq, Default)]
struct SessionResults {
    notifications: Vec<(i32, Vec<u8>, Vec<u8>)>,
    outputs: Vec<String>,
    sent: Vec<u8>,
    channels: Vec<Box<str>>,
    parameters: String,
    notices: Vec<ServerError>,
    status: Option<TransactionStatus>,
    cancel_request: Vec<u8>,
    is_closed: bool,
}

impl SessionResults {
    /// Runs a session: the client makes all requests immediately, and the stream ends with its last byte.
    fn of(stream: &[u8], requests: Vec<Request>, mut delivery: StreamDivision) -> Self {
        let mut results = SessionResults::default();
        let Some(mut session) = session() else { return results };
        for ask in requests {
            session.request(ask);
        }
        let already = session.held_bytes();
        let (mut rest, mut reads) = (stream, 0);
        while !rest.is_empty() && !session.is_closed() {
            let (buffers, cuts) = (delivery.buffers.len(), delivery.cuts.len());
            let cut = delivery.cuts.get(reads % cuts).copied().unwrap_or(1);
            let Some(buffer) = delivery.buffers.get_mut(reads % buffers) else { break };
            // A read of nothing changes nothing.
            session.space(buffer);
            let space = session.space(buffer);
            assert!(!space.is_empty(), "there is always room to read into");
            let (now, later) = rest.split_at(cut.max(1).min(space.len()).min(rest.len()));
            if let Some(space) = space.get_mut(..now.len()) {
                space.copy_from_slice(now);
            }
            session.handle_input(buffer, now.len());
            (rest, reads) = (later, reads + 1);

            // Counting the stored bytes is slow, so it is not done after each of many reads.
            if reads < 64 || reads % 16 == 0 {
                let received = stream.len() - rest.len();
                let held = session.held_bytes();
                assert!(
                    held <= already + 64 * 1024 + 8 * received,
                    "{held} bytes are stored after {received} were received"
                );
            }
            if delivery.taking != Taking::AtTheEnd {
                results.take(&mut session, delivery.taking);
            }
        }
        session.handle_loss(Error::Disconnected);
        results.take(&mut session, delivery.taking);
        results.take(&mut session, delivery.taking);
        assert!(results.is_closed, "the session is closed at the end");
        assert!(session.receiver.partial_bytes().is_none(), "a closed session keeps no frame");
        results.channels = session.channels.iter().map(Box::from).collect();
        results.parameters = format!("{:?}", session.parameters);
        results.notices = session.take_notices();
        results.status = Some(session.status);
        results.cancel_request = session.cancel_request().to_vec();
        results
    }

    fn take(&mut self, session: &mut Session, taking: Taking) {
        while let Some(output) = session.poll() {
            assert!(!self.is_closed, "nothing comes after the end");
            if let Output::Closed(_) = output {
                assert!(session.backlog().is_empty(), "the end comes after the last notification");
                self.is_closed = true;
            }
            self.outputs.push(format!("{output:?}"));
        }
        let sent = session.poll_transmit().len();
        self.sent.extend(session.poll_transmit());
        session.handle_transmitted(sent);
        if taking == Taking::OneByOne {
            while let Some(n) = session.backlog_mut().pop() {
                self.keep(n.pid(), n.channel_bytes(), n.payload_bytes());
            }
        } else if let Some(batch) = session.take_notifications() {
            assert_eq!(batch.len(), batch.iter().count());
            assert!(!batch.is_empty());
            let keep = |n: NotificationRef<'_>| self.keep(n.pid(), n.channel_bytes(), n.payload_bytes());
            batch.iter().for_each(keep);
        }
        assert!(session.backlog().is_empty());
    }

    fn keep(&mut self, pid: i32, channel: &[u8], payload: &[u8]) {
        assert!(!self.is_closed, "no notification comes after the end");
        self.notifications.push((pid, channel.to_vec(), payload.to_vec()));
    }
}

impl Session {
    /// Returns the number of bytes that are stored because of what the server sent.
    pub(crate) fn held_bytes(&self) -> usize {
        let partial = self.receiver.partial.as_ref().map_or(0, |partial| partial.bytes.capacity());
        let channels: usize = self.channels().map(|channel| channel.len() + 1).sum();
        let pending = self.pending.as_ref().map_or(0, |pending| pending.held_bytes());
        self.backlog().size() + partial + channels + self.parameters.size() + pending
    }
}

impl PendingIo {
    fn held_bytes(&self) -> usize {
        let replies = self.outputs.iter().filter_map(|output| match output {
            Output::Reply(_, Ok(reply)) => Some(reply),
            _ => None,
        });
        let replies = replies.chain(self.state.in_flight().map(|in_flight| &in_flight.reply));
        let rows = replies.flat_map(|reply| &reply.rows).map(crate::row::Row::held_bytes);
        let notices = self.notices.iter().chain(&self.final_error).map(ServerError::held_bytes);
        let login = match &self.state {
            SessionState::Login(login) => login.plain_error.as_ref().map_or(0, Vec::len),
            _ => 0,
        };
        self.transmit.len() + login + rows.chain(notices).sum::<usize>()
    }
}

/// Creates a session. SCRAM is not allowed because its nonce differs each time.
fn session() -> Option<Session> {
    use crate::config::AuthMethod::{Md5, None, Password};
    let config = Config::new().user("app").dbname("shop").password("pencil").require_auth([None, Password, Md5]);
    Session::new(&config, Binding::Unencrypted).ok()
}

/// Returns the requests of the client that the bits of a number select.
fn requests(bits: u8) -> Vec<Request> {
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

/// The sizes of buffers, including one that is smaller than any frame.
const SIZES: [usize; 8] = [64, 5, 16, 97, 256, 1000, 4096, READ];
const READ: usize = crate::proto::buffer::READ_SIZE;

/// Uses the first bytes as options of the session, and the others as the server's messages.
///
/// - The first byte: bit 0 is set if the others are a list of messages, each a type, a length of one byte and that number of bytes
///   (255: as many KiB of filling as the next byte says), and clear if they are a stream; bit 1 is set if a login precedes them;
///   bits 2 and 3 choose what the client takes, and when.
/// - The second byte chooses what the client requests, and the third two sizes of buffers.
/// - The fourth is the number of bytes that follow and give the sizes of the reads.
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
    let delivery = StreamDivision {
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
    assert_divisions_have_equal_results(&stream, &|| requests(asked), delivery);
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

/// Checks that the results do not depend on the division of the stream into reads.
fn assert_divisions_have_equal_results(stream: &[u8], requests: &dyn Fn() -> Vec<Request>, delivery: StreamDivision) {
    let whole = SessionResults::of(stream, requests(), StreamDivision::whole(stream));
    let cut = SessionResults::of(stream, requests(), delivery);
    assert_eq!(cut, whole);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A message that a server may send at any time.
    #[derive(Debug, Clone)]
    enum Unasked {
        Notification(i32, Vec<u8>, Vec<u8>),
        Notice(String),
        Parameter(u8, String),
    }

    /// An answer of a server.
    #[derive(Debug, Clone)]
    enum ServerAnswer {
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

    fn news() -> impl Strategy<Value = Unasked> {
        prop_oneof![
            6 => (any::<i32>(), prop::sample::select(vec!["a", "ab", "", "b\"c"]), text())
                .prop_map(|(pid, channel, payload)| Unasked::Notification(pid, channel.into(), payload)),
            1 => "[a-z]{0,9}".prop_map(Unasked::Notice),
            1 => (60_000..70_000_usize).prop_map(|len| Unasked::Notice("n".repeat(len))),
            1 => (0..4_u8, "[a-z]{0,9}").prop_map(|(name, value)| Unasked::Parameter(name, value)),
        ]
    }

    fn answer() -> impl Strategy<Value = ServerAnswer> {
        prop_oneof![
            4 => Just(ServerAnswer::Done),
            2 => (0..3_usize, vec(text(), 0..3)).prop_map(|(columns, values)| ServerAnswer::Rows(columns, values)),
            2 => prop::sample::select(vec!["58P01", "25P02", "42501"]).prop_map(ServerAnswer::Error),
            1 => Just(ServerAnswer::NameCut),
            1 => vec(0..100_000_usize, 0..4).prop_map(ServerAnswer::CopyOut),
            1 => Just(ServerAnswer::CopyIn),
            1 => Just(ServerAnswer::Empty),
        ]
    }

    impl Unasked {
        fn frame(&self) -> Vec<u8> {
            match self {
                Unasked::Notification(pid, channel, payload) => script::notification(*pid, channel, payload),
                Unasked::Notice(text) => script::notice("NOTICE", "00000", text),
                Unasked::Parameter(name, value) => script::parameter(&format!("p{name}"), value),
            }
        }
    }

    impl ServerAnswer {
        fn frames(&self, status: u8) -> Vec<Vec<u8>> {
            let mut frames = match self {
                ServerAnswer::Done => vec![script::done("LISTEN")],
                ServerAnswer::Rows(columns, values) => {
                    let mut frames = vec![script::columns(*columns as u16)];
                    frames.extend(values.iter().map(|value| script::row(&vec![Some(value); *columns])));
                    frames.push(script::done("SELECT 1"));
                    frames
                }
                ServerAnswer::Error(code) => vec![script::error("ERROR", code, "refused")],
                ServerAnswer::NameCut => vec![script::notice("NOTICE", "42622", "cut"), script::done("LISTEN")],
                ServerAnswer::CopyOut(sizes) => {
                    let data = sizes.iter().map(|&len| script::frame(b'd', &vec![b'd'; len]));
                    let mut frames = vec![script::frame(b'H', &[0; 3])];
                    frames.extend(data);
                    frames.extend([script::frame(b'c', b""), script::done("COPY 1")]);
                    frames
                }
                ServerAnswer::CopyIn => vec![script::frame(b'G', &[0; 3]), script::error("ERROR", "57014", "no data")],
                ServerAnswer::Empty => vec![script::frame(b'I', b"")],
            };
            frames.push(script::ready(status));
            frames
        }
    }

    type Turn = (ServerAnswer, u8, Vec<Unasked>);

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let status = prop_oneof![6 => Just(b'I'), 1 => Just(b'T'), 1 => Just(b'E')];
        vec((answer(), status, vec(news(), 0..5)), 0..10)
    }

    /// Generates the end of the stream.
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

    /// Returns the stream of a server that answers the requests, with other messages in between, and the notifications
    /// among them.
    fn conversation(turns: &[Turn], requests: Vec<Request>) -> (Vec<u8>, Vec<Notified>) {
        let mut client = session().unwrap();
        requests.into_iter().for_each(|ask| _ = client.request(ask));
        let (mut stream, mut notified) = (Vec::new(), Vec::new());
        let mut buffer = ReadBuffer::new(1 << 20);
        let mut say = |client: &mut Session, frame: Vec<u8>| {
            client.space(&mut buffer)[..frame.len()].copy_from_slice(&frame);
            client.handle_input(&mut buffer, frame.len());
            assert!(!client.is_closed(), "{:?} to {:?}", client.error(), frame.first());
            client.take_notifications();
            stream.extend(frame);
        };
        say(&mut client, script::login());
        for (answer, status, news) in turns {
            let mut answers = if client.is_settled() { Vec::new() } else { answer.frames(*status) }.into_iter();
            for news in news {
                say(&mut client, news.frame());
                if let Unasked::Notification(pid, channel, payload) = news {
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

    fn delivery() -> impl Strategy<Value = StreamDivision> {
        let sizes = vec(prop::sample::select(SIZES.to_vec()), 1..3);
        let cuts = vec(prop_oneof![1..20_usize, 1..5_000_usize, Just(usize::MAX)], 1..12);
        let taking = prop::sample::select(vec![Taking::AtTheEnd, Taking::Batches, Taking::OneByOne]);
        (sizes, cuts, taking).prop_map(|(sizes, cuts, taking)| {
            let buffers = sizes.into_iter().map(ReadBuffer::new).collect();
            StreamDivision { buffers, cuts, taking }
        })
    }

    impl std::fmt::Debug for StreamDivision {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let sizes: Vec<_> = self.buffers.iter().map(|buffer| buffer.size).collect();
            write!(f, "into {sizes:?} by {:?} taking {:?}", self.cuts, self.taking)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn any_division_of_a_stream_has_the_same_results(
            turns in turns(), asked in any::<u8>(), tail in tail(), delivery in delivery(),
        ) {
            let (mut stream, _) = conversation(&turns, requests(asked));
            stream.extend(tail);
            assert_divisions_have_equal_results(&stream, &|| requests(asked), delivery);
        }

        #[test]
        fn each_notification_is_received_once_and_in_order_before_the_loss(
            turns in turns(), asked in any::<u8>(), tail in tail(), delivery in delivery(),
        ) {
            let (mut stream, notified) = conversation(&turns, requests(asked));
            stream.extend(tail);
            // `SessionResults::of` checks that the loss is the last output.
            let results = SessionResults::of(&stream, requests(asked), delivery);
            prop_assert!(results.notifications == notified);
        }

        #[test]
        fn a_truncated_stream_delivers_all_complete_notifications(
            turns in turns(), asked in any::<u8>(), keep in 0.0..1.0_f64, delivery in delivery(),
        ) {
            let (stream, notified) = conversation(&turns, requests(asked));
            let stream = &stream[..(stream.len() as f64 * keep) as usize];
            let results = SessionResults::of(stream, requests(asked), delivery);
            prop_assert!(notified.starts_with(&results.notifications));
        }

        #[test]
        fn damage_never_panics_and_has_the_same_results_in_any_division(
            turns in turns(), asked in any::<u8>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
            delivery in delivery(),
        ) {
            let (mut stream, _) = conversation(&turns, requests(asked));
            let at = at.index(stream.len());
            stream[at] = byte;
            assert_divisions_have_equal_results(&stream, &|| requests(asked), delivery);
        }

        #[test]
        fn properties_hold_for_any_bytes(data in vec(any::<u8>(), 0..300)) {
            fuzz_session(&data);
        }

        #[test]
        fn properties_hold_for_any_messages(
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
