//! sqlx: one listener per connection, each in its own task.

use std::error::Error;

use futures_util::StreamExt;
use futures_util::stream::iter;
use sqlx::postgres::PgListener;

use crate::Counter;
use crate::job::{CHANNEL, CONCURRENT_DIALS, Job};

pub async fn run(mut job: Job) -> Result<(), Box<dyn Error>> {
    let counter = Counter::new(job.expected);
    open(&job, counter.clone()).await?;
    job.first_is_open();
    let mut dials = iter(1..job.connections).map(|_| open(&job, counter.clone())).buffer_unordered(CONCURRENT_DIALS);
    while let Some(opened) = dials.next().await {
        opened?;
    }
    counter.answer(&job)?;
    let meter = job.all_are_open();
    counter.all().await;
    job.done(&meter)
}

async fn open(job: &Job, counter: Counter) -> Result<(), sqlx::Error> {
    let Job { host, port, sslmode, .. } = job;
    let url = format!("postgres://postgres@localhost:{port}/postgres?host={host}&sslmode={sslmode}");
    let mut listener = PgListener::connect(&url).await?;
    listener.listen(CHANNEL).await?;
    tokio::task::spawn_local(async move {
        loop {
            match listener.recv().await {
                Ok(n) => counter.count(n.payload()),
                Err(error) => return eprintln!("sqlx: {error}"),
            }
        }
    });
    Ok(())
}
