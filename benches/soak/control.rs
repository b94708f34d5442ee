//! Requests to the running manager from another thread: listen, unlisten, notify, insert and remove.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use notifyman::{Config, ConnId, Connection, Dead, Error, ErrorWith, Handle, Ticket};

use crate::SiteUrls;
use crate::args::{Args, Random};
use crate::ledger::{ALL, BY_HANDLE, Channel, Ledger, Violation, payload};

/// The longest time that a ticket may be open: a request is limited to 30 seconds, a restoration is not.
const TICKET_TIMEOUT: Duration = Duration::from_secs(75);

/// A request whose ticket is open.
enum OpenRequest {
    Listen(ConnId, Channel, Ticket<()>),
    Unlisten(ConnId, Channel, Ticket<()>),
    Notify(Channel, u64, Ticket<()>),
    Remove(ConnId, Ticket<Connection, ErrorWith<Dead>>),
    Plain(Ticket<()>),
}

pub struct Control {
    handle: Handle,
    ledger: Arc<Ledger>,
    urls: Arc<[SiteUrls]>,
    random: Random,
    connections: usize,
    /// The connections, with their sites and the channels that were added by requests.
    fleet: BTreeMap<ConnId, (usize, Vec<Channel>)>,
    open: Vec<(Instant, OpenRequest)>,
    channels_created: u64,
}

impl Control {
    pub fn new(handle: Handle, ledger: Arc<Ledger>, urls: Arc<[SiteUrls]>, args: &Args) -> Self {
        let random = Random::new(args.seed ^ 0xc0ff_ee00);
        let (connections, fleet, open) = (args.connections, BTreeMap::new(), Vec::new());
        Self { handle, ledger, urls, random, connections, fleet, open, channels_created: 0 }
    }

    pub fn run(mut self) -> Result<(), Violation> {
        for at in 0..self.connections {
            self.insert(at % self.urls.len())?;
        }
        while !self.ledger.is_winding_down() {
            self.make_request()?;
            self.check_tickets()?;
            thread::sleep(self.random.millis(1, 20));
        }
        while !self.open.is_empty() && !self.ledger.has_ended() {
            self.check_tickets()?;
            thread::sleep(Duration::from_millis(5));
        }
        self.ledger.busy.fetch_sub(1, Relaxed);
        Ok(())
    }

    fn make_request(&mut self) -> Result<(), Violation> {
        let ids: Vec<_> = self.fleet.keys().copied().collect();
        let Some(&id) = self.random.pick(&ids) else { return self.insert(0) };
        let Some((site, own)) = self.fleet.get_mut(&id) else { return Ok(()) };
        let site = *site;
        let now = Instant::now();
        match self.random.below(20) {
            0..=4 => {
                self.channels_created += 1;
                let channel = (site, format!("extra {}", self.channels_created));
                self.ledger.open(channel.clone());
                let ticket = self.handle.listen(id, [channel.1.clone()]);
                self.open.push((now, OpenRequest::Listen(id, channel, ticket)));
            }
            5..=8 => {
                if let Some(channel) = own.pop() {
                    self.ledger.stop_listening(id, &channel.1);
                    let ticket = self.handle.unlisten(id, [channel.1.clone()]);
                    self.open.push((now, OpenRequest::Unlisten(id, channel, ticket)));
                }
            }
            9..=15 => {
                let channel = (site, BY_HANDLE.to_owned());
                // The next number is sent only when the request of the last one has been answered.
                let is_waiting =
                    self.open.iter().any(|(_, open)| matches!(open, OpenRequest::Notify(of, ..) if *of == channel));
                if let Some(number) = (!is_waiting).then(|| self.ledger.next_number(&channel)).flatten() {
                    let ticket = self.handle.notify(id, BY_HANDLE, payload(site, number));
                    self.open.push((now, OpenRequest::Notify(channel, number, ticket)));
                }
            }
            16 => {
                self.fleet.remove(&id);
                self.ledger.remove(id);
                self.open.push((now, OpenRequest::Remove(id, self.handle.remove(id))));
            }
            17 => {
                let timeout = self.random.millis(5, 100);
                self.open.push((now, OpenRequest::Plain(self.handle.set_timeout(timeout))));
            }
            _ if self.fleet.len() < self.connections => self.insert(site)?,
            _ => {}
        }
        Ok(())
    }

    /// Inserts a connection, if its server can be reached.
    fn insert(&mut self, site: usize) -> Result<(), Violation> {
        let Some(url) = self.random.pick(&self.urls[site].proxied) else { return Ok(()) };
        let config = Config::without_env(url).map_err(Violation::context("a proxy's URL"))?;
        let Ok(mut db) = Connection::connect(config) else { return Ok(()) };
        db.set_call_timeout(Duration::from_secs(3));
        if db.listen([ALL, BY_HANDLE]).is_err() {
            return Ok(());
        }
        let since = [ALL, BY_HANDLE].map(|name| self.ledger.last_number(&(site, name.to_owned())));
        let id = match self.handle.insert(db).wait(TICKET_TIMEOUT) {
            Ok(id) => id,
            Err(error) if matches!(error.error(), Error::Stopped) => return Ok(()),
            Err(error) => return Err(Violation(format!("an insert's ticket: {error:#}"))),
        };
        self.fleet.insert(id, (site, Vec::new()));
        for (name, since) in [ALL, BY_HANDLE].into_iter().zip(since) {
            self.ledger.start_listening(id, (site, name.to_owned()), since, 0)?;
        }
        Ok(())
    }

    /// Handles the tickets that have resolved.
    fn check_tickets(&mut self) -> Result<(), Violation> {
        let mut still = Vec::new();
        for (since, mut open) in std::mem::take(&mut self.open) {
            let resolved = match &mut open {
                OpenRequest::Listen(id, channel, ticket) => match ticket.try_get() {
                    None => None,
                    Some(Ok(())) => {
                        if let Some((_, own)) = self.fleet.get_mut(id) {
                            let last = self.ledger.last_number(channel);
                            self.ledger.start_listening(*id, channel.clone(), last, self.ledger.gaps(*id))?;
                            own.push(channel.clone());
                        }
                        Some(true)
                    }
                    Some(Err(error)) => Some(expected("listen", &error)?),
                },
                OpenRequest::Unlisten(id, channel, ticket) => match ticket.try_get() {
                    None => None,
                    Some(result) => {
                        self.ledger.close(channel);
                        self.ledger.stop_listening(*id, &channel.1);
                        Some(result.map_or_else(|error| expected("unlisten", &error), |()| Ok(true))?)
                    }
                },
                OpenRequest::Notify(channel, number, ticket) => match ticket.try_get() {
                    None => None,
                    Some(Ok(())) => Some(true),
                    Some(Err(error)) => {
                        self.ledger.set_uncertain(channel, *number);
                        Some(expected("notify", &error)?)
                    }
                },
                OpenRequest::Remove(id, ticket) => match ticket.try_get() {
                    None => None,
                    Some(Err(error)) if error.value().is_none() => {
                        if let Error::UnknownConnection = error.error() {
                            return Err(Violation(format!("{id} was not in the manager")));
                        }
                        Some(expected("remove", error.error())?)
                    }
                    Some(Ok(_) | Err(_)) => {
                        self.ledger.remove(*id);
                        Some(true)
                    }
                },
                OpenRequest::Plain(ticket) => ticket.try_get().map(|result| result.is_ok()),
            };
            match resolved {
                Some(is_success) => {
                    self.ledger.tickets.fetch_add(1, Relaxed);
                    self.ledger.refused.fetch_add(u64::from(!is_success), Relaxed);
                }
                None if since.elapsed() > TICKET_TIMEOUT => {
                    return Err(Violation(format!("a ticket is stuck: {}", open.name())));
                }
                None => still.push((since, open)),
            }
        }
        self.open = still;
        Ok(())
    }
}

impl OpenRequest {
    fn name(&self) -> String {
        match self {
            OpenRequest::Listen(id, (_, name), _) => format!("listen {name:?} on {id}"),
            OpenRequest::Unlisten(id, (_, name), _) => format!("unlisten {name:?} on {id}"),
            OpenRequest::Notify((_, name), number, _) => format!("notify {number} on {name:?}"),
            OpenRequest::Remove(id, _) => format!("remove {id}"),
            OpenRequest::Plain(_) => "set_timeout".into(),
        }
    }
}

/// Returns `false` for an error that a lost connection explains; other errors are violations.
fn expected(request: &str, error: &Error) -> Result<bool, Violation> {
    match error {
        Error::WouldDeadlock | Error::Value(_) => Err(Violation(format!("a ticket of {request}: {error}"))),
        _ => Ok(false),
    }
}
