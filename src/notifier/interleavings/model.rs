//! A notifier without sockets, the threads of its runs, and its users.

use std::panic::resume_unwind;
use std::sync::{Arc, PoisonError};

use shuttle::thread::{self, JoinHandle};

use super::ledger::{Ledger, SeatEnd, SeatKey};
use crate::manager::ConnId;
use crate::notification::notifications_in;
use crate::notifier::deferred::DeferredActions;
use crate::notifier::dispatcher::Dispatcher;
use crate::notifier::event_loop::NotifierLoop;
use crate::notifier::lifecycle::ThreadExit;
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::queue::Queue;
use crate::notifier::shared::{NotifierCore, RunPhase};
use crate::notifier::{Notifier, NotifierStats};
use crate::proto::script;
use crate::proto::sql::Limits;
use crate::sync::atomic::{AtomicU8, Ordering::SeqCst};

pub(super) const CHANNELS: [&str; 2] = ["a", "b"];

/// The attempts to see that a condition holds before it counts as never.
const ATTEMPTS: usize = 3_000;

/// An action of a callback, for one of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    None,
    Panic,
    Unsubscribe,
    Mute,
    Replace,
    Stats,
    Halt,
}

/// A part of a notifier that its users and callbacks share.
pub(super) struct Model {
    pub(super) ledger: Ledger,
    /// Taken at the end, since the callbacks hold the model.
    notifier: std::sync::Mutex<Option<Notifier<u32>>>,
    core: Arc<NotifierCore<u32>>,
}

/// The threads of a run.
pub(super) struct Run {
    threads: Vec<JoinHandle<()>>,
}

impl Model {
    pub(super) fn new(workers: usize, queue: Queue) -> Arc<Self> {
        let builder = Notifier::builder("host=localhost user=shop").unwrap().autorun(false);
        let notifier = builder.workers(workers).queue(queue).build::<u32>();
        drop(notifier.add_channels(CHANNELS).unwrap());
        let core = Arc::clone(notifier.core());
        Arc::new(Self { ledger: Ledger::default(), notifier: std::sync::Mutex::new(Some(notifier)), core })
    }

    fn notifier(&self) -> Notifier<u32> {
        self.notifier.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap()
    }

    /// Spawns the threads of a run, of which the loop sends some batches, and waits until the session is open. Seats that
    /// exist receive.
    pub(super) fn start(self: &Arc<Self>, batches: Vec<Vec<(usize, u8)>>) -> Run {
        let core = &self.core;
        let dispatcher = Arc::new(Dispatcher::new(core.settings.workers));
        let id = ConnId::for_test(1);
        let run = {
            let mut state = core.lock();
            state.run += 1;
            (state.phase, state.last_running) = (RunPhase::Running, state.run);
            state.dispatcher = Some(Arc::clone(&dispatcher));
            state.by_connection = [(id, 0)].into();
            state.databases[0].begin_session(None, true, &mut DeferredActions::default());
            state.run
        };
        let keys = self.seats();
        {
            let mut ledger = self.ledger.lock();
            (ledger.is_stopped, ledger.is_sent) = (false, false);
        }
        for seat in &keys {
            self.ledger.begin_receiving(*seat);
        }
        let new_exit = || ThreadExit { core: Arc::clone(core), dispatcher: Arc::clone(&dispatcher), run };
        let mut threads = Vec::new();
        for number in 0..core.settings.workers {
            let exit = new_exit();
            threads.push(thread::spawn(move || exit.dispatcher.run(number, &exit.core.context, &exit.core.panics)));
        }
        let notifier_loop = NotifierLoop::new(Arc::clone(core), run);
        notifier_loop.record_open(id, None, &CHANNELS.into(), Limits::Exact);
        keys.iter().for_each(|seat| self.ledger.end_begin_receiving(*seat, None));
        let (exit, model) = (new_exit(), Arc::clone(self));
        threads.push(thread::spawn(move || {
            let (_exit, notifier_loop) = (exit, notifier_loop);
            batches.iter().for_each(|batch| model.send(&notifier_loop, id, batch));
            model.ledger.lock().is_sent = true;
            let mut state = model.core.lock();
            while state.phase == RunPhase::Running {
                state = model.core.wait(state);
            }
        }));
        Run { threads }
    }

    fn send(&self, notifier_loop: &NotifierLoop<u32>, id: ConnId, batch: &[(usize, u8)]) {
        let numbers = self.ledger.begin_sending(batch);
        let notification = |(number, (channel, payload)): (u64, &(usize, u8))| {
            script::notification(number as i32, CHANNELS[*channel], [*payload])
        };
        let bytes: Vec<u8> = numbers.into_iter().zip(batch).flat_map(notification).collect();
        notifier_loop.distribute(id, notifications_in(&bytes));
        self.ledger.end_sending();
    }

    fn seats(&self) -> Vec<SeatKey> {
        self.ledger.lock().seats.keys().copied().collect()
    }

    // ---- changes by users and by callbacks --------------------------------------------------------------------------

    /// Subscribes, or replaces a subscription. The callback reacts to its `when`th call.
    pub(super) fn subscribe(self: &Arc<Self>, seat: SeatKey, reaction: Reaction, when: usize) {
        self.ledger.note(format!("subscribe {seat:?} {reaction:?}"));
        let serial = self.ledger.begin_receiving(seat);
        let model = Arc::clone(self);
        let mut calls = 0;
        let scheduled = AtomicU8::new(0);
        let ticket = self.notifier().subscribe_ticket(seat.0, CHANNELS[seat.1], move |delivery| {
            model.ledger.enter(seat, serial, delivery);
            scheduled.fetch_or(1, SeqCst);
            calls += 1;
            let reaction = if calls == when { reaction } else { Reaction::None };
            model.react(seat, reaction);
            model.ledger.leave(seat.0);
            if reaction == Reaction::Panic {
                model.ledger.lock().panics += 1;
                // Without the hook, which would report the schedule.
                resume_unwind(Box::new("a panic of the model"));
            }
        });
        drop(ticket.unwrap());
        self.ledger.end_begin_receiving(seat, Some(serial));
        self.ledger.note("subscribe ended".to_owned());
    }

    fn react(self: &Arc<Self>, seat: SeatKey, reaction: Reaction) {
        match reaction {
            Reaction::None | Reaction::Panic => {}
            Reaction::Unsubscribe => self.unsubscribe(seat),
            Reaction::Mute => self.mute(seat),
            Reaction::Replace => self.subscribe(seat, Reaction::None, 0),
            Reaction::Stats => {
                self.stats();
            }
            Reaction::Halt => {
                self.pause_all();
                self.core.halt(None);
            }
        }
    }

    pub(super) fn unsubscribe(&self, seat: SeatKey) {
        self.ledger.note(format!("unsubscribe {seat:?}"));
        self.ledger.stop_receiving(seat, SeatEnd::Unsubscribed);
        // A full queue may have unsubscribed it already.
        let _ = self.notifier().unsubscribe(&seat.0, CHANNELS[seat.1]);
        self.ledger.end_stop_receiving(seat);
        self.ledger.note("unsubscribe ended".to_owned());
    }

    pub(super) fn mute(&self, seat: SeatKey) {
        self.ledger.note(format!("mute {seat:?}"));
        self.ledger.stop_receiving(seat, SeatEnd::Paused);
        let _ = self.notifier().mute_subscriber_on(&seat.0, [CHANNELS[seat.1]]);
        self.ledger.end_stop_receiving(seat);
        self.ledger.note("mute ended".to_owned());
    }

    pub(super) fn unmute(&self, seat: SeatKey) {
        self.ledger.note(format!("unmute {seat:?}"));
        self.ledger.begin_receiving(seat);
        drop(self.notifier().unmute_subscriber_on(&seat.0, [CHANNELS[seat.1]]));
        self.ledger.end_begin_receiving(seat, None);
        self.ledger.note("unmute ended".to_owned());
    }

    /// Mutes a channel, on which no seat may change meanwhile.
    pub(super) fn mute_channel(&self, channel: usize) {
        self.ledger.note(format!("mute channel {channel}"));
        let seats: Vec<_> = self.seats().into_iter().filter(|seat| seat.1 == channel).collect();
        seats.iter().for_each(|seat| self.ledger.stop_receiving(*seat, SeatEnd::Paused));
        self.notifier().mute_channels([CHANNELS[channel]]).unwrap();
        seats.iter().for_each(|seat| self.ledger.end_stop_receiving(*seat));
        self.ledger.note("mute channel ended".to_owned());
    }

    pub(super) fn unmute_channel(&self, channel: usize) {
        self.ledger.note(format!("unmute channel {channel}"));
        let seats: Vec<_> = self.seats().into_iter().filter(|seat| seat.1 == channel).collect();
        seats.iter().for_each(|seat| _ = self.ledger.begin_receiving(*seat));
        drop(self.notifier().unmute_channels([CHANNELS[channel]]).unwrap());
        seats.iter().for_each(|seat| self.ledger.end_begin_receiving(*seat, None));
        self.ledger.note("unmute channel ended".to_owned());
    }

    pub(super) fn set_queue(&self, id: u32, queue: Queue) {
        self.ledger.note(format!("set queue {id}: {queue:?}"));
        let _ = self.notifier().set_queue(&id, queue);
        self.ledger.note("set_queue ended".to_owned());
    }

    /// Queues a report, as for a lost session.
    pub(super) fn report(&self, seat: SeatKey) {
        self.ledger.note(format!("report {seat:?}"));
        self.core.change(|state, actions| {
            // Only a loop that has not been stopped reports.
            if state.phase != RunPhase::Running {
                return;
            }
            if let Some(entry) = state.databases[0].subscriptions.registry.get(&seat.0, CHANNELS[seat.1]) {
                actions.report(entry.value, MissedReport::new(Reason::Opened, 0));
            }
        });
        self.ledger.note("report ended".to_owned());
    }

    pub(super) fn stats(&self) -> NotifierStats {
        self.notifier().stats()
    }

    fn pause_all(&self) {
        self.seats().into_iter().for_each(|seat| self.ledger.stop_receiving(seat, SeatEnd::Paused));
    }

    /// Stops the notifier: no call begins or runs after that.
    pub(super) fn stop(&self) {
        self.ledger.note("stop".to_owned());
        self.pause_all();
        self.notifier().stop();
        self.ledger.lock().is_stopped = true;
    }

    // ---- the end ----------------------------------------------------------------------------------------------------

    /// Waits until a condition holds.
    pub(super) fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        for _ in 0..ATTEMPTS {
            if holds(self) {
                return;
            }
            self.ledger.check_faults();
            thread::yield_now();
        }
        panic!("never: {what}; logs: {:?}\n{}", self.logs(), self.ledger.history());
    }

    /// Returns for each channel the number and size of the notifications in its log.
    pub(super) fn logs(&self) -> Vec<(u64, u64)> {
        let channels = Arc::clone(&self.core.lock().databases[0].subscriptions.channels);
        channels.all().iter().map(|it| it.read(|log| (log.head() - log.base(), log.bytes_from(log.base())))).collect()
    }

    /// Waits until the loop has sent all of its batches.
    pub(super) fn wait_until_sent(&self) {
        self.wait_until("everything is sent", |it| it.ledger.lock().is_sent);
    }

    /// Waits until everything is read: the logs are empty, and nothing waits.
    pub(super) fn wait_until_read(&self) {
        self.wait_until("the logs are empty", |it| it.logs().iter().all(|log| *log == (0, 0)));
        self.wait_until("nothing waits", |it| it.stats().waiting == 0);
    }

    /// Waits until all notifications for seats that receive now were received or reported, or until a callback stops the
    /// notifier.
    pub(super) fn wait_until_settled(&self) {
        self.wait_until("all is received", |it| {
            it.ledger.check(it.stats().folded > 0).is_ok() || it.core.lock().phase != RunPhase::Running
        });
    }

    /// Stops, and checks the calls and the counters.
    pub(super) fn finish(&self, run: Run) -> NotifierStats {
        self.stop();
        run.join();
        let stats = self.stats();
        drop(self.notifier.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.core.context.deferred_drop.drop_all();
        self.ledger.check_faults();
        if let Err(fault) = self.ledger.check(stats.folded > 0) {
            panic!("{fault}\n{}", self.ledger.history());
        }
        // After the end of its threads, nothing is left.
        assert!(self.logs().iter().all(|log| *log == (0, 0)), "{:?}", self.logs());
        let ledger = self.ledger.lock();
        assert_eq!(stats.received, ledger.sent.len() as u64);
        let counted = (stats.delivered, stats.missed, stats.panics);
        assert_eq!(counted, (ledger.notifications, ledger.reports, ledger.panics));
        stats
    }
}

impl Run {
    /// Waits for the threads to end.
    pub(super) fn join(self) {
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
