//! The only place of the library that asks what time it is. Pure values are given `now`.

use std::time::{Instant, SystemTime};

/// The monotonic clock: for deadlines and spans.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock: for what people read. It may jump.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
