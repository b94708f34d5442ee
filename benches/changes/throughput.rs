//! The rows inserted per second by concurrent clients, while one session listens.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::turns::{self, Samples};
use crate::variants::{self, Database, Variant};
use crate::writes::{self, BULK};
use crate::{Scale, connect};

/// The number of rows of each statement, and of clients.
pub const CASES: [(usize, usize); 4] = [(1, 1), (1, 16), (BULK, 1), (BULK, 16)];
const ROUNDS: usize = 3;

/// Returns the rows inserted per second in each of the [`CASES`].
pub fn cases(databases: &mut [Database], scale: Scale) -> Vec<Samples> {
    let rounds = scale.of(ROUNDS, 1);
    let turn = Duration::from_secs_f64(scale.seconds / (ROUNDS + 1) as f64);
    let mut case = |(rows, clients): (usize, usize)| {
        variants::set_statement_trigger(databases, rows > 1);
        let rows = if rows > 1 { scale.of(rows, 500) } else { 1 };
        let [samples] = turns::take(rounds, &Variant::ALL, |variant| {
            let Database { session, url } = &mut databases[variant as usize];
            writes::empty(session);
            [rate(url, rows as u64, clients, turn)]
        });
        samples
    };
    CASES.into_iter().map(&mut case).collect()
}

/// Returns the rows per second. Each client completes the statement that it has begun.
fn rate(url: &str, rows: u64, clients: usize, time: Duration) -> f64 {
    let (is_over, is_done, next) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(1));
    let mut listener = connect(url);
    listener.listen(["notifyman", "c"]).unwrap();
    let writers: Vec<_> = (0..clients).map(|_| connect(url)).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in listener.wait(Duration::from_millis(20)) {
                if is_done.load(Relaxed) {
                    break;
                }
            }
        });
        let begun = Instant::now();
        let (is_over, next) = (&is_over, &next);
        let write = |mut session: notifyman::Connection| {
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    let first = next.fetch_add(rows, Relaxed);
                    session.execute(&writes::insert(first, first + rows - 1)).unwrap();
                }
            })
        };
        let writing: Vec<_> = writers.into_iter().map(write).collect();
        thread::sleep(time);
        is_over.store(true, Relaxed);
        writing.into_iter().for_each(|writer| writer.join().unwrap());
        let taken = begun.elapsed();
        is_done.store(true, Relaxed);
        (next.load(Relaxed) - 1) as f64 / taken.as_secs_f64()
    })
}
