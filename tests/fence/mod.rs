//! The fence with real servers: the rules F01 to F07.

mod channels;
mod conditions;
mod harness;
mod loops;
mod overlaps;
mod standbys;
mod support;
