//! What can be asked for: the commands and their options, with the help that `--help` shows.

use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::changes::args as changes;
use super::target::{Targets, channel};
use super::values::{canary_period, demo_length, jobs, seconds};

// Lines of at most 79 columns: a terminal's usual width, at which nothing is wrapped once more.

const WHERE_AND_HOW: &str = "\
Where it connects:
  --url takes what psql takes: postgres://user@host:port/database, or
  \"host=db1 dbname=shop connect_timeout=5\". What it leaves open, or all of it
  where there is none, comes from the environment: PGHOST, PGPORT, PGUSER,
  PGPASSWORD, PGDATABASE and so on. Other users of a machine can see command
  lines: a password is better given by PGPASSWORD. No message shows one.

Environment:
  PG*                what psql reads, too
  NO_COLOR           set to anything: no colours
  NOTIFYMAN_PG_BIN   for the demo: the folder with postgres and initdb

Exit codes:
  0     done; also if the reader of the output has gone (but see 4)
  1     it failed, or a connection was lost on the way
  2     it was asked for what can't be: an option, a name, a payload, a URL
  3     doctor and verify only: it works, and there is a warning
  4     worker only: the reader of the output has gone
  130   ended by Ctrl-C (SIGINT), after what was under way
  143   ended by SIGTERM, likewise; a second signal doesn't wait";

const LISTEN: &str = "\
Output, one line of JSON for each notification:
  {\"connection\":1,\"channel\":\"prices\",\"payload\":\"42\",\"pid\":4711,
   \"time\":\"2026-01-31T12:00:00.000001Z\"}

  connection   which --url, counted from 1
  pid          the server's process for the session that notified
  time         when it came here, in UTC
  payload_hex  only where the payload isn't UTF-8: all its bytes; in payload,
               U+FFFD stands for what isn't. channel_hex likewise

Examples:
  notifyman listen prices stock
  notifyman listen -u postgres://db1/shop -u postgres://db2/shop prices
  notifyman listen --count 1 --timeout 60 deployed && ./restart
  notifyman listen prices | jq -r .payload
  notifyman listen prices --exec ./flush --jobs 4

All servers are connected to concurrently, also when they come up later; one
that is down or does not answer holds up no other. A lost connection is
restored, also one that fell silent, which is noticed within 20 seconds; and
before anything that is received then, a line says what may have been missed:
  {\"connection\":1,\"gap\":{\"channels\":[\"prices\"],\"cause\":\"..\",\"since\":\"..\",
   \"until\":\"..\"},\"time\":\"..\"}
Standard error reports all this. What trying again cannot change, such as a
wrong password, ends the connection, and the program when none is left. With
--fail-fast the first failure or loss ends the program. --timeout begins with
the first connection.

When a connection is opened, delivery is proved: a second session, open for a
moment only, sends one notification on a private channel, which the connection
must receive. (With --exec two other sessions do this.) If it does not arrive,
as through a pooler in transaction mode, standard error says what is wrong and
what to do, and the exit code is 1. With --canary one session of each database
sends such a notification regularly, and a connection that does not receive it
is opened again. Each canary wakes every session that listens in its database.

With --exec, /bin/sh runs the command for each notification:
  standard input         the payload, as it came
  NOTIFYMAN_CHANNEL      its channel
  NOTIFYMAN_PID          as pid above
  NOTIFYMAN_CONNECTION   as connection above
What it prints is passed on in whole lines; one that fails is told on standard
error, and the next one runs all the same. One runs at a time, in order, unless
--jobs says otherwise; meanwhile up to 10,000 notifications wait for each
connection. Beyond that the oldest are dropped, and a lost connection is opened
again: standard error says where something may be missing. At a signal and at
the count, what runs is waited for: a command runs until it has ended and its
output is closed, also by what it left in the background. The exit code is 1 if
a command failed, or something may be missing.

Exit codes: 1 also if any connection was lost or was never opened, or if
--timeout came before --count; 130 and 143 after a signal; the others as in
`notifyman --help`, which also tells where it connects.";

const NOTIFY: &str = "\
Examples:
  notifyman notify prices 42
  notifyman notify --url postgres://app@db1/shop prices
  seq 1000 | notifyman notify --stdin prices
  tail -f changes.log | notifyman notify prices -

With --stdin each line is one payload, and they are sent in order. Lines that
are there together go together, up to 1,000 in one transaction; a pause sends
what has come. Equal lines are each delivered, though PostgreSQL would fold
those of one transaction. At a line that can't be sent it ends with 1, and
says which one that is and what was sent before. A signal ends it at once.

Where it connects, and the exit codes: see `notifyman --help`.";

const DOCTOR: &str = "\
It connects, and tells apart what can be wrong: unreachable, refused, TLS,
login, a standby, a pooler in transaction mode, missing permission, failing
delivery, a NOTIFY queue that fills up and who holds it, a server version with
a known LISTEN bug, keepalive that can't notice a dead link. Each comes with
what was seen and what to do. It changes nothing on the server. For a moment a
second session is opened, which notifies the first one while that is idle.

Examples:
  notifyman doctor postgres://app@db1/shop postgres://app@db2/shop
  notifyman doctor --json | jq -r '.findings[].kind'

Output with --json, one line for each URL:
  {\"target\":\"..\",\"worst\":\"warning\",\"latency_ms\":0.6,\"findings\":[
   {\"kind\":\"keepalive\",\"severity\":\"warning\",\"what\":\"..\",
    \"advice\":\"..\",\"evidence\":null}]}

Exit codes: 0 nothing to do, 3 a warning, 1 a failure: the worst of all URLs.";

const COMPLETIONS: &str = "\
Examples:
  notifyman completions bash >~/.local/share/bash-completion/completions/notifyman
  notifyman completions fish >~/.config/fish/completions/notifyman.fish";

const DEMO: &str = "\
Examples:
  notifyman demo
  notifyman demo --connections 1000 --seconds 30
  notifyman demo --clusters 2 --connections 20 --seconds 3 | cat
  tests/with-postgres target/release/notifyman demo

The servers are its own: made for the occasion, on free ports, in memory where
there is room, and removed at the end, also after Ctrl-C or a kill. It needs
the programs postgres and initdb, and touches no other server. In a pipe it
prints plain lines, about one a second.

Under way it shuts one of its servers down, and towards the end it falls
silent. Every notification carries a number and the time at which it was sent:
those that came are counted against those that were to come, and their order
is checked. The exit code is 1 if one is missing or too many.

The latency is from before NOTIFY is sent until the loop hands the batch out.
Servers and listener share this machine, and each listening session slows
PostgreSQL's NOTIFY down: with more connections, it is mostly the servers'.";

/// PostgreSQL's LISTEN and NOTIFY, with many connections on one loop.
#[derive(Debug, Parser)]
#[command(version, after_long_help = WHERE_AND_HOW, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Print what is notified, one line of JSON each
    #[command(after_long_help = LISTEN)]
    Listen(ListenArgs),
    /// Send a notification, or one for each line of standard input
    #[command(after_long_help = NOTIFY)]
    Notify(NotifyArgs),
    /// Find out what keeps notifications from coming, and what to do
    #[command(after_long_help = DOCTOR)]
    Doctor(DoctorArgs),
    /// Install change triggers in a database
    #[command(after_long_help = changes::BUILD)]
    Build(changes::BuildArgs),
    /// Show what is installed for that, and how each table stands
    #[command(after_long_help = changes::STATUS)]
    Status(changes::StatusArgs),
    /// Check it: the exit code says whether all is as it should be
    #[command(after_long_help = changes::VERIFY)]
    Verify(changes::StatusArgs),
    /// Remove it: every trigger, and then the schema
    #[command(after_long_help = changes::TEARDOWN)]
    Teardown(changes::TeardownArgs),
    /// Print each change of the tables as a line of JSON, or run a command for it
    #[command(after_long_help = changes::WORKER)]
    Worker(changes::WorkerArgs),
    /// Show it at work: throwaway servers, hundreds of connections, one loop
    #[command(after_long_help = DEMO)]
    Demo(DemoArgs),
    /// Print a completion script for a shell
    #[command(after_long_help = COMPLETIONS)]
    Completions {
        /// For which shell
        shell: Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListenArgs {
    /// Where to connect; given several times, to each of them [default: as the environment says]
    #[arg(long = "url", short, value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// End after SECONDS without a notification; 0: as soon as those that have arrived are printed [default: never]
    #[arg(long, short, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// End after N notifications
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End with status 1 at the first connection that cannot be opened or is lost
    #[arg(long, conflicts_with = "reconnect")]
    pub(crate) fail_fast: bool,
    /// Reconnect (the default)
    #[arg(long, short, hide_short_help = true)]
    pub(crate) reconnect: bool,
    /// Keep checking delivery, every SECONDS [default without a value: 60]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60")]
    #[arg(value_parser = canary_period)]
    pub(crate) canary: Option<Duration>,
    /// Run COMMAND for each notification, with the payload on its standard input, rather than print it
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
    /// How many commands may run at a time
    #[arg(long, short, value_name = "N", default_value = "1", requires = "exec", value_parser = jobs)]
    pub(crate) jobs: usize,
    /// Don't tell on standard error where it listens
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Channels to listen to (case-sensitive)
    #[arg(value_name = "CHANNEL", required = true, value_parser = channel)]
    pub(crate) channels: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NotifyArgs {
    /// Where to connect [default: as the environment says]
    #[arg(long, short, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Send each line of standard input
    #[arg(long, conflicts_with = "payload")]
    pub(crate) stdin: bool,
    /// Channel to notify (case-sensitive)
    #[arg(value_parser = channel)]
    pub(crate) channel: String,
    /// What to tell them, up to 7,999 bytes; `-` is the same as --stdin [default: nothing]
    #[arg(allow_negative_numbers = true)]
    pub(crate) payload: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print a line of JSON for each URL
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) targets: Targets,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// How many servers to start
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) clusters: u32,
    /// How many connections to open, over all servers
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// How many channels there are; each connection listens to up to five of them
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) channels: u32,
    /// How long it lasts, once all connections are open
    #[arg(long, value_name = "SECONDS", default_value = "12", value_parser = demo_length)]
    pub(crate) seconds: Duration,
    /// How many notifications to send a second, over all servers; each reaches several connections
    #[arg(long, value_name = "N", default_value_t = 1200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
}
