//! Tests of the manager's rules M01 to M12 by its public interface. Each name begins with the rule that the test proves.
//! Recovery (M13 to M17) and the rest of the handle (M18, M19) are here as far as these rules need them.

mod dialling;
mod failover;
mod fairness;
mod fake;
mod handle;
mod idle;
mod isolation;
mod labels;
mod limits;
mod loops;
mod losses;
mod membership;
#[cfg(feature = "metrics")]
mod metrics;
mod outer_loop;
mod properties;
mod requests;
mod revive;
mod scale;
mod slow;
mod stops;
#[cfg(feature = "stream")]
mod stream;
mod support;
mod transactions;
mod zero;
