//! An engine whose clock is stepped: a link that changes its answers to TIME.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use super::super::support::redis;
use super::Whole;
use crate::support::server::eventually;

/// The beginning of an answer to TIME, which ten digits follow: the seconds since 1970. No other answer has this form.
const ANSWER: &[u8] = b"*2\r\n$10\r\n";

/// Forwards to an engine, and adds seconds to its time. It ends with the process.
fn stepped(port: u16, seconds: Arc<AtomicI64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (requests, answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let seconds = Arc::clone(&seconds);
            thread::spawn(move || forward(requests, server, |_| ()));
            thread::spawn(move || forward(answers, client, |bytes| step(bytes, seconds.load(SeqCst))));
        }
    });
    url
}

fn forward(mut from: TcpStream, mut to: TcpStream, change: impl Fn(&mut [u8])) {
    let mut buffer = [0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        change(&mut buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn step(bytes: &mut [u8], seconds: i64) {
    let Some(at) = bytes.windows(ANSWER.len()).position(|it| it == ANSWER).map(|at| at + ANSWER.len()) else { return };
    let Some(digits) = bytes.get_mut(at..at + 10) else { return };
    let time: i64 = std::str::from_utf8(digits).unwrap().parse().unwrap();
    digits.copy_from_slice((time + seconds).to_string().as_bytes());
}

#[test]
fn r05_a_clock_of_the_engine_that_is_stepped_costs_nothing() {
    let Some(engine) = redis(&[]) else { return };
    let seconds = Arc::<AtomicI64>::default();
    let (mut whole, ledger) = Whole::start(&[stepped(engine.port, Arc::clone(&seconds))], &[engine.url()]);
    // The time of a term is that of the engine. Terms only grow.
    let first_term =
        || engine.ask("XREVRANGE notifyman:shop + - COUNT 1").split('-').next().unwrap().parse::<u64>().unwrap();
    let mut term = first_term();
    for step in [-3600, 3600] {
        seconds.store(step, SeqCst);
        if step > 0 {
            eventually("the new one is a candidate", || whole.candidate().is_some());
            // Until both have received the same canary.
            thread::sleep(Duration::from_millis(2500));
        }
        let leader = whole.leader();
        whole.relays[leader].signal("KILL");
        ledger.wait_for_delivery();
        eventually("the other one has appended", || first_term() != term);
        let next = first_term();
        assert!(next > term && (next > term + 1_000_000 * 1_000_000) == (step > 0), "{term}, then {next}");
        term = next;
        whole.replace(leader);
    }
    seconds.store(0, SeqCst);
    ledger.wait_for_delivery();
    assert_eq!(ledger.close().0, 0);
}
