//! M18 and M19: tickets resolve, whatever happens to their connection, and a stop is bounded in time.

use std::net::TcpListener;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notifyman::{Config, ConnId, Connection, Error, Event, Handle, NotificationManager, Ticket};

use super::crowd::Crowd;
use super::support::*;
pub(super) use crate::support::server::LIMIT;
use crate::support::{Peer, Proxy, Step, msg};

/// The time limit of a stop on a busy machine: half of the time limit of a dial and of a request.
const SOON: Duration = Duration::from_secs(15);

/// A manager that runs on another thread until it is stopped, and then returns its events.
pub(super) struct Running {
    thread: JoinHandle<(NotificationManager, Vec<Event>)>,
    pub(super) handle: Handle,
    pub(super) ids: Vec<ConnId>,
}

impl Running {
    pub(super) fn start(mut nm: NotificationManager) -> Self {
        let ids = nm.connections().map(|(id, _)| id).collect();
        let handle = nm.handle();
        let thread = thread::spawn(move || {
            let mut reported = Vec::new();
            while let Some(event) = nm.next_event() {
                reported.push(event);
            }
            (nm, reported)
        });
        Self { thread, handle, ids }
    }

    pub(super) fn until(&self, condition: &str, is_true: impl Fn(&Handle) -> bool) {
        let begun = Instant::now();
        while !is_true(&self.handle) {
            assert!(begun.elapsed() < LIMIT, "not {condition}: {:?}", self.handle.stats());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops the manager and drops it, both within [`SOON`].
    pub(super) fn stop(self) -> Vec<Event> {
        let begun = Instant::now();
        self.handle.stop().wait(LIMIT).unwrap();
        let (nm, reported) = self.thread.join().unwrap();
        drop(nm);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        reported
    }
}

pub(super) fn parked(connections: impl IntoIterator<Item = Connection>) -> NotificationManager {
    NotificationManager::new(connections).park_when_empty(true)
}

pub(super) fn payloads(reported: &[Event]) -> Vec<String> {
    let batches = reported.iter().filter_map(|event| match event {
        Event::Notifies(_, batch) => Some(batch),
        _ => None,
    });
    batches.flat_map(|batch| batch.iter().map(|n| n.payload().into_owned())).collect()
}

#[test]
fn m18_requests_of_many_threads_are_all_answered() {
    const EACH: usize = 40;
    let server = cluster();
    let running = Running::start(parked((0..3).map(|_| open(&server.url())).collect::<Vec<_>>()));
    thread::scope(|scope| {
        for thread in 0..6 {
            let (handle, id) = (running.handle.clone(), running.ids[thread % 3]);
            scope.spawn(move || {
                let channel = format!("channel of {thread}");
                for n in 0..EACH {
                    handle.listen(id, [&channel]).wait(LIMIT).unwrap();
                    handle.notify(id, &channel, format!("{thread} {n:03}")).wait(LIMIT).unwrap();
                    handle.unlisten(id, [&channel]).wait(LIMIT).unwrap();
                    handle.notify(id, &channel, "no listener").wait(LIMIT).unwrap();
                }
            });
        }
    });
    let mut received = payloads(&running.stop());
    received.sort();
    let expected: Vec<_> = (0..6).flat_map(|thread| (0..EACH).map(move |n| format!("{thread} {n:03}"))).collect();
    assert_eq!(received, expected, "exactly the notifications between the two acknowledgements");
}

#[test]
fn m18_tickets_of_a_lost_connection_resolve_to_the_error() {
    let fatal = || Step::send([msg::error("FATAL", "57P01", "terminating connection")]);
    for reconnect in [false, true] {
        for (last_words, code) in [(Some(fatal()), Some("57P01")), (None, None)] {
            let script = [Step::startup(), Step::login_ok(), Step::expect_any_query()];
            let peer = Peer::play(script.into_iter().chain(last_words).chain([Step::close()]).collect());
            let nm = parked([open(&peer.url())]);
            let running = Running::start(if reconnect { nm.reconnect(backoff()) } else { nm });
            let error = running.handle.listen(running.ids[0], ["news"]).wait(LIMIT).unwrap_err();
            assert_eq!(error.sqlstate(), code, "{error}");
            assert!(code.is_some() || matches!(error, Error::Disconnected), "{error}");
            running.stop();
        }
    }
}

#[test]
fn m18_requests_on_a_lost_connection_resolve_to_the_reason_for_its_loss() {
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), Step::close()]);
    let running = Running::start(parked([open(&peer.url())]));
    running.until("dead", |handle| handle.stats().garbage == 1);
    assert!(matches!(running.handle.listen(running.ids[0], ["news"]).wait(LIMIT), Err(Error::Disconnected)));
    running.stop();
}

#[test]
fn m18_a_listen_on_a_restoring_connection_resolves_when_it_is_restored() {
    let (server, proxy) = proxied();
    let nm = parked([listener(&through(&proxy))]).reconnect(backoff());
    let running = Running::start(nm);
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    proxy.refuse();
    proxy.cut_fin();
    running.until("lost", |handle| handle.stats().restoring == 1);
    let mut more = handle.listen(id, ["more"]);
    let mut less = handle.unlisten(id, [super::ledger::CHANNEL]);
    // The reason is that of the loss, or of a later attempt that was refused.
    let error = handle.notify(id, "more", "").wait(LIMIT).unwrap_err();
    assert!(error.is_transient(), "it cannot be sent: {error}");
    assert!(more.wait(Duration::from_millis(200)).unwrap_err().is_timeout());
    assert!(less.try_get().is_none() && handle.stats().restores == 0);

    proxy.resume();
    more.wait(LIMIT).unwrap();
    less.wait(LIMIT).unwrap();
    let mut writer = open(&server.url());
    writer.notify(super::ledger::CHANNEL, "not received").unwrap();
    writer.notify("more", "received").unwrap();
    running.until("received", |handle| handle.stats().notifications >= 1);
    assert_eq!(payloads(&running.stop()), ["received"]);
}

#[test]
fn m18_a_request_during_a_restore_is_sent_when_the_server_has_acknowledged_the_listens() {
    let answer = || Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')]);
    let ((asked, is_asked), (answers, gate)) = (Step::mark(), Step::gate());
    let first = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), answer(), Step::close()];
    let mut second = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), is_asked, gate, answer()];
    second.extend((0..3).flat_map(|_| [Step::expect_any_query(), answer()]));
    second.push(Step::expect_eof());
    let peer = Peer::play_each(vec![first, second]);

    let running = Running::start(parked([listener(&peer.url())]).reconnect(backoff()));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    asked.wait();
    let tickets = ["a", "b", "c"].map(|channel| handle.listen(id, [channel]));
    // Commands are executed in order.
    handle.set_timeout(None).wait(LIMIT).unwrap();
    answers.open();
    tickets.into_iter().for_each(|mut ticket| ticket.wait(LIMIT).unwrap());
    running.stop();
    assert_eq!(peer.finish()[1].queries()[1..], ["a", "b", "c"].map(|channel| format!("LISTEN \"{channel}\"")));
}

#[test]
fn m13_a_request_of_the_session_itself_does_not_delay_its_restore() {
    let answer = |tag| Step::send([msg::command_complete(tag), msg::ready(b'I')]);
    let first = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), answer("LISTEN"), Step::close()];
    // After error 58P01, the size of the queue is queried, which repairs it, and LISTEN is repeated.
    let lost = Step::send([msg::error("ERROR", "58P01", "could not access status of transaction"), msg::ready(b'I')]);
    let mut second = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), lost];
    second.extend([Step::expect_any_query(), answer("SELECT"), Step::expect_any_query(), answer("LISTEN")]);
    second.push(Step::expect_eof());
    let peer = Peer::play_each(vec![first, second]);
    let running = Running::start(parked([listener(&peer.url())]).reconnect(backoff()));
    running.until("back", |handle| handle.stats().restores == 1);
    running.stop();
    peer.finish();
}

#[test]
fn m18_a_server_that_answers_each_of_many_requests_in_time_is_not_lost() {
    let answer =
        || [Step::pause(Duration::from_millis(2500)), Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')])];
    let (asked, is_asked) = Step::mark();
    let mut first = vec![Step::startup(), Step::login_ok(), Step::expect_any_query()];
    first.extend(answer());
    first.push(Step::close());
    let mut second = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), is_asked];
    second.extend(answer());
    (0..3).for_each(|_| second.extend(std::iter::once(Step::expect_any_query()).chain(answer())));
    second.push(Step::expect_eof());
    let peer = Peer::play_each(vec![first, second]);

    let config = Config::without_env(&peer.url()).unwrap().call_timeout(Duration::from_secs(8));
    let mut db = Connection::connect(config).unwrap();
    db.listen(["news"]).unwrap();
    let running = Running::start(parked([db]).reconnect(backoff()));
    asked.wait();
    let tickets = ["a", "b", "c"].map(|channel| running.handle.listen(running.ids[0], [channel]));
    tickets.into_iter().for_each(|mut ticket| ticket.wait(LIMIT).unwrap());
    running.stop();
    peer.finish();
}

#[test]
fn m18_a_request_that_was_made_before_a_removal_is_sent() {
    let answer = || Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')]);
    let ((asked, is_asked), (answers, gate)) = (Step::mark(), Step::gate());
    let mut script = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), is_asked, gate, answer()];
    script.extend([Step::expect_query("LISTEN \"b\""), answer(), Step::send([msg::notification(7, "b", "received")])]);
    script.push(Step::expect_eof());
    let peer = Peer::play(script);

    let running = Running::start(parked([open(&peer.url())]));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    let _tickets = ["a", "b"].map(|channel| handle.listen(id, [channel]));
    asked.wait();
    let mut db = handle.remove(id).wait(LIMIT).unwrap();
    answers.open();
    let received = db.wait(LIMIT).next().flatten().expect("a notification on the requested channel");
    assert_eq!(received.payload(), "received");
    running.stop();
    drop(db);
    peer.finish();
}

#[test]
fn m18_an_unknown_id_is_an_error() {
    let crowd = Crowd::start(Duration::ZERO);
    let running = Running::start(parked(crowd.listeners(1)));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    assert!(handle.remove(id).wait(LIMIT).is_ok());
    for mut ticket in [handle.listen(id, ["a"]), handle.unlisten(id, ["a"]), handle.notify(id, "a", "")] {
        assert!(matches!(ticket.wait(LIMIT), Err(Error::UnknownConnection)));
    }
    let (error, rest) = handle.remove(id).wait(LIMIT).unwrap_err().into_parts();
    assert!(matches!(error, Error::UnknownConnection) && rest.is_none());
    running.stop();
}

/// A server that accepts one login and never answers a query.
fn mute() -> Peer {
    Peer::play(vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), Step::expect_eof()])
}

#[test]
fn m18_requests_of_a_removed_connection_resolve() {
    let peer = mute();
    let running = Running::start(parked([open(&peer.url())]));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    let mut ticket = handle.listen(id, ["news"]);
    drop(handle.remove(id).wait(LIMIT).unwrap());
    assert!(matches!(ticket.wait(LIMIT), Err(Error::UnknownConnection)), "the manager itself continues");

    // Requests of a connection that was being restored resolve, too.
    let (_server, proxy) = proxied();
    running.stop();
    let running = Running::start(parked([open(&through(&proxy))]).reconnect(backoff()));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    proxy.refuse();
    proxy.cut_fin();
    running.until("lost", |handle| handle.stats().restoring == 1);
    let mut ticket = handle.listen(id, ["news"]);
    let (error, dead) = handle.remove(id).wait(LIMIT).unwrap_err().into_parts();
    assert!(error.is_transient() && dead.is_some(), "{error:#}");
    assert!(matches!(ticket.wait(LIMIT), Err(Error::UnknownConnection)));
    running.stop();
}

#[test]
fn m18_waiting_on_the_iterating_thread_is_an_error_and_the_ticket_resolves_later() {
    let crowd = Crowd::start(Duration::ZERO);
    let mut nm = parked(crowd.listeners(1)).timeout(Duration::from_millis(5));
    let (handle, id) = (nm.handle(), nm.connections().next().unwrap().0);
    assert!(matches!(nm.next(), Some(None)));
    let mut ticket = handle.listen(id, ["news"]);
    assert!(matches!(ticket.wait(LIMIT), Err(Error::WouldDeadlock)));
    let begun = Instant::now();
    while ticket.try_get().is_none() {
        assert!(nm.next().is_some() && begun.elapsed() < LIMIT);
    }
}

#[test]
fn m18_dropping_the_manager_resolves_requests_to_stopped() {
    let (_server, proxy) = proxied();
    let peer = mute();
    let mut nm =
        parked([open(&peer.url()), open(&through(&proxy))]).reconnect(backoff()).timeout(Duration::from_millis(5));
    let ids: Vec<_> = nm.connections().map(|(id, _)| id).collect();
    let handle = nm.handle();
    proxy.refuse();
    proxy.cut_fin();
    while nm.stats().restoring == 0 {
        nm.next_event();
    }
    // Requests of a connection that does not answer and of one that is being restored, and two that the loop has not taken.
    let mut tickets = vec![handle.listen(ids[0], ["a"]), handle.listen(ids[1], ["a"])];
    assert!(nm.next_event().is_some());
    tickets.extend([handle.listen(ids[0], ["b"]), handle.notify(ids[1], "b", "")]);
    let waiting: Vec<_> =
        tickets.into_iter().map(|mut ticket: Ticket<()>| thread::spawn(move || ticket.wait(LIMIT))).collect();
    thread::sleep(Duration::from_millis(50));
    drop(nm);
    for thread in waiting {
        assert!(matches!(thread.join().unwrap(), Err(Error::Stopped)));
    }
    assert!(matches!(handle.listen(ids[0], ["c"]).wait(LIMIT), Err(Error::Stopped)));
}

#[test]
fn m19_a_stop_is_bounded_in_time_with_unresponsive_peers() {
    // A connection with an unanswered request, one that is being dialled, and one that waits for its next attempt.
    let (_first, silent) = proxied();
    let (_second, dialled) = proxied();
    let (_third, refused) = proxied();
    let silent_port = TcpListener::bind("127.0.0.1:0").unwrap();
    let ways: [&Proxy; 3] = [&silent, &dialled, &refused];
    let slow = backoff().first(Duration::from_secs(30)).longest(Duration::from_secs(30));
    let url = |proxy: &Proxy| format!("postgres://postgres@{}/postgres?connect_timeout=30", proxy.addr());
    let mut nm = parked(ways.map(|proxy| listener(&url(proxy)))).reconnect(backoff());
    nm.set_timeout(Duration::from_millis(5));
    silent.black_hole();
    dialled.set_upstream(silent_port.local_addr().unwrap());
    dialled.cut_fin();
    while nm.stats().restoring < 1 {
        nm.next_event();
    }
    thread::sleep(Duration::from_millis(250));
    nm.next_event();
    let mut nm = nm.reconnect(slow);
    refused.refuse();
    refused.cut_fin();
    while nm.stats().restoring < 2 {
        nm.next_event();
    }
    nm.set_timeout(None);
    let running = Running::start(nm);
    let mut question = running.handle.listen(running.ids[0], ["more"]);
    thread::sleep(Duration::from_millis(100));
    running.stop();
    assert!(matches!(question.wait(LIMIT), Err(Error::Stopped)));
}
