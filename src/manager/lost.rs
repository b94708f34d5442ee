//! The loop's side of death and return: who is lost goes to the garbage, or is brought back; within a budget.

use crate::clock;
use crate::error::Error;
use crate::manager::members::{ConnId, Dead, Life, Member};
use crate::manager::recovery::is_worth_retrying;
use crate::manager::restore::{Progress, Restore};
use crate::manager::timers::Why;
use crate::manager::turn::WATCHING;
use crate::manager::{Event, NotificationManager, log};
use crate::net::Reactor;

impl NotificationManager {
    /// A closed connection, from which everything has been told: to the garbage, or to be brought back.
    pub(super) fn lose(&mut self, token: u32) -> Option<Event> {
        self.settle(token);
        let (id, connection) = self.release(token)?;
        let dead = Dead::of(&connection);
        let error = dead.error().clone();
        self.shared.counters.losses.add(1);
        log::lost(id, &error, self.backoff.is_some() && is_worth_retrying(&error));
        match &self.backoff {
            Some(backoff) if is_worth_retrying(&error) => {
                // One that never lasts comes back ever more slowly.
                let failed = backoff.failed_before(connection.revived(), self.now);
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

    fn add_restore(&mut self, id: ConnId, restore: Restore) {
        let token = self.members.add(id, Life::Restoring(Box::new(restore)));
        self.queue(token);
    }

    /// Goes on with bringing one back.
    pub(super) fn go_on_restoring(&mut self, token: u32) -> Option<Event> {
        let member = self.members.get_mut(token)?;
        let id = member.id;
        member.queued = false;
        let Life::Restoring(restore) = &mut member.life else { return None };

        if let Some(at) = restore.waits_until() {
            if self.now < at {
                self.set_timer(token, Why::Look, Some(at));
            } else {
                restore.stand_in_line();
                self.dials.join(id);
            }
            return None;
        }
        if restore.is_admitted()
            && let Err(error) = restore.dial(clock::now())
        {
            return self.attempt_failed(token, error);
        }

        match restore.step(self.now, self.alarm.as_ref(), &mut self.buffer) {
            Progress::Wait(until) => {
                if let Some(stream) = restore.unwatched()
                    && let Ok(reactor) = &self.reactor
                    && let Err(error) = reactor.register(stream, token, true)
                {
                    return self.attempt_failed(token, Error::io(WATCHING, error));
                }
                if restore.awaits_alarm() {
                    self.looking_up.push(id);
                }
                self.set_timer(token, Why::Look, until);
                None
            }
            Progress::Restored(connection, watched) => {
                let stream = connection.any_stream();
                let watch = |reactor: &Reactor| match watched {
                    true => reactor.reregister(stream, token, false),
                    false => reactor.register(stream, token, false),
                };
                if let Ok(reactor) = &self.reactor
                    && let Err(error) = watch(reactor)
                {
                    return self.attempt_failed(token, Error::io(WATCHING, error));
                }
                let tickets = restore.take_tickets();
                if let Some(gap) = connection.gap() {
                    log::restored(id, gap, restore.failed + 1);
                }
                self.dials.end();
                self.members.promote(token, *connection);
                tickets.into_iter().for_each(|ticket| ticket.resolve(Ok(())));
                self.shared.counters.restores.add(1);
                self.count_members();
                self.start_pulse(token);
                self.queue_first(token);
                None
            }
            Progress::Failed(error) => self.attempt_failed(token, error),
        }
    }

    /// Tries again later, or gives up: then it is in the garbage, with the latest reason.
    fn attempt_failed(&mut self, token: u32, error: Error) -> Option<Event> {
        self.dials.end();
        if let Some(Member { life: Life::Restoring(restore), .. }) = self.members.get_mut(token)
            && restore.persists
            && is_worth_retrying(&error)
        {
            let backoff = self.backoff.unwrap_or_default();
            restore.failed += 1;
            let at = self.now + backoff.delay(restore.failed, &mut self.jitter);
            restore.wait_until(at);
            self.set_timer(token, Why::Look, Some(at));
            return None;
        }
        self.give_up(token, &error)
    }

    /// To the garbage.
    pub(super) fn give_up(&mut self, token: u32, error: &Error) -> Option<Event> {
        let Member { id, life: Life::Restoring(restore), .. } = self.members.take(token)? else { return None };
        log::gave_up(id, error, restore.failed + 1);
        self.members.bury(id, restore.fail(error));
        self.shared.counters.losses.add(1);
        self.count_members();
        Some(Event::Lost(id, error.clone()))
    }

    /// Lets those dial who have waited longest, as far as the budget allows.
    pub(super) fn admit_dials(&mut self) {
        while let Some(id) = self.dials.admit(&self.backoff.unwrap_or_default(), self.now) {
            if let Some(token) = self.members.token(id)
                && let Some(Member { life: Life::Restoring(restore), .. }) = self.members.get_mut(token)
                && restore.admit()
            {
                self.queue(token);
            } else {
                // It was taken out meanwhile: the place is for the next.
                self.dials.end();
            }
        }
    }
}
