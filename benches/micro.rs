//! The cost of processing bytes: framing and intake, iterating over a batch, quoting, and finding the subscribers of a
//! notification. There is no socket and no system call.
//!
//! ```text
//! cargo bench --bench micro
//! ```
//!
//! These modules are private, so they are compiled into the bench. They use no module of a higher layer.

#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "the crate's own files, in part")]
#![allow(clippy::all, reason = "they are checked as part of the crate")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test in all but name")]

#[path = "../src/config/mod.rs"]
mod config;
#[path = "../src/error/mod.rs"]
mod error;
#[path = "../src/gap.rs"]
mod gap;
#[path = "../src/notification/mod.rs"]
mod notification;
#[path = "../src/notifier/place_list.rs"]
mod place_list;
#[path = "../src/proto/mod.rs"]
mod proto;
#[path = "../src/notifier/registry.rs"]
mod registry;
#[path = "../src/row.rs"]
mod row;
#[path = "../src/notifier/subscriber_index.rs"]
mod subscriber_index;

/// The clocks without those of models.
mod clock {
    pub(crate) use std::time::{Instant, SystemTime};

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    pub(crate) fn wall() -> SystemTime {
        SystemTime::now()
    }
}

mod notifier {
    pub(crate) use super::{place_list, subscriber_index};
}

pub use config::{AuthMethod, ChannelBinding, Config, SslMode};
pub use error::{ConfigError, ConnectError, Error, ProtocolError, ServerError, ValueError};
pub use gap::Gap;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use self::notification::Batch;
use self::proto::sql::{self, Limits};
use self::proto::{Binding, READ_SIZE, ReadBuffer, Session};
use self::registry::Registry;

criterion_group!(benches, intake, iteration, quoting, registry_of_one_channel, registry_of_many_channels, notifier);
criterion_main!(benches);

/// The lengths of payloads: constant, or those of numbers with 1 to 6 digits. Each is measured with as many notifications
/// as one read can hold.
const PAYLOADS: [(&str, &[usize]); 4] = [
    ("32", &[32]),
    ("512", &[512]),
    ("7999", &[7_999]),
    ("numbers", &[6, 6, 5, 6, 6, 4, 6, 6, 6, 3, 5, 6, 6, 1, 6, 5, 2]),
];

/// Reads bytes into a batch, which is dropped.
fn intake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("intake");
    for (payload, lengths) in PAYLOADS {
        let (mut session, mut buffer, count, length) = full_read(lengths);
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(payload), |bencher| {
            bencher.iter(|| read(&mut session, &mut buffer, length));
        });
    }
}

/// Iterates over a batch: borrowed, as strings, and owned.
fn iteration(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("iteration");
    for (payload, lengths) in PAYLOADS {
        let (mut session, mut buffer, count, length) = full_read(lengths);
        let batch = read(&mut session, &mut buffer, length);
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("borrowed", payload), |bencher| {
            bencher.iter(|| batch.iter().for_each(|n| _ = black_box(n.payload_bytes())));
        });
        group.bench_function(BenchmarkId::new("str", payload), |bencher| {
            bencher.iter(|| batch.iter().for_each(|n| _ = black_box(n.payload_str())));
        });
        group.bench_function(BenchmarkId::new("owned", payload), |bencher| {
            bencher.iter(|| batch.clone().into_iter().for_each(|n| _ = black_box(n)));
        });
    }
}

/// Checks and quotes statements for the server.
fn quoting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("quoting");
    let names: Vec<String> = (0..1000).map(|n| format!("channel \"{n}\"")).collect();
    group.throughput(Throughput::Elements(1000));
    group.bench_function("listen to 1000", |bencher| {
        bencher.iter(|| {
            let names = sql::checked_channels(&names, Limits::Exact).unwrap();
            sql::listen(names.iter().map(AsRef::as_ref))
        });
    });
    let pairs: Vec<(&str, String)> = (0..1000).map(|n| ("prices", format!("a'b {n}"))).collect();
    group.bench_function("notify 1000", |bencher| {
        bencher.iter(|| sql::checked_notify_many(&pairs, Limits::Exact).unwrap());
    });
}

/// The numbers of subscribers, or channels. Only operations on all of them may cost more with a larger number.
const SIZES: [usize; 3] = [1, 100, 10_000];

/// Many subscribers of one channel: finding each of them, and adding and removing one more.
fn registry_of_one_channel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("registry, subscribers of one channel");
    for size in SIZES {
        let mut registry = Registry::default();
        for id in 0..size {
            registry.subscribe(&id, "prices", id);
        }
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("audience", size), |bencher| {
            bencher.iter(|| (0..size).for_each(|id| _ = black_box(registry.get(&id, black_box("prices")).is_some())));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("subscribe and unsubscribe", size), |bencher| {
            bencher.iter(|| {
                registry.subscribe(&size, "prices", size);
                registry.unsubscribe(&size, "prices").unwrap();
                registry.take_changed()
            });
        });
    }
}

/// Many channels of one subscriber: finding one, and determining the wanted channels after a change.
fn registry_of_many_channels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("registry, channels");
    for size in SIZES {
        let mut registry = Registry::default();
        // The order differs from that of their creation.
        let channels: Vec<String> = (0..size).map(|n| format!("channel {}", n * 7919 % size)).collect();
        for channel in &channels {
            registry.subscribe(&0, channel, 0);
        }
        registry.take_changed();
        let mut cycle = channels.iter().cycle();
        let mut next = || cycle.next().unwrap().as_str();
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("audience", size), |bencher| {
            bencher.iter(|| black_box(registry.get(&0, next()).is_some()));
        });
        group.bench_function(BenchmarkId::new("subscribe and unsubscribe", size), |bencher| {
            bencher.iter(|| {
                registry.subscribe(&1, "one more", 1);
                registry.unsubscribe(&1, "one more").unwrap();
                registry.take_changed()
            });
        });
        group.bench_function(BenchmarkId::new("mute, unmute, and wanted channels", size), |bencher| {
            bencher.iter(|| {
                let channel = [next()];
                [true, false].map(|mute| {
                    registry.mute_channels(&channel, mute).unwrap();
                    registry.take_changed().iter().filter(|channel| registry.is_wanted(channel)).count()
                })
            });
        });
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("all wanted channels", size), |bencher| {
            bencher.iter(|| registry.wanted().for_each(|channel| _ = black_box(channel)));
        });
    }
}

/// Calls of the notifier without a server: one more subscriber of a channel is added, muted and removed.
fn notifier(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("notifier, subscribers of one channel");
    for size in SIZES {
        let n = notifyman::Notifier::builder("host=localhost user=shop").unwrap().autorun(false).build::<usize>();
        for id in 0..size {
            n.subscribe(id, "prices", |_| ()).unwrap();
        }
        group.bench_function(BenchmarkId::new("subscribe, mute, and unsubscribe", size), |bencher| {
            bencher.iter(|| {
                n.subscribe(size, "prices", |_| ()).unwrap();
                n.mute_subscriber(&size).unwrap();
                n.unsubscribe(&size, "prices").unwrap();
            });
        });
    }
}

/// Returns a session that listens, and a buffer that one read has filled with notifications, with their number and the
/// number of bytes. Their lengths are chosen from `lengths` at random.
fn full_read(lengths: &[usize]) -> (Session, ReadBuffer, u64, usize) {
    let mut buffer = ReadBuffer::new(READ_SIZE);
    let mut session = Session::new(&Config::new().user("postgres"), Binding::Unencrypted).unwrap();
    let login = [&frame(b'R', &[0; 4])[..], &frame(b'K', &[0; 8]), &frame(b'Z', b"I")].concat();
    session.space(&mut buffer)[..login.len()].copy_from_slice(&login);
    session.handle_input(&mut buffer, login.len());
    while session.poll().is_some() {}

    let (space, mut end, mut count, mut random) = (session.space(&mut buffer), 0, 0, 1_u64);
    loop {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let text = "y".repeat(lengths[(random >> 33) as usize % lengths.len()]);
        let one = frame(b'A', &[&[0, 0, 0, 7][..], b"cache_invalidate\0", text.as_bytes(), b"\0"].concat());
        let Some(place) = space.get_mut(end..end + one.len()) else { return (session, buffer, count, end) };
        place.copy_from_slice(&one);
        (count, end) = (count + 1, end + one.len());
    }
}

fn read(session: &mut Session, buffer: &mut ReadBuffer, length: usize) -> Batch {
    black_box(session.space(buffer));
    session.handle_input(buffer, length);
    session.take_notifications().unwrap()
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &(4 + body.len() as u32).to_be_bytes()[..], body].concat()
}
