//! The targets: ratios within one run.

use crate::format::grouped;
use crate::report::label;
use crate::results::{Case, Results};
use crate::synthetic::CHANNEL;

/// The length of the payloads in targets about one.
const SHORT: usize = 32;
pub const LONG: usize = 512;

/// The bytes of a notification without its payload: header, process id, channel and two terminators.
const AROUND: usize = 5 + 4 + CHANNEL.len() + 2;

/// A number, the number that it is compared with, and the bound of the ratio.
#[derive(Debug)]
pub struct Target {
    pub title: String,
    pub own: f64,
    pub other: f64,
    pub bound: Bound,
}

#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub fn ratio(&self) -> f64 {
        self.own / self.other
    }

    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.ratio() <= most,
            Bound::AtLeast(least) => self.ratio() >= least,
        }
    }
}

/// Returns the targets of all that was measured.
pub fn list(results: &Results) -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    let mut targets = Vec::new();
    let mut add = |title: String, own: Option<f64>, other: Option<f64>, bound| {
        // Only Linux reports memory.
        if let (Some(own), Some(other)) = (own, other.filter(|other| *other > 0.0)) {
            targets.push(Target { title, own, other, bound });
        }
    };
    for case in results.cases(&["flood_cpu_ns"]) {
        let title = format!("1 subscriber, {} B, CPU, to hop", case.payload);
        add(title, results.get(case, "notifier"), results.get(case, "hop"), AtMost(1.0));
    }
    for case in results.cases(&["callbacks_cpu_ns", "channels_cpu_ns"]) {
        // The peer does not receive from the server, so that is added.
        let peer = results.get(case, "broadcast").zip(results.get(case, "owned")).map(|(peer, owned)| peer + owned);
        let title = format!("{}, CPU, to owned + broadcast", label(case));
        add(title, results.get(case, "notifier"), peer, AtMost(1.0));
    }
    let of_a_thousand = |metric: &str, kind: &str| results.get(&Case::new(metric, 1_000, SHORT), kind);
    for (payloads, metric) in
        [("10 different payloads", "payloads_10_cpu_ns"), ("all different", "payloads_all_cpu_ns")]
    {
        let title = format!("coalescing, {payloads}, CPU, to the default policy");
        add(title, of_a_thousand(metric, "coalesce"), of_a_thousand(metric, "notifier"), AtMost(2.0));
    }
    for (callbacks, cpu, speed, least) in [
        ("empty callbacks", "empty_cpu_ns", "empty_per_second", 1.5),
        ("callbacks of 1 µs", "busy_cpu_ns", "busy_per_second", 1.8),
    ] {
        let title = |what: &str| format!("two dispatching threads, {callbacks}, {what}, to one");
        add(title("CPU"), of_a_thousand(cpu, "workers-2"), of_a_thousand(cpu, "workers-1"), AtMost(1.1));
        add(title("throughput"), of_a_thousand(speed, "workers-2"), of_a_thousand(speed, "workers-1"), AtLeast(least));
    }
    for case in results.cases(&["queued"]).into_iter().filter(|case| case.subscribers > 1) {
        let queued = |subscribers| results.get(&Case::new("queued", subscribers, LONG), "notifier");
        let title =
            |to: &str| format!("memory of a queued notification, {} subscribers, to {to}", grouped(case.subscribers));
        add(title("1 subscriber"), queued(case.subscribers), queued(1), AtMost(1.05));
        add(title("its bytes in the stream"), queued(case.subscribers), Some((LONG + AROUND) as f64), AtMost(1.5));
    }
    for (processors, metric) in [("one processor", "one_p50"), ("any processor", "any_p50")] {
        let get = |kind| results.get(&Case::new(metric, 1, SHORT), kind);
        let floor = get("manager").zip(get("condvar")).map(|(manager, hand_over)| manager + hand_over);
        add(format!("median latency on {processors}, to manager + condvar"), get("notifier"), floor, AtMost(1.5));
    }
    targets
}
