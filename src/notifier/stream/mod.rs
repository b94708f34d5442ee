//! The deliveries of a notifier as a stream.
//!
//! ```text
//!   dispatcher ──▶ callback of each channel ──▶ queue of the stream, with a policy ──▶ NotifierStream: a task
//!                        └─ dropped with its subscription; after the last one the stream ends
//! ```

#[cfg(test)]
mod interleavings;
mod waiting_deliveries;

use std::any::Any;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_core::{FusedStream, Stream};

use self::waiting_deliveries::WaitingDeliveries;
use crate::error::Error;
use crate::handoff::Handoff;
use crate::manager::Ticket;
use crate::notifier::delivery::{Delivery, OwnedDelivery};
use crate::notifier::queue::{Policy, Queue};
use crate::notifier::shared::NotifierCore;
use crate::notifier::subscription::{Callback, Subscription, SubscriptionContext};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The deliveries of one or several channels, for async code: see [`Notifier::stream`](crate::Notifier::stream).
///
/// It is a `Stream`, for the combinators of `futures` and `tokio-stream`; [`recv`](Self::recv) needs none of them. It runs on
/// any runtime, and wakes the task that polls it.
///
/// # A slow task
///
/// Deliveries wait in a [`Queue`] of the stream, with the limits and the policy of a subscriber's queue, so a slow task never
/// stops the reading. What the policy drops is reported in its place by [`OwnedDelivery::Missed`], and counted in
/// [`NotifierStats::dropped`](crate::notifier::NotifierStats::dropped). Reports are never dropped. The dispatching threads
/// move deliveries to the queue, so a callback of the notifier that blocks delays them; meanwhile 10,000 notifications or 16 MiB
/// can wait before the queue, or as many as in it if that is more.
///
/// # End and drop
///
/// The stream is a handle of the notifier: that runs as long as the stream exists, unless it is stopped. After a stop the
/// stream waits for the next start, and returns a [report](crate::notifier::Reason::Stopped) then. It ends when its channels
/// are removed or unsubscribed, and after [`Policy::Disconnect`] has unsubscribed it: each channel has a last
/// [report](crate::notifier::Reason::Unsubscribed) then. Dropping the stream unsubscribes it, and waits for nothing. The
/// futures of `recv` and of combinators can be dropped at any time, and lose nothing.
#[must_use = "it is unsubscribed when it is dropped"]
pub struct NotifierStream {
    handoff: Arc<Handoff<WaitingDeliveries>>,
    /// Unsubscribes the channels; `None` once it has been called.
    unsubscribe: Option<Box<dyn FnOnce() + Send>>,
    is_over: bool,
}

/// A stream to open, with its channels and its queue: see [`Notifier::stream`](crate::Notifier::stream).
///
/// Awaiting the request opens the stream. [`open`](Self::open) does so without waiting.
#[must_use = "nothing is subscribed before the request is awaited or opened"]
pub struct StreamRequest<I: Clone + Eq + Hash + Send + 'static> {
    subscriber: StreamSubscriber<I>,
    channels: Vec<String>,
    queue: Queue,
}

/// The id of a stream, which no other stream of the process has: see [`Notifier::stream`](crate::Notifier::stream).
///
/// A type of ids from which a stream can have its id is one that is `From<StreamId>`:
///
/// ```
/// use notifyman::notifier::StreamId;
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// enum Subscriber {
///     Cache,
///     Stream(StreamId),
/// }
///
/// impl From<StreamId> for Subscriber {
///     fn from(id: StreamId) -> Self {
///         Subscriber::Stream(id)
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u64);

impl StreamId {
    /// Returns an id that has not been used.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Relaxed) + 1)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.0)
    }
}

/// The subscriber of a stream.
struct StreamSubscriber<I: Clone + Eq + Hash + Send + 'static> {
    core: Arc<NotifierCore<I>>,
    /// The handle of the notifier, which would be stopped without one.
    _owner: Arc<dyn Any + Send + Sync>,
    /// The index of the database.
    at: usize,
    id: I,
}

/// The subscriptions of a stream, and the ticket for their acknowledgement.
type OwnSubscriptions<I> = (Vec<Weak<Subscription<I>>>, Ticket<()>);

/// The receiving end of a subscription of a stream. The last one that is dropped ends the stream.
struct StreamSubscription {
    channel: Arc<str>,
    end: Arc<StreamEnd>,
    /// The context has this subscription among those that it drops later.
    context: Weak<SubscriptionContext>,
}

struct StreamEnd(Arc<Handoff<WaitingDeliveries>>);

impl Drop for StreamEnd {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl StreamSubscription {
    fn deliver<I>(&self, delivery: &Delivery<'_, I>) {
        let handoff = &self.end.0;
        let filled = handoff.fill(|queue| {
            let outcome = queue.push(&self.channel, delivery);
            (outcome, queue.is_unsubscribed)
        });
        // A stream that was dropped is about to be unsubscribed.
        let Some((outcome, is_unsubscribed)) = filled else { return };
        if is_unsubscribed {
            handoff.end();
        }
        if let Some(context) = self.context.upgrade() {
            context.counters.dropped.add(outcome.dropped + outcome.refused);
            context.counters.folded.add(outcome.folded);
        }
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> StreamRequest<I> {
    pub(crate) fn new(
        core: &Arc<NotifierCore<I>>,
        owner: Arc<dyn Any + Send + Sync>,
        at: usize,
        id: I,
        channel: &str,
    ) -> Self {
        let queue = *core.settings.queue;
        let subscriber = StreamSubscriber { core: Arc::clone(core), _owner: owner, at, id };
        Self { subscriber, channels: vec![channel.to_owned()], queue }
    }

    /// Adds channels to the same stream. Their deliveries are in the order of the server.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let notifier: notifyman::Notifier = notifyman::Notifier::new(conf)?;
    /// let request = notifier.stream("prices");
    /// let mut changes = request.with_channels(["stock", "orders"]).await?;
    /// notifier.notify("stock", "42");
    /// let delivery = changes.recv().await.expect("a delivery");
    /// assert_eq!(delivery.channel(), "stock");
    /// # Ok(()) }
    /// ```
    pub fn with_channels<C>(mut self, channels: C) -> Self
    where
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        self.channels.extend(channels.into_iter().map(|channel| channel.as_ref().to_owned()));
        self
    }

    /// Sets the limits and the policy of the stream's queue. The default is the notifier's
    /// [queue](crate::notifier::NotifierBuilder::queue): 10,000 notifications or 16 MiB, dropping the oldest.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let notifier: notifyman::Notifier = notifyman::Notifier::new(conf)?;
    /// use notifyman::notifier::{Policy, Queue};
    ///
    /// // A cache needs each key once.
    /// let queue = Queue::new(Policy::Coalesce).items(1_000);
    /// let keys = notifier.stream("prices").queue(queue).await?;
    /// # drop(keys);
    /// # Ok(()) }
    /// ```
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queue = queue;
        self
    }

    /// Opens the stream without waiting, for a server that cannot be reached yet. The ticket resolves once the server has
    /// acknowledged all channels: notifications that are sent after that are received.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let notifier: notifyman::Notifier = notifyman::Notifier::new(conf)?;
    /// let (prices, acknowledged) = notifier.stream("prices").open()?;
    /// acknowledged.await?;
    /// # drop(prices);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Immediately: [`Error::Value`], [`Error::NotRunning`] and the reason why the session is lost for good; nothing is
    /// subscribed then. The ticket resolves to the error of the server.
    pub fn open(self) -> Result<(NotifierStream, Ticket<()>), Error> {
        let Self { subscriber, channels, queue } = self;
        // Of a channel that is named twice, the second subscription replaces the first.
        let channels: Vec<Arc<str>> = channels.into_iter().map(Arc::from).collect();
        let handoff = Arc::new(Handoff::new(WaitingDeliveries::new(queue, channels.iter().cloned())));
        let end = Arc::new(StreamEnd(Arc::clone(&handoff)));
        let context = Arc::downgrade(&subscriber.core.context);
        let new = |channel: &Arc<str>| {
            let (channel, end, context) = (Arc::clone(channel), Arc::clone(&end), Weak::clone(&context));
            StreamSubscription { channel, end, context }
        };
        let subscriptions = channels.iter().map(new).collect();
        drop(end);
        let (subscribed, ticket) = subscriber.subscribe(queue, subscriptions)?;
        let unsubscribe: Box<dyn FnOnce() + Send> = Box::new(move || subscriber.unsubscribe(&subscribed));
        Ok((NotifierStream { handoff, unsubscribe: Some(unsubscribe), is_over: false }, ticket))
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> StreamSubscriber<I> {
    fn subscribe(&self, queue: Queue, subscriptions: Vec<StreamSubscription>) -> Result<OwnSubscriptions<I>, Error> {
        // Before the queue of the stream, which folds and has the limits, deliveries wait only while dispatching threads are
        // busy with other subscribers.
        let (policy, default) = (queue.policy, Queue::default());
        let before = Arc::new(Queue {
            policy: if policy == Policy::Coalesce { Policy::DropOldest } else { policy },
            items: queue.items.max(default.items),
            bytes: queue.bytes.max(default.bytes),
        });
        let callback = |subscription: StreamSubscription| {
            let channel = Arc::clone(&subscription.channel);
            let callback: Box<Callback<I>> = Box::new(move |delivery| subscription.deliver(delivery));
            (channel, callback)
        };
        // Taken only on success: callbacks that are not used are dropped here, after the lock is released.
        let mut callbacks: Vec<_> = subscriptions.into_iter().map(callback).collect();
        let opened = self.core.listen_and_wait(self.at, |database, actions| {
            callbacks.iter().try_for_each(|(channel, _)| database.check_channel(channel))?;
            let subscribe = |(channel, callback): (Arc<str>, Box<Callback<I>>)| {
                let subscription = database.subscriptions.create(&self.id, &channel, callback.into(), &before);
                let own = Arc::downgrade(&subscription);
                let undo = database.subscribe(&self.id, subscription, actions);
                (own, (Box::from(&*channel), Some(undo)))
            };
            Ok(callbacks.drain(..).map(subscribe).unzip())
        });
        self.core.context.deferred_drop.drop_all();
        opened
    }

    /// Unsubscribes those of the stream's subscriptions that no other callback has replaced.
    fn unsubscribe(&self, own: &[Weak<Subscription<I>>]) {
        for subscription in own.iter().filter_map(Weak::upgrade) {
            // The only error is that the database is unknown, and then there is nothing to unsubscribe.
            let _ = self.core.change_database(self.at, |database, _| {
                database.subscriptions.unsubscribe_this(&self.id, &subscription);
                Ok(())
            });
        }
        self.core.context.deferred_drop.drop_all();
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> IntoFuture for StreamRequest<I> {
    type Output = Result<NotifierStream, Error>;
    type IntoFuture = StreamOpening;

    /// Opens the stream, and waits until the server has acknowledged its channels.
    fn into_future(self) -> StreamOpening {
        StreamOpening { begin: Some(Box::new(|| self.open())), opened: None }
    }
}

/// A stream, and the ticket for its acknowledgement.
type OpenedStream = (NotifierStream, Ticket<()>);

/// The future of a [`StreamRequest`], which resolves once the server has acknowledged all channels. While the session is
/// being restored, that takes as long as the restore. Dropping it subscribes nothing.
#[must_use = "a future does nothing unless it is awaited"]
pub struct StreamOpening {
    begin: Option<Box<dyn FnOnce() -> Result<OpenedStream, Error> + Send>>,
    opened: Option<OpenedStream>,
}

impl Future for StreamOpening {
    type Output = Result<NotifierStream, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(begin) = self.begin.take() {
            self.opened = Some(begin()?);
        }
        let Some((stream, mut ticket)) = self.opened.take() else { return Poll::Ready(Err(Error::TicketSpent)) };
        match Pin::new(&mut ticket).poll(context) {
            Poll::Ready(acknowledged) => Poll::Ready(acknowledged.map(|()| stream)),
            Poll::Pending => {
                self.opened = Some((stream, ticket));
                Poll::Pending
            }
        }
    }
}

impl NotifierStream {
    /// Returns the next delivery, or `None` at the end.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// # let notifier: notifyman::Notifier = notifyman::Notifier::new(conf)?;
    /// use std::time::Duration;
    ///
    /// let mut prices = notifier.stream("prices").await?;
    /// tokio::select! {
    ///     delivery = prices.recv() => println!("{delivery:?}"),
    ///     () = tokio::time::sleep(Duration::from_millis(50)) => println!("later"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no delivery is lost.
    pub async fn recv(&mut self) -> Option<OwnedDelivery> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    fn unsubscribe(&mut self) {
        if let Some(unsubscribe) = self.unsubscribe.take() {
            unsubscribe();
        }
    }
}

impl Stream for NotifierStream {
    type Item = OwnedDelivery;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<OwnedDelivery>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = self.handoff.poll(context);
        if let Poll::Ready(None) = next {
            self.is_over = true;
            self.unsubscribe();
        }
        next
    }
}

impl FusedStream for NotifierStream {
    /// Returns `true` once the end has been returned.
    fn is_terminated(&self) -> bool {
        self.is_over
    }
}

impl Drop for NotifierStream {
    fn drop(&mut self) {
        self.handoff.close();
        self.unsubscribe();
    }
}

impl fmt::Debug for NotifierStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifierStream").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> fmt::Debug for StreamRequest<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, queue, .. } = self;
        f.debug_struct("StreamRequest").field("channels", channels).field("queue", queue).finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamOpening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOpening").field("is_begun", &self.begin.is_none()).finish()
    }
}
