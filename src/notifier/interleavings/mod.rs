//! The notifier that ships, run over chosen interleavings of its threads.
//!
//! ```text
//!   explore: seeds ─▶ shuttle ─▶ scenario ─▶ Model ──▶ threads of the notifier, its users and its callbacks
//!                                              └─▶ Ledger: each notification is delivered once or counted, in order
//!   exhaustive, passes: all short interleavings of two threads at one subscriber
//! ```
//!
//! A scenario has real subscriptions, dispatching threads and the distribution of batches; only the sockets are left out.
//! `crate::sync` makes each operation of a lock or an atomic a point at which `shuttle` chooses the thread that continues: at
//! random, or by a few changes of priorities (PCT). Time passes at random, so turns of subscribers end at any call. `shuttle`
//! reports threads that wait for each other for ever, so a lost wake-up is found, too.
//!
//! A schedule that breaks a rule prints its seed, and `NOTIFYMAN_SEED=123 cargo test --lib interleavings::NAME` replays the
//! schedules of that seed. `NOTIFYMAN_SEED=0..1000` runs more of them. (The order of a `HashMap` and of addresses is not part
//! of a seed, so a rare failure may need more than one attempt.)
//!
//! # Orderings
//!
//! The atomics of a model are sequentially consistent: an ordering that is too weak is not found here. These are the reasons
//! for the weaker ones:
//!
//! - `FanoutChannel::head` is stored with Release under the lock of the log, and only grows. A thread that has seen an index
//!   (Acquire) finds the entries before it. A visit's `until` was read from the head or under that lock by the same thread, so
//!   later loads are not smaller, and `head - next` cannot underflow.
//! - `FanoutChannel::bytes` is stored with Relaxed before the head. Limits are compared after a load of the head, so its
//!   value is at least as new. An older head or size is that of an earlier time, at which the thread could have continued, too:
//!   the compare-and-exchange of `unlocked` decides.
//! - `NotifierCounters::published` is stored with Release after all logs of a batch and after `add_unread`, and loaded with
//!   Acquire before the heads: of the notifications up to its value, none is missing on another channel. Only the loop stores
//!   it, and loads it with Relaxed.
//! - `FanoutChannel::largest` is changed and read under the lock of the checks, before the notification that needs it is added.
//!   A check that was planned before is found by the next look of the loop. The loop alone changes it, and also reads it without
//!   the lock.
//! - `Subscriber::unlocked` is set under the lock of the subscriber, so the next holder of the lock sees with Relaxed that it
//!   is set. The swap by that holder and the compare-and-exchange by the serving thread act on the latest value, and the value
//!   is all that they exchange: what was read stays in the segment that the reader holds.
//! - `Subscriber::is_unlocked_at` loads with Relaxed: a value from before a change of the subscription shows only that the call
//!   began before that change. The silence of a subscription is looked at before each call in any case.
//! - `FanoutChannel::laggards` is increased (AcqRel) before the visit is counted in `Pass::visited` (AcqRel), and the thread that
//!   counts the last visit loads it afterwards. It is decreased under the lock of the log, by a thread that has read
//!   everything, so a thread that sees the smaller number may trim.
//! - `Pass::read` is lowered before `Pass::visited` is raised, likewise. `PlaceRanges` hands out each place once with any
//!   ordering, and the places do not change.
//! - `FanoutChannel::is_ready` changes under the lock of the dispatcher, or when the threads of a run have ended.
//! - The flag of a running call is only looked at to report a call that does not return, again and again.
//! - `Subscription::is_silent` needs no order: after it is set, the lock of the subscriber is taken, and the serving thread
//!   takes that lock, or loses the compare-and-exchange and then takes it, before the second call after that. Other fields of a
//!   subscription change under the lock of the receivers or of the notifier's state.

mod exhaustive;
mod ledger;
mod model;
mod passes;
mod scenarios;
