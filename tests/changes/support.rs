//! A database of a test's own, in a server that tests share, and what is heard of it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use notifyman::Connection;
use notifyman::changes::{Installer, Report, Status};
use serde_json::Value;

use crate::support::server::{connect, everything, major, start, utf8};
use crate::support::tools::not_run;
use crate::support::{Cluster, Options};

/// A database, a session that writes in it, and one that listens.
pub(super) struct Site {
    pub(super) url: String,
    pub(super) db: Connection,
    ears: Connection,
}

/// A database in the shared server.
pub(super) fn site() -> Site {
    site_in(utf8())
}

/// A server whose NOTIFY queue is soon full: from 17 on that can be had. Before, it has 8 GB, more than a test should
/// write; that is said, and there is none.
pub(super) fn start_with_a_small_queue() -> Option<Cluster> {
    let server = start(Options::new());
    let major = major(&connect(&server.url()));
    if major < 17 {
        not_run(&format!("the NOTIFY queue of PostgreSQL {major} cannot be made small; that of 17 can"));
        return None;
    }
    Some(start(Options::new().setting("max_notify_queue_pages", "64")))
}

/// A new database in this server.
pub(super) fn site_in(server: &Cluster) -> Site {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("changes_{}", COUNT.fetch_add(1, Relaxed));
    connect(&server.url()).execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).unwrap();
    Site::at(server.url().strip_suffix("postgres").unwrap().to_owned() + &name)
}

impl Site {
    pub(super) fn at(url: String) -> Self {
        let mut ears = connect(&url);
        ears.listen(["notifyman"]).unwrap();
        Self { db: connect(&url), ears, url }
    }

    /// Builds; everything must be done.
    #[track_caller]
    pub(super) fn build(&mut self, installer: &Installer) -> Report {
        let report = installer.build(&mut self.db).unwrap();
        assert!(report.failed().is_empty(), "{report:?}");
        report
    }

    /// Runs it.
    #[track_caller]
    pub(super) fn run(&mut self, sql: &str) {
        self.db.execute(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The text of the only column of the only row.
    #[track_caller]
    pub(super) fn ask(&mut self, sql: &str) -> String {
        crate::support::server::ask(&mut self.db, sql)
    }

    /// Listens no more, so that nobody is kept waiting.
    pub(super) fn deafen(&mut self) {
        self.ears.unlisten_all().unwrap();
    }

    /// What was notified since the last time.
    pub(super) fn heard(&mut self) -> Vec<Value> {
        everything(&mut self.ears).iter().map(|(_, payload)| parsed(payload)).collect()
    }

    /// What a statement brings.
    #[track_caller]
    pub(super) fn tells(&mut self, sql: &str) -> Vec<Value> {
        self.heard();
        self.run(sql);
        self.heard()
    }

    /// The same, each as text: method, table, old and new data, or keys.
    #[track_caller]
    pub(super) fn says(&mut self, sql: &str) -> Vec<String> {
        self.tells(sql).iter().map(short).collect()
    }

    /// Whether the keys shape tells a statement at once; PostgreSQL 12 can't.
    pub(super) fn by_statement(&self) -> bool {
        major(&self.db) > 12
    }

    /// The same, with the keys of one method and table together, sorted.
    #[track_caller]
    pub(super) fn says_keys(&mut self, sql: &str) -> Vec<String> {
        let told = self.tells(sql);
        let mut together: Vec<Value> = Vec::new();
        for mut payload in told {
            let same = |it: &&mut Value| {
                ["method", "table_name", "partition_name"].iter().all(|key| it.get(*key) == payload.get(*key))
            };
            match together.iter_mut().find(same) {
                Some(other) => {
                    assert!(!self.by_statement(), "a statement is told once: {payload}");
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

    /// What isn't as it should be.
    pub(super) fn problems(&mut self) -> Vec<String> {
        Status::of(&mut self.db).unwrap().problems().to_vec()
    }

    /// Another session.
    pub(super) fn session(&self) -> Connection {
        connect(&self.url)
    }
}

pub(super) fn parsed(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or_else(|error| panic!("{error}: {payload}"))
}

/// A payload in few words.
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

/// A client program of PostgreSQL; where it isn't there, that is said.
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

/// Removes a database of the shared server, to which nobody is connected any more.
pub(super) fn drop_database(name: &str) {
    let mut db = connect(&utf8().url());
    crate::support::server::eventually("nobody is connected to it", || {
        db.execute(&format!("DROP DATABASE {name}")).is_ok()
    });
}
