//! Threads for operations that may hang: the system's name resolution has no timeout, nor has reading a file on a
//! network file system.
//!
//! ```text
//!   ask ──▶ queue of requests ──▶ a few threads, while there are requests ──▶ all callers with that request
//! ```
//!
//! Equal requests share one answer, which is dropped once it was delivered. A request that hangs occupies one thread,
//! however often it is made. It delays other requests in its queue, but never a loop.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::net::reactor::PollWaker;

/// The largest number of threads of most queues.
pub(super) const THREADS_MAX: usize = 16;

/// The largest number of threads of a queue.
pub(super) struct ThreadLimit<Q> {
    pub(super) all: usize,
    /// The largest number of threads for the requests of one group.
    pub(super) group: usize,
    /// Returns `true` if two requests belong to one group.
    pub(super) is_group: fn(&Q, &Q) -> bool,
}

impl<Q> ThreadLimit<Q> {
    /// Allows [`THREADS_MAX`] threads, for whatever requests.
    pub(super) const fn any() -> Self {
        Self { all: THREADS_MAX, group: THREADS_MAX, is_group: |_, _| false }
    }
}

/// A request in progress. Dropping the last job of a request cancels it, unless a thread has begun it.
pub(crate) struct OffloadJob<T>(Arc<OffloadAnswer<T>>);

struct OffloadAnswer<T> {
    given: Mutex<Option<T>>,
    waker: Option<PollWaker>,
}

/// The requests of one kind in this process.
pub(super) struct OffloadQueue<Q, T> {
    inner: Mutex<OffloadState<Q, T>>,
    /// The name of the threads.
    name: &'static str,
    limit: ThreadLimit<Q>,
    work: fn(&Q) -> T,
    /// Creates the answer if no thread can be started.
    without_thread: fn(&io::Error) -> T,
}

struct OffloadState<Q, T> {
    /// The requests in order, including those in progress.
    requests: Vec<OffloadRequest<Q, T>>,
    threads: usize,
}

struct OffloadRequest<Q, T> {
    request: Q,
    jobs: Vec<Weak<OffloadAnswer<T>>>,
    /// `true` once a thread has begun it.
    is_begun: bool,
}

impl<T> OffloadJob<T> {
    /// Takes the answer, if there is one.
    pub(crate) fn poll(&self) -> Option<T> {
        lock(&self.0.given).take()
    }
}

impl<T> fmt::Debug for OffloadJob<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OffloadJob")
    }
}

impl<Q: Clone + PartialEq + Send, T: Clone + Send> OffloadQueue<Q, T> {
    pub(super) const fn new(
        name: &'static str,
        limit: ThreadLimit<Q>,
        work: fn(&Q) -> T,
        without_thread: fn(&io::Error) -> T,
    ) -> Self {
        Self { inner: Mutex::new(OffloadState { requests: Vec::new(), threads: 0 }), name, limit, work, without_thread }
    }

    /// Queues a request. The waker, if there is one, is called when the answer is ready.
    pub(super) fn ask(&'static self, request: Q, waker: Option<PollWaker>) -> OffloadJob<T> {
        let answer = Arc::new(OffloadAnswer { given: Mutex::new(None), waker });
        let waiting = Arc::downgrade(&answer);
        let job = OffloadJob(answer);
        let mut inner = lock(&self.inner);
        if let Some(known) = inner.requests.iter_mut().find(|known| known.request == request) {
            known.jobs.push(waiting);
            return job;
        }
        inner.remove_unwanted();
        let in_group = inner.requests.iter().filter(|known| (self.limit.is_group)(&known.request, &request)).count();
        inner.requests.push(OffloadRequest { request, jobs: vec![waiting], is_begun: false });
        // The threads of the group take this request after theirs.
        if inner.threads >= self.limit.all || in_group >= self.limit.group {
            return job;
        }
        match std::thread::Builder::new().name(self.name.into()).spawn(|| self.serve()) {
            Ok(_) => inner.threads += 1,
            // A running thread takes this request.
            Err(_) if inner.threads > 0 => {}
            Err(error) => {
                let requests = std::mem::take(&mut inner.requests);
                drop(inner);
                requests.iter().for_each(|failed| deliver(&failed.jobs, &(self.without_thread)(&error)));
            }
        }
        job
    }

    /// Handles requests until the queue is empty.
    fn serve(&self) {
        while let Some(request) = self.next() {
            let answer = (self.work)(&request);
            let done = lock(&self.inner).requests.extract_if(.., |known| known.request == request).next();
            done.iter().for_each(|done| deliver(&done.jobs, &answer));
        }
    }

    /// Returns the next request whose answer is still wanted. If there is none, the thread ends.
    fn next(&self) -> Option<Q> {
        let mut inner = lock(&self.inner);
        inner.remove_unwanted();
        let may_begin = |request: &Q| {
            let begun = inner.requests.iter().filter(|known| known.is_begun);
            begun.filter(|known| (self.limit.is_group)(&known.request, request)).count() < self.limit.group
        };
        let next = inner.requests.iter().position(|known| !known.is_begun && may_begin(&known.request));
        let next = next.and_then(|next| inner.requests.get_mut(next));
        let request = next.map(|next| {
            next.is_begun = true;
            next.request.clone()
        });
        inner.threads -= usize::from(request.is_none());
        request
    }
}

impl<Q, T> OffloadState<Q, T> {
    /// Removes the requests that no thread has begun, and whose answer is not wanted any more.
    fn remove_unwanted(&mut self) {
        self.requests.retain(|known| known.is_begun || known.jobs.iter().any(|job| job.strong_count() > 0));
    }
}

fn deliver<T: Clone>(jobs: &[Weak<OffloadAnswer<T>>], answer: &T) {
    for job in jobs.iter().filter_map(Weak::upgrade) {
        *lock(&job.given) = Some(answer.clone());
        if let Some(waker) = &job.waker {
            waker.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic cannot leave the data behind these locks inconsistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread::yield_now;

    use super::*;

    impl<Q, T> OffloadQueue<Q, T> {
        /// Returns the number of threads, and the number of requests.
        fn load(&self) -> (usize, usize) {
            let inner = lock(&self.inner);
            (inner.threads, inner.requests.len())
        }
    }

    fn await_all<T>(jobs: &[OffloadJob<T>]) {
        while jobs.iter().any(|job| lock(&job.0.given).is_none()) {
            yield_now();
        }
    }

    #[test]
    fn a_thousand_requests_take_few_threads_and_block_no_caller() {
        static AT_WORK: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        static GO: AtomicUsize = AtomicUsize::new(0);
        let work = |_: &usize| {
            MOST.fetch_max(AT_WORK.fetch_add(1, SeqCst) + 1, SeqCst);
            while GO.load(SeqCst) == 0 {
                yield_now();
            }
            AT_WORK.fetch_sub(1, SeqCst);
        };
        let line: &'static OffloadQueue<usize, ()> =
            Box::leak(Box::new(OffloadQueue::new("test", ThreadLimit::any(), work, |_| ())));
        let jobs: Vec<_> = (0..1000).map(|i| line.ask(i, None)).collect();
        assert!(jobs.iter().all(|job| job.poll().is_none()));
        GO.store(1, SeqCst);
        await_all(&jobs);
        assert!(MOST.load(SeqCst) <= THREADS_MAX);
        while line.load().0 > 0 {
            yield_now();
        }
        assert_eq!(line.load(), (0, 0), "nothing is kept");
    }

    #[test]
    fn equal_requests_share_the_answer_and_dropped_ones_are_skipped() {
        static WORKED: Mutex<Vec<String>> = Mutex::new(Vec::new());
        static GO: AtomicUsize = AtomicUsize::new(0);
        static QUEUE: OffloadQueue<String, bool> = OffloadQueue::new(
            "test",
            ThreadLimit::any(),
            |request| {
                while GO.load(SeqCst) == 0 {
                    yield_now();
                }
                lock(&WORKED).push(request.clone());
                true
            },
            |_| false,
        );
        // These occupy all threads.
        let first: Vec<_> = (0..THREADS_MAX).map(|i| QUEUE.ask(format!("first {i}"), None)).collect();
        drop(QUEUE.ask("gone".into(), None));
        let same: Vec<_> = (0..50).map(|_| QUEUE.ask("same".into(), None)).collect();
        assert_eq!(QUEUE.load().0, THREADS_MAX);
        GO.store(1, SeqCst);
        await_all(&same);
        await_all(&first);
        let worked = lock(&WORKED);
        assert_eq!(worked.iter().filter(|request| *request == "same").count(), 1);
        assert!(!worked.contains(&"gone".to_owned()));
    }

    #[test]
    fn a_request_that_hangs_takes_one_thread_however_often_it_is_made() {
        static QUEUE: OffloadQueue<u8, ()> = OffloadQueue::new("test", ThreadLimit::any(), |_| loop_for_ever(), |_| ());
        fn loop_for_ever() {
            loop {
                std::thread::park();
            }
        }
        for _ in 0..100 {
            assert!(QUEUE.ask(7, None).poll().is_none());
        }
        assert_eq!(QUEUE.load(), (1, 1));
    }

    #[test]
    fn c17_a_group_leaves_threads_to_the_others_and_waits_without_new_ones() {
        static GO: AtomicUsize = AtomicUsize::new(0);
        static QUEUE: OffloadQueue<(char, u32), u32> = OffloadQueue::new(
            "test",
            ThreadLimit { all: 4, group: 3, is_group: |one, other| one.0 == other.0 },
            |request| {
                while request.0 == 'a' && GO.load(SeqCst) == 0 {
                    yield_now();
                }
                request.1
            },
            |_| 0,
        );
        let hanging: Vec<_> = (0..100).map(|n| QUEUE.ask(('a', n), None)).collect();
        assert_eq!(QUEUE.load(), (3, 100));
        let others: Vec<_> = (0..100).map(|n| QUEUE.ask(('b', n), None)).collect();
        assert!(QUEUE.load().0 <= 4);
        await_all(&others);
        let begun = || lock(&QUEUE.inner).requests.iter().filter(|known| known.is_begun).count();
        assert_eq!(begun(), 3, "one thread was left for the others");
        GO.store(1, SeqCst);
        await_all(&hanging);
        let answers: Vec<_> = hanging.iter().filter_map(OffloadJob::poll).collect();
        assert_eq!(answers, (0..100).collect::<Vec<_>>(), "each request has its own answer");
    }
}
