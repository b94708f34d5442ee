//! Sends numbers on every channel of one cluster, through whatever happens to its server.

use std::thread;
use std::time::Duration;

use notifyman::{Config, Connection};

use crate::books::{Books, Breach, payload};

/// How many channels one transaction writes to.
const AT_ONCE: usize = 20;

pub fn write(books: &Books, site: usize, url: &str) -> Result<(), Breach> {
    let mut db: Option<Connection> = None;
    let mut turn = 0_usize;
    while !books.has_ended() {
        let Some(open) = &mut db else {
            db = Connection::connect(Config::without_env(url).map_err(Breach::because("the server's URL"))?).ok();
            if let Some(db) = &mut db {
                db.set_call_timeout(Duration::from_secs(3));
            }
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let channels = books.channels(site);
        let from = turn * AT_ONCE;
        turn = if from + AT_ONCE >= channels.len() { 0 } else { turn + 1 };
        let numbered = channels.into_iter().skip(from).take(AT_ONCE);
        let numbered: Vec<_> = numbered
            .filter_map(|name| {
                let number = books.next_number(&(site, name.clone()))?;
                Some((name, number))
            })
            .collect();
        let pairs = numbered.iter().map(|(name, number)| (name, payload(site, *number)));
        if open.notify_many(pairs).is_err() {
            for (name, number) in numbered {
                books.unsure(&(site, name), number);
            }
            if open.is_closed() {
                db = None;
            }
        }
        thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}
