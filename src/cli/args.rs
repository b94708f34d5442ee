//! The commands and their options, with the text of `--help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use super::changes::args as changes;
use super::relay::args as relay;
use super::target::{Targets, channel};
use super::values::{duration, duration_within, health_address, jobs};

/// The commands that have a manual page.
pub(crate) const COMMANDS: [&str; 12] = [
    "listen",
    "notify",
    "doctor",
    "build",
    "status",
    "verify",
    "teardown",
    "worker",
    "relay",
    "demo",
    "completions",
    "man",
];
const SECOND: Duration = Duration::from_secs(1);

// Lines have at most 79 columns, so that a terminal with the usual 80 does not wrap them.

const GENERAL: &str = "\
Connection settings:
  A database is given by --url or, except for listen and notify, also as an
  argument. It is a connection string, as for psql:
  postgres://user@host:port/database, or
  \"host=db1 dbname=shop connect_timeout=5\". Missing settings are taken from
  PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE and the other PG* variables.
  A label before a URL names the database in messages and lines:
  berlin=postgres://db1/shop. It has up to 63 letters, digits, `_`, `-` and `.`.
  Other users of a machine can see command lines, so give a password in
  PGPASSWORD or in a password file. No output contains a password.

Environment:
  PG*                connection settings, as in psql
  NO_COLOR           if not empty, disables colors
  NOTIFYMAN_PG_BIN   for demo: the directory with postgres and initdb

Exit codes:
  0     success; also if the reader closed standard output (but see 4)
  1     failure, or a connection was lost
  2     invalid request: an option, a channel, a payload or a URL
  3     doctor and verify only: there is a warning
  4     worker only: the reader closed standard output
  130   ended by Ctrl-C (SIGINT), after the current work was finished
  143   ended by SIGTERM, likewise; a second signal ends it immediately

After a signal, output that is not read for 5 seconds ends it, too.";

const LISTEN: &str = "\
On a terminal, or with --text, each notification is a line of text: the time of
arrival in UTC, the connection (the label of the --url, or host, database and
number: db1:5432/shop#1), the channel, and the payload, in which control
characters are escaped. In a pipe or a file, or with --json, it is a line of
JSON:
  {\"connection\":1,\"name\":\"db1:5432/shop\",\"channel\":\"prices\",
   \"payload\":\"42\",\"pid\":4711,\"time\":\"2026-01-31T12:00:00.000001Z\"}

  connection   number of the --url, counted from 1
  label        label of the --url, if it has one
  name         label, or else host and database
  pid          process ID of the notifying session's backend
  time         time of arrival, in UTC
  payload_hex  only if the payload is not valid UTF-8: all its bytes in
               hexadecimal; invalid bytes are U+FFFD in payload
  channel_hex  likewise for the channel

Examples:
  notifyman listen prices stock
  notifyman listen -u postgres://db1/shop -u postgres://db2/shop prices
  notifyman listen -u berlin=postgres://db1/shop -u oslo=postgres://db2/shop x
  notifyman listen --count 1 --timeout 1m deployed && ./restart
  notifyman listen prices | jq -r .payload
  notifyman listen prices --exec ./flush --jobs 4

All servers are connected concurrently, and an unreachable one is retried until
it is available. A lost connection is restored, also one that became silent,
which is detected within 20 seconds. Before anything that is received then, a
line reports what may have been missed:
  {\"connection\":1,\"name\":\"..\",\"gap\":{\"channels\":[\"prices\"],\"cause\":\"..\",
   \"since\":\"..\",\"until\":\"..\"},\"time\":\"..\"}
Losses and restorations are reported on standard error. An error that a retry
cannot change, such as a wrong password, ends the connection, and the program
when no connection is left. With --fail-fast the first failure or loss ends the
program. --timeout begins with the first connection.

When a connection is opened, delivery is checked: a second, short session sends
one notification on a private channel, which the connection must receive. (With
--exec two other sessions do this.) If it does not arrive, as through a pooler
in transaction mode, standard error reports the cause and the remedy, and the
exit code is 1. With --canary, one session in each database sends such a
notification regularly, and a connection that does not receive it is reopened.
Each canary wakes every session that listens in its database, which takes the
server about 15 microseconds for each.

With --health, GET /health answers 200 while every connection is open and
delivery was proven recently, else 503 with the reasons as JSON; GET /metrics is
for Prometheus. --health turns on the canary.

With --exec, /bin/sh runs the command for each notification:
  standard input         the payload, unchanged
  NOTIFYMAN_CHANNEL      channel
  NOTIFYMAN_PID          pid, as above
  NOTIFYMAN_CONNECTION   connection, as above
  NOTIFYMAN_LABEL        label, if there is one
Where notifications of a channel may be missing, such as after a loss, it is run
once for that channel, with an empty standard input, without NOTIFYMAN_PID and
with the reason in NOTIFYMAN_GAP. What depends on the channel must be read
again. Otherwise NOTIFYMAN_GAP is not set. --count does not count these.
The command's output is passed on in whole lines. A failing command is reported
on standard error, and the next one runs. Commands run one at a time, in order,
or concurrently with --jobs. Meanwhile up to 10,000 notifications are queued
for each connection; beyond that the oldest are dropped, which is a gap. At a
signal and at the count, running commands are waited for: a command runs until
it has ended and its output is closed, also by its background processes. The
exit code is 1 if a command failed, or something may be missing.

With --from, notifications are read from the streams to which a relay appends
them, in the place of databases; --exec works in the same way. The number of a
connection is then that of the --stream, and its label is the stream's name:
  notifyman listen --from redis://r1 --from redis://r2 --stream shop prices
The name of a stream is the label of the database at the relay, without the
`notifyman:` of its key. A stream without an entry is reported immediately, and
read once it has one. What was relayed before the start is not read, channels
that the relay does not carry are reported, and the silence after which a
stream counts as disconnected is that of the relay, 20 seconds by default. Give
the password of the engine in REDISCLI_AUTH, as for redis-cli.

Exit codes: 1 also if any connection was lost or was never opened, or if
--timeout expired before --count; 130 and 143 after a signal; the others as in
`notifyman --help`, which also describes connection settings.";

const NOTIFY: &str = "\
Examples:
  notifyman notify prices 42
  notifyman notify --url postgres://app@db1/shop prices
  seq 1000 | notifyman notify --stdin prices
  tail -f changes.log | notifyman notify prices -

With --stdin each line is one payload, and lines are sent in order. Lines that
are available together are sent together, up to 1,000 in one transaction; a
pause in the input ends a transaction. Equal lines are all delivered, although
PostgreSQL folds equal notifications of one transaction. A line that cannot be
sent ends the program with exit code 1 and a message with its number and the
lines that were sent. A signal ends the program immediately.

Connection settings and exit codes: see `notifyman --help`.";

const DOCTOR: &str = "\
It connects and distinguishes these conditions: an unreachable server, a
refused connection, TLS, login, a standby, a pooler in transaction mode, a
missing privilege, failing delivery, a NOTIFY queue that fills up and the
session that holds it, a server version with a known LISTEN bug, and keepalive
that cannot detect a dead link. Each finding has its evidence and a remedy.
Nothing on the server is changed. A second session is opened for a moment; it
notifies the first one while that is idle.

Examples:
  notifyman doctor postgres://app@db1/shop postgres://app@db2/shop
  notifyman doctor --json | jq -r '.findings[].kind'

Output with --json, one line for each URL:
  {\"target\":\"..\",\"worst\":\"warning\",\"latency_ms\":0.6,\"server_version\":
   \"16.4\",\"tls\":null,\"queue_usage\":0.0,\"checked\":[\"delivery\",..],\"findings\":[
   {\"kind\":\"keepalive\",\"severity\":\"warning\",\"what\":\"..\",
    \"advice\":\"..\",\"evidence\":null}]}

Exit codes: 0 nothing to do, 3 a warning, 1 a failure: the worst of all URLs.";

const COMPLETIONS: &str = "\
Examples:
  notifyman completions bash >/etc/bash_completion.d/notifyman
  notifyman completions fish >~/.config/fish/completions/notifyman.fish";

const MAN: &str = "\
Examples:
  notifyman man | man -l -
  notifyman man listen >notifyman-listen.1
  notifyman man --directory ~/.local/share/man/man1";

const DEMO: &str = "\
Examples:
  notifyman demo
  notifyman demo --act cache
  notifyman demo --act relay
  notifyman demo --connections 1000 --duration 30s
  notifyman demo --clusters 2 --connections 20 --duration 3s | cat
  tests/with-postgres target/release/notifyman demo

The demonstration starts its own servers, on free ports, and in memory if there
is room. It removes them at the end, also after Ctrl-C or a kill, and uses no
other server. It needs the programs postgres and initdb. In a pipe it prints
plain lines, about one per second.

One of the servers is shut down and restarted, and the writers stop towards the
end. Every notification has a sequence number and its time of sending. The
notifications received are compared with those sent, and their order is
checked. The exit code is 1 if any is missing or superfluous.

Meanwhile, programs change a price and read it through two equal caches, one of
them with a fence. A hit is stale if it is older than a change whose
notification its cache had handled before. The exit code is 1 if there is a
stale hit with the fence.

With --act relay, two relays listen, and 300 readers follow the stream to which
the leader appends. The leader is killed and started again. Every notification
must reach each reader once, or be in a gap that the reader reports; otherwise
the exit code is 1. This act also needs redis-server or valkey-server.

The latency is the time from before NOTIFY is sent until the loop returns the
batch. Servers and listener share this machine, and each listening session
slows down PostgreSQL's NOTIFY: with more connections, most of the latency is
the servers'.";

/// PostgreSQL LISTEN/NOTIFY client for many connections
#[derive(Debug, Parser)]
#[command(version, after_long_help = GENERAL, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Print notifications as lines of text or JSON, or run a command for each
    #[command(after_long_help = LISTEN)]
    Listen(ListenArgs),
    /// Send a notification, or one for each line of standard input
    #[command(after_long_help = NOTIFY)]
    Notify(NotifyArgs),
    /// Diagnose why notifications are not delivered
    #[command(after_long_help = DOCTOR)]
    Doctor(DoctorArgs),
    /// Install change triggers in a database
    #[command(after_long_help = changes::BUILD)]
    Build(changes::BuildArgs),
    /// Show the change triggers and the state of each table
    #[command(after_long_help = changes::STATUS)]
    Status(changes::StatusArgs),
    /// Check the change triggers; the exit code is the result
    #[command(after_long_help = changes::VERIFY)]
    Verify(changes::StatusArgs),
    /// Remove the change triggers and the schema notifyman
    #[command(after_long_help = changes::TEARDOWN)]
    Teardown(changes::TeardownArgs),
    /// Print table changes as lines of JSON, or run a command for each
    #[command(after_long_help = changes::WORKER)]
    Worker(changes::WorkerArgs),
    /// Append notifications to streams of Redis or Valkey, for readers
    #[command(after_long_help = relay::RELAY)]
    Relay(relay::RelayArgs),
    /// Show many connections and an outage, with throwaway servers
    #[command(after_long_help = DEMO)]
    Demo(DemoArgs),
    /// Print a completion script for a shell
    #[command(after_long_help = COMPLETIONS)]
    Completions {
        /// Shell to print the script for
        shell: Shell,
    },
    /// Print a manual page
    #[command(after_long_help = MAN)]
    Man(ManArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListenArgs {
    /// Database; repeat for several [default: from the PG* variables]
    #[arg(long = "url", short, value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// Server of a relay to read from, in the place of databases (redis://..), without --canary and --fail-fast; repeat for its replicas
    #[arg(long, value_name = "URL", hide_short_help = true, requires = "streams", conflicts_with_all = ["urls", "canary", "fail_fast"])]
    pub(crate) from: Vec<String>,
    /// Stream to read: the label of a database at the relay; repeat for several
    #[arg(long = "stream", value_name = "NAME", hide_short_help = true, requires = "from")]
    pub(crate) streams: Vec<String>,
    /// End after DURATION (5s, 1m30s) without a notification; 0 prints those that have arrived [default: never]
    #[arg(long, short, value_name = "DURATION", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// End after N notifications [default: never]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End with exit code 1 at the first connection that cannot be opened or is lost
    #[arg(long, conflicts_with = "reconnect")]
    pub(crate) fail_fast: bool,
    /// Reconnect, which is the default
    #[arg(long, short, hide = true)]
    pub(crate) reconnect: bool,
    /// Check delivery every DURATION, from 1s to 1d. Off unless given, or with --health; without a value, 60s
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "60s")]
    #[arg(value_parser = duration_within(SECOND, SECOND * 86_400))]
    pub(crate) canary: Option<Duration>,
    /// Answer /health and /metrics by HTTP at ADDR, such as 127.0.0.1:9187
    #[arg(long, value_name = "ADDR", value_parser = health_address, hide_short_help = true)]
    pub(crate) health: Option<String>,
    /// Run COMMAND for each notification, with the payload as its standard input
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    pub(crate) exec: Option<String>,
    /// Number of commands that run concurrently
    #[arg(long, short, value_name = "N", default_value = "1", requires = "exec", value_parser = jobs)]
    pub(crate) jobs: usize,
    /// Print lines of text, as on a terminal
    #[arg(long, conflicts_with_all = ["json", "exec"])]
    pub(crate) text: bool,
    /// Print lines of JSON, as in a pipe or a file
    #[arg(long, conflicts_with = "exec")]
    pub(crate) json: bool,
    /// Print only problems to standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Channels to listen to (case-sensitive)
    #[arg(value_name = "CHANNEL", required = true, value_parser = channel)]
    pub(crate) channels: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NotifyArgs {
    /// Database [default: from the PG* variables]
    #[arg(long, short, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Send each line of standard input as a payload
    #[arg(long, conflicts_with = "payload")]
    pub(crate) stdin: bool,
    /// Channel to notify (case-sensitive)
    #[arg(value_parser = channel)]
    pub(crate) channel: String,
    /// Payload, up to 7,999 bytes; `-` is the same as --stdin [default: empty]
    #[arg(allow_negative_numbers = true)]
    pub(crate) payload: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print a line of JSON for each database
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) targets: Targets,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Command to print the page of [default: the page of the program]
    #[arg(value_parser = PossibleValuesParser::new(COMMANDS))]
    pub(crate) command: Option<String>,
    /// Write all pages to DIR, which is created if it does not exist
    #[arg(long, value_name = "DIR", conflicts_with = "command", value_hint = ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DemoAct {
    Connections,
    Cache,
    Relay,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Show one act: connections, with an outage; cache; or relay [default: the first two]
    #[arg(long, value_name = "ACT", value_enum, hide_possible_values = true)]
    pub(crate) act: Option<DemoAct>,
    /// Number of servers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) clusters: u32,
    /// Number of connections, to all servers together, or of readers behind the relays
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Number of channels; each connection listens to up to five
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) channels: u32,
    /// Duration, once all connections are open
    #[arg(long, value_name = "DURATION", alias = "seconds", default_value = "12s")]
    #[arg(value_parser = duration_within(SECOND, SECOND * 86_400))]
    pub(crate) duration: Duration,
    /// Notifications sent per second, on all servers together
    #[arg(long, value_name = "N", default_value_t = 1200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
}
