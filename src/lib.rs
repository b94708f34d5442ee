//! PostgreSQL LISTEN/NOTIFY over thousands of connections on one poll loop.
//!
//! A [`NotificationManager`] waits on any number of connections and yields what each has received; a [`Connection`] can
//! also be iterated alone. This crate implements the protocol itself, so a notification costs a few comparisons, and a server
//! that does not respond delays no other connection.
//!
//! | you need | use |
//! |---|---|
//! | one session, which listens, notifies and waits | [`Connection`] |
//! | many sessions in one loop | [`NotificationManager`] |
//! | functions that are called by channel | [`Notifier`] |
//! | a cache that is never stale | [`fence`] |
//! | streams for async code, on any runtime | [Async](#async) (feature `stream`) |
//! | changes to tables | `changes` (feature `changes`) |
//! | a thousand nodes behind two sessions | `relay` (feature `relay`) |
//! | whole answers to common tasks | [`recipes`](docs::recipes) |
//! | to come from another client | [`migrating`](docs::migrating) |
//!
//! This loop restores lost connections, finds dead links, and reports what may have been missed:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! use std::time::Duration;
//! use notifyman::{Backoff, Connection, Event, NotificationManager};
//!
//! # fn main() -> Result<(), notifyman::Error> {
//! # let mut conns = Vec::new();
//! # for _ in 0..2 {
//! #     let mut db = Connection::connect(database())?;
//! #     db.listen(["prices"])?;
//! #     conns.push(db);
//! # }
//! # conns[0].notify("prices", "42")?;
//! # let mut received = 0;
//! let mut nm = NotificationManager::new(conns)
//!     .timeout(Duration::from_secs(2))
//!     .reconnect(Backoff::default())
//!     .heartbeat(Duration::from_secs(15), Duration::from_secs(5));
//! while let Some(event) = nm.next_event() {
//!     match event {
//!         Event::Notifies(conn, notifies) => {
//!             for n in &notifies {
//!                 println!("{conn} {} {} {}", n.channel(), n.payload(), n.pid());
//! #               received += 1;
//!             }
//!         }
//!         // The connection was lost, and is restored.
//!         Event::Restored(conn, gap) => {
//!             println!("{conn}: read again what {:?} guard", gap.channels());
//!         }
//!         Event::Disconnected(conn, error) => println!("{conn}: {error:#}"),
//!         // Not restored: a wrong password, for example. After the last one
//!         // the loop ends.
//!         Event::Lost(conn, error) => println!("{conn} is lost: {error:#}"),
//!         Event::Idle => {
//!             // A safe place to stop, or for other work.
//! #           nm.handle().stop();
//!         }
//!         _ => {}
//!     }
//! }
//! # assert_eq!(received, 2);
//! # Ok(()) }
//! ```
//!
//! **For a remote server enable the feature `tls`, and set `sslmode=verify-full`.** The default, `sslmode=prefer`, verifies no
//! certificate, and connects unencrypted without a warning if the feature is not enabled or the server has no TLS.
//!
//! # The plain loops
//!
//! A manager is also an iterator. In a `for` loop, `None` means idle. (`next()` returns `Some(None)` when idle, and `None` at the
//! end.)
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # use std::time::Duration;
//! # use notifyman::{Connection, NotificationManager};
//! # fn main() -> Result<(), notifyman::Error> {
//! # let mut db = Connection::connect(database())?;
//! # db.listen(["prices"])?;
//! # db.notify("prices", "42")?;
//! # let conns = [db];
//! # let mut received = 0;
//! let secs = Duration::from_secs;
//! for event in NotificationManager::new(conns).timeout(secs(2)) {
//!     match event {
//!         None => {
//!             // Idle: a safe place to stop, or for other work.
//! #           break;
//!         }
//!         Some((conn, notifies)) => {
//!             for n in &notifies {
//!                 println!("{conn} {} {} {}", n.channel(), n.payload(), n.pid());
//! #               received += 1;
//!             }
//!         }
//!     }
//! }
//! # assert_eq!(received, 1);
//! # Ok(()) }
//! ```
//!
//! It reconnects nothing, finds no link that has died silently, and reports no loss: a lost connection moves to the garbage, and
//! after the last one the loop ends. With `reconnect`, a restored connection has its gap in
//! [`Batch::gap`](Batch::gap).
//!
//! A zero timeout polls a single connection:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # use std::time::Duration;
//! # use notifyman::Connection;
//! # fn main() -> Result<(), notifyman::Error> {
//! # let mut db = Connection::connect(database())?;
//! # db.listen(["prices"])?;
//! # db.notify("prices", "42")?;
//! # let mut received = 0;
//! // Everything pending, then the end.
//! for n in db.wait(Some(Duration::ZERO)).flatten() {
//!     println!("{} {}", n.channel(), n.payload());
//! #   received += 1;
//! }
//! # assert_eq!(received, 1);
//! # Ok(()) }
//! ```
//!
//! It ends in the same way if the connection is lost: [`Connection::poll`] returns that as an error.
//!
//! # Lost connections in the loop
//!
//! A connection that is lost moves to the garbage, with the reason, after everything that was received from it. Inspect the
//! garbage at an idle event, and also after the loop, which ends when the last connection is lost:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # use std::time::Duration;
//! # use notifyman::{ConnId, Connection, Error, NotificationManager};
//! # fn log(id: ConnId, error: &Error) { eprintln!("{id} was lost: {error:#}") }
//! # fn main() -> Result<(), notifyman::Error> {
//! # let mut db = Connection::connect(database())?;
//! # db.listen(["prices"])?;
//! # let mut other = Connection::connect(database())?;
//! # other.query(&format!("SELECT pg_terminate_backend({})", db.pid()))?;
//! # let mut nm = NotificationManager::new([db, other]).timeout(Duration::from_millis(20));
//! # let mut gaps = 0;
//! // `for event in &mut nm` where the body needs no `nm`.
//! while let Some(event) = nm.next() {
//!     if event.is_none() {
//!         for (id, dead) in nm.take_garbage() {
//!             log(id, dead.error());
//!             // The same id, the same channels, and a gap in its first batch.
//!             nm.revive(id, dead);
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
//! # Callbacks instead of a loop
//!
//! A [`Notifier`] runs a loop of its own, and calls functions by channel: one session serves any number of subscribers,
//! which can be added and removed without a loss for others. It restores lost sessions, and reports to each function when
//! notifications may be missing. See [its module](notifier).
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # use notifyman::Notifier;
//! use notifyman::notifier::Delivery;
//! # fn main() -> Result<(), notifyman::Error> {
//! # let (config, (sender, receiver)) = (database(), std::sync::mpsc::channel());
//! let notifier = Notifier::new(config)?;
//! notifier.subscribe(7, "prices", move |delivery| match delivery {
//!     Delivery::Notification(n) => {
//!         println!("{} {} {} {}", n.id(), n.channel(), n.payload(), n.pid());
//! #       sender.send(n.payload().text().into_owned()).unwrap();
//!     }
//!     Delivery::Missed(missed) => println!("read again: {missed}"),
//! })?;
//! # notifier.notify("prices", "42");
//! # assert_eq!(receiver.recv().unwrap(), "42");
//! # Ok(()) }
//! ```
//!
//! # Async
//!
//! With the feature `stream` deliveries and events are `futures_core::Stream`s. They need no particular runtime: tokio, smol and
//! a plain `block_on` are tested. The loop runs on a thread of its own and never waits for a task: if that is slow, a policy
//! decides what is dropped, and each loss is reported in its place.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # #[cfg(not(feature = "stream"))]
//! # fn main() {}
//! # #[cfg(feature = "stream")]
//! # #[tokio::main]
//! # async fn main() -> Result<(), notifyman::Error> {
//! use notifyman::Notifier;
//! use notifyman::notifier::OwnedDelivery;
//!
//! # let dsn = database();
//! let notifier: Notifier = Notifier::builder(dsn)?.build();
//! notifier.start_ticket().await?;
//! let mut prices = notifier.stream("prices").await?;
//! # notifier.notify("prices", "42").await?;
//! while let Some(delivery) = prices.recv().await {
//!     match delivery {
//!         OwnedDelivery::Notification(n) => println!("{}", n.payload()),
//!         OwnedDelivery::Missed(why) => println!("read again: {why}"),
//!     }
//! #   break;
//! }
//! # Ok(()) }
//! ```
//!
//! | blocking | without blocking |
//! |---|---|
//! | callbacks of a [`Notifier`] | `Notifier::stream`, for one or several channels |
//! | `for event in nm` | `NotificationManager::into_stream`, for many databases |
//! | [`Connection::connect`] | [`NotificationManager::dial`], [`Connection::connect_ticket`] |
//! | [`Notifier::subscribe`] | [`Notifier::subscribe_ticket`] |
//! | [`Notifier::start`], [`Notifier::stop`] | [`Notifier::start_ticket`], [`Notifier::stop_ticket`] |
//! | [`Connection::listen`], [`Connection::notify`] | [`Handle::listen`], [`Handle::notify`], [`Notifier::notify`] |
//!
//! A [`Ticket`] is a future. Dropping a stream, or the future of its next item, loses nothing of others and waits for nothing.
//!
//! A cache in a web service with axum. A price that changes while it is being loaded is not kept: see [`fence`].
//!
//! ```no_run
//! # fn main() {}
//! # mod service {
//! # async fn load(_: &str) -> String { String::new() }
//! use axum::extract::{Path, State};
//! use axum::{Router, routing::get};
//! use moka::sync::Cache;
//! use notifyman::Notifier;
//! use notifyman::fence::{Entry, Fence, FenceChannel, Invalidator};
//!
//! type Shop = (Cache<String, Entry<String>>, FenceChannel<String>);
//!
//! async fn price(shop: State<Shop>, item: Path<String>) -> String {
//!     let (State((cache, prices)), Path(item)) = (shop, item);
//!     if let Some(entry) = cache.get(&item)
//!         && let Some(price) = prices.fresh(&entry)
//!     {
//!         return price.clone();
//!     }
//!     let lease = prices.begin(&item);
//!     let price = load(&item).await; // from the database
//!     lease.admit(price.clone(), |entry| cache.insert(item, entry));
//!     price
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let dsn = "postgres://app@db.example/shop?sslmode=verify-full";
//!     let notifier = Notifier::builder(dsn)?.build();
//!     notifier.start_ticket().await?;
//!     let (cache, prices) = (Cache::new(10_000), Fence::new().channel("prices"));
//!     let removing = cache.clone();
//!     let invalidator = Invalidator::by_key(
//!         |n| Some(n.payload().into_owned()),
//!         move |item| removing.invalidate(item),
//!     );
//!     prices.subscribe_ticket(&notifier, 1, invalidator)?.await?;
//!
//!     let service = Router::new()
//!         .route("/prices/{item}", get(price))
//!         .with_state((cache, prices));
//!     let listener = tokio::net::TcpListener::bind("0.0.0.0:80").await?;
//!     Ok(axum::serve(listener, service).await?)
//! }
//! # }
//! ```
//!
//! # Automatic recovery
//!
//! A manager can also [reconnect](NotificationManager::reconnect) lost connections itself, and detect links that died silently.
//! The page [`faults`](docs::faults) lists each fault and its effect; [`speed`](docs::speed) has the costs, and shows how to use
//! several processors.
//!
//! # A clean stop
//!
//! [`Handle::stop`] ends a loop from another thread, after what was received has been yielded. For SIGTERM and Ctrl-C, with the
//! crate `signal-hook`:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
//! # #[cfg(not(feature = "cli"))]
//! # fn main() {}
//! # #[cfg(feature = "cli")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use notifyman::{Connection, NotificationManager};
//! use signal_hook::consts::{SIGINT, SIGTERM};
//! use signal_hook::iterator::Signals;
//!
//! # let mut db = Connection::connect(database())?;
//! # db.listen(["prices"])?;
//! let mut nm = NotificationManager::new([db]);
//! let handle = nm.handle();
//! let mut signals = Signals::new([SIGINT, SIGTERM])?;
//! std::thread::spawn(move || {
//!     if signals.forever().next().is_some() {
//!         handle.stop();
//!     }
//! });
//! # signal_hook::low_level::raise(SIGTERM)?;
//! for (conn, batch) in (&mut nm).flatten() {
//!     println!("{conn} has {} notifications", batch.len());
//! }
//! drop(nm);                                             // closes the sessions
//! # Ok(()) }
//! ```
//!
//! # Many databases
//!
//! [`NotificationManager::dial`] opens connections inside the loop, [`Connection::connect_many`] before it: concurrently, so
//! that a thousand take seconds, and one that fails or hangs delays no other. The page [`keywords`](docs::keywords) lists what a
//! connection string can contain: a string that works with `psql` means the same here.
//!
//! # Layers
//!
//! ```text
//!        changes           triggers that report changes to tables, and a stream that receives them
//!         fence            a guard for caches that notifications invalidate
//!        Notifier          functions, called by channel
//!          │
//!   NotificationManager    many connections, one loop            Handle, Ticket: for other threads
//!          │
//!      Connection          one session, and its blocking calls   Config: host, database, user, TLS
//!       ┌──┴──┐
//!    protocol sockets      bytes in, outputs out │ readiness, connecting, names
//! ```
//!
//! A layer uses only those below it, and the protocol and the sockets do not use each other: the protocol has no socket, no
//! clock and no thread. The page [`design`](docs::design) has the reasons, and [`behaviour`](docs::behaviour) the rules.
//!
//! # PostgreSQL's behaviour, and what follows from it
//!
//! - A server delivers to a session only **outside a transaction**. A connection that is left in one receives nothing;
//!   a manager reports it ([`Event::InTransaction`]).
//! - It keeps nothing for an absent listener. Notifications that may have been missed are reported as a [`Gap`].
//! - Before version 19, each listening **session** slows every NOTIFY of its database: share one among many consumers.
//! - A transaction with a NOTIFY takes a lock on the whole cluster when it commits: send many
//!   [together](Connection::notify_many).
//! - Equal notifications (channel and payload) of one transaction are folded into one; those of different transactions never.
//! - A standby refuses LISTEN: list all servers, and `target_session_attrs=primary` finds the right one, also after a
//!   failover. A pooler in transaction mode accepts it and delivers nothing.
//!
//! If no notifications arrive, [`Connection::diagnose`] and [`Diagnosis::of`] report the reason and the remedy.
//!
//! The limits are PostgreSQL's: a channel has 1 to 63 bytes, a payload up to 7,999
//! (<https://www.postgresql.org/docs/current/sql-notify.html>).
//!
//! # Features
//!
//! None is on by default. The crate needs Rust 1.88 or later, and Linux or macOS. The examples are written in the edition 2024.
//!
//! | feature | effect | crates |
//! |---|---|---|
//! | `tls` | encrypted connections | rustls with ring |
//! | `json` | payloads as types and values; `Notification`, `Gap` and `Stats` as JSON | serde, serde_json |
//! | `python` | payloads that are Python literals; implies `json` | |
//! | `stream` | streams for async code, on any runtime | futures-core |
//! | `changes` | the module `changes`: triggers on tables, and a worker; implies `json` | |
//! | `tracing` | events and a transcript for a subscriber | tracing |
//! | `metrics` | [metrics](docs::metrics) for a recorder, such as that of Prometheus | metrics |
//! | `relay` | the module `relay`: relays of notifications onto streams of Redis or Valkey, and readers; implies `tls` | redis |
//! | `cli` | the program `notifyman`; implies `changes`, `metrics`, `relay` and `tls` | clap and others |
//!
//! - Without `tls`, an `sslmode` up to `prefer` connects unencrypted, and a stricter one is refused.
//! - `tracing` writes an event for each connection that is opened, lost, restored or given up, and for each callback that
//!   panics; at the level DEBUG also for each change of a connection's state, and at TRACE for each timer and each message on the wire. The
//!   target is `notifyman`. Messages of a login that may contain a password are written without their content, and others with
//!   it only if the environment variable `NOTIFYMAN_TRACE_CONTENT` is `1`. To see the events, install a subscriber at the start of
//!   `main`, such as that of the crate
//!   `tracing-subscriber` with its feature `env-filter`:
//!
//!   ```text
//!   tracing_subscriber::fmt().with_env_filter("notifyman=debug").init();
//!   ```

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "tls"), allow(unreachable_code, reason = "there is no value of what encrypts"))]

#[cfg(feature = "changes")]
pub mod changes;
mod clock;
mod config;
mod connection;
pub mod docs;
mod error;
pub mod fence;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod gap;
#[cfg(feature = "stream")]
mod handoff;
mod manager;
mod net;
mod notification;
pub mod notifier;
mod proto;
#[cfg(feature = "metrics")]
mod recorder;
#[cfg(feature = "relay")]
pub mod relay;
mod row;
mod sync;
mod ticket;

pub use config::{
    AuthMethod, ChannelBinding, Config, LoadBalanceHosts, PasswordRequest, SslCertMode, SslMode, SslNegotiation,
    TargetSessionAttrs, TlsVersion, UnknownName,
};
pub use connection::{ConnectMany, Connection, Diagnosis, Finding, FindingKind, Severity, Wait};
pub use error::{
    ConfigError, ConnectError, Error, ErrorWith, Escaped, ProtocolError, ServerError, TlsError, TlsErrorKind,
    ValueError,
};
pub use gap::Gap;
#[cfg(feature = "stream")]
pub use manager::EventStream;
pub use manager::{
    Backoff, Check, ConnId, ConnectionMut, Dead, Event, EventSource, Handle, NotificationManager, Stats, Ticket,
};
pub use notification::{Batch, IntoIter, Iter, Notification, NotificationRef};
#[doc(inline)]
pub use notifier::Notifier;
pub use proto::TransactionStatus;
pub use row::Row;
/// The TLS implementation, in the version of which [`Config::tls_config`] takes a configuration.
#[cfg(feature = "tls")]
pub use rustls;

/// The examples of the README are tested, too.
#[cfg(all(doctest, feature = "stream"))]
#[doc = include_str!("../README.md")]
struct Readme;
