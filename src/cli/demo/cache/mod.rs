//! The act of the cache: a cached price, changed by other programs, read with slow fills, with and without a fence.
//!
//! ```text
//! writers ──UPDATE, NOTIFY──▶ server ──▶ notifier ─┬──────────▶ cache ◀──┐
//!                               ▲                  └─▶ fence ─▶ cache ◀──┤
//!                               └────── query, a fill takes a while ── readers
//! ```
//!
//! Versions only grow. A hit is stale if its version is older than one whose invalidation the cache had handled before the
//! read began.

pub(crate) mod counts;
mod scene;
mod view;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use self::counts::SceneCounts;
pub(crate) use self::scene::{CacheScene, SESSIONS};
pub(crate) use self::view::{live_line, summary_line};
use super::plan::Plan;
use super::screen::Screen;
use super::server::DemoServer;
use super::writer::micros;
use crate::cli::clock;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::signals::SignalWatcher;

/// The time between two looks at the counts.
const PERIOD: Duration = Duration::from_millis(20);

/// Runs the act alone, on a server of its own.
pub(crate) fn run(length: Duration) -> Result<Exit, Failure> {
    // A signal is noticed at the next look.
    let signals = SignalWatcher::new(|| ())?;
    let mut screen = Screen::new();
    screen
        .print(&screen.style.bold("notifyman: one cached price, with and without a fence"))
        .map_err(Failure::Output)?;
    screen.set_steps(1);
    let starting = || (0, "starting a server".into());
    screen.draw(clock::now(), starting(), |_, _| String::new(), String::new).map_err(Failure::Output)?;
    let server = DemoServer::start(&Plan { clusters: 1, connections: 0, channels: 1 }, 0)?;
    let scene = CacheScene::start(&server.config)?;
    screen.print(&view::introduction(screen.style)).map_err(Failure::Output)?;
    let is_complete = watch(&scene, &mut screen, &signals, length).map_err(Failure::Output)?;
    screen.clear();
    let (counts, error) = scene.finish();
    if let Some(error) = error {
        return Err(error.into());
    }
    let lines = match is_complete {
        true => view::summary(&counts, screen.style),
        false => vec![format!("interrupted: {}", view::plain(&counts))],
    };
    for line in lines {
        screen.print(&line).map_err(Failure::Output)?;
    }
    Ok(match signals.received() {
        Some(signal) => Exit::Signalled(signal),
        None if counts.is_right() => Exit::Done,
        None => Exit::Incomplete,
    })
}

/// Shows the counts until the time has passed. Returns `false` after a signal.
fn watch(scene: &CacheScene, screen: &mut Screen, signals: &SignalWatcher, length: Duration) -> io::Result<bool> {
    screen.set_steps(micros(length));
    let began = clock::now();
    loop {
        let passed = clock::now() - began;
        if passed >= length || scene.has_failed() {
            return Ok(true);
        }
        if signals.received().is_some() {
            return Ok(false);
        }
        draw(screen, passed, length, &scene.counts(), began + passed)?;
        thread::sleep(PERIOD);
    }
}

fn draw(screen: &mut Screen, passed: Duration, length: Duration, counts: &SceneCounts, now: Instant) -> io::Result<()> {
    let note = format!("{:.1} of {} s", passed.as_secs_f64(), length.as_secs_f64());
    screen.draw(
        now,
        (micros(passed), note),
        |style, _| view::live(counts, style),
        || format!("{:>5.1} s  {}", passed.as_secs_f64(), view::plain(counts)),
    )
}
