//! Looks names up without making anybody wait: `getaddrinfo` has no time limit, so it runs on threads of its own.
//!
//! ```text
//!   Lookup ──▶ line of names ──▶ at most 16 threads, while there are names ──▶ whoever asked for the name
//! ```
//!
//! Who asks for a name that is being looked up shares the answer; nothing is kept once it has been given. A resolver that
//! hangs delays other names, never a loop.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::net::reactor::Alarm;

/// How many names are looked up at once.
const THREADS_MAX: usize = 16;

/// What came of a look-up: addresses, or the system's reason.
type Found = Result<Vec<SocketAddr>, String>;

/// A look-up under way; dropped, nobody looks any more.
#[derive(Debug)]
pub(crate) struct Lookup {
    answer: Arc<Answer>,
    port: u16,
}

#[derive(Debug)]
struct Answer {
    found: Mutex<Option<Found>>,
    alarm: Option<Alarm>,
}

impl Lookup {
    /// Begins to look up every address of a host. The alarm, if there is one, rings when that is done.
    pub(crate) fn start(host: &str, port: u16, alarm: Option<Alarm>) -> Self {
        let answer = Arc::new(Answer { found: Mutex::new(None), alarm });
        THE_LINE.ask(host, &answer);
        Self { answer, port }
    }

    /// The addresses, if they are known by now.
    pub(crate) fn poll(&self) -> Option<Found> {
        let mut found = lock(&self.answer.found).take()?;
        for address in found.iter_mut().flatten() {
            address.set_port(self.port);
        }
        Some(found)
    }
}

impl Answer {
    fn give(&self, found: Found) {
        *lock(&self.found) = Some(found);
        if let Some(alarm) = &self.alarm {
            alarm.ring();
        }
    }
}

/// The line of all of the process.
static THE_LINE: Line = Line::new(|name| match (name, 0).to_socket_addrs() {
    Ok(found) => Ok(found.collect()),
    Err(error) => Err(error.to_string()),
});

/// Names to be looked up, and who wants to know.
struct Line {
    inner: Mutex<Inner>,
    look_up: fn(&str) -> Found,
}

struct Inner {
    /// Those whose turn hasn't come.
    waiting: VecDeque<String>,
    /// Also those that are being looked up.
    asked: BTreeMap<String, Vec<Weak<Answer>>>,
    threads: usize,
}

impl Line {
    const fn new(look_up: fn(&str) -> Found) -> Self {
        let inner = Inner { waiting: VecDeque::new(), asked: BTreeMap::new(), threads: 0 };
        Self { inner: Mutex::new(inner), look_up }
    }

    fn ask(&'static self, name: &str, answer: &Arc<Answer>) {
        let mut inner = lock(&self.inner);
        let askers = inner.asked.entry(name.to_owned()).or_default();
        askers.push(Arc::downgrade(answer));
        if askers.len() > 1 {
            return;
        }
        inner.waiting.push_back(name.to_owned());
        if inner.threads >= THREADS_MAX {
            return;
        }
        let spawned = std::thread::Builder::new().name("notifyman-resolve".into()).spawn(|| self.work());
        match spawned {
            Ok(_) => inner.threads += 1,
            // Those at work take it, too.
            Err(_) if inner.threads > 0 => {}
            Err(error) => {
                inner.waiting.clear();
                let asked = std::mem::take(&mut inner.asked);
                drop(inner);
                asked.into_values().for_each(|askers| tell(&askers, &Err(no_thread(&error))));
            }
        }
    }

    /// Looks names up until there is none.
    fn work(&self) {
        while let Some(name) = self.next() {
            let found = (self.look_up)(&name);
            let askers = lock(&self.inner).asked.remove(&name).unwrap_or_default();
            tell(&askers, &found);
        }
    }

    /// The next name that somebody still wants to know; without one, the thread ends.
    fn next(&self) -> Option<String> {
        let mut inner = lock(&self.inner);
        while let Some(name) = inner.waiting.pop_front() {
            if inner.asked.get(&name).is_some_and(|askers| askers.iter().any(|asker| asker.strong_count() > 0)) {
                return Some(name);
            }
            inner.asked.remove(&name);
        }
        inner.threads -= 1;
        None
    }
}

fn tell(askers: &[Weak<Answer>], found: &Found) {
    askers.iter().filter_map(Weak::upgrade).for_each(|answer| answer.give(found.clone()));
}

fn no_thread(error: &io::Error) -> String {
    format!("no thread to look it up can be had: {error}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept under these locks is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread::yield_now;

    use super::*;

    fn answer() -> Arc<Answer> {
        Arc::new(Answer { found: Mutex::new(None), alarm: None })
    }

    fn await_all(answers: &[Arc<Answer>]) {
        while answers.iter().any(|answer| lock(&answer.found).is_none()) {
            yield_now();
        }
    }

    #[test]
    fn a_numeric_address_is_looked_up_as_itself() {
        let lookup = Lookup::start("127.0.0.1", 5432, None);
        let found = std::iter::repeat_with(|| lookup.poll()).flatten().next().unwrap().unwrap();
        assert_eq!(found, [SocketAddr::from(([127, 0, 0, 1], 5432))]);
    }

    #[test]
    fn a_thousand_names_take_few_threads_and_a_hanging_one_makes_nobody_wait_who_asks() {
        static AT_WORK: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        static GO: AtomicUsize = AtomicUsize::new(0);
        static LINE: Line = Line::new(|_| {
            MOST.fetch_max(AT_WORK.fetch_add(1, SeqCst) + 1, SeqCst);
            while GO.load(SeqCst) == 0 {
                yield_now();
            }
            AT_WORK.fetch_sub(1, SeqCst);
            Ok(Vec::new())
        });
        let answers: Vec<_> = (0..1000).map(|_| answer()).collect();
        for (i, answer) in answers.iter().enumerate() {
            LINE.ask(&format!("host {i}"), answer);
        }
        assert!(answers.iter().all(|answer| lock(&answer.found).is_none()));
        GO.store(1, SeqCst);
        await_all(&answers);
        assert!(MOST.load(SeqCst) <= THREADS_MAX);
        while lock(&LINE.inner).threads > 0 {
            yield_now();
        }
        assert!(lock(&LINE.inner).asked.is_empty(), "nothing is kept");
    }

    #[test]
    fn whoever_asks_for_the_same_name_shares_the_look_up_and_who_has_gone_is_not_served() {
        static LOOKED_UP: Mutex<Vec<String>> = Mutex::new(Vec::new());
        static GO: AtomicUsize = AtomicUsize::new(0);
        static LINE: Line = Line::new(|name| {
            while GO.load(SeqCst) == 0 {
                yield_now();
            }
            lock(&LOOKED_UP).push(name.to_owned());
            Err("no such host".into())
        });
        // As many as there are threads stand before.
        let first: Vec<_> = (0..THREADS_MAX).map(|_| answer()).collect();
        first.iter().enumerate().for_each(|(i, answer)| LINE.ask(&format!("first {i}"), answer));
        let same: Vec<_> = (0..50).map(|_| answer()).collect();
        LINE.ask("gone", &answer());
        same.iter().for_each(|answer| LINE.ask("same", answer));
        GO.store(1, SeqCst);
        await_all(&same);
        await_all(&first);
        let looked_up = lock(&LOOKED_UP);
        assert_eq!(looked_up.iter().filter(|name| *name == "same").count(), 1);
        assert!(!looked_up.contains(&"gone".to_owned()));
    }
}
