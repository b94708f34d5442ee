//! Two relays and their readers through faults at random, checked against a ledger at every notification.
//!
//! ```text
//! tests/with-postgres --tools cargo bench --all-features --bench relay_soak -- --seconds 300 --seed 7 --readers 3
//! ```
//!
//! A writer sends numbers. Each reader must receive each number once and in order, or report a gap in its place. The first violation
//! ends the soak with exit code 1. The seed determines the faults and their times, but not how the machine schedules processes.
//!
//! ```text
//! writer ──▶ PostgreSQL ──proxy──▶ relay 1 ──proxy──▶ engine ──▶ readers
//!                └───────proxy──▶ relay 2 ──proxy──────┘
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test in all but name")]

#[allow(dead_code, reason = "the other soak has more options")]
#[path = "soak/args.rs"]
mod args;
#[path = "../tests/support/cluster.rs"]
mod cluster;
#[path = "relay_soak/faults.rs"]
mod faults;
#[path = "relay_soak/ledger.rs"]
mod ledger;
#[path = "relay_soak/process.rs"]
mod process;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/proxy.rs"]
mod proxy;

use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::args::Random;
use self::cluster::{Cluster, EngineKind, EngineServer, Options};
use self::ledger::Ledger;
use self::process::RelayProcess;
use self::proxy::Proxy;

/// The time limit for everything to be delivered after the last fault.
const BALANCE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest pause between two faults.
const REST_MAX: u64 = 2_500;

/// The options of a run.
struct SoakOptions {
    seconds: u64,
    seed: u64,
    readers: usize,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("relay_soak: {message}");
            return ExitCode::from(2);
        }
    };
    let SoakOptions { seconds, seed, readers } = options;
    if EngineKind::Redis.find().is_err() {
        eprintln!("relay_soak: no redis-server found on this machine: run tests/tools, or install it");
        return ExitCode::FAILURE;
    }
    println!("relay_soak: --seconds {seconds} --seed {seed} --readers {readers}");
    match soak(&options) {
        Ok(summary) => {
            println!("{summary}\nrelay_soak: everything was delivered, or in a gap (seed {seed})");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!(
                "\nrelay_soak: FAILED: {violation}\nrelay_soak: to repeat: --seconds {seconds} --seed {seed} --readers {readers}"
            );
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<SoakOptions, String> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()));
    let mut options = SoakOptions { seconds: 20, seed, readers: 3 };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().and_then(|value| value.parse::<u64>().ok());
        let value = value.ok_or_else(|| format!("{word} takes a number"))?;
        match word.as_str() {
            "--seconds" => options.seconds = value.max(1),
            "--seed" => options.seed = value,
            "--readers" => options.readers = usize::try_from(value).unwrap_or(1).max(1),
            _ => return Err(format!("unknown option {word}; options are --seconds, --seed and --readers")),
        }
    }
    Ok(options)
}

/// A relay, with the proxies through which it reaches PostgreSQL and the engine. While it does not run, there is no process.
pub struct RelaySite {
    process: Option<RelayProcess>,
    postgres: Proxy,
    engine: Proxy,
}

impl RelaySite {
    fn new(postgres: &Cluster, engine: &EngineServer) -> Self {
        let proxy = |port| Proxy::start(([127, 0, 0, 1], port).into());
        let mut site = Self { process: None, postgres: proxy(postgres.port()), engine: proxy(engine.port) };
        site.start();
        site
    }

    /// Starts the process, if it does not run.
    fn start(&mut self) {
        let database = format!("postgres://postgres@{}/postgres?connect_timeout=5", self.postgres.addr());
        let engine = format!("redis://{}", self.engine.addr());
        self.process.get_or_insert_with(|| RelayProcess::start(&database, &engine));
    }

    fn is_leader(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.role().starts_with("the leader"))
    }
}

/// Everything that can fail.
pub struct Deployment {
    postgres: Cluster,
    engine: EngineServer,
    relays: [RelaySite; 2],
}

fn soak(options: &SoakOptions) -> Result<String, String> {
    let postgres = Cluster::start(Options::new().max_connections(30)).map_err(|error| error.to_string())?;
    let mut engine = EngineServer::create(EngineKind::Redis, Vec::new()).map_err(|error| error.to_string())?;
    engine.launch_on_free_port().map_err(|error| error.to_string())?;
    let relays = [RelaySite::new(&postgres, &engine), RelaySite::new(&postgres, &engine)];
    let begin = Instant::now();
    while !relays.iter().any(RelaySite::is_leader) {
        if begin.elapsed() > BALANCE_TIMEOUT {
            return Err("no relay leads".to_owned());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let ledger = Ledger::start(&postgres.url(), &engine.url(), options.readers)?;
    let mut deployment = Deployment { postgres, engine, relays };
    let outcome = inject(options, &mut deployment, &ledger);
    let outcome = outcome.and_then(|faults| {
        wait_for_balance(&ledger)?;
        Ok(format!("{}; {faults} faults", ledger.summary()))
    });
    ledger.end();
    if outcome.is_err() {
        deployment.relays.iter().zip(1..).for_each(|(site, number)| {
            site.process.iter().for_each(|process| process.print_log(number));
        });
    }
    outcome
}

/// Injects faults until the time has passed, and lets everything work at the end. Returns the number of faults.
fn inject(options: &SoakOptions, deployment: &mut Deployment, ledger: &Ledger) -> Result<u64, String> {
    let mut random = Random::new(options.seed);
    let (begin, mut faults, mut last_second) = (Instant::now(), 0, 0);
    while begin.elapsed() < Duration::from_secs(options.seconds) {
        let fault = faults::inject(deployment, &mut random)?;
        faults += 1;
        println!("{:>7.1} s  {fault}", begin.elapsed().as_secs_f64());
        thread::sleep(random.millis(20, REST_MAX));
        if let Some(violation) = ledger.violation() {
            return Err(violation);
        }
        let second = begin.elapsed().as_secs();
        if second >= last_second + 5 {
            last_second = second;
            println!("{second:>5} of {} s  {}", options.seconds, ledger.summary());
        }
    }
    faults::end_all(deployment)?;
    Ok(faults)
}

/// Waits until each reader has received a number that was sent after the last fault.
fn wait_for_balance(ledger: &Ledger) -> Result<(), String> {
    let (sent, begin) = (ledger.sent.load(Relaxed), Instant::now());
    while !ledger.has_all_received(sent + 1) {
        if let Some(violation) = ledger.violation() {
            return Err(violation);
        }
        if begin.elapsed() > BALANCE_TIMEOUT {
            return Err(format!("{BALANCE_TIMEOUT:?} after the last fault, a reader has not received {}", sent + 1));
        }
        thread::sleep(Duration::from_millis(20));
    }
    ledger.violation().map_or(Ok(()), Err)
}
