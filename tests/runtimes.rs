//! Streams and tickets on runtimes: tokio, smol, and none; and a web service with axum.

use std::collections::HashMap;
use std::future::IntoFuture as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::{Router, routing::get};
use futures_core::Stream;
use notifyman::notifier::{NotifierStream, OwnedDelivery, Policy, Queue};
use notifyman::{Backoff, Connection, Event, NotificationManager, Notifier};

use crate::support::block_on::block_on;
use crate::support::server::{config, session, utf8};

const COUNT: usize = 200;

/// Returns a channel that no other test uses.
fn channel() -> String {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("channel {} of runtimes", LAST.fetch_add(1, Relaxed))
}

/// Everything without blocking: opens connections, subscribes, sends, receives, and stops.
async fn use_everything() {
    let url = utf8().url();
    let channel = channel();
    let db = Connection::connect_ticket(config(&url)).await.unwrap();
    let mut nm = NotificationManager::new([db]).reconnect(Backoff::default());
    let id = nm.dial(config(&url), [&channel]).unwrap();
    let mut events = nm.into_stream().unwrap();
    let handle = events.handle();
    while !matches!(events.recv().await, Some(Event::Opened(opened)) if opened == id) {}

    let notifier: Notifier = Notifier::builder(config(&url)).unwrap().build();
    notifier.start_ticket().await.unwrap();
    let mut deliveries = notifier.stream(&channel).await.unwrap();
    for n in 0..COUNT {
        handle.notify(id, &channel, n.to_string()).await.unwrap();
    }
    let (mut of_manager, mut of_notifier) = (Vec::new(), Vec::new());
    while of_notifier.len() < COUNT {
        match deliveries.recv().await {
            Some(OwnedDelivery::Notification(n)) => of_notifier.push(n.payload().text().into_owned()),
            other => panic!("{other:?}"),
        }
    }
    while of_manager.len() < COUNT {
        match events.recv().await {
            Some(Event::Notifies(from, batch)) if from == id => {
                of_manager.extend(batch.iter().map(|n| n.payload().into_owned()));
            }
            other => panic!("{other:?}"),
        }
    }
    let sent: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
    assert_eq!((&of_manager, &of_notifier), (&sent, &sent));
    handle.stop().await.unwrap();
    assert!(events.recv().await.is_none());
    notifier.stop_ticket().await.unwrap();
}

#[test]
fn m20_streams_run_without_a_runtime() {
    block_on(use_everything());
}

#[test]
fn m20_streams_run_on_the_current_thread_of_tokio() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(use_everything());
}

#[test]
fn m20_streams_run_on_several_threads_of_tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(use_everything())).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn m20_streams_run_on_smol() {
    smol::block_on(async {
        let tasks: Vec<_> = (0..2).map(|_| smol::spawn(use_everything())).collect();
        for task in tasks {
            task.await;
        }
    });
}

/// The combinators of other crates need no more than the trait.
#[test]
fn m20_streams_have_the_combinators_of_other_crates() {
    use smol::stream::StreamExt as _;
    async fn payloads(stream: impl Stream<Item = OwnedDelivery> + Unpin) -> Vec<String> {
        stream.map(|delivery| delivery.to_string()).take(2).collect().await
    }
    let channel = channel();
    let notifier: Notifier = Notifier::new(config(&utf8().url())).unwrap();
    let stream = block_on(notifier.stream(&channel).into_future()).unwrap();
    let mut db = session();
    db.notify(&channel, "1").unwrap();
    db.notify(&channel, "2").unwrap();
    assert_eq!(block_on(payloads(stream)), ["1", "2"].map(|payload| format!("{channel}: {payload}")));
}

/// Prices by item, and the number of invalidations, as in the crate's example.
type Cache = Arc<Mutex<(HashMap<String, String>, u64)>>;

/// The prices that the service loads.
type Prices = Arc<Mutex<HashMap<String, String>>>;

async fn price(cache: State<(Cache, Prices)>, item: Path<String>) -> String {
    let State((cache, prices)) = cache;
    let before = {
        let cache = cache.lock().unwrap();
        if let Some(price) = cache.0.get(&*item) {
            return format!("cached {price}");
        }
        cache.1
    };
    let price = prices.lock().unwrap().get(&*item).cloned().unwrap_or_default();
    let mut cache = cache.lock().unwrap();
    if cache.1 == before {
        cache.0.insert(item.0, price.clone());
    }
    price
}

async fn invalidate(cache: Cache, mut changes: NotifierStream) {
    while let Some(delivery) = changes.recv().await {
        let mut cache = cache.lock().unwrap();
        cache.1 += 1;
        match delivery {
            OwnedDelivery::Notification(n) => {
                cache.0.remove(&*n.payload().text());
            }
            OwnedDelivery::Missed(_) => cache.0.clear(),
        }
    }
}

fn ask(address: SocketAddr, item: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /prices/{item} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").expect("an answer").1.to_owned()
}

#[test]
fn n13_a_web_service_with_axum_serves_no_stale_price() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (channel, prices, cache) = (channel(), Prices::default(), Cache::default());
    let notifier: Notifier = Notifier::builder(config(&utf8().url())).unwrap().build();
    let address = runtime.block_on(async {
        notifier.start_ticket().await.unwrap();
        let queue = Queue::new(Policy::Coalesce);
        let changes = notifier.stream(&channel).queue(queue).await.unwrap();
        let service = Router::new().route("/prices/{item}", get(price)).with_state((cache.clone(), prices.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, service).into_future());
        tokio::spawn(invalidate(cache.clone(), changes));
        address
    });
    let mut db = session();
    for change in 1..=20_u64 {
        let new = change.to_string();
        prices.lock().unwrap().insert("bread".into(), new.clone());
        db.notify(&channel, "bread").unwrap();
        crate::support::server::eventually("the change arrives", || cache.lock().unwrap().1 == change);
        assert_eq!(ask(address, "bread"), new);
        assert_eq!(ask(address, "bread"), format!("cached {new}"));
    }
}
