//! tokio-postgres: a task a connection, which polls it for messages.

use std::error::Error;
use std::future::poll_fn;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::Tally;
use crate::job::{CHANNEL, Job, SIDE_BY_SIDE};

pub async fn run(mut job: Job) -> Result<(), Box<dyn Error>> {
    let tally = Tally::new(job.expected);
    // Dropping one would end its session.
    let mut clients = vec![open(&job, tally.clone()).await?];
    clients.reserve_exact(job.connections);
    job.first_is_there();
    let mut dials = iter(1..job.connections).map(|_| open(&job, tally.clone())).buffer_unordered(SIDE_BY_SIDE);
    while let Some(client) = dials.next().await {
        clients.push(client?);
    }
    tally.answer(&job)?;
    let meter = job.all_are_there();
    tally.all().await;
    job.done(&meter)
}

async fn open(job: &Job, tally: Tally) -> Result<Client, tokio_postgres::Error> {
    let (client, mut connection) = tokio_postgres::connect(&job.conninfo(), NoTls).await?;
    tokio::task::spawn_local(async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notification(n)) => tally.enter(n.payload()),
                Ok(_) => {}
                Err(error) => return eprintln!("tokio-postgres: {error}"),
            }
        }
    });
    client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
    Ok(client)
}
