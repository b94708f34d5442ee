//! `notifyman relay`: appends the notifications of databases to the streams of an engine.

pub(crate) mod args;
mod health;

use std::sync::{Arc, mpsc};

use notifyman::relay::Relay;

use self::args::RelayArgs;
use super::connect::configs;
use super::engine::engine;
use super::health::HealthServer;
use super::messages::print_message;
use super::outcome::{Exit, Failure};
use super::signals::SignalWatcher;
use super::target::or_environment;

pub(super) fn run(args: &RelayArgs) -> Result<Exit, Failure> {
    let configs = configs(&or_environment(&args.urls))?;
    let engine = engine(&args.to)?;
    if !args.quiet {
        for config in &configs {
            let stream = config.get_label().map_or("SYSTEM/DATABASE, named once it is connected", |label| label);
            print_message(format_args!("relaying {config} to the stream notifyman:{stream} at {engine}"));
        }
    }
    let mut relay = Relay::builder(engine)?.keep(args.keep).canary(args.canary, args.canary_deadline);
    if !args.quiet {
        relay = relay.on_event(|event| print_message(event));
    }
    for config in configs {
        relay = match args.changes {
            true => relay.database_with_changes(config, &args.channels)?,
            false => relay.database(config, &args.channels)?,
        };
    }
    let (stop, stopped) = mpsc::channel();
    let signals = SignalWatcher::new(move || {
        // The program may be about to end.
        let _ = stop.send(());
    })?;
    let relay = Arc::new(relay.start()?);
    let health = match &args.health {
        Some(address) => {
            let (relay, silence) = (Arc::clone(&relay), args.canary.saturating_add(args.canary_deadline));
            let server = HealthServer::start(address, args.quiet, move || health::of(&relay.status(), silence))?;
            health::describe();
            Some(server)
        }
        None => None,
    };
    // The other side is kept by the watcher of signals.
    let _ = stopped.recv();
    relay.stop();
    drop(health);
    Ok(signals.received().map_or(Exit::Done, Exit::Signalled))
}
