//! M18 and M19: tickets resolve, whatever happens to their connection, and a stop is soon.

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

/// A manager that runs on another thread until it is stopped, and gives what it reported.
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

    pub(super) fn until(&self, what: &str, is_so: impl Fn(&Handle) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.handle) {
            assert!(begun.elapsed() < LIMIT, "not {what}: {:?}", self.handle.stats());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops it, which is soon, and drops it, which is, too.
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
fn m18_many_threads_ask_a_manager_that_waits_and_each_has_its_answer() {
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
    assert_eq!(received, expected, "what was sent between the two acknowledgements, and nothing else");
}

#[test]
fn m18_the_ticket_of_a_connection_that_dies_resolves_to_its_error() {
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
fn m18_what_is_asked_of_the_dead_resolves_to_why_they_died() {
    let peer = Peer::play(vec![Step::startup(), Step::login_ok(), Step::close()]);
    let running = Running::start(parked([open(&peer.url())]));
    running.until("dead", |handle| handle.stats().garbage == 1);
    assert!(matches!(running.handle.listen(running.ids[0], ["news"]).wait(LIMIT), Err(Error::Disconnected)));
    running.stop();
}

#[test]
fn m18_what_a_restoring_connection_shall_listen_to_resolves_as_it_is_back() {
    let (server, proxy) = proxied();
    let nm = parked([listener(&through(&proxy))]).reconnect(backoff());
    let running = Running::start(nm);
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    proxy.refuse();
    proxy.cut_fin();
    running.until("lost", |handle| handle.stats().restoring == 1);
    let mut more = handle.listen(id, ["more"]);
    let mut less = handle.unlisten(id, [super::ledger::CHANNEL]);
    // By the reason of its end, or of the attempt since that was refused.
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
fn m18_what_is_asked_of_one_that_is_listening_again_is_sent_as_soon_as_the_server_has_answered() {
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
    // Commands are obeyed in order.
    handle.set_timeout(None).wait(LIMIT).unwrap();
    answers.open();
    tickets.into_iter().for_each(|mut ticket| ticket.wait(LIMIT).unwrap());
    running.stop();
    assert_eq!(peer.finish()[1].queries()[1..], ["a", "b", "c"].map(|channel| format!("LISTEN \"{channel}\"")));
}

#[test]
fn m13_a_session_that_asks_for_something_itself_while_it_listens_again_is_not_kept_waiting() {
    let answer = |tag| Step::send([msg::command_complete(tag), msg::ready(b'I')]);
    let first = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), answer("LISTEN"), Step::close()];
    // A server whose queue has lost a file is asked for its size, which mends it, and for the channels once more.
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
fn m18_a_server_that_answers_each_of_many_requests_in_time_is_not_given_up() {
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
fn m18_what_was_asked_is_sent_though_its_connection_is_taken_out_meanwhile() {
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
    let mut db = handle.remove(id).wait(LIMIT).unwrap().unwrap().unwrap();
    answers.open();
    let received = db.wait(LIMIT).next().flatten().expect("it receives what it was to listen to");
    assert_eq!(received.payload(), "received");
    running.stop();
    drop(db);
    peer.finish();
}

#[test]
fn m18_an_id_of_nobody_is_told_as_such() {
    let crowd = Crowd::start(Duration::ZERO);
    let running = Running::start(parked(crowd.listeners(1)));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    assert!(handle.remove(id).wait(LIMIT).unwrap().is_some_and(|taken| taken.is_ok()));
    for mut ticket in [handle.listen(id, ["a"]), handle.unlisten(id, ["a"]), handle.notify(id, "a", "")] {
        assert!(matches!(ticket.wait(LIMIT), Err(Error::UnknownConnection)));
    }
    assert!(handle.remove(id).wait(LIMIT).unwrap().is_none());
    running.stop();
}

/// A server that lets one client in and never answers.
fn mute() -> Peer {
    Peer::play(vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), Step::expect_eof()])
}

#[test]
fn m18_what_was_asked_of_a_connection_that_is_taken_out_resolves() {
    let peer = mute();
    let running = Running::start(parked([open(&peer.url())]));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    let mut ticket = handle.listen(id, ["news"]);
    drop(handle.remove(id).wait(LIMIT).unwrap());
    assert!(matches!(ticket.wait(LIMIT), Err(Error::UnknownConnection)), "the manager itself continues");

    // And so does what was asked of one that was being restored.
    let (_server, proxy) = proxied();
    running.stop();
    let running = Running::start(parked([open(&through(&proxy))]).reconnect(backoff()));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    proxy.refuse();
    proxy.cut_fin();
    running.until("lost", |handle| handle.stats().restoring == 1);
    let mut ticket = handle.listen(id, ["news"]);
    assert!(handle.remove(id).wait(LIMIT).unwrap().is_some_and(|taken| taken.is_err()));
    assert!(matches!(ticket.wait(LIMIT), Err(Error::UnknownConnection)));
    running.stop();
}

#[test]
fn m18_waiting_inside_the_loop_is_an_error_and_the_ticket_resolves_later() {
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
fn m18_as_the_manager_is_dropped_every_ticket_is_stopped() {
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
    // Of one that does not answer, of one that is not back, and two of which the loop does not know yet.
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
fn m19_a_stop_is_soon_whatever_the_peers_do() {
    // One whose peer is silent with a question open, one in the middle of a dial, and one that waits for its next.
    let (_first, silent) = proxied();
    let (_second, dialled) = proxied();
    let (_third, refused) = proxied();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let ways: [&Proxy; 3] = [&silent, &dialled, &refused];
    let slow = backoff().first(Duration::from_secs(30)).longest(Duration::from_secs(30));
    let url = |proxy: &Proxy| format!("postgres://postgres@{}/postgres?connect_timeout=30", proxy.addr());
    let mut nm = parked(ways.map(|proxy| listener(&url(proxy)))).reconnect(backoff());
    nm.set_timeout(Duration::from_millis(5));
    silent.black_hole();
    dialled.set_upstream(closed.local_addr().unwrap());
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
