//! The rules that hold after every step of a history, at every idle event, and at the end.

use std::time::Duration;

use super::history::{History, SimLoop};
use super::ledger::{Checked, Record, Standing};
use super::network::with_network;
use super::server::CANARY;
use crate::manager::conn_id::ConnId;
use crate::manager::fleet::live::Live;
use crate::manager::fleet::member::Member;
use crate::manager::fleet::roster::Occupant;

/// Checks that every connection is in the set that its events say, and that the counters agree.
pub(super) fn check_sets<'r>(event_loop: &SimLoop, records: impl Iterator<Item = (&'r ConnId, &'r Record)>) -> Checked {
    let fleet = &event_loop.fleet;
    if !fleet.members.services.events.is_empty() {
        return Ok(());
    }
    let live: Vec<_> = fleet.connections().map(|(id, _)| id).collect();
    let restoring: Vec<_> = fleet.restoring().map(|(id, _)| id).collect();
    let garbage: Vec<_> = fleet.garbage().iter().map(|(id, _)| *id).collect();
    let mut count = 0;
    for (id, record) in records {
        count += 1;
        let is_live = live.contains(id);
        let sets = [is_live, restoring.contains(id), garbage.contains(id)];
        if sets.iter().filter(|is_in| **is_in).count() != 1 {
            return Err(format!("connection {id} is in these sets: {sets:?}"));
        }
        // In the plain loop, a gap comes with the first batch.
        let has_gap = fleet.get(*id).is_some_and(|link| link.history.gap().is_some());
        let fits = match record.standing {
            Standing::Live => is_live,
            Standing::Restoring => sets[1] || (is_live && has_gap),
            Standing::Garbage => sets[2],
        };
        if !fits {
            return Err(format!("connection {id} is {:?}, and in these sets: {sets:?}", record.standing));
        }
    }
    let stats = event_loop.shared.counters.read();
    let counted = (stats.connections, stats.restoring, stats.garbage);
    let expected = (live.len() as u64, restoring.len() as u64, garbage.len() as u64);
    if counted != expected || live.len() + restoring.len() + garbage.len() != count {
        return Err(format!("{count} connections, in sets of {expected:?}, are counted as {counted:?}"));
    }
    #[cfg(feature = "metrics")]
    if fleet.members.services.meters.table.set_sizes().map(i64::cast_unsigned) != [counted.0, counted.1, counted.2] {
        return Err(format!("sets of {counted:?} are metered as {:?}", fleet.members.services.meters));
    }
    Ok(())
}

/// Checks that the permits that are held are those of attempts in progress, and are not too many.
pub(super) fn check_permits(event_loop: &SimLoop, limit: usize) -> Checked {
    let services = &event_loop.fleet.members.services;
    let roster = &event_loop.fleet.members.roster;
    let (mut dials, mut cancels) = (roster.members().filter(|member| member.holds_permit()).count(), 0);
    for token in roster.tasks() {
        if let Some(Occupant::Task(task)) = roster.get(token).map(|slot| &slot.occupant) {
            match task.holds_permit() {
                Some(holds) => dials += usize::from(holds),
                None => cancels += 1,
            }
        }
    }
    let held = services.dials.in_progress() + services.first_dials.in_progress();
    if held != dials || services.cancels.held() != cancels {
        let permits = (held, services.cancels.held());
        return Err(format!("{permits:?} permits are held, by {:?} attempts", (dials, cancels)));
    }
    if services.dials.in_progress() > limit {
        return Err(format!("{} attempts are in progress, but {limit} may", services.dials.in_progress()));
    }
    Ok(())
}

impl History {
    pub(super) fn check(&mut self) -> Checked {
        if let Some(fault) = with_network(|network| network.fault.take()) {
            return Err(fault);
        }
        check_sets(&self.event_loop, self.records.iter())?;
        let backoff = self.event_loop.fleet.members.services.backoff.unwrap_or_default();
        check_permits(&self.event_loop, backoff.at_once)?;
        self.check_rate(backoff.per_second)?;
        self.check_silence()
    }

    /// Checks that no more attempts begin in a second than may. The attempts that fail immediately count, too.
    fn check_rate(&self, per_second: u32) -> Checked {
        if self.settings.backoff.is_none() || self.has_poll_failed {
            return Ok(());
        }
        with_network(|network| {
            let dials = &mut network.dials;
            let spread = Duration::from_millis(999);
            let last = dials.len().checked_sub(1 + per_second as usize);
            if let Some(first) = last
                && dials[dials.len() - 1] - dials[first] < spread
            {
                return Err(format!("more than {per_second} attempts began in a second"));
            }
            Ok(())
        })
    }

    /// Checks that a dead link is found in time.
    fn check_silence(&self) -> Checked {
        let Some(heartbeat) = self.settings.heartbeat.filter(|_| !self.settings.is_slow) else { return Ok(()) };
        let now = with_network(|network| network.now);
        if now < self.last_block + Duration::from_secs(10) {
            return Ok(());
        }
        for (id, link) in self.event_loop.fleet.connections().filter(|(_, link)| !link.is_closed()) {
            // Requests of handles have a limit of their own.
            let others = if link.is_settled() || link.awaits_immediate_answer() { 0 } else { 8 };
            // With a zero timeout, the question and the loss each wait for the next pass of the program.
            let late = Duration::from_millis(if self.event_loop.fleet.is_pass() { 800 } else { 400 });
            let most = heartbeat.idle + heartbeat.deadline + others * Duration::from_secs(3) + late;
            let silent = now.saturating_duration_since(link.last_read());
            if silent > most {
                return Err(format!("connection {id} is silent for {silent:?}, but {most:?} is the limit"));
            }
        }
        Ok(())
    }

    /// Checks that nothing is undelivered at an idle event, and that each stream that was ready has been read.
    pub(super) fn check_idle(&self) -> Checked {
        with_network(|network| network.counts.add("idle"));
        for (id, link) in self.event_loop.fleet.connections() {
            if link.backlog().size() > 0 && link.history.relistening().is_none() {
                return Err(format!("an idle event, but connection {id} holds notifications"));
            }
        }
        let is_unread = |(link, reads): &(u64, u64)| {
            with_network(|network| {
                network
                    .links
                    .get(link)
                    .is_some_and(|link| link.reads == *reads && !link.inbox.is_empty() && !link.is_closed)
            })
        };
        let live: Vec<_> = self.event_loop.fleet.connections().map(|(_, link)| link.stream().0).collect();
        let reported = with_network(|network| network.reported.clone());
        match reported.iter().find(|reported| live.contains(&reported.0) && is_unread(reported)) {
            Some((link, _)) => Err(format!("an idle event, but link {link} was ready and was not read")),
            None => Ok(()),
        }
    }

    /// Checks that everything works at the end, and that nothing is left over.
    pub(super) fn check_end(&mut self) -> Checked {
        if let Some(open) = self.tickets.first() {
            return Err(format!("the ticket of a {} was never resolved", open.name));
        }
        let fleet = &self.event_loop.fleet;
        for (id, record) in &self.records {
            let Some(live) = fleet.members.roster.find(*id).and_then(Member::as_live) else {
                return Err(format!("connection {id} is {:?}, and was not restored", record.standing));
            };
            check_session(record, live).map_err(|fault| format!("connection {id}: {fault}"))?;
        }
        let services = &fleet.members.services;
        let is_waiting = services.dials.has_waiting() || services.first_dials.has_waiting();
        if (is_waiting && !self.records.is_empty()) || services.cancels.held() > 0 {
            return Err("an attempt is still waiting".into());
        }
        if services.in_transaction > 0 {
            return Err("a transaction is counted that is over".into());
        }
        Ok(())
    }
}

/// Checks a session that should have received everything.
fn check_session(record: &Record, live: &Live<super::stream::SimConnection>) -> Checked {
    let link = live.link();
    with_network(|network| {
        let backend = &network.links[&link.stream().0].backend;
        if backend.is_mute || backend.holds_back {
            // Only a canary finds that, which may not come in time.
            return Ok(());
        }
        record.check_settled(network)?;
        let mut registered: Vec<_> = backend.registered.keys().map(String::as_str).collect();
        registered.retain(|channel| *channel != CANARY);
        let listed: Vec<_> = link.channels().collect();
        if registered != listed {
            return Err(format!("the server has {registered:?}, but the session {listed:?}"));
        }
        match record.listened().find(|channel| !listed.contains(channel)) {
            Some(channel) => Err(format!("{channel} is owed or promised, but not listened to")),
            None => Ok(()),
        }
    })
}
