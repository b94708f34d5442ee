//! The other side of a simulated manager: a server with numbered notifications, and links that fail.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::manager::recovery::Jitter;
use crate::proto::script;

/// The canary's channel.
pub(super) const CANARY: &str = "k";

/// What arrives at a client.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// How a dial goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialled {
    Accepted,
    Refused,
    /// Nobody answers.
    Nothing,
}

/// One connection's way through the network, and its session at the server's end. Times count from the beginning.
#[derive(Debug)]
struct Link {
    dialled: Dialled,
    to_client: VecDeque<(Duration, Piece)>,
    to_server: VecDeque<(Duration, Option<Vec<u8>>)>,
    /// Whether what is sent this way vanishes: to the client, to the server.
    deaf: [bool; 2],
    delay: Duration,
    /// Whether nothing has ever happened to it.
    pub(super) intact: bool,
    backend: Backend,
}

#[derive(Debug, Default)]
struct Backend {
    inbox: Vec<u8>,
    logged_in: bool,
    listens: bool,
    /// Whether it listens to the canary's channel.
    attends: bool,
    /// Whether it has silently forgotten something of that, and whether it delivers nothing any more.
    forgot: bool,
    mute: bool,
    over: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) dice: Jitter,
    links: BTreeMap<u64, Link>,
    last_link: u64,
    /// The last number that was committed.
    pub(super) number: u64,
    /// Until when the server is down, and until when it refuses with 57P03.
    down: Duration,
    starting: Duration,
    pub(super) peaceful: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let dice = Jitter::new(seed);
        let (links, down, starting) = Default::default();
        Self { dice, links, last_link: 0, number: 0, down, starting, peaceful: false }
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.dice.number() % limit
    }

    pub(super) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    // ---- the client's end ---------------------------------------------------------------------------------------

    pub(super) fn dial(&mut self, now: Duration) -> u64 {
        let nothing = !self.peaceful && self.below(20) == 0;
        let dialled = match (nothing, now < self.down) {
            (true, _) => Dialled::Nothing,
            (_, true) => Dialled::Refused,
            _ => Dialled::Accepted,
        };
        let delay = self.millis(1, 30);
        let (to_client, to_server, backend) = Default::default();
        let mut link = Link { dialled, to_client, to_server, deaf: [false; 2], delay, intact: true, backend };
        if dialled == Dialled::Refused {
            link.to_client.push_back((now + delay, Piece::Reset));
        }
        self.last_link += 1;
        self.links.insert(self.last_link, link);
        self.last_link
    }

    pub(super) fn send(&mut self, now: Duration, link: u64, bytes: &[u8]) {
        if let Some(link) = self.links.get_mut(&link)
            && link.dialled == Dialled::Accepted
            && !link.deaf[1]
        {
            let at = link.to_server.back().map_or(now, |(last, _)| *last).max(now + link.delay);
            link.to_server.push_back((at, Some(bytes.to_vec())));
        }
    }

    /// The client lets it go: the server is told, unless the link is dead.
    pub(super) fn hang_up(&mut self, now: Duration, link: u64) {
        if let Some(link) = self.links.get_mut(&link) {
            link.to_client.clear();
            link.deaf[0] = true;
            match link.deaf[1] {
                true => link.backend.over = true,
                false => link.to_server.push_back((now + link.delay, None)),
            }
        }
    }

    /// Whether nothing has happened to it that could keep an answer away.
    pub(super) fn is_intact(&self, link: u64) -> bool {
        self.links.get(&link).is_some_and(|link| link.intact && !link.backend.over)
    }

    /// The next piece that is due there.
    pub(super) fn receive(&mut self, now: Duration, link: u64) -> Option<Piece> {
        let link = self.links.get_mut(&link)?;
        (link.to_client.front()?.0 <= now).then(|| link.to_client.pop_front()).flatten().map(|(_, piece)| piece)
    }

    /// When something moves next.
    pub(super) fn next(&self) -> Option<Duration> {
        let heads = self
            .links
            .values()
            .flat_map(|link| [link.to_client.front().map(|(at, _)| *at), link.to_server.front().map(|(at, _)| *at)]);
        heads.flatten().min()
    }

    // ---- the server's end ---------------------------------------------------------------------------------------

    /// Commits the next number, and sends it to whoever listens.
    pub(super) fn notify(&mut self, now: Duration) {
        if now < self.down {
            return;
        }
        self.number += 1;
        let frame = script::notification(5, "c", self.number.to_string());
        for link in self.links.values_mut().filter(|link| link.backend.listens && !link.backend.mute) {
            link.say(now, frame.clone());
        }
    }

    /// Sends a canary to whoever attends.
    fn send_canary(&mut self, now: Duration, payload: &str) {
        let frame = script::notification(5, CANARY, payload);
        for link in self.links.values_mut().filter(|link| link.backend.attends && !link.backend.mute) {
            link.say(now, frame.clone());
        }
    }

    /// Whether the server has forgotten something of what it was told there, and whether it delivers nothing.
    pub(super) fn has_forgotten(&self, link: u64) -> bool {
        self.links.get(&link).is_some_and(|link| link.backend.forgot)
    }

    pub(super) fn is_mute(&self, link: u64) -> bool {
        self.links.get(&link).is_some_and(|link| link.backend.mute)
    }

    /// Lets the server read what has arrived.
    pub(super) fn serve(&mut self, now: Duration) {
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            while let Some(link) = self.links.get_mut(&id)
                && link.to_server.front().is_some_and(|(at, _)| *at <= now)
            {
                match link.to_server.pop_front() {
                    Some((_, Some(bytes))) if !link.backend.over => {
                        link.backend.inbox.extend(bytes);
                        while let Some(asked) = self.links.get_mut(&id).and_then(|link| link.backend.next_message()) {
                            self.answer(now, id, asked);
                        }
                    }
                    Some((_, None)) => link.backend.end(),
                    _ => {}
                }
            }
        }
        self.links.retain(|_, link| !(link.backend.over && link.deaf[0] && link.to_server.is_empty()));
    }

    fn answer(&mut self, now: Duration, id: u64, asked: Message) {
        let chance = if self.peaceful { u64::MAX } else { self.below(100) };
        let starting = now < self.starting;
        let Some(link) = self.links.get_mut(&id) else { return };
        match asked {
            Message::Startup if starting => link.fatal(now, "57P03", "the database system is starting up"),
            Message::Startup if chance < 5 => link.fatal(now, "53300", "sorry, too many clients already"),
            Message::Startup => {
                link.backend.logged_in = true;
                link.say(now, script::login());
            }
            Message::Listen if chance < 5 => {
                let refusal = [script::error("ERROR", "25006", "in recovery"), script::ready(b'I')].concat();
                link.say(now, refusal);
            }
            Message::Listen => {
                link.backend.listens = true;
                // Somebody commits before the acknowledgement is out.
                for _ in 0..chance % 3 {
                    self.notify(now);
                }
                if let Some(link) = self.links.get_mut(&id) {
                    link.say(now, script::answer("LISTEN"));
                }
            }
            Message::Attend => {
                link.backend.attends = true;
                let row = [script::columns(2), script::row(&[Some("1700000000.5"), Some("5")])].concat();
                link.say(now, [script::done("LISTEN"), row, script::answer("SELECT 1")].concat());
            }
            Message::Audit => {
                let told = [("c", link.backend.listens), (CANARY, link.backend.attends)];
                let told: Vec<_> = told.iter().filter(|(_, listens)| *listens).map(|(channel, _)| *channel).collect();
                link.say(now, script::channel_rows(&told));
            }
            Message::Canary(payload) => {
                self.send_canary(now, &payload);
                if let Some(link) = self.links.get_mut(&id) {
                    link.say(now, script::answer("SELECT 1"));
                }
            }
            Message::Sync => link.say(now, script::ready(b'I')),
            Message::Terminate => link.backend.over = true,
        }
    }

    // ---- what goes wrong ----------------------------------------------------------------------------------------

    /// One accident, to one link or to all.
    pub(super) fn accident(&mut self, now: Duration) {
        if self.below(8) == 0 {
            self.restart(now);
            return;
        }
        let ids: Vec<_> = self.links.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let (which, what, way) = (self.below(ids.len() as u64), self.below(10), self.below(3));
        let late = self.millis(100, 4000);
        let Some(link) = ids.get(which as usize).and_then(|id| self.links.get_mut(id)) else { return };
        link.intact = false;
        match what {
            0 => link.fatal(now, "57P01", "terminating connection due to administrator command"),
            1 => link.end(now, Piece::End),
            2 => {
                link.to_client.clear();
                link.end(now, Piece::Reset);
            }
            3 | 4 => {
                link.deaf[0] |= way != 1;
                link.deaf[1] |= way != 0;
            }
            5 => link.say(now, b"\x00\xff\x00\xff garbage".to_vec()),
            6 => link.delay = late,
            7 | 8 => {
                link.backend.forgot = true;
                link.backend.listens &= way == 1;
                link.backend.attends &= way == 0;
            }
            _ => link.backend.mute = true,
        }
    }

    fn restart(&mut self, now: Duration) {
        self.down = now + self.millis(10, 3000);
        self.starting = self.down + self.millis(1, 1000);
        let manner = self.below(3);
        for link in self.links.values_mut() {
            link.intact = false;
            match manner {
                0 => link.fatal(now, "57P01", "terminating connection due to administrator command"),
                1 => {
                    link.say(now, script::notice("WARNING", "57P02", "crash of another server process"));
                    link.end(now, Piece::End);
                }
                _ => link.end(now, Piece::Reset),
            }
        }
    }

    /// What is down comes up, and stays.
    pub(super) fn make_peace(&mut self, now: Duration) {
        (self.down, self.starting, self.peaceful) = (now, now, true);
        self.links.values_mut().for_each(|link| link.delay = link.delay.min(Duration::from_millis(30)));
    }
}

impl Link {
    fn say(&mut self, now: Duration, bytes: Vec<u8>) {
        self.put(now, Piece::Bytes(bytes));
    }

    fn put(&mut self, now: Duration, piece: Piece) {
        if !self.deaf[0] && !self.backend.over {
            let at = self.to_client.back().map_or(now, |(last, _)| *last).max(now + self.delay);
            self.to_client.push_back((at, piece));
        }
    }

    fn end(&mut self, now: Duration, piece: Piece) {
        self.put(now, piece);
        self.backend.end();
    }

    fn fatal(&mut self, now: Duration, code: &str, text: &str) {
        self.say(now, script::error("FATAL", code, text));
        self.end(now, Piece::End);
    }
}

/// What the server understands.
#[derive(Debug)]
enum Message {
    Startup,
    Listen,
    Attend,
    Audit,
    Canary(String),
    Sync,
    Terminate,
}

impl Backend {
    /// What it has answered may still be on its way.
    fn end(&mut self) {
        *self = Self { over: true, forgot: self.forgot, mute: self.mute, ..Self::default() };
    }

    fn next_message(&mut self) -> Option<Message> {
        let header = usize::from(self.logged_in);
        let length = self.inbox.get(header..header + 4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize + header;
        if self.inbox.len() < length {
            return None;
        }
        let message: Vec<u8> = self.inbox.drain(..length).collect();
        match message.first() {
            _ if !self.logged_in => Some(Message::Startup),
            Some(b'S') => Some(Message::Sync),
            Some(b'X') => Some(Message::Terminate),
            _ => {
                let text = String::from_utf8_lossy(&message).into_owned();
                Some(match text.as_str() {
                    text if text.contains("pg_postmaster_start_time") => Message::Attend,
                    text if text.contains(&format!("LISTEN \"{CANARY}\"")) => Message::Attend,
                    text if text.contains("LISTEN \"c\"") => Message::Listen,
                    text if text.contains("pg_listening_channels") => Message::Audit,
                    text if text.contains("pg_notify") => {
                        Message::Canary(text.split('\'').nth(3).unwrap_or_default().to_owned())
                    }
                    text => panic!("the server doesn't understand {text}"),
                })
            }
        }
    }
}
