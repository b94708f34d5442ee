//! What other threads ask of the running manager: more channels, fewer, notifications, connections in and out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Config, ConnId, Connection, Dead, Error, Handle, Ticket};

use crate::Ways;
use crate::args::{Args, Dice};
use crate::books::{ALL, BY_HANDLE, Books, Breach, Channel, payload};

/// How long a ticket may be open: a request has 30 seconds, and a restore as long as it takes.
const STUCK: Duration = Duration::from_secs(75);

/// What was asked, and by whose ticket it is answered.
enum Open {
    Listen(ConnId, Channel, Ticket<()>),
    Unlisten(ConnId, Channel, Ticket<()>),
    Notify(Channel, u64, Ticket<()>),
    Remove(ConnId, Ticket<Option<Result<Connection, Dead>>>),
    Plain(Ticket<()>),
}

pub struct Control {
    handle: Handle,
    books: Arc<Books>,
    ways: Arc<[Ways]>,
    dice: Dice,
    connections: usize,
    /// The fleet, and the channels that each has by ticket.
    fleet: BTreeMap<ConnId, (usize, Vec<Channel>)>,
    open: Vec<(Instant, Open)>,
    made: u64,
}

impl Control {
    pub fn new(handle: Handle, books: Arc<Books>, ways: Arc<[Ways]>, args: &Args) -> Self {
        let dice = Dice::new(args.seed ^ 0xc0ff_ee00);
        let (connections, fleet, open) = (args.connections, BTreeMap::new(), Vec::new());
        Self { handle, books, ways, dice, connections, fleet, open, made: 0 }
    }

    pub fn run(mut self) -> Result<(), Breach> {
        for at in 0..self.connections {
            self.insert(at % self.ways.len())?;
        }
        while !self.books.is_called_off() {
            self.act()?;
            self.settle()?;
            thread::sleep(self.dice.millis(1, 20));
        }
        while !self.open.is_empty() && !self.books.has_ended() {
            self.settle()?;
            thread::sleep(Duration::from_millis(5));
        }
        self.books.busy.fetch_sub(1, Relaxed);
        Ok(())
    }

    fn act(&mut self) -> Result<(), Breach> {
        let ids: Vec<_> = self.fleet.keys().copied().collect();
        let Some(&id) = self.dice.pick(&ids) else { return self.insert(0) };
        let Some((site, own)) = self.fleet.get_mut(&id) else { return Ok(()) };
        let site = *site;
        let now = Instant::now();
        match self.dice.below(20) {
            0..=4 => {
                self.made += 1;
                let channel = (site, format!("extra {}", self.made));
                self.books.open(channel.clone());
                let ticket = self.handle.listen(id, [channel.1.clone()]);
                self.open.push((now, Open::Listen(id, channel, ticket)));
            }
            5..=8 => {
                if let Some(channel) = own.pop() {
                    self.books.deaf(id, &channel.1);
                    let ticket = self.handle.unlisten(id, [channel.1.clone()]);
                    self.open.push((now, Open::Unlisten(id, channel, ticket)));
                }
            }
            9..=15 => {
                let channel = (site, BY_HANDLE.to_owned());
                // The next number waits until it is known what became of this one.
                let waits = self.open.iter().any(|(_, open)| matches!(open, Open::Notify(of, ..) if *of == channel));
                if let Some(number) = (!waits).then(|| self.books.next_number(&channel)).flatten() {
                    let ticket = self.handle.notify(id, BY_HANDLE, payload(site, number));
                    self.open.push((now, Open::Notify(channel, number, ticket)));
                }
            }
            16 => {
                self.fleet.remove(&id);
                self.books.gone(id);
                self.open.push((now, Open::Remove(id, self.handle.remove(id))));
            }
            17 => {
                let timeout = self.dice.millis(5, 100);
                self.open.push((now, Open::Plain(self.handle.set_timeout(timeout))));
            }
            _ if self.fleet.len() < self.connections => self.insert(site)?,
            _ => {}
        }
        Ok(())
    }

    /// A connection more; where the way to its server is closed, another time.
    fn insert(&mut self, site: usize) -> Result<(), Breach> {
        let Some(url) = self.dice.pick(&self.ways[site].proxied) else { return Ok(()) };
        let config = Config::without_env(url).map_err(Breach::because("a proxy's URL"))?;
        let Ok(mut db) = Connection::connect(config) else { return Ok(()) };
        db.set_call_timeout(Duration::from_secs(3));
        if db.listen([ALL, BY_HANDLE]).is_err() {
            return Ok(());
        }
        let since = [ALL, BY_HANDLE].map(|name| self.books.last_number(&(site, name.to_owned())));
        let id = match self.handle.insert(db).wait(STUCK) {
            Ok(Ok(id)) => id,
            Ok(Err(_)) | Err(Error::Stopped) => return Ok(()),
            Err(error) => return Err(Breach(format!("an insert's ticket: {error}"))),
        };
        self.fleet.insert(id, (site, Vec::new()));
        for (name, since) in [ALL, BY_HANDLE].into_iter().zip(since) {
            self.books.listens(id, (site, name.to_owned()), since, 0)?;
        }
        Ok(())
    }

    /// Looks which tickets have resolved.
    fn settle(&mut self) -> Result<(), Breach> {
        let mut still = Vec::new();
        for (since, mut open) in std::mem::take(&mut self.open) {
            let resolved = match &mut open {
                Open::Listen(id, channel, ticket) => match ticket.try_get() {
                    None => None,
                    Some(Ok(())) => {
                        if let Some((_, own)) = self.fleet.get_mut(id) {
                            let last = self.books.last_number(channel);
                            self.books.listens(*id, channel.clone(), last, self.books.gaps(*id))?;
                            own.push(channel.clone());
                        }
                        Some(true)
                    }
                    Some(Err(error)) => Some(expected("listen", &error)?),
                },
                Open::Unlisten(id, channel, ticket) => match ticket.try_get() {
                    None => None,
                    Some(result) => {
                        self.books.close(channel);
                        self.books.deaf(*id, &channel.1);
                        Some(result.map_or_else(|error| expected("unlisten", &error), |()| Ok(true))?)
                    }
                },
                Open::Notify(channel, number, ticket) => match ticket.try_get() {
                    None => None,
                    Some(Ok(())) => Some(true),
                    Some(Err(error)) => {
                        self.books.unsure(channel, *number);
                        Some(expected("notify", &error)?)
                    }
                },
                Open::Remove(id, ticket) => match ticket.try_get() {
                    None => None,
                    Some(Ok(Some(_))) => {
                        self.books.gone(*id);
                        Some(true)
                    }
                    Some(Ok(None)) => return Err(Breach(format!("{id} was nowhere in the manager"))),
                    Some(Err(error)) => Some(expected("remove", &error)?),
                },
                Open::Plain(ticket) => ticket.try_get().map(|result| result.is_ok()),
            };
            match resolved {
                Some(well) => {
                    self.books.tickets.fetch_add(1, Relaxed);
                    self.books.refused.fetch_add(u64::from(!well), Relaxed);
                }
                None if since.elapsed() > STUCK => return Err(Breach(format!("a ticket is stuck: {}", open.name()))),
                None => still.push((since, open)),
            }
        }
        self.open = still;
        Ok(())
    }
}

impl Open {
    fn name(&self) -> String {
        match self {
            Open::Listen(id, (_, name), _) => format!("listen {name:?} on {id}"),
            Open::Unlisten(id, (_, name), _) => format!("unlisten {name:?} on {id}"),
            Open::Notify((_, name), number, _) => format!("notify {number} on {name:?}"),
            Open::Remove(id, _) => format!("remove {id}"),
            Open::Plain(_) => "set_timeout".into(),
        }
    }
}

/// Connections die here; a mistake of the caller's is none of that.
fn expected(what: &str, error: &Error) -> Result<bool, Breach> {
    match error {
        Error::WouldDeadlock | Error::Value(_) => Err(Breach(format!("a ticket of {what}: {error}"))),
        _ => Ok(false),
    }
}
