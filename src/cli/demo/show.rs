//! The course of the demonstration: setup, the loop, the outage of one server, and the silence at the end.

use std::io;
use std::time::{Duration, Instant};

use notifyman::{ConnId, Error, Event, Gap, NotificationManager};

use super::cache::CacheScene;
use super::meter::Meter;
use super::outage::Outage;
use super::plan::Plan;
use super::screen::Screen;
use super::server::DemoServer;
use super::writer::micros;
use super::writers::Writers;
use super::{summary, view};
use crate::cli::args::DemoArgs;
use crate::cli::clock;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::counted;
use crate::cli::signals::SignalWatcher;

/// The longest wait at the end for notifications that are still due.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The times at which a server is shut down, is restarted, and all writers stop, in percent of the whole time.
const SHUTDOWN: u32 = 35;
const RESTART: u32 = 55;
const SILENCE: u32 = 80;

/// The columns of the time before an event.
const INDENT: usize = 9;

/// The state of the demonstration.
pub(crate) struct Show {
    plan: Plan,
    length: Duration,
    /// The running servers. While the last one is down, it belongs to the outage.
    servers: Vec<DemoServer>,
    writers: Writers,
    outage: Option<Outage>,
    /// The cache, while it is used, if it is part of the demonstration.
    cache: Option<CacheScene>,
    has_cache: bool,
    meter: Meter,
    screen: Screen,
    idle_at: Option<Instant>,
    /// A server whose losses will be reported once no more are added, with the number of losses at the last idle event.
    unreported: Option<(usize, usize)>,
}

impl Show {
    pub(crate) fn new(plan: Plan, args: &DemoArgs) -> Self {
        Self {
            plan,
            length: args.duration,
            servers: Vec::new(),
            writers: Writers::new(plan, args.rate),
            outage: None,
            cache: None,
            has_cache: args.act.is_none(),
            meter: Meter::new(plan.clusters, clock::now()),
            screen: Screen::new(),
            idle_at: None,
            unreported: None,
        }
    }

    /// Starts the servers and connects to them; returns `false` if a signal interrupted this.
    pub(crate) fn set_up(&mut self, nm: &mut NotificationManager, signals: &SignalWatcher) -> Result<bool, Failure> {
        let plan = self.plan;
        let (clusters, connections, channels) = (plan.clusters, plan.connections, plan.channels);
        let counts = [(connections, "connection"), (clusters, "server"), (channels, "channel")];
        let counts = counts.map(|(number, noun)| counted(number, noun)).join(", ");
        let title = format!("notifyman: {counts}, one loop");
        self.screen.print(&self.screen.style.bold(title)).map_err(Failure::Output)?;
        self.screen.set_steps((clusters + connections) as u64);
        for number in 0..clusters {
            let note = format!("starting server {}", number + 1);
            self.show_progress(number, &note).map_err(Failure::Output)?;
            let server = DemoServer::start(&plan, number)?;
            self.print(&format!("server {} runs on port {}", number + 1, server.cluster.port))
                .map_err(Failure::Output)?;
            self.servers.push(server);
            if signals.received().is_some() {
                return Ok(false);
            }
        }
        for connection in 0..connections {
            let cluster = plan.cluster_of(connection);
            let id = nm.insert(self.servers[cluster].listener(&plan, connection)?);
            self.meter.add_connection(id, cluster);
            let note = format!("{connection} of {connections} open");
            self.show_progress(clusters + connection, &note).map_err(Failure::Output)?;
            if signals.received().is_some() {
                return Ok(false);
            }
        }
        self.print(&format!("{} open and listening", counted(connections, "connection"))).map_err(Failure::Output)?;
        if self.has_cache {
            // The first server is not shut down, unless it is the only one.
            self.cache = Some(CacheScene::start(&self.servers[0].config)?);
        }
        Ok(true)
    }

    /// Starts the writers, and runs the loop.
    pub(crate) fn run(&mut self, nm: &mut NotificationManager) -> io::Result<()> {
        self.meter.begin(clock::now());
        self.screen.set_steps(micros(self.length));
        self.writers.start(&self.servers, self.meter.began);
        while let Some(event) = nm.next_event() {
            let now = clock::now();
            match event {
                Event::Notifies(id, batch) => self.meter.count_batch(id, &batch, now),
                Event::Idle => self.handle_idle(now, nm)?,
                Event::Disconnected(id, error) | Event::Lost(id, error) => self.handle_loss(id, error)?,
                Event::Restored(id, gap) => self.handle_restored(id, &gap)?,
                _ => {}
            }
            self.follow_schedule(now)?;
            self.draw(now)?;
            if self.is_over(now) {
                break;
            }
        }
        Ok(())
    }

    /// Starts what is scheduled for this time.
    fn follow_schedule(&mut self, now: Instant) -> io::Result<()> {
        let passed = now - self.meter.began;
        if self.outage.is_none()
            && self.plan.clusters > 1
            && passed >= self.length * SHUTDOWN / 100
            && let Some(server) = self.servers.pop()
        {
            self.print(&format!("server {} is shut down", self.plan.clusters))?;
            self.outage = Some(Outage::begin(self.plan.clusters - 1, server));
        }
        if passed >= self.length * RESTART / 100 && self.outage.as_mut().is_some_and(Outage::restart) {
            self.print(&format!("server {} is restarted", self.plan.clusters))?;
        }
        if passed >= self.length * SILENCE / 100 && self.writers.stop() {
            if let Some(cache) = &self.cache {
                cache.stop();
            }
            self.print("the writers stop: only idle events from now on")?;
        }
        Ok(())
    }

    fn handle_loss(&mut self, id: ConnId, error: Error) -> io::Result<()> {
        let reason = format!("{error:#}");
        let Some(cluster) = self.meter.remove_lost(id, error) else { return Ok(()) };
        self.unreported = Some((cluster, 0));
        self.print(&format!("connection {} moves to the garbage:\n         {}", id.number(), self.indented(&reason)))
    }

    /// Handles an idle event: reports losses, and revives the connections of a server that runs again.
    fn handle_idle(&mut self, now: Instant, nm: &mut NotificationManager) -> io::Result<()> {
        self.meter.idles += 1;
        self.idle_at = Some(now);
        self.report_losses()?;
        let Some(outage) = &mut self.outage else { return Ok(()) };
        let Some(server) = outage.take_server() else { return Ok(()) };
        let number = outage.cluster + 1;
        match server {
            Ok(server) => self.servers.push(server),
            // Its connections stay in the garbage, and the summary reports them.
            Err(error) => return self.print(&format!("server {number} could not be restarted: {error}")),
        }
        self.meter.clusters[outage.cluster].is_reviving = true;
        let garbage = nm.take_garbage();
        let lost = counted(garbage.len(), "connection");
        self.print(&format!("server {number} is up: reviving {lost} in the garbage"))?;
        for (id, dead) in garbage {
            nm.revive(id, dead);
        }
        Ok(())
    }

    /// Reports the losses of a server once no more are added.
    fn report_losses(&mut self) -> io::Result<()> {
        let Some((cluster, before)) = self.unreported.take() else { return Ok(()) };
        let lost = self.meter.clusters[cluster].lost;
        if lost > before {
            self.unreported = Some((cluster, lost));
            return Ok(());
        }
        let (open, _) = view::totals(&self.meter);
        let (lost, open) = (counted(lost, "connection"), counted(open, "other"));
        self.print(&format!("the garbage holds {lost} of server {}; {open} open", cluster + 1))
    }

    fn handle_restored(&mut self, id: ConnId, gap: &Gap) -> io::Result<()> {
        let Some(cluster) = self.meter.restore(id, gap.duration()) else { return Ok(()) };
        let counts = &self.meter.clusters[cluster];
        let (is_first, are_all_restored, restored) = (counts.restored == 1, counts.lost == 0, counts.restored);
        if is_first {
            let channels: Vec<&str> = gap.channels().iter().map(|channel| &**channel).collect();
            let channels = self.indented(&channels.join(", "));
            let seconds = gap.duration().as_secs_f64();
            let number = id.number();
            self.print(&format!(
                "connection {number} is restored, with a gap of {seconds:.1} s on\n         {channels}"
            ))?;
        }
        if are_all_restored && self.outage.as_ref().is_some_and(|outage| outage.cluster == cluster) {
            self.print(&format!("all {restored} are restored, under their former ids"))?;
            if let Some(server) = self.servers.get(cluster) {
                self.writers.replace(cluster, server, self.meter.began, self.meter.clusters[cluster].received);
            }
        }
        Ok(())
    }

    /// Returns a text as one line that fits the screen behind the time.
    fn indented(&self, text: &str) -> String {
        view::truncated(text, self.screen.width().saturating_sub(INDENT))
    }

    /// Returns `true` if the time has passed, and all notifications have arrived or will not arrive.
    fn is_over(&self, now: Instant) -> bool {
        let Some(late) = (now - self.meter.began).checked_sub(self.length) else { return false };
        let down = self.outage.as_ref().map(|outage| outage.cluster);
        let has_all = |(cluster, counts): (usize, &super::meter::ServerCounts)| {
            counts.lost == 0 && self.writers.is_complete(cluster, down == Some(cluster), counts.received)
        };
        self.meter.clusters.iter().enumerate().all(has_all) || late > ARRIVAL_TIMEOUT
    }

    fn draw(&mut self, now: Instant) -> io::Result<()> {
        self.meter.update_rates(now);
        let (passed, length) = (now - self.meter.began, self.length);
        let note = format!("{:.1} of {} s", passed.min(length).as_secs_f64(), length.as_secs_f64());
        let (meter, idle_at) = (&self.meter, self.idle_at);
        let cache = self.cache.as_ref().map(CacheScene::counts);
        self.screen.draw(
            now,
            (micros(passed), note),
            |style, width| view::live(meter, idle_at.map(|at| now - at), cache.as_ref(), style, width),
            || format!("{:>5.1} s  {}", passed.as_secs_f64(), view::plain(meter)),
        )
    }

    fn show_progress(&mut self, step: usize, note: &str) -> io::Result<()> {
        self.screen.draw(clock::now(), (step as u64, note.into()), |_, _| String::new(), || format!("         {note}"))
    }

    /// Prints a line that stays, with the time since the writers started, if they have.
    fn print(&self, text: &str) -> io::Result<()> {
        let time = match self.writers.list[..] {
            [] => String::new(),
            _ => format!("{:.1} s", (clock::now() - self.meter.began).as_secs_f64()),
        };
        self.screen.print(&format!("{}  {text}", self.screen.style.dim(format!("{time:>7}"))))
    }

    /// Stops the writers and the servers, and prints the summary.
    pub(crate) fn finish(mut self, signal: Option<i32>) -> Result<Exit, Failure> {
        self.writers.stop();
        self.screen.clear();
        let reports = self.writers.finish(self.outage.as_ref().map(|outage| outage.cluster));
        if let Some(outage) = self.outage.take() {
            outage.end();
        }
        let (cache, error) = self.cache.take().map(CacheScene::finish).unzip();
        if let Some(error) = error.flatten() {
            return Err(error.into());
        }
        let lines = match signal {
            Some(_) => vec![summary::interrupted(&self.meter)],
            None => summary::lines(&reports, &self.meter, cache.as_ref(), self.screen.style),
        };
        for line in lines {
            self.screen.print(&line).map_err(Failure::Output)?;
        }
        Ok(match signal {
            Some(signal) => Exit::Signalled(signal),
            None if summary::is_complete(&reports, &self.meter) && cache.is_none_or(|it| it.fenced.stale == 0) => {
                Exit::Done
            }
            None => Exit::Incomplete,
        })
    }
}
