//! The notifier that is measured.

use std::time::Duration;

use notifyman::Notifier;
use notifyman::notifier::{Delivery, Policy, Queue};

use crate::load::{Cost, Load, Meter, Progress, config, flood, spin};
use crate::synthetic::{Link, Server, channel};

/// Receives a load with a notifier.
pub fn notifier(load: &Load, policy: Policy, workers: usize) -> Cost {
    let mut server = Server::start(Link::Unix, &[]).unwrap();
    let n = start(&server, policy, workers);
    let (progress, completed) = Progress::new(load);
    let busy = load.busy;
    for id in 0..load.all_subscribers() as u64 {
        let mut counter = progress.counter();
        let callback = move |delivery: &Delivery<'_, u64>| {
            if let Delivery::Notification(n) = delivery {
                counter.count(n.payload().bytes(), 1 + n.folded());
                spin(busy);
            }
        };
        n.subscribe(id, channel(id % load.channels), callback).unwrap();
    }
    listen(&n);
    let meter = Meter::start();
    flood(&mut server, load, &completed);
    let cost = meter.other_threads();
    n.stop();
    cost
}

/// Starts a notifier that drops nothing, whichever side is faster, and does not listen yet.
pub fn start(server: &Server, policy: Policy, workers: usize) -> Notifier<u64> {
    let queue = Queue::new(policy).items(usize::MAX).bytes(usize::MAX);
    Notifier::builder(config(server)).unwrap().queue(queue).workers(workers).autorun(false).start().unwrap()
}

/// Listens to the channels of all subscribers.
pub fn listen(n: &Notifier<u64>) {
    n.autorun(true);
    n.apply().unwrap().wait(Duration::from_secs(60)).unwrap();
}
