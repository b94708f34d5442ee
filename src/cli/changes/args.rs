//! The arguments of `build`, `status`, `verify`, `teardown` and `worker`.

use std::time::Duration;

use notifyman::changes::{Delivery, Oversize, Shape};

use crate::cli::args::seconds;
use crate::cli::target::{OneTarget, Targets};

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
sent: whole rows with --shape rows. Name tables, or use keys or a table.

--shape rows reports each row, whole, before and after. --shape keys reports
what a statement wrote, by the rows' keys, and is the one for cache
invalidation: large statements cost about half. --delivery notify takes PostgreSQL's commit lock, fails
where the NOTIFY queue is full, and does not go with PREPARE TRANSACTION;
--delivery table does none of that: a worker polls.

Triggers run as the role that writes. What needs a privilege of its own is owned
by --owner, a role without login, which is made where it is missing: grant it
to no role but the installer. Event triggers, which cover new tables as they are created and report
changes to tables' definitions, need a superuser. Without one give
--no-schema-events, and build again after each migration.

Exit codes: 0 all is done, 1 not all, 2 what was asked for can't be.";

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
`build`; once none is left the schema goes, and what hasn't been read of an
outbox with it. Objects of others in the schema are never dropped.

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
         gap           the connection is restored; changes may be missing
         dropped       this many changes came faster than they were taken
         lost          the database is not followed any more
         unreadable    a notification on the channel `notifyman` that no
                       trigger sent
         warning       a condition that an administrator should know of

All databases are connected concurrently, also when they come up later; one
that is down or does not answer holds up no other. After gap and dropped, treat
everything as changed. With --delivery table neither comes: changes that were
not reported stay in the database, one worker at a time reads them, and each is
reported at least once.

How sure it is:
  --exec   A change is done when its command has succeeded, or is skipped after
           --retries; with --give-up stop it is never skipped. Until then
           --delivery table keeps it, and reports it again if need be.
  output   A line is done when it is written. A pipe takes up to 64 KiB that
           its reader has not read, and these are lost with a reader that
           dies. To be sure, use --exec with --give-up stop, or a reader that
           stores the position up to which it is done (the number of a change)
           and compares with its source. When the reader has gone, the worker ends with code 4 at the next line, and keeps in the
           database what was not written.

With --exec the line is the command's standard input, and no lines are printed;
NOTIFYMAN_KIND, NOTIFYMAN_DATABASE, NOTIFYMAN_SCHEMA and NOTIFYMAN_TABLE are
set. `sh -c` runs it for change, schema, gap, dropped and lost, one at a time.
A failing command is run again after 0.1, 0.2, 0.4 .. up to 10 seconds. After
--retries of them the event is skipped and reported; with --give-up stop the
worker ends instead, and with --delivery table the change stays for the next.

Examples:
  notifyman worker postgres://app@db1/shop postgres://app@db2/shop
  notifyman worker --tables 'public.price*' URL | jq -c .new_data
  notifyman worker --exec 'curl -sfd @- http://cache/stale' URL

Exit codes: 1 also if a database was lost for good or --give-up stop ended it;
4 if the reader of the output has gone; 130 and 143 after a signal, when what
had come was printed (with --exec: when the running command had ended).";

#[derive(Debug, clap::Args)]
pub(crate) struct Build {
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
    /// Deliver by notify, or by a table that is polled
    #[arg(long, default_value_t)]
    pub(crate) delivery: Delivery,
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
    /// Build an outbox also where a publication is FOR ALL TABLES
    #[arg(long, hide_short_help = true)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) locks: Locks,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Locks {
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
pub(crate) struct Look {
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
pub(crate) struct Teardown {
    #[command(flatten)]
    pub(crate) target: OneTarget,
    #[command(flatten)]
    pub(crate) locks: Locks,
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
    /// Print only problems to standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}
