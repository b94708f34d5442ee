//! The plan of the measurements: cells, sizes and ways to hand out.

use std::time::Duration;

use notifyman::notifier::Policy;

use crate::load::{Cost, Load};
use crate::notifier::notifier;
use crate::peers;

/// A way to hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Direct,
    Broadcast,
    Owned,
    Hop,
    Notifier,
    Coalesce,
    OneWorker,
    TwoWorkers,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Broadcast => "broadcast",
            Self::Owned => "owned",
            Self::Hop => "hop",
            Self::Notifier => "notifier",
            Self::Coalesce => "coalesce",
            Self::OneWorker => "workers-1",
            Self::TwoWorkers => "workers-2",
        }
    }

    pub fn run(self, load: &Load) -> Cost {
        match self {
            Self::Direct => peers::direct(load),
            Self::Broadcast => peers::broadcast(load, load.portion),
            Self::Owned => peers::owned(load),
            Self::Hop => peers::hop(load),
            Self::Notifier | Self::OneWorker => notifier(load, Policy::DropOldest, 1),
            Self::Coalesce => notifier(load, Policy::Coalesce, 1),
            Self::TwoWorkers => notifier(load, Policy::DropOldest, 2),
        }
    }
}

/// A load with the ways to hand it out that are compared.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub part: &'static str,
    /// The first words of its metrics.
    pub metric: &'static str,
    pub load: Load,
    pub kinds: &'static [Kind],
}

/// Returns all cells, with the sizes to publish, or with sizes that take only seconds.
pub fn cells(smoke: bool) -> Vec<Cell> {
    use Kind::*;
    let few = |n: u64| if smoke { n.div_ceil(50).max(2) } else { n };
    let cell = |part, metric, load, kinds| Cell { part, metric, load, kinds };
    let most = if smoke { 10_000 } else { 100_000 };
    let mut cells = Vec::new();
    let several: &[Kind] = &[Direct, Broadcast, Owned, Notifier];
    for payload in [32, 512] {
        let load = Load::new(payload, 1, 2_048, few(500));
        cells.push(cell("flood", "flood", load, &[Direct, Broadcast, Owned, Hop, Notifier]));
        for (subscribers, portion, portions) in [(10, 2_048, 150), (1_000, 512, 10), (most, 30, 2)] {
            let load = Load::new(payload, subscribers, portion, few(portions));
            cells.push(cell("callbacks", "callbacks", load, several));
        }
        let load = Load { channels: 1_000, ..Load::new(payload, 10, 1_000, few(100)) };
        cells.push(cell("channels", "channels", load, several));
    }
    let load = Load::new(32, 1_000, 512, few(10));
    let coalesce: &[Kind] = &[Notifier, Coalesce];
    cells.push(cell("coalesce", "payloads_10", Load { payloads: 10, ..load }, coalesce));
    cells.push(cell("coalesce", "payloads_all", Load { payloads: u64::MAX, ..load }, coalesce));
    let workers: &[Kind] = &[OneWorker, TwoWorkers];
    cells.push(cell("workers", "empty", load, workers));
    let load = Load { busy: Duration::from_micros(1), portions: few(4), ..load };
    cells.push(cell("workers", "busy", load, workers));
    cells
}
