//! The server's side of the protocol: bytes in, bytes out.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::{ANSWER_REQUESTED, CHANNEL, Flood, channel, msg};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// The process id that every session reports.
const PID: i32 = 4242;

/// The parameters that PostgreSQL reports at a login.
const PARAMETERS: [(&str, &str); 13] = [
    ("application_name", ""),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("IntervalStyle", "postgres"),
    ("is_superuser", "on"),
    ("server_encoding", "UTF8"),
    ("server_version", "17.2"),
    ("session_authorization", "postgres"),
    ("standard_conforming_strings", "on"),
    ("TimeZone", "UTC"),
];

/// The messages of a login without a password.
static LOGIN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let parameters = PARAMETERS.iter().flat_map(|(name, value)| msg::parameter_status(name, value)).collect();
    [msg::auth_ok(), parameters, msg::backend_key_data(PID, &[0, 0, 0, 1]), msg::ready(b'I')].concat()
});

/// The server's state of one session.
#[derive(Debug, Default)]
pub struct Conversation {
    input: Vec<u8>,
    logged_in: bool,
    channels: BTreeSet<String>,
    /// Notifications for all listeners: channels and frames.
    pub notifies: Vec<(String, Vec<u8>)>,
    pub is_over: bool,
}

impl Conversation {
    pub fn listens_to(&self, channel: &str) -> bool {
        self.channels.contains(channel)
    }

    /// Handles bytes from the client, and appends the answers.
    pub fn read(&mut self, bytes: &[u8], answer: &mut Vec<u8>) {
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while !self.is_over {
            let rest = &input[at..];
            // The first packets have no tag.
            let head = usize::from(self.logged_in);
            let Some(length) = rest.get(head..head + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes) else {
                break;
            };
            let total = head + length as usize;
            let Some(body) = rest.get(head + 4..total) else { break };
            if self.logged_in {
                self.message(rest[0], body, answer)
            } else {
                self.start_up(body, answer)
            }
            at += total;
        }
        input.drain(..at);
        // An idle session keeps no buffer.
        self.input = if input.is_empty() { Vec::new() } else { input };
    }

    fn start_up(&mut self, body: &[u8], answer: &mut Vec<u8>) {
        let code = body.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        if code == SSL_REQUEST || code == GSS_REQUEST {
            answer.push(b'N');
            return;
        }
        self.logged_in = true;
        answer.extend_from_slice(&LOGIN);
    }

    fn message(&mut self, tag: u8, body: &[u8], answer: &mut Vec<u8>) {
        match tag {
            b'Q' => {
                let sql = String::from_utf8_lossy(body);
                let statements = sql.trim_end_matches('\0').split(';').map(str::trim);
                statements.filter(|it| !it.is_empty()).for_each(|it| self.statement(it, answer));
                answer.extend(msg::ready(b'I'));
            }
            b'P' => answer.extend(msg::raw(b'1', &[])),
            b'B' => answer.extend(msg::raw(b'2', &[])),
            b'C' => answer.extend(msg::raw(b'3', &[])),
            b'D' => {
                if body.first() == Some(&b'S') {
                    answer.extend(msg::raw(b't', &[0; 2]));
                }
                answer.extend(msg::raw(b'n', &[]));
            }
            b'E' => answer.extend(msg::command_complete("SELECT 0")),
            b'S' => answer.extend(msg::ready(b'I')),
            b'X' => self.is_over = true,
            _ => {}
        }
    }

    /// Runs the statements of a listener, and reports success for all others.
    fn statement(&mut self, sql: &str, answer: &mut Vec<u8>) {
        let (verb, rest) = sql.split_once(' ').unwrap_or((sql, ""));
        let (verb, channel) = (verb.to_ascii_uppercase(), rest.trim_matches('"'));
        match &*verb {
            "LISTEN" => drop(self.channels.insert(channel.to_owned())),
            "UNLISTEN" if rest == "*" => self.channels.clear(),
            "UNLISTEN" => drop(self.channels.remove(channel)),
            // The audit's query.
            _ if rest.contains("pg_listening_channels") => rows(answer, self.channels.iter().map(|it| [it.as_str()])),
            // The canary's query that identifies the database.
            _ if rest.contains("pg_postmaster_start_time") => rows(answer, [["1700000000.5", "5"]]),
            // The canary: the first two literals are its channel and its payload.
            _ if rest.contains("pg_notify") => {
                let mut literals = rest.split('\'').skip(1).step_by(2);
                if let (Some(channel), Some(payload)) = (literals.next(), literals.next()) {
                    self.notifies.push((channel.to_owned(), msg::notification(PID, channel, payload)));
                }
            }
            _ => {}
        }
        answer.extend(msg::command_complete(&verb));
    }
}

/// Appends rows of strings.
fn rows<'t, const N: usize>(answer: &mut Vec<u8>, rows: impl IntoIterator<Item = [&'t str; N]>) {
    answer.extend(msg::row_description(&["column"; N]));
    rows.into_iter().for_each(|row| answer.extend(msg::data_row(&row.map(Some))));
}

/// Returns a notification on [`CHANNEL`] with a payload of `payload` bytes, which may request an answer.
pub fn notification(payload: usize, requests_answer: bool) -> Vec<u8> {
    let first = if requests_answer { ANSWER_REQUESTED } else { b'x' };
    let text: Vec<u8> = std::iter::once(first).chain(std::iter::repeat(b'y')).take(payload).collect();
    msg::notification_bytes(PID, CHANNEL.as_bytes(), &text)
}

/// Returns the frames of a flood after each other, or only the first one if all are equal.
pub fn frames(flood: &Flood) -> Vec<u8> {
    if (flood.channels, flood.payloads) == (1, 1) {
        return notification(flood.payload, false);
    }
    let width = flood.payload;
    let frame = |number: u64| {
        let text = format!("{:0>width$}", number % flood.payloads);
        msg::notification(PID, &channel(number % flood.channels), &text)
    };
    (flood.first..flood.first + flood.each).flat_map(frame).collect()
}
