//! Sends numbers on every channel of one site, and reconnects after each fault.

use std::thread;
use std::time::Duration;

use notifyman::{Config, Connection};

use crate::ledger::{Ledger, Violation, payload};

/// The number of channels to which one transaction sends.
const CHANNELS_PER_TRANSACTION: usize = 20;

pub fn write(ledger: &Ledger, site: usize, url: &str) -> Result<(), Violation> {
    let mut db: Option<Connection> = None;
    let mut turn = 0_usize;
    while !ledger.has_ended() {
        let Some(open) = &mut db else {
            db = Connection::connect(Config::without_env(url).map_err(Violation::context("the server's URL"))?).ok();
            if let Some(db) = &mut db {
                db.set_call_timeout(Duration::from_secs(3));
            }
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let channels = ledger.channels(site);
        let from = turn * CHANNELS_PER_TRANSACTION;
        turn = if from + CHANNELS_PER_TRANSACTION >= channels.len() { 0 } else { turn + 1 };
        let numbered = channels.into_iter().skip(from).take(CHANNELS_PER_TRANSACTION);
        let numbered: Vec<_> = numbered
            .filter_map(|name| {
                let number = ledger.next_number(&(site, name.clone()))?;
                Some((name, number))
            })
            .collect();
        let pairs = numbered.iter().map(|(name, number)| (name, payload(site, *number)));
        if open.notify_many(pairs).is_err() {
            for (name, number) in numbered {
                ledger.set_uncertain(&(site, name), number);
            }
            if open.is_closed() {
                db = None;
            }
        }
        thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}
