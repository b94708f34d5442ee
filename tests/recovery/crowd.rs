//! A server for many clients: it accepts logins after a delay, answers, and can close all sessions together. It counts dials
//! and records the times of messages.

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
    /// The times of all dials since the sessions were last closed.
    dials: Vec<Instant>,
    logging_in: usize,
    most_concurrent: usize,
    /// The time until which the server closes every new session immediately.
    away_until: Option<Instant>,
    /// The time and the session of each `Sync`.
    syncs: Vec<(usize, Instant)>,
    over: bool,
}

pub struct Crowd {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Crowd {
    /// The delay of each login.
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
                    state.most_concurrent = state.most_concurrent.max(state.logging_in);
                    state.lines.len()
                };
                let shared = Arc::clone(&shared);
                // An error means that the client has closed the session.
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

    /// Closes all sessions, and every new session for this time. Dials are counted from now on.
    pub fn close_all(&self, away: Duration) {
        let mut state = self.state.lock().unwrap();
        (state.dials, state.most_concurrent) = (Vec::new(), 0);
        state.away_until = Instant::now().checked_add(away);
        for line in state.lines.drain(..) {
            let _ = line.shutdown(Shutdown::Both);
        }
    }

    pub fn dials(&self) -> Vec<Instant> {
        self.state.lock().unwrap().dials.clone()
    }

    pub fn most_concurrent(&self) -> usize {
        self.state.lock().unwrap().most_concurrent
    }

    /// Returns the session and the time of each `Sync` so far.
    pub fn syncs(&self) -> Vec<(usize, Instant)> {
        self.state.lock().unwrap().syncs.clone()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.state.lock().unwrap().over = true;
        self.close_all(Duration::ZERO);
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
