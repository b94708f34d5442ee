//! One history: an event loop on a simulated network, the calls of its program, and the rules that must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::ledger::{ChannelEdit, Checked, IdleLedger, Record, Standing};
use super::network::{Network, with_network};
use super::server::{AFTER_CONNECT, CANARY};
use super::stream::{SimConnection, SimPoll, SimStream};
use super::tickets::{OpenTicket, mark};
use crate::config::{Config, SslMode};
use crate::connection::{Dial, DialProgress, Link, ReadContext};
use crate::error::Error;
use crate::manager::command::{Command, ControlMessage};
use crate::manager::conn_id::ConnId;
use crate::manager::dead::Dead;
use crate::manager::event::Event;
use crate::manager::event_loop::EventLoop;
use crate::manager::fleet::{Backoff, Canaries, CanaryPace, Heartbeat, Jitter};
use crate::proto::{ReadBuffer, Request, TransactionStatus, sql};

pub(super) type SimLoop = EventLoop<SimConnection, SimPoll>;

/// The time for which accidents happen, and the time until everything must work again.
const TROUBLE: Duration = Duration::from_secs(10);
const PEACE: Duration = Duration::from_secs(20);
/// The time at the end without notifications.
const QUIET: Duration = Duration::from_secs(10);
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The settings of a history.
pub(super) struct Settings {
    pub(super) backoff: Option<Backoff>,
    pub(super) heartbeat: Option<Heartbeat>,
    /// `true` if a wait lasts until something happens, and `false` if the program does the waiting.
    waits: bool,
    has_gap_events: bool,
    /// `true` if the program takes its time between two events.
    pub(super) is_slow: bool,
}

pub(super) struct History {
    pub(super) event_loop: SimLoop,
    pub(super) settings: Settings,
    pub(super) records: BTreeMap<ConnId, Record>,
    idle: IdleLedger,
    pub(super) tickets: Vec<OpenTicket>,
    /// The connections that have ever been removed.
    removed: BTreeSet<ConnId>,
    /// The number of the last request.
    requests: u64,
    last_port: u16,
    next_call: Instant,
    end: Instant,
    /// The end of the last call that delayed a heartbeat.
    pub(super) last_block: Instant,
    /// `true` once the poll has failed: nothing is restored any more.
    pub(super) has_poll_failed: bool,
}

/// The configuration for a port. Every second session executes SQL after the login.
pub(super) fn config(port: u16) -> Config {
    let config = if port.is_multiple_of(2) { Config::new().after_connect(AFTER_CONNECT) } else { Config::new() };
    config
        .host("127.0.0.1")
        .port(port)
        .user("app")
        .password("secret")
        .sslmode(SslMode::Disable)
        .connect_timeout(Duration::from_secs(2))
        .call_timeout(CALL_TIMEOUT)
}

/// Opens a connection that listens to channels, as a program does before it has a manager.
pub(super) fn open(port: u16, channels: &[String]) -> SimConnection {
    let mut buffer = ReadBuffer::new(4096);
    let now = || with_network(|network| network.now);
    let mut dial = Dial::<SimStream>::new(&config(port), now()).unwrap();
    let step = || with_network(|network| network.advance(network.next(), false));
    let mut link = loop {
        let mut cx = ReadContext::new(&mut buffer, now(), false, None);
        match dial.advance(&mut cx) {
            DialProgress::Wait(_) => step(),
            DialProgress::Open(link, _) => break *link,
            DialProgress::Failed(error) => panic!("{error}"),
        }
    };
    let request = link.request(Request::Listen(channels.iter().map(|channel| channel.as_str().into()).collect()));
    pump_until(&mut link, &mut buffer, |link| link.take_reply(request).is_some());
    link
}

/// Drives a connection, as a blocking call does, which closes the connection at its timeout.
fn pump_until(link: &mut SimConnection, buffer: &mut ReadBuffer, mut is_done: impl FnMut(&mut SimConnection) -> bool) {
    let until = with_network(|network| network.now) + CALL_TIMEOUT;
    while !is_done(link) && !link.is_closed() {
        let now = with_network(|network| network.now);
        if now >= until {
            let timeout = Error::Timeout { action: "a blocking call", after: CALL_TIMEOUT, closed: true };
            return link.close_for(timeout);
        }
        let pumped = link.pump(&mut ReadContext::new(buffer, now, true, None));
        if pumped.bytes == 0 {
            with_network(|network| network.advance(Some(network.next().unwrap_or(until).min(until)), false));
        }
    }
}

impl History {
    pub(super) fn new(seed: u64, trace: bool) -> Self {
        Network::reset(seed);
        let settings = with_network(|network| {
            network.trace = trace;
            network.faults.is_filtered = network.chance(4);
            network.faults.is_narrow = network.chance(3);
            let backoff = Backoff::default()
                .first(network.millis(5, 200))
                .longest(network.millis(500, 3000))
                .at_once(1 + network.below(3) as usize)
                .per_second(2 + network.below(20) as u32);
            let heartbeat = Heartbeat { idle: network.millis(500, 4000), deadline: network.millis(400, 2000) };
            let heartbeat = (!network.chance(8)).then_some(heartbeat);
            network.faults.cuts = heartbeat.is_some();
            Settings {
                backoff: (!network.chance(6)).then_some(backoff),
                heartbeat,
                waits: network.chance(2),
                has_gap_events: network.chance(2),
                is_slow: network.chance(2),
            }
        });
        let mut event_loop = SimLoop::with_poll(SimPoll::default(), None, Jitter::new(seed ^ 1));
        event_loop.poll.shared = Some(Arc::clone(&event_loop.shared));
        event_loop.parks = with_network(|network| network.chance(3));
        event_loop.buffer = ReadBuffer::new(with_network(|network| [256, 1024, 65_536][network.below(3) as usize]));
        if let Some(backoff) = settings.backoff {
            event_loop.fleet.set_backoff(backoff);
        }
        let now = with_network(|network| network.now);
        let mut history = Self {
            event_loop,
            settings,
            records: BTreeMap::new(),
            idle: IdleLedger { last: now },
            tickets: Vec::new(),
            removed: BTreeSet::new(),
            requests: 0,
            last_port: 5000,
            next_call: now,
            end: now,
            last_block: now,
            has_poll_failed: false,
        };
        history.set_up();
        history
    }

    fn set_up(&mut self) {
        let channels =
            |network: &mut Network| (0..3).filter(|_| !network.chance(4)).map(|n| format!("c{n}")).collect::<Vec<_>>();
        for _ in 0..1 + with_network(|network| network.below(4)) {
            let channels = with_network(channels);
            self.last_port += 1;
            let connection = open(self.last_port, &channels);
            let mut record = Record::new(self.last_port, Standing::Live);
            record.link = Some(connection.stream().0);
            with_network(|network| record.acknowledge(network, record.link, &channels, 0)).unwrap();
            let id = self.event_loop.with_fleet(|fleet, io| fleet.insert(connection, io));
            self.records.insert(id, record);
        }
        if let Some(heartbeat) = self.settings.heartbeat {
            self.event_loop.with_fleet(|fleet, io| fleet.set_heartbeat(heartbeat, io));
        }
        let (canary, audit, timeout) = with_network(|network| {
            let pace = CanaryPace { period: network.millis(800, 4000), deadline: network.millis(300, 1000) };
            let canary = network.chance(2).then_some(pace);
            let audit = network.chance(2).then(|| network.millis(1000, 5000));
            (network.faults.mutes, network.faults.forgets) = (canary.is_some(), audit.is_some());
            let timeout = [None, Some(network.millis(300, 3000)), Some(network.millis(30, 300)), Some(Duration::ZERO)];
            (canary, audit, timeout[network.below(4) as usize])
        });
        if let Some(pace) = canary {
            self.event_loop.with_fleet(|fleet, io| fleet.set_canary(Canaries::new(CANARY, pace), io));
            self.event_loop.fleet.report_canaries();
        }
        let now = with_network(|network| network.now);
        if let Some(period) = audit {
            self.event_loop.fleet.set_audit(period, now);
        }
        self.event_loop.fleet.set_timeout(timeout);
        self.idle.last = now;
        self.end = now + TROUBLE;
        with_network(|network| {
            network.dials.clear();
            network.begin();
            self.next_call = network.now + network.millis(1, 500);
            network.log(|| format!("canary {canary:?}, audit {audit:?}, timeout {timeout:?}"));
        });
    }

    // ---- the loop ---------------------------------------------------------------------------------------------------

    pub(super) fn run(&mut self) -> Checked {
        self.run_until_end()?;
        with_network(Network::make_peace);
        self.end = with_network(|network| network.now) + PEACE;
        self.run_until_end()?;
        with_network(|network| network.faults.is_quiet = true);
        self.end += QUIET;
        self.run_until_end()?;
        self.check_end()
    }

    fn is_peaceful(&self) -> bool {
        with_network(|network| !network.faults.is_on)
    }

    fn run_until_end(&mut self) -> Checked {
        while with_network(|network| network.now) < self.end {
            with_network(|network| network.interrupt = Some(self.next_call.min(self.end)));
            let next = self.event_loop.next(self.settings.waits, self.settings.has_gap_events);
            self.resolve_tickets()?;
            for (id, link) in self.event_loop.fleet.connections() {
                if let Some(record) = self.records.get_mut(&id) {
                    with_network(|network| record.note_forgotten(network, link));
                }
            }
            if let Poll::Ready(Some(event)) = &next {
                self.handle(event)?;
            }
            self.check()?;
            match next {
                // Without a pause, histories are the same as before there was this event.
                Poll::Ready(Some(Event::Unlistened(..))) => {}
                Poll::Ready(Some(_)) => self.pause(),
                Poll::Ready(None) => self.rest(true),
                Poll::Pending => self.rest(false),
            }
            self.check()?;
        }
        Ok(())
    }

    /// Advances the time until there is something to do, and makes the calls of the program that are due.
    fn rest(&mut self, is_end: bool) {
        let deadline = self.event_loop.deadline().filter(|_| !is_end);
        let is_pass = self.event_loop.fleet.is_pass();
        with_network(|network| {
            if !is_end {
                network.check_read();
            }
            let most = if network.faults.is_on { 50 } else { 400 };
            let pause = is_pass.then(|| network.now + network.millis(1, most));
            if !self.settings.waits || is_pass || is_end {
                let limits = [deadline, pause, Some(self.next_call), Some(self.end)];
                network.advance(limits.into_iter().flatten().min(), !is_pass && !is_end);
            }
        });
        if with_network(|network| network.now) >= self.next_call {
            self.call();
            let most = if self.is_peaceful() { 4000 } else { 400 };
            self.next_call = with_network(|network| network.now + network.millis(1, most));
        }
    }

    fn handle(&mut self, event: &Event) -> Checked {
        with_network(|network| network.log(|| format!("event {event:?}")));
        let (id, kind) = match event {
            Event::Idle => {
                self.check_idle()?;
                self.check_followed()?;
                let now = with_network(|network| network.now);
                return self.idle.handle(self.event_loop.fleet.timeout(), now);
            }
            Event::Notifies(id, batch) => (id, if batch.gap().is_some() { "gap in a batch" } else { "batch" }),
            Event::Opened(id) => (id, "opened"),
            Event::Disconnected(id, _) => (id, "disconnected"),
            Event::Restored(id, gap) if matches!(gap.cause(), Error::Unregistered) => (id, "listened again"),
            Event::Restored(id, _) => (id, "restored"),
            Event::Lost(id, _) => (id, "lost"),
            Event::InTransaction(id) => (id, "in transaction"),
            Event::CheckRefused(id, ..) => (id, "check refused"),
            Event::CanaryReceived(id, _) => (id, "canary received"),
            Event::Unlistened(id, _) => (id, "unlistened"),
        };
        if let Event::Disconnected(_, error) | Event::Lost(_, error) = event {
            self.count_loss(error);
        }
        if let (Event::Lost(_, error), true) = (event, self.settings.backoff.is_some() && !self.has_poll_failed) {
            return Err(format!("{id} was given up: {error}"));
        }
        if kind == "unlistened" && self.removed.contains(id) && !self.records.contains_key(id) {
            return Ok(());
        }
        let link = self.event_loop.fleet.get(*id).map(|link| link.stream().0);
        let record = self.records.get_mut(id).ok_or_else(|| format!("an event of {id}, which is unknown"))?;
        with_network(|network| {
            network.counts.add(kind);
            record.handle(event, network, link)
        })
        .map_err(|fault| format!("connection {id}: {fault}"))
    }

    /// Checks that events have reported each channel that a connection does not listen to any more.
    fn check_followed(&mut self) -> Checked {
        let Self { event_loop, records, .. } = self;
        for (id, record) in records {
            let checked = match event_loop.fleet.get(*id) {
                Some(link) => record.check_followed(link.channels(), true),
                None => match event_loop.fleet.restoring().find(|(restoring, _)| restoring == id) {
                    Some((_, dead)) => record.check_followed(dead.channels().iter().map(AsRef::as_ref), false),
                    None => Ok(()),
                },
            };
            checked.map_err(|fault| format!("connection {id}: {fault}"))?;
        }
        Ok(())
    }

    fn count_loss(&self, error: &Error) {
        let kind = match error {
            Error::NotDelivering { .. } => "found not delivering",
            Error::HeldBack { .. } => "found holding back",
            Error::Timeout { action: "the answer to a heartbeat", .. } => "found by the heartbeat",
            Error::Timeout { .. } => "timed out",
            _ => return,
        };
        with_network(|network| network.counts.add(kind));
    }

    /// Lets time pass between two events.
    fn pause(&mut self) {
        if self.settings.is_slow && !self.is_peaceful() {
            with_network(|network| {
                if network.chance(3) {
                    let until = network.now + network.millis(1, 300);
                    network.advance(Some(until), false);
                }
            });
        }
    }

    // ---- the calls of the program -----------------------------------------------------------------------------------

    fn any_id(&self) -> Option<ConnId> {
        let which = with_network(|network| network.below(self.records.len().max(1) as u64));
        self.records.keys().nth(which as usize).copied()
    }

    fn call(&mut self) {
        if self.is_peaceful() {
            self.end_transactions();
            return self.revive_garbage();
        }
        let Some(id) = self.any_id() else { return self.dial() };
        let channels = with_network(|network| {
            let channel = network.below(3);
            if network.chance(3) { (0..3).map(|n| format!("c{n}")).collect() } else { vec![format!("c{channel}")] }
        });
        let lasts = with_network(|network| network.below(4000));
        match with_network(|network| network.below(40)) {
            0..=5 => self.listen(id, channels),
            6..=9 => self.unlisten(id, channels, Command::Unlisten),
            10 => self.unlisten(id, (0..3).map(|n| format!("c{n}")).collect(), |_| Command::UnlistenAll),
            11 => {
                self.edit(id, &["c0".into(), "c1".into(), "c2".into()], true);
                self.query(id, "DISCARD ALL".into());
            }
            12 => self.query(id, format!("SELECT '{}'", mark(self.requests + 1))),
            13 => self.query(id, "FAIL".into()),
            14 | 15 => self.query(id, format!("SLEEP {lasts}")),
            16 => self.query(id, "BEGIN".into()),
            17 | 18 => self.query(id, "COMMIT".into()),
            19 => self.query(id, "ROLLBACK".into()),
            20..=22 => {
                let pair = (channels[0].clone(), mark(self.requests + 1));
                self.send(id, "notify", Command::Notify(vec![pair]));
            }
            23 | 24 if self.records.len() < 6 => self.dial(),
            25..=28 => self.remove(id),
            29..=32 => self.revive_garbage(),
            33..=35 => self.block(id),
            36 => self.set_timeout(),
            37 if with_network(|network| network.chance(20)) => self.fail_poll(),
            _ => {}
        }
    }

    fn send(&mut self, id: ConnId, name: &'static str, command: Command) {
        let now = with_network(|network| {
            network.log(|| format!("call {name} on {id}: {command:?}"));
            network.counts.add(name);
            network.now
        });
        self.requests += 1;
        let iterating = &self.event_loop.shared.iterating;
        let (ticket, open) = OpenTicket::new(iterating, id, name, &command, self.requests, now);
        self.event_loop.shared.send(ControlMessage::Request(id, command, ticket));
        self.tickets.push(open);
    }

    /// Records that the next request changes the channels.
    fn edit(&mut self, id: ConnId, channels: &[String], unlistens: bool) {
        let (number, at) = (self.requests + 1, with_network(|network| network.now));
        if let Some(record) = self.records.get_mut(&id) {
            record.edit(channels, ChannelEdit { number, unlistens, at, is_done: false });
        }
    }

    fn listen(&mut self, id: ConnId, channels: Vec<String>) {
        self.edit(id, &channels, false);
        self.send(id, "listen", Command::Listen(channels));
    }

    fn unlisten(&mut self, id: ConnId, channels: Vec<String>, command: impl FnOnce(Vec<String>) -> Command) {
        self.edit(id, &channels, true);
        self.send(id, "unlisten", command(channels));
    }

    fn query(&mut self, id: ConnId, sql: String) {
        self.send(id, "query", Command::Query(sql));
    }

    /// Ends the transactions that are open. The end of a query that was late may end one, too.
    fn end_transactions(&mut self) {
        let is_open = |link: &SimConnection| link.transaction_status() != TransactionStatus::Idle && link.is_settled();
        let open = self.event_loop.fleet.connections().filter(|(_, link)| is_open(link));
        for id in open.map(|(id, _)| id).collect::<Vec<_>>() {
            self.query(id, "ROLLBACK".into());
        }
    }

    fn dial(&mut self) {
        self.last_port += 1;
        let (port, channels) = (self.last_port, vec!["c0".to_owned(), "c1".to_owned()]);
        let now = with_network(|network| {
            network.first_dials.push(port);
            network.counts.add("dial");
            network.now
        });
        let names = Ok(channels.iter().map(|channel| channel.as_str().into()).collect());
        let id = self.event_loop.fleet.dial(config(port), names, sql::Limits::Exact, now);
        let mut record = Record::new(port, Standing::Restoring);
        record.dialled = Some(channels);
        self.records.insert(id, record);
    }

    /// Removes a connection. It is dropped, inserted again, or restored.
    fn remove(&mut self, id: ConnId) {
        let Some(removed) = self.event_loop.with_fleet(|fleet, io| fleet.remove(id, io)) else { return };
        let Some(mut record) = self.records.remove(&id) else { return };
        self.removed.insert(id);
        for event in &self.event_loop.fleet.members.services.events {
            if let Event::Unlistened(of, channels) = event
                && *of == id
            {
                record.followed.retain(|followed| channels.iter().all(|channel| **channel != **followed));
            }
        }
        if let Some(channel) = record.followed.first() {
            with_network(|network| network.blame(format!("{id} was removed, and no event reports {channel}")));
        }
        let choice = with_network(|network| {
            network.log(|| format!("remove {id}: {}", removed.is_ok()));
            network.below(3)
        });
        match removed {
            _ if choice == 0 => with_network(|network| network.counts.add("removed")),
            Ok(connection) => {
                with_network(|network| network.counts.add("inserted again"));
                let id = self.event_loop.with_fleet(|fleet, io| fleet.insert(connection, io));
                self.records.insert(id, record);
                // From now on, the heartbeat begins again.
                self.last_block = with_network(|network| network.now);
            }
            Err(dead) => self.revive(id, dead, record),
        }
    }

    fn revive(&mut self, id: ConnId, dead: Dead, mut record: Record) {
        let now = with_network(|network| {
            network.counts.add("revived");
            network.log(|| format!("revive {id}"));
            if record.dialled.is_some() {
                network.first_dials.push(record.port);
            }
            network.now
        });
        record.standing = Standing::Restoring;
        let revived = self.event_loop.fleet.revive(id, dead, now);
        if revived != id {
            with_network(|network| network.blame(format!("{id} was revived as {revived}")));
        }
        self.records.insert(revived, record);
    }

    fn revive_garbage(&mut self) {
        for (id, dead) in self.event_loop.fleet.take_garbage() {
            if let Some(record) = self.records.remove(&id) {
                self.revive(id, dead, record);
            }
        }
    }

    /// Makes a call that blocks on a connection, in the body of the loop.
    fn block(&mut self, id: ConnId) {
        let (mut buffer, begun) = (ReadBuffer::new(4096), with_network(|network| network.now));
        if let Some(link) = self.event_loop.fleet.get_mut(id)
            && link.is_settled()
        {
            with_network(|network| {
                network.counts.add("blocking call");
                network.log(|| format!("blocking call on {id}"));
            });
            let request = link.request(Request::Sync);
            pump_until(link, &mut buffer, |link: &mut Link<_>| link.take_reply(request).is_some());
            self.note_block(begun);
        }
    }

    /// Records that a call has blocked the loop: requests of other connections may be late.
    fn note_block(&mut self, begun: Instant) {
        self.last_block = with_network(|network| network.now);
        if self.last_block - begun < Duration::from_millis(500) {
            return;
        }
        for (_, link) in self.event_loop.fleet.connections().filter(|(_, link)| !link.is_settled()) {
            with_network(|network| {
                if let Some(link) = network.links.get_mut(&link.stream().0) {
                    link.is_intact = false;
                }
            });
        }
    }

    fn set_timeout(&mut self) {
        if let Some(timeout) = self.event_loop.fleet.timeout().filter(|timeout| !timeout.is_zero()) {
            let timeout = timeout.mul_f32(0.8) + Duration::from_millis(10);
            self.event_loop.fleet.set_timeout(Some(timeout));
            self.idle.last = with_network(|network| network.now);
        }
    }

    fn fail_poll(&mut self) {
        self.has_poll_failed = true;
        with_network(|network| {
            network.counts.add("poll failed");
            network.faults.poll_fails = true;
            network.links.values_mut().for_each(|link| link.is_intact = false);
        });
    }

    fn resolve_tickets(&mut self) -> Checked {
        let Self { records, tickets, removed, event_loop, .. } = self;
        let mut checked = Ok(());
        tickets.retain_mut(|open| {
            let Some(result) = open.try_get() else { return true };
            let link = event_loop.fleet.get(open.id).map(|link| link.stream().0);
            let fits = with_network(|network| {
                network.log(|| format!("ticket {} of {}: {result:?}", open.name, open.id));
                network.counts.add(if result.is_ok() { "ticket done" } else { "ticket failed" });
                open.check(&result, records.get_mut(&open.id), link, removed, network)
            });
            if let Err(fault) = fits {
                checked = Err(format!("a {} on connection {}: {fault}", open.name, open.id));
            }
            false
        });
        checked
    }
}
