//! A simulated server process: it understands the SQL that the crate sends, and a few statements of tests.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::script;

/// The channel of the canary.
pub(super) const CANARY: &str = "canary";

/// The SQL that some sessions execute after the login.
pub(super) const AFTER_CONNECT: &str = "SELECT after_connect; SELECT 2";

/// The server's side of one session.
#[derive(Debug, Default)]
pub(super) struct Backend {
    inbox: Vec<u8>,
    pub(super) is_logged_in: bool,
    /// `true` once the process has ended.
    pub(super) is_over: bool,
    /// The channels that it listens to.
    pub(super) registered: BTreeMap<String, u64>,
    /// For each channel that it has ever listened to, the number of the channel's notifications before.
    pub(super) registered_at: BTreeMap<String, u64>,
    /// The channels that it has ever forgotten.
    pub(super) forgotten: Vec<String>,
    /// The first and the last number of a channel's notifications in each period in which it listened and that is over.
    pub(super) earlier: Vec<(String, u64, u64)>,
    /// The transaction status.
    pub(super) status: u8,
    /// `true` while a statement runs.
    pub(super) is_busy: bool,
    /// Counts the statements that take time, so that the end of one that was cancelled has no effect.
    pub(super) statement: u64,
    /// `true` once a transaction has been rolled back.
    pub(super) has_rolled_back: bool,
    /// The effects that the end of the transaction will have.
    pub(super) effects: Vec<Effect>,
    /// Notifications that are delivered at the end of the statement or the transaction.
    pub(super) held: Vec<u8>,
    /// `true` if it delivers nothing.
    pub(super) is_mute: bool,
    /// `true` if a proxy delivers notifications only with the next answer.
    pub(super) holds_back: bool,
}

/// A consequence of a statement that other sessions see after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Listen(String),
    Unlisten(String),
    UnlistenAll,
    Notify(String, String),
}

/// A message of a client.
#[derive(Debug)]
pub(super) enum Message {
    Startup,
    /// A CancelRequest for this process.
    Cancel(u64),
    Sync,
    Terminate,
    Query(String),
}

/// The result of a statement.
pub(super) struct Executed {
    pub(super) reply: Vec<u8>,
    /// `true` if the reply is an error.
    pub(super) is_refused: bool,
    /// The time that it takes.
    pub(super) lasts: Duration,
}

impl Backend {
    pub(super) fn new() -> Self {
        Self { status: b'I', ..Self::default() }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.inbox.extend(bytes);
    }

    /// Takes the next message, unless a statement runs.
    pub(super) fn next_message(&mut self) -> Option<Message> {
        if self.is_busy || self.is_over {
            return None;
        }
        let header = usize::from(self.is_logged_in);
        let length = self.inbox.get(header..header + 4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize + header;
        if self.inbox.len() < length {
            return None;
        }
        let message: Vec<u8> = self.inbox.drain(..length).collect();
        Some(match message.first() {
            _ if !self.is_logged_in && message.get(4..8) == Some(&80_877_102_u32.to_be_bytes()) => {
                let pid = message.get(8..12).and_then(|pid| pid.try_into().ok()).map_or(0, u32::from_be_bytes);
                Message::Cancel(u64::from(pid))
            }
            _ if !self.is_logged_in => Message::Startup,
            Some(b'S') => Message::Sync,
            Some(b'X') => Message::Terminate,
            Some(b'Q') => Message::Query(String::from_utf8_lossy(&message[5..length - 1]).into_owned()),
            tag => panic!("the simulated server does not know a message of type {tag:?}"),
        })
    }

    /// Returns the answer to the startup packet, as this process.
    pub(super) fn login(&mut self, pid: u64) -> Vec<u8> {
        self.is_logged_in = true;
        [
            script::authentication(0, b""),
            script::parameter("server_version", "17.2"),
            script::parameter("server_encoding", "UTF8"),
            script::parameter("client_encoding", "UTF8"),
            script::key(i32::try_from(pid).unwrap(), 9),
            script::ready(b'I'),
        ]
        .concat()
    }

    /// Runs the statements of a query; `refuses_listen` if a LISTEN fails.
    pub(super) fn execute(&mut self, query: &str, refuses_listen: bool) -> Executed {
        let (mut reply, mut lasts) = (Vec::new(), Duration::ZERO);
        let (before, mut is_refused) = (self.effects.len(), false);
        for statement in query.split(';').map(str::trim) {
            let result = match statement {
                _ if self.status == b'E' && statement != "ROLLBACK" => Err("25P02"),
                "FAIL" => Err("22012"),
                _ if refuses_listen && statement.starts_with("LISTEN") => Err("25006"),
                _ => Ok(self.statement(statement, &mut lasts)),
            };
            match result {
                Ok(answer) => reply.extend(answer),
                Err(code) => {
                    self.effects.truncate(before);
                    if self.status == b'T' {
                        self.status = b'E';
                    }
                    (reply, is_refused) = (script::error("ERROR", code, "refused"), true);
                    break;
                }
            }
        }
        Executed { reply, is_refused, lasts }
    }

    fn statement(&mut self, statement: &str, lasts: &mut Duration) -> Vec<u8> {
        let name = statement.split('"').nth(1).map(str::to_owned);
        match (statement.split(' ').next(), name) {
            (Some("LISTEN"), Some(name)) => self.effects.push(Effect::Listen(name)),
            (Some("UNLISTEN"), Some(name)) => self.effects.push(Effect::Unlisten(name)),
            (Some("UNLISTEN" | "DISCARD"), None) => self.effects.push(Effect::UnlistenAll),
            (Some("BEGIN"), _) => self.status = b'T',
            (Some("COMMIT"), _) => self.status = b'I',
            (Some("ROLLBACK"), _) => {
                (self.status, self.has_rolled_back) = (b'I', true);
                self.effects.clear();
            }
            (Some("SLEEP"), _) => {
                *lasts += Duration::from_millis(statement.split(' ').nth(1).unwrap().parse().unwrap());
            }
            _ if statement.contains("pg_listening_channels") => {
                let rows = self.registered.keys().flat_map(|channel| script::row(&[Some(channel)]));
                return script::columns(1).into_iter().chain(rows).chain(script::done("SELECT 1")).collect();
            }
            _ if statement.contains("pg_postmaster_start_time") => {
                let row = script::row(&[Some("1700000000.5"), Some("app")]);
                return [script::columns(2), row, script::done("SELECT 1")].concat();
            }
            _ if statement.contains("pg_notify") => {
                let literals: Vec<_> = statement.split('\'').skip(1).step_by(2).collect();
                let pairs = literals.chunks(2).map(|pair| Effect::Notify(pair[0].to_owned(), pair[1].to_owned()));
                self.effects.extend(pairs);
            }
            (Some("SELECT"), _) => {}
            // EmptyQueryResponse
            (Some(""), _) => return script::frame(b'I', b""),
            _ => panic!("the server does not understand {statement:?}"),
        }
        script::done(statement.split(' ').next().unwrap())
    }

    /// Forgets a channel, of which the client learns nothing.
    pub(super) fn forget(&mut self, channel: &str, committed: &BTreeMap<String, u64>) {
        if self.unlisten(channel, committed) {
            self.forgotten.push(channel.to_owned());
        }
    }

    /// Ends the delivery of a channel; returns `false` if it did not listen to the channel.
    pub(super) fn unlisten(&mut self, channel: &str, committed: &BTreeMap<String, u64>) -> bool {
        let Some(before) = self.registered.remove(channel) else { return false };
        let last = committed.get(channel).copied().unwrap_or_default();
        self.earlier.push((channel.to_owned(), before + 1, last));
        true
    }

    /// Returns `true` if this notification of a channel was sent before the session stopped to listen to the channel.
    pub(super) fn is_earlier(&self, channel: &str, number: u64) -> bool {
        self.earlier.iter().any(|(name, first, last)| name == channel && (*first..=*last).contains(&number))
    }
}
