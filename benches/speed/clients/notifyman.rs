//! The clients that use this crate.

use std::error::Error;
use std::hint::black_box;
use std::thread;
use std::time::Duration;

use notifyman::{Backoff, Batch, Config, Connection, Event, NotificationManager};

use crate::job::{Answers, CHANNEL, CONCURRENT_DIALS, Job, Meter};

/// An idle timeout that does not expire during a run.
const IDLE: Duration = Duration::from_secs(60);

/// Runs a client. The kinds differ in how they consume batches.
pub fn run(job: Job) -> Result<(), Box<dyn Error>> {
    match job.kind.as_str() {
        "borrowed" | "timed" | "recovery" => {
            listen(job, |batch| batch.iter().inspect(|n| _ = black_box(n.payload_bytes())).count())
        }
        "str" => listen(job, |batch| batch.iter().filter(|n| black_box(n.payload_str()).is_ok()).count()),
        "owned" => listen(job, |batch| batch.into_iter().map(black_box).count()),
        "threads-1" => split(job, 1),
        "threads-2" => split(job, 2),
        kind => Err(format!("unknown kind of client: {kind}").into()),
    }
}

fn listen(mut job: Job, take: impl FnMut(Batch) -> usize) -> Result<(), Box<dyn Error>> {
    let mut nm = manager(&job);
    if job.task == "dial" {
        return dial(nm, &mut job);
    }
    nm.insert(open(&job)?);
    job.first_is_open();
    for _ in 1..job.connections {
        nm.insert(open(&job)?);
    }
    run_until_idle(&mut nm);
    let answers = job.answers()?;
    let meter = job.all_are_open();
    match (answers, job.task.as_str()) {
        (Some(answers), _) => answer(&mut nm, job.expected, answers)?,
        (None, "poll") if job.connections == 1 => poll_one(&mut nm, job.expected)?,
        (None, "poll") => poll_all(&mut nm, job.expected)?,
        (None, _) => receive(&mut nm, job.expected, take)?,
    }
    job.done(&meter)
}

/// Returns a manager. `timed` has idle events, and `recovery` has reconnection and a heartbeat.
fn manager(job: &Job) -> NotificationManager {
    let nm = NotificationManager::new([]);
    match job.kind.as_str() {
        "timed" => nm.timeout(IDLE),
        "recovery" => nm.reconnect(Backoff::default()).heartbeat(Duration::from_secs(30), Duration::from_secs(10)),
        _ => nm,
    }
}

fn open(job: &Job) -> Result<Connection, notifyman::Error> {
    let mut db = Connection::connect(Config::without_env(&job.conninfo())?)?;
    db.listen([CHANNEL])?;
    Ok(db)
}

/// Runs the loop until it has read every new connection once.
fn run_until_idle(nm: &mut NotificationManager) {
    let timeout = nm.current_timeout();
    nm.set_timeout(Duration::ZERO);
    while nm.next_event().is_some() {}
    nm.set_timeout(timeout);
}

fn receive(
    nm: &mut NotificationManager,
    expected: u64,
    mut take: impl FnMut(Batch) -> usize,
) -> Result<(), Box<dyn Error>> {
    let mut count = 0;
    while count < expected {
        let (_, batch) = nm.next().flatten().ok_or("the loop has ended")?;
        count += take(batch) as u64;
    }
    Ok(())
}

fn answer(nm: &mut NotificationManager, expected: u64, mut answers: Answers) -> Result<(), Box<dyn Error>> {
    receive(nm, expected, |batch| batch.iter().filter(|n| answers.answer(n.payload_bytes())).count())
}

/// Polls one connection repeatedly.
fn poll_one(nm: &mut NotificationManager, times: u64) -> Result<(), Box<dyn Error>> {
    let id = nm.connections().map(|(id, _)| id).next().ok_or("no connection")?;
    let mut db = nm.remove(id).and_then(Result::ok).ok_or("the connection has ended")?;
    let received = (0..times).map(|_| db.wait(Duration::ZERO).count()).sum::<usize>();
    nm.insert(db);
    if received == 0 { Ok(()) } else { Err("a notification was received".into()) }
}

/// Polls many connections repeatedly.
fn poll_all(nm: &mut NotificationManager, times: u64) -> Result<(), Box<dyn Error>> {
    nm.set_timeout(Duration::ZERO);
    if (0..times).all(|_| nm.next().is_none()) { Ok(()) } else { Err("a notification was received".into()) }
}

/// Opens connections inside the loop, many concurrently. They are lost connections that the loop restores.
fn dial(nm: NotificationManager, job: &mut Job) -> Result<(), Box<dyn Error>> {
    let backoff = Backoff::default().first(Duration::ZERO).at_once(CONCURRENT_DIALS).per_second(u32::MAX);
    let mut nm = nm.reconnect(backoff);
    for _ in 0..job.connections {
        let mut db = open(job)?;
        db.close()?;
        nm.insert(db);
    }
    run_until_idle(&mut nm);
    let dead = nm.take_garbage();
    job.first_is_open();
    let mut missing = dead.len();
    for (id, dead) in dead {
        nm.revive(id, dead);
    }
    while missing > 0 {
        match nm.next_event().ok_or("the loop has ended")? {
            Event::Restored(..) => missing -= 1,
            Event::Lost(_, error) => return Err(error.into()),
            _ => {}
        }
    }
    let meter = job.all_are_open();
    job.done(&meter)
}

/// Distributes the connections to several managers, one per thread.
fn split(mut job: Job, threads: usize) -> Result<(), Box<dyn Error>> {
    let mut managers: Vec<_> = (0..threads).map(|_| manager(&job)).collect();
    job.first_is_open();
    for at in 0..job.connections {
        managers[at % threads].insert(open(&job)?);
    }
    managers.iter_mut().for_each(run_until_idle);
    let meter: Meter = job.all_are_open();
    let each = job.expected / threads as u64;
    let count = |batch: Batch| batch.iter().inspect(|n| _ = black_box(n.payload_bytes())).count();
    let done = thread::scope(|scope| {
        let run =
            |mut nm: NotificationManager| scope.spawn(move || receive(&mut nm, each, count).map_err(|e| e.to_string()));
        let running: Vec<_> = managers.into_iter().map(run).collect();
        running.into_iter().all(|thread| thread.join().is_ok_and(|done| done.is_ok()))
    });
    if done { job.done(&meter) } else { Err("the loop of a thread has ended".into()) }
}
