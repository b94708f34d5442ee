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
    // The cost of receiving counts, and is small with that many subscribers.
    for case in results.cases(&["callbacks_cpu_ns"]).into_iter().filter(|case| case.subscribers >= 1_000) {
        for (kind, most) in [("direct", 4.0), ("broadcast", 1.0)] {
            let title = format!("{}, CPU, to {kind}", label(case));
            add(title, results.get(case, "notifier"), results.get(case, kind), AtMost(most));
        }
    }
    let of_a_thousand = |metric: &str, kind: &str| results.get(&Case::new(metric, 1_000, SHORT), kind);
    for (payloads, metric, most) in
        [("10 different payloads", "payloads_10_cpu_ns", 2.0), ("all different", "payloads_all_cpu_ns", 4.0)]
    {
        let title = format!("coalescing, {payloads}, CPU, to the default policy");
        add(title, of_a_thousand(metric, "coalesce"), of_a_thousand(metric, "notifier"), AtMost(most));
    }
    let two_to_one = |metric| (of_a_thousand(metric, "workers-2"), of_a_thousand(metric, "workers-1"));
    for (title, metric, bound) in [
        ("empty callbacks, CPU", "empty_cpu_ns", AtMost(1.3)),
        ("callbacks of 1 µs, CPU", "busy_cpu_ns", AtMost(1.3)),
        ("callbacks of 1 µs, throughput", "busy_per_second", AtLeast(1.5)),
    ] {
        let (two, one) = two_to_one(metric);
        add(format!("two dispatching threads, {title}, to one"), two, one, bound);
    }
    for case in results.cases(&["idle"]) {
        add("memory of an idle subscriber, B".into(), results.get(case, "notifier"), Some(256.0), AtMost(1.0));
    }
    for case in results.cases(&["subscribe_ns"]) {
        add("time to subscribe, ns".into(), results.get(case, "notifier"), Some(3_000.0), AtMost(1.0));
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
