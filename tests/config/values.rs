//! Each value that a program or a user writes is parsed as it is displayed.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use notifyman::notifier::Policy;
use notifyman::{Check, Severity, SslMode, UnknownName};
use proptest::prelude::*;

fn is_parsed_as_displayed<T>(values: &[T], names: &str)
where
    T: Copy + Debug + Display + PartialEq + FromStr<Err = UnknownName>,
{
    let displayed: Vec<_> = values.iter().map(ToString::to_string).collect();
    assert_eq!(displayed.join(", "), names);
    for (value, name) in values.iter().zip(&displayed) {
        assert_eq!(name.parse(), Ok(*value));
        assert!(name.to_uppercase().parse::<T>().is_err() && format!("{name} ").parse::<T>().is_err());
    }
    let error = "".parse::<T>().unwrap_err().to_string();
    assert!(displayed.iter().all(|name| error.contains(name)), "{error}");
}

#[test]
fn names_are_parsed_as_they_are_displayed() {
    use Policy::{Coalesce, Disconnect, DropNewest, DropOldest};
    is_parsed_as_displayed(
        &[DropOldest, DropNewest, Coalesce, Disconnect],
        "drop-oldest, drop-newest, coalesce, disconnect",
    );
    is_parsed_as_displayed(&[Check::Canary, Check::Audit], "canary, audit");
    is_parsed_as_displayed(&[Severity::Ok, Severity::Failure], "ok, failure");
}

#[cfg(feature = "changes")]
#[test]
fn states_of_tables_are_parsed_as_they_are_displayed() {
    use notifyman::changes::TableState::{Different, Disabled, Generic, LeftOver, Missing, Outdated, Right};
    is_parsed_as_displayed(
        &[Right, Generic, Disabled, Missing, Outdated, Different, LeftOver],
        "right, generic, disabled, missing, outdated, different, left over",
    );
}

proptest! {
    #[test]
    fn what_is_parsed_is_displayed_alike(name in "[a-z -]{0,14}|drop-(oldest|newest)|coalesce|left over|canary|prefer") {
        fn check<T: FromStr + Display>(name: &str) -> bool {
            name.parse::<T>().map_or(true, |value| value.to_string() == name)
        }
        prop_assert!(check::<Policy>(&name) && check::<Check>(&name) && check::<SslMode>(&name));
        #[cfg(feature = "changes")]
        prop_assert!(check::<notifyman::changes::TableState>(&name));
    }
}
