//! The heartbeat: asking servers that are silent whether they are there.
//!
//! One timer a connection, set anew only when it goes off; what arrives meanwhile costs nothing.

use std::time::Instant;

use crate::error::Error;
use crate::manager::NotificationManager;
use crate::manager::members::{Life, Member};
use crate::manager::recovery::{Beat, Heart, Signs};
use crate::manager::timers::Why;
use crate::proto::Request;

impl NotificationManager {
    /// Has every connection's heart beat from now on.
    pub(super) fn start_all_pulses(&mut self) {
        for token in self.members.tokens() {
            self.start_pulse(token);
        }
    }

    /// Begins a connection's heartbeat, if there is one to begin.
    pub(super) fn start_pulse(&mut self, token: u32) {
        let Some(heartbeat) = self.heartbeat else { return };
        if let Some(member) = self.members.get_mut(token)
            && matches!(member.life, Life::Good(_))
            && !member.set.has_pulse()
        {
            member.heart = Heart::default();
            member.pulse_due = false;
            let first = heartbeat.first(self.now, &mut self.jitter);
            self.set_timer(token, Why::Pulse, first);
        }
    }

    /// The timer went off: the socket has just been read.
    pub(super) fn feel_pulse(&mut self, token: u32, now: Instant) {
        let Some(heartbeat) = self.heartbeat else { return };
        let Some(member) = self.members.get_mut(token) else { return };
        let Member { id, life: Life::Good(connection), heart, .. } = member else { return };
        if connection.is_closed() {
            return;
        }
        let signs = Signs {
            who: id.number(),
            last_read: connection.last_read(),
            is_settled: connection.session.is_settled(),
            awaits_prompt_answer: connection.session.awaits_immediate_answer(),
        };
        let next = match heart.feel(&heartbeat, signs, now) {
            Beat::Fine(next) => next,
            Beat::Ask(next) => {
                self.prompt_canary(token);
                if let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) {
                    connection.session.request_discarding_reply(Request::Sync);
                    connection.transmit();
                }
                next
            }
            Beat::Dead => {
                let after = heartbeat.idle.saturating_add(heartbeat.deadline);
                connection.close_for(Error::Timeout { action: "the answer to a heartbeat", after, closed: true });
                return self.set_timer(token, Why::Look, Some(now));
            }
        };
        self.set_timer(token, Why::Pulse, next);
    }
}
