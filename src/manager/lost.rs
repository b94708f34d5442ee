//! The loop's side of death and return: who is lost goes to the garbage, or is brought back; within a budget.

use std::io;

use crate::clock;
use crate::config::Config;
use crate::connection::Ear;
use crate::error::Error;
use crate::manager::members::{ConnId, Dead, Life, Member};
use crate::manager::recovery::{FIRST_DIALS, failed_before, is_final_attempt, is_final_loss};
use crate::manager::restore::{Progress, Restore};
use crate::manager::timers::Why;
use crate::manager::turn::WATCHING;
use crate::manager::{Event, NotificationManager, log};
use crate::proto::Request;
use crate::proto::sql::Limits;

impl NotificationManager {
    /// A closed connection, from which everything has been told: to the garbage, or to be brought back.
    pub(super) fn lose(&mut self, token: u32) -> Option<Event> {
        self.complete_requests(token, false);
        let (id, connection) = self.release(token)?;
        let dead = Dead::of(&connection);
        let error = dead.error().clone();
        self.shared.counters.losses.add(1);
        let is_final = is_final_loss(&error);
        log::lost(id, &error, self.backoff.is_some() && !is_final);
        match &self.backoff {
            Some(backoff) if !is_final => {
                // A connection whose sessions never last is restored with growing delays.
                let failed = failed_before(connection.established(), &error, self.now);
                let mut restore = Restore::new(dead, self.now + backoff.delay(failed, &mut self.jitter));
                (restore.failed, restore.persists) = (failed, true);
                self.add_restore(id, restore);
            }
            _ => self.members.bury(id, dead),
        }
        self.count_members();
        Some(Event::Lost(id, error))
    }

    /// Brings one back that is dead, as soon as the budget allows.
    pub(super) fn revive_now(&mut self, id: ConnId, dead: Dead) {
        let mut restore = Restore::new(dead, clock::now());
        restore.persists = self.backoff.is_some();
        self.add_restore(id, restore);
        self.count_members();
    }

    /// Opens a session to send a canary by it, on behalf of a connection.
    pub(super) fn send_messenger(&mut self, on_behalf_of: ConnId, dead: Dead, ask: Request) {
        let restore = Restore::messenger(dead, clock::now(), on_behalf_of, ask);
        let id = self.members.new_messenger_id();
        let token = self.members.add(id, Life::Messenger(Box::new(restore)));
        self.queue(token);
    }

    /// It has sent it, or couldn't; its session is over.
    pub(super) fn messenger_back(&mut self, token: u32, result: Result<(), Error>) {
        if let Some(Member { life: Life::Messenger(restore), .. }) = self.members.take(token)
            && let Some(id) = restore.on_behalf_of()
        {
            self.canary_sent(id, result);
        }
    }

    fn add_restore(&mut self, id: ConnId, restore: Restore) {
        let token = self.members.add(id, Life::Restoring(Box::new(restore)));
        self.queue(token);
    }

    /// Goes on with bringing one back.
    pub(super) fn go_on_restoring(&mut self, token: u32) -> Option<Event> {
        let member = self.members.get_mut(token)?;
        let id = member.id;
        member.queued = false;
        let (Life::Restoring(restore) | Life::Messenger(restore)) = &mut member.life else { return None };

        if let Some(at) = restore.waits_until() {
            if self.now < at {
                self.set_timer(token, Why::Look, Some(at));
            } else {
                restore.stand_in_line();
                match restore.is_first() {
                    true => self.first_dials.join(id),
                    false => self.dials.join(id),
                }
            }
            return None;
        }
        // Not the turn's time: a slow body may have come between, and the server gets all of its time.
        let now = clock::now();
        if restore.is_admitted()
            && let Err(error) = restore.dial(now)
        {
            return self.attempt_failed(token, error);
        }

        let mut ear = Ear { buffer: &mut self.buffer, thorough: member.read_closed };
        match restore.step(now, self.waker.as_ref(), &mut ear) {
            Progress::Wait(until) => {
                if restore.awaits_alarm() {
                    self.looking_up.push(id);
                }
                if let Err(error) = self.watch_restore(token) {
                    return self.attempt_failed(token, Error::io(WATCHING, error));
                }
                self.set_timer(token, Why::Look, until);
                None
            }
            Progress::Restored(connection, _) if restore.is_messenger() => {
                drop(connection);
                self.dials.end();
                self.messenger_back(token, Ok(()));
                None
            }
            Progress::Restored(mut connection, more) => {
                let tickets = restore.take_tickets();
                let (is_first, attempts) = (restore.is_first(), restore.failed + 1);
                let is_back = connection.gap().is_some();
                if let Some(gap) = connection.gap() {
                    log::restored(id, gap, attempts);
                    self.shared.counters.restores.add(1);
                }
                // With nothing behind it, the gap is told at once.
                let is_quiet = !more && connection.session.backlog_size() == 0;
                let gap = if is_quiet { connection.take_gap() } else { None };
                self.shared.counters.gaps.add(usize::from(gap.is_some()));
                self.end_dial(is_first);
                self.members.promote(token, *connection);
                tickets.into_iter().for_each(|ticket| ticket.resolve(Ok(())));
                self.count_members();
                self.start_pulse(token);
                self.attend(token);
                if is_quiet {
                    self.keep_watch(token)
                } else {
                    self.queue_first(token)
                }
                match gap {
                    Some(gap) => Some(Event::Restored(id, gap)),
                    // The gap tells of one that is back.
                    None => (!is_back).then_some(Event::Opened(id)),
                }
            }
            Progress::Failed(error) => self.attempt_failed(token, error),
        }
    }

    /// Watches the stream on which one is brought back, for what it waits for.
    fn watch_restore(&mut self, token: u32) -> io::Result<()> {
        let (Ok(reactor), Some(member)) = (&self.reactor, self.members.get_mut(token)) else { return Ok(()) };
        let (Life::Restoring(restore) | Life::Messenger(restore)) = &mut member.life else { return Ok(()) };
        let wants_write = restore.wants_write();
        match restore.stream() {
            Some((stream, true)) => {
                (member.watches_write, member.read_closed) = (wants_write, false);
                reactor.register(stream, token, wants_write)
            }
            // Who has no more to write for now is left alone: most are done soon.
            Some((stream, false)) if wants_write && !member.watches_write => {
                member.watches_write = true;
                reactor.reregister(stream, token, true)
            }
            _ => Ok(()),
        }
    }

    /// Tries again later, or gives up: then it is in the garbage, with the latest reason.
    fn attempt_failed(&mut self, token: u32, error: Error) -> Option<Event> {
        if let Some(Member { life: Life::Messenger(_), .. }) = self.members.get(token) {
            self.dials.end();
            self.messenger_back(token, Err(error));
            return None;
        }
        let Some(Member { life: Life::Restoring(restore), .. }) = self.members.get_mut(token) else { return None };
        let backoff = self.backoff.unwrap_or_default();
        let is_final = is_final_attempt(&error, !restore.dead().is_unopened());
        let (is_first, persists) = (restore.is_first(), restore.persists && (backoff.retry_all || !is_final));
        if persists {
            restore.failed += 1;
            let delay = match is_final {
                true => backoff.slow_delay(&mut self.jitter),
                false => backoff.delay(restore.failed, &mut self.jitter),
            };
            let at = self.now + delay;
            restore.try_again(error.clone(), at);
            self.set_timer(token, Why::Look, Some(at));
        }
        self.end_dial(is_first);
        if persists { None } else { self.give_up(token, &error) }
    }

    /// To the garbage.
    pub(super) fn give_up(&mut self, token: u32, error: &Error) -> Option<Event> {
        let Member { id, life: Life::Restoring(restore), .. } = self.members.take(token)? else { return None };
        log::gave_up(id, error, restore.failed + 1);
        // A session that had been open was counted when it was lost.
        self.shared.counters.losses.add(usize::from(restore.dead().is_unopened()));
        self.members.bury(id, restore.fail(error));
        self.count_members();
        Some(Event::Lost(id, error.clone()))
    }

    /// Opens one for the first time, as soon as there is a place.
    pub(super) fn open_now(&mut self, config: Config, channels: Vec<Box<str>>, limits: Limits) -> ConnId {
        let id = self.members.new_id();
        self.revive_now(id, Dead::unopened(config, channels, limits));
        id
    }

    /// Lets those dial who have waited longest, as far as the budget allows.
    pub(super) fn admit_dials(&mut self) {
        while let Some(id) = self.first_dials.admit(&FIRST_DIALS, self.now) {
            if !self.admit_dial(id) {
                self.first_dials.end();
            }
        }
        while let Some(id) = self.dials.admit(&self.backoff.unwrap_or_default(), self.now) {
            if !self.admit_dial(id) {
                self.dials.end();
            }
        }
    }

    /// Lets one dial; unless it was taken out meanwhile, and then its place is for the next.
    fn admit_dial(&mut self, id: ConnId) -> bool {
        if let Some(token) = self.members.token(id)
            && let Some(Member { life: Life::Restoring(restore) | Life::Messenger(restore), .. }) =
                self.members.get_mut(token)
            && restore.admit()
        {
            self.queue(token);
            return true;
        }
        false
    }

    /// Gives the place of a dial back.
    pub(super) fn end_dial(&mut self, is_first: bool) {
        match is_first {
            true => self.first_dials.end(),
            false => self.dials.end(),
        }
    }
}
