//! PostgreSQL LISTEN/NOTIFY over thousands of connections on one poll loop.
//!
//! A [`NotificationManager`] waits on as many connections as there are and yields what each has; a [`Connection`] can
//! also be waited on alone. The protocol is spoken by this crate itself, so that a notification costs a few
//! comparisons, and a frozen server costs nothing.
//!
//! Two loops are all there is to learn. *Idle* is `Some(None)`, *the end* is `None`:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! use std::time::Duration;
//! use notifyman::{Connection, NotificationManager};
//!
//! # fn main() -> Result<(), notifyman::Error> {
//! # let mut conns = Vec::new();
//! # for _ in 0..2 {
//! #     let mut db = Connection::connect(database())?;
//! #     db.listen(["prices"])?;
//! #     conns.push(db);
//! # }
//! # conns[0].notify("prices", "42")?;
//! # let mut heard = 0;
//! for event in NotificationManager::new(conns).timeout(Duration::from_secs(2)) {
//!     match event {
//!         None => {                                     // idle: a safe place to stop or do other work
//! #           break;
//!         }
//!         Some((conn, notifies)) => {
//!             for n in &notifies {
//!                 println!("{conn} {} {} {}", n.channel(), n.payload(), n.pid());
//! #               heard += 1;
//!             }
//!         }
//!     }
//! }
//! # assert_eq!(heard, 2);
//! # Ok(()) }
//! ```
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # use std::time::Duration;
//! # use notifyman::Connection;
//! # fn main() -> Result<(), notifyman::Error> {
//! # let mut db = Connection::connect(database())?;
//! # db.listen(["prices"])?;
//! # db.notify("prices", "42")?;
//! # let mut heard = 0;
//! for n in db.wait(Some(Duration::ZERO)).flatten() {    // poll one connection: all that is pending, then the end
//!     println!("{} {}", n.channel(), n.payload());
//! #   heard += 1;
//! }
//! # assert_eq!(heard, 1);
//! # Ok(()) }
//! ```
//!
//! # Loops that look after their connections
//!
//! A connection that dies is moved to the garbage, with the reason, after everything that had come from it. An idle
//! event is a good time to look there; and since the loop ends when the last connection dies, so is the end:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # use std::time::Duration;
//! # use notifyman::{ConnId, Connection, Error, NotificationManager};
//! # fn log(id: ConnId, error: &Error) { eprintln!("{id} is gone: {error}") }
//! # fn main() -> Result<(), notifyman::Error> {
//! # let mut db = Connection::connect(database())?;
//! # db.listen(["prices"])?;
//! # let mut other = Connection::connect(database())?;
//! # other.query(&format!("SELECT pg_terminate_backend({})", db.pid()))?;
//! # let mut nm = NotificationManager::new([db, other]).timeout(Duration::from_millis(20));
//! # let mut gaps = 0;
//! while let Some(event) = nm.next() {                    // `for event in &mut nm` where the body needs no nm
//!     if event.is_none() {                               // idle
//!         for (id, dead) in nm.take_garbage() {
//!             log(id, dead.error());
//!             nm.revive(id, dead);                       // the same id, the same channels, and a gap in its first batch
//!         }
//!     }
//! #   if let Some((_, batch)) = event { gaps += usize::from(batch.gap().is_some()); break }
//! }
//! # assert_eq!(gaps, 1);
//! for (id, dead) in nm.take_garbage() {
//!     log(id, dead.error());
//! }
//! # Ok(()) }
//! ```
//!
//! [`next_event`](NotificationManager::next_event) is the same queue with nothing left out:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # use std::time::Duration;
//! # use notifyman::{Connection, Event, NotificationManager};
//! # fn main() -> Result<(), notifyman::Error> {
//! # let db = Connection::connect(database())?;
//! # let mut nm = NotificationManager::new([db]).timeout(Duration::from_millis(20));
//! while let Some(event) = nm.next_event() {
//!     match event {
//!         Event::Idle => println!("idle"),
//!         Event::Notifies(id, batch) => println!("{id} has {} notifications", batch.len()),
//!         Event::Lost(id, error) => println!("{id} is gone: {error}"),
//!         Event::Restored(id, gap) => println!("{id} is back; treat {:?} as stale", gap.channels()),
//!         _ => {}
//!     }
//! #   nm.handle().stop();
//! }
//! # Ok(()) }
//! ```
//!
//! # No loop at all
//!
//! A [`Notifier`] has a loop of its own, and calls functions by channel: one session for any number of subscribers, who
//! come and go without anybody missing anything. It brings lost sessions back, and tells each function where something
//! may be missing. What it replaces, and how, is said in [its module](notifier).
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # use notifyman::Notifier;
//! use notifyman::notifier::Delivery;
//! # fn main() -> Result<(), notifyman::Error> {
//! # let (config, (heard, told)) = (database(), std::sync::mpsc::channel());
//! let notifier: Notifier<u32> = Notifier::new(config)?;
//! notifier.subscribe(7, "prices", move |delivery| match delivery {
//!     Delivery::Notification(n) => {
//!         println!("{} {} {} {}", n.id(), n.channel(), n.payload(), n.pid());
//! #       heard.send(n.payload().text().into_owned()).unwrap();
//!     }
//!     Delivery::Missed(missed) => println!("read again: {missed}"),
//! })?;
//! # notifier.notify("prices", "42");
//! # assert_eq!(told.recv().unwrap(), "42");
//! # Ok(()) }
//! ```
//!
//! # When connections are lost
//!
//! A manager can also bring them back by itself, and notice links that died without a word. What each fault looks like,
//! and what is lost, is listed under [`faults`](docs::faults); what it all costs, and how to use several processors, under [`speed`](docs::speed).
//!
//! # Many databases
//!
//! [`NotificationManager::dial`] opens connections inside the loop, [`Connection::connect_many`] before it: side by side,
//! so that a thousand take seconds, and one that fails or hangs holds up no other. What a connection string may say is
//! listed under [`keywords`](docs::keywords): whatever works with `psql` means the same here.
//!
//! # What it is made of
//!
//! ```text
//!        changes           triggers that tell of changes to tables, and a stream that hears them
//!        Notifier          functions, called by channel          a thread that loops, others that call
//!          │
//!   NotificationManager    many connections, one loop            Handle, Ticket: from other threads
//!          │
//!      Connection          one session, and its blocking calls   Config: where, how, as whom
//!       ┌──┴──┐
//!    protocol sockets      bytes in, outputs out │ readiness, dialling, names
//! ```
//!
//! An arrow never points back up, and the two at the bottom don't know each other: the protocol has no socket, no
//! clock and no thread, which is how it can be proved.
//!
//! # What PostgreSQL does, and what follows
//!
//! - A server delivers to a session only **outside a transaction**. A connection that is left in one hears nothing;
//!   a manager reports it ([`Event::InTransaction`]).
//! - It keeps nothing for a listener that is away. What may have been missed is told as a [`Gap`].
//! - Each listening **session** slows every NOTIFY of its database, before version 19: share one among many consumers.
//! - A transaction with a NOTIFY takes a lock on the whole cluster as it commits: send many
//!   [together](Connection::notify_many).
//! - Equal notifications (channel and payload) of one transaction are folded into one; of different ones never.
//! - A standby refuses LISTEN: name all servers, and `target_session_attrs=primary` finds the right one, also after a
//!   failover. A pooler in transaction mode accepts it and delivers nothing.
//!
//! Where nothing comes, [`Connection::diagnose`] and [`Diagnosis::of`] tell which of these it is, or what else, and what
//! to do about it.
//!
//! The limits are PostgreSQL's: a channel is 1 to 63 bytes, a payload up to 7,999
//! (<https://www.postgresql.org/docs/current/sql-notify.html>).
//!
//! # Features
//!
//! The library's default has none. `tls` encrypts connections, by rustls with ring; without it `sslmode` up to `prefer`
//! goes on in clear, and what demands TLS is refused. `json` reads payloads into types and values, and brings `changes`;
//! `python` reads literals of Python, too. `tracing` writes one line for each connection that is lost, restored or given
//! up, and for each callback that panics. `cli` builds the program `notifyman`, with TLS.

#![cfg_attr(not(feature = "tls"), allow(unreachable_code, reason = "there is no value of what encrypts"))]

#[cfg(feature = "json")]
pub mod changes;
mod clock;
mod config;
mod connection;
pub mod docs;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod gap;
mod manager;
mod net;
mod notification;
pub mod notifier;
mod proto;
mod row;

pub use config::{
    AuthMethod, ChannelBinding, Config, LoadBalanceHosts, SslCertMode, SslMode, SslNegotiation, TargetSessionAttrs,
    TlsVersion,
};
pub use connection::{ConnectMany, Connection, Diagnosis, Finding, FindingKind, Severity, Wait};
pub use error::{
    ConfigError, ConnectError, Error, Escaped, ProtocolError, ServerError, TlsError, TlsErrorKind, ValueError,
};
pub use gap::Gap;
pub use manager::{Backoff, Check, ConnId, ConnectionMut, Dead, Event, Handle, NotificationManager, Stats, Ticket};
pub use notification::{Batch, IntoIter, Iter, Notification, NotificationRef};
#[doc(inline)]
pub use notifier::Notifier;
pub use proto::TransactionStatus;
pub use row::Row;
/// The TLS implementation, in the version of which [`Config::tls_config`] takes a configuration.
#[cfg(feature = "tls")]
pub use rustls;

/// The examples of the README are tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
