//! `Debug` of a fleet: one entry for each connection, and the times of what is scheduled.

use std::fmt::{self, Debug, Formatter};
use std::time::Instant;

use super::member::Member;
use super::members::Members;
use crate::connection::Linked;
use crate::connection::idle::Idle;

/// A fleet at a time, to which the times in its description are relative.
pub(super) struct FleetView<'f, C: Linked> {
    pub(super) members: &'f Members<C>,
    pub(super) idle: &'f Idle,
    pub(super) now: Instant,
}

struct MemberView<'m, C: Linked> {
    member: &'m Member<C>,
    now: Instant,
}

impl<C: Linked> Debug for FleetView<'_, C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { members, idle, now } = self;
        let services = &members.services;
        let views = members.roster.members().map(|member| MemberView { member, now: *now });
        let garbage = members.roster.garbage.iter().map(|(id, dead)| (id.number(), format!("{:#}", dead.error())));
        let left = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(*now));
        f.debug_struct("Fleet")
            .field("members", &views.collect::<Vec<_>>())
            .field("garbage", &garbage.collect::<Vec<_>>())
            .field("tasks", &members.roster.tasks().len())
            .field("ready", &services.ready.len())
            .field("events", &services.events.len())
            .field("dials", &services.dials)
            .field("first_dials", &services.first_dials)
            .field("next_idle", &left(idle.due()))
            .field("next_timer", &left(services.timers.next))
            .field("next_canary", &left(services.canary.as_ref().and_then(|canaries| canaries.schedule.next)))
            .field("next_audit", &left(services.audit.as_ref().and_then(|audit| audit.next)))
            .finish()
    }
}

impl<C: Linked> Debug for MemberView<'_, C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut entry = f.debug_struct("Member");
        self.member.describe(&mut entry, self.now);
        entry.finish()
    }
}
