//! Changes to tables, reported as they are committed: triggers that report them, and a stream that receives them.
//!
//! ```text
//!   INSERT, UPDATE, DELETE, TRUNCATE ──> trigger ───────┐      ┌──> NOTIFY ───────────────────┐
//!                                                       ├──────┤         or                    ├──> Changes
//!   CREATE, ALTER, DROP TABLE ──> event trigger ────────┘      └──> INSERT into notifyman.log ─┘
//!   installed by Installer, checked by Status                       followed by Worker
//! ```
//!
//! An [`Installer`] installs the triggers in a database, once. A [`Worker`] then receives each change to a row
//! ([`Change`]) and to a table's definition ([`SchemaChange`]), in any number of databases. On the command line these are
//! `notifyman build` and `notifyman worker`.
//!
//! Cache invalidation, with the keys shape:
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
//!         ChangeEvent::Connected | ChangeEvent::Gap(_) | ChangeEvent::Dropped(_) => println!("forget everything"),
//!         other => eprintln!("{other:?}"),
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # For the database administrator
//!
//! **What is installed.** A schema `notifyman` with a dozen functions and a sequence; a log or a table `spilled` only
//! where that was asked for. A log is the view `log` of the tables `log_0`, `log_1` and `log_2`, of which one is written; the
//! tables `era`, `start` and `mark`, by which readers know what became of the server; `position`, where readers may keep how far
//! they have read; and three sequences. For each table: in the rows shape the triggers `0_notifyman` and `0_notifyman_truncate`, in
//! the keys shape one each for INSERT, UPDATE, DELETE and TRUNCATE. Tables whose relevant columns are equal share a trigger
//! function, such as `rows_2f1c..`. In the database: the event triggers `notifyman_ddl` and
//! `notifyman_drop`, unless they were not wanted. In the cluster: a role `notifyman_owner` without login.
//! `notifyman build --dry-run` prints all of it as SQL for `psql`. Nothing is written to an ordinary table with delivery
//! by NOTIFY: the options are in the schema's comment.
//!
//! **What it locks.** Each table gets its triggers in a short transaction of its own. CREATE TRIGGER takes SHARE ROW
//! EXCLUSIVE: it conflicts with writers, VACUUM and CREATE INDEX CONCURRENTLY, not with readers. DROP TRIGGER takes ACCESS
//! EXCLUSIVE, which also conflicts with readers such as `pg_dump`. A teardown needs it for each table; a build for another
//! shape, for tables that are no longer selected, and in PostgreSQL 12 and 13 for every change. An attempt waits at most
//! [`Installer::lock_timeout`], one second by default, and other sessions wait behind it. An ordinary autovacuum gives way:
//! the build lowers `deadlock_timeout`. A role that may not set it waits in its last attempt for at least `deadlock_timeout`
//! plus 0.5 s. An autovacuum against wraparound does not give way. A table that could not be locked is tried again after
//! the others, and then reported with the sessions that hold its lock, readers excepted; run the same build again. A table
//! that is right is recognised from the catalogs alone. Options other than the shape and the selection change functions only.
//!
//! **DDL.** An event trigger covers new tables, and gives a table another function when its columns change. That takes
//! about a millisecond, and about 15 ms for the first DDL of a session. Until the next build the function may be the one for
//! any table (`generic` in `notifyman status`), which also reads long values. Tables that a statement names are always done;
//! their partitions only until a fifth of `statement_timeout` has passed, or 0.2 s where there is none. The rest becomes a
//! warning, a message to the workers, and a problem of [`Status`] until the next build. Errors become warnings; a statement
//! that reaches its timeout in the trigger is cancelled, and a full NOTIFY queue fails the commit.
//!
//! **The way out.** `notifyman teardown`, or [`Installer::teardown`]: each table's triggers in a short transaction, then
//! the schema, then the role, if a build made it and nothing depends on it. `DROP SCHEMA notifyman CASCADE` does the same,
//! except for the role, in one transaction that holds ACCESS EXCLUSIVE on all tables. To switch the event triggers off at
//! once: `ALTER EVENT TRIGGER notifyman_ddl DISABLE`, and `notifyman_drop`.
//!
//! # Privileges
//!
//! | a role that .. | can | cannot |
//! |---|---|---|
//! | connects to the database | LISTEN, and so read all that is notified; NOTIFY, and so forge any change; hold the NOTIFY queue in a transaction, and so make commits that notify fail once it is full; call `notifyman.append` and the like, and `spill`, and so forge a change in a log, or fill it, or fill the disk by what is spilled; hold the advisory locks of a worker or a build, and so hold up a build and the wake-ups of a log's readers, and keep a worker with a name waiting, which warns | read, clear or hide what is in a log or spilled |
//! | writes a covered table | be reported, under its `session_user`; run what the table's owner made for it, as in any statement | suppress a report |
//! | owns a table | switch its triggers off, or drop them, and so suppress reports: `notifyman verify` shows it | run anything as another role, except as each role that writes its table, which its own triggers can do anyway |
//! | owns a column's type, and not the table | have the table reported without rows: values of its type are not read, as a cast of its own would read them | run anything as a role that writes, or fail a write |
//! | runs DDL | have its tables covered or not, as asked for when it was built | run anything as another role: event triggers run as the role that runs the statement |
//! | may create schemas | make one that is called `notifyman` before the first build, which then refuses | have anything in it run: what others made is not used |
//! | is a member of `notifyman_owner` | change what all that writes runs. A build refuses an owner that has members, or can log in | |
//! | installed it | change what all that writes runs and, with event triggers, all that runs DDL. A build refuses to go on with what another role installed, unless that is a superuser | |
//!
//! Trigger functions run as the role that writes (SECURITY INVOKER), and qualify every name, so that `search_path` does
//! not matter. What needs a privilege of its own is in SECURITY DEFINER functions that take numbers and plain
//! values only and call nothing that a user could have made: `payload` and `payloads` take the next number, `append`,
//! `append_change`, `append_keys` and `spill` write the tables. Their owner has no other privilege; the databases of a cluster share it, or have one each
//! ([`Installer::owner`]). PUBLIC has USAGE on the schema and EXECUTE on these and on the trigger functions. Only a build
//! makes code from the names of columns.
//!
//! Privileges to grant:
//!
//! - to build: CREATE on the database; ownership of the tables; for event triggers a superuser; for any other role
//!   CREATEROLE, or membership of `notifyman_owner`. Databases with different installers that are no superusers need an
//!   owner each;
//! - to tear down: ownership of the tables;
//! - to a worker: nothing for delivery by NOTIFY, and it need not be a superuser. To read a log or what is spilled it needs the
//!   privileges that a build prints ([`Report::grants`]), which later builds keep. Where no superuser and not the database's
//!   owner installed it, these include membership of the role that did, since who owns a table can have its readers run code;
//! - to `status` and `verify`: nothing;
//! - membership of `notifyman_owner`: to the installer only.
//!
//! If a row must not be readable by every role of the database, take the keys shape, or a log.
//!
//! # Dumps, replicas and publications
//!
//! - **A dump of the whole database** (`pg_dump`, also `-s`, restored also with `-1`) restores an installation that
//!   works. Roles are not in it: first run `CREATE ROLE notifyman_owner NOLOGIN` in the new cluster.
//! - **A dump of schemas** must include `-n notifyman`; event triggers are not in it, so build afterwards.
//!   Without it a restore fails at the triggers, and with `-1` as a whole. Leave them out:
//!   `pg_restore -l FILE | grep -v ' 0_notifyman' >LIST`, then `pg_restore -1 -L LIST FILE`, then build.
//! - **Without privileges** (`-x`) roles lack USAGE on the schema: writes go on, and are reported by a marker without the
//!   row, or with a log by a warning only, until the next build. **Without owners** (`-O`) the restoring role owns the SECURITY
//!   DEFINER functions. **Restored by a role that is no superuser**, event triggers are missing. `notifyman verify` reports
//!   each of these, and a build by the schema's owner fixes it.
//! - A role that dumps without `pg_read_all_data` needs `GRANT SELECT ON SEQUENCE notifyman.number`, and SELECT on the
//!   tables.
//! - **Publications.** PostgreSQL cannot leave an ordinary table out of a publication `FOR ALL TABLES`, and a subscriber
//!   stops at the first row for a table that it lacks. Delivery by NOTIFY has no such table: what is spilled is unlogged.
//!   A log is refused on such a publisher, unless it is [unlogged](Installer::unlogged) or [forced](Installer::force); of a
//!   publication that is made later [`Status`] warns. Triggers do not reach a subscriber; build there, too, if it is to report.
//! - **A log in a dump** is restored with its rows, which the first reader removes: their transactions are those of another
//!   cluster. Readers report a gap.
//! - **Rows that replication applies** are reported only where that was asked for ([`Installer::replicated`]).
//! - In PostgreSQL 12 to 15 a table that is covered cannot be turned into a view by a rule `_RETURN`, as dumps made before
//!   PostgreSQL 10 do: PostgreSQL refuses that for any table that ever had a trigger. Restore such a dump before the build,
//!   or under `ALTER EVENT TRIGGER notifyman_ddl DISABLE`.
//!
//! # What it costs
//!
//! Measured by `cargo bench --features json --bench changes` on two cores without fsync. A commit is cheap there, so
//! this shows a trigger at its dearest: take the ratios, and measure your own.
//!
#![doc = include_str!("costs.md")]
//!
//! What follows, with what a NOTIFY costs anyway: before PostgreSQL 19 each listening *session* slows every NOTIFY of
//! its database down, and every transaction with a NOTIFY takes a lock on the whole cluster as it commits.
//!
//! - For cache invalidation take the **keys** shape: it reports what to forget, in one notification where a statement
//!   wrote hundreds of rows.
//! - Write many rows with one statement, and many statements in one transaction: in the keys shape a row then costs
//!   about half of what it costs in the rows shape, and the commit's lock is taken once.
//! - Have **one worker** for a database, and many processes behind it. A hundred listeners are a hundred times the
//!   cost, to every writer.
//! - With many small writing transactions at a time take **delivery by the log**: it takes no commit lock.
//! - In PostgreSQL 12 a transaction that sends very many notifications compares each with all before it: the rows shape
//!   is not for bulk loads there.
//! - A transaction's notifications wait in its session's memory until it commits, and then in the server's queue: for
//!   bulk loads of millions of rows take the keys shape, or delivery by the log.
//!
//! # It never fails a write
//!
//! An error in the making of a report does not fail the write: what is too long is reported by its key, and what cannot be reported at all
//! as a marker that something changed ([`Truncated`]). Long values are not even read, except by a `generic` function: those that are kept apart (TOAST)
//! are known by their size there, and a row with a value of more than 16 KiB is reported by its key. Where long rows are
//! reported, up to 15 MiB, the length of strings is exact; the stored bytes of other types count eightfold, since
//! compression may have made them small. What can fail, such as a cast to `json`, or a column that another session has
//! changed, is in a block that catches it. Where the installation is damaged, so that roles lack USAGE on the schema for
//! example, a marker with a negative `number` is notified; with a log there is a warning in its place. With a log or
//! spilling, a write waits or fails where the INSERT into a table does: a full disk, or a lock on it. A log that is gone, or that
//! the owner may not write, costs the report only. At twice [`Installer::keep_size`] writers append nothing more: their
//! statements go on, what is missing is counted, and [`Status`] and each reader report it. An event trigger that cannot do its work raises a
//! warning.
//!
//! **Two things fail at the commit**, where no trigger can catch them, and only with delivery by NOTIFY:
//!
//! - A full NOTIFY queue (SQLSTATE 54000: 8 GB, unless `max_notify_queue_pages` says otherwise), because a listening
//!   session has been in a transaction for very long. The worker and [`Status`] warn from half full on, and
//!   [`Connection::diagnose`](crate::Connection::diagnose) says which session holds it.
//! - `PREPARE TRANSACTION` after a change (0A000). Building warns where `max_prepared_transactions` is above 0.
//!
//! [`DeliveryMode::Log`] has neither.
//!
//! # What is reported, and what is not
//!
//! - Payloads are JSON on the channel `notifyman`: the fields of [`Change`] and [`SchemaChange`]. `query` is `null`
//!   unless asked for. Values are as `to_json` makes them, and as the writing session's settings print them: of the
//!   settings `TimeZone`, `IntervalStyle`, `bytea_output`, `extra_float_digits` and, in arrays and ranges, `DateStyle`. To
//!   fix these in a trigger would cost as much as the rest of it.
//! - A partition's rows come under the name of the root of its tree, with the partition named, also after ATTACH and
//!   DETACH; a row that moves is a DELETE and an INSERT. `TRUNCATE` of a root is reported for each partition. In the keys
//!   shape a statement on the root is reported once, without a partition.
//! - In the keys shape what is written to a parent of plain inheritance is reported under the parent's name. Foreign
//!   tables, trees of tables that have one, and all tables in PostgreSQL 12 and in releases before 13.22, 14.19, 15.14,
//!   16.10 and 17.6 are reported by keys, but row by row: PostgreSQL refuses triggers with transition tables there, or to
//!   attach a table that has some. TRUNCATE of a foreign table, and changes at its remote server, are not reported.
//! - A table's key is its primary key, else its replica identity's index. Without one, the keys shape reports that the
//!   table changed.
//! - Without event triggers ([`Installer::schema_events`]) new tables are reported after the next build only. New and
//!   changed columns are reported immediately; another primary key, in the keys shape, after the next build.
//! - A table with a column of a type that belongs neither to the table's owner nor to a superuser is reported without rows
//!   ([`Truncated::Key`]): [`Status`] warns of it. Give the type to the table's owner.
//! - The keys shape keeps a statement's rows in temporary files, as any trigger with transition tables does: they count
//!   for `temp_file_limit`.
//! - Views, temporary tables and extensions' tables are not covered. Virtual generated columns have no value in a trigger,
//!   and are reported as `null`.
//! - Notifications are not kept for a worker that is away. A worker that reconnects reports a gap. A worker that is started
//!   again does not: treat its first `Connected` as one. A log keeps changes; a transaction that commits late is read late, and each
//!   row's changes in their order. Each change is reported by one of the workers that read it, at least once.

#![doc = ""]
#![doc = include_str!("log.md")]

mod change;
mod context;
mod coverage;
mod database;
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
mod spilled;
mod sql;
mod status;
mod stream;
mod table;
mod worker;
mod worker_loop;

pub use self::change::{Change, Method, SchemaChange, SchemaEvent, Truncated};
pub use self::installer::Installer;
pub use self::log::Position;
pub use self::options::{DeliveryMode, Oversize, Shape};
pub use self::report::{Progress, Report};
pub use self::status::Status;
pub use self::stream::{ChangeEvent, Changes, Stop};
pub use self::table::{Table, TableState};
pub use self::worker::Worker;
