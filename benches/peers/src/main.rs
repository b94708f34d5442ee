//! Clients of [`job`] with tokio-postgres and sqlx; and `plot`, which draws the results.

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

/// Runs a client on one thread, like the other clients.
fn client(job: Option<Job>) -> Result<(), Box<dyn Error>> {
    let job = job.ok_or("a client takes KIND TASK HOST PORT SSLMODE CONNECTIONS EXPECTED ANSWER_PORT")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match job.kind.as_str() {
        "tokio-postgres" => local.block_on(&runtime, tokio_postgres_client::run(job)),
        "sqlx" => local.block_on(&runtime, sqlx_client::run(job)),
        kind => Err(format!("unknown kind of client: {kind}").into()),
    }
}

/// Counts the notifications of all sessions, and reports when all have arrived.
#[derive(Clone)]
struct Counter(Rc<RefCell<CounterState>>);

struct CounterState {
    count: u64,
    expected: u64,
    answers: Option<Answers>,
    all: Rc<tokio::sync::Notify>,
}

impl Counter {
    fn new(expected: u64) -> Self {
        Self(Rc::new(RefCell::new(CounterState { count: 0, expected, answers: None, all: Rc::default() })))
    }

    /// Answers events from now on, if the job requires that.
    fn answer(&self, job: &Job) -> std::io::Result<()> {
        self.0.borrow_mut().answers = job.answers()?;
        Ok(())
    }

    #[inline]
    fn count(&self, payload: &str) {
        let state = &mut *self.0.borrow_mut();
        let counts = state.answers.as_mut().is_none_or(|answers| answers.answer(payload.as_bytes()));
        state.count += u64::from(counts);
        if state.count == state.expected {
            state.all.notify_one();
        }
    }

    async fn all(&self) {
        let (all, is_all) = {
            let state = self.0.borrow();
            (Rc::clone(&state.all), state.count >= state.expected)
        };
        if !is_all {
            all.notified().await;
        }
    }
}
