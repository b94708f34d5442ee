//! The arguments of `build`, `status`, `verify`, `teardown` and `worker`.

use std::time::{Duration, SystemTime};

use notifyman::changes::{DeliveryMode, Oversize, Position, Shape};

use crate::cli::target::{OneTarget, Targets};
use crate::cli::values::{past_time, read_interval, seconds, size};

pub(crate) const BUILD: &str = "\
Examples:
  notifyman build postgres://owner@db1/shop
  notifyman build --shape keys --schema public --except-table 'log_*' URL
  notifyman build --dry-run URL >build.sql && psql -f build.sql URL

It makes a schema `notifyman` with functions and, for each table, triggers. Each
table is a short transaction of its own, which waits for the table's lock no
longer than --lock-timeout; what could not be locked is listed with the session
that holds the lock, and building again finishes it. A table that is right
already is not touched. Give the same options each time: an option that is left
out returns to its default.

With --delivery notify any role that can connect may LISTEN and read what is
sent: whole rows with --shape rows. Name tables, or use keys or a log.

--shape rows reports each row, whole, before and after. --shape keys reports
what a statement wrote, by the rows' keys, and is the one for cache
invalidation: large statements cost about half.

--delivery notify takes PostgreSQL's commit lock, fails where the NOTIFY queue
is full, and excludes PREPARE TRANSACTION. --delivery log does none of that: it
writes tables of its own, which workers read, and can read again. Changes are
kept for --keep-for and up to --keep-size; at twice that size, without a worker,
changes are counted but no longer appended. A crash of the server empties a log
that is --unlogged, in which writes cost less; no publication contains it. The
privileges that a worker's role needs are printed. Where there is a log, give
--delivery each time: a build without it refuses to end the log.

Over an earlier version with an outbox: keep that version's worker running, and
repeat the build until the outbox is empty and it is not refused; or give
--discard-outbox.

Triggers run as the role that writes. Functions that need a privilege of their
own belong to --owner, a role without login, which is made where it is missing:
grant it to no role but the installer. Event triggers, which cover new tables as
they are created and report changes to tables' definitions, need a superuser.
Without one give --no-schema-events, and build again after each migration.

Exit codes: 0 all is done, 1 not all, 2 the request is invalid.";

pub(crate) const STATUS: &str = "\
Examples:
  notifyman status postgres://owner@db1/shop
  notifyman status --table 'price*' URL

Exit codes: 0 it could look, 1 it couldn't.";

pub(crate) const VERIFY: &str = "\
Examples:
  notifyman verify postgres://owner@db1/shop

If it finds a problem, run the same build again, with the same options.

It reads catalogs, locks nothing and changes nothing.

Exit codes: 0 all is as it should be, 1 it isn't, 3 there is a warning.";

pub(crate) const TEARDOWN: &str = "\
Examples:
  notifyman teardown postgres://owner@db1/shop
  notifyman teardown --dry-run URL

Each table's triggers are dropped in a short transaction of their own, as with
`build`; once none is left the schema goes, and what hasn't been read of a
log with it. Objects of others in the schema are never dropped.

Exit codes: 0 nothing is left, 1 some of it is: do it again.";

pub(crate) const WORKER: &str = "\
Output, one line of JSON for each event:
  {\"kind\":\"change\",\"database\":1,\"time\":\"..\",\"number\":7,
   \"table_schema\":\"public\",\"table_name\":\"price\",\"session_user\":\"app\",
   \"method\":\"UPDATE\",\"old_data\":{..},\"new_data\":{..},\"query\":null}

  kind   change        rows; in the keys shape with \"keys\":[{..},..]
         schema        a table was created, altered or dropped
         connected     changes are received from now on
         disconnected  the server cannot be reached; it is tried again
         gap           changes may be missing; the cause says why
         dropped       this many changes came faster than they were taken
         lost          the database is not followed any more
         unreadable    a notification on the channel `notifyman` that no
                       trigger sent
         warning       a condition that an administrator should know of

All databases are connected concurrently, also when they come up later; one
that is down or does not answer holds up no other. After gap and dropped, treat
everything as changed.

A database that was built with --delivery log keeps its changes for a time, for
any number of workers:
  --from NAME      continues where the last worker of this name ended. Its
                   position is kept in the database, and moves with what is
                   done, once a second. The first time, a gap comes first. If
                   two workers have one name, the second waits until the first
                   ends, and takes over.
  --replay-since   begins at a time. With --from, the position that is kept
                   moves back, too: leave the option out at the next start.
  --from-position  begins at a position, as --positions adds them to lines. The
                   log keeps rows for names only, so give --from, too.
Without these a worker begins with what is committed from then on. There is a
gap where the log has not kept what comes next: it was removed, the log was
full, or the server has crashed or been replaced.

Guarantees with --from NAME:
  --exec   A change is done when its command has succeeded, or is skipped after
           --retries; with --give-up stop it is never skipped. What is not done
           is reported again to the next worker of the name.
  output   A line is done when it is written. A pipe takes up to 64 KiB that
           its reader has not read, and these are lost with a reader that
           dies. To be sure, use --exec with --give-up stop, or have the reader
           keep the position of the last line with its effect, and begin there
           (--positions, --from-position). When the reader has gone, the worker
           ends with code 4 at the next line, which is not done.

With --exec the line is the command's standard input, and no lines are printed;
NOTIFYMAN_KIND, NOTIFYMAN_DATABASE, NOTIFYMAN_SCHEMA and NOTIFYMAN_TABLE are
set. `sh -c` runs it for change, schema, gap, dropped and lost, one at a time.
A failing command is run again after 0.1, 0.2, 0.4 .. up to 10 seconds. After
--retries of them the event is skipped and reported; with --give-up stop the
worker ends instead.

Examples:
  notifyman worker postgres://app@db1/shop postgres://app@db2/shop
  notifyman worker --from cache postgres://app@db1/shop
  notifyman worker --tables 'public.price*' URL | jq -c .new_data
  notifyman worker --exec 'curl -sfd @- http://cache/stale' URL

Exit codes: 1 also if a database was lost for good or --give-up stop ended it;
4 if the reader of the output has gone; 130 and 143 after a signal, when what
had come was printed (with --exec: when the running command had ended).";

#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) target: OneTarget,
    /// Only schemas that match; * is any text, ? any character [default: all]
    #[arg(long = "schema", value_name = "GLOB")]
    pub(crate) schemas: Vec<String>,
    /// Only tables that match, by name or as schema.name [default: all]
    #[arg(long = "table", value_name = "GLOB")]
    pub(crate) tables: Vec<String>,
    /// Leave out these schemas
    #[arg(long = "except-schema", value_name = "GLOB")]
    pub(crate) except_schemas: Vec<String>,
    /// Leave out these tables
    #[arg(long = "except-table", value_name = "GLOB")]
    pub(crate) except_tables: Vec<String>,
    /// rows (each row, whole) or keys (what a statement wrote)
    #[arg(long, default_value_t)]
    pub(crate) shape: Shape,
    /// Report long rows by their key, a marker, or spill (a table)
    #[arg(long, default_value_t)]
    pub(crate) oversize: Oversize,
    /// Deliver by notify, or by a log that workers read [default: notify]
    #[arg(long, value_name = "DELIVERY")]
    pub(crate) delivery: Option<DeliveryMode>,
    /// Age up to which the log keeps changes [default: 86400]
    #[arg(long, value_name = "SECONDS", default_value = "86400", hide_default_value = true, hide_short_help = true, value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) keep_for: Duration,
    /// Size of the log, in bytes or as 1MiB, 1GiB, 1TiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size, hide_short_help = true)]
    pub(crate) keep_size: u64,
    /// Make the log unlogged: a crash of the server empties it
    #[arg(long, hide_short_help = true)]
    pub(crate) unlogged: bool,
    /// Discard what is unread in the outbox of an earlier version
    #[arg(long, hide_short_help = true)]
    pub(crate) discard_outbox: bool,
    /// Report the query's text, too, with its literals
    #[arg(long)]
    pub(crate) with_query: bool,
    /// Install no event triggers, which need a superuser
    #[arg(long)]
    pub(crate) no_schema_events: bool,
    /// Report also what replication applies
    #[arg(long, hide_short_help = true)]
    pub(crate) replicated: bool,
    /// Role without login that owns what runs with rights of its own
    #[arg(long, value_name = "ROLE", default_value = "notifyman_owner", hide_short_help = true)]
    pub(crate) owner: String,
    /// Build a log also where a publication is FOR ALL TABLES
    #[arg(long, hide_short_help = true)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) locks: LockArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LockArgs {
    /// Longest wait for a table's lock
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) lock_timeout: Duration,
    /// Number of attempts for a table
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) attempts: u32,
    /// Print the SQL for psql, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) target: OneTarget,
    /// Only tables in schemas that match
    #[arg(long = "schema", value_name = "GLOB")]
    pub(crate) schemas: Vec<String>,
    /// Only tables that match, by name or as schema.name
    #[arg(long = "table", value_name = "GLOB")]
    pub(crate) tables: Vec<String>,
    /// Print the SQL for psql
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TeardownArgs {
    #[command(flatten)]
    pub(crate) target: OneTarget,
    #[command(flatten)]
    pub(crate) locks: LockArgs,
}

/// The action for an event whose command keeps failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GiveUp {
    /// Report it and continue
    Skip,
    /// Report it and end
    Stop,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Report only tables that match, by name or as schema.name
    #[arg(long, value_name = "GLOB")]
    pub(crate) tables: Vec<String>,
    /// Run this command for each event instead of printing it
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
    /// Number of times to retry a failing command
    #[arg(long, value_name = "N", default_value_t = 5, requires = "exec")]
    pub(crate) retries: u32,
    /// Action after the last retry
    #[arg(long, value_name = "ACTION", default_value = "skip", requires = "exec")]
    pub(crate) give_up: GiveUp,
    /// End with status 1 at the first connection that cannot be opened or is lost
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Continue where the last worker of this name ended (--delivery log)
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Option<String>,
    /// Report again what was committed since a time (UTC) or for a span (s, m, h, d): 2026-11-29T18:00:00Z, 90s, 2h
    #[arg(long, value_name = "TIME", value_parser = past_time)]
    pub(crate) replay_since: Option<SystemTime>,
    /// Begin at this position, as printed by --positions; one database
    #[arg(long, value_name = "POSITION", conflicts_with = "replay_since", hide_short_help = true)]
    pub(crate) from_position: Option<Position>,
    /// Add "position" to each line that was read from a log
    #[arg(long, hide_short_help = true)]
    pub(crate) positions: bool,
    /// Time between two looks into a log
    #[arg(long, value_name = "SECONDS", default_value = "0.02", value_parser = read_interval, hide_short_help = true)]
    pub(crate) look_every: Duration,
    /// Time between two looks into a log that has been quiet for 10 s
    #[arg(long, value_name = "SECONDS", default_value = "0.2", value_parser = read_interval, hide_short_help = true)]
    pub(crate) look_every_when_quiet: Duration,
    /// Print only problems to standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}
