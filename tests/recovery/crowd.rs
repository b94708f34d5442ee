//! A server for a crowd: it lets everybody in after a while, answers, and hangs up on all at once. It counts dials,
//! and keeps the times of what clients say.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use notifyman::Connection;

use super::support::listener;
use crate::support::msg;

#[derive(Default)]
struct State {
    lines: Vec<TcpStream>,
    /// When each dial since the last hanging up came.
    dials: Vec<Instant>,
    logging_in: usize,
    most_at_once: usize,
    /// Until when the server closes each new connection immediately.
    away_until: Option<Instant>,
    /// When each `Sync` came, and on which line.
    syncs: Vec<(usize, Instant)>,
    over: bool,
}

pub struct Crowd {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Crowd {
    /// Each login takes so long.
    pub fn start(login: Duration) -> Self {
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = door.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in door.incoming() {
                let stream = stream.unwrap();
                let number = {
                    let mut state = shared.lock().unwrap();
                    if state.over {
                        return;
                    }
                    state.dials.push(Instant::now());
                    if state.away_until.is_some_and(|until| Instant::now() < until) {
                        continue;
                    }
                    state.lines.push(stream.try_clone().unwrap());
                    state.logging_in += 1;
                    state.most_at_once = state.most_at_once.max(state.logging_in);
                    state.lines.len()
                };
                let shared = Arc::clone(&shared);
                // An error is a client that went.
                let serve = move || drop(serve(&shared, stream, number, login));
                thread::Builder::new().stack_size(64 << 10).spawn(serve).unwrap();
            }
        });
        Self { addr, state }
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres?connect_timeout=60&sslmode=disable", self.addr)
    }

    pub fn listeners(&self, n: usize) -> Vec<Connection> {
        (0..n).map(|_| listener(&self.url())).collect()
    }

    /// Closes all connections, and each new one for this time; from now on connections are counted.
    pub fn hang_up(&self, away: Duration) {
        let mut state = self.state.lock().unwrap();
        (state.dials, state.most_at_once) = (Vec::new(), 0);
        state.away_until = Instant::now().checked_add(away);
        for line in state.lines.drain(..) {
            let _ = line.shutdown(Shutdown::Both);
        }
    }

    pub fn dials(&self) -> Vec<Instant> {
        self.state.lock().unwrap().dials.clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.state.lock().unwrap().most_at_once
    }

    /// The `Sync`s so far: on which line, and when.
    pub fn syncs(&self) -> Vec<(usize, Instant)> {
        self.state.lock().unwrap().syncs.clone()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.state.lock().unwrap().over = true;
        self.hang_up(Duration::ZERO);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(shared: &Mutex<State>, mut stream: TcpStream, number: usize, login: Duration) -> io::Result<()> {
    let mut body = Vec::new();
    let mut read = |stream: &mut TcpStream| {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        body.resize(i32::from_be_bytes(length) as usize - 4, 0);
        stream.read_exact(&mut body)
    };
    let asked = read(&mut stream);
    thread::sleep(login);
    shared.lock().unwrap().logging_in -= 1;
    asked?;
    stream.write_all(&msg::login())?;
    loop {
        let mut tag = [0];
        stream.read_exact(&mut tag)?;
        read(&mut stream)?;
        match tag[0] {
            b'S' => {
                shared.lock().unwrap().syncs.push((number, Instant::now()));
                stream.write_all(&msg::ready(b'I'))?;
            }
            b'Q' => stream.write_all(&[msg::command_complete("LISTEN"), msg::ready(b'I')].concat())?,
            _ => return Ok(()),
        }
    }
}
