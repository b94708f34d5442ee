//! A scripted PostgreSQL server: a list of steps for each connection.
//!
//! ```text
//! let peer = Peer::play(vec![
//!     Step::startup(),
//!     Step::login_ok(),
//!     Step::expect_query(r#"LISTEN "news""#),
//!     Step::send([msg::command_complete("LISTEN"), msg::ready(b'I'), msg::notification(7, "news", "hello")]),
//!     Step::expect_eof(),
//! ]);
//! connect(&peer.url());
//! let received = peer.finish();         // panics at the first difference from the script
//! ```
//!
//! The n-th connection runs the n-th script, each in its own thread; after the last, connections are refused. When a
//! script has ended, its connection is closed: with a reset if the client has sent more, so end with `expect_eof`.
//! Every wait is limited to a minute, so that a wrong client fails instead of hanging.
//!
//! The peer interprets nothing: it sends what the script contains, valid or not.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::msg;

/// The longest wait of a step for the client.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

const PROTOCOL_3: i32 = 3 << 16;
const SSL_REQUEST: i32 = 80_877_103;
const GSSENC_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;

/// The thread of one connection, with the messages received, or the error.
type ScriptThread = JoinHandle<Result<Received, String>>;
type Action = Box<dyn FnOnce(&mut PeerStream) -> Result<(), String> + Send>;

/// A server that runs its scripts; [`Peer::finish`] checks that they ended.
pub struct Peer {
    addr: Option<SocketAddr>,
    ended: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<Vec<ScriptThread>>>,
}

/// The messages received on one connection.
#[derive(Debug, Default)]
pub struct Received {
    /// The parameters of the StartupMessage: `user`, `database`, `application_name`.
    pub startup: BTreeMap<String, String>,
    /// The protocol version of the StartupMessage: 196608 is 3.0.
    pub version: i32,
    /// The messages after it: tag and body.
    pub messages: Vec<(u8, Vec<u8>)>,
}

impl Received {
    /// Returns the texts of all queries, in order.
    pub fn queries(&self) -> Vec<String> {
        self.messages.iter().filter(|(tag, _)| *tag == b'Q').map(|(_, body)| query_text(body)).collect()
    }
}

impl Peer {
    /// Serves one connection on a port of 127.0.0.1.
    pub fn play(script: Vec<Step>) -> Self {
        Self::play_each(vec![script])
    }

    /// Serves as many connections as there are scripts.
    pub fn play_each(scripts: Vec<Vec<Step>>) -> Self {
        Self::on(SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), scripts)
    }

    /// Like [`play_each`](Self::play_each), on the Unix socket of `port` in this directory.
    pub fn play_unix(directory: &Path, port: u16, scripts: Vec<Vec<Step>>) -> Self {
        Self::on(SockAddr::unix(directory.join(format!(".s.PGSQL.{port}"))).unwrap(), scripts)
    }

    /// Serves connections on an address, such as that of a peer that has ended.
    pub fn on(addr: impl Into<SockAddr>, scripts: Vec<Vec<Step>>) -> Self {
        let addr = addr.into();
        let socket = Socket::new(Domain::from(i32::from(addr.family())), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&addr).unwrap();
        socket.listen(128).unwrap();
        socket.set_nonblocking(true).unwrap();
        let addr = socket.local_addr().unwrap().as_socket();
        let ended = Arc::new(AtomicBool::new(false));
        let acceptor = thread::spawn({
            let ended = Arc::clone(&ended);
            move || accept(&socket, scripts, &ended)
        });
        Self { addr, ended, acceptor: Some(acceptor) }
    }

    /// Returns the TCP address.
    pub fn addr(&self) -> SocketAddr {
        self.addr.expect("this peer is on a Unix socket")
    }

    /// Returns a connection string for TCP.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.addr())
    }

    /// Waits until every script has ended, and panics at the first difference.
    pub fn finish(mut self) -> Vec<Received> {
        self.join()
            .into_iter()
            .enumerate()
            .map(|(n, received)| received.unwrap_or_else(|e| panic!("connection {}, {e}", n + 1)))
            .collect()
    }

    fn join(&mut self) -> Vec<Result<Received, String>> {
        let Some(acceptor) = self.acceptor.take() else { return Vec::new() };
        acceptor.join().unwrap().into_iter().map(|script| script.join().unwrap()).collect()
    }
}

impl Drop for Peer {
    /// Prints the differences if the test fails elsewhere. The threads end by themselves.
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        if thread::panicking() {
            for (n, received) in self.join().into_iter().enumerate() {
                received.err().iter().for_each(|error| eprintln!("scripted peer, connection {}, {error}", n + 1));
            }
        }
    }
}

/// A step of a script: an action, or a message to wait for.
pub struct Step {
    name: String,
    action: Action,
}

impl Step {
    /// Runs a function on the connection; its error is the difference from the script.
    pub fn run(
        name: impl Into<String>,
        action: impl FnOnce(&mut PeerStream) -> Result<(), String> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), action: Box::new(action) }
    }

    /// Reads a StartupMessage of protocol 3 and keeps it; refuses TLS and GSSAPI if requested before.
    pub fn startup() -> Self {
        Self::run("startup", |stream| {
            loop {
                let packet = stream.read_packet()?;
                match int(&packet) {
                    SSL_REQUEST | GSSENC_REQUEST => stream.write(b"N")?,
                    version if version & !0xffff == PROTOCOL_3 => return stream.keep_startup(version, &packet[4..]),
                    other => return Err(format!("a first packet of code {other}")),
                }
            }
        })
    }

    /// Reads an SSLRequest and sends an answer: `b"S"`, `b"N"`, or an invalid one.
    pub fn ssl_request(answer: &'static [u8]) -> Self {
        Self::run("SSLRequest", |stream| match int(&stream.read_packet()?) {
            SSL_REQUEST => stream.write(answer),
            other => Err(format!("a first packet of code {other}")),
        })
    }

    /// Accepts the login: sends the messages of [`msg::login`].
    pub fn login_ok() -> Self {
        Self::send([msg::login()])
    }

    /// Sends bytes: a message, several messages, or a part of one.
    pub fn send<B: AsRef<[u8]>>(messages: impl IntoIterator<Item = B>) -> Self {
        let bytes: Vec<u8> = messages.into_iter().flat_map(|message| message.as_ref().to_vec()).collect();
        Self::run(format!("send {} bytes", bytes.len()), move |stream| stream.write(&bytes))
    }

    /// Reads a message with this tag and any body.
    pub fn expect(tag: u8) -> Self {
        Self::run(format!("expect {:?}", tag as char), move |stream| stream.expect(tag).map(drop))
    }

    /// Reads a message with this tag and this body.
    pub fn expect_body(tag: u8, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self::run(format!("expect {:?} with {:?}", tag as char, lossy(&body)), move |stream| {
            let got = stream.expect(tag)?;
            if got == body { Ok(()) } else { Err(format!("got {:?}", lossy(&got))) }
        })
    }

    /// Reads a Query with exactly this text.
    pub fn expect_query(sql: &str) -> Self {
        let sql = sql.to_owned();
        Self::run(format!("expect query {sql:?}"), move |stream| {
            let got = query_text(&stream.expect(b'Q')?);
            if got == sql { Ok(()) } else { Err(format!("got query {got:?}")) }
        })
    }

    /// Reads a Query with any text.
    pub fn expect_any_query() -> Self {
        Self::expect(b'Q')
    }

    /// Answers each Query with its first word as the command tag, until the client terminates or closes.
    pub fn serve() -> Self {
        Self::run("serve", |stream| {
            while let Some((tag, body)) = stream.read_message()? {
                match tag {
                    b'Q' => {
                        let word = query_text(&body).split([' ', ';']).next().unwrap_or_default().to_uppercase();
                        stream.write(&[msg::command_complete(&word), msg::ready(b'I')].concat())?;
                    }
                    b'X' => break,
                    other => return Err(format!("got {:?}", other as char)),
                }
            }
            Ok(())
        })
    }

    /// Reads a CancelRequest for the session of [`login_ok`](Self::login_ok). It arrives on a connection of its own.
    pub fn expect_cancel() -> Self {
        Self::run("expect cancel", |stream| {
            let packet = stream.read_packet()?;
            let expected = [CANCEL_REQUEST, 4242, 1].map(i32::to_be_bytes).concat();
            if packet == expected { Ok(()) } else { Err(format!("got {packet:?}")) }
        })
    }

    /// Reads Terminate, or nothing, and then the end of the stream.
    pub fn expect_eof() -> Self {
        Self::run("expect the end", |stream| match stream.read_message()? {
            Some((b'X', _)) => stream.read_message()?.map_or(Ok(()), |(tag, _)| Err(format!("got {:?}", tag as char))),
            Some((tag, body)) => Err(format!("got {:?} with {:?}", tag as char, lossy(&body))),
            None => Ok(()),
        })
    }

    /// Sends a FIN and continues the script, so that the client can still send.
    pub fn close() -> Self {
        Self::run("close", |stream| stream.socket.shutdown(Shutdown::Write).map_err(|e| e.to_string()))
    }

    /// Sets the connection to close with a reset; this must be the last step.
    pub fn reset() -> Self {
        Self::run("reset", |stream| stream.socket.set_linger(Some(Duration::ZERO)).map_err(|e| e.to_string()))
    }

    /// Waits for this time.
    pub fn pause(time: Duration) -> Self {
        Self::run("pause", move |_| {
            thread::sleep(time);
            Ok(())
        })
    }

    /// Waits for the test: `let (go, gate) = Step::gate();`, then `go.open()`.
    pub fn gate() -> (Gate, Self) {
        let (gate, opened) = mpsc::channel();
        let wait = move |_: &mut PeerStream| {
            opened.recv_timeout(TIME_LIMIT).map_err(|e| format!("not opened by the test: {e}"))
        };
        (Gate(gate), Self::run("gate", wait))
    }

    /// Reports to the test that the script has reached this step: `let (here, mark) = Step::mark();`, then `here.wait()`.
    pub fn mark() -> (Mark, Self) {
        let (here, mark) = mpsc::channel();
        let report = move |_: &mut PeerStream| {
            let _ = here.send(());
            Ok(())
        };
        (Mark(mark), Self::run("mark", report))
    }
}

/// The test's end of [`Step::gate`].
pub struct Gate(mpsc::Sender<()>);

impl Gate {
    /// Lets the script continue.
    pub fn open(self) {
        let _ = self.0.send(());
    }
}

/// The test's end of [`Step::mark`].
pub struct Mark(mpsc::Receiver<()>);

impl Mark {
    /// Waits until the script has reached the mark.
    pub fn wait(self) {
        self.0.recv_timeout(TIME_LIMIT).expect("the script must reach its mark");
    }
}

/// The server's end of one connection.
pub struct PeerStream {
    socket: Socket,
    received: Received,
}

impl PeerStream {
    /// Sends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.socket.write_all(bytes).map_err(|error| format!("writing: {error}"))
    }

    /// Reads `n` bytes; `None` if the client has closed before the first.
    pub fn read(&mut self, n: usize) -> Result<Option<Vec<u8>>, String> {
        let mut bytes = vec![0; n];
        let mut filled = 0;
        while filled < n {
            match self.socket.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(format!("the client closed after {filled} of {n} bytes")),
                Ok(more) => filled += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(format!("nothing was received from the client for {TIME_LIMIT:?}"));
                }
                Err(error) => return Err(format!("reading: {error}")),
            }
        }
        Ok(Some(bytes))
    }

    /// Reads a message with a tag, and keeps it; `None` if the client has closed before.
    pub fn read_message(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        let Some(tag) = self.read(1)? else { return Ok(None) };
        let message = (tag[0], self.read_packet()?);
        self.received.messages.push(message.clone());
        Ok(Some(message))
    }

    /// Reads a length and a body: the rest of a message, or a first packet, which has no tag.
    pub fn read_packet(&mut self) -> Result<Vec<u8>, String> {
        let closed = || "the client closed instead".to_owned();
        let length = int(&self.read(4)?.ok_or_else(closed)?);
        match length {
            4 => Ok(Vec::new()),
            5..=0x1000_0000 => self.read(length as usize - 4)?.ok_or_else(closed),
            _ => Err(format!("got a length of {length}")),
        }
    }

    fn expect(&mut self, tag: u8) -> Result<Vec<u8>, String> {
        match self.read_message()? {
            Some((got, body)) if got == tag => Ok(body),
            Some((got, body)) => Err(format!("got {:?} with {:?}", got as char, lossy(&body))),
            None => Err("the client closed instead".into()),
        }
    }

    fn keep_startup(&mut self, version: i32, body: &[u8]) -> Result<(), String> {
        let body = body.strip_suffix(&[0, 0]).ok_or("a StartupMessage without two NULs at its end")?;
        let words: Vec<String> = body.split(|byte| *byte == 0).map(lossy).collect();
        self.received.startup = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        self.received.version = version;
        Ok(())
    }
}

/// Accepts one connection for each script, each within the time limit of a step.
fn accept(socket: &Socket, scripts: Vec<Vec<Step>>, ended: &AtomicBool) -> Vec<ScriptThread> {
    let mut threads = Vec::new();
    for script in scripts {
        let begin = Instant::now();
        let accepted = loop {
            match socket.accept() {
                Ok((socket, _)) => break Some(socket),
                Err(_) if ended.load(SeqCst) || begin.elapsed() > TIME_LIMIT => break None,
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        };
        threads.push(thread::spawn(move || play(accepted.ok_or("no client connected")?, script)));
    }
    threads
}

fn play(socket: Socket, script: Vec<Step>) -> Result<Received, String> {
    let _ = socket.set_nonblocking(false);
    let _ = socket.set_tcp_nodelay(true); // a Unix socket has no such option
    let _ = socket.set_read_timeout(Some(TIME_LIMIT));
    let _ = socket.set_write_timeout(Some(TIME_LIMIT));
    let mut stream = PeerStream { socket, received: Received::default() };
    for (n, Step { name, action }) in script.into_iter().enumerate() {
        action(&mut stream).map_err(|error| format!("step {} ({name}): {error}", n + 1))?;
    }
    Ok(stream.received)
}

fn int(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(0, |bytes| i32::from_be_bytes(*bytes))
}

fn query_text(body: &[u8]) -> String {
    lossy(body.strip_suffix(&[0]).unwrap_or(body))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
