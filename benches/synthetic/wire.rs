//! What the server says to what it is told: bytes in, bytes out.

use super::{CHANNEL, PLEASE_ANSWER};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// What PostgreSQL reports at a login.
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

/// One client's end of a conversation, as the server sees it.
#[derive(Debug, Default)]
pub struct Conversation {
    input: Vec<u8>,
    logged_in: bool,
    pub listens: bool,
    pub over: bool,
}

impl Conversation {
    /// Takes in what the client said, and writes what there is to say to it.
    pub fn hear(&mut self, bytes: &[u8], answer: &mut Vec<u8>) {
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while !self.over {
            let rest = &input[at..];
            // The first packets have no type.
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
        // An idle session keeps nothing.
        self.input = if input.is_empty() { Vec::new() } else { input };
    }

    fn start_up(&mut self, body: &[u8], answer: &mut Vec<u8>) {
        let code = body.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        if code == SSL_REQUEST || code == GSS_REQUEST {
            answer.push(b'N');
            return;
        }
        self.logged_in = true;
        frame(answer, b'R', &[&[0; 4]]);
        for (name, value) in PARAMETERS {
            frame(answer, b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
        }
        frame(answer, b'K', &[&4242u32.to_be_bytes(), &4711u32.to_be_bytes()]);
        frame(answer, b'Z', &[b"I"]);
    }

    fn message(&mut self, tag: u8, body: &[u8], answer: &mut Vec<u8>) {
        match tag {
            b'Q' => {
                for statement in body.split(|&b| b == b';' || b == 0).map(<[u8]>::trim_ascii) {
                    let verb = statement.split(|&b| b == b' ').next().unwrap_or_default();
                    self.listens |= verb.eq_ignore_ascii_case(b"LISTEN");
                    if !verb.is_empty() {
                        frame(answer, b'C', &[&verb.to_ascii_uppercase(), b"\0"]);
                    }
                }
                frame(answer, b'Z', &[b"I"]);
            }
            b'P' => frame(answer, b'1', &[]),
            b'B' => frame(answer, b'2', &[]),
            b'C' => frame(answer, b'3', &[]),
            b'D' => {
                if body.first() == Some(&b'S') {
                    frame(answer, b't', &[&[0; 2]]);
                }
                frame(answer, b'n', &[]);
            }
            b'E' => frame(answer, b'C', &[b"SELECT 0\0"]),
            b'S' => frame(answer, b'Z', &[b"I"]),
            b'X' => self.over = true,
            _ => {}
        }
    }
}

/// A notification whose payload has `payload` bytes, and asks for an answer or doesn't.
pub fn notification(payload: usize, please_answer: bool) -> Vec<u8> {
    let first = if please_answer { PLEASE_ANSWER } else { b'x' };
    let text: Vec<u8> = std::iter::once(first).chain(std::iter::repeat(b'y')).take(payload).collect();
    let mut bytes = Vec::new();
    frame(&mut bytes, b'A', &[&4242u32.to_be_bytes(), CHANNEL.as_bytes(), b"\0", &text, b"\0"]);
    bytes
}

fn frame(to: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    to.push(tag);
    to.extend((length as u32).to_be_bytes());
    parts.iter().for_each(|part| to.extend_from_slice(part));
}
