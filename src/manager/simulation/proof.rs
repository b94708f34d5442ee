//! The canary and the audit, as the loop makes use of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::world::{CANARY, World};
use super::{Checked, History, Life};
use crate::error::Error;
use crate::manager::audit::Rota;
use crate::manager::rounds::{Due, Pace, Rounds};
use crate::proto::{Request, RequestId, sql};

/// How long a request of ours may take.
const LIMIT: Duration = Duration::from_secs(4);

/// What was asked of whom, and until when it may be answered.
struct Asked {
    of: usize,
    request: RequestId,
    what: What,
    until: Instant,
}

enum What {
    Attendance,
    Canary,
    Relisten,
    Audit(Option<Box<str>>),
}

pub(super) struct Proof {
    rounds: Rounds<usize>,
    rota: Rota,
    turn: usize,
    asked: Vec<Asked>,
    relapsed: BTreeSet<usize>,
    count: u64,
}

impl Proof {
    pub(super) fn new(world: &mut World, start: Instant) -> Self {
        let pace = Pace { period: world.millis(800, 4000), deadline: world.millis(1, 1000) };
        Self {
            rounds: Rounds::new(pace),
            rota: Rota::new(world.millis(800, 5000), start),
            turn: 0,
            asked: Vec::new(),
            relapsed: BTreeSet::new(),
            count: 0,
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let asked = self.asked.iter().map(|asked| asked.until).min();
        [self.rounds.next(), self.rota.next(), asked].into_iter().flatten().min()
    }

    /// How long the canary may take that this one has sent, if it has.
    pub(super) fn limit_of_canary(&self, who: usize) -> Duration {
        let sends = self.asked.iter().any(|asked| asked.of == who && matches!(asked.what, What::Canary));
        if sends { LIMIT } else { Duration::ZERO }
    }

    pub(super) fn leave(&mut self, who: usize, now: Instant) {
        self.rounds.leave(who, now);
        self.relapsed.remove(&who);
        self.asked.retain(|asked| asked.of != who);
    }
}

impl History {
    fn ask(&mut self, of: usize, ask: Request, what: What) {
        let until = self.at(self.now + LIMIT);
        let Life::Good(link, session) = &mut self.members[of].life else { return };
        let (link, request) = (*link, session.request(ask));
        self.proof.asked.push(Asked { of, request, what, until });
        self.send_all(of, link);
    }

    pub(super) fn attend(&mut self, which: usize) {
        let until = self.at(self.now + LIMIT);
        if let Life::Good(_, session) = &mut self.members[which].life
            && let Some(request) = session.join_canary(CANARY)
        {
            self.proof.asked.push(Asked { of: which, request, what: What::Attendance, until });
        }
    }

    /// What is due by now.
    pub(super) fn prove(&mut self) -> Checked {
        let now = self.at(self.now);
        while let Some(due) = self.proof.rounds.due(now) {
            match due {
                Due::Send(database) => {
                    self.proof.count += 1;
                    let payload = format!("canary {}", self.proof.count);
                    let members: Vec<_> = self.proof.rounds.members(&database).collect();
                    let mut sender = None;
                    for which in members {
                        let Some(session) = self.session(which) else { return Err("it isn't good, and counts".into()) };
                        session.expect_canary(&payload);
                        sender = sender.or(session.is_canary_missing(&payload).then_some(which));
                    }
                    let Some(sender) = sender else {
                        self.proof.rounds.not_sent(&database, now);
                        continue;
                    };
                    self.proof.rounds.sent(&database, sender, &payload, now);
                    self.tally.canaries += 1;
                    self.ask(sender, Request::Notify(sql::notify_many([(CANARY, payload.as_str())])), What::Canary);
                }
                Due::Ask(database, payload) => {
                    let members: Vec<_> = self.proof.rounds.members(&database).collect();
                    for which in members {
                        if self
                            .session(which)
                            .is_some_and(|session| session.is_canary_missing(&payload) && session.is_quiet())
                        {
                            self.ask(which, Request::Audit, What::Audit(Some(payload.clone())));
                        }
                    }
                }
            }
        }
        for _ in 0..self.proof.rota.due(now, self.members.len()) {
            self.proof.turn = (self.proof.turn + 1) % self.members.len();
            let which = self.proof.turn;
            if let Life::Good(_, session) = &self.members[which].life
                && session.is_quiet()
            {
                self.ask(which, Request::Audit, What::Audit(None));
            }
        }
        while let Some(at) = self.proof.asked.iter().position(|asked| asked.until <= now) {
            let late = self.proof.asked.swap_remove(at).of;
            if let Life::Good(link, session) = &mut self.members[late].life {
                let link = *link;
                session.fail(Error::Timeout { action: "a request of ours", after: LIMIT, closed: true });
                self.deliver(late, link)?;
            }
        }
        Ok(())
    }

    /// What has been answered, and what has been heard.
    pub(super) fn settle(&mut self, which: usize) -> Checked {
        let now = self.at(self.now);
        let Life::Good(link, session) = &mut self.members[which].life else { return Ok(()) };
        let link = *link;
        let (mut done, mut open) = (Vec::new(), Vec::new());
        for asked in std::mem::take(&mut self.proof.asked) {
            match if asked.of == which { session.take_reply(asked.request) } else { None } {
                Some(reply) => done.push((asked.what, reply.is_ok())),
                None => open.push(asked),
            }
        }
        self.proof.asked = open;
        if session.take_canary_sender().is_some() {
            self.proof.relapsed.remove(&which);
        }
        if session.canary_database().is_some() {
            self.proof.rounds.join(which, "the only one", now, &mut self.jitter);
        }
        for (what, is_ok) in done {
            match what {
                What::Canary if is_ok => self.proof.rounds.committed(which, now),
                What::Canary => self.proof.rounds.refused(which, now),
                What::Audit(canary) if is_ok => self.audited(which, link, canary.as_deref())?,
                What::Audit(_) | What::Attendance | What::Relisten => {}
            }
        }
        Ok(())
    }

    fn audited(&mut self, which: usize, link: u64, canary: Option<&str>) -> Checked {
        let Some(session) = self.session(which) else { return Ok(()) };
        let (lost, lapsed) = (session.take_missed_channels(), session.take_canary_lapsed());
        let missed = canary.is_some_and(|payload| session.is_canary_missing(payload));
        if canary.is_some() {
            session.stop_expecting_canary();
        }
        if (!lost.is_empty() || lapsed) && !self.world.has_forgotten(link) {
            return Err(format!("{which} was said to have lost {lost:?}, and nothing was"));
        }
        if !lost.is_empty() {
            self.tally.unregistered += 1;
            self.members[which].relistening = true;
            self.ask(which, Request::Relisten(lost), What::Relisten);
        }
        let again = canary.is_some() && lapsed && !self.proof.relapsed.insert(which);
        if again || (missed && !lapsed) {
            if !self.world.is_mute(link) && !self.world.has_forgotten(link) {
                return Err(format!("{which} was called deaf, and everything was delivered to it"));
            }
            self.tally.deaf += 1;
            if let Some(session) = self.session(which) {
                session.fail(Error::NotDelivering { after: LIMIT });
            }
        }
        Ok(())
    }
}
