//! Connections that the manager opens inside its loop.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use notifyman::{Backoff, Config, ConnId, Connection, Error, Event, NotificationManager};

use super::fake::Fake;
use super::support::*;
use crate::support::server::refusing_port;
use crate::support::{Cluster, Options, Peer, Step, msg};

fn config(dsn: &str) -> Config {
    Config::without_env(dsn).unwrap()
}

fn at_port(port: u16) -> Config {
    config(&format!("host=127.0.0.1 port={port} user=postgres dbname=postgres"))
}

/// Waits until this many dials have succeeded. Returns their ids.
fn opened(nm: &mut NotificationManager, n: usize) -> BTreeSet<ConnId> {
    let mut open = BTreeSet::new();
    while open.len() < n {
        match event(nm) {
            Some(Event::Opened(id)) => assert!(open.insert(id)),
            other => panic!("{other:?}"),
        }
    }
    open
}

#[test]
fn m05_a_dial_that_hangs_or_fails_delays_no_other() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let channel = channel();
    let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(50));
    let hangs = nm.dial(at_port(silent.local_addr().unwrap().port()), [&channel]).unwrap();
    let refused = nm.dial(at_port(refusing_port()), [&channel]).unwrap();
    let good: BTreeSet<_> = (0..10).map(|_| nm.dial(config(&server().url()), [&channel]).unwrap()).collect();
    assert_eq!((nm.restoring().count(), nm.connections().count()), (12, 0));
    assert!(nm.restoring().all(|(_, dead)| matches!(dead.error(), Error::Unopened)));

    let (mut open, mut lost) = (BTreeSet::new(), BTreeSet::new());
    while open.len() + lost.len() < 11 {
        match event(&mut nm) {
            Some(Event::Opened(id)) => drop(open.insert(id)),
            Some(Event::Lost(id, error)) => {
                assert!(error.is_transient(), "{error}");
                lost.insert(id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((&open, lost), (&good, BTreeSet::from([refused])));
    assert_eq!(dead(&nm), [refused]);
    super::support::open().notify(&channel, "hello").unwrap();
    let received: BTreeSet<_> = receive(&mut nm, 10).into_iter().collect();
    assert_eq!(received, good.iter().map(|id| (*id, "hello".to_owned())).collect());
    assert!(good.iter().all(|id| nm.get(*id).is_some()));
    assert_eq!(nm.restoring().map(|(id, _)| id).collect::<Vec<_>>(), [hangs]);
    assert!(matches!(nm.remove(hangs), Some(Err(_))));
    assert_eq!((nm.stats().restores, nm.stats().gaps), (0, 0), "nothing was missed");
}

/// Blocks the opening of a file, like a file system that hangs, by a lease that is never released.
fn hung(file: &std::path::Path) -> Option<Child> {
    const HOLD: &str = "import fcntl, signal, sys, time\n\
        signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
        file = open(sys.argv[1], 'r+')\n\
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
        print('held', flush=True)\n\
        time.sleep(40)";
    let mut child = Command::new("python3").args(["-c", HOLD]).arg(file).stdout(Stdio::piped()).spawn().ok()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    if line == "held\n" { Some(child) } else { None }
}

#[cfg(target_os = "linux")]
#[test]
fn m08_a_file_that_hangs_delays_neither_the_loop_nor_a_dial_beyond_its_timeout() {
    let file = std::env::temp_dir().join(format!("notifyman-m08-{}", std::process::id()));
    std::fs::write(&file, "db:*:*:*:secret\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let Some(mut holder) = hung(&file) else {
        return eprintln!("NOT RUN: python3 cannot hold a lease on a file here");
    };
    let limit = Duration::from_secs(1);
    let dial = config(&server().url()).passfile(&file).connect_timeout(limit);
    let begin = Instant::now();
    let error = Connection::connect(dial.clone()).unwrap_err();
    assert!(error.is_timeout() && format!("{error:#}").contains("reading the password file"), "{error}");
    assert!(begin.elapsed() >= limit && begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());

    let channel = channel();
    let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(50));
    nm.dial(config(&server().url()), [&channel]).unwrap();
    opened(&mut nm, 1);
    let hangs: Vec<_> = (0..30).map(|_| nm.dial(dial.clone(), [&channel]).unwrap()).collect();
    let mut sender = super::support::open();
    let mut lost = Vec::new();
    while lost.len() < hangs.len() {
        let begin = Instant::now();
        sender.notify(&channel, "on time").unwrap();
        loop {
            match event(&mut nm) {
                Some(Event::Notifies(..)) => break,
                Some(Event::Lost(id, error)) => {
                    assert!(error.is_timeout(), "{error}");
                    lost.push(id);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "the loop was blocked: {:?}", begin.elapsed());
    }
    let threads = std::fs::read_dir("/proc/self/task").unwrap().filter(|task| {
        let name = task.as_ref().map(|task| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default());
        name.is_ok_and(|name| name.starts_with("notifyman-file"))
    });
    assert!(threads.count() <= 16, "one thread for the file, and those of other tests");
    holder.kill().unwrap();
    holder.wait().unwrap();
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn m05_a_server_that_never_stops_sending_delays_no_other() {
    let endless = || {
        let notices = msg::notice("NOTICE", "00000", "hello").repeat(2000);
        Step::run("send without end", move |wire| {
            while wire.write(&notices).is_ok() {}
            Ok(())
        })
    };
    let patience = Duration::from_millis(400);
    let at_login = Peer::play(vec![Step::startup(), endless()]);
    let at_listen = Peer::play(vec![Step::startup(), Step::login_ok(), endless()]);
    let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(50));
    let mut unfinished = BTreeSet::new();
    unfinished.insert(nm.dial(config(&at_login.url()).connect_timeout(patience), ["c"]).unwrap());
    unfinished.insert(nm.dial(config(&at_listen.url()).call_timeout(patience), ["c"]).unwrap());
    let good = nm.dial(config(&server().url()), ["c"]).unwrap();
    let mut lost = BTreeSet::new();
    while lost.len() < 2 || nm.get(good).is_none() {
        match event(&mut nm) {
            Some(Event::Opened(id)) => assert_eq!(id, good),
            Some(Event::Lost(id, error)) => {
                assert!(error.is_timeout(), "{error}");
                lost.insert(id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, unfinished);
}

#[test]
fn m13_with_reconnect_a_dial_is_retried_until_the_server_is_available() {
    let mut server = Cluster::start(Options::new()).unwrap();
    let dsn = config(&server.url());
    server.stop().unwrap();
    let backoff = Backoff::default().longest(Duration::from_millis(100));
    let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(50)).reconnect(backoff);
    let channel = channel();
    let id = nm.dial(&dsn, [&channel]).unwrap();
    let first = event(&mut nm);
    assert!(
        matches!(&first, Some(Event::Disconnected(away, error)) if *away == id && error.is_transient()),
        "{first:?}"
    );
    for _ in 0..5 {
        assert!(matches!(nm.next_event(), Some(Event::Idle)), "it continues to retry");
    }
    let why = format!("{:#}", nm.restoring().next().unwrap().1.error());
    assert!(why.contains("refused"), "the last attempt's reason can be seen: {why}");
    server.restart().unwrap();
    assert_eq!(opened(&mut nm, 1), BTreeSet::from([id]));

    // From now on a loss of this connection causes a gap.
    server.restart().unwrap();
    assert!(matches!(event(&mut nm), Some(Event::Disconnected(lost, _)) if lost == id));
    let Some(Event::Restored(restored, gap)) = event(&mut nm) else { panic!("restored") };
    assert_eq!((restored, gap.epoch(), gap.channels()), (id, 1, &[channel.as_str().into()][..]));
}

#[test]
fn m13_the_limits_on_reconnecting_do_not_apply_to_first_dials() {
    let slow = Backoff::default().per_second(1).at_once(1);
    let begin = Instant::now();
    let mut nm = NotificationManager::new([]).reconnect(slow);
    let ids: BTreeSet<_> = (0..60).map(|_| nm.dial(config(&server().url()), ["x"]).unwrap()).collect();
    assert_eq!(opened(&mut nm, 60), ids);
    assert!(begin.elapsed() < Duration::from_secs(45), "not one per second");
}

#[test]
fn m06_a_message_followed_by_the_end_is_processed_in_every_phase_of_a_dial() {
    let silence = Duration::from_secs(60);
    let listening = [msg::command_complete("LISTEN"), msg::ready(b'I')].concat();
    for (before, words) in [
        (vec![Step::startup()], msg::error("FATAL", "53300", "too many")),
        (vec![Step::startup()], msg::login()),
        (vec![Step::startup(), Step::login_ok(), Step::expect_any_query()], listening),
    ] {
        let (mut script, is_opened) = (before, words.starts_with(b"C"));
        let asked = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&asked);
        let ((go, gate), (sent, mark)) = (Step::gate(), Step::mark());
        script.push(Step::run("set the flag", move |_| {
            set.store(true, SeqCst);
            Ok(())
        }));
        script.extend([gate, Step::send([words]), Step::close(), mark, Step::pause(silence)]);
        let peer = Peer::play(script);
        let mut nm = NotificationManager::new([]);
        let id = nm.dial(config(&peer.url()), ["c"]).unwrap();
        until("the server has been asked", || {
            assert!(nm.try_next_event().is_pending());
            asked.load(SeqCst)
        });
        // The sockets are not polled meanwhile, so that the message and the end are reported together.
        go.open();
        sent.wait();
        let begun = Instant::now();
        if is_opened {
            assert!(matches!(event(&mut nm), Some(Event::Opened(opened)) if opened == id));
        }
        assert!(matches!(event(&mut nm), Some(Event::Lost(lost, _)) if lost == id));
        assert!(begun.elapsed() < silence / 2, "the end is noticed immediately");
    }
}

#[test]
fn m13_a_slow_body_does_not_shorten_the_time_limit_of_a_dial() {
    let (body, answer, patience) = [4200, 200, 4000].map(Duration::from_millis).into();
    let mut fake = Fake::new();
    let (db, mut line) = fake.open();
    let asked = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&asked);
    let ((go, gate), (sent, mark)) = (Step::gate(), Step::mark());
    let peer = Peer::play(vec![
        Step::startup(),
        Step::run("set the flag", move |_| {
            set.store(true, SeqCst);
            Ok(())
        }),
        gate,
        Step::login_ok(),
        mark,
        Step::expect_any_query(),
        Step::pause(answer),
        Step::send([msg::command_complete("LISTEN"), msg::ready(b'I')]),
    ]);
    let mut nm = NotificationManager::new([db]);
    let id = nm.dial(config(&peer.url()).call_timeout(patience), ["c"]).unwrap();
    until("the server has been asked", || {
        assert!(nm.try_next_event().is_pending());
        asked.load(SeqCst)
    });
    // Both are ready at the next poll. The connection with the slow body is served first.
    line.notify("x");
    go.open();
    sent.wait();
    assert!(matches!(event(&mut nm), Some(Event::Notifies(..))));
    std::thread::sleep(body);
    assert_eq!(opened(&mut nm, 1), BTreeSet::from([id]));
}

#[test]
fn m05_an_invalid_dial_is_an_immediate_error() {
    let mut nm = NotificationManager::new([]);
    assert!(nm.dial("prot=1", ["a"]).unwrap_err().is_usage());
    assert!(nm.dial(config(&server().url()), [""]).unwrap_err().is_usage());
    assert!(nm.dial(Config::new().port(0), ["a"]).unwrap_err().is_usage());
    assert!(nm.next().is_none(), "no connection is attempted");
}

#[test]
fn m05_in_the_plain_loop_a_dialled_connection_appears() {
    let channel = channel();
    let mut nm = NotificationManager::new([]).timeout(Duration::from_millis(20));
    let id = nm.dial(config(&server().url()), [&channel]).unwrap();
    until("it is open", || {
        assert!(matches!(nm.next(), Some(None)), "idle until a notification arrives");
        nm.get(id).is_some()
    });
    super::support::open().notify(&channel, "hello").unwrap();
    assert_eq!(receive(&mut nm, 1), [(id, "hello".to_owned())]);
}

#[test]
fn m05_other_threads_can_dial() {
    let channel = channel();
    let mut nm = NotificationManager::new([]).park_when_empty(true);
    let handle = nm.handle();
    let asked = std::thread::spawn({
        let (handle, channel) = (handle.clone(), channel.clone());
        move || {
            let (there, nowhere) = (config(&server().url()), at_port(refusing_port()));
            let mut tickets = [there.clone(), there, nowhere].map(|config| handle.dial(config, [&channel]));
            tickets.each_mut().map(|ticket| ticket.wait(LIMIT).unwrap())
        }
    });
    let (mut open, mut lost) = (BTreeSet::new(), BTreeSet::new());
    while open.len() + lost.len() < 3 {
        match event(&mut nm) {
            Some(Event::Opened(id)) => assert!(open.insert(id)),
            Some(Event::Lost(id, _)) => assert!(lost.insert(id)),
            other => panic!("{other:?}"),
        }
    }
    let [one, two, nowhere] = asked.join().unwrap();
    assert_eq!((open, lost), (BTreeSet::from([one, two]), BTreeSet::from([nowhere])));
    super::support::open().notify(&channel, "hello").unwrap();
    let received: BTreeSet<_> = receive(&mut nm, 2).into_iter().collect();
    assert_eq!(received, [one, two].map(|id| (id, "hello".to_owned())).into());
}

#[test]
fn m05_the_ticket_of_an_invalid_dial_is_an_immediate_error() {
    let nm = NotificationManager::new([]);
    let handle = nm.handle();
    let good = || config(&server().url());
    let refused = [
        handle.dial("prot=1", ["a"]),
        handle.dial(Config::new().port(0), ["a"]),
        handle.dial(good(), [""]),
        handle.dial(good(), ["a".repeat(300)]),
    ];
    for mut ticket in refused {
        let error = ticket.try_get().expect("the ticket is resolved immediately").unwrap_err();
        assert!(error.is_usage(), "{error}");
    }
    assert_eq!(nm.restoring().count(), 0, "no connection is attempted");
    let mut asked = handle.dial(good(), ["a"]);
    drop(nm);
    for mut ticket in [asked.try_get(), handle.dial(good(), ["a"]).try_get()] {
        assert!(ticket.take().expect("the ticket is resolved immediately").is_err(), "the manager has been dropped");
    }
}
