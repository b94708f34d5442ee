//! The threads that read: one that listens at all databases, and for each database one that looks after its tables.
//!
//! ```text
//!   listener:  NotificationManager over all databases ──┐
//!   clerk 1:   outbox, spilled payloads, queue usage ───┼──> Queue ──> Changes
//!   clerk 2:   ..                                     ──┘
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Item, Queue};
use super::server::{cannot, first, is, text};
use super::{sql, status};
use crate::config::Config;
use crate::connection::Connection;
use crate::error::Error;
use crate::manager::{ConnId, Event, NotificationManager};

/// The channel of all changes.
pub(crate) const CHANNEL: &str = "notifyman";

/// How often an outbox is looked at that was empty.
const POLL: Duration = Duration::from_millis(500);
/// How often the rest is looked at.
const CHECK: Duration = Duration::from_secs(30);
/// How long a clerk waits before it dials again.
const REDIAL: Duration = Duration::from_secs(2);
/// How many payloads of an outbox are read at once, and about how many bytes.
const POST: usize = 1_000;
const POST_BYTES: usize = 16 << 20;

/// Listens until it is stopped, or until no connection is left and none can be brought back.
pub(crate) fn listen(mut manager: NotificationManager, databases: &HashMap<ConnId, usize>, queue: &Queue) {
    let place = |id| databases.get(&id).copied().unwrap_or_default();
    while let Some(event) = manager.next_event() {
        match event {
            Event::Notifies(id, batch) => {
                for n in &batch {
                    queue.push(place(id), Item::Notified(n.payload_bytes().into()));
                }
            }
            Event::Lost(id, error) => {
                let comes_back = manager.restoring().any(|(restoring, _)| restoring == id);
                queue.push(place(id), if comes_back { Item::Away(error) } else { Item::Lost(error) });
            }
            Event::Restored(id, gap) => queue.push(place(id), Item::Gap(gap)),
            Event::Opened(_) | Event::Idle | Event::InTransaction(_) => {}
        }
    }
}

/// How a database's changes come, as it was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ways {
    /// By its outbox, rather than by NOTIFY.
    pub(crate) outbox: bool,
    /// Long payloads in a table.
    spills: bool,
}

impl Ways {
    /// Asks; an error where nothing is installed.
    pub(crate) fn ask(db: &mut Connection) -> Result<Self, Error> {
        let asked = first(db, &sql::ways());
        match asked {
            Ok(Some(row)) => Ok(Self { outbox: is(&row, 0), spills: is(&row, 1) }),
            Ok(None) => Err(cannot("what is installed here is damaged: run `notifyman build`")),
            Err(error) if matches!(error.sqlstate(), Some("42P01" | "3F000" | "42703")) => Err(cannot(format!(
                "nothing is installed at {}, or it is damaged: run `notifyman build` there",
                db.config()
            ))),
            // Whoever may not see it can listen all the same.
            Err(error) if error.sqlstate() == Some("42501") => Ok(Self { outbox: false, spills: false }),
            Err(error) => Err(error),
        }
    }
}

/// Looks after one database's tables.
pub(crate) struct Clerk {
    pub(crate) database: usize,
    pub(crate) config: Config,
    /// Whether somebody listens to what the database notifies.
    pub(crate) listens: bool,
    pub(crate) keep_spilled: Duration,
    pub(crate) queue: Arc<Queue>,
}

impl Clerk {
    /// Works until it is stopped; a lost connection is opened again.
    pub(crate) fn work(&self) {
        let mut told = None;
        let mut post = Post::default();
        while !self.queue.is_stopped() || !post.is_empty() {
            let worked = Connection::connect(&self.config).and_then(|mut db| self.serve(&mut db, &mut post, &mut told));
            match worked {
                Ok(()) => return,
                Err(_) if self.queue.is_stopped() => return,
                Err(error) => {
                    self.say(&mut told, format!("the tables of the schema notifyman can't be read now: {error}"));
                }
            }
            self.queue.rest(REDIAL);
        }
    }

    /// Says it, if that isn't what was said last.
    fn say(&self, told: &mut Option<String>, warning: String) {
        if told.as_ref() != Some(&warning) {
            self.queue.push(self.database, Item::Warning(warning.clone()));
            *told = Some(warning);
        }
    }

    /// Serves by one connection, until it is stopped or something fails.
    fn serve(&self, db: &mut Connection, post: &mut Post, told: &mut Option<String>) -> Result<(), Error> {
        loop {
            let ways = Ways::ask(db)?;
            if !ways.outbox && !self.listens {
                let warning =
                    "another build has turned from a table to NOTIFY, which isn't listened to: start this worker anew";
                self.say(told, warning.to_owned());
            }
            if let Some(warning) = status::queue_warning(db)? {
                self.say(told, warning);
            }
            if ways.spills {
                match db.execute(&sql::clear_spilled(self.keep_spilled)) {
                    // Another worker, with more rights, may do it.
                    Err(error) if error.sqlstate() == Some("42501") => {
                        self.say(told, format!("what was spilled isn't cleared: {error}"));
                    }
                    cleared => drop(cleared?),
                }
            }
            let mut left = CHECK.min(self.keep_spilled.max(POLL));
            let step = if ways.outbox { POLL } else { left };
            while !left.is_zero() {
                while ways.outbox && self.read_outbox(db, post)? {}
                if !self.queue.rest(step.min(left)) {
                    return Ok(());
                }
                left = left.saturating_sub(step);
            }
        }
    }

    /// Hands out what the outbox holds, and clears what has been dealt with; says whether there may be more.
    ///
    /// One worker at a time does so, by a lock that goes with its session: so each change is told by one of them, in
    /// order, and another takes over when that one ends.
    fn read_outbox(&self, db: &mut Connection, post: &mut Post) -> Result<bool, Error> {
        if !first(db, sql::LOCK_OUTBOX)?.is_some_and(|row| is(&row, 0)) {
            return Ok(false);
        }
        let rows = db.query(&sql::read_outbox(POST, POST_BYTES))?;
        for row in &rows {
            let number = text(row, 0).parse().map_err(|_| cannot("an outbox holds a number that is none"))?;
            if post.given.insert(number) {
                self.queue.post(self.database, number, row.get_bytes(1).unwrap_or_default().into());
            }
        }
        while !post.is_empty() {
            if post.done.is_empty() {
                post.done = self.queue.wait_settled(self.database);
            }
            if post.done.is_empty() {
                return Ok(false);
            }
            db.execute(&sql::clear_outbox(&post.done))?;
            for number in post.done.drain(..) {
                post.given.remove(&number);
            }
        }
        Ok(!rows.is_empty())
    }
}

/// What a clerk has read of an outbox and not yet cleared; it outlives its connection.
#[derive(Default)]
struct Post {
    given: BTreeSet<i64>,
    /// What of it has been dealt with.
    done: Vec<i64>,
}

impl Post {
    fn is_empty(&self) -> bool {
        self.given.is_empty()
    }
}
