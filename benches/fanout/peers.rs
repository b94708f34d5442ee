//! Other ways to hand out: direct calls, tokio's broadcast channel, and a channel to another thread.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;

use notifyman::{Connection, Notification, NotificationManager};
use tokio::sync::broadcast::{self, Sender};

use crate::load::{Cost, Counter, Load, Meter, Progress, config, flood};
use crate::synthetic::{Link, Server, channel};

type Closure = Box<dyn FnMut(&[u8]) + Send>;

/// Returns the closures of a channel's subscribers.
fn closures(load: &Load, progress: &Arc<Progress>) -> Vec<Closure> {
    let closure = |mut counter: Counter| Box::new(move |payload: &[u8]| counter.count(payload, 1)) as Closure;
    (0..load.subscribers).map(|_| closure(progress.counter())).collect()
}

/// Channels with a value each, to be found by name. A single one needs no search.
struct Channels<T> {
    names: Vec<String>,
    values: HashMap<String, T>,
    only: Option<T>,
}

impl<T> Channels<T> {
    fn new(load: &Load, mut value: impl FnMut() -> T) -> Self {
        let names: Vec<_> = (0..load.channels).map(channel).collect();
        match load.channels {
            1 => Self { names, values: HashMap::new(), only: Some(value()) },
            _ => Self { values: names.iter().map(|name| (name.clone(), value())).collect(), names, only: None },
        }
    }

    #[inline]
    fn get(&mut self, at: u64) -> &mut T {
        match &mut self.only {
            Some(only) => only,
            None => self.values.get_mut(black_box(&*self.names[(at % self.names.len() as u64) as usize])).unwrap(),
        }
    }
}

fn assert_complete(load: &Load, completed: &Receiver<()>) {
    assert_eq!(completed.try_iter().count() as u64, load.portions);
}

/// Calls the closures in a loop.
pub fn direct(load: &Load) -> Cost {
    let (progress, completed) = Progress::new(load);
    let mut channels = Channels::new(load, || closures(load, &progress));
    let text = load.text();
    let meter = Meter::start();
    for number in 0..load.notifications() {
        channels.get(number).iter_mut().for_each(|call| call(black_box(&text)));
    }
    let cost = meter.this_thread();
    assert_complete(load, &completed);
    cost
}

/// Sends to a broadcast channel for each channel, and polls the receivers in turn whenever `batch` notifications have been
/// sent.
pub fn broadcast(load: &Load, batch: u64) -> Cost {
    let (progress, completed) = Progress::new(load);
    let mut receivers = Vec::new();
    let mut channels = Channels::new(load, || {
        let sender: Sender<Arc<[u8]>> = Sender::new(batch.div_ceil(load.channels) as usize);
        receivers.extend(closures(load, &progress).into_iter().map(|call| (sender.subscribe(), call)));
        sender
    });
    let text = load.text();
    let meter = Meter::start();
    for from in (0..load.notifications()).step_by(batch as usize) {
        for number in from..load.notifications().min(from + batch) {
            channels.get(number).send(text.as_slice().into()).unwrap();
        }
        receivers.iter_mut().for_each(|(receiver, call)| receive(receiver, call));
    }
    let cost = meter.this_thread();
    assert_complete(load, &completed);
    cost
}

fn receive(receiver: &mut broadcast::Receiver<Arc<[u8]>>, call: &mut Closure) {
    while let Ok(payload) = receiver.try_recv() {
        call(&payload);
    }
}

/// Receives with a manager and makes each notification owned, so that another thread could have it.
pub fn owned(load: &Load) -> Cost {
    let (progress, completed) = Progress::new(&Load { subscribers: 1, channels: 1, ..*load });
    let mut counter = progress.counter();
    receive_owned(load, &completed, move |n| counter.count(n.payload_bytes(), 1))
}

/// Receives like [`owned`], and sends each notification to another thread by a channel with room for all that are
/// outstanding.
pub fn hop(load: &Load) -> Cost {
    let (progress, completed) = Progress::new(load);
    let mut call = closures(load, &progress).remove(0);
    let (sender, receiver) = crossbeam_channel::bounded::<Notification>(load.outstanding() as usize);
    thread::spawn(move || receiver.into_iter().for_each(|n| call(n.payload_bytes())));
    receive_owned(load, &completed, move |n| sender.send(n).unwrap())
}

fn receive_owned(load: &Load, completed: &Receiver<()>, mut take: impl FnMut(Notification) + Send + 'static) -> Cost {
    let mut server = Server::start(Link::Unix, &[]).unwrap();
    let mut db = Connection::connect(config(&server)).unwrap();
    db.listen((0..load.channels).map(channel)).unwrap();
    let (nm, expected) = (NotificationManager::new([db]), load.notifications());
    let meter = Meter::start();
    let receiving = thread::spawn(move || {
        let mut received = 0;
        for (_, batch) in nm.flatten() {
            received += batch.len() as u64;
            batch.into_iter().for_each(&mut take);
            if received == expected {
                return;
            }
        }
    });
    flood(&mut server, load, completed);
    let cost = meter.other_threads();
    receiving.join().unwrap();
    cost
}
