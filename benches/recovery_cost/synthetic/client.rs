//! One client at the server's end.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};

use mio::net::TcpStream;

use crate::msg;

/// How much of a flood is written to one client before the others have their turn.
const TURN: usize = 64 * 1024;

pub struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    channels: BTreeSet<String>,
    logged_in: bool,
    gone: bool,
    /// Whether the socket takes more.
    has_room: bool,
    /// How many bytes of the flood are still to be sent, and how many were.
    left: usize,
    sent: usize,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            channels: BTreeSet::new(),
            logged_in: false,
            gone: false,
            has_room: true,
            left: 0,
            sent: 0,
        }
    }

    pub fn listens_to(&self, channel: &str) -> bool {
        self.channels.contains(channel)
    }

    pub fn is_gone(&self) -> bool {
        self.gone
    }

    pub fn begin_flood(&mut self, bytes: usize) {
        (self.left, self.sent) = (bytes, 0);
    }

    pub fn can_be_flooded(&self) -> bool {
        self.has_room && self.left > 0
    }

    /// Sends its share of the flood, from frames that are all alike.
    pub fn flood(&mut self, block: &[u8], frame: usize) {
        // What else is to be said has room between two frames.
        if !self.sent.is_multiple_of(frame) || self.write_out() {
            let from = &block[self.sent % block.len()..];
            let piece = &from[..from.len().min(TURN).min(self.left)];
            match self.stream.write(piece) {
                Ok(written) => (self.sent, self.left) = (self.sent + written, self.left - written),
                Err(e) => self.failed(&e),
            }
            if self.left == 0 {
                self.write_out();
            }
        }
    }

    /// The socket takes more.
    pub fn make_room(&mut self) {
        self.has_room = true;
        if self.left == 0 {
            self.write_out();
        }
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
        if self.left == 0 {
            self.write_out();
        }
    }

    /// Reads and answers what there is; gives the canaries that it sends.
    pub fn answer(&mut self) -> Vec<(String, String)> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    self.gone = true;
                    break;
                }
                Ok(read) => self.inbox.extend_from_slice(&bytes[..read]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.gone = true;
                    break;
                }
            }
        }
        let mut canaries = Vec::new();
        while let Some((tag, body)) = self.next_message() {
            match tag {
                0 => self.say(&msg::login()),
                b'S' => self.say(&msg::ready(b'I')),
                b'Q' => self.query(&String::from_utf8_lossy(&body), &mut canaries),
                _ => self.gone = true,
            }
        }
        canaries
    }

    fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let header = usize::from(self.logged_in);
        let length = self.inbox.get(header..header + 4)?;
        let end = header + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        if self.inbox.len() < end {
            return None;
        }
        let message: Vec<u8> = self.inbox.drain(..end).collect();
        let tag = if self.logged_in { message[0] } else { 0 };
        self.logged_in = true;
        Some((tag, message[header + 4..].to_vec()))
    }

    fn query(&mut self, sql: &str, canaries: &mut Vec<(String, String)>) {
        let mut answer = Vec::new();
        for statement in sql.trim_end_matches('\0').split(';') {
            let name = || statement.split('"').nth(1).unwrap_or_default().to_owned();
            let rows: Vec<Vec<String>> = if statement.contains("pg_listening_channels") {
                self.channels.iter().map(|channel| vec![channel.clone()]).collect()
            } else if statement.contains("pg_postmaster_start_time") {
                vec![vec!["1700000000.5".into(), "5".into()]]
            } else {
                Vec::new()
            };
            if statement.starts_with("LISTEN") {
                self.channels.insert(name());
            } else if statement.starts_with("UNLISTEN *") {
                self.channels.clear();
            } else if statement.starts_with("UNLISTEN") {
                self.channels.remove(&name());
            } else if statement.contains("pg_notify") {
                let texts: Vec<&str> = statement.split('\'').collect();
                canaries.push((texts[1].to_owned(), texts[3].to_owned()));
            }
            if let Some(row) = rows.first() {
                answer.extend(msg::row_description(&vec!["c"; row.len()]));
            }
            for row in &rows {
                answer.extend(msg::data_row(&row.iter().map(|text| Some(text.as_str())).collect::<Vec<_>>()));
            }
            answer.extend(msg::command_complete("DONE"));
        }
        answer.extend(msg::ready(b'I'));
        self.say(&answer);
    }

    /// Writes what was said; whether all of it could be.
    fn write_out(&mut self) -> bool {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(e) => {
                    self.failed(&e);
                    return false;
                }
            }
        }
        true
    }

    fn failed(&mut self, error: &std::io::Error) {
        self.has_room = false;
        self.gone |= error.kind() != ErrorKind::WouldBlock;
    }
}
