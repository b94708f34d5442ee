//! A record of what is sent and of all calls, and the rules that they keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::notifier::delivery::Delivery;
use crate::notifier::missed::Reason;

/// A subscriber on a channel, over all of its subscriptions there.
pub(super) type SeatKey = (u32, usize);

#[derive(Default)]
pub(super) struct Ledger(Mutex<LedgerState>);

#[derive(Default)]
pub(super) struct LedgerState {
    /// The channel of each notification and the number of its payload. Notifications are numbered from 1.
    pub(super) sent: Vec<(usize, u8)>,
    /// The number of notifications up to the end of each batch.
    pub(super) batch_ends: Vec<usize>,
    /// The number of notifications whose distribution has begun, and has ended.
    begun: u64,
    ended: u64,
    pub(super) seats: BTreeMap<SeatKey, Seat>,
    /// The subscribers of which a callback runs.
    running: BTreeSet<u32>,
    /// The last notification of each subscriber.
    last: BTreeMap<u32, u64>,
    pub(super) is_stopped: bool,
    /// A subscription that was ended by its full queue may be followed by another one before its last calls.
    pub(super) allows_late_calls: bool,
    /// The loop has sent all that it sends in this run.
    pub(super) is_sent: bool,
    pub(super) notifications: u64,
    pub(super) reports: u64,
    pub(super) panics: u64,
    /// The rules that were broken: a panic would be caught with the callback.
    pub(super) faults: Vec<String>,
    /// The changes and calls in their order, for a fault.
    history: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Seat {
    pub(super) calls: Vec<Call>,
    intervals: Vec<Interval>,
    /// The latest subscription, by number, and the latest that has been made.
    last_serial: u32,
    serial: u32,
    is_silent: bool,
    /// Calls since the seat is silent, or of an earlier subscription since it was replaced.
    late_calls: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Notification { number: u64, folded: u64 },
    Report { dropped: u64, may_miss: bool, is_last: bool },
}

/// A time in which a seat receives. Changes are concurrent with the loop: in between, a notification may be received or not.
#[derive(Debug)]
struct Interval {
    /// Notifications up to this number cannot be received, and those after the second are.
    may_from: u64,
    must_from: u64,
    /// Notifications up to this number are received, and those after the second cannot be.
    must_to: u64,
    may_to: u64,
    end: Option<SeatEnd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeatEnd {
    /// The end of a subscription: what waits is dropped, and no report follows.
    Unsubscribed,
    /// A mute or a stop: what waits may be dropped, and a report follows before the next notification.
    Paused,
}

impl Ledger {
    pub(super) fn lock(&self) -> MutexGuard<'_, LedgerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the beginning of a call.
    pub(super) fn enter(&self, seat: SeatKey, serial: u32, delivery: &Delivery<'_, u32>) -> Call {
        let mut it = self.lock();
        let call = match delivery {
            Delivery::Notification(n) => Call::Notification { number: n.pid() as u64, folded: n.folded() },
            Delivery::Missed(missed) => {
                let is_last = matches!(missed.reason(), Reason::Unsubscribed);
                // The reports of the model itself are of this kind.
                let may_miss = missed.dropped() > 0 || !matches!(missed.reason(), Reason::Opened);
                Call::Report { dropped: missed.dropped(), may_miss, is_last }
            }
        };
        if (*delivery.id(), delivery.channel()) != (seat.0, super::model::CHANNELS[seat.1]) {
            it.faults.push(format!("seat {seat:?} received a call of another one"));
        }
        it.record(seat, serial, call);
        call
    }

    pub(super) fn leave(&self, id: u32) {
        self.lock().running.remove(&id);
    }

    /// Records that the distribution of notifications begins. Returns their numbers.
    pub(super) fn begin_sending(&self, batch: &[(usize, u8)]) -> Vec<u64> {
        let mut it = self.lock();
        let first = it.sent.len() as u64 + 1;
        it.sent.extend(batch);
        it.begun = it.sent.len() as u64;
        let end = it.sent.len();
        it.batch_ends.push(end);
        let event = format!("send {batch:?} from {first}");
        it.history.push(event);
        (first..=it.begun).collect()
    }

    pub(super) fn end_sending(&self) {
        let mut it = self.lock();
        it.ended = it.begun;
        it.history.push("sent".to_owned());
    }

    /// Records that a seat is about to receive. Returns the number for a new subscription.
    pub(super) fn begin_receiving(&self, seat: SeatKey) -> u32 {
        let mut it = self.lock();
        let may_from = it.ended;
        let seat = it.seats.entry(seat).or_default();
        if seat.intervals.last().is_none_or(|interval| interval.end.is_some()) {
            let (must_from, must_to, may_to) = (u64::MAX, u64::MAX, u64::MAX);
            seat.intervals.push(Interval { may_from, must_from, must_to, may_to, end: None });
        }
        seat.is_silent = false;
        seat.last_serial += 1;
        seat.last_serial
    }

    /// Records that a seat receives, by this subscription if there is a new one.
    pub(super) fn end_begin_receiving(&self, seat: SeatKey, serial: Option<u32>) {
        let mut it = self.lock();
        let begun = it.begun;
        let seat = it.seats.entry(seat).or_default();
        if let Some(serial) = serial {
            (seat.serial, seat.late_calls) = (serial, 0);
        }
        if let Some(interval) = seat.intervals.last_mut() {
            interval.must_from = interval.must_from.min(begun);
        }
    }

    pub(super) fn stop_receiving(&self, seat: SeatKey, end: SeatEnd) {
        let mut it = self.lock();
        let ended = it.ended;
        if let Some(interval) = it.seats.entry(seat).or_default().intervals.last_mut().filter(|it| it.end.is_none()) {
            (interval.must_to, interval.end) = (ended, Some(end));
        }
    }

    pub(super) fn end_stop_receiving(&self, seat: SeatKey) {
        let mut it = self.lock();
        let begun = it.begun;
        let seat = it.seats.entry(seat).or_default();
        seat.late_calls = 0;
        seat.is_silent = true;
        if let Some(interval) = seat.intervals.last_mut() {
            interval.may_to = interval.may_to.min(begun);
        }
    }

    /// Adds an event to the history.
    pub(super) fn note(&self, event: String) {
        self.lock().history.push(event);
    }

    pub(super) fn check_faults(&self) {
        let it = self.lock();
        assert!(it.faults.is_empty(), "{:#?}\n{}", it.faults, it.history.join("\n"));
    }

    pub(super) fn history(&self) -> String {
        self.lock().history.join("\n")
    }

    /// Checks the calls of all seats: each notification was received once and at the time of its seat, or is reported. If any
    /// notification was folded, that may have happened to each that has an equal one.
    pub(super) fn check(&self, has_folded: bool) -> Result<(), String> {
        let it = self.lock();
        it.seats.iter().try_for_each(|(key, seat)| {
            let result = seat.check(*key, &it.sent, has_folded);
            result.map_err(|fault| format!("{key:?}: {fault}\n{:#?}", seat.intervals))
        })
    }
}

impl LedgerState {
    fn record(&mut self, key: SeatKey, serial: u32, call: Call) {
        let mut faults = Vec::new();
        self.history.push(format!("  {key:?} by {serial}: {call:?}"));
        if !self.running.insert(key.0) {
            faults.push(format!("two calls of subscriber {} at the same time", key.0));
        }
        if self.is_stopped {
            faults.push(format!("a call of {key:?} after the stop: {call:?}"));
        }
        match call {
            Call::Notification { number, .. } => {
                self.notifications += 1;
                let last = self.last.entry(key.0).or_default();
                if number <= *last {
                    faults.push(format!("subscriber {} received {number} after {last}", key.0));
                }
                *last = number;
                if self.sent.get(number as usize - 1).is_none_or(|sent| sent.0 != key.1) {
                    faults.push(format!("{key:?} received {number} of another channel"));
                }
            }
            Call::Report { .. } => self.reports += 1,
        }
        let seat = self.seats.entry(key).or_default();
        if seat.is_silent || serial < seat.serial {
            // The one that was about to begin.
            seat.late_calls += 1;
            if seat.late_calls > 1 && !self.allows_late_calls {
                faults.push(format!("another call of {key:?} after its end: {call:?}"));
            }
        }
        seat.calls.push(call);
        self.faults.extend(faults);
    }

    /// Returns the number of notifications that were sent to the channel of a seat, up to one of them, and of those that
    /// the calls of the seat account for.
    pub(super) fn balance(&self, key: SeatKey, up_to: usize) -> (u64, u64) {
        let sent = self.sent.iter().take(up_to).filter(|(channel, _)| *channel == key.1).count() as u64;
        let calls = self.seats.get(&key).into_iter().flat_map(|seat| &seat.calls);
        let accounted = calls.map(|call| match call {
            Call::Notification { folded, .. } => 1 + folded,
            Call::Report { dropped, .. } => *dropped,
        });
        (sent, accounted.sum())
    }
}

impl LedgerState {
    /// Returns `true` if the last call of a seat is the report that it was unsubscribed.
    pub(super) fn has_ended(&self, key: SeatKey) -> bool {
        let last = self.seats.get(&key).and_then(|seat| seat.calls.last());
        last.is_some_and(|call| matches!(call, Call::Report { is_last: true, .. }))
    }
}

impl Seat {
    /// Checks that each notification was received once, or is in the place of a report.
    fn check(&self, key: SeatKey, sent: &[(usize, u8)], has_folded: bool) -> Result<(), String> {
        // For each notification, the number of its interval and of the reports of a gap before it.
        let mut received: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        let mut reports = 0;
        for call in &self.calls {
            match call {
                Call::Report { may_miss, .. } => reports += usize::from(*may_miss),
                Call::Notification { number, .. } => {
                    let is_in = |it: &Interval| *number > it.may_from && *number <= it.may_to;
                    let Some(interval) = self.intervals.iter().rposition(is_in) else {
                        return Err(format!("{number} was received at another time"));
                    };
                    received.insert(*number, (interval, reports));
                }
            }
        }
        for (number, interval) in (1..).zip(sent).filter(|(_, sent)| sent.0 == key.1).flat_map(|(number, _)| {
            let is_in = move |it: &&Interval| number > it.must_from && number <= it.must_to;
            self.intervals.iter().rposition(move |it| is_in(&it)).map(|interval| (number, interval))
        }) {
            if received.contains_key(&number) {
                continue;
            }
            let before = received.range(..number).next_back().map_or(0, |(_, (_, reports))| *reports);
            let next = received.range(number..).next().map(|(_, next)| *next);
            let end = self.intervals[interval].end;
            let is_reported = next.map_or(reports, |(_, reports)| reports) > before;
            // Notifications that waited at the end of an interval were dropped. Later ones are in a later interval.
            let is_dropped_at_end = match next {
                None => end.is_some(),
                Some((of_next, _)) => of_next > interval && end == Some(SeatEnd::Unsubscribed),
            };
            // The equal one may have been dropped in turn.
            let is_folded = has_folded && sent[number as usize..].contains(&sent[number as usize - 1]);
            if !is_reported && !is_dropped_at_end && !is_folded {
                return Err(format!("{number} was neither received nor reported"));
            }
        }
        Ok(())
    }
}
