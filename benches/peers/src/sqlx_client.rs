//! sqlx: a listener a connection, each in a task of its own.

use std::error::Error;

use futures_util::StreamExt;
use futures_util::stream::iter;
use sqlx::postgres::PgListener;

use crate::Tally;
use crate::job::{CHANNEL, Job, SIDE_BY_SIDE};

pub async fn run(mut job: Job) -> Result<(), Box<dyn Error>> {
    let tally = Tally::new(job.expected);
    open(&job, tally.clone()).await?;
    job.first_is_there();
    let mut dials = iter(1..job.connections).map(|_| open(&job, tally.clone())).buffer_unordered(SIDE_BY_SIDE);
    while let Some(opened) = dials.next().await {
        opened?;
    }
    tally.answer(&job)?;
    let meter = job.all_are_there();
    tally.all().await;
    job.done(&meter)
}

async fn open(job: &Job, tally: Tally) -> Result<(), sqlx::Error> {
    let Job { host, port, sslmode, .. } = job;
    let url = format!("postgres://postgres@localhost:{port}/postgres?host={host}&sslmode={sslmode}");
    let mut listener = PgListener::connect(&url).await?;
    listener.listen(CHANNEL).await?;
    tokio::task::spawn_local(async move {
        loop {
            match listener.recv().await {
                Ok(n) => tally.enter(n.payload()),
                Err(error) => return eprintln!("sqlx: {error}"),
            }
        }
    });
    Ok(())
}
