//! The filter: ciphertext on the socket's side, plaintext on ours.
//!
//! ```text
//!   socket ──▶ the thread's buffer, decrypted there ──▶ the reader's space
//!                  ▲                   │ torn                 │ no room
//!                  └──── next read ◀───┘      next read ◀─────┘
//! ```
//!
//! It never blocks. A socket without bytes may still have plaintext here, of which [`is_drained`](Tls::is_drained)
//! tells; and a socket that is ready may have none, where what came were the two sides' own affairs (tickets, new
//! keys), which are dealt with unseen.
//!
//! An idle session has no buffer. It keeps no plaintext of ours: bytes that were encrypted count as written once the
//! system has taken them.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};

use super::encryption::Encryption;
use super::scratch::Scratch;
use super::{end_point, fault};
use crate::error::{TlsError, TlsErrorKind};

/// What there is room for at least when it is read, however little is asked for: the largest record and more.
const LEAST_READ: usize = 20 * 1024;
/// As much of a message of the handshake is kept, until its end comes.
const MOST_TORN: usize = 64 * 1024;
/// As much may come in one go without plaintext in it: tickets, say, of which PostgreSQL gives none.
const MOST_UNHEARD: usize = 256 * 1024;
/// What is encrypted at once, at most.
const MOST_WRITTEN: usize = 64 * 1024;
/// How much longer than plaintext ciphertext is at first taken to be.
const OVERHEAD: usize = 512;

/// The TLS session on a socket.
pub(crate) struct Tls {
    session: UnbufferedClientConnection,
    encryption: Encryption,
    /// Ciphertext that ends within a record, or within a message of the two sides.
    torn: Vec<u8>,
    /// Plaintext for which the reader had no room.
    plain: Vec<u8>,
    /// Ciphertext that the system has not taken yet.
    unsent: Vec<u8>,
    /// How many bytes of plaintext are in that: the first of the next write.
    unwritten: usize,
    /// Whether the last read took all that the system had.
    drained: bool,
    /// Whether the server has said that it will send no more.
    ended: bool,
    /// What ends the session, once the plaintext that came before it has been read.
    fault: Option<TlsError>,
}

impl Tls {
    /// Begins a session: the next step is to [shake hands](Self::handshake).
    pub(crate) fn begin(encryption: Encryption) -> Result<Self, TlsError> {
        let mut it = Self {
            session: encryption.session()?,
            encryption,
            torn: Vec::new(),
            plain: Vec::new(),
            unsent: Vec::new(),
            unwritten: 0,
            drained: false,
            ended: false,
            fault: None,
        };
        // What is to be said first.
        it.digest(&mut [], |_| {});
        it.fault.take().map_or(Ok(it), Err)
    }

    /// Goes on with the handshake; `false` while it needs more from the server.
    pub(crate) fn handshake(&mut self, mut socket: impl Read + Write) -> Result<bool, TlsError> {
        loop {
            let flushed = self.flush(&mut socket);
            if let Some(fault) = &self.fault {
                return Err(fault.clone());
            }
            match flushed {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                // What the server said before it went may still be there to be read.
                Err(_) | Ok(()) => {}
            }
            if !self.session.is_handshaking() {
                return self.encryption.check(&self.session).map(|()| true);
            }
            match self.take_in(&mut socket, &mut []) {
                Ok(Some(_)) => {}
                Ok(None) => return Err(self.interrupted("closed the connection")),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.interrupted(&format!("broke the connection ({e})"))),
            }
        }
    }

    /// Reads plaintext; nothing (0) means that the peer will send no more, whether it said so or not.
    pub(crate) fn read(&mut self, mut socket: impl Read + Write, space: &mut [u8]) -> io::Result<usize> {
        if !self.plain.is_empty() {
            return Ok(self.take_kept(space));
        }
        let mut unheard = 0;
        loop {
            if let Some(fault) = &self.fault {
                return Err(fault.clone().into());
            }
            if self.ended {
                return Ok(0);
            }
            // Servers that die say no goodbye; messages know their length, so that nothing is cut unnoticed.
            let Some(Taken { read, came }) = self.take_in(&mut socket, space)? else { return Ok(0) };
            // An answer to new keys, say. If that can't be sent now, it is with the next write.
            let _ = self.flush(&mut socket);
            if came > 0 {
                return Ok(came);
            }
            // Nobody else has a turn until there is something to return.
            unheard += read;
            if unheard > MOST_UNHEARD && self.fault.is_none() {
                self.fault = Some(endless());
            }
        }
    }

    /// Whether a read now would find nothing: the last one took all that there was.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained && self.plain.is_empty() && self.fault.is_none() && !self.ended
    }

    /// Writes plaintext, the same again where it would have blocked.
    pub(crate) fn write(&mut self, mut socket: impl Read + Write, bytes: &[u8]) -> io::Result<usize> {
        if self.unwritten == 0 {
            self.flush(&mut socket)?;
            let some = bytes.get(..MOST_WRITTEN).unwrap_or(bytes);
            self.encrypt(some.len(), |traffic, room| traffic.encrypt(some, room))?;
            self.unwritten = some.len();
        }
        self.flush(&mut socket)?;
        Ok(std::mem::take(&mut self.unwritten).min(bytes.len()))
    }

    /// Tells the server that no more will come, as far as that goes without waiting.
    pub(crate) fn send_close_notify(&mut self, mut socket: impl Read + Write) {
        // Where it fails, the peer has gone already, or reads nothing.
        let _ =
            self.encrypt(0, |traffic, room| traffic.queue_close_notify(room)).and_then(|()| self.flush(&mut socket));
    }

    /// By what it is encrypted, to encrypt another stream to the same server.
    pub(crate) fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// What a login is bound to (`tls-server-end-point`), where the server's certificate has such a thing.
    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        end_point::of(self.session.peer_certificates()?.first()?)
    }

    /// Reads once, and puts plaintext into the space; what has no room there is kept. Nothing if the peer has ended.
    fn take_in(&mut self, socket: &mut impl Read, mut space: &mut [u8]) -> io::Result<Option<Taken>> {
        let before = self.torn.len();
        if before > MOST_TORN {
            self.fault = Some(endless());
            return Ok(Some(Taken { read: 0, came: 0 }));
        }
        // Plaintext is shorter than what it comes in, so that as much as there is space for finds it.
        let mut scratch = Scratch::lend();
        let buffer = scratch.first(space.len().max(before + LEAST_READ));
        let (torn, room) = buffer.split_at_mut(before);
        let read = socket.read(room)?;
        if read == 0 {
            return Ok(None);
        }
        self.drained = read < room.len();
        torn.copy_from_slice(&self.torn);

        let input = buffer.get_mut(..before + read).unwrap_or_default();
        let mut came = 0;
        let mut left = std::mem::take(&mut self.plain);
        let used = self.digest(input, |plain| {
            let (fits, rest) = plain.split_at(plain.len().min(space.len()));
            let (here, free) = std::mem::take(&mut space).split_at_mut(fits.len());
            here.copy_from_slice(fits);
            came += fits.len();
            space = free;
            left.extend_from_slice(rest);
        });
        self.plain = left;
        keep(&mut self.torn, input.get(used..).unwrap_or_default());
        Ok(Some(Taken { read, came }))
    }

    /// The first of the plaintext that was kept.
    fn take_kept(&mut self, space: &mut [u8]) -> usize {
        let (came, left) = self.plain.split_at(self.plain.len().min(space.len()));
        space.iter_mut().zip(came).for_each(|(to, from)| *to = *from);
        let came = came.len();
        self.plain = left.to_vec();
        came
    }

    /// Decrypts where it lies what was read, and says how much of that is done with. What is to be answered goes to
    /// what is to be sent; a fault is kept.
    fn digest(&mut self, input: &mut [u8], mut see: impl FnMut(&[u8])) -> usize {
        let mut used = 0;
        let error = 'records: loop {
            let rest = input.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.session.process_tls_records(rest);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                used += record.discard;
                                see(record.payload);
                            }
                            Err(error) => break 'records error,
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.unsent),
                // It is with what is to be sent, in its place.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                // It needs more, or there is no more to come.
                Ok(_) => return used,
                Err(error) => break error,
            }
        };
        self.fault = Some(fault::of(error, self.session.is_handshaking()));
        // The server is told why. The session must not be shown what was wrong again, nor be asked for more than that.
        while self.session.wants_write() {
            match self.session.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.unsent),
                _ => break,
            }
        }
        used
    }

    /// Encrypts something so long, to what is to be sent.
    fn encrypt(
        &mut self,
        length: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_, ClientConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        if self.fault.is_some() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        // What is torn may be within a message, which must be there whenever the session is asked.
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.session.process_tls_records(&mut self.torn).state
        else {
            return Err(ErrorKind::BrokenPipe.into());
        };
        let encrypted = append(&mut self.unsent, length + OVERHEAD, |room| match write(&mut traffic, room) {
            Err(EncryptError::InsufficientSize(e)) => Err(Some(e.required_size)),
            Err(EncryptError::EncryptExhausted) => Err(None),
            Ok(written) => Ok(written),
        });
        if encrypted { Ok(()) } else { Err(io::Error::other("the session's keys are used up")) }
    }

    fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match socket.write(&self.unsent) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }

    fn interrupted(&self, how: &str) -> TlsError {
        let why = if self.encryption.is_direct() {
            "a server older than 17 doesn't know sslnegotiation=direct: leave that out there"
        } else {
            "its log tells why"
        };
        TlsError::new(TlsErrorKind::Interrupted, format!("the server {how} in the middle of the handshake; {why}"))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.session.protocol_version())
    }
}

/// How much one read has taken from the system, and how much plaintext it has put into the reader's space.
struct Taken {
    read: usize,
    came: usize,
}

fn endless() -> TlsError {
    TlsError::new(TlsErrorKind::Handshake, "the server says something that has no end")
}

/// Keeps these bytes, and no memory if there are none.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        *kept = Vec::new();
    } else {
        kept.clear();
        kept.extend_from_slice(bytes);
    }
}

/// Puts what the session itself has to say behind the bytes.
fn encode(mut data: EncodeTlsData<'_, ClientConnectionData>, to: &mut Vec<u8>) {
    append(to, OVERHEAD, |room| match data.encode(room) {
        Err(EncodeError::InsufficientSize(e)) => Err(Some(e.required_size)),
        Err(EncodeError::AlreadyEncoded) => Err(None),
        Ok(written) => Ok(written),
    });
}

/// Has something written behind the bytes, which says how much it has written, or how much room it needs, if that is
/// all; says whether it could.
fn append(to: &mut Vec<u8>, room: usize, mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> bool {
    let (from, mut room) = (to.len(), room);
    loop {
        to.resize(from + room, 0);
        let written = write(to.get_mut(from..).unwrap_or_default());
        match written {
            Err(Some(needed)) if needed > room => room = needed,
            _ => {
                to.truncate(from + written.unwrap_or_default());
                return written.is_ok();
            }
        }
    }
}
