//! `notifyman relay`: appends the notifications of databases to the streams of an engine.

pub(crate) mod args;
mod health;

use std::sync::{Arc, OnceLock, mpsc};

use notifyman::relay::Relay;
use serde_json::json;

use self::args::RelayArgs;
use super::connect::configs;
use super::engine::engine;
use super::health::{Health, HealthServer};
use super::messages::print_message;
use super::outcome::{Exit, Failure};
use super::signals::SignalWatcher;
use super::target::or_environment;

pub(super) fn run(args: &RelayArgs) -> Result<Exit, Failure> {
    let configs = configs(&or_environment(&args.urls))?;
    let engine = engine(&args.to)?;
    let mut relay = Relay::builder(engine.clone())?.keep(args.keep).canary(args.canary, args.canary_deadline);
    if !args.quiet {
        relay = relay.on_event(|event| print_message(event));
    }
    for config in configs.clone() {
        relay = match args.changes {
            true => relay.database_with_changes(config, &args.channels)?,
            false => relay.database(config, &args.channels)?,
        };
    }
    // Everything that can be wrong with the request is reported before anything starts.
    let started = Arc::new(OnceLock::new());
    let health = serve_health(args, Arc::clone(&started))?;
    if !args.quiet {
        for config in &configs {
            let stream = config.get_label().map_or("SYSTEM/DATABASE, named once it is connected", |label| label);
            print_message(format_args!("relaying {config} to the stream notifyman:{stream} at {engine}"));
        }
    }
    let (stop, stopped) = mpsc::channel();
    let signals = SignalWatcher::new(move || {
        // The program may be about to end.
        let _ = stop.send(());
    })?;
    let relay = relay.start()?;
    let relay = started.get_or_init(|| relay);
    // The other side is kept by the watcher of signals.
    let _ = stopped.recv();
    relay.stop();
    drop(health);
    Ok(signals.received().map_or(Exit::Done, Exit::Signalled))
}

/// Starts a health server if there is an address, for a relay that starts later.
fn serve_health(args: &RelayArgs, relay: Arc<OnceLock<Relay>>) -> Result<Option<HealthServer>, Failure> {
    let Some(address) = &args.health else { return Ok(None) };
    let silence = args.canary.saturating_add(args.canary_deadline);
    let check = move || match relay.get() {
        Some(relay) => health::of(&relay.status(), silence),
        None => Health { problems: vec!["the relay has not started yet".to_owned()], details: json!([]) },
    };
    let server = HealthServer::start(address, args.quiet, check)?;
    health::describe();
    Ok(Some(server))
}
