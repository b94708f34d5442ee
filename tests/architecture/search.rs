//! The names of the predecessors, which the search of the documentation must find.

use super::source::crate_files;

/// Public names of py-postgresql, pgnotifier and pg_events, and of the clients on the page `migrating`.
const NAMES: &[&str] = &[
    // py-postgresql
    "listen",
    "unlisten",
    "listening_channels",
    "notify",
    "wait",
    "backend_id",
    "closed",
    "NotificationManager",
    "settimeout",
    "gettimeout",
    "connections",
    "garbage",
    "append",
    "discard",
    "notifies",
    // pgnotifier
    "pgnotifier",
    "Notifier",
    "add_channels",
    "add_channel",
    "remove_channels",
    "remove_channel",
    "get_channels",
    "get_subscriptions",
    "subscribe",
    "unsubscribe",
    "mute_channels",
    "unmute_channels",
    "mute_subscriber",
    "unmute_subscriber",
    "get_muted_channels",
    "get_muted_subscribers",
    "start",
    "stop",
    "restart",
    "run",
    "is_running",
    "autorun",
    "literal_eval",
    // pg_events
    "pg_events",
    "build",
    "worker",
    "PG_EVENTS_DATABASE_URL",
    "PG_EVENTS_DATA_UPDATE_CALLBACK",
    "PG_EVENTS_DB_SCHEMA_UPDATE_CALLBACK",
    "table_schema",
    "table_name",
    "session_user",
    "method",
    "old_data",
    "new_data",
    "query",
    "command_tag",
    "object_type",
    "object_identity",
    "schema_name",
    "in_extension",
    // sqlx, tokio-postgres, lib/pq, psycopg
    "PgListener",
    "listen_all",
    "recv",
    "try_recv",
    "process_id",
    "poll_message",
    "NewListener",
    "UnlistenAll",
    "ping",
    "be_pid",
    "extra",
    "ListenerEventDisconnected",
    "ListenerEventReconnected",
    "add_notify_handler",
];

#[test]
fn every_name_of_a_predecessor_is_found() {
    let mut found = String::new();
    for line in crate_files().iter().flat_map(|file| file.code.iter()).map(|line| line.trim()) {
        if line.starts_with("#[doc(alias") || line.starts_with("pub ") {
            found.extend([line, "\n"]);
        }
    }
    let found = found.to_lowercase();
    let is_found = |name: &str| {
        let name = name.to_lowercase();
        let of = [format!("\"{name}\""), format!("fn {name}("), format!("fn {name}<"), format!("pub {name}:")];
        let types = [format!("struct {name}"), format!("enum {name}"), format!("mod {name}")];
        of.iter().chain(&types).any(|form| found.contains(form.as_str()))
    };
    let missing: Vec<_> = NAMES.iter().filter(|name| !is_found(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
