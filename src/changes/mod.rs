//! Table changes, reported as they are committed: triggers that report them, and a worker that receives them.
//!
//! ```text
//!   INSERT, UPDATE, DELETE, TRUNCATE ──> trigger ───────┐      ┌──> NOTIFY ───────────────────┐
//!                                                       ├──────┤         or                    ├──> Changes
//!   CREATE, ALTER, DROP TABLE ──> event trigger ────────┘      └──> INSERT into notifyman.log ─┘
//!   installed by Installer, checked by Status                       followed by Worker
//! ```
//!
//! An [`Installer`] installs the triggers in a database, once. A [`Worker`] then receives each change to rows ([`Change`]) and
//! to a table's definition ([`SchemaChange`]), in any number of databases. On the command line these are `notifyman build` and
//! `notifyman worker`.
//!
//! This example invalidates a cache, with the keys shape:
//!
//! ```no_run
//! use notifyman::Config;
//! use notifyman::changes::{ChangeEvent, Worker};
//!
//! # fn main() -> Result<(), notifyman::Error> {
//! for (_, event) in Worker::new([Config::from_env()?]).start()?.flatten() {
//!     match event {
//!         ChangeEvent::Change(change) => match &change.keys {
//!             Some(keys) => println!("forget {keys:?} of {}", change.table_name),
//!             None => println!("forget all of {}", change.table_name),
//!         },
//!         ChangeEvent::Connected
//!         | ChangeEvent::Gap(_)
//!         | ChangeEvent::Dropped(_) => println!("forget everything"),
//!         other => eprintln!("{other:?}"),
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # Terms
//!
//! - The **shape** of an installation is the contents of its reports: whole rows, or keys ([`Shape`]).
//! - A **marker** is a report without rows and keys, which says only that something in a table has changed: its `truncated` is
//!   [`Truncated::Key`].
//! - To **spill** a payload is to store it in the table `notifyman.spilled`, because it is too long for NOTIFY
//!   ([`Oversize::Spill`]).
//! - An **era** of a log is the time from one beginning of the log to the next. Another era begins after a crash or a
//!   failover, and in a copy of the database; readers then report a gap.
//! - A **`generic`** function is a trigger function that serves any table. Usually a function is made for the columns of its
//!   tables; a `generic` one is slower, and is replaced by the next build.
//!
//! # For the database administrator
//!
//! **Installed objects.** A build creates:
//!
//! - in the cluster, the role `notifyman_owner` without login;
//! - in the database, the schema `notifyman` with about a dozen functions and a sequence, and the event triggers
//!   `notifyman_ddl` and `notifyman_drop`, unless they were switched off;
//! - for each table, the triggers `0_notifyman` and `0_notifyman_truncate` in the rows shape, or one trigger each for INSERT,
//!   UPDATE, DELETE and TRUNCATE in the keys shape. Tables with equal columns share a trigger function, such as
//!   `rows_2f1c..`;
//! - for spilled payloads, the table `spilled`;
//! - for a log, the tables `log_0`, `log_1` and `log_2`, one of which is written, and the view `log` over them; the tables
//!   `era`, `start` and `mark`, from which readers detect a crash or a failover; the table `position`, which keeps the
//!   positions of readers; and three sequences.
//!
//! `notifyman build --dry-run` prints all of it as SQL for `psql`. The options are in the comment of the schema. With delivery
//! by NOTIFY, no ordinary table is written.
//!
//! **Locks.** Each table gets its triggers in a short transaction of its own. CREATE TRIGGER takes SHARE ROW EXCLUSIVE, which
//! conflicts with writers, VACUUM and CREATE INDEX CONCURRENTLY, but not with readers. DROP TRIGGER takes ACCESS EXCLUSIVE,
//! which also conflicts with readers such as `pg_dump`. A teardown drops the triggers of each table. A build drops triggers to
//! change the shape, on tables that are no longer selected, and in PostgreSQL 12 and 13 for every change.
//!
//! An attempt waits at most [`Installer::lock_timeout`], one second by default, and other sessions wait behind it. An ordinary
//! autovacuum gives way, because the build lowers `deadlock_timeout`. A role that may not set `deadlock_timeout` waits in its
//! last attempt for at least that time plus 0.5 s. An autovacuum against wraparound does not give way. A table that could not be
//! locked is tried again after the others, and then reported with the sessions that hold its lock, except readers; another
//! build completes it. Tables that are right are recognised from the catalogs, and are not locked. Options other than the shape
//! and the selection of tables change functions only.
//!
//! **DDL.** An event trigger covers new tables, and replaces the trigger function of a table when its columns change. It takes
//! about a millisecond, and about 15 ms for the first DDL of a session. Until the next build, the new function may be a
//! `generic` one, which also reads long values; `notifyman status` lists such tables. The tables that a statement names are always
//! covered. Their partitions are covered until a fifth of `statement_timeout` has passed, or 0.2 s without such a timeout. The
//! remaining ones cause a warning, a message to the workers, and a problem of [`Status`] until the next build. Errors become
//! warnings; only a statement that reaches its timeout in the trigger is cancelled, and a full NOTIFY queue fails the commit.
//!
//! **Removal.** `notifyman teardown`, or [`Installer::teardown`], removes the triggers of each table in a short transaction,
//! then the schema, and then the role, if a build created it and nothing depends on it. `DROP SCHEMA notifyman CASCADE` does
//! the same, except for the role, in one transaction that holds ACCESS EXCLUSIVE on all tables. To disable the event triggers
//! immediately, run `ALTER EVENT TRIGGER notifyman_ddl DISABLE`, and the same for `notifyman_drop`.
//!
//! # Privileges
//!
//! | a role that .. | can | cannot |
//! |---|---|---|
//! | connects to the database | LISTEN, and so read every notification; NOTIFY, and so forge any change; fill the NOTIFY queue by staying in a transaction, which makes commits that notify fail; call `notifyman.append`, similar functions and `spill`, and so forge a change in a log, fill the log, or fill the disk with spilled payloads; hold the advisory locks of a worker or a build, which delays a build and the wake-ups of readers, and makes a worker with a name wait with a warning | read, remove or hide the changes in a log, or spilled payloads |
//! | writes to a covered table | be reported, as its `session_user`; execute code of the table's owner, as in any statement | suppress a report |
//! | owns a table | disable or drop its triggers, and so suppress reports, which `notifyman verify` shows | execute code as another role, except as each role that writes to its table, which its own triggers can do anyway |
//! | owns a column's type, but not the table | make the table be reported without rows: values of its type are not read, since a cast of its own would be executed | execute code as a role that writes, or fail a write |
//! | executes DDL | cover its tables or not, as the options say | execute code as another role: event triggers run as the role that executes the statement |
//! | may create schemas | create a schema `notifyman` before the first build, which then refuses to build | have any object in it used |
//! | is a member of `notifyman_owner` | change the code that all writes execute. A build refuses an owner that has members or can log in | |
//! | installed it | change the code that all writes execute and, with event triggers, the code that all DDL executes. A build refuses an installation by another role, unless that role is a superuser | |
//!
//! Trigger functions run as the role that writes (`SECURITY INVOKER`), and qualify every name, so they do not depend on
//! `search_path`. Operations that need a privilege are in `SECURITY DEFINER` functions, which only take plain values and call
//! nothing that a user could have created: `payload` and `payloads` draw the next number, and `append`, `append_change`,
//! `append_keys` and `spill` write to tables. Their owner has no other privilege. The databases of a cluster share the owner, or
//! have one each ([`Installer::owner`]). PUBLIC has USAGE on the schema, and EXECUTE on these functions and on the trigger
//! functions. Only a build makes code from the names of columns.
//!
//! Necessary privileges:
//!
//! - **to build:** CREATE on the database, and ownership of the tables. Event triggers need a superuser. Any other role needs
//!   CREATEROLE, or membership of `notifyman_owner`; databases with different installers that are not superusers need an owner
//!   each;
//! - **to tear down:** ownership of the tables;
//! - **for a worker:** none with delivery by NOTIFY, and it does not need to be a superuser. To read a log or spilled payloads
//!   it needs the privileges that a build prints ([`Report::grants`]), which later builds keep. If the installer is neither a
//!   superuser nor the owner of the database, these include membership of the installer, because the owner of a table can have
//!   its readers execute code;
//! - **for `status` and `verify`:** none;
//! - **membership of `notifyman_owner`:** for the installer only.
//!
//! If not every role of the database may read the rows of a table, use the keys shape, or a log.
//!
//! # Dumps, replicas and publications
//!
//! - **A dump of the whole database** (`pg_dump`, also with `-s`, and restored with `-1`) restores a working installation. It
//!   does not contain roles: first run `CREATE ROLE notifyman_owner NOLOGIN` in the new cluster.
//! - **A dump of schemas** must include `-n notifyman`. It does not contain event triggers, so build afterwards. Without the
//!   schema, a restore fails at the triggers, and with `-1` it fails as a whole. To leave them out, run
//!   `pg_restore -l FILE | grep -v ' 0_notifyman' >LIST`, then `pg_restore -1 -L LIST FILE`, then build.
//! - **Without privileges** (`-x`), roles lack USAGE on the schema until the next build: writes succeed, and are reported by a
//!   marker without the row, or with a log only by a warning. **Without owners** (`-O`), the restoring role owns the
//!   `SECURITY DEFINER` functions. **Restored by a role that is not a superuser**, event triggers are missing.
//!   `notifyman verify` reports each of these, and a build by the owner of the schema fixes it.
//! - A role that dumps without `pg_read_all_data` needs SELECT on the tables, and `GRANT SELECT ON SEQUENCE notifyman.number`.
//! - **Publications.** PostgreSQL cannot exclude an ordinary table from a publication `FOR ALL TABLES`, and a subscriber stops at
//!   the first row for a table that it does not have. Delivery by NOTIFY has no such table, since the table `spilled` is
//!   unlogged. A build refuses a log on such a publisher, unless it is [unlogged](Installer::unlogged) or
//!   [forced](Installer::force); [`Status`] warns of a publication that is created later. Triggers are not replicated: to
//!   report changes at a subscriber, build there as well.
//! - **A log in a dump** is restored with its rows, which the first reader removes, because their transactions are those of
//!   another cluster. Readers report a gap.
//! - **Rows that replication applies** are only reported with [`Installer::replicated`].
//! - In PostgreSQL 12 to 15, a covered table cannot be turned into a view by a rule `_RETURN`, as dumps from before
//!   PostgreSQL 10 do: PostgreSQL refuses that for any table that ever had a trigger. Restore such a dump before the build, or
//!   under `ALTER EVENT TRIGGER notifyman_ddl DISABLE`.
//!
//! # What it costs
//!
//! Measured by `cargo bench --features changes --bench changes` on two cores without fsync. Commits are cheap without fsync, so the
//! share of a trigger is at its highest. Use the ratios, and measure your own workload.
//!
#![doc = include_str!("costs.md")]
//!
//! In addition, NOTIFY itself has costs: before PostgreSQL 19, each listening *session* slows down every NOTIFY in its database,
//! and every transaction with a NOTIFY takes a lock on the whole cluster when it commits. Therefore:
//!
//! - For cache invalidation, use the **keys** shape. It reports the keys to forget, in one notification for hundreds of rows of
//!   one statement.
//! - Write many rows with one statement, and many statements in one transaction. In an INSERT of 10,000 rows, the keys shape
//!   then adds about a ninth of the time that the rows shape adds, and the lock at the commit is taken once.
//! - Run **one worker** for a database, and many processes behind it. A hundred listeners cost every writer a hundred times as
//!   much.
//! - With many small writing transactions at a time, use **delivery by the log**, which takes no lock at the commit.
//! - PostgreSQL 12 compares each notification with all earlier ones of its transaction. Do not use the rows shape for bulk loads
//!   there.
//! - The notifications of a transaction are in the memory of its session until it commits, and then in the server's queue. For
//!   bulk loads of millions of rows, use the keys shape, or delivery by the log.
//!
//! # Effects on writes
//!
//! An error while a report is made does not fail the write. A change that is too long is reported by its key, and a change that
//! cannot be reported otherwise by a marker that something changed ([`Truncated`]).
//!
//! - Long values are not even read, except by a `generic` function. The size of values in TOAST storage is known without reading
//!   them, and a row with a value of more than 16 KiB is reported by its key. Where rows of up to 15 MiB are reported, the
//!   length of strings is exact, and the stored bytes of other types count eightfold, since they may be compressed.
//! - Operations that can fail, such as a cast to `json`, or the use of a column that another session has changed, are in a block
//!   that catches the error.
//! - If the installation is damaged, for example because roles lack USAGE on the schema, a marker with a negative `number` is
//!   notified, or with a log a warning is raised.
//! - With a log or with spilling, a write waits or fails where an INSERT into a table does: if the disk is full, or the table is
//!   locked. A log that was dropped, or that the owner may not write to, only costs the report.
//! - At twice [`Installer::keep_size`] nothing more is appended to the log: statements succeed, missing changes are counted, and
//!   [`Status`] and each reader report them.
//! - An event trigger that cannot do its work raises a warning.
//!
//! **Two things fail at the commit**, where no trigger can catch an error, and only with delivery by NOTIFY:
//!
//! - A full NOTIFY queue (SQLSTATE 54000, at 8 GB unless `max_notify_queue_pages` is set), because a listening session has been
//!   in a transaction for very long. The worker and [`Status`] warn when the queue is half full, and
//!   [`Connection::diagnose`](crate::Connection::diagnose) names the session that holds it.
//! - `PREPARE TRANSACTION` after a change (SQLSTATE 0A000). A build warns if `max_prepared_transactions` is above 0.
//!
//! [`DeliveryMode::Log`] has neither limit.
//!
//! # Reported and unreported changes
//!
//! - Payloads are JSON on the channel `notifyman`, with the fields of [`Change`] and [`SchemaChange`]. `query` is `null` unless
//!   [`Installer::with_query`] was set. Values are in the format of `to_json` with the settings of the writing session:
//!   `TimeZone`, `IntervalStyle`, `bytea_output`, `extra_float_digits` and, in arrays and ranges, `DateStyle`. Fixed settings
//!   would double the cost of a trigger.
//! - A row of a partition is reported under the name of the root of its tree, with the partition named, also after ATTACH and
//!   DETACH. A row that moves to another partition is a DELETE and an INSERT. A `TRUNCATE` of a root is reported for each
//!   partition. In the keys shape, a statement on the root is reported once, without a partition.
//! - In the keys shape, a write to a parent of plain inheritance is reported under the parent's name. Foreign tables, trees with
//!   foreign tables, and all tables in PostgreSQL 12 and in releases before 13.22, 14.19, 15.14, 16.10 and 17.6 are reported by
//!   keys row by row: PostgreSQL refuses triggers with transition tables there, or to attach a table that has some. TRUNCATE of a
//!   foreign table, and changes at its remote server, are not reported.
//! - The key of a table is its primary key, or else the index of its replica identity. For a table without a key, the keys shape
//!   reports that the table has changed.
//! - Without event triggers ([`Installer::schema_events`]), new tables are only reported after the next build. New and changed
//!   columns are reported immediately. Another primary key has an effect in the keys shape after the next build.
//! - A table with a column of a type that belongs neither to the table's owner nor to a superuser is reported without rows
//!   ([`Truncated::Key`]), and [`Status`] warns of it. To report rows, give the type to the table's owner.
//! - In the keys shape, the rows of a statement are kept in temporary files, as for any trigger with transition tables. They
//!   count for `temp_file_limit`.
//! - Views, temporary tables and extensions' tables are not covered. Virtual generated columns have no value in a trigger, and
//!   are reported as `null`.
//! - Notifications are not kept while a worker is away. A worker that reconnects reports a gap. A worker that is started again
//!   does not: treat its first `Connected` as a gap. A log keeps changes; the changes of a transaction that commits late are read
//!   late, and the changes of each row are in order. Each change is reported at least once.

#![doc = ""]
#![doc = include_str!("log.md")]

// Crate-private: this module uses the layers below by their public interface, except for
// - `Handle::query_then` and `Handle::listen_then`: they call back on the loop's thread, where a ticket would have to be polled;
// - `sql::quote_identifier` and `sql::quote_literal`: names and strings in the SQL of an installation;
// - `Gap::from(GapData)`: the gaps of a log;
// - `clock`: the time.

mod change;
mod context;
mod database;
mod event;
mod filter;
mod functions;
mod glob;
mod grants;
mod install_script;
mod installation;
mod installer;
mod log;
mod log_follower;
mod mailbox;
mod options;
mod payload;
mod queue;
mod report;
mod request;
mod rows;
mod runner;
mod server_facts;
mod shape;
mod source_loop;
mod spilled;
mod sql;
mod status;
mod stream;
mod table;
mod watch;
mod worker;
mod worker_loop;

pub use self::change::{Change, Method, SchemaChange, SchemaEvent, Truncated};
pub use self::event::ChangeEvent;
#[cfg(feature = "relay")]
pub(crate) use self::installation::check_notified;
pub use self::installer::Installer;
pub use self::log::Position;
pub use self::options::{DeliveryMode, Oversize, Shape};
pub use self::report::{Progress, Report};
#[cfg(feature = "relay")]
pub(crate) use self::sql::{CHANNEL, INSTALLED};
pub use self::status::Status;
pub use self::stream::{Changes, Stop};
pub use self::table::{Table, TableState};
pub use self::watch::{DatabaseState, WorkerWatch};
pub use self::worker::Worker;
