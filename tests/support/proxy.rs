//! A TCP proxy that injects faults: silence, slowness, partial frames, FIN, RST, a cut at any byte.
//!
//! ```text
//! client ──► Proxy::addr() ──► two threads per connection ──► upstream
//! ```
//!
//! A control can be used at any time. States (black hole, pace, limit, refusal) apply to present and later connections,
//! until [`Proxy::resume`]; cuts apply once, to present connections.
//!
//! The proxy does not interpret the bytes. It cannot simulate a dead network: its kernel still acknowledges packets, so
//! keepalive never detects a black hole.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

/// The time that a write may block before the controls are checked again.
const WRITE_TURN: Duration = Duration::from_millis(20);
/// The time limit for connecting to the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A proxy in front of one server; dropping it ends every connection and thread.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts to forward to `upstream`. While that does not listen, connections are closed.
    pub fn start(upstream: SocketAddr) -> Self {
        let reserved = bind(([127, 0, 0, 1], 0).into());
        let addr = reserved.local_addr().unwrap().as_socket().unwrap();
        let listener = listen(addr);
        let shared = Arc::new(Shared::new(upstream));
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            // The port stays bound, so that no other process is given it while connections are refused.
            move || drop((accept(&shared, addr, listener), reserved))
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// Returns the address for clients.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the port of [`addr`](Self::addr), on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Stops forwarding in both directions, also ends of streams, and keeps every socket open.
    pub fn black_hole(&self) {
        self.shared.change(|it| it.held = [true; 2]);
    }

    /// Stops forwarding to the server alone: a link that is half open.
    pub fn black_hole_to_server(&self) {
        self.shared.change(|it| it.held[usize::from(false)] = true);
    }

    /// Stops forwarding to clients alone: a link that is half open.
    pub fn black_hole_to_client(&self) {
        self.shared.change(|it| it.held[usize::from(true)] = true);
    }

    /// Ends a black hole (bytes that were held back are forwarded), slowness, a byte limit, and the refusal of connections.
    pub fn resume(&self) {
        self.shared.change(|it| {
            it.held = [false; 2];
            it.pace = None;
            it.limit = None;
            it.refuse = false;
        });
        self.shared.wait_until(|it| it.listening);
    }

    /// Writes at most this number of bytes at a time, with a pause after each write.
    pub fn slow(&self, bytes_per_write: usize, delay: Duration) {
        self.shared.change(|it| it.pace = Some((bytes_per_write.max(1), delay)));
    }

    /// Writes every byte separately, without pauses.
    pub fn one_byte_at_a_time(&self) {
        self.slow(1, Duration::ZERO);
    }

    /// Ends each connection with a FIN after exactly this number of bytes from the server, counted from its beginning.
    pub fn cut_after(&self, bytes_from_server: u64) {
        self.shared.change(|it| {
            it.limit = Some(bytes_from_server);
            for link in &it.links {
                let lock = link.lock_writing(true);
                let has_reached_limit = link.forwarded.load(SeqCst) >= bytes_from_server;
                drop(lock);
                if has_reached_limit {
                    link.cut_fin();
                }
            }
        });
    }

    /// Closes the present connections with a FIN, after the bytes that were forwarded.
    pub fn cut_fin(&self) {
        self.shared.change(|it| it.links.iter().for_each(|link| link.cut_fin()));
    }

    /// Resets the present connections, and returns when they are closed.
    pub fn cut_rst(&self) {
        let last = self.shared.change(|it| {
            it.links.iter().for_each(|link| link.cut_rst());
            it.accepted
        });
        self.shared.wait_until(|it| it.links.iter().all(|link| link.number > last));
    }

    /// Sends bytes that the server did not send to every present client, at the current position of its stream.
    pub fn inject(&self, bytes: &[u8]) {
        let links = self.shared.lock().links.clone();
        for link in links {
            let _lock = link.lock_writing(true);
            let mut rest = bytes;
            while !rest.is_empty() && !link.is_cut() {
                match (&link.client).write(rest) {
                    Ok(n) => rest = &rest[n..],
                    Err(error) if is_timeout(&error) => {}
                    Err(_) => break,
                }
            }
        }
    }

    /// Closes the port: the system refuses new connections until [`resume`](Self::resume).
    pub fn refuse(&self) {
        self.shared.change(|it| it.refuse = true);
        wake(self.addr);
        self.shared.wait_until(|it| !it.listening);
    }

    /// Sets the server of later connections.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.shared.change(|it| it.upstream = upstream);
    }

    /// Returns the number of connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// Returns the number of present connections.
    pub fn open(&self) -> usize {
        self.shared.lock().links.len()
    }

    /// Waits until there is this number of connections; panics after ten seconds.
    pub fn wait_open(&self, n: usize) {
        let limit = Duration::from_secs(10);
        let wait = self.shared.changed.wait_timeout_while(self.shared.lock(), limit, |it| it.links.len() != n);
        assert!(!wait.unwrap().1.timed_out(), "{} connections, expected {n}", self.open());
    }

    /// Returns the number of bytes forwarded to clients, on all connections.
    pub fn bytes_from_server(&self) -> u64 {
        self.shared.count(true)
    }

    /// Returns the number of bytes forwarded to the server, on all connections.
    pub fn bytes_from_client(&self) -> u64 {
        self.shared.count(false)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|it| it.ended = true);
        wake(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.shared.change(|it| it.links.iter().for_each(|link| link.shut(Shutdown::Both)));
        self.shared.wait_until(|it| it.links.is_empty());
    }
}

/// The state of the controls, and the present connections.
struct Controls {
    upstream: SocketAddr,
    /// Nothing is forwarded to the server, and nothing to clients.
    held: [bool; 2],
    refuse: bool,
    ended: bool,
    listening: bool,
    pace: Option<(usize, Duration)>,
    limit: Option<u64>,
    accepted: u64,
    links: Vec<Arc<ProxiedConnection>>,
}

/// The controls with a lock, and a condition variable that is notified of every change.
struct Shared {
    controls: Mutex<Controls>,
    changed: Condvar,
    from_server: AtomicU64,
    from_client: AtomicU64,
}

impl Shared {
    fn new(upstream: SocketAddr) -> Self {
        let controls = Controls {
            upstream,
            held: [false; 2],
            refuse: false,
            ended: false,
            listening: true,
            pace: None,
            limit: None,
            accepted: 0,
            links: Vec::new(),
        };
        Self {
            controls: Mutex::new(controls),
            changed: Condvar::new(),
            from_server: AtomicU64::new(0),
            from_client: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Controls> {
        self.controls.lock().unwrap()
    }

    fn change<T>(&self, f: impl FnOnce(&mut Controls) -> T) -> T {
        let result = f(&mut self.lock());
        self.changed.notify_all();
        result
    }

    fn wait_until(&self, f: impl Fn(&Controls) -> bool) {
        drop(self.changed.wait_while(self.lock(), |it| !f(it)).unwrap());
    }

    /// Returns the number of bytes forwarded in a direction. Bytes that are being written are waited for.
    fn count(&self, to_client: bool) -> u64 {
        let links = self.lock().links.clone();
        links.iter().for_each(|link| drop(link.lock_writing(to_client)));
        let count = if to_client { &self.from_server } else { &self.from_client };
        count.load(SeqCst)
    }

    /// Waits until there is no black hole in this direction, and returns the controls; fails if the connection has been cut.
    fn wait_to_forward(&self, link: &ProxiedConnection, to_client: bool) -> io::Result<MutexGuard<'_, Controls>> {
        let held = |it: &mut Controls| it.held[usize::from(to_client)] && !it.ended && !link.is_cut();
        let controls = self.changed.wait_while(self.lock(), held).unwrap();
        match controls.ended || link.is_cut() {
            true => Err(ErrorKind::ConnectionAborted.into()),
            false => Ok(controls),
        }
    }

    /// Waits for the pause after a write, which ends early if the pace changes.
    fn pause(&self, link: &ProxiedConnection, pace: Option<(usize, Duration)>) {
        let Some((_, delay)) = pace.filter(|(_, delay)| !delay.is_zero()) else { return };
        let begin = Instant::now();
        let mut controls = self.lock();
        while let Some(rest) = delay.checked_sub(begin.elapsed()) {
            if controls.ended || link.is_cut() || controls.pace != pace {
                return;
            }
            controls = self.changed.wait_timeout(controls, rest).unwrap().0;
        }
    }
}

/// One connection through the proxy: two sockets, which are closed when the last owner drops it.
struct ProxiedConnection {
    number: u64,
    client: TcpStream,
    server: TcpStream,
    /// The locks of a write to the server and of one to the client, held until it is counted.
    writing: [Mutex<()>; 2],
    /// The number of bytes forwarded to the client.
    forwarded: AtomicU64,
    cut: AtomicBool,
}

impl ProxiedConnection {
    fn is_cut(&self) -> bool {
        self.cut.load(SeqCst)
    }

    fn lock_writing(&self, to_client: bool) -> MutexGuard<'_, ()> {
        self.writing[usize::from(to_client)].lock().unwrap()
    }

    fn shut(&self, how: Shutdown) {
        let _ = self.client.shutdown(how);
        let _ = self.server.shutdown(how);
    }

    fn cut_fin(&self) {
        let _lock = self.lock_writing(true);
        self.cut.store(true, SeqCst);
        let _ = self.client.shutdown(Shutdown::Write);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    /// Sets the close to be a reset, and wakes the threads without sending anything.
    fn cut_rst(&self) {
        self.cut.store(true, SeqCst);
        let _ = SockRef::from(&self.client).set_linger(Some(Duration::ZERO));
        let _ = SockRef::from(&self.server).set_linger(Some(Duration::ZERO));
        self.shut(Shutdown::Read);
    }
}

/// Binds a port that other sockets of the proxy can also bind.
fn bind(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket
}

fn listen(addr: SocketAddr) -> TcpListener {
    let socket = bind(addr);
    socket.listen(128).unwrap();
    socket.into()
}

/// Accepts connections, and closes and opens the port according to the controls.
fn accept(shared: &Arc<Shared>, addr: SocketAddr, mut listener: TcpListener) {
    loop {
        let accepted = listener.accept();
        let mut controls = shared.lock();
        if controls.refuse {
            // A process that another test is starting may have inherited the socket, and must not listen on it.
            let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
            drop((accepted, listener));
            controls.listening = false;
            shared.changed.notify_all();
            controls = shared.changed.wait_while(controls, |it| it.refuse && !it.ended).unwrap();
            if controls.ended {
                return;
            }
            listener = listen(addr);
            controls.listening = true;
            shared.changed.notify_all();
            continue;
        }
        if controls.ended {
            return;
        }
        let upstream = controls.upstream;
        drop(controls);
        let Ok((client, _)) = accepted else { continue };
        let server = TcpStream::connect_timeout(&upstream, CONNECT_TIMEOUT);
        let link = shared.change(|it| {
            it.accepted += 1;
            let (writing, forwarded, cut) = Default::default();
            let link = Arc::new(ProxiedConnection {
                number: it.accepted,
                client,
                server: server.ok()?,
                writing,
                forwarded,
                cut,
            });
            it.links.push(Arc::clone(&link));
            if it.limit == Some(0) {
                link.cut_fin();
            }
            Some(link)
        });
        if let Some(link) = link {
            let shared = Arc::clone(shared);
            thread::spawn(move || serve(&shared, link));
        }
    }
}

/// Makes the accepting thread check the controls.
fn wake(addr: SocketAddr) {
    let _ = TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT);
}

/// Serves one connection: forwards from the server on this thread, and from the client on a second one.
fn serve(shared: &Shared, link: Arc<ProxiedConnection>) {
    for socket in [&link.client, &link.server] {
        let _ = socket.set_nodelay(true);
        let _ = socket.set_write_timeout(Some(WRITE_TURN));
    }
    thread::scope(|scope| {
        scope.spawn(|| from_client(shared, &link));
        from_server(shared, &link);
    });
    shared.change(|it| {
        it.links.retain(|other| other.number != link.number);
        drop(link);
    });
}

fn from_server(shared: &Shared, link: &ProxiedConnection) {
    let mut buffer = [0; 16 << 10];
    loop {
        let piece = match (&link.server).read(&mut buffer) {
            Ok(0) if shared.wait_to_forward(link, true).is_ok() => return drop(link.client.shutdown(Shutdown::Write)),
            Ok(0) => return,
            Ok(n) => &buffer[..n],
            Err(_) if shared.wait_to_forward(link, true).is_ok() => return link.cut_rst(),
            Err(_) => return,
        };
        if forward(shared, link, piece, true).is_err() {
            return drop(link.server.shutdown(Shutdown::Both));
        }
    }
}

/// Forwards from the client. After a cut it still reads until the client's end, because closing a socket with unread
/// bytes sends a reset instead of a FIN.
fn from_client(shared: &Shared, link: &ProxiedConnection) {
    let mut buffer = [0; 16 << 10];
    loop {
        let piece = match (&link.client).read(&mut buffer) {
            Ok(0) if shared.wait_to_forward(link, false).is_ok() => return drop(link.server.shutdown(Shutdown::Write)),
            Ok(0) => return,
            Ok(n) => &buffer[..n],
            Err(_) if shared.wait_to_forward(link, false).is_ok() => return link.cut_rst(),
            Err(_) => return,
        };
        let _ = forward(shared, link, piece, false);
    }
}

/// Writes all bytes, and applies the controls at each write.
fn forward(shared: &Shared, link: &ProxiedConnection, mut bytes: &[u8], to_client: bool) -> io::Result<()> {
    let (mut to, count) = match to_client {
        true => (&link.client, &shared.from_server),
        false => (&link.server, &shared.from_client),
    };
    while !bytes.is_empty() {
        let controls = shared.wait_to_forward(link, to_client)?;
        let (pace, limit) = (controls.pace, controls.limit.filter(|_| to_client));
        drop(controls);
        let allowed = limit.map_or(u64::MAX, |limit| limit.saturating_sub(link.forwarded.load(SeqCst)));
        let size = pace.map_or(usize::MAX, |(size, _)| size).min(bytes.len()).min(allowed as usize);
        let lock = link.lock_writing(to_client);
        match to.write(&bytes[..size]) {
            Ok(n) => {
                bytes = &bytes[n..];
                count.fetch_add(n as u64, SeqCst);
                let total = to_client.then(|| link.forwarded.fetch_add(n as u64, SeqCst) + n as u64);
                drop(lock);
                if limit.is_some_and(|limit| total >= Some(limit)) {
                    link.cut_fin();
                }
                shared.pause(link, pace);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
