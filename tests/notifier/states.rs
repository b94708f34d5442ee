//! The states of databases, and what depends on their sessions.

use std::sync::mpsc::{Receiver, channel};

use notifyman::notifier::{State, StateChange};
use notifyman::{Error, Notifier};

use super::support::*;
use crate::support::server::{config as parse, start, terminate};
use crate::support::{Options, Peer, Step, msg};

/// The label of a database, its state, and that over all databases.
type Reported = (String, String, String);

fn name(state: &State) -> String {
    let text = format!("{state:?}");
    text.split('(').next().unwrap().to_owned()
}

fn reported(change: &StateChange) -> Reported {
    let label = change.config().get_label().unwrap_or_default().to_owned();
    (label, name(change.state()), name(change.overall()))
}

/// Receives reports up to this one. States that pass quickly may be left out.
fn await_report(reports: &Receiver<Reported>, label: &str, state: &str, overall: &str) {
    let wanted = (label.to_owned(), state.to_owned(), overall.to_owned());
    let mut others = Vec::new();
    loop {
        match reports.recv_timeout(LIMIT) {
            Ok(report) if report == wanted => return,
            Ok(report) => others.push(report),
            Err(error) => panic!("{wanted:?} does not come: {error} after {others:?}"),
        }
    }
}

fn ended(reports: &Receiver<Reported>) -> bool {
    while reports.recv_timeout(LIMIT).is_ok() {}
    reports.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected)
}

#[test]
fn n09_each_change_of_a_state_is_reported_with_that_over_all_databases() {
    let mut oslo = start(Options::new());
    let n = Notifier::builder(parse(&oslo.url()).label("oslo")).unwrap();
    let n = n.database(config().label("berlin")).unwrap().build::<u32>();
    let (sender, reports) = channel();
    n.on_state_change(move |change| sender.send(reported(change)).unwrap()).unwrap();
    await_report(&reports, "oslo", "Stopped", "Stopped");
    await_report(&reports, "berlin", "Stopped", "Stopped");
    n.start().unwrap();
    await_report(&reports, "oslo", "Listening", "Listening");
    assert!(matches!(n.overall_state(), State::Listening));
    oslo.stop_immediate().unwrap();
    await_report(&reports, "oslo", "Away", "Away");
    let pids: Vec<_> = n.databases().iter().map(|database| database.session_pid().is_some()).collect();
    assert_eq!(pids, [false, true]);
    let berlin = n.databases().remove(1);
    assert!(matches!((n.state(), berlin.state(), n.overall_state()), (State::Away, State::Listening, State::Away)));
    oslo.restart().unwrap();
    await_report(&reports, "oslo", "Listening", "Listening");
    n.stop();
    await_report(&reports, "berlin", "Stopped", "Stopped");
    // A database that is added later is reported, too.
    let bonn = n.at(config().label("bonn").options("-c lock_timeout=1s")).unwrap();
    await_report(&reports, "bonn", "Stopped", "Stopped");
    n.start().unwrap();
    await_report(&reports, "bonn", "Listening", "Listening");
    drop((n, berlin, bonn));
    await_report(&reports, "bonn", "Stopped", "Stopped");
    assert!(ended(&reports), "the thread ends with the last handle");
}

#[test]
fn n09_a_function_of_states_may_panic_and_may_use_the_notifier() {
    let n = Notifier::builder(config().label("one")).unwrap().build::<u32>();
    let (sender, reports) = channel();
    let (handle, mut calls) = (n.clone(), 0);
    n.on_state_change(move |change| {
        calls += 1;
        sender.send(reported(change)).unwrap();
        match calls {
            1 => panic!("expected by a test"),
            // A call that blocks.
            2 => handle.start().unwrap(),
            _ => {}
        }
    })
    .unwrap();
    await_report(&reports, "one", "Stopped", "Stopped");
    n.start().unwrap();
    await_report(&reports, "one", "Listening", "Listening");
}

#[test]
fn n09_a_watch_of_a_notifier_that_was_never_started_ends_with_it() {
    let n = Notifier::builder(config().label("one")).unwrap().build::<u32>();
    let (sender, reports) = channel();
    n.on_state_change(move |change| sender.send(reported(change)).unwrap()).unwrap();
    await_report(&reports, "one", "Stopped", "Stopped");
    drop(n);
    assert!(ended(&reports));
}

#[test]
fn n12_all_databases_of_a_builder_are_equal() {
    let oslo = start(Options::new());
    let n = Notifier::builder(config()).unwrap().database(oslo.url()).unwrap().start().unwrap();
    let databases = n.databases();
    let (recorder, records) = recorder();
    let channel = new_channel();
    for (at, database) in databases.iter().enumerate() {
        // The type of the ids is inferred.
        database.subscribe(("cache", at), &channel, recorder.payloads()).unwrap();
    }
    drop((n, databases.first().cloned()));
    assert_eq!(databases[1].config().get_ports(), [oslo.port()]);
    databases[1].notify(&channel, "oslo");
    assert_eq!(records.next(), "oslo");
    databases[0].notify(&channel, "berlin");
    assert_eq!(records.next(), "berlin");
    // A start fails if one of them cannot be opened, whichever it is.
    let unknown = config().dbname("no_such_database");
    for (one, other) in [(config(), unknown.clone()), (unknown, config())] {
        let failed = Notifier::builder(one).unwrap().database(other).unwrap().start::<u32>();
        assert_eq!(failed.unwrap_err().sqlstate(), Some("3D000"));
    }
    assert!(matches!(Notifier::builder(config()).unwrap().database("host"), Err(Error::Config(_))));
}

#[test]
fn n02_the_pid_of_the_session_is_that_of_its_own_notifications() {
    let n = Notifier::new(config().options("-c lock_timeout=2s")).unwrap();
    let (sender, pids) = channel();
    let channel = new_channel();
    n.subscribe(1, &channel, move |delivery| {
        if let notifyman::notifier::Delivery::Notification(n) = delivery {
            sender.send(n.pid()).unwrap();
        }
    })
    .unwrap();
    n.notify(&channel, "");
    let first = pids.recv_timeout(LIMIT).unwrap();
    assert_eq!(n.session_pid(), Some(first));
    terminate(utf8(), first);
    eventually("the session is restored", || n.session_pid().is_some_and(|pid| pid != first));
    n.notify(&channel, "");
    assert_eq!(pids.recv_timeout(LIMIT).ok(), n.session_pid());
    n.stop();
    assert_eq!(n.session_pid(), None);
}

#[test]
fn n02_a_ticket_of_an_unsubscription_resolves_when_the_server_has_acknowledged() {
    let done = |tag: &str| Step::send([msg::command_complete(tag), msg::ready(b'I')]);
    let (respond, gate) = Step::gate();
    let unlisten = || Step::expect_query("UNLISTEN \"a\"");
    let script = vec![Step::startup(), Step::login_ok(), Step::expect_any_query(), done("LISTEN")];
    let script = script.into_iter().chain([Step::expect_query("LISTEN \"a\""), done("LISTEN")]);
    let script = script.chain([unlisten(), gate, done("UNLISTEN"), unlisten(), done("UNLISTEN"), Step::serve()]);
    let peer = Peer::play(script.collect());
    let n = Notifier::new(parse(&peer.url())).unwrap();
    n.subscribe(1, "a", |_| ()).unwrap();
    n.subscribe(2, "a", |_| ()).unwrap();
    let mut first = n.unsubscribe_ticket(&1, "a").unwrap();
    assert!(matches!(first.try_get(), Some(Ok(()))), "another subscriber needs the channel");
    let mut last = n.unsubscribe_ticket(&2, "a").unwrap();
    assert!(last.try_get().is_none());
    assert!(n.channels().is_empty(), "it is effective immediately");
    respond.open();
    last.wait(LIMIT).unwrap();
    assert!(matches!(n.unsubscribe_ticket(&2, "a"), Err(Error::UnknownChannel { .. })));
    drop(n);
    peer.finish();

    let n = Notifier::builder(config()).unwrap().autorun(false).build::<u32>();
    n.subscribe(1, "a", |_| ()).unwrap();
    let mut ticket = n.unsubscribe_ticket(&1, "a").unwrap();
    assert!(matches!(ticket.try_get(), Some(Ok(()))), "nothing is requested");
}
