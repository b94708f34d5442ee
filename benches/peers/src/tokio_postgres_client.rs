//! tokio-postgres: one task per connection, which polls it for messages.

use std::error::Error;
use std::future::poll_fn;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::job::{CHANNEL, CONCURRENT_DIALS, Job};
use crate::{Counter, trust};

pub async fn run(job: Job) -> Result<(), Box<dyn Error>> {
    if job.is_encrypted() {
        listen(job, MakeRustlsConnect::new(trust::config()?)).await
    } else {
        listen(job, NoTls).await
    }
}

async fn listen<T>(mut job: Job, tls: T) -> Result<(), Box<dyn Error>>
where
    T: MakeTlsConnect<Socket, Stream: 'static> + Clone,
{
    let counter = Counter::new(job.expected);
    // Dropping a client would end its session.
    let mut clients = vec![open(&job, counter.clone(), tls.clone()).await?];
    clients.reserve_exact(job.connections);
    job.first_is_open();
    let open_another = |_| open(&job, counter.clone(), tls.clone());
    let mut dials = iter(1..job.connections).map(open_another).buffer_unordered(CONCURRENT_DIALS);
    while let Some(client) = dials.next().await {
        clients.push(client?);
    }
    counter.answer(&job)?;
    let meter = job.all_are_open();
    counter.all().await;
    job.done(&meter)
}

async fn open<T>(job: &Job, counter: Counter, tls: T) -> Result<Client, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket, Stream: 'static>,
{
    let (client, mut connection) = tokio_postgres::connect(&job.conninfo(), tls).await?;
    tokio::task::spawn_local(async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notification(n)) => counter.count(n.payload()),
                Ok(_) => {}
                Err(error) => return eprintln!("tokio-postgres: {error}"),
            }
        }
    });
    client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
    Ok(client)
}
