//! `notifyman listen --exec`: runs a command for each notification of databases, or of the streams of a relay.

use std::sync::Arc;

use notifyman::notifier::State;
use notifyman::{Config, Error, Notifier};

use super::connections::monitor;
use super::delivery::DeliveryChecks;
use super::pool::CommandPool;
use super::recovery::{CANARY_DEADLINE, backoff};
use super::relayed::{ReportingReader, reader};
use super::watcher::ConnectionWatcher;
use crate::cli::args::ListenArgs;
use crate::cli::connect::{configs, failure_with_advice};
use crate::cli::health::canary_period;
use crate::cli::messages::print_message;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::output::counted;
use crate::cli::signals::SignalWatcher;
use crate::cli::target::or_environment;

pub(super) fn run(args: &ListenArgs, command: &str) -> Result<Exit, Failure> {
    let (notifier, databases) = if args.from.is_empty() { of_servers(args)? } else { of_streams(args)? };
    let (configs, handles): (Vec<_>, Vec<_>) = databases.into_iter().unzip();
    let monitor = monitor(&configs, None);
    let pool = Arc::new(CommandPool::new(command, args, monitor.clone()));
    let failing = Arc::clone(&pool);
    let checks = DeliveryChecks::new(args, monitor.clone(), move || failing.close());
    let mut watcher = ConnectionWatcher::new(&configs, args, monitor.clone(), checks);
    for (handle, number) in handles.iter().cloned().zip(1..) {
        for channel in &args.channels {
            pool.lock().subscriptions.insert((number, channel.clone()));
            let pool = Arc::clone(&pool);
            handle.subscribe(number, channel, move |n| pool.handle_delivery(n))?;
        }
        watcher.opening.push((number, handle));
    }
    let running = Arc::clone(&pool);
    let _health = monitor.serve(args.health.as_ref(), args.quiet, move |monitor| {
        monitor.set_busy_since(running.busy_since());
        for (number, handle) in (1..).zip(&handles) {
            match handle.state() {
                State::Listening => monitor.opened(number),
                State::Lost(error) | State::Failed(error) => monitor.away(number, &error),
                _ => monitor.away_because(number, "the session is not open, and is being restored".to_owned()),
            }
        }
    })?;
    notifier.start().map_err(failure_with_advice)?;
    let signalled = Arc::clone(&pool);
    let signals = SignalWatcher::new(move || signalled.close())?;
    watcher.wait_for_end(&pool);
    // Commands that run are waited for. Queued notifications are counted as skipped one by one, or dropped by `stop`.
    pool.close();
    notifier.stop();
    let mut end = pool.finish();
    if let Some(error) = end.output_error.take() {
        return Err(Failure::Output(error));
    }
    if let Some(signal) = signals.received() {
        let skipped = notifier.stats().dropped + end.skipped;
        if skipped > 0 {
            let skipped = counted(skipped, "notification");
            print_message(format_args!("{skipped} arrived for which the command was not run"));
        }
        return Ok(Exit::Signalled(signal));
    }
    let has_failed_delivery = watcher.checks.has_failed();
    let has_failed = watcher.has_failed || args.fail_fast && has_failed_delivery;
    let is_all_received = watcher.connections.finish(!end.subscriptions.is_empty(), end.missing, has_failed);
    let is_complete = is_all_received && !end.is_incomplete && !has_failed && !has_failed_delivery;
    Ok(if is_complete { Exit::Done } else { Exit::Incomplete })
}

/// A notifier, and a handle of it for each connection, in the order of their numbers.
type Connected = (Notifier<usize>, Vec<(Config, Notifier<usize>)>);

fn of_servers(args: &ListenArgs) -> Result<Connected, Failure> {
    let configs = configs(&or_environment(&args.urls))?;
    let Some(first) = configs.first() else { return Err(Failure::Usage("there is no database".to_owned())) };
    let mut builder = Notifier::builder(first)?.autorun(false).keep_trying(true).reconnect(backoff(configs.len()));
    if let Some(period) = canary_period(args.canary, args.health.as_ref()) {
        builder = builder.canary(period, CANARY_DEADLINE)?;
    }
    let notifier = builder.build::<usize>();
    let at = |config: Config| Ok((config.clone(), notifier.at(config)?));
    let databases = configs.into_iter().map(at).collect::<Result<_, Error>>()?;
    Ok((notifier, databases))
}

fn of_streams(args: &ListenArgs) -> Result<Connected, Failure> {
    let notifier = Notifier::over(ReportingReader(reader(args)?)).autorun(false).keep_trying(true).build::<usize>();
    let databases = notifier.databases().into_iter().map(|handle| (handle.config(), handle)).collect();
    Ok((notifier, databases))
}
