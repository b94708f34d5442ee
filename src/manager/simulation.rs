//! Thousands of seeded histories of sessions, links and a server, without a socket or a clock.
//!
//! What decides runs here as it runs in the loop: [`Session`], [`Relisten`], [`Backoff`], [`Dials`], [`Heart`], [`Idle`]
//! and, in `proof`, the rounds of the canary and the rota of the audit. What moves bytes and time is simulated. Each history must keep the law: every number that was committed
//! came once and in order, or lies in a gap that was told before anything that followed it.
//!
//! One that fails prints its seed, and is seen again by `NOTIFYMAN_SEED=123 cargo test --lib simulation`.

mod proof;
mod world;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::proof::Proof;
use self::world::{Piece, World};
use crate::config::Config;
use crate::connection::idle::Idle;
use crate::error::Error;
use crate::manager::edits::Edits;
use crate::manager::recovery::{
    Backoff, Beat, Dials, Heart, Heartbeat, Jitter, Signs, failed_before, is_final_attempt, is_final_loss,
};
use crate::manager::restore::Relisten;
use crate::proto::{Output, ReadBuffer, Request, Session};

/// How many histories a test run sees.
const HISTORIES: u64 = 2_000;
/// How long accidents happen, and how long it may take until all is well again.
const TROUBLE: Duration = Duration::from_secs(20);
const PEACE: Duration = Duration::from_secs(25);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn every_history_keeps_the_books() {
    let seeds = match std::env::var("NOTIFYMAN_SEED") {
        Ok(seed) => std::iter::once(seed.parse().unwrap()).collect::<Vec<u64>>(),
        Err(_) => (0..HISTORIES).collect(),
    };
    let replay = seeds.len() == 1;
    let mut total = Tally::default();
    for seed in seeds {
        let told = Seed(seed);
        let mut history = History::new(seed, replay);
        if let Err(what) = history.run() {
            panic!("at {:?}: {what}", history.now);
        }
        std::mem::forget(told);
        total.add(&history.tally);
    }
    println!("{total:?}");
    if !replay {
        // What never happens proves nothing.
        let Tally { heard, restores, by_heartbeat, refused, waits, deaf, unregistered, .. } = total;
        let often = [("heard", heard), ("restores", restores), ("found by heartbeat", by_heartbeat)];
        for (what, count) in often.into_iter().chain([("deaf", deaf), ("unregistered", unregistered)]) {
            assert!(count > HISTORIES / 2, "only {count} {what}");
        }
        assert!(refused > HISTORIES / 2 && waits > HISTORIES / 2, "{refused} refused, {waits} waits for a place");
    }
}

/// Says which history it was when that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        eprintln!("again with: NOTIFYMAN_SEED={} cargo test --lib simulation", self.0);
    }
}

#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    heard: u64,
    covered: u64,
    losses: u64,
    restores: u64,
    by_heartbeat: u64,
    refused: u64,
    waits: u64,
    idles: u64,
    canaries: u64,
    deaf: u64,
    unregistered: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.heard += other.heard;
        self.covered += other.covered;
        self.losses += other.losses;
        self.restores += other.restores;
        self.by_heartbeat += other.by_heartbeat;
        self.refused += other.refused;
        self.waits += other.waits;
        self.idles += other.idles;
        self.canaries += other.canaries;
        self.deaf += other.deaf;
        self.unregistered += other.unregistered;
    }
}

/// One connection of the manager.
#[derive(Default)]
struct Member {
    life: Life,
    heart: Heart,
    pulse: Option<Duration>,
    last_read: Duration,
    revived: Option<(Duration, u32)>,
    failed: u32,
    epoch: u64,
    /// The last number that it heard, or the first that it need not have.
    last: u64,
    /// Whether a gap was told since.
    gap: bool,
    /// Whether it was asked to listen again to what its server had forgotten.
    relistening: bool,
}

#[derive(Default)]
enum Life {
    Waiting(Duration),
    #[default]
    InLine,
    LoggingIn(u64, Session, Duration),
    Listening(u64, Session, Relisten, Duration),
    Good(u64, Session),
}

struct History {
    now: Duration,
    start: Instant,
    world: World,
    members: Vec<Member>,
    backoff: Backoff,
    dials: Dials<usize>,
    /// When the latest dials began, the last of them last.
    begun: VecDeque<Duration>,
    heartbeat: Heartbeat,
    jitter: Jitter,
    idle: Idle,
    last_idle: Duration,
    config: Config,
    buffer: ReadBuffer,
    proof: Proof,
    tally: Tally,
    trace: bool,
}

type Checked = Result<(), String>;

impl History {
    fn new(seed: u64, trace: bool) -> Self {
        let (mut world, start) = (World::new(seed), crate::clock::CompactInstant::FIRST.into());
        let backoff = Backoff::default()
            .first(world.millis(5, 200))
            .longest(world.millis(500, 3000))
            .at_once(1 + world.below(3) as usize)
            .per_second(2 + world.below(20) as u32);
        let heartbeat = Heartbeat { idle: world.millis(500, 4000), deadline: world.millis(100, 2000) };
        let mut dials = Dials::default();
        let members: Vec<_> = (0..1 + world.below(5)).map(|_| Member::default()).collect();
        (0..members.len()).for_each(|which| dials.join(which));
        Self {
            now: Duration::ZERO,
            start,
            members,
            backoff,
            dials,
            begun: VecDeque::new(),
            heartbeat,
            jitter: Jitter::new(seed ^ 1),
            idle: Idle::new(Some(world.millis(300, 3000))),
            last_idle: Duration::ZERO,
            config: Config::new().host("127.0.0.1").user("u"),
            buffer: ReadBuffer::new(1024),
            proof: Proof::new(&mut world, start),
            tally: Tally::default(),
            trace,
            world,
        }
    }

    fn at(&self, time: Duration) -> Instant {
        self.start + time
    }

    fn since_start(&self, at: Option<Instant>) -> Option<Duration> {
        at.map(|at| at - self.start)
    }

    fn run(&mut self) -> Checked {
        let (mut accident, mut commit) = (self.world.millis(500, 3000), Duration::ZERO);
        while self.now < TROUBLE + PEACE {
            let pending = self.members.iter().flat_map(|member| {
                let until = match &member.life {
                    Life::Waiting(until) | Life::LoggingIn(.., until) | Life::Listening(.., until) => Some(*until),
                    _ => None,
                };
                [until, member.pulse]
            });
            let dial = self.since_start(self.dials.due(&self.backoff, self.at(self.now)));
            let idle = self.since_start(self.idle.due());
            let proof = self.since_start(self.proof.next());
            let next = pending.chain([Some(commit), dial, idle, proof, self.world.next()]).flatten().min();
            let mut next = next.unwrap_or(commit).max(self.now);
            if !self.world.peaceful {
                next = next.min(accident);
            }
            self.now = next;

            self.world.serve(self.now);
            if commit <= self.now {
                self.world.notify(self.now);
                let pause = if self.world.peaceful { 2000 } else { 700 };
                commit = self.now + self.world.millis(1, pause);
            }
            if !self.world.peaceful && accident <= self.now {
                self.world.accident(self.now);
                accident = self.now + self.world.millis(10, 1500);
                if self.now > TROUBLE {
                    self.world.make_peace(self.now);
                }
            }
            for which in 0..self.members.len() {
                self.step(which)?;
            }
            self.prove()?;
            self.admit()?;
            self.check_idle()?;
        }
        self.check_end()
    }

    fn check_idle(&mut self) -> Checked {
        let now = self.at(self.now);
        self.idle.begin(now);
        if self.idle.is_due(now) {
            if self.now - self.last_idle < self.idle.period().unwrap_or_default() {
                return Err("an idle event was early".into());
            }
            self.idle.restart(now);
            self.last_idle = self.now;
            self.tally.idles += 1;
        }
        Ok(())
    }

    /// All is well again: everybody is back, and has heard the last but what is on its way.
    fn check_end(&mut self) -> Checked {
        let sent = self.world.number;
        self.tally.sent += sent;
        for (which, member) in self.members.iter().enumerate() {
            if !matches!(member.life, Life::Good(..)) {
                return Err(format!("{which} isn't back"));
            }
            if member.last + 100 < sent {
                return Err(format!("{which} has heard {} of {sent}", member.last));
            }
            // Who has been back for a moment only may have to wait for the next.
            let back = member.revived.map_or(Duration::ZERO, |(since, _)| since);
            if member.gap && self.now - back > Duration::from_secs(5) {
                return Err(format!("nothing came to {which} after its gap"));
            }
        }
        Ok(())
    }

    // ---- dialling -----------------------------------------------------------------------------------------------

    fn admit(&mut self) -> Checked {
        while let Some(which) = self.dials.admit(&self.backoff, self.at(self.now)) {
            let Some(member) = self.members.get_mut(which) else { return Err("nobody was admitted".into()) };
            if !matches!(member.life, Life::InLine) {
                return Err(format!("{which} was admitted, and didn't stand in line"));
            }
            let session = Session::new(&self.config).map_err(|e| e.to_string())?;
            let link = self.world.dial(self.now);
            self.world.send(self.now, link, session.poll_transmit());
            let mut session = session;
            session.handle_transmitted(usize::MAX);
            member.life = Life::LoggingIn(link, session, self.now + CONNECT_TIMEOUT);

            let dialling =
                self.members.iter().filter(|it| matches!(it.life, Life::LoggingIn(..) | Life::Listening(..))).count();
            if dialling > self.backoff.at_once {
                return Err(format!("{dialling} dial at once, {} may", self.backoff.at_once));
            }
            self.begun.push_back(self.now);
            if self.begun.len() > self.backoff.per_second as usize
                && let Some(first) = self.begun.pop_front()
                && self.now - first < Duration::from_millis(999)
            {
                return Err(format!("over {} dials began in a second", self.backoff.per_second));
            }
        }
        Ok(())
    }

    fn failed(&mut self, which: usize, link: u64, error: &Error) -> Checked {
        self.world.hang_up(self.now, link);
        self.dials.end();
        self.tally.refused += 1;
        let member = &mut self.members[which];
        if is_final_attempt(error, true) {
            return Err(format!("{which} was given up: {error}"));
        }
        member.failed += 1;
        member.life = Life::Waiting(self.now + self.backoff.delay(member.failed, &mut self.jitter));
        Ok(())
    }

    // ---- one connection -----------------------------------------------------------------------------------------

    fn step(&mut self, which: usize) -> Checked {
        if let Life::Waiting(at) = self.members[which].life {
            if at <= self.now {
                self.members[which].life = Life::InLine;
                self.dials.join(which);
                self.tally.waits += u64::from(self.dials.due(&self.backoff, self.at(self.now)).is_none());
            }
            return Ok(());
        }
        while let Life::LoggingIn(link, ..) | Life::Listening(link, ..) | Life::Good(link, _) = self.members[which].life
            && let Some(piece) = self.world.receive(self.now, link)
        {
            match piece {
                Piece::Bytes(bytes) => self.read(which, link, &bytes)?,
                Piece::End => self.break_link(which, link, Session::handle_eof)?,
                Piece::Reset => {
                    let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                    self.break_link(which, link, |session| session.handle_io_error("reading", reset()))?;
                }
            }
        }
        let late = Error::Timeout { action: "the server", after: CONNECT_TIMEOUT, closed: true };
        match self.members[which].life {
            Life::LoggingIn(link, _, until) | Life::Listening(link, _, _, until) if until <= self.now => {
                self.failed(which, link, &late)
            }
            Life::Good(..) => self.feel_pulse(which),
            _ => Ok(()),
        }
    }

    fn session(&mut self, which: usize) -> Option<&mut Session> {
        match &mut self.members[which].life {
            Life::LoggingIn(_, session, _) | Life::Listening(_, session, ..) | Life::Good(_, session) => Some(session),
            Life::Waiting(_) | Life::InLine => None,
        }
    }

    fn is_on(&self, which: usize, link: u64) -> bool {
        matches!(self.members[which].life,
            Life::LoggingIn(of, ..) | Life::Listening(of, ..) | Life::Good(of, _) if of == link)
    }

    /// What arrives is cut anywhere.
    fn read(&mut self, which: usize, link: u64, mut bytes: &[u8]) -> Checked {
        while !bytes.is_empty() && self.is_on(which, link) {
            let most = bytes.len().min(512) as u64;
            let size = if self.world.below(3) == 0 { 1 + self.world.below(most) } else { most } as usize;
            let mut buffer = std::mem::replace(&mut self.buffer, ReadBuffer::new(0));
            if let Some(session) = self.session(which).filter(|session| !session.is_closed()) {
                let space = session.space(&mut buffer);
                let size = size.min(space.len());
                space[..size].copy_from_slice(&bytes[..size]);
                session.handle_input(&mut buffer, size);
                bytes = &bytes[size..];
            }
            self.buffer = buffer;
            self.members[which].last_read = self.now;
            self.go_on(which, link)?;
        }
        Ok(())
    }

    fn break_link(&mut self, which: usize, link: u64, how: impl FnOnce(&mut Session)) -> Checked {
        if let Some(session) = self.session(which) {
            how(session);
        }
        self.go_on(which, link)
    }

    /// The session has read something: on to its next phase, or to its end.
    fn go_on(&mut self, which: usize, link: u64) -> Checked {
        let life = std::mem::take(&mut self.members[which].life);
        let (life, error) = match life {
            Life::LoggingIn(_, mut session, until) => match session.poll() {
                Some(Output::Ready) => {
                    let relisten = Relisten::begin(&mut session, &["c".into()]);
                    (Life::Listening(link, session, relisten, until), None)
                }
                Some(Output::Closed(error)) => (Life::InLine, Some(error)),
                _ => (Life::LoggingIn(link, session, until), None),
            },
            Life::Listening(_, mut session, mut relisten, until) => {
                match relisten.poll(&mut session, &mut Edits::default()) {
                    Ok(_) if relisten.is_done(&session) => (Life::Good(link, session), None),
                    Ok(_) => (Life::Listening(link, session, relisten, until), None),
                    Err(error) => (Life::InLine, Some(error)),
                }
            }
            other => (other, None),
        };
        let (now, heartbeat) = (self.at(self.now), self.heartbeat);
        let restored = matches!(life, Life::Good(..)) && self.members[which].pulse.is_none();
        self.members[which].life = life;
        if let Some(error) = error {
            return self.failed(which, link, &error);
        }
        if restored {
            self.dials.end();
            let first = heartbeat.first(now, &mut self.jitter);
            let pulse = self.since_start(first);
            let member = &mut self.members[which];
            (member.heart, member.pulse) = (Heart::default(), pulse);
            member.revived = Some((self.now, member.failed));
            member.epoch += 1;
            member.gap = true;
            self.tally.restores += 1;
            self.attend(which);
        }
        self.settle(which)?;
        self.send_all(which, link);
        if let Life::Good(..) = self.members[which].life { self.deliver(which, link) } else { Ok(()) }
    }

    fn send_all(&mut self, which: usize, link: u64) {
        if let Some(session) = self.session(which) {
            let bytes = session.poll_transmit().to_vec();
            session.handle_transmitted(bytes.len());
            if !bytes.is_empty() {
                self.world.send(self.now, link, &bytes);
            }
        }
    }

    /// What a good connection has is told, and after that its end.
    fn deliver(&mut self, which: usize, link: u64) -> Checked {
        let Some(session) = self.session(which) else { return Ok(()) };
        if session.is_relistening() {
            return Ok(());
        }
        let relistened = session.take_relistened(&["c".into()]).is_some();
        let (batch, reason) = (session.take_notifications(), session.reason().cloned());
        let member = &mut self.members[which];
        member.gap |= std::mem::take(&mut member.relistening) && relistened;
        for n in batch.iter().flatten() {
            let number: u64 = n.payload().parse().map_err(|_| "a payload that nobody sent")?;
            if self.trace {
                println!("{:?} {which} hears {number}{}", self.now, if member.gap { " after a gap" } else { "" });
            }
            if number <= member.last {
                return Err(format!("{which} heard {number} after {}", member.last));
            }
            if number > member.last + 1 && !member.gap {
                return Err(format!("{which} lost {} in silence before {number}", member.last + 1));
            }
            self.tally.covered += number - member.last - 1;
            self.tally.heard += 1;
            (member.last, member.gap) = (number, false);
        }
        match reason {
            Some(reason) => self.lose(which, link, &reason),
            None => Ok(()),
        }
    }

    fn lose(&mut self, which: usize, link: u64, reason: &Error) -> Checked {
        if self.trace {
            println!("{:?} {which} is lost: {reason}", self.now);
        }
        self.world.hang_up(self.now, link);
        self.proof.leave(which, self.at(self.now));
        self.tally.losses += 1;
        if is_final_loss(reason) {
            return Err(format!("{which} was given up: {reason}"));
        }
        let now = self.at(self.now);
        let revived = self.members[which].revived.map(|(since, failed)| (self.at(since), failed));
        let member = &mut self.members[which];
        member.failed = failed_before(revived, reason, now);
        (member.pulse, member.relistening) = (None, false);
        let delay = self.backoff.delay(member.failed, &mut self.jitter);
        if delay > self.backoff.longest {
            return Err(format!("a wait of {delay:?}"));
        }
        member.life = Life::Waiting(self.now + delay);
        Ok(())
    }

    fn feel_pulse(&mut self, which: usize) -> Checked {
        let (start, now) = (self.start, self.now);
        let member = &mut self.members[which];
        let Life::Good(link, session) = &mut member.life else { return Ok(()) };
        let link = *link;
        if member.pulse.is_some_and(|at| at <= now) {
            let signs = Signs {
                who: which as u64,
                last_read: start + member.last_read,
                is_settled: session.is_settled(),
                awaits_prompt_answer: session.awaits_immediate_answer(),
            };
            match member.heart.feel(&self.heartbeat, signs, start + now) {
                Beat::Fine(next) => member.pulse = next.map(|next| next - start),
                Beat::Ask(next) => {
                    member.pulse = next.map(|next| next - start);
                    session.request_discarding_reply(Request::Sync);
                    self.send_all(which, link);
                }
                Beat::Dead if self.world.is_intact(link) && self.heartbeat.deadline > Duration::from_millis(70) => {
                    return Err(format!("{which} was taken for dead, and its server had answered"));
                }
                Beat::Dead => {
                    self.tally.by_heartbeat += 1;
                    let after = self.heartbeat.idle;
                    session.fail(Error::Timeout { action: "the answer to a heartbeat", after, closed: true });
                    return self.deliver(which, link);
                }
            }
        }
        // The bound, with a step of the timer.
        let silent = now - self.members[which].last_read;
        // A canary has a limit of its own, since a lock may keep the server from answering.
        let deadline = self.heartbeat.deadline.max(self.proof.limit_of_canary(which));
        let most = self.heartbeat.idle + deadline + Duration::from_millis(3);
        if silent > most {
            return Err(format!("{which} is silent for {silent:?} and still taken for alive, {most:?} is the most"));
        }
        Ok(())
    }
}
