//! One connection of a client: the head of one request comes in, one answer goes out, and the connection ends.
//!
//! ```text
//!   Reading ──a head, or a fault in it──▶ Writing ──all written──▶ Closing ──the client has closed──▶ end
//! ```
//!
//! A body is never read: no request that is answered has one. What a client still sends is discarded, since closing a socket with
//! unread bytes would take the answer away from the client.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use httparse::{EMPTY_HEADER, Status};

/// The longest head of a request, in bytes.
pub(super) const HEAD_MAX: usize = 8 << 10;
/// The largest number of headers in a request.
const HEADERS_MAX: usize = 64;
/// The number of bytes behind a head that are discarded before the connection ends anyway.
const DISCARDED_MAX: usize = 64 << 10;

const TEXT: &str = "text/plain; charset=utf-8";

/// The line of a request that is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HttpRequest {
    pub(super) is_head: bool,
    /// The path, without a query.
    pub(super) path: String,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl HttpAnswer {
    /// Returns an answer with one line of text.
    pub(super) fn text(status: u16, line: &str) -> Self {
        Self { status, content_type: TEXT, body: format!("{line}\n") }
    }

    fn to_bytes(&self, is_head: bool) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let allowed = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut text = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allowed}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            reason(*status),
            body.len(),
        );
        if !is_head {
            text.push_str(body);
        }
        text.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Returns the path of a request's target, which may be a URL, as clients send it to a proxy.
fn path_of(target: &str) -> &str {
    let behind_host = |rest: &str| rest.find('/').unwrap_or(rest.len());
    let path = match target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")) {
        Some(_) => &target[7 + behind_host(&target[7..])..],
        None => target,
    };
    path.split('?').next().unwrap_or_default()
}

/// Reads the head of a request from its bytes so far. `None` if more are needed.
fn read_head(bytes: &[u8]) -> Option<Result<HttpRequest, HttpAnswer>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let refusal = match request.parse(bytes) {
        Ok(Status::Partial) if bytes.len() < HEAD_MAX => return None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            HttpAnswer::text(431, "the head of a request has up to 8 KiB and 64 headers")
        }
        Err(httparse::Error::Version) => HttpAnswer::text(505, "only HTTP/1.0 and HTTP/1.1 are answered"),
        Err(_) => HttpAnswer::text(400, "this is not a request of HTTP"),
        Ok(Status::Complete(_)) => match request.method {
            Some(method @ ("GET" | "HEAD")) => {
                let path = path_of(request.path.unwrap_or_default());
                return Some(Ok(HttpRequest { is_head: method == "HEAD", path: path.to_owned() }));
            }
            _ => HttpAnswer::text(405, "only GET and HEAD are answered"),
        },
    };
    Some(Err(refusal))
}

#[derive(Debug)]
enum HttpPhase {
    Reading(Vec<u8>),
    Writing { bytes: Vec<u8>, written: usize },
    Closing { discarded: usize },
}

/// A connection with a client, which never blocks.
#[derive(Debug)]
pub(super) struct HttpExchange {
    pub(super) socket: TcpStream,
    /// The time at which the connection ends, whatever the client does.
    pub(super) deadline: Instant,
    phase: HttpPhase,
}

impl HttpExchange {
    /// Creates the exchange of a connection whose socket does not block.
    pub(super) fn new(socket: TcpStream, deadline: Instant) -> Self {
        Self { socket, deadline, phase: HttpPhase::Reading(Vec::new()) }
    }

    /// Returns `true` if the connection waits until it can send, not until it receives.
    pub(super) fn is_writing(&self) -> bool {
        matches!(self.phase, HttpPhase::Writing { .. })
    }

    /// Continues as far as the socket allows. Returns `false` once the connection is over.
    pub(super) fn advance(&mut self, answer: &mut impl FnMut(&HttpRequest) -> HttpAnswer) -> bool {
        loop {
            match self.step(answer) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Reads or writes once. Returns `false` at the end.
    fn step(&mut self, answer: &mut impl FnMut(&HttpRequest) -> HttpAnswer) -> std::io::Result<bool> {
        let mut buffer = [0; 2048];
        match &mut self.phase {
            HttpPhase::Reading(head) => {
                let read = self.socket.read(&mut buffer)?;
                if read == 0 {
                    return Ok(false);
                }
                head.extend_from_slice(&buffer[..read]);
                if let Some(request) = read_head(head) {
                    let is_head = request.as_ref().is_ok_and(|request| request.is_head);
                    let answer = request.map_or_else(|refusal| refusal, |request| answer(&request));
                    self.phase = HttpPhase::Writing { bytes: answer.to_bytes(is_head), written: 0 };
                }
            }
            HttpPhase::Writing { bytes, written } => {
                let count = self.socket.write(&bytes[*written..])?;
                *written += count;
                if *written == bytes.len() {
                    self.socket.shutdown(Shutdown::Write)?;
                    self.phase = HttpPhase::Closing { discarded: 0 };
                } else if count == 0 {
                    return Ok(false);
                }
            }
            HttpPhase::Closing { discarded } => {
                let read = self.socket.read(&mut buffer)?;
                *discarded += read;
                return Ok(read > 0 && *discarded < DISCARDED_MAX);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &[u8]) -> Option<u16> {
        read_head(bytes).map(|head| head.map_or_else(|refusal| refusal.status, |_| 200))
    }

    #[test]
    fn r07_a_head_is_read_once_it_is_complete_and_what_is_none_is_refused() {
        let request = b"GET /health?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
        for cut in 0..request.len() {
            assert_eq!(status(&request[..cut]), None, "{cut}");
        }
        let path = "/health".to_owned();
        assert_eq!(read_head(request), Some(Ok(HttpRequest { is_head: false, path: path.clone() })));
        for target in ["http://a:9187/health?b", "HTTP://a/health"] {
            let request = format!("GET {target} HTTP/1.1\r\n\r\n");
            let read = read_head(request.as_bytes()).and_then(Result::ok);
            assert_eq!(read.map(|read| read.path).as_deref(), Some("/health"), "{target}");
        }
        assert_eq!(path_of("http://a"), "");
        assert_eq!(read_head(b"HEAD /health HTTP/1.0\n\n"), Some(Ok(HttpRequest { is_head: true, path })));
        let long = [b"GET / HTTP/1.1\r\nA: ", &[b'a'; HEAD_MAX][..]].concat();
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        for (bytes, expected) in [
            (&b"POST /health HTTP/1.1\r\n\r\n"[..], 405),
            (b"GET /health HTTP/2.0\r\n\r\n", 505),
            (b"\x16\x03\x01\x02\x00\x01", 400),
            (b"GET\r\n\r\n", 400),
            (&long, 431),
            (many.as_bytes(), 431),
        ] {
            assert_eq!(status(bytes), Some(expected), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn r07_an_answer_to_head_has_no_body_and_names_the_length_of_it() {
        let answer = HttpAnswer::text(405, "no");
        let text = |is_head| String::from_utf8(answer.to_bytes(is_head)).unwrap();
        assert!(text(true).ends_with("\r\n\r\n") && text(true).contains("Content-Length: 3\r\nAllow: GET, HEAD\r\n"));
        assert_eq!(text(false), text(true) + "no\n");
    }
}
