//! Checks that turn an answer or a setting into a finding, as pure functions.

use std::fmt::Write as _;
use std::time::Duration;

use super::finding::FindingKind::{
    DeliveryFailing, Encoding, IdleTimeout, Keepalive, ListenBug, ListenRefused, NoPermission, NotifyRefused,
    QueueFilling, SessionPooler, Standby, StatementTimeout, Unexamined,
};
use super::finding::{Finding, Severity};
use crate::error::{Error, ServerError};
use crate::net;
use crate::row::Row;

/// The longest acceptable time until a lost connection is detected.
const DETECTED_WITHIN: Duration = Duration::from_secs(300);
/// The shortest acceptable `statement_timeout`: a shorter one may fail under load.
const STATEMENT_MIN: Duration = Duration::from_secs(1);
/// The usage of the NOTIFY queue from which action is required. The server's own warnings begin here, too.
const QUEUE_WARNING: f64 = 0.5;
const QUEUE_FAILURE: f64 = 0.9;

/// The first minor release of each major version in which VACUUM keeps what unread notifications need ("Prevent
/// truncation of CLOG that is still needed by unread NOTIFY messages", 12 February 2026). Version 19 always had the
/// fix; versions up to 13 never received it.
///
/// <https://www.postgresql.org/docs/release/18.2/>
const LISTEN_FIXED: [(u32, u32); 5] = [(14, 21), (15, 16), (16, 12), (17, 8), (18, 2)];

/// The connection pooler between the client and the server.
pub(super) enum PoolerMode {
    /// No sign of a pooler.
    Nothing,
    /// A pooler in transaction mode, and the evidence for it.
    TransactionPooler(String),
    /// A pooler that gave a second connection a session of its own.
    Pooler,
    /// A pooler whose mode could not be determined without a second connection.
    UnknownPooler,
}

/// Checks for the server bug that makes LISTEN fail with 58P01.
pub(super) fn version(version: &str) -> Option<Finding> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let major = numbers.next()??;
    // "18beta1" and "18rc1" precede 18.0.
    let minor = if version.get(2..3) == Some(".") { numbers.next()?? } else { 0 };
    let fixed = LISTEN_FIXED.iter().find(|(of, _)| *of == major);
    let update = match fixed {
        Some((_, first)) if minor < *first => format!("Update to {major}.{first} or later, a minor release."),
        None if major < 14 => "Upgrade to a supported major version; versions up to 13 do not have the fix.".into(),
        _ => return None,
    };
    let what = "The server's version has a known bug: after a VACUUM has removed what unread notifications need, \
                LISTEN fails with 58P01, \"could not access status of transaction\".";
    let advice = format!(
        "{update} Until then, avoid long transactions in listening sessions. `listen` recovers if possible, with \
         `SELECT pg_notification_queue_usage()` and a second attempt."
    );
    Some(Finding::new(ListenBug, Severity::Warning, what, advice).because(format!("server_version {version}")))
}

/// Checks whether the system detects a lost connection.
pub(super) fn keepalive(link: net::Keepalive) -> Option<Finding> {
    let what = match link.detected_after {
        Some(after) if after <= DETECTED_WITHIN => return None,
        Some(after) => format!("A connection that is lost while idle is detected only after {}.", span(after)),
        None => "A connection that is lost while idle is never detected: TCP keepalives are disabled.".into(),
    };
    let advice = "Enable the manager's `heartbeat`, or set keepalives_idle=30, keepalives_interval=10 and \
                  keepalives_count=3. tcp_user_timeout alone has no effect for a listener, which sends nothing.";
    let severity = if link.is_local { Severity::Info } else { Severity::Warning };
    let place = if link.is_local {
        "the peer is on this machine, so this matters only if it is a tunnel, a proxy or a container's port"
    } else {
        "the settings of the socket, including the system's defaults"
    };
    Some(Finding::new(Keepalive, severity, what, advice).because(place))
}

/// Returns the finding about a pooler through which a notification was delivered; `alone` is the reason why there was
/// no second connection, if there was none.
pub(super) fn pooler_that_delivers(between: &PoolerMode, alone: Option<&Error>) -> Option<Finding> {
    match (between, alone) {
        (PoolerMode::Nothing | PoolerMode::TransactionPooler(_), _) => None,
        (PoolerMode::Pooler, None) => {
            let what = "The connection goes through a pooler in session mode, which delivers notifications.";
            let advice = "Each listening connection keeps one of the pool's sessions for itself: account for that in its \
                          size.";
            Some(Finding::new(SessionPooler, Severity::Info, what, advice))
        }
        (PoolerMode::Pooler | PoolerMode::UnknownPooler, error) => {
            let what = "The connection goes through a pooler, and it is unknown whether the session stays the same.";
            let advice = "Check that its mode is `session`: in transaction mode it delivers nothing to an idle \
                          session.";
            let finding = Finding::new(Unexamined, Severity::Warning, what, advice);
            Some(Finding { evidence: error.map(|error| format!("{error:#}")), ..finding })
        }
    }
}

/// Returns the finding that a notification arrived only together with a later answer.
pub(super) fn held_back(waited: Duration) -> Finding {
    let what = format!(
        "A notification did not arrive within {waited:?} while the session was idle, but together with the next answer."
    );
    let advice = "A proxy or a pooler holds notifications back (Pgpool-II 4.1 did): connect directly to the server, \
                  or update the proxy.";
    Finding::new(DeliveryFailing, Severity::Failure, what, advice)
}

pub(super) fn encoding(server_encoding: Option<&str>) -> Option<Finding> {
    let what = "The database is in SQL_ASCII: it stores any bytes, in an unknown encoding.";
    let advice = "Read payloads with `payload_bytes` or `payload_str`; `payload` replaces invalid UTF-8.";
    (server_encoding == Some("SQL_ASCII")).then(|| Finding::new(Encoding, Severity::Info, what, advice))
}

pub(super) fn standby() -> Finding {
    let what = "The server is a standby, which rejects LISTEN and NOTIFY.";
    let advice = "Connect to the primary: set all servers as hosts, and target_session_attrs=primary.";
    Finding::new(Standby, Severity::Failure, what, advice)
}

/// Checks the server's `idle_session_timeout`.
pub(super) fn idle_timeout(limit: Duration) -> Option<Finding> {
    let what = format!(
        "The server terminates this session after an idle time of {}; listeners are usually idle.",
        span(limit)
    );
    let advice = "ALTER ROLE .. SET idle_session_timeout = 0 for the role that listens.";
    (!limit.is_zero()).then(|| Finding::new(IdleTimeout, Severity::Warning, what, advice))
}

/// Checks the server's `statement_timeout`.
pub(super) fn statement_timeout(limit: Duration) -> Option<Finding> {
    let what = format!("The server cancels statements after {}, so LISTEN may fail under load.", span(limit));
    let advice = "ALTER ROLE .. SET statement_timeout = '5s' or more for the role that listens.";
    let short = !limit.is_zero() && limit < STATEMENT_MIN;
    short.then(|| Finding::new(StatementTimeout, Severity::Warning, what, advice))
}

/// Checks the usage of the NOTIFY queue, from 0 to 1, and names the process that holds it.
pub(super) fn queue(usage: f64, holder: Option<&QueueHolder>) -> Option<Finding> {
    let severity = match usage {
        usage if usage >= QUEUE_FAILURE => Severity::Failure,
        usage if usage >= QUEUE_WARNING => Severity::Warning,
        _ => return None,
    };
    let percent = usage * 100.0;
    let what = format!(
        "The NOTIFY queue is {percent:.0} % full; when it is full, every transaction with a NOTIFY fails at commit."
    );
    let advice = match holder.and_then(|holder| holder.pid) {
        Some(pid) => {
            format!(
                "End the transaction of process {pid}, let it read its socket, or SELECT pg_terminate_backend({pid})."
            )
        }
        None => "Find the listening session with the oldest transaction in pg_stat_activity, and end it.".into(),
    };
    let evidence = holder.map_or("no session in a transaction was found".into(), |holder| holder.text.clone());
    Some(Finding::new(QueueFilling, severity, what, advice).because(evidence))
}

/// The process that prevents the NOTIFY queue from being truncated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueueHolder {
    pub(super) pid: Option<i32>,
    pub(super) text: String,
}

/// The columns that [`QueueHolder::new`] reads.
pub(super) const HOLDER_COLUMNS: &str = "SELECT pid, state, xact_start, \
    pg_catalog.round(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - xact_start)), application_name, datname, \
    wait_event FROM pg_catalog.pg_stat_activity";

/// Selects the longest transaction of another session in the whole cluster, to which the queue belongs.
pub(super) const OLDEST: &str = "WHERE xact_start IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() AND \
    backend_type = 'client backend' ORDER BY xact_start LIMIT 1";

impl QueueHolder {
    /// Creates it from a row. `named` is `true` if the server itself named the process.
    pub(super) fn new(row: &Row, named: bool) -> Self {
        let said = if named { "named by a warning of the server" } else { "the oldest transaction" };
        let mut text = format!("process {}, {said}", row.get(0).unwrap_or_default());
        let seconds = row.get(3).and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds > 0);
        let lasting = seconds.map(|seconds| format!(" (for {})", span(Duration::from_secs(seconds))));
        let lasting = lasting.unwrap_or_default();
        let parts = [("state", 1, ""), ("since", 2, &*lasting), ("application", 4, ""), ("database", 5, "")];
        for (name, column, more) in parts {
            if let Some(value) = row.get(column) {
                let _ = write!(text, ", {name} {value:?}{more}");
            }
        }
        if row.get(6).as_deref() == Some("ClientWrite") {
            text.push_str(", which does not read its socket");
        }
        if row.get(1).is_none() {
            text.push_str("; this role needs pg_read_all_stats to see its activity");
        }
        Self { pid: row.get(0).and_then(|pid| pid.parse().ok()), text }
    }

    /// Returns `true` if the process is known to be in no transaction, so that it does not hold the queue.
    pub(super) fn is_over(row: &Row) -> bool {
        row.get(1).is_some() && row.get(2).is_none()
    }
}

/// Returns the process that a server's warning names: "NOTIFY queue is 53% full", "The server process with PID 4711 is
/// among those with the oldest transactions". Both texts may be translated.
pub(super) fn holder_named_by(notice: &ServerError) -> Option<i32> {
    let about_queue = notice.message().contains("NOTIFY") && notice.message().contains('%');
    let detail = notice.detail().filter(|_| about_queue)?;
    detail.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
}

/// Returns the finding for a LISTEN that failed.
pub(super) fn listen_refused(error: &Error) -> Finding {
    let (kind, what, advice) = match error.sqlstate() {
        Some("25006") => return standby().because(format!("{error:#}")),
        Some("58P01") => (
            ListenBug,
            "LISTEN fails, also at the second attempt: the server has removed what unread notifications need.",
            "End the listening sessions with the oldest transactions, so that the NOTIFY queue is truncated; update the \
             server.",
        ),
        Some("42501") => {
            (NoPermission, "This role may not LISTEN.", "Grant the privilege that the server's error names.")
        }
        Some("0A000" | "42601") => (
            ListenRefused,
            "The server does not support LISTEN.",
            "Some servers with PostgreSQL's protocol do not support LISTEN and NOTIFY: use a PostgreSQL server.",
        ),
        _ => (ListenRefused, "LISTEN fails.", "Check the error, and the server's log."),
    };
    Finding::new(kind, Severity::Failure, what, advice).because(format!("{error:#}"))
}

/// Returns the finding for a NOTIFY that failed.
pub(super) fn notify_refused(error: &Error) -> Finding {
    let (kind, severity, what, advice) = match error.sqlstate() {
        Some("42501") => (
            NoPermission,
            Severity::Warning,
            "This role may not call pg_notify: it can listen, but cannot send with this library.",
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO the role, if it must send.",
        ),
        Some("54000") => (
            QueueFilling,
            Severity::Failure,
            "The NOTIFY queue is full: every transaction with a NOTIFY fails at commit.",
            "End the listening sessions with the oldest transactions in pg_stat_activity.",
        ),
        _ => (NotifyRefused, Severity::Failure, "NOTIFY fails.", "Check the error, and the server's log."),
    };
    Finding::new(kind, severity, what, advice).because(format!("{error:#}"))
}

/// Formats a duration with its two largest units.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds % 60, "s")];
    let shown: Vec<String> = parts
        .into_iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if shown.is_empty() { format!("{:.1} ms", time.as_secs_f64() * 1000.0) } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m17_versions_without_the_fix_are_distinguished_from_those_with_it() {
        for bad in ["18.1", "18.0 (Debian 18.0-1)", "18beta1", "17.7", "16.11", "15.15", "14.20", "13.23", "9.6.24"] {
            assert_eq!(version(bad).map(|finding| finding.kind()), Some(ListenBug), "{bad}");
        }
        for good in ["19devel", "19.0", "18.2", "18.10", "17.8", "16.12", "15.16", "14.21 (Ubuntu)", "", "unknown"] {
            assert_eq!(version(good), None, "{good}");
        }
        assert!(version("17.6").unwrap().advice().contains("17.8"));
    }

    #[test]
    fn m17_a_lost_connection_must_be_detected_within_minutes() {
        let link = |detected_after, local| keepalive(net::Keepalive { detected_after, is_local: local });
        assert_eq!(link(Some(Duration::from_secs(60)), false), None);
        let late = link(Some(Duration::from_secs(7200 + 9 * 75)), false).unwrap();
        assert!(late.severity() == Severity::Warning && late.what().contains("2 h 11 min"), "{late}");
        assert!(link(None, false).unwrap().what().contains("never"));
        assert_eq!(link(None, true).unwrap().severity(), Severity::Info);
    }

    #[test]
    fn m17_a_queue_is_reported_from_half_full_on() {
        let severity = |usage| queue(usage, None).map(|finding| finding.severity());
        assert_eq!(severity(0.499), None);
        assert_eq!(severity(0.5), Some(Severity::Warning));
        assert_eq!(severity(0.9), Some(Severity::Failure));
        assert_eq!(severity(f64::NAN), None);
    }

    #[test]
    fn m17_the_process_is_read_from_the_servers_warning() {
        let warning = |message: &str, detail: &str| ServerError {
            message: message.into(),
            detail: Some(detail.into()),
            ..ServerError::default()
        };
        let detail = "The server process with PID 4711 is among those with the oldest transactions.";
        assert_eq!(holder_named_by(&warning("NOTIFY queue is 53% full", detail)), Some(4711));
        assert_eq!(holder_named_by(&warning("NOTIFY-Schlange ist 53% voll", "PID 4711")), Some(4711));
        assert_eq!(holder_named_by(&warning("something else", detail)), None);
        assert_eq!(holder_named_by(&warning("NOTIFY queue is 53% full", "")), None);
    }

    #[test]
    fn a_span_has_two_units_at_most() {
        for (seconds, text) in [(0, "0.0 ms"), (59, "59 s"), (7200, "2 h"), (7875, "2 h 11 min"), (86_401, "1 d")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(span(Duration::from_micros(1_250)), "1.2 ms");
    }
}
