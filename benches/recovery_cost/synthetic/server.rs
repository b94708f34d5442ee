//! The server's loop: who is readable is answered, who is flooded and has room is sent more.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::CHANNEL;
use super::client::Client;
use crate::msg;

const INPUT: Token = Token(usize::MAX);
const DOOR: Token = Token(usize::MAX - 1);
/// How many bytes of frames are encoded beforehand, at least.
const BLOCK: usize = 256 * 1024;

pub fn serve() -> io::Result<()> {
    let mut door = TcpListener::bind("127.0.0.1:0".parse().unwrap())?;
    println!("{}", door.local_addr()?.port());
    io::stdout().flush()?;
    let mut poll = Poll::new()?;
    let input = io::stdin();
    poll.registry().register(&mut SourceFd(&input.as_raw_fd()), INPUT, Interest::READABLE)?;
    poll.registry().register(&mut door, DOOR, Interest::READABLE)?;
    let (mut events, mut server) = (Events::with_capacity(1024), Server::default());
    loop {
        // Whoever has room and more to be sent isn't told again.
        let timeout = server.is_flooding().then_some(std::time::Duration::ZERO);
        poll.poll(&mut events, timeout)?;
        for event in &events {
            match event.token() {
                INPUT => {
                    if !server.command()? {
                        return Ok(());
                    }
                    poll.registry().reregister(&mut SourceFd(&input.as_raw_fd()), INPUT, Interest::READABLE)?;
                }
                DOOR => {
                    while let Ok((mut stream, _)) = door.accept() {
                        stream.set_nodelay(true)?;
                        server.last += 1;
                        let both = Interest::READABLE | Interest::WRITABLE;
                        poll.registry().register(&mut stream, Token(server.last), both)?;
                        server.clients.insert(server.last, Client::new(stream));
                    }
                }
                Token(which) => server.serve(which, event.is_writable()),
            }
        }
        server.flood();
    }
}

#[derive(Default)]
struct Server {
    clients: BTreeMap<usize, Client>,
    last: usize,
    /// Frames that are all alike, as many as fit.
    block: Vec<u8>,
    frame: usize,
    /// How many are still to be sent one by one, and to whom.
    wakes: usize,
    listeners: Vec<usize>,
    dice: u64,
}

impl Server {
    /// Does what the bench says; false at its end.
    fn command(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let read = io::stdin().lock().read(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["flood", count, payload] => {
                    self.encode(payload.parse().unwrap());
                    let left = count.parse::<usize>().unwrap() * self.frame;
                    let listeners = self.clients.values_mut().filter(|client| client.listens_to(CHANNEL));
                    listeners.for_each(|client| client.begin_flood(left));
                }
                ["wake", count, payload] => {
                    self.encode(payload.parse().unwrap());
                    self.wakes = count.parse().unwrap();
                    let listeners = self.clients.iter().filter(|(_, client)| client.listens_to(CHANNEL));
                    self.listeners = listeners.map(|(which, _)| *which).collect();
                    self.wake_one();
                }
                _ => line.bytes().filter(|byte| *byte == b'.').for_each(|_| self.wake_one()),
            }
        }
        Ok(read > 0)
    }

    fn encode(&mut self, payload: usize) {
        let frame = msg::notification(4711, CHANNEL, &"x".repeat(payload));
        self.frame = frame.len();
        self.block = frame.repeat(BLOCK.div_ceil(self.frame));
    }

    fn wake_one(&mut self) {
        if self.wakes > 0 {
            self.wakes -= 1;
            self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let which = self.listeners[(self.dice >> 33) as usize % self.listeners.len()];
            if let Some(client) = self.clients.get_mut(&which) {
                client.say(&self.block[..self.frame]);
            }
        }
    }

    fn serve(&mut self, which: usize, writable: bool) {
        let Some(client) = self.clients.get_mut(&which) else { return };
        if writable {
            client.make_room();
        }
        let canaries = client.answer();
        if client.is_gone() {
            self.clients.remove(&which);
        }
        for (channel, payload) in canaries {
            let frame = msg::notification(4711, &channel, &payload);
            self.clients
                .values_mut()
                .filter(|client| client.listens_to(&channel))
                .for_each(|client| client.say(&frame));
        }
    }

    fn is_flooding(&self) -> bool {
        self.clients.values().any(Client::can_be_flooded)
    }

    fn flood(&mut self) {
        for client in self.clients.values_mut().filter(|client| client.can_be_flooded()) {
            client.flood(&self.block, self.frame);
        }
    }
}
