//! Properties of the filter: in every division of the stream, both sides receive what the other has sent, and no input
//! of the server is harmful.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, version};

use super::{Encryption, Tls};
use crate::config::Config;

/// The sizes of reads or writes, used in turn; 0 means that the operation would block.
type IoSizes = Vec<usize>;

/// The socket, and the server behind it, in memory.
struct MemorySocket {
    server: ServerConnection,
    /// The bytes on the way to the client.
    down: VecDeque<u8>,
    /// The bytes that the server has received.
    received: Vec<u8>,
    /// The number of bytes that the client has sent, and the server's error in reading them.
    sent: usize,
    error: Option<rustls::Error>,
    cuts: Box<dyn Iterator<Item = usize>>,
}

impl MemorySocket {
    fn new(kind: TlsVariant, cuts: IoSizes) -> Self {
        Self::with(Arc::unwrap_or_clone(server_config(kind)), cuts)
    }

    fn with(config: ServerConfig, cuts: IoSizes) -> Self {
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        server.set_buffer_limit(None);
        let (down, cuts) = (VecDeque::new(), Box::new(cuts.into_iter().cycle()));
        Self { server, down, received: Vec::new(), sent: 0, error: None, cuts }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.server.writer().write_all(bytes).unwrap();
        self.send();
    }

    fn renew_keys(&mut self) {
        self.server.refresh_traffic_keys().unwrap();
        self.send();
    }

    fn send(&mut self) {
        while self.server.wants_write() {
            self.server.write_tls(&mut self.down).unwrap();
        }
    }

    fn cut(&mut self, most: usize) -> io::Result<usize> {
        let cut = self.cuts.next().unwrap().min(most);
        if cut == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(cut) }
    }
}

impl Read for MemorySocket {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let cut = self.cut(space.len().min(self.down.len()))?;
        space.iter_mut().zip(self.down.drain(..cut)).for_each(|(to, from)| *to = from);
        Ok(cut)
    }
}

impl Write for MemorySocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let cut = self.cut(bytes.len())?;
        let mut taken = &bytes[..cut];
        self.sent += cut;
        while !taken.is_empty() {
            self.server.read_tls(&mut taken).unwrap();
            // The client receives the error as an alert.
            self.error = self.error.take().or(self.server.process_new_packets().err());
            let _ = self.server.reader().read_to_end(&mut self.received);
        }
        self.send();
        Ok(cut)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The properties of a TLS session that are tested.
#[derive(Debug, Clone, Copy)]
struct TlsVariant {
    old: bool,
    /// The largest content of the server's records.
    record: usize,
}

fn kinds() -> impl Strategy<Value = TlsVariant> {
    let records = prop_oneof![32..200_usize, 32..16_000_usize, Just(16_384)];
    (any::<bool>(), records).prop_map(|(old, record)| TlsVariant { old, record })
}

fn server_config(kind: TlsVariant) -> Arc<ServerConfig> {
    static OWN: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (own.cert.der().to_vec(), own.signing_key.serialize_der())
    });
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(OWN.1.clone()));
    let version = if kind.old { &version::TLS12 } else { &version::TLS13 };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![OWN.0.clone().into()], key)
        .unwrap();
    config.max_fragment_size = Some(kind.record);
    Arc::new(config)
}

fn client() -> Tls {
    let config = Config::without_env("host=localhost sslmode=require").unwrap();
    Tls::begin(Encryption::read_now(&config, Some("localhost"), None).unwrap()).unwrap()
}

/// A step of the test.
#[derive(Debug, Clone)]
enum FilterStep {
    ServerSays(usize),
    ServerRenewsKeys,
    ClientSays(usize),
    /// The client reads into a space of this size.
    ClientReads(usize),
}

fn steps() -> impl Strategy<Value = Vec<FilterStep>> {
    let step = prop_oneof![
        3 => (1..40_000_usize).prop_map(FilterStep::ServerSays),
        1 => Just(FilterStep::ServerRenewsKeys),
        3 => (1..100_000_usize).prop_map(FilterStep::ClientSays),
        6 => prop_oneof![1..64_usize, 64..70_000_usize].prop_map(FilterStep::ClientReads),
    ];
    prop::collection::vec(step, 0..30)
}

/// Generates sizes of which at least one is large enough that the test ends.
fn cuts() -> impl Strategy<Value = IoSizes> {
    let cut = prop_oneof![Just(0), 1..10_usize, 1..5_000_usize, Just(usize::MAX)];
    (prop::collection::vec(cut, 0..6), 500..70_000_usize).prop_map(|(mut cuts, long)| {
        cuts.push(long);
        cuts
    })
}

/// Returns bytes that differ by position.
fn bytes(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|n| (n % 251) as u8).collect()
}

/// Repeats an operation until it does not return `WouldBlock`.
fn patiently<T>(mut act: impl FnMut() -> io::Result<T>) -> T {
    for _ in 0..1_000_000 {
        match act() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            other => return other.unwrap(),
        }
    }
    panic!("nothing comes any more");
}

fn handshake(tls: &mut Tls, wire: &mut MemorySocket) {
    patiently(|| match tls.handshake(&mut *wire) {
        Ok(true) => Ok(()),
        Ok(false) => Err(ErrorKind::WouldBlock.into()),
        Err(error) => panic!("{error}"),
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_side_receives_what_the_other_has_sent(kind in kinds(), cuts in cuts(), steps in steps()) {
        let (mut tls, mut wire) = (client(), MemorySocket::new(kind, cuts));
        handshake(&mut tls, &mut wire);
        let mut received = Vec::new();
        let (mut by_server, mut by_client) = (0, 0);
        for step in steps {
            match step {
                FilterStep::ServerSays(length) => {
                    wire.say(&bytes(by_server, length));
                    by_server += length;
                }
                FilterStep::ServerRenewsKeys if kind.old => {}
                FilterStep::ServerRenewsKeys => wire.renew_keys(),
                FilterStep::ClientSays(length) => {
                    let said = bytes(by_client, length);
                    let mut rest = &said[..];
                    while !rest.is_empty() {
                        let written = patiently(|| tls.write(&mut wire, rest));
                        rest = &rest[written..];
                    }
                    by_client += length;
                }
                FilterStep::ClientReads(room) => {
                    let mut space = vec![0; room];
                    match tls.read(&mut wire, &mut space) {
                        Ok(read) => received.extend_from_slice(&space[..read]),
                        Err(e) => prop_assert_eq!(e.kind(), ErrorKind::WouldBlock),
                    }
                }
            }
        }
        let mut space = vec![0; 10_000];
        while received.len() < by_server {
            let read = patiently(|| tls.read(&mut wire, &mut space));
            prop_assert!(read > 0);
            received.extend_from_slice(&space[..read]);
        }
        prop_assert!(received == bytes(0, by_server), "what the server said");
        prop_assert!(wire.received == bytes(0, by_client), "what the client said");
    }

    #[test]
    fn damage_is_harmless(
        kind in kinds(),
        cuts in cuts(),
        in_handshake in any::<bool>(),
        at in any::<prop::sample::Index>(),
        damage in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let (mut tls, mut wire) = (client(), MemorySocket::new(kind, cuts));
        if !in_handshake {
            handshake(&mut tls, &mut wire);
            wire.say(&bytes(0, 30_000));
        }
        let mut received = Vec::new();
        let mut space = vec![0; 5_000];
        let mut is_damaged = false;
        for _ in 0..5_000 {
            if !is_damaged && !wire.down.is_empty() {
                let at = at.index(wire.down.len());
                wire.down.iter_mut().skip(at).zip(&damage).for_each(|(byte, damage)| *byte ^= damage);
                is_damaged = true;
            }
            // It may be called again after any error.
            if in_handshake && tls.handshake(&mut wire).is_ok_and(|is_done| !is_done) {
                continue;
            }
            let _ = tls.write(&mut wire, b"still there?");
            if let Ok(read) = tls.read(&mut wire, &mut space) {
                received.extend_from_slice(&space[..read]);
            }
        }
        tls.send_close_notify(&mut wire);
        prop_assert!(received == bytes(0, received.len()), "what was received was said");
    }
}

#[test]
fn a_message_without_an_end_is_rejected() {
    let (mut tls, mut wire) =
        (client(), MemorySocket::new(TlsVariant { old: false, record: 16_384 }, vec![usize::MAX]));
    // The header of a ServerHello with a length of 60,000 bytes, and its body in records of one byte.
    wire.down.extend([22, 3, 3, 0, 4, 2, 0, 0xea, 0x60]);
    wire.down.extend([22, 3, 3, 0, 1, 7].repeat(30_000));
    let error = (0..100).find_map(|_| tls.handshake(&mut wire).err()).unwrap();
    assert!(error.to_string().contains("without an end"), "{error}");
    assert!(wire.down.len() > 90_000, "{} left", wire.down.len());
}

#[test]
fn an_endless_stream_without_plaintext_is_rejected() {
    // Tickets in records that they fill, so that none is left incomplete.
    let mut config = Arc::unwrap_or_clone(server_config(TlsVariant { old: false, record: 200 }));
    config.send_tls13_tickets = 8_000;
    let (mut tls, mut wire) = (client(), MemorySocket::with(config, vec![usize::MAX]));
    handshake(&mut tls, &mut wire);
    let error = tls.read(&mut wire, &mut [0; 64 * 1024]).unwrap_err();
    assert!(error.to_string().contains("without an end"), "{error}");
    assert!(wire.down.len() > 300_000, "{} left", wire.down.len());
}

#[test]
fn is_drained_is_correct() {
    let (mut tls, mut wire) =
        (client(), MemorySocket::new(TlsVariant { old: false, record: 16_384 }, vec![usize::MAX]));
    handshake(&mut tls, &mut wire);
    wire.say(&bytes(0, 300_000));
    let (mut received, mut reads) = (0, 0);
    while reads == 0 || !tls.is_drained() {
        received += tls.read(&mut wire, &mut [0; 64 * 1024]).unwrap();
        reads += 1;
    }
    assert!(received == 300_000 && wire.down.is_empty());
    assert!(reads <= 6, "{reads} reads");
    // The buffer is smaller than the plaintext, and the socket is either empty or not.
    for length in [10_000, 30_000] {
        wire.say(&bytes(0, length));
        assert_eq!(tls.read(&mut wire, &mut [0; 7]).unwrap(), 7);
        assert!(!tls.is_drained());
        let mut rest = length - 7;
        while rest > 0 {
            rest -= tls.read(&mut wire, &mut vec![0; length]).unwrap();
        }
    }
}

/// Opens a session and reads everything that the server has sent.
fn open() -> (Tls, MemorySocket) {
    let (mut tls, mut wire) =
        (client(), MemorySocket::new(TlsVariant { old: false, record: 16_384 }, vec![usize::MAX]));
    handshake(&mut tls, &mut wire);
    wire.say(b"hello");
    assert_eq!(tls.read(&mut wire, &mut [0; 64]).unwrap(), 5);
    assert!(tls.is_drained() && wire.down.is_empty());
    (tls, wire)
}

#[test]
fn the_end_of_a_session_is_read_although_the_socket_is_drained() {
    let (mut tls, mut wire) = open();
    wire.server.send_close_notify();
    wire.say(b"");
    let (mut other, mut damaged) = open();
    damaged.say(b"the last");
    damaged.down.extend([23, 3, 3, 0, 20].into_iter().chain([7; 20]));
    assert_eq!(other.read(&mut damaged, &mut [0; 64]).unwrap(), 8);
    assert!(!other.is_drained(), "the damage is not reported");
    assert!(other.read(&mut damaged, &mut [0; 64]).unwrap_err().to_string().contains("TLS"));

    assert_eq!(tls.read(&mut wire, &mut [0; 64]).unwrap(), 0, "a close_notify");
    assert!(!tls.is_drained());
    assert_eq!(tls.read(&mut wire, &mut [0; 64]).unwrap(), 0, "again");
}

#[test]
fn an_invalid_record_is_answered_with_an_alert_and_nothing_else() {
    let (mut tls, mut wire) = open();
    wire.down.extend([23, 3, 3, 0, 20].into_iter().chain([7; 20]));
    assert!(tls.read(&mut wire, &mut [0; 64]).is_err());
    assert!(matches!(wire.error, Some(rustls::Error::AlertReceived(_))), "{:?}", wire.error);
    let sent = wire.sent;
    assert_eq!(tls.write(&mut wire, b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    tls.send_close_notify(&mut wire);
    assert_eq!(wire.sent, sent, "nothing follows the alert");
}

#[test]
fn plaintext_can_be_written_while_a_message_of_the_server_is_incomplete() {
    // A ticket that takes several records, of which `come` bytes have arrived.
    let mut config = Arc::unwrap_or_clone(server_config(TlsVariant { old: false, record: 32 }));
    config.send_tls13_tickets = 1;
    for come in 1.. {
        let mut wire = MemorySocket::with(config.clone(), vec![usize::MAX]);
        let mut tls = client();
        handshake(&mut tls, &mut wire);
        if come >= wire.down.len() {
            assert!(come > 100, "the ticket is {} bytes", wire.down.len());
            break;
        }
        let mut rest = wire.down.split_off(come);
        let read = tls.read(&mut wire, &mut [0; 64]);
        assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock, "{come}");
        assert_eq!(tls.write(&mut wire, b"meanwhile").unwrap(), 9, "{come}");
        wire.down.append(&mut rest);
        wire.say(b"later");
        assert_eq!(tls.read(&mut wire, &mut [0; 64]).unwrap(), 5, "{come}");
        assert_eq!(wire.received, b"meanwhile", "{come}");
    }
}
