//! The manager's rules, M01 to M12, from outside: each test's name begins with the rule that it proves. What
//! recovers by itself (M13 to M17) and the rest of the handle (M18, M19) is here as far as these rules need it.

mod deaths;
mod dialling;
mod failover;
mod fair;
mod fake;
mod handle;
mod harm;
mod idle;
mod limits;
mod loops;
mod membership;
mod outer;
mod properties;
mod requests;
mod revive;
mod scale;
mod slow;
mod stops;
mod support;
mod transactions;
mod zero;
