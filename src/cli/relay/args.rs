//! The options of `notifyman relay`.

use std::time::Duration;

use crate::cli::target::channel;
use crate::cli::values::{duration_within, health_address};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) const RELAY: &str = "\
Each listening session slows every NOTIFY of its database. So two relays listen,
on two machines, and any number of readers follow the streams of Redis or Valkey
that one of them appends to. The other one takes over within a second if the
first is killed; nothing is lost or repeated by that. Which one leads, they agree
on for each database, by an advisory lock.

Examples:
  notifyman relay -u shop=postgres://db1/shop --to redis://r1 prices stock
  notifyman relay -u shop=postgres://db1/shop --to redis://r1 --changes
  notifyman relay -u shop=postgres://db1/shop -u post=postgres://db2/post \\
    --to redis://r1 --to redis://r2 --health 127.0.0.1:9187 prices

The stream of a database is notifyman:LABEL, of the label of its --url, or else
notifyman:SYSTEM/DATABASE. The engine keeps about --keep entries of it: a reader
that was away for longer has missed some, and reports a gap. So it does for what
a relay missed itself, and for what does not fit into the memory of a relay (64
MiB or 100,000 notifications for each database) while the engine is away.

--to can be repeated: the first server whose role is master is used, so a
failover is followed. Sentinel and Cluster are not supported. Other users of a
machine can see command lines, so give the password of the engine in the
environment variable REDISCLI_AUTH, as for redis-cli. TLS: --to rediss://r1.

With --health, GET /health answers 200 if everything is relayed, else 503, with
the reasons; GET /metrics is for Prometheus.

A leader that has stopped keeps its lock. After its --canary and
--canary-deadline without an entry, another relay ends its session, which the
same role may do.

With --changes, the changes of tables are relayed as well, in databases that were
built with `notifyman build --delivery notify`, which is its default. With a log,
nothing is relayed, and a message says so: workers read a log by themselves.

Connection settings and exit codes: see `notifyman --help`.";

const USAGE: &str = "\
notifyman relay [OPTIONS] --to <REDIS-URL> <CHANNEL>...
       notifyman relay [OPTIONS] --to <REDIS-URL> --changes [CHANNEL]...";

#[derive(Debug, clap::Args)]
#[command(override_usage = USAGE)]
pub(crate) struct RelayArgs {
    /// Database; repeat for several [default: from the PG* variables]
    #[arg(long = "url", short, value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// Server of Redis or Valkey; repeat for its replicas
    #[arg(long, value_name = "REDIS-URL", required = true)]
    pub(crate) to: Vec<String>,
    /// Relay the changes of tables, too, for `worker --from`
    #[arg(long)]
    pub(crate) changes: bool,
    /// Number of entries that are kept of each stream, about
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keep: u64,
    /// Mark the place in each stream every DURATION, from 1s to 1d
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration_within(SECOND, SECOND * 86_400))]
    pub(crate) canary: Duration,
    /// Time that a mark may take, from 1s to 1d
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration_within(SECOND, SECOND * 86_400))]
    pub(crate) canary_deadline: Duration,
    /// Answer /health and /metrics by HTTP at ADDR, such as 127.0.0.1:9187
    #[arg(long, value_name = "ADDR", value_parser = health_address)]
    pub(crate) health: Option<String>,
    /// Print only errors of the command itself
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Channels to relay (case-sensitive)
    #[arg(value_name = "CHANNEL", required_unless_present = "changes", value_parser = channel)]
    pub(crate) channels: Vec<String>,
}
