//! The arguments of `build`, `status`, `verify`, `teardown` and `worker`.

use std::time::{Duration, SystemTime};

use notifyman::changes::{DeliveryMode, Oversize, Position, Shape};

use crate::cli::target::{OneTarget, Targets};
use clap::builder::PossibleValue;

use crate::cli::values::{duration, duration_within, health_address, one_of, past_time, size};

pub(crate) const BUILD: &str = "\
Examples:
  notifyman build postgres://owner@db1/shop
  notifyman build --shape keys --schema public --except-table 'log_*' URL
  notifyman build --dry-run URL >build.sql && psql -f build.sql URL

It creates the schema `notifyman` with functions, and triggers on each table.
Each table is changed in a short transaction of its own, which waits for the
table's lock no longer than --lock-timeout. Tables that could not be locked are
listed with the session that holds the lock; repeat the build to finish them. A
table that is up to date is not changed. Give the same options each time: an
option that is left out returns to its default. In a GLOB, * matches any text,
and ? any character; that of a table is compared with name and schema.name.

With --delivery notify any role that can connect may LISTEN and read what is
sent: whole rows with --shape rows. If that is not acceptable, select tables,
or use --shape keys or --delivery log.

--shape rows reports each row, whole, before and after. --shape keys reports
what a statement wrote, by the rows' keys; it is meant for cache invalidation.
In an INSERT of 10,000 rows, its triggers take about a ninth of the time.

--delivery notify takes PostgreSQL's commit lock, fails if the NOTIFY queue is
full, and excludes PREPARE TRANSACTION. --delivery log does none of these. It
appends changes to tables of its own, which workers read, and can read again.
Changes are kept for --keep-for and up to --keep-size. At twice that size,
without a worker, changes are counted but no longer appended. With --unlogged
writes cost less, but a crash of the server empties the log. No publication
contains the log. The privileges that a worker's role needs are printed. If
there is a log, give --delivery each time: a build without it refuses to end
the log.

Triggers run as the role that writes. Functions that need a privilege of their
own belong to --owner, a role without login, which is created if it does not
exist: grant it only to the installer. Event triggers, which cover new tables
and report changes to table definitions, need a superuser. Without one, give
--no-schema-events, and build again after each migration.

Exit codes: 0 all tables are done, 1 some are not, 2 the request is invalid.";

pub(crate) const STATUS: &str = "\
Examples:
  notifyman status postgres://owner@db1/shop
  notifyman status --table 'price*' URL
  notifyman status --json URL | jq -r '.tables[] | select(.state != \"right\")'

Output with --json, one line; an installation that is in order has no problems:
  {\"installed\":true,\"settings\":{\"shape\":\"rows\",..},\"tables\":[
   {\"table\":\"public.price\",\"state\":\"right\"}],\"problems\":[],\"warnings\":[]}

Exit codes: 0 the state was read, 1 it could not be read.";

pub(crate) const VERIFY: &str = "\
Examples:
  notifyman verify postgres://owner@db1/shop
  notifyman verify --json URL | jq -r '.problems[]'

If it finds a problem, repeat the build, with the same options.

It reads catalogs, locks nothing and changes nothing.

Exit codes: 0 no problem, 1 a problem, 3 a warning.";

pub(crate) const TEARDOWN: &str = "\
Examples:
  notifyman teardown postgres://owner@db1/shop
  notifyman teardown --dry-run URL

Each table's triggers are dropped in a short transaction of their own, as with
`build`. When none is left, the schema is dropped, including a log.
Other objects in the schema are never dropped.

Exit codes: 0 everything is removed, 1 something is left: repeat it.";

pub(crate) const WORKER: &str = "\
Output, one line of JSON for each event:
  {\"kind\":\"change\",\"database\":1,\"time\":\"..\",\"number\":7,
   \"table_schema\":\"public\",\"table_name\":\"price\",\"session_user\":\"app\",
   \"method\":\"UPDATE\",\"old_data\":{..},\"new_data\":{..},\"query\":null}
After the database's number follows its \"label\", if the URL has one.

  kind   change        rows; with --shape keys with \"keys\":[{..},..]
         schema        a table was created, altered or dropped; \"event\" is
                       \"dropped\", or else \"altered\", also of a new table
         connected     changes are received from now on
         disconnected  the connection was lost, and is being restored
         gap           changes may be missing; the cause says why
         dropped       this many changes arrived faster than they were taken
         lost          the database is no longer followed
         unreadable    a notification on the channel `notifyman` that was not
                       sent by a trigger
         warning       a condition that an administrator should know of

All databases are connected concurrently, and an unreachable one is retried
until it is available. After gap and dropped, treat everything as changed.

A database that was built with --delivery log keeps its changes for a time, for
any number of workers:
  --from NAME      continues where the last worker of this name ended. The
                   position is kept in the database, and is advanced once a
                   second. The first time, the worker begins with a gap. If
                   two workers have one name, the second waits until the first
                   has ended.
  --replay-since   begins at a time. With --from, the stored position moves
                   back, too: leave the option out at the next start.
  --from-position  begins at a position that --positions has printed. The log
                   keeps changes only for named workers, so give --from, too.
Without these options a worker begins with the next commit. There is a gap if
the log no longer has the next change: it was removed, the log was full, or the
server has crashed or been replaced.

With --from URL, the changes are read from the streams to which `notifyman relay
--changes` appends them, in the place of databases: give each label as --stream.
A spilled payload stays in the database. A worker begins with the changes that
are relayed from now on.

Guarantees with --from NAME:
  --exec   A change is done when its command has succeeded, or is skipped after
           --retries; with --give-up stop it is never skipped. A change that is
           not done is reported again to the next worker of this name.
  output   A line is done when it is written. A pipe holds up to 64 KiB that
           its reader has not read; these are lost if the reader fails. To
           exclude that, use --exec with --give-up stop, or let the reader
           store the position of the last line together with its effect, and
           begin there (--positions, --from-position). If the reader closes
           standard output, the worker ends with exit code 4 at the next line,
           which is not done.

With --exec the line is the command's standard input, and no lines are printed;
NOTIFYMAN_KIND, NOTIFYMAN_DATABASE, NOTIFYMAN_SCHEMA and NOTIFYMAN_TABLE are
set. `sh -c` runs it for change, schema, gap, dropped and lost, one at a time.
A failing command is run again after 0.1, 0.2, 0.4 .. up to 10 seconds. After
--retries of them the event is skipped and reported; with --give-up stop the
worker ends instead.

With --health, GET /health answers 200 while every database is connected, its
log is read and delivery was proven recently, else 503 with the reasons as JSON;
GET /metrics is for Prometheus. --health turns on --canary, which wakes every
session that listens in the database.

Examples:
  notifyman worker postgres://app@db1/shop postgres://app@db2/shop
  notifyman worker --from cache postgres://app@db1/shop
  notifyman worker --from redis://r1 --stream shop
  notifyman worker --table 'public.price*' URL | jq -c .new_data
  notifyman worker --exec 'curl -sfd @- http://cache/stale' URL

Exit codes: 1 also if a database was lost for good or --give-up stop ended it;
4 if the reader closed standard output; 130 and 143 after a signal, once all
received events are printed, or with --exec once the running command has ended.";

/// The range of the time between two reads of a log.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

fn shapes() -> [PossibleValue; 2] {
    [
        PossibleValue::new("rows").help("Each row, whole, before and after"),
        PossibleValue::new("keys").help("The keys of the rows that a statement wrote"),
    ]
}

fn oversizes() -> [PossibleValue; 3] {
    [
        PossibleValue::new("key").help("Only the key of the row"),
        PossibleValue::new("marker").help("Only that something in the table has changed"),
        PossibleValue::new("spill").help("The whole payload, from a table of its own"),
    ]
}

fn deliveries() -> [PossibleValue; 3] {
    [
        PossibleValue::new("notify").help("NOTIFY; changes without a worker are lost"),
        PossibleValue::new("log").help("A log in the database, in which changes are kept"),
        // A former value, whose error names its successor.
        PossibleValue::new("table").hide(true),
    ]
}

#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) target: OneTarget,
    /// Include only matching schemas (with * and ?); repeat for several
    #[arg(long = "schema", value_name = "GLOB")]
    pub(crate) schemas: Vec<String>,
    /// Include only matching tables ([schema.]name); repeat for several
    #[arg(long = "table", value_name = "GLOB")]
    pub(crate) tables: Vec<String>,
    /// Exclude matching schemas; repeat for several
    #[arg(long = "except-schema", value_name = "GLOB")]
    pub(crate) except_schemas: Vec<String>,
    /// Exclude matching tables; repeat for several
    #[arg(long = "except-table", value_name = "GLOB")]
    pub(crate) except_tables: Vec<String>,
    /// Contents of reports
    #[arg(long, default_value_t, value_parser = one_of::<Shape>(shapes()))]
    pub(crate) shape: Shape,
    /// Report of a payload that is longer than 7,999 bytes
    #[arg(long, default_value_t, value_parser = one_of::<Oversize>(oversizes()))]
    pub(crate) oversize: Oversize,
    /// Way in which changes reach a worker [default: notify]
    #[arg(long, value_name = "DELIVERY", value_parser = one_of::<DeliveryMode>(deliveries()))]
    pub(crate) delivery: Option<DeliveryMode>,
    /// Time for which the log keeps changes
    #[arg(long, value_name = "DURATION", default_value = "1d", hide_short_help = true, value_parser = duration, allow_negative_numbers = true)]
    pub(crate) keep_for: Duration,
    /// Size of the log, in bytes, or with a unit: 512MiB, 1GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size, hide_short_help = true)]
    pub(crate) keep_size: u64,
    /// Create the log as unlogged tables, which a crash of the server empties
    #[arg(long, hide_short_help = true)]
    pub(crate) unlogged: bool,
    /// Discard unread changes in the outbox of an earlier version
    #[arg(long, hide = true)]
    pub(crate) discard_outbox: bool,
    /// Report the text of the query, with its literals
    #[arg(long)]
    pub(crate) with_query: bool,
    /// Install no event triggers, which need a superuser
    #[arg(long)]
    pub(crate) no_schema_events: bool,
    /// Report changes that replication applies, too
    #[arg(long, hide_short_help = true)]
    pub(crate) replicated: bool,
    /// Role without login that owns the functions with privileges of their own
    #[arg(long, value_name = "ROLE", default_value = "notifyman_owner", hide_short_help = true)]
    pub(crate) owner: String,
    /// Build a log even if a publication is FOR ALL TABLES
    #[arg(long, hide_short_help = true)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) locks: LockArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LockArgs {
    /// Time limit for locking a table
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) lock_timeout: Duration,
    /// Number of attempts to lock a table
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) attempts: u32,
    /// Print the SQL for psql, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the result as a line of JSON
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) target: OneTarget,
    /// Include only tables in matching schemas; repeat for several
    #[arg(long = "schema", value_name = "GLOB")]
    pub(crate) schemas: Vec<String>,
    /// Include only matching tables ([schema.]name); repeat for several
    #[arg(long = "table", value_name = "GLOB")]
    pub(crate) tables: Vec<String>,
    /// Print the SQL for psql, and read nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print a line of JSON
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TeardownArgs {
    #[command(flatten)]
    pub(crate) target: OneTarget,
    #[command(flatten)]
    pub(crate) locks: LockArgs,
}

/// The action for an event after the last retry of its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GiveUp {
    /// Report the event and continue
    Skip,
    /// Report the event and end
    Stop,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Report only matching tables ([schema.]name); repeat for several
    #[arg(long = "table", alias = "tables", value_name = "GLOB")]
    pub(crate) tables: Vec<String>,
    /// Run COMMAND for each event, with its line as standard input
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
    /// Number of times to retry a failing command
    #[arg(long, value_name = "N", default_value_t = 5, requires = "exec")]
    pub(crate) retries: u32,
    /// Action after the last retry
    #[arg(long, value_name = "ACTION", default_value = "skip", requires = "exec")]
    pub(crate) give_up: GiveUp,
    /// End with exit code 1 at the first connection that cannot be opened or is lost
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Continue where the last worker of this name ended (--delivery log); or, as a URL (redis://..), the server of a relay to
    /// read from: repeat it for its replicas
    #[arg(long, value_name = "NAME|URL")]
    pub(crate) from: Vec<String>,
    /// Stream of the relay to read: the label of a database there; repeat for several
    #[arg(long = "stream", value_name = "NAME", hide_short_help = true, requires = "from")]
    pub(crate) streams: Vec<String>,
    /// Report again what was committed since TIME (2026-11-29T18:00:00Z), or within the last 90s, 2h or 1d
    #[arg(long, value_name = "TIME", value_parser = past_time)]
    pub(crate) replay_since: Option<SystemTime>,
    /// Begin at POSITION, as printed by --positions; for one database
    #[arg(long, value_name = "POSITION", conflicts_with = "replay_since", hide_short_help = true)]
    pub(crate) from_position: Option<Position>,
    /// Add "position" to each line that was read from a log
    #[arg(long, hide_short_help = true)]
    pub(crate) positions: bool,
    /// Time between two reads of a log
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = duration_within(LOOK_MIN, LOOK_MAX), hide_short_help = true)]
    pub(crate) look_every: Duration,
    /// Time between two reads of a log that has been idle for 10 s
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = duration_within(LOOK_MIN, LOOK_MAX), hide_short_help = true)]
    pub(crate) look_every_when_quiet: Duration,
    /// Check delivery every DURATION, from 1s to 1d. Off unless given, or with --health; without a value, 60s
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "60s")]
    #[arg(value_parser = duration_within(SECOND, SECOND * 86_400), hide_short_help = true)]
    pub(crate) canary: Option<Duration>,
    /// Answer /health and /metrics by HTTP at ADDR, such as 127.0.0.1:9187
    #[arg(long, value_name = "ADDR", value_parser = health_address, hide_short_help = true)]
    pub(crate) health: Option<String>,
    /// Print only problems to standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}
