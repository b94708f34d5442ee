//! A database for one test, in a server that tests share, and the notifications from it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use notifyman::Connection;
use notifyman::changes::{Installer, Report, Status};
use serde_json::Value;

use crate::support::server::{connect, everything, major, start, utf8};
use crate::support::tools::not_run;
use crate::support::{Cluster, Options};

/// A database, a session that writes to it, and a session that listens.
pub(super) struct Site {
    pub(super) url: String,
    pub(super) db: Connection,
    listener: Connection,
}

/// Creates a database in the shared server.
pub(super) fn site() -> Site {
    site_in(utf8())
}

/// Starts a server with a small NOTIFY queue, which needs PostgreSQL 17. Earlier versions have 8 GB, which is too much for a
/// test: then the test is reported as not run.
pub(super) fn start_with_a_small_queue() -> Option<Cluster> {
    let server = start(Options::new());
    let major = major(&connect(&server.url()));
    if major < 17 {
        not_run(&format!("the NOTIFY queue of PostgreSQL {major} cannot be made small; that of 17 can"));
        return None;
    }
    Some(start(Options::new().setting("max_notify_queue_pages", "64")))
}

/// Creates a database in this server.
pub(super) fn site_in(server: &Cluster) -> Site {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("changes_{}", COUNT.fetch_add(1, Relaxed));
    connect(&server.url()).execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).unwrap();
    Site::at(server.url().strip_suffix("postgres").unwrap().to_owned() + &name)
}

impl Site {
    pub(super) fn at(url: String) -> Self {
        let mut listener = connect(&url);
        listener.listen(["notifyman"]).unwrap();
        Self { db: connect(&url), listener, url }
    }

    /// Builds. Every table must be done.
    #[track_caller]
    pub(super) fn build(&mut self, installer: &Installer) -> Report {
        let report = installer.build(&mut self.db).unwrap();
        assert!(report.failed().is_empty(), "{report:?}");
        report
    }

    /// Executes statements.
    #[track_caller]
    pub(super) fn run(&mut self, sql: &str) {
        self.db.execute(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Returns the only column of the only row.
    #[track_caller]
    pub(super) fn ask(&mut self, sql: &str) -> String {
        crate::support::server::ask(&mut self.db, sql)
    }

    /// Stops listening, so that writers do not wait for a listener.
    pub(super) fn stop_listening(&mut self) {
        self.listener.unlisten_all().unwrap();
    }

    /// Returns the payloads that were notified since the last call.
    pub(super) fn received(&mut self) -> Vec<Value> {
        everything(&mut self.listener).iter().map(|(_, payload)| parsed(payload)).collect()
    }

    /// Returns the payloads that a statement causes.
    #[track_caller]
    pub(super) fn reports(&mut self, sql: &str) -> Vec<Value> {
        self.received();
        self.run(sql);
        self.received()
    }

    /// Returns the payloads that a statement causes, each as text: method, table, old and new data, or keys.
    #[track_caller]
    pub(super) fn report_lines(&mut self, sql: &str) -> Vec<String> {
        self.reports(sql).iter().map(short).collect()
    }

    /// Returns `true` if the keys shape reports a statement once. In PostgreSQL 12 it reports row by row.
    pub(super) fn reports_statements(&self) -> bool {
        major(&self.db) > 12
    }

    /// Like [`report_lines`](Self::report_lines), with the keys of one method and table together, in order.
    #[track_caller]
    pub(super) fn report_keys(&mut self, sql: &str) -> Vec<String> {
        let reports = self.reports(sql);
        let mut together: Vec<Value> = Vec::new();
        for mut payload in reports {
            let same = |it: &&mut Value| {
                ["method", "table_name", "partition_name"].iter().all(|key| it.get(*key) == payload.get(*key))
            };
            match together.iter_mut().find(same) {
                Some(other) => {
                    assert!(!self.reports_statements(), "a statement is reported once: {payload}");
                    other["keys"].as_array_mut().unwrap().append(payload["keys"].as_array_mut().unwrap());
                }
                None => together.push(payload),
            }
        }
        for payload in &mut together {
            if let Some(keys) = payload["keys"].as_array_mut() {
                keys.sort_by_key(Value::to_string);
            }
        }
        together.iter().map(short).collect()
    }

    /// Returns the problems of the installation.
    pub(super) fn problems(&mut self) -> Vec<String> {
        Status::of(&mut self.db).unwrap().problems().to_vec()
    }

    /// Opens another session.
    pub(super) fn session(&self) -> Connection {
        connect(&self.url)
    }
}

pub(super) fn parsed(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or_else(|error| panic!("{error}: {payload}"))
}

/// Returns a payload in few words.
pub(super) fn short(payload: &Value) -> String {
    let text = |key: &str| payload[key].as_str().unwrap_or_default().to_owned();
    let mut words = match payload.get("event") {
        Some(_) => vec![text("event"), text("command_tag"), text("object_identity")],
        None => vec![text("method"), text("table_name")],
    };
    for key in ["partition_name", "truncated"] {
        words.extend(payload.get(key).map(|value| format!("{key}={}", value.as_str().unwrap())));
    }
    for key in ["old_data", "new_data", "keys"] {
        words.extend(payload.get(key).filter(|value| !value.is_null()).map(Value::to_string));
    }
    words.join(" ")
}

/// Returns a client program of PostgreSQL. If it is missing, the test is reported as not run.
pub(super) fn client_program(name: &str) -> Option<std::path::PathBuf> {
    let bin = crate::support::cluster::find_server().unwrap();
    let found = bin.join(name);
    if found.exists() {
        return Some(found);
    }
    not_run(&format!("this server comes without {name}"));
    None
}

/// Returns `true` if foreign tables can be written, and else reports that they cannot.
pub(super) fn has_foreign_tables(site: &mut Site) -> bool {
    let has = site.db.execute("CREATE EXTENSION postgres_fdw").is_ok();
    if !has {
        not_run("the server cannot load postgres_fdw, so no foreign table is written");
    }
    has
}

/// Drops a database of the shared server, once no session is connected to it.
pub(super) fn drop_database(name: &str) {
    let mut db = connect(&utf8().url());
    crate::support::server::eventually("no session is connected to it", || {
        db.execute(&format!("DROP DATABASE {name}")).is_ok()
    });
}
