//! A server of HTTP on one thread, which no client can hold up.
//!
//! ```text
//!   poll: the stop, the listener, each connection ──▶ exchanges, up to 64
//! ```
//!
//! No socket blocks, each connection has a deadline for all that it does, and a new client takes the place of the oldest one if
//! there are too many. A stop waits for no client.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::exchange::{HttpAnswer, HttpExchange, HttpRequest};
use crate::cli::clock;

/// The largest number of clients at a time.
const CLIENTS_MAX: usize = 64;
/// The time after which a system without free descriptors is asked for the next client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests of clients.
pub(super) trait Responder {
    /// Returns the answer to a request. It must not block.
    fn answer(&mut self, request: &HttpRequest) -> HttpAnswer;

    /// Called after every minute, also without requests.
    fn tidy(&mut self);
}

/// A running server. It ends when it is dropped.
pub(super) struct HttpServer {
    pub(super) address: SocketAddr,
    /// The thread ends when this is closed.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts a server at the first of these addresses that is free. A client has `limit` for its request and the answer.
    pub(super) fn start(
        addresses: &[SocketAddr],
        limit: Duration,
        responder: impl Responder + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addresses)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = UnixStream::pair()?;
        let serving = HttpLoop {
            listener,
            stopped,
            limit,
            exchanges: Vec::new(),
            accept_at: None,
            tidy_at: clock::now(),
            responder,
        };
        let thread = thread::Builder::new().name("health".into()).spawn(move || serving.run())?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The state of the thread.
struct HttpLoop<R> {
    listener: TcpListener,
    stopped: UnixStream,
    limit: Duration,
    /// In the order in which they began.
    exchanges: Vec<HttpExchange>,
    /// The time before which no client is accepted, after a failure.
    accept_at: Option<Instant>,
    tidy_at: Instant,
    responder: R,
}

impl<R: Responder> HttpLoop<R> {
    fn run(mut self) {
        loop {
            let now = clock::now();
            self.exchanges.retain(|exchange| exchange.deadline > now);
            self.accept_at = self.accept_at.filter(|at| *at > now);
            if self.tidy_at <= now {
                self.responder.tidy();
                self.tidy_at = now + Duration::from_secs(60);
            }
            let Some(ready) = self.wait(now) else { return };
            for index in ready.into_iter().rev() {
                match index.checked_sub(1) {
                    None => self.accept(),
                    Some(index) => self.advance(index),
                }
            }
        }
    }

    /// Waits until the listener, which is number 0, or connections are ready. `None` is a stop.
    fn wait(&self, now: Instant) -> Option<Vec<usize>> {
        let interest = |is_writing: bool| if is_writing { PollFlags::OUT } else { PollFlags::IN };
        let accepted = if self.accept_at.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut polled = vec![PollFd::new(&self.stopped, PollFlags::IN), PollFd::new(&self.listener, accepted)];
        polled.extend(self.exchanges.iter().map(|it| PollFd::new(&it.socket, interest(it.is_writing()))));
        let deadlines = self.exchanges.iter().map(|exchange| exchange.deadline);
        let next = deadlines.chain(self.accept_at).fold(self.tidy_at, Instant::min);
        let wait = next.saturating_duration_since(now) + Duration::from_millis(1);
        match poll(&mut polled, Timespec::try_from(wait).ok().as_ref()) {
            Ok(_) if !polled[0].revents().is_empty() => None,
            Ok(_) => Some((0..polled.len() - 1).filter(|index| !polled[index + 1].revents().is_empty()).collect()),
            // Interrupted, or the system has no memory.
            Err(_) => Some(Vec::new()),
        }
    }

    fn advance(&mut self, index: usize) {
        let Some(exchange) = self.exchanges.get_mut(index) else { return };
        if !exchange.advance(&mut |request| self.responder.answer(request)) {
            self.exchanges.remove(index);
        }
    }

    /// Accepts the clients that wait. With too many, the oldest ones end.
    fn accept(&mut self) {
        for _ in 0..CLIENTS_MAX {
            match self.listener.accept() {
                Ok((socket, _)) if socket.set_nonblocking(true).is_ok() => {
                    if self.exchanges.len() == CLIENTS_MAX {
                        self.exchanges.remove(0);
                    }
                    self.exchanges.push(HttpExchange::new(socket, clock::now() + self.limit));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) => {
                    // There are no free descriptors.
                    self.exchanges.drain(..self.exchanges.len().min(1));
                    self.accept_at = Some(clock::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpStream};

    use super::super::exchange::HEAD_MAX;
    use super::*;

    struct Paths;

    impl Responder for Paths {
        fn answer(&mut self, request: &HttpRequest) -> HttpAnswer {
            HttpAnswer::text(200, &request.path.repeat(if request.path == "/large" { 1 << 20 } else { 1 }))
        }

        fn tidy(&mut self) {}
    }

    const LIMIT: Duration = Duration::from_secs(10);

    fn server(limit: Duration) -> HttpServer {
        HttpServer::start(&[([127, 0, 0, 1], 0).into()], limit, Paths).unwrap()
    }

    fn connect(server: &HttpServer) -> TcpStream {
        let client = TcpStream::connect(server.address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client
    }

    fn ask(server: &HttpServer, request: &[u8]) -> String {
        let mut client = connect(server);
        client.write_all(request).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn r07_no_client_holds_up_another_one_or_the_end() {
        let server = server(LIMIT);
        let mut slow = Vec::new();
        for request in [&b""[..], b"G", b"GET /health HTTP/1.1\r\n", b"GET /large HTTP/1.1\r\n\r\n"] {
            let mut client = connect(&server);
            client.write_all(request).unwrap();
            slow.push(client);
        }
        // The body never comes, and is not waited for.
        let mut without_body = connect(&server);
        without_body.write_all(b"GET /a HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").unwrap();
        let mut answer = String::new();
        without_body.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n/a\n"), "{answer}");
        slow.extend((0..200).map(|_| connect(&server)));
        // The oldest ones have made place for others.
        let begin = Instant::now();
        assert!(matches!(slow[0].read(&mut [0]), Ok(0) | Err(_)) && begin.elapsed() < LIMIT / 2);
        // Only the direction in which the client receives is open.
        let half = connect(&server);
        half.shutdown(Shutdown::Write).unwrap();
        for _ in 0..3 {
            assert!(ask(&server, b"GET /b HTTP/1.1\r\n\r\n").ends_with("/b\n"));
        }
        let begin = Instant::now();
        drop(server);
        assert!(begin.elapsed() < LIMIT / 2, "{:?}", begin.elapsed());
    }

    #[test]
    fn r07_a_client_has_a_deadline_for_all_that_it_does() {
        let limit = Duration::from_millis(300);
        let server = server(limit);
        let (mut dripping, mut idle, mut unread) = (connect(&server), connect(&server), connect(&server));
        unread.write_all(b"GET /large HTTP/1.1\r\n\r\n").unwrap();
        let begin = Instant::now();
        let mut head = b"GET /a HTTP/1.1\r\nA: ".iter().chain([&b'a'; 1000]);
        while dripping.write_all(&[*head.next().unwrap()]).is_ok() {
            assert!(begin.elapsed() < LIMIT);
            thread::sleep(Duration::from_millis(20));
        }
        assert!(begin.elapsed() >= limit);
        assert!(matches!(idle.read(&mut [0]), Ok(0) | Err(_)));
        let mut answer = Vec::new();
        let is_whole = unread.read_to_end(&mut answer).is_ok() && answer.len() > 7 << 20;
        assert!(!is_whole, "it was not read in time");
    }

    #[test]
    fn r07_an_answer_reaches_clients_that_send_too_much() {
        let server = server(LIMIT);
        let long = [&b"GET / HTTP/1.1\r\nA: "[..], &[b'a'; HEAD_MAX * 2]].concat();
        assert!(ask(&server, &long).starts_with("HTTP/1.1 431 "));
        let body = [&b"GET /a HTTP/1.1\r\nContent-Length: 30000\r\n\r\n"[..], &[b'a'; 30_000]].concat();
        assert!(ask(&server, &body).ends_with("/a\n"));
        assert!(ask(&server, b"POST /a HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        let mut silent = connect(&server);
        silent.shutdown(Shutdown::Write).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    }
}
