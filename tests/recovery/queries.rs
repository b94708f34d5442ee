//! M18: queries through the handle resolve to their rows or to an error, whatever happens to the connection.

use std::time::{Duration, Instant};

use notifyman::{Error, Event, Ticket};

use super::control::{LIMIT, Running, parked, payloads};
use super::support::*;
use crate::support::{Peer, Proxy, Step, msg};

/// The time limit of calls to a server that does not answer.
const SHORT: Duration = Duration::from_secs(1);

/// The columns of all rows, joined; NULL is `-`.
fn cells(mut ticket: Ticket<Vec<notifyman::Row>>) -> Vec<String> {
    let rows = ticket.wait(LIMIT).unwrap_or_else(|error| panic!("{error}"));
    let cell = |row: &notifyman::Row, column| row.get(column).map_or("-".to_owned(), |text| text.into_owned());
    rows.iter().map(|row| (0..row.len()).map(|column| cell(row, column)).collect::<Vec<_>>().join(" ")).collect()
}

/// A script that logs in and reads one query.
fn asked() -> Vec<Step> {
    vec![Step::startup(), Step::login_ok(), Step::expect_any_query()]
}

#[test]
fn m18_a_query_resolves_to_the_rows_of_all_its_statements() {
    let server = cluster();
    let running = Running::start(parked([open(&server.url())]));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    assert_eq!(cells(handle.query(id, "SELECT 1, NULL, 'x'; SELECT 2")), ["1 - x", "2"]);
    assert!(cells(handle.query(id, "")).is_empty());
    assert!(cells(handle.query(id, "CREATE TABLE t (id int)")).is_empty());
    running.stop();
}

#[test]
fn m18_a_query_that_the_server_refuses_keeps_the_connection() {
    let server = cluster();
    let running = Running::start(parked([open(&server.url())]));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    for (sql, code) in [
        ("SELECT 1/0", "22012"),
        ("CREATE TABLE t (id int); SELECT * FROM nonesuch", "42P01"),
        ("CREATE TEMP TABLE c (id int); COPY c FROM STDIN", "57014"),
    ] {
        assert_eq!(handle.query(id, sql).wait(LIMIT).unwrap_err().sqlstate(), Some(code), "{sql}");
    }
    assert!(handle.query(id, "SELECT '\0'").wait(LIMIT).is_err(), "SQL ends at a NUL byte");
    assert!(cells(handle.query(id, "COPY (SELECT 1) TO STDOUT")).is_empty());
    assert_eq!(cells(handle.query(id, "SELECT to_regclass('t')")), ["-"], "one string is one transaction");
    assert!(running.stop().is_empty());
}

#[test]
fn m18_a_result_that_is_too_long_is_not_kept_and_keeps_the_connection() {
    let server = cluster();
    let running = Running::start(parked([open(&server.url())]));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    for sql in ["SELECT repeat('x', 17000000)", "SELECT repeat('x', 8000000) FROM generate_series(1, 9)"] {
        assert!(matches!(handle.query(id, sql).wait(LIMIT), Err(Error::AnswerTooLong(_))), "{sql}");
    }
    assert_eq!(cells(handle.query(id, "SELECT 1")), ["1"]);
    let too_much = " ".repeat(65 << 20);
    assert!(matches!(handle.query(id, too_much).wait(LIMIT), Err(Error::TooManyRequests { .. })));
    running.stop();
}

#[test]
fn m18_many_queries_are_answered_in_order_while_notifications_arrive() {
    let server = cluster();
    let running = Running::start(parked([open(&server.url()), open(&server.url())]));
    let (handle, ids) = (running.handle.clone(), running.ids.clone());
    handle.listen(ids[0], ["news"]).wait(LIMIT).unwrap();
    let queries =
        (0..500).map(|n| (n, handle.query(ids[n % 2], format!("SELECT {n}, pg_notify('news', '{n}')::text"))));
    let queries: Vec<_> = queries.collect();
    for (n, ticket) in queries {
        assert_eq!(cells(ticket), [format!("{n} ")]);
    }
    running.until("received", |handle| handle.stats().notifications == 500);
    let received = payloads(&running.stop());
    for parity in 0..2 {
        let of_one: Vec<usize> = received.iter().map(|n| n.parse().unwrap()).filter(|n| n % 2 == parity).collect();
        assert!(of_one.is_sorted(), "requests of one connection run in order: {of_one:?}");
    }
}

#[test]
fn m18_a_query_without_an_answer_closes_the_connection_at_the_call_timeout() {
    let peer = Peer::play(asked().into_iter().chain([Step::expect_eof()]).collect());
    let mut silent = open(&peer.url());
    silent.set_call_timeout(SHORT);
    let server = cluster();
    let running = Running::start(parked([silent, open(&server.url())]));
    let begun = Instant::now();
    let mut tickets =
        [running.handle.query(running.ids[0], "SELECT 1"), running.handle.query(running.ids[0], "SELECT 2")];
    assert_eq!(cells(running.handle.query(running.ids[1], "SELECT 3")), ["3"], "the other connection is not held up");
    // The second request was not sent, so its failure does not close the connection.
    assert!(matches!(tickets[0].wait(LIMIT), Err(Error::Timeout { closed: true, .. })));
    assert!(matches!(tickets[1].wait(LIMIT), Err(Error::Timeout { .. })));
    assert!(begun.elapsed() >= SHORT);
    let events = running.stop();
    assert!(matches!(events[..], [Event::Lost(_, Error::Timeout { closed: true, .. })]), "{events:?}");
    peer.finish();
}

#[test]
fn m18_a_query_is_never_sent_twice_and_is_refused_while_its_connection_is_restored() {
    let first = asked().into_iter().chain([Step::close()]).collect();
    let (gate, hold) = Step::gate();
    // The first attempt to restore fails late.
    let second = vec![hold, Step::close()];
    let later = [
        msg::row_description(&["?"]),
        msg::data_row(&[Some("later")]),
        msg::command_complete("SELECT 1"),
        msg::ready(b'I'),
    ];
    let third = vec![
        Step::startup(),
        Step::login_ok(),
        // The restore has no channels.
        Step::expect_query(""),
        Step::send([msg::empty_query(), msg::ready(b'I')]),
        Step::expect_query("SELECT 'later'"),
        Step::send(later),
        Step::expect_eof(),
    ];
    let peer = Peer::play_each(vec![first, second, third]);
    let running = Running::start(parked([open(&peer.url())]).reconnect(backoff()));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    assert!(matches!(handle.query(id, "SELECT 'once'").wait(LIMIT), Err(Error::Disconnected)));
    running.until("being restored", |handle| handle.stats().restoring == 1);
    assert!(handle.query(id, "SELECT 'refused'").wait(LIMIT).is_err());
    gate.open();
    running.until("restored", |handle| handle.stats().connections == 1);
    assert_eq!(cells(handle.query(id, "SELECT 'later'")), ["later"]);
    running.stop();
    peer.finish();
}

#[test]
fn m18_queries_resolve_when_their_connection_is_removed_unknown_or_dropped_with_the_manager() {
    let script = || asked().into_iter().chain([Step::expect_eof()]).collect::<Vec<_>>();
    let peer = Peer::play_each(vec![script(), script()]);
    let running = Running::start(parked([open(&peer.url()), open(&peer.url())]));
    let (handle, ids) = (running.handle.clone(), running.ids.clone());
    let mut removed = [handle.query(ids[0], "SELECT 1"), handle.query(ids[0], "SELECT 2")];
    let mut dropped = handle.query(ids[1], "SELECT 1");
    drop(handle.query(ids[1], "SELECT 2"));
    drop(handle.remove(ids[0]).wait(LIMIT).unwrap());
    for ticket in &mut removed {
        assert!(matches!(ticket.wait(LIMIT), Err(Error::UnknownConnection)));
    }
    assert!(matches!(handle.query(ids[0], "SELECT 1").wait(LIMIT), Err(Error::UnknownConnection)));
    running.stop();
    assert!(matches!(dropped.wait(LIMIT), Err(Error::Stopped)));
    assert!(matches!(handle.query(ids[1], "SELECT 1").wait(LIMIT), Err(Error::Stopped)));
}

#[test]
fn m18_a_query_resolves_after_the_channels_that_it_changed_have_been_read_again() {
    let server = cluster();
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into());
    let nm = parked([open(&through(&proxy))]).reconnect(backoff());
    let running = Running::start(nm);
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    handle.listen(id, ["before"]).wait(LIMIT).unwrap();
    handle.query(id, "LISTEN after; UNLISTEN before").wait(LIMIT).unwrap();
    proxy.cut_rst();
    running.until("restored", |handle| handle.stats().restores == 1);
    let mut writer = open(&server.url());
    writer.notify_many([("before", "no"), ("after", "yes")]).unwrap();
    running.until("received", |handle| handle.stats().notifications == 1);
    let events = running.stop();
    assert_eq!(payloads(&events), ["yes"]);
    let gap =
        events.iter().find_map(|event| if let Event::Restored(_, gap) = event { Some(gap) } else { None }).unwrap();
    assert_eq!(gap.channels(), ["after".into()]);
}

#[test]
fn m18_a_query_in_an_open_transaction_is_answered_before_the_channels_are_known() {
    let server = cluster();
    let running = Running::start(parked([open(&server.url())]));
    let (handle, id) = (running.handle.clone(), running.ids[0]);
    assert!(cells(handle.query(id, "BEGIN; LISTEN news")).is_empty());
    assert_eq!(cells(handle.query(id, "SELECT 1")), ["1"]);
    assert!(cells(handle.query(id, "COMMIT")).is_empty());
    open(&server.url()).notify("news", "x").unwrap();
    running.until("received", |handle| handle.stats().notifications == 1);
    running.stop();
}
