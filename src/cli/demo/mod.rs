//! `notifyman demo`: a few servers, hundreds of connections, one loop; one of the servers goes down, and comes back.
//!
//! ```text
//! plan ──> fleet (servers, connections) ──> the loop ──> meter ──> view ──> screen
//!     └──> writer, one for each server ───> what is due ──────────> summary ┘
//! ```
//!
//! The loop is the one of the library's documentation, and everything that is shown is counted where it reads.

mod acts;
mod fleet;
mod latency;
mod message;
mod meter;
mod outage;
mod plan;
mod screen;
mod summary;
mod view;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use notifyman::{Event, NotificationManager};

use self::fleet::Server;
use self::meter::Meter;
use self::outage::Outage;
use self::plan::Plan;
use self::screen::Screen;
use self::summary::{Before, Sent};
use self::writer::{Writer, micros};
use super::args::Demo;
use super::cluster::ClusterError;
use super::signals::Lookout;
use super::{End, Failure, clock, cluster};

/// How often the loop tells that it is idle, also while there is much to do.
const IDLE: Duration = Duration::from_millis(250);
/// How long to wait in the end for what is still due.
const PATIENCE: Duration = Duration::from_secs(10);

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        // The error may contain several lines of the server's log.
        let lines: Vec<_> = error.to_string().lines().map(|line| line.trim().to_owned()).collect();
        Failure::Advised(lines.join("; "), "install PostgreSQL's programs as described in the README")
    }
}

pub(crate) fn run(args: &Demo) -> Result<End, Failure> {
    if args.connections < args.clusters {
        return Err(Failure::Usage("--connections must be at least --clusters: each server needs one".into()));
    }
    cluster::find_server()?;
    let plan = Plan::new(args);
    let mut nm = NotificationManager::new([]).timeout(IDLE);
    let handle = nm.handle();
    let lookout = Lookout::new(move || drop(handle.stop()))
        .map_err(|e| Failure::Failed(format!("looking out for signals: {e}")))?;
    let mut show = Show {
        plan,
        length: args.seconds,
        servers: Vec::new(),
        writers: Vec::new(),
        silence: Arc::default(),
        outage: None,
        before: None,
        rate: args.rate,
        meter: Meter::new(plan.clusters, clock::now()),
        screen: Screen::new(),
        idle_at: None,
        untold: None,
    };
    if show.set_up(&mut nm, &lookout)? {
        show.start_writers();
        show.run(&mut nm).map_err(Failure::Output)?;
    }
    show.finish(lookout.got())
}

struct Show {
    plan: Plan,
    length: Duration,
    /// The last one is away while it is down.
    servers: Vec<Server>,
    writers: Vec<Writer>,
    /// Tells the writers to stop.
    silence: Arc<AtomicBool>,
    /// Notifications a second, of all writers.
    rate: u32,
    outage: Option<Outage>,
    /// What the writer had sent that was cut off.
    before: Option<Before>,
    meter: Meter,
    screen: Screen,
    idle_at: Option<Instant>,
    /// The server whose losses are to be told when there are no more of them, and how many there were at the last look.
    untold: Option<(usize, usize)>,
}

impl Show {
    /// Starts the servers and connects to them; says whether nobody interrupted it.
    fn set_up(&mut self, nm: &mut NotificationManager, lookout: &Lookout) -> Result<bool, Failure> {
        let plan = self.plan;
        let (clusters, connections, channels) = (plan.clusters, plan.connections, plan.channels);
        let title = format!("notifyman: {connections} connections, {clusters} servers, {channels} channels, one loop");
        self.screen.say(&self.screen.paint.bold(title)).map_err(Failure::Output)?;
        self.screen.measure((clusters + connections) as u64);
        for number in 0..clusters {
            let note = format!("starting server {}", number + 1);
            self.progress(number, &note).map_err(Failure::Output)?;
            let server = Server::start(&plan, number)?;
            self.say(&format!("server {} runs on port {}", number + 1, server.port())).map_err(Failure::Output)?;
            self.servers.push(server);
            if lookout.got().is_some() {
                return Ok(false);
            }
        }
        for connection in 0..connections {
            let cluster = plan.cluster_of(connection);
            let id = nm.insert(self.servers[cluster].listener(&plan, connection)?);
            self.meter.connected(id, cluster);
            self.progress(clusters + connection, &format!("{connection} of {connections} open"))
                .map_err(Failure::Output)?;
            if lookout.got().is_some() {
                return Ok(false);
            }
        }
        self.say(&format!("{connections} connections are open and listen")).map_err(Failure::Output)?;
        Ok(true)
    }

    fn start_writers(&mut self) {
        self.meter.begin(clock::now());
        self.screen.measure(micros(self.length));
        self.writers = (0..self.plan.clusters).filter_map(|cluster| self.orders(cluster)).map(Writer::start).collect();
    }

    /// The loop.
    fn run(&mut self, nm: &mut NotificationManager) -> io::Result<()> {
        while let Some(event) = nm.next_event() {
            let now = clock::now();
            match event {
                Event::Notifies(id, batch) => self.meter.batch(id, &batch, now),
                Event::Idle => self.idle(now, nm)?,
                Event::Lost(id, error) => self.lost(id, error)?,
                Event::Restored(id, gap) => self.restored(id, &gap)?,
                _ => {}
            }
            self.direct(now)?;
            self.draw(now)?;
            if self.is_over(now) {
                break;
            }
        }
        Ok(())
    }

    /// Whether the time is over and all has come, or won't.
    fn is_over(&self, now: Instant) -> bool {
        let Some(late) = (now - self.meter.began()).checked_sub(self.length) else { return false };
        let all_came = self.writers.iter().zip(&self.meter.clusters).enumerate().all(|(cluster, (writer, tally))| {
            let due = match (self.is_down(cluster), &self.before) {
                (false, _) => Some(writer.due()),
                (true, Some(before)) => Some(before.received + writer.due()),
                (true, None) => None,
            };
            writer.has_ended() && tally.lost == 0 && due.is_none_or(|due| due == tally.received)
        });
        all_came || late > PATIENCE
    }

    /// Whether this server was shut down, be it back or not.
    fn is_down(&self, cluster: usize) -> bool {
        self.outage.as_ref().is_some_and(|outage| outage.cluster == cluster)
    }

    fn draw(&mut self, now: Instant) -> io::Result<()> {
        self.meter.take_rates(now);
        let (passed, length) = (now - self.meter.began(), self.length);
        let note = format!("{:.1} of {} s", passed.min(length).as_secs_f64(), length.as_secs_f64());
        let (meter, idle_at) = (&self.meter, self.idle_at);
        self.screen.show(
            now,
            (micros(passed), note),
            |paint| view::live(meter, idle_at.map(|at| now - at), paint),
            || format!("{:>5.1} s  {}", passed.as_secs_f64(), view::plain(meter)),
        )
    }

    fn progress(&mut self, step: usize, what: &str) -> io::Result<()> {
        self.screen.show(clock::now(), (step as u64, what.into()), |_| String::new(), || format!("         {what}"))
    }

    /// Says what happens, and when: before the writers begin, that doesn't matter.
    fn say(&self, what: &str) -> io::Result<()> {
        let when = match self.writers.len() {
            0 => String::new(),
            _ => format!("{:.1} s", (clock::now() - self.meter.began()).as_secs_f64()),
        };
        self.screen.say(&format!("{}  {what}", self.screen.paint.dim(format!("{when:>7}"))))
    }

    /// Ends what runs, and says what it all came to.
    fn finish(mut self, signal: Option<i32>) -> Result<End, Failure> {
        self.silence.store(true, Relaxed);
        self.screen.clear();
        let down = self.outage.as_ref().map(|outage| outage.cluster);
        let mut sent = Vec::new();
        for (cluster, writer) in std::mem::take(&mut self.writers).into_iter().enumerate() {
            let (acknowledged, due, error) = writer.join();
            let outage = match self.before.take_if(|_| down == Some(cluster)) {
                Some(before) => summary::Outage::Over(before),
                None if down == Some(cluster) => summary::Outage::CutOff,
                None => summary::Outage::None,
            };
            sent.push(Sent { sent: acknowledged, due, error, outage });
        }
        if let Some(outage) = self.outage.take() {
            outage.end();
        }
        let lines = match signal {
            Some(_) => vec![summary::interrupted(&self.meter)],
            None => summary::lines(&sent, &self.meter, self.screen.paint),
        };
        for line in lines {
            self.screen.say(&line).map_err(Failure::Output)?;
        }
        Ok(match signal {
            Some(signal) => End::Signalled(signal),
            None if summary::is_complete(&sent, &self.meter) => End::Done,
            None => End::Incomplete,
        })
    }
}
