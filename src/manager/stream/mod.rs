//! The events of a manager as a stream: the loop runs on a thread of its own.
//!
//! ```text
//!   thread: next_event ──▶ queue of events, bounded ──▶ EventStream: a task of any runtime
//!              ▲                                             │
//!              └───────────── stop, when it is dropped ──────┘
//! ```

#[cfg(test)]
mod interleavings;
mod waiting_events;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use futures_core::{FusedStream, Stream};

use self::waiting_events::WaitingEvents;
use crate::clock;
use crate::error::Error;
use crate::handoff::Handoff;
use crate::manager::event::Event;
use crate::manager::handle::Handle;

/// The default limit of the notifications that wait, in bytes.
pub(super) const STREAM_BYTES: usize = 16 << 20;

/// The events of a manager whose loop runs on a thread of its own, for async code: see
/// [`NotificationManager::into_stream`](crate::NotificationManager::into_stream).
///
/// It is a `Stream`, for the combinators of `futures` and `tokio-stream`; [`recv`](Self::recv) needs none of them. It runs on
/// any runtime, and wakes the task that polls it.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// use std::time::Duration;
/// use notifyman::{Backoff, Event, NotificationManager};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), notifyman::Error> {
/// # let dsn = database();
/// let mut nm = NotificationManager::new([])
///     .reconnect(Backoff::default())
///     .heartbeat(Duration::from_secs(15), Duration::from_secs(5));
/// nm.dial(dsn, ["prices"])?;
///
/// let mut events = nm.into_stream()?;
/// let handle = events.handle();
/// while let Some(event) = events.recv().await {
///     match event {
///         Event::Opened(id) => handle.notify(id, "prices", "42").await?,
///         Event::Notifies(_, batch) => {
///             println!("{} prices changed", batch.len());
/// #           break;
///         }
///         Event::Restored(_, gap) => {
///             println!("read again: {:?}", gap.channels());
///         }
///         Event::Lost(id, error) => eprintln!("{id} is lost: {error:#}"),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # A slow task
///
/// The loop always reads. Events wait in a queue of the stream until the task takes them. If their notifications exceed the
/// limit, the connection with the largest part loses all of its notifications that wait: in their place, the stream returns
/// [`Event::Restored`] with a gap whose channels are those of the dropped notifications, and whose cause,
/// [`Error::TooSlow`], has their number. So a task that reads again after each gap misses nothing.
///
/// - Losses, restorations and other reports are never dropped. If a connection is lost and restored repeatedly meanwhile, with
///   no notification between, that becomes one loss and one gap, which covers all of it. Repeated
///   [`Event::InTransaction`] and [`Event::CheckRefused`] of a connection become the latest one.
/// - [`Event::Idle`] is returned once the queue is empty, however often the timeout has passed before.
/// - [`Gap::epoch`](crate::Gap::epoch) counts these gaps, too.
///
/// # End and drop
///
/// The stream ends when the manager would: when it has no connection left, or by [`Handle::stop`], after everything that was
/// received. Then its sessions are closed. Dropping the stream closes them too; it does not wait, and what is left in the
/// queue is dropped. The futures of `recv` and of combinators can be dropped at any time, and lose no event.
///
/// A lost connection is not kept in the garbage: [`Handle::dial`] opens it again.
#[must_use = "the sessions are closed when the stream is dropped"]
pub struct EventStream {
    handle: Handle,
    handoff: Arc<Handoff<WaitingEvents>>,
    /// The end has been returned.
    is_over: bool,
}

impl EventStream {
    /// Starts a thread that calls `next` until that returns `None`, and hands over the events.
    pub(super) fn start(
        handle: Handle,
        limit: usize,
        next: impl FnMut() -> Option<Event> + Send + 'static,
    ) -> Result<Self, Error> {
        let handoff = Arc::new(Handoff::new(WaitingEvents::new(limit)));
        let end = EndOnDrop(Arc::clone(&handoff));
        let run = move || hand_over(&end.0, next);
        let spawned = thread::Builder::new().name("notifyman stream".into()).spawn(run);
        spawned.map_err(|error| Error::io("starting a thread", error))?;
        Ok(Self { handle, handoff, is_over: false })
    }

    /// Returns the next event, or `None` at the end.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let dsn = database();
    /// use std::time::Duration;
    /// use notifyman::NotificationManager;
    ///
    /// let mut nm = NotificationManager::new([]);
    /// nm.dial(dsn, ["prices"])?;
    /// let mut events = nm.into_stream()?;
    /// tokio::select! {
    ///     event = events.recv() => println!("{event:?}"),
    ///     () = tokio::time::sleep(Duration::from_secs(5)) => println!("later"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no event is lost.
    pub async fn recv(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Returns a handle to control the manager, whose tickets are futures.
    ///
    /// ```
    /// use notifyman::NotificationManager;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// let nm = NotificationManager::new([]).park_when_empty(true);
    /// let mut events = nm.into_stream()?;
    /// events.handle().stop().await?;
    /// assert!(events.recv().await.is_none());
    /// # Ok(()) }
    /// ```
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

/// Ends the stream when the thread ends, also by a panic of a task's waker.
struct EndOnDrop(Arc<Handoff<WaitingEvents>>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Hands over events, until there are none or the stream is dropped. The manager is dropped before the stream ends.
fn hand_over(handoff: &Handoff<WaitingEvents>, mut next: impl FnMut() -> Option<Event>) {
    while let Some(event) = next() {
        let now = (clock::now(), clock::wall());
        if handoff.fill(|queue| queue.push(event, now)).is_none() {
            return;
        }
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = self.handoff.poll(context);
        self.is_over = matches!(next, Poll::Ready(None));
        next
    }
}

impl FusedStream for EventStream {
    /// Returns `true` once the end has been returned.
    fn is_terminated(&self) -> bool {
        self.is_over
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.handoff.close();
        drop(self.handle.stop());
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("is_over", &self.is_over).field("handle", &self.handle).finish()
    }
}
