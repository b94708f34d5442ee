//! Splits copies of both byte streams into messages, for the transcript of the feature `tracing`.
//!
//! A trace observes and checks nothing: the session checks the same bytes, and closes the connection if they are invalid.

use super::frame::{Direction, HEADER, MessageKind};

/// The largest part of a message's content that a trace returns.
const CONTENT_MAX: usize = 1024;
/// The number of bytes after the header that decide the name of a message.
const CODE: usize = 4;

/// A complete message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TracedMessage<'a> {
    pub(crate) direction: Direction,
    pub(crate) name: &'static str,
    /// The value of the length field: the type byte does not count.
    pub(crate) length: usize,
    /// The beginning of the content; `None` if it was not asked for, or may be a secret.
    pub(crate) content: Option<&'a [u8]>,
}

/// A trace of the messages of one session.
#[derive(Debug)]
pub(crate) struct MessageTrace {
    frontend: FrameSplitter,
    backend: FrameSplitter,
    /// The name of the next message of type `p`, which depends on the request of the server.
    password_message: &'static str,
    has_content: bool,
}

impl MessageTrace {
    /// Begins a trace between two messages: before the startup message, if `is_new`. With `has_content`, it returns the
    /// content of messages, except those of the login.
    pub(crate) fn new(is_new: bool, has_content: bool) -> Self {
        Self {
            frontend: FrameSplitter { header: if is_new { HEADER - 1 } else { HEADER }, ..FrameSplitter::default() },
            backend: FrameSplitter::default(),
            password_message: "PasswordMessage",
            has_content,
        }
    }

    /// Handles bytes that have been sent or received, and reports the messages that they complete.
    pub(crate) fn handle(&mut self, direction: Direction, mut bytes: &[u8], mut report: impl FnMut(TracedMessage<'_>)) {
        let Self { frontend, backend, password_message, has_content } = self;
        let keep = if *has_content { CONTENT_MAX } else { CODE };
        let splitter = if direction == Direction::Frontend { frontend } else { backend };
        while !bytes.is_empty() {
            if !splitter.take(&mut bytes, keep) {
                continue;
            }
            let (tag, length, body) = splitter.frame();
            let code = body.first_chunk().map_or(0, |code| u32::from_be_bytes(*code));
            let name = match direction {
                Direction::Frontend => frontend_name(tag, password_message),
                Direction::Backend if tag == Some(b'R') => {
                    *password_message = password_name(code);
                    authentication_name(code)
                }
                Direction::Backend => tag.and_then(MessageKind::of).map_or("unknown", |kind| kind.name),
            };
            // Passwords and their hashes, the key for CancelRequests, and the startup message.
            let is_secret = matches!(tag, None | Some(b'p' | b'R' | b'K'));
            let content = (*has_content && !is_secret).then_some(body);
            report(TracedMessage { direction, name, length, content });
            *splitter = FrameSplitter::default();
        }
    }
}

/// A frame that has been received in part.
#[derive(Debug)]
struct FrameSplitter {
    /// The length of the header: the startup message has no type.
    header: usize,
    /// The header, and the beginning of the body.
    head: Vec<u8>,
    /// The number of bytes of the body that follow, once the header is complete.
    rest: Option<usize>,
}

impl Default for FrameSplitter {
    fn default() -> Self {
        Self { header: HEADER, head: Vec::new(), rest: None }
    }
}

impl FrameSplitter {
    /// Takes the bytes up to the end of the header, of the part that is kept, or of the frame. Returns `true` if the frame is
    /// complete.
    fn take(&mut self, bytes: &mut &[u8], keep: usize) -> bool {
        let wanted = match self.rest {
            None => self.header - self.head.len(),
            Some(rest) => rest,
        };
        let (taken, behind) = bytes.split_at(wanted.min(bytes.len()));
        *bytes = behind;
        let room = (self.header + keep).saturating_sub(self.head.len());
        self.head.extend_from_slice(taken.get(..room).unwrap_or(taken));
        let rest = match self.rest {
            None if self.head.len() < self.header => return false,
            None => self.length().saturating_sub(4),
            Some(rest) => rest - taken.len(),
        };
        self.rest = Some(rest);
        rest == 0
    }

    fn length(&self) -> usize {
        let length = self.head.get(self.header - 4..).and_then(|field| field.first_chunk());
        length.map_or(0, |length| u32::from_be_bytes(*length) as usize)
    }

    /// Returns the type, the length, and the part of the body that is kept.
    fn frame(&self) -> (Option<u8>, usize, &[u8]) {
        let tag = self.head.first().copied().filter(|_| self.header == HEADER);
        (tag, self.length(), self.head.get(self.header..).unwrap_or_default())
    }
}

fn frontend_name(tag: Option<u8>, password_message: &'static str) -> &'static str {
    match tag {
        None => "StartupMessage",
        Some(b'Q') => "Query",
        Some(b'S') => "Sync",
        Some(b'X') => "Terminate",
        Some(b'f') => "CopyFail",
        Some(b'p') => password_message,
        Some(_) => "unknown",
    }
}

/// Returns the name of the answer to an authentication request.
fn password_name(code: u32) -> &'static str {
    match code {
        10 => "SASLInitialResponse",
        11 => "SASLResponse",
        _ => "PasswordMessage",
    }
}

fn authentication_name(code: u32) -> &'static str {
    match code {
        0 => "AuthenticationOk",
        3 => "AuthenticationCleartextPassword",
        5 => "AuthenticationMD5Password",
        10 => "AuthenticationSASL",
        11 => "AuthenticationSASLContinue",
        12 => "AuthenticationSASLFinal",
        _ => "Authentication",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    /// Traces a conversation in pieces of this size; returns a line for each message.
    fn traced(has_content: bool, size: usize, conversation: &[(Direction, Vec<u8>)]) -> Vec<String> {
        let mut trace = MessageTrace::new(true, has_content);
        let mut lines = Vec::new();
        for (direction, bytes) in conversation {
            for piece in bytes.chunks(size) {
                trace.handle(*direction, piece, |message| {
                    let content = message.content.map_or(String::new(), |content| content.escape_ascii().to_string());
                    lines.push(format!("{} {} {content}", message.name, message.length).trim_end().to_owned());
                });
            }
        }
        lines
    }

    fn conversation() -> Vec<(Direction, Vec<u8>)> {
        use Direction::{Backend, Frontend};
        let startup = [&13_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"user\0"].concat();
        vec![
            (Frontend, startup),
            (Backend, message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")),
            (Frontend, message(b'p', b"SCRAM-SHA-256\0\0\0\0\x01n")),
            (Backend, message(b'R', b"\0\0\0\x0br=salt")),
            (Frontend, message(b'p', b"c=secret")),
            (Backend, [message(b'R', b"\0\0\0\0"), message(b'K', b"\0\0\0\x01key!"), message(b'Z', b"I")].concat()),
            (Frontend, [message(b'Q', b"LISTEN a\0"), message(b'S', b"")].concat()),
            (Backend, [message(b'A', b"\0\0\0\x07a\0x\0"), message(b'd', &[b'x'; 3000]), message(b'Z', b"I")].concat()),
        ]
    }

    #[test]
    fn every_message_has_its_name_and_its_length_however_the_stream_is_cut() {
        let expected = [
            "StartupMessage 13",
            "AuthenticationSASL 23",
            "SASLInitialResponse 23",
            "AuthenticationSASLContinue 14",
            "SASLResponse 12",
            "AuthenticationOk 8",
            "BackendKeyData 12",
            "ReadyForQuery 5",
            "Query 13",
            "Sync 4",
            "NotificationResponse 12",
            "CopyData 3004",
            "ReadyForQuery 5",
        ];
        for size in [1, 2, 3, 5, 7, 4000] {
            assert_eq!(traced(false, size, &conversation()), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn the_content_is_limited_and_that_of_the_login_is_left_out() {
        for size in [1, 3, 4000] {
            let lines = traced(true, size, &conversation());
            assert_eq!(lines[..7], traced(false, size, &conversation())[..7]);
            assert_eq!(lines[7], "ReadyForQuery 5 I");
            assert_eq!(lines[8], r"Query 13 LISTEN a\x00");
            assert_eq!(lines[10], r"NotificationResponse 12 \x00\x00\x00\x07a\x00x\x00");
            assert_eq!(lines[11], format!("CopyData 3004 {}", "x".repeat(CONTENT_MAX)));
        }
    }

    #[test]
    fn an_invalid_length_ends_at_the_header() {
        let mut trace = MessageTrace::new(false, true);
        let mut lengths = Vec::new();
        let bytes = [&b"Z\0\0\0\0"[..], &message(b'I', b"")].concat();
        trace.handle(Direction::Backend, &bytes, |message| lengths.push((message.name, message.length)));
        assert_eq!(lengths, [("ReadyForQuery", 0), ("EmptyQueryResponse", 4)]);
    }
}
