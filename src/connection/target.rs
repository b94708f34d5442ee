//! The check that a server has the role that `target_session_attrs` demands.
//!
//! A server of version 14 or later reports `in_hot_standby` and `default_transaction_read_only` with the login; an older
//! one must be queried (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS>).

use crate::config::TargetSessionAttrs;
use crate::config::TargetSessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
use crate::connection::link::Link;
use crate::net::Transport;
use crate::proto::Reply;

/// The result of the check after the login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fits,
    /// The result depends on the answer to this query, whose only value is a boolean.
    Ask(&'static str),
    /// The role of the server is another one.
    Unfit(&'static str),
}

impl Verdict {
    /// Decides by the parameters that the server has reported.
    pub(super) fn of<S: Transport>(link: &Link<S>, wanted: TargetSessionAttrs) -> Self {
        let reported = |name| link.parameter(name).map(is_true);
        judge(wanted, reported("in_hot_standby"), reported("default_transaction_read_only"))
    }

    /// Decides by the answer to the query.
    pub(super) fn of_answer(reply: &Reply, wanted: TargetSessionAttrs) -> Self {
        let answer = reply.rows.first().and_then(|row| row.get(0));
        decide(wanted, answer.is_some_and(|answer| is_true(&answer)))
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "on" | "t")
}

fn judge(wanted: TargetSessionAttrs, standby: Option<bool>, read_only: Option<bool>) -> Verdict {
    match (wanted, standby, read_only) {
        (Any, ..) => Verdict::Fits,
        (ReadWrite | ReadOnly, Some(standby), Some(read_only)) => decide(wanted, standby || read_only),
        (ReadWrite | ReadOnly, ..) => Verdict::Ask("SHOW transaction_read_only"),
        (Primary | Standby | PreferStandby, Some(standby), _) => decide(wanted, standby),
        (Primary | Standby | PreferStandby, None, _) => Verdict::Ask("SELECT pg_catalog.pg_is_in_recovery()"),
    }
}

/// Decides by one property of the server: `is` is `true` if the server is read-only, or a standby, as `wanted` requires.
fn decide(wanted: TargetSessionAttrs, is: bool) -> Verdict {
    match (wanted, is) {
        (ReadWrite, true) => Verdict::Unfit("the session is read-only"),
        (ReadOnly, false) => Verdict::Unfit("the session may write"),
        (Primary, true) => Verdict::Unfit("the server is a standby"),
        (Standby | PreferStandby, false) => Verdict::Unfit("the server is no standby"),
        _ => Verdict::Fits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the verdicts on a primary, a primary that is read-only by default, and a standby.
    fn fits(wanted: TargetSessionAttrs) -> [bool; 3] {
        [(false, false), (false, true), (true, false)]
            .map(|(standby, read_only)| judge(wanted, Some(standby), Some(read_only)) == Verdict::Fits)
    }

    #[test]
    fn reported_parameters_decide() {
        assert_eq!(fits(Any), [true, true, true]);
        assert_eq!(fits(ReadWrite), [true, false, false]);
        assert_eq!(fits(ReadOnly), [false, true, true]);
        assert_eq!(fits(Primary), [true, true, false]);
        assert_eq!(fits(Standby), [false, false, true]);
        assert_eq!(fits(PreferStandby), [false, false, true]);
    }

    #[test]
    fn servers_that_report_no_parameters_are_queried() {
        let asked = |wanted| match judge(wanted, None, None) {
            Verdict::Ask(sql) => sql,
            _ => "",
        };
        assert_eq!(asked(Any), "");
        assert_eq!(asked(ReadWrite), "SHOW transaction_read_only");
        assert_eq!(asked(ReadOnly), "SHOW transaction_read_only");
        for wanted in [Primary, Standby, PreferStandby] {
            assert!(asked(wanted).contains("pg_is_in_recovery"));
        }
        assert!(
            matches!(judge(ReadWrite, Some(true), None), Verdict::Ask(_)),
            "both parameters are needed, as in libpq"
        );
    }
}
