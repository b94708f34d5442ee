//! The choice among several servers, and the order in which they are tried.

use super::names::named;

/// The state that a server must have, as in libpq's `target_session_attrs`.
///
/// The first of several hosts that satisfies it is used. LISTEN requires a server that is not a standby: if all servers
/// of a cluster are listed, `Primary` finds the right one, also after a failover.
///
/// ```
/// use notifyman::{Config, TargetSessionAttrs};
///
/// let config = Config::without_env(
///     "postgres://db1,db2,db3/shop?target_session_attrs=primary",
/// )?;
/// assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::Primary);
/// # Ok::<(), notifyman::Error>(())
/// ```
///
/// Servers report their state at login since version 14. For an older one, the client sends a query after the login,
/// which takes another round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TargetSessionAttrs {
    /// Any server. This is the default, as in libpq.
    #[default]
    Any,
    /// A server on which transactions may write by default: it is not a standby, and `default_transaction_read_only` is
    /// off.
    ReadWrite,
    /// A server on which transactions may not write by default.
    ReadOnly,
    /// A server that is not a standby.
    Primary,
    /// A standby, which rejects LISTEN.
    Standby,
    /// A standby if there is one, otherwise any server.
    PreferStandby,
}

named!(TargetSessionAttrs {
    Any: "any",
    ReadWrite: "read-write",
    ReadOnly: "read-only",
    Primary: "primary",
    Standby: "standby",
    PreferStandby: "prefer-standby",
});

/// The order in which hosts are tried, as in libpq's `load_balance_hosts`.
///
/// ```
/// use notifyman::{Config, LoadBalanceHosts};
///
/// let config = Config::without_env("host=db1,db2 load_balance_hosts=random")?;
/// assert_eq!(config.get_load_balance_hosts(), LoadBalanceHosts::Random);
/// # Ok::<(), notifyman::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LoadBalanceHosts {
    /// The given order, and for each name the order of the addresses from name resolution. This is the default, as in
    /// libpq.
    #[default]
    Disable,
    /// A new random order of hosts, and of the addresses of each name, for each attempt.
    Random,
}

named!(LoadBalanceHosts { Disable: "disable", Random: "random" });

#[cfg(test)]
mod tests {
    use super::super::names::Named;
    use super::*;

    #[test]
    fn names_are_the_same_as_in_libpq() {
        for (name, _) in TargetSessionAttrs::NAMES {
            assert_eq!(TargetSessionAttrs::by_name(name, "").unwrap().to_string(), *name);
        }
        for (name, _) in LoadBalanceHosts::NAMES {
            assert_eq!(LoadBalanceHosts::by_name(name, "").unwrap().to_string(), *name);
        }
        assert!(TargetSessionAttrs::by_name("master", "").unwrap_err().contains("primary"));
        assert!(LoadBalanceHosts::by_name("on", "").unwrap_err().contains("random"));
    }
}
