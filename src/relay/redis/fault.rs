//! Failures of calls to an engine: what failed, where, and what to do.

use std::fmt;
use std::io;
use std::time::Duration;

use redis::Value;

use super::address::{EngineAddress, EnginePlace};
use crate::error::{Error, Escaped, TlsError};

/// The longest part of an engine's error text that is shown, in characters.
const SHOWN_MAX: usize = 300;
/// The texts with which servers refuse a position; the second one only for 0-0.
const STALE: [&str; 2] = ["equal or smaller than the target stream top item", "must be greater than 0-0"];

/// The text before the reason for which a server refuses EXEC itself.
const ABORTED: &str = "Transaction discarded because of: ";

/// The action of a failure to connect.
pub(super) const CONNECTING: &str = "connecting";

/// The consequence of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The connection was lost, could not be opened, or is of no more use. A new one may work.
    Unreachable,
    /// The server refused a command, and may accept it later.
    Refused,
    /// The stream has an entry at this position or above it.
    Stale,
    /// The key of a stream has a value that is no stream.
    WrongType,
    /// There is no such key.
    NoKey,
    /// No attempt with these settings can succeed.
    Final,
}

/// A failed call to an engine. The text is one line without a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineFault {
    pub(crate) kind: FaultKind,
    text: Box<str>,
}

impl EngineFault {
    /// Creates a failure at an address.
    pub(super) fn new(kind: FaultKind, address: &EngineAddress, problem: impl fmt::Display) -> Self {
        Self { kind, text: format!("{address}: {}", Escaped(problem)).into() }
    }

    /// Joins the failures at all addresses of an engine. One that may pass is enough to try again.
    pub(super) fn join(faults: &[Self]) -> Self {
        let is_final = !faults.is_empty() && faults.iter().all(|fault| fault.kind == FaultKind::Final);
        let texts: Vec<&str> = faults.iter().map(|fault| &*fault.text).collect();
        let kind = if is_final { FaultKind::Final } else { FaultKind::Unreachable };
        Self { kind, text: texts.join("; ").into() }
    }

    /// Translates an error of the socket.
    pub(super) fn of_socket(address: &EngineAddress, action: &str, error: &io::Error, limit: Duration) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            let kind = if tls.is_transient() { FaultKind::Unreachable } else { FaultKind::Final };
            return Self::new(kind, address, format_args!("{action}: {tls}"));
        }
        // The first answer is that to HELLO.
        let is_connecting = action == CONNECTING || action.ends_with(" HELLO");
        let advice = match &address.place {
            EnginePlace::Tcp { tls: Some(_), .. } => {
                ": check the port, and that the server expects TLS there, else write redis://"
            }
            EnginePlace::Tcp { tls: None, .. } => {
                ": check the port, and that the server expects no TLS there, else write rediss://"
            }
            EnginePlace::Unix(_) => ": see its log if that persists",
        };
        let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        match error.kind() {
            _ if is_late => {
                let advice = if is_connecting { advice } else { "" };
                Self::new(FaultKind::Unreachable, address, format_args!("{action} took more than {limit:?}{advice}"))
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                let advice = if is_connecting { advice } else { ": see its log if that persists" };
                Self::new(
                    FaultKind::Unreachable,
                    address,
                    format_args!("{action}: the server closed the connection{advice}"),
                )
            }
            _ => Self::new(FaultKind::Unreachable, address, format_args!("{action}: {error}")),
        }
    }

    /// Translates an answer that the protocol does not allow.
    pub(super) fn of_protocol(address: &EngineAddress, command: &str) -> Self {
        let problem = format_args!(
            "the answer to {command} is not that of Redis or Valkey: check the host, the port, and any proxy"
        );
        Self::new(FaultKind::Unreachable, address, problem)
    }

    /// Translates an answer that is an error, with its code and its text; returns `None` for any other answer.
    pub(super) fn of_answer(address: &EngineAddress, command: &str, answer: &Value) -> Option<Self> {
        let Value::ServerError(error) = answer else { return None };
        let (mut code, mut detail) = (error.code(), error.details().unwrap_or_default());
        // An EXEC that is refused names its own reason behind this one.
        if let Some((inner, rest)) = detail.strip_prefix(ABORTED).and_then(|reason| reason.split_once(' ')) {
            (code, detail) = (inner, rest);
        }
        let (kind, remedy) = match code {
            "ERR" if STALE.iter().any(|text| detail.contains(text)) => (FaultKind::Stale, ""),
            "ERR" if detail == "no such key" => (FaultKind::NoKey, ""),
            "WRONGTYPE" => {
                (FaultKind::WrongType, ": the key has a value that is no stream; use another name, or delete the key")
            }
            "WRONGPASS" => (FaultKind::Final, ": check the user and the password in the URL"),
            "NOAUTH" => (FaultKind::Final, ": add a password to the URL, as in redis://USER:PASSWORD@HOST"),
            "NOPERM" => (
                FaultKind::Final,
                ": grant it to the user of the URL; the page `relay` of the documentation lists the privileges",
            ),
            "MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN" => {
                (FaultKind::Final, ": a cluster is not supported; use a single server, or one with replicas")
            }
            "NOPROTO" => (FaultKind::Final, ": use Redis 6 or later, or Valkey"),
            "ERR" if detail.starts_with("unknown command") => {
                (FaultKind::Final, ": use Redis 6 or later, or Valkey, with this command")
            }
            "ERR" if detail.starts_with("DB index") => (FaultKind::Final, ": check the database in the URL"),
            "OOM" => (FaultKind::Refused, ": raise the server's maxmemory, or keep fewer entries"),
            "READONLY" | "UNBLOCKED" => (FaultKind::Unreachable, ": the server has become a replica"),
            "LOADING" | "MASTERDOWN" => (FaultKind::Unreachable, ""),
            _ => (FaultKind::Refused, ""),
        };
        let detail: String = detail.chars().take(SHOWN_MAX).collect();
        Some(Self::new(kind, address, format_args!("{command}: {code} {detail}{remedy}")))
    }
}

impl fmt::Display for EngineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<EngineFault> for Error {
    fn from(fault: EngineFault) -> Self {
        Error::Relay(fault.text)
    }
}
