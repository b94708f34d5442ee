//! TLS at the least that it can cost: rustls over a buffer that all sessions share. A session keeps the record that a
//! read has torn, and nothing else.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::ConnectionState;

/// What records may add to the little that a client says.
const OVERHEAD: usize = 1024;

pub struct Tls {
    session: UnbufferedClientConnection,
    /// What there is of a record whose end is still to come; it belongs before what is read next.
    pub torn: Vec<u8>,
}

impl Tls {
    /// Begins a session, and gives what is to be said first.
    pub fn begin(config: &Arc<ClientConfig>) -> io::Result<(Self, Vec<u8>)> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let session = UnbufferedClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut tls = Self { session, torn: Vec::new() };
        let hello = tls.hear(&mut [], |_| {})?;
        Ok((tls, hello))
    }

    pub fn is_shaking_hands(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Decrypts where it lies what was read, with what was torn before it, and gives what is to be answered.
    #[inline]
    pub fn hear(&mut self, input: &mut [u8], mut see: impl FnMut(&[u8])) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        let mut at = 0;
        loop {
            let status = self.session.process_tls_records(&mut input[at..]);
            at += status.discard;
            match status.state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        at += record.discard;
                        see(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let from = answer.len();
                    answer.resize(from + 2 * OVERHEAD, 0);
                    let written = data.encode(&mut answer[from..]).map_err(io::Error::other)?;
                    answer.truncate(from + written);
                }
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => break,
                _ => return Err(io::Error::other("the server has ended")),
            }
        }
        // An idle session keeps nothing.
        self.torn = input[at..].to_vec();
        Ok(answer)
    }

    /// What little there is to be said, encrypted.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut said = vec![0; bytes.len() + OVERHEAD];
        match self.session.process_tls_records(&mut self.torn).state.map_err(io::Error::other)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let written = traffic.encrypt(bytes, &mut said).map_err(io::Error::other)?;
                said.truncate(written);
                Ok(said)
            }
            other => Err(io::Error::other(format!("nothing can be said now: {other:?}"))),
        }
    }
}
