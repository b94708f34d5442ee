//! Changes to tables, told as they are committed: triggers that tell of them, and a stream that hears them.
//!
//! ```text
//!   INSERT, UPDATE, DELETE, TRUNCATE ──> trigger ───────┐      ┌──> NOTIFY ───────────────────┐
//!                                                       ├──────┤         or                    ├──> Changes
//!   CREATE, ALTER, DROP TABLE ──> event trigger ────────┘      └──> notifyman.outbox, polled ──┘
//!   put there by Installer, looked after by Status                  followed by Worker
//! ```
//!
//! An [`Installer`] puts the triggers into a database, once. A [`Worker`] then hears of each change to a row
//! ([`Change`]) and to a table's definition ([`SchemaChange`]), in as many databases as there are. On the command line
//! these are `notifyman build` and `notifyman worker`.
//!
//! # For whoever looks after the database
//!
//! **What is installed.** A schema `notifyman`, to which nobody else has rights, with one row that says what was asked
//! for (`installation`), a sequence that numbers the changes (`number`), two tables that stay empty unless they are
//! asked for (`spilled`, `outbox`), the functions that do the installing, and for each table one trigger function of
//! some fifty lines, which is made from its columns. On each table: in the rows shape the triggers `0_notifyman` and
//! `0_notifyman_truncate`, in the keys shape one for each of INSERT, UPDATE, DELETE and TRUNCATE. In the database: the
//! event triggers `notifyman_ddl` and `notifyman_drop`, unless they weren't wanted. `notifyman build --dry-run` shows
//! all of it as SQL that `psql` runs.
//!
//! **What it locks.** Each table gets its triggers in a short transaction of its own, which needs SHARE ROW EXCLUSIVE:
//! it waits for those who write the table, for a second at most ([`Installer::lock_timeout`]), and writers wait behind
//! it for as long. What couldn't be had is tried again after the others, then reported, and building again finishes it.
//! A table that is right is recognised by the catalogs alone; other options mostly change functions only, which locks
//! no table.
//!
//! A statement that changes a partitioned table's definition, ATTACH and DETACH included, looks at each of its
//! partitions: a millisecond or two for each, under the lock that the statement has.
//!
//! **What else may stumble over it.** A role that dumps the whole database without the right to read everything, such
//! as its owner, has no right to the schema: give `pg_dump` the option `-N notifyman`, or the role `USAGE` on the schema
//! and `SELECT` on what is in it.
//!
//! **What it costs.** Measured by `cargo bench --bench changes` with PostgreSQL 15 on two cores without fsync, one session
//! listening, and the clients on the same two. A commit is cheap there, so this shows a trigger at its dearest: take the
//! ratios, and measure your own.
//!
#![doc = include_str!("costs.md")]
//!
//! What follows, with what a NOTIFY costs anyway: before PostgreSQL 19 each listening *session* slows every NOTIFY of
//! its database down, and every transaction with a NOTIFY takes a lock on the whole cluster as it commits.
//!
//! - For cache invalidation take the **keys** shape: it tells what to forget, in one notification where a statement
//!   wrote hundreds of rows.
//! - Write many rows with one statement, and many statements in one transaction: in the keys shape a row then costs a
//!   fraction of what it costs in the rows shape, and the commit's lock is taken once.
//! - Have **one worker** for a database, and many processes hang off it. A hundred listeners are a hundred times the
//!   cost, to every writer.
//! - With many small writing transactions at a time take **delivery by table**: it takes no commit lock.
//! - In PostgreSQL 12 a transaction that sends very many notifications compares each with all before it: the rows shape
//!   is not for bulk loads there.
//!
//! - A transaction's notifications wait in its session's memory until it commits, and then in the server's queue: for
//!   bulk loads of millions of rows take the keys shape, or delivery by table.
//!
//! **Who may listen.** Whoever may connect: LISTEN knows no rights, so what is told of a row is told to every role of
//! the database. The keys shape tells the least. To read `spilled` and `outbox` a worker's role needs rights, which
//! stay over later builds: `GRANT USAGE ON SCHEMA notifyman`, `GRANT SELECT ON notifyman.installation`, and `GRANT
//! SELECT, DELETE ON notifyman.outbox, notifyman.spilled`.
//!
//! **The way out.** `notifyman teardown`, or [`Installer::teardown`]: each table's triggers in a short transaction,
//! then the schema. `DROP SCHEMA notifyman CASCADE` does as much in one transaction, which locks all tables at once.
//!
//! # It never fails a write
//!
//! Whatever becomes of a row, it is written: what is too long is told by its key, and what can't be told at all as a mark
//! that something changed ([`Truncated`]). Long values aren't even read: those that are kept apart (TOAST) are known by
//! their size there, and a row of more than 16 KiB is told by its key. Where long rows are told, up to 15 MiB, that is
//! exact for texts; the stored bytes of other types count eightfold, since compression may have made them small. What
//! can fail, such as a column that somebody dropped with the event triggers off, is in a block that catches it. With
//! delivery by NOTIFY and no spilling, nothing in a trigger depends on the schema's tables; with an outbox or spilling
//! it writes to them, so leave these two tables as they are. Trigger functions run with the rights of whoever installed
//! them, under a fixed `search_path`, so that any role may write; and they call nothing that a user could have made, not
//! even casts of their types, so that nobody gets those rights. An event trigger that can't do its work is a warning.
//!
//! **Two things fail at the commit**, where no trigger can catch them, and only with delivery by NOTIFY:
//!
//! - A full NOTIFY queue (SQLSTATE 54000: 8 GB, unless `max_notify_queue_pages` says otherwise), because some listening
//!   session has been in a transaction for very long. The worker and [`Status`] warn from half full on, and
//!   [`Connection::diagnose`](crate::Connection::diagnose) says who holds it.
//! - `PREPARE TRANSACTION` after a change (0A000). Building warns where `max_prepared_transactions` is above 0.
//!
//! [`Delivery::Table`] has neither.
//!
//! # What is told, and what isn't
//!
//! - Payloads are JSON on the channel `notifyman`: the fields of [`Change`] and [`SchemaChange`]. `query` is `null`
//!   unless asked for. Values are as the writing session's settings print them (`TimeZone`, `IntervalStyle`,
//!   `bytea_output`).
//! - A partition's rows come under the name of the root of its tree, with the partition named, also after ATTACH and
//!   DETACH; a row that moves is a DELETE and an INSERT. `TRUNCATE` of a root is told of each partition. In the keys
//!   shape a statement on the root is told once, without a partition.
//! - In the keys shape what is written to a parent of plain inheritance is told under the parent's name. Foreign
//!   tables, and in PostgreSQL 12 all tables, are told by keys, but row by row: the ones can't have triggers with
//!   transition tables, and with them the other can't be attached to anything.
//! - A table's key is its primary key, else its replica identity's index. Without one, the keys shape tells that the
//!   table changed.
//! - Views, temporary tables and extensions' tables aren't covered. Rows that replication applies are told only where
//!   that was asked for ([`Installer::replicated`]).
//! - Virtual generated columns aren't told: they have no value in a trigger.
//! - Notifications aren't kept for whoever is away: then there is a gap, which is told. An outbox keeps, in the order
//!   of the writes; each change is told by one of the workers that read it, at least once.

mod database;
mod event;
mod filter;
mod functions;
mod glob;
mod installed;
mod installer;
mod mailbox;
mod options;
mod outbox;
mod payload;
mod queue;
mod report;
mod runner;
mod server;
mod shape;
mod sql;
mod status;
mod step;
mod stream;
mod worker;
mod worker_loop;

pub use self::event::{Change, Method, SchemaChange, SchemaEvent, Truncated};
pub use self::installer::Installer;
pub use self::options::{Delivery, Oversize, Shape};
pub use self::report::{Progress, Report};
pub use self::status::{Status, Table};
pub use self::stream::{ChangeEvent, Changes, Stop};
pub use self::worker::Worker;
