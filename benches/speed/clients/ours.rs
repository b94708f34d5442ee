//! This crate, in the ways that it is used.

use std::error::Error;
use std::hint::black_box;
use std::thread;
use std::time::Duration;

use notifyman::{Backoff, Batch, Config, Connection, Event, NotificationManager};

use crate::job::{Answers, CHANNEL, Job, Meter, SIDE_BY_SIDE};

/// An idle timeout that isn't over before the end.
const IDLE: Duration = Duration::from_secs(60);

/// Each kind takes its batches in its own way.
pub fn run(job: Job) -> Result<(), Box<dyn Error>> {
    match job.kind.as_str() {
        "borrowed" | "timed" | "guarded" => {
            listen(job, |batch| batch.iter().inspect(|n| _ = black_box(n.payload_bytes())).count())
        }
        "str" => listen(job, |batch| batch.iter().filter(|n| black_box(n.payload_str()).is_ok()).count()),
        "owned" => listen(job, |batch| batch.into_iter().map(black_box).count()),
        "threads-1" => split(job, 1),
        "threads-2" => split(job, 2),
        kind => Err(format!("no such kind: {kind}").into()),
    }
}

fn listen(mut job: Job, take: impl FnMut(Batch) -> usize) -> Result<(), Box<dyn Error>> {
    let mut nm = manager(&job);
    if job.task == "dial" {
        return dial(nm, &mut job);
    }
    nm.insert(open(&job)?);
    job.first_is_there();
    for _ in 1..job.connections {
        nm.insert(open(&job)?);
    }
    settle(&mut nm);
    let answers = job.answers()?;
    let meter = job.all_are_there();
    match (answers, job.task.as_str()) {
        (Some(answers), _) => answer(&mut nm, job.expected, answers)?,
        (None, "poll") if job.connections == 1 => look_at_one(&mut nm, job.expected)?,
        (None, "poll") => look_at_all(&mut nm, job.expected)?,
        (None, _) => receive(&mut nm, job.expected, take)?,
    }
    job.done(&meter)
}

/// As it comes; `timed` has idle events, and `guarded` everything switched on that looks after connections.
fn manager(job: &Job) -> NotificationManager {
    let nm = NotificationManager::new([]);
    match job.kind.as_str() {
        "timed" => nm.timeout(IDLE),
        "guarded" => nm.reconnect(Backoff::default()).heartbeat(Duration::from_secs(30), Duration::from_secs(10)),
        _ => nm,
    }
}

fn open(job: &Job) -> Result<Connection, notifyman::Error> {
    let mut db = Connection::connect(Config::without_env(&job.conninfo())?)?;
    db.listen([CHANNEL])?;
    Ok(db)
}

/// Has the loop look at each connection once, as it does with those that are new.
fn settle(nm: &mut NotificationManager) {
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

/// Whether a connection has anything, asked again and again.
fn look_at_one(nm: &mut NotificationManager, times: u64) -> Result<(), Box<dyn Error>> {
    let id = nm.connections().map(|(id, _)| id).next().ok_or("no connection")?;
    let mut db = nm.remove(id).and_then(Result::ok).ok_or("it has ended")?;
    let news = (0..times).map(|_| db.wait(Duration::ZERO).count()).sum::<usize>();
    nm.insert(db);
    if news == 0 { Ok(()) } else { Err("there was something".into()) }
}

/// Whether any of many has.
fn look_at_all(nm: &mut NotificationManager, times: u64) -> Result<(), Box<dyn Error>> {
    nm.set_timeout(Duration::ZERO);
    if (0..times).all(|_| nm.next().is_none()) { Ok(()) } else { Err("there was something".into()) }
}

/// Dials and listens inside the loop, many side by side: there they are those that died, brought back.
fn dial(nm: NotificationManager, job: &mut Job) -> Result<(), Box<dyn Error>> {
    let all_at_once = Backoff::default().first(Duration::ZERO).at_once(SIDE_BY_SIDE).per_second(u32::MAX);
    let mut nm = nm.reconnect(all_at_once);
    for _ in 0..job.connections {
        let mut db = open(job)?;
        db.close()?;
        nm.insert(db);
    }
    settle(&mut nm);
    let dead = nm.take_garbage();
    job.first_is_there();
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
    let meter = job.all_are_there();
    job.done(&meter)
}

/// The connections shared out among several managers, one a thread.
fn split(mut job: Job, threads: usize) -> Result<(), Box<dyn Error>> {
    let mut managers: Vec<_> = (0..threads).map(|_| manager(&job)).collect();
    job.first_is_there();
    for at in 0..job.connections {
        managers[at % threads].insert(open(&job)?);
    }
    managers.iter_mut().for_each(settle);
    let meter: Meter = job.all_are_there();
    let each = job.expected / threads as u64;
    let count = |batch: Batch| batch.iter().inspect(|n| _ = black_box(n.payload_bytes())).count();
    let done = thread::scope(|scope| {
        let run =
            |mut nm: NotificationManager| scope.spawn(move || receive(&mut nm, each, count).map_err(|e| e.to_string()));
        let running: Vec<_> = managers.into_iter().map(run).collect();
        running.into_iter().all(|thread| thread.join().is_ok_and(|done| done.is_ok()))
    });
    if done { job.done(&meter) } else { Err("a thread's loop has ended".into()) }
}
