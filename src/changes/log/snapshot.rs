//! Snapshots of PostgreSQL, as returned by `txid_current_snapshot()`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The transactions that are visible at one time: all before `xmax` that are not running.
///
/// Transactions from `xmax` on may have begun as well: `xmax` follows the last transaction that had ended. A snapshot is
/// therefore no complete list of running transactions.
///
/// The text form is `xmin:xmax:running`, such as `10:20:10,14`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Snapshot {
    /// The first transaction after all that had ended.
    pub(super) xmax: u64,
    /// The transactions before `xmax` that had not ended, in ascending order.
    pub(super) running: Arc<[u64]>,
}

impl Snapshot {
    /// Returns the snapshot that sees no transaction.
    pub(crate) fn empty() -> Self {
        Self { xmax: 1, running: Arc::default() }
    }

    /// Returns `true` if the transaction had ended. A transaction that was rolled back has no visible rows.
    pub(crate) fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && !self.is_running(xid)
    }

    pub(crate) fn is_running(&self, xid: u64) -> bool {
        self.running.binary_search(&xid).is_ok()
    }

    /// Returns `true` if this snapshot sees every transaction that `other` sees.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        // Transactions from this `xmax` on that `other` does not see either.
        let unseen = other.running.iter().filter(|xid| **xid >= self.xmax).count() as u64;
        other.xmax.saturating_sub(self.xmax) <= unseen
            && self.running.iter().take_while(|xid| **xid < other.xmax).all(|xid| other.is_running(*xid))
    }

    /// Returns the snapshot that sees every transaction that this one or `other` sees.
    pub(crate) fn with_seen(&self, other: &Self) -> Self {
        let mut running: Vec<_> = self.running.iter().chain(&*other.running).copied().collect();
        running.retain(|xid| !self.sees(*xid) && !other.sees(*xid));
        running.sort_unstable();
        running.dedup();
        Self { xmax: self.xmax.max(other.xmax), running: running.into() }
    }

    /// Returns `true` if all transactions before `bound` had ended.
    pub(crate) fn sees_all_before(&self, bound: u64) -> bool {
        bound <= self.xmax && self.running.first().is_none_or(|first| *first >= bound)
    }

    /// Returns `true` if a transaction before `bound` had ended that had not ended in an earlier snapshot.
    pub(crate) fn sees_more_before(&self, bound: u64, earlier: &Self) -> bool {
        let end = bound.min(self.xmax);
        let later = end.saturating_sub(earlier.xmax);
        let unseen = self.running.iter().filter(|xid| (earlier.xmax..end).contains(xid)).count() as u64;
        unseen < later || self.ended_since(earlier).any(|xid| xid < bound)
    }

    /// Returns the transactions that were running in an earlier snapshot, and have ended in this one.
    pub(crate) fn ended_since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = u64> + 'a {
        earlier.running.iter().copied().filter(|xid| self.sees(*xid))
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.running.first().unwrap_or(&self.xmax), self.xmax)?;
        for (index, xid) in self.running.iter().enumerate() {
            write!(f, "{}{xid}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Snapshot {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // PostgreSQL's transaction ids have 63 bits.
        let number = |text: &str| text.parse().ok().filter(|number| (1..=i64::MAX as u64).contains(number)).ok_or(());
        let [xmin, xmax, running] = text.split(':').collect::<Vec<_>>()[..] else { return Err(()) };
        let (xmin, xmax): (u64, u64) = (number(xmin)?, number(xmax)?);
        let running: Arc<[u64]> = match running {
            "" => Arc::default(),
            list => list.split(',').map(number).collect::<Result<_, _>>()?,
        };
        let is_ascending = running.windows(2).all(|pair| pair[0] < pair[1]);
        let is_within =
            running.first().is_none_or(|first| xmin <= *first) && running.last().is_none_or(|last| *last < xmax);
        (xmin <= xmax && is_ascending && is_within).then_some(Self { xmax, running }).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    impl Snapshot {
        pub(crate) fn new(xmax: u64, running: impl IntoIterator<Item = u64>) -> Self {
            Self { xmax, running: running.into_iter().collect() }
        }
    }

    fn any_snapshot() -> impl Strategy<Value = Snapshot> {
        (1_u64..12, btree_set(1_u64..12, 0..6))
            .prop_map(|(xmax, running)| Snapshot::new(xmax, running.into_iter().filter(|xid| *xid < xmax)))
    }

    proptest! {
        #[test]
        fn a_snapshot_includes_another_if_it_sees_each_of_its_transactions(a in any_snapshot(), b in any_snapshot()) {
            prop_assert_eq!(a.includes(&b), (1..13).filter(|xid| b.sees(*xid)).all(|xid| a.sees(xid)));
        }

        #[test]
        fn a_union_sees_every_transaction_that_either_sees(a in any_snapshot(), b in any_snapshot()) {
            let both = a.with_seen(&b);
            prop_assert!((1..13).all(|xid| both.sees(xid) == (a.sees(xid) || b.sees(xid))));
            prop_assert_eq!(both.to_string().parse(), Ok(both));
        }

        #[test]
        fn a_bound_compares_all_transactions_before_it(a in any_snapshot(), b in any_snapshot(), bound in 1_u64..14) {
            prop_assert_eq!(a.sees_all_before(bound), (1..bound).all(|xid| a.sees(xid)));
            prop_assert_eq!(a.sees_more_before(bound, &b), (1..bound).any(|xid| a.sees(xid) && !b.sees(xid)));
        }

        #[test]
        fn a_printed_snapshot_is_parsed_again(snapshot in any_snapshot()) {
            prop_assert_eq!(snapshot.to_string().parse(), Ok(snapshot));
        }

        #[test]
        fn ended_transactions_were_running_and_are_seen(a in any_snapshot(), b in any_snapshot()) {
            let ended: Vec<_> = b.ended_since(&a).collect();
            prop_assert_eq!(ended, (1..13).filter(|xid| a.is_running(*xid) && b.sees(*xid)).collect::<Vec<_>>());
        }

        #[test]
        fn no_text_causes_a_panic(text in "[0-9:,-]{0,20}") {
            if let Ok(snapshot) = text.parse::<Snapshot>() {
                prop_assert_eq!(snapshot.to_string().parse(), Ok(snapshot));
            }
        }
    }

    #[test]
    fn only_postgresqls_format_is_parsed() {
        let snapshot: Snapshot = "10:20:10,14".parse().unwrap();
        assert_eq!((snapshot.xmax, &*snapshot.running), (20, &[10, 14][..]));
        assert!(
            snapshot.sees(9) && !snapshot.sees(10) && snapshot.sees(11) && !snapshot.sees(14) && !snapshot.sees(20)
        );
        for text in [
            "",
            "1:1",
            "0:1:",
            "2:1:",
            "1:5:5",
            "1:5:3,2",
            "1:5:2,2",
            "1:5:,",
            "3:5:2",
            "1:2::",
            "1:99999999999999999999:",
        ] {
            assert_eq!(text.parse::<Snapshot>(), Err(()), "{text}");
        }
    }
}
