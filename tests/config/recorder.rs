//! A server that records the startup packet and the password of each client, and rejects all logins.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::msg;

const SSL_REQUEST: [u8; 4] = 80_877_103_i32.to_be_bytes();
const GSS_REQUEST: [u8; 4] = 80_877_104_i32.to_be_bytes();
const PATIENCE: Duration = Duration::from_secs(60);

/// A login attempt: the port, the startup parameters, and the password if one was sent.
pub type Visit = (u16, BTreeMap<String, String>, Option<String>);

/// Listens on 127.0.0.1 as long as the test runs.
pub struct Recorder {
    pub port: u16,
    visits: Arc<Mutex<mpsc::Receiver<Visit>>>,
}

impl Recorder {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, visits) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that closes the connection early is ignored.
                if let Ok(visit) = stream.and_then(|stream| receive(stream, port))
                    && sender.send(visit).is_err()
                {
                    return;
                }
            }
        });
        Self { port, visits: Arc::new(Mutex::new(visits)) }
    }

    /// Returns the login attempts while `dial` ran, which ends after the server has closed the connection.
    pub fn during(&self, dial: impl FnOnce()) -> Vec<Visit> {
        let visits = self.visits.lock().unwrap();
        dial();
        // An attempt of this function marks the end of those.
        let mut mark = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        mark.write_all(&startup("mark")).unwrap();
        drop(mark);
        let is_mark = |visit: &Visit| visit.1.get("user").is_some_and(|user| user == "mark");
        std::iter::from_fn(|| Some(visits.recv_timeout(PATIENCE).unwrap()))
            .take_while(|visit| !is_mark(visit))
            .collect()
    }
}

fn startup(user: &str) -> Vec<u8> {
    let body = [&196_608_i32.to_be_bytes(), b"user\0".as_slice(), user.as_bytes(), b"\0\0"].concat();
    [&(body.len() as u32 + 4).to_be_bytes(), body.as_slice()].concat()
}

fn receive(mut stream: TcpStream, port: u16) -> std::io::Result<Visit> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let packet = loop {
        let packet = read_body(&mut stream)?;
        if packet != SSL_REQUEST && packet != GSS_REQUEST {
            break packet;
        }
        stream.write_all(b"N")?;
    };
    let texts: Vec<String> = packet[4..].split(|b| *b == 0).map(|text| String::from_utf8_lossy(text).into()).collect();
    let pairs = texts.chunks(2).filter(|pair| !pair[0].is_empty()).map(|pair| (pair[0].clone(), pair[1].clone()));
    // The encoding is this crate's own choice.
    let parameters = pairs.filter(|(name, _)| name != "client_encoding").collect();

    stream.write_all(&msg::auth_cleartext())?;
    let mut tag = [0];
    let password = match stream.read_exact(&mut tag) {
        Ok(()) => {
            let mut body = read_body(&mut stream)?;
            body.pop();
            Some(String::from_utf8_lossy(&body).into_owned())
        }
        Err(_) => None,
    };
    let _ = stream.write_all(&msg::error("FATAL", "28P01", "no login is accepted"));
    Ok((port, parameters, password))
}

/// Reads the body after a length.
fn read_body(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4).min(20_000)];
    stream.read_exact(&mut body)?;
    Ok(body)
}
