//! The notifier that ships, run over chosen interleavings of its threads.
//!
//! ```text
//!   explore: seeds ─▶ shuttle ─▶ scenario ─▶ Model ──▶ threads of the notifier, its users and its callbacks
//!                                              └─▶ Ledger: each notification is delivered once or counted, in order
//!   exhaustive: all short interleavings of two threads at one subscriber
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
//! The atomics of a model are sequentially consistent: an ordering that is too weak is not found here.

mod exhaustive;
mod explore;
mod ledger;
mod model;
mod scenarios;
