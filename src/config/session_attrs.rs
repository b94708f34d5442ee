//! Which of several servers to take, and in which order to try them.

use std::fmt;

use super::policy::{by_name, name_of};

/// What a server must be for a connection to stay on it, as libpq's `target_session_attrs`.
///
/// Of several hosts, the first that fits is taken. LISTEN needs a server that isn't a standby: with all servers of a
/// cluster in the list, `Primary` finds the right one, also after a failover.
///
/// ```
/// use notifyman::{Config, TargetSessionAttrs};
///
/// let config = Config::without_env("postgres://db1,db2,db3/shop?target_session_attrs=primary")?;
/// assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::Primary);
/// # Ok::<(), notifyman::Error>(())
/// ```
///
/// From version 14 on a server tells unasked what it is; an older one is asked after the login, which costs a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TargetSessionAttrs {
    /// Whichever answers; the default, as in libpq.
    #[default]
    Any,
    /// Transactions may write by default: not a standby, and `default_transaction_read_only` is off.
    ReadWrite,
    /// Transactions may not write by default.
    ReadOnly,
    /// Not a standby.
    Primary,
    /// A standby, which refuses LISTEN.
    Standby,
    /// A standby where there is one, else whichever answers.
    PreferStandby,
}

impl TargetSessionAttrs {
    const NAMES: [(&'static str, TargetSessionAttrs); 6] = [
        ("any", TargetSessionAttrs::Any),
        ("read-write", TargetSessionAttrs::ReadWrite),
        ("read-only", TargetSessionAttrs::ReadOnly),
        ("primary", TargetSessionAttrs::Primary),
        ("standby", TargetSessionAttrs::Standby),
        ("prefer-standby", TargetSessionAttrs::PreferStandby),
    ];

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        by_name(&Self::NAMES, text, "target_session_attrs")
    }
}

/// As a connection string says it.
impl fmt::Display for TargetSessionAttrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

/// Whether hosts are tried in the order given, as libpq's `load_balance_hosts`.
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
    /// In the order given, and each name's addresses as the look-up has them; the default, as in libpq.
    #[default]
    Disable,
    /// Hosts, and each name's addresses, in an order drawn anew for each attempt.
    Random,
}

impl LoadBalanceHosts {
    const NAMES: [(&'static str, LoadBalanceHosts); 2] =
        [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        by_name(&Self::NAMES, text, "load_balance_hosts")
    }
}

/// As a connection string says it.
impl fmt::Display for LoadBalanceHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, *self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_libpqs_and_come_back_as_they_went_in() {
        for (name, _) in TargetSessionAttrs::NAMES {
            assert_eq!(TargetSessionAttrs::parse(name).unwrap().to_string(), name);
        }
        for (name, _) in LoadBalanceHosts::NAMES {
            assert_eq!(LoadBalanceHosts::parse(name).unwrap().to_string(), name);
        }
        assert!(TargetSessionAttrs::parse("master").unwrap_err().contains("primary"));
        assert!(LoadBalanceHosts::parse("on").unwrap_err().contains("random"));
    }
}
