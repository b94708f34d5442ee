//! tokio-postgres and sqlx, as clients that [`job`] tells what to do; and `plot`, which draws what was measured.

#[path = "../../speed/job.rs"]
mod job;
mod plot;
mod sqlx_client;
mod tokio_postgres_client;
#[path = "../../speed/trust.rs"]
mod trust;

use std::cell::RefCell;
use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;

use self::job::{Answers, Job};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let outcome =
        if words.next_if(|word| word == "plot").is_some() { plot::draw(words) } else { client(Job::read(words)) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a client on one thread, as the others are.
fn client(job: Option<Job>) -> Result<(), Box<dyn Error>> {
    let job = job.ok_or("a client is told KIND TASK HOST PORT SSLMODE CONNECTIONS EXPECTED ANSWER_PORT")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match job.kind.as_str() {
        "tokio-postgres" => local.block_on(&runtime, tokio_postgres_client::run(job)),
        "sqlx" => local.block_on(&runtime, sqlx_client::run(job)),
        kind => Err(format!("no such kind: {kind}").into()),
    }
}

/// Counts what has come to all sessions, and tells when that is all.
#[derive(Clone)]
struct Tally(Rc<RefCell<Inner>>);

struct Inner {
    count: u64,
    expected: u64,
    answers: Option<Answers>,
    all: Rc<tokio::sync::Notify>,
}

impl Tally {
    fn new(expected: u64) -> Self {
        Self(Rc::new(RefCell::new(Inner { count: 0, expected, answers: None, all: Rc::default() })))
    }

    /// From now on events are answered, if the job wants that.
    fn answer(&self, job: &Job) -> std::io::Result<()> {
        self.0.borrow_mut().answers = job.answers()?;
        Ok(())
    }

    #[inline]
    fn enter(&self, payload: &str) {
        let inner = &mut *self.0.borrow_mut();
        let counts = inner.answers.as_mut().is_none_or(|answers| answers.answer(payload.as_bytes()));
        inner.count += u64::from(counts);
        if inner.count == inner.expected {
            inner.all.notify_one();
        }
    }

    async fn all(&self) {
        let (all, is_all) = {
            let inner = self.0.borrow();
            (Rc::clone(&inner.all), inner.count >= inner.expected)
        };
        if !is_all {
            all.notified().await;
        }
    }
}
