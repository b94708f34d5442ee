//! TLS at its lowest cost: rustls over a buffer that all sessions share. A session keeps only a partial record.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::ConnectionState;

/// The most bytes that records add to a client's short messages.
const OVERHEAD: usize = 1024;

pub struct Tls {
    session: UnbufferedClientConnection,
    /// A record whose end is missing. The next bytes are read after it.
    pub partial_record: Vec<u8>,
}

impl Tls {
    /// Begins a session, and returns the first bytes to send.
    pub fn begin(config: &Arc<ClientConfig>) -> io::Result<(Self, Vec<u8>)> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let session = UnbufferedClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut tls = Self { session, partial_record: Vec::new() };
        let hello = tls.decrypt(&mut [], |_| {})?;
        Ok((tls, hello))
    }

    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Decrypts in place the bytes that were read, after the partial record, and returns the bytes to send.
    #[inline]
    pub fn decrypt(&mut self, input: &mut [u8], mut see: impl FnMut(&[u8])) -> io::Result<Vec<u8>> {
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
        // An idle session keeps no buffer.
        self.partial_record = input[at..].to_vec();
        Ok(answer)
    }

    /// Encrypts a short message.
    pub fn encrypt(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut records = vec![0; bytes.len() + OVERHEAD];
        match self.session.process_tls_records(&mut self.partial_record).state.map_err(io::Error::other)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let written = traffic.encrypt(bytes, &mut records).map_err(io::Error::other)?;
                records.truncate(written);
                Ok(records)
            }
            other => Err(io::Error::other(format!("cannot encrypt in this state: {other:?}"))),
        }
    }
}
