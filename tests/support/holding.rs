//! A proxy that forwards notifications only together with the next answer, as Pgpool-II 4.1.0 did.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Listens on a port of 127.0.0.1 in front of one server; its threads end with their connections.
pub struct HoldingProxy {
    addr: SocketAddr,
}

impl HoldingProxy {
    pub fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || forward(client, server_port));
            }
        });
        Self { addr }
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres?sslmode=disable", self.addr)
    }
}

fn forward(client: TcpStream, server_port: u16) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server_port))?;
    let is_busy = Arc::new(Mutex::new(true));
    thread::spawn({
        let (mut client, mut server, is_busy) = (client.try_clone()?, server.try_clone()?, Arc::clone(&is_busy));
        move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = client.read(&mut bytes) {
                *is_busy.lock().unwrap() = true;
                if server.write_all(&bytes[..read]).is_err() {
                    break;
                }
            }
            let _ = server.shutdown(Shutdown::Both);
        }
    });
    let forwarded = answers(&client, &server, &is_busy);
    let _ = client.shutdown(Shutdown::Both);
    forwarded
}

fn answers(mut client: &TcpStream, mut server: &TcpStream, is_busy: &Mutex<bool>) -> io::Result<()> {
    let mut held = Vec::new();
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut frame = head.to_vec();
        frame.resize(1 + length, 0);
        server.read_exact(&mut frame[5..])?;
        let mut is_busy = is_busy.lock().unwrap();
        if head[0] == b'A' && !*is_busy {
            held.extend(frame);
            continue;
        }
        client.write_all(&std::mem::take(&mut held))?;
        client.write_all(&frame)?;
        *is_busy &= head[0] != b'Z';
    }
}
