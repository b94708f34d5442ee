//! Positions in the stream of a database.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ValueError};

/// The position of an entry in the stream of a database, which is the id that the engine stores with it.
///
/// A term belongs to one leader, and its entries are numbered without a hole: 0 is the claim of the leader, 1 the start of the
/// term, and the rest is what the leader relays. Positions are ordered as the entries are in the stream.
///
/// The text is `term-sequence`, as an engine writes the id of an entry: `1780000000000-7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamPosition {
    pub(crate) term: u64,
    pub(crate) sequence: u64,
}

impl StreamPosition {
    /// The sequence number of the claim of a term.
    pub(crate) const CLAIM: u64 = 0;
    /// The sequence number of the start of a term.
    pub(crate) const START: u64 = 1;

    /// The number of terms that begin in one millisecond.
    pub(crate) const TERMS: u64 = 1_000_000;

    /// Returns the term that a candidate claims at a time of the engine's clock, in milliseconds since 1970, above all terms that
    /// it knows: the time, or a later one, times [`TERMS`](Self::TERMS), plus its own number. `None` if there is no such term.
    ///
    /// A term must not have two owners, even if the engine has lost the first claim and the second one follows in the same
    /// millisecond. So candidates have different numbers, and each remembers the terms that it has claimed.
    pub(crate) fn next_term(unix_ms: u64, known: u64, number: u64) -> Option<u64> {
        let term_at = |unix_ms: u64| unix_ms.checked_mul(Self::TERMS)?.checked_add(number % Self::TERMS);
        term_at(unix_ms).filter(|term| *term > known).or_else(|| term_at(known / Self::TERMS + 1))
    }

    /// Returns the position of the claim of a term, with which a candidate fences every leader of an earlier term.
    pub(crate) fn claim_of(term: u64) -> Self {
        Self { term, sequence: Self::CLAIM }
    }

    /// Returns the next position of the same term, or `None` after the last one.
    pub(crate) fn next(self) -> Option<Self> {
        Some(Self { sequence: self.sequence.checked_add(1)?, ..self })
    }

    /// Returns `true` if this is the position of a claim, which alone makes no leader.
    pub(crate) fn is_claim(self) -> bool {
        self.sequence == Self::CLAIM
    }
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term, self.sequence)
    }
}

impl FromStr for StreamPosition {
    type Err = Error;

    /// Parses the text that [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(60).collect();
            let message = format!(
                "{shown:?} is not a position in a stream, which is a term and a sequence number such as 1780000000000-7"
            );
            ValueError { message }.into()
        })
    }
}

impl StreamPosition {
    fn parse(text: &str) -> Option<Self> {
        let (term, sequence) = text.split_once('-')?;
        Some(Self { term: decimal(term)?, sequence: decimal(sequence)? })
    }
}

/// Parses a number that is written in decimal digits only.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_text_of_a_position_is_parsed() {
        let position: StreamPosition = "1780000000000-7".parse().unwrap();
        assert_eq!(position, StreamPosition { term: 1_780_000_000_000, sequence: 7 });
        for text in ["", "-", "1", "1-", "-1", "1-2-3", "+1-2", "1-+2", "1--2", " 1-2", "18446744073709551616-0", "a-1"]
        {
            let error = text.parse::<StreamPosition>().unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("is not a position in a stream"), "{error}");
        }
    }

    #[test]
    fn the_last_position_of_a_term_has_no_next_one() {
        let last = StreamPosition { term: 1, sequence: u64::MAX };
        assert_eq!(
            (last.next(), StreamPosition::claim_of(1).next()),
            (None, Some(StreamPosition { term: 1, sequence: 1 }))
        );
    }

    proptest! {
        #[test]
        fn a_printed_position_is_parsed_again_and_a_later_term_is_higher(a: (u64, u64), b: (u64, u64)) {
            let [a, b] = [a, b].map(|(term, sequence)| StreamPosition { term, sequence });
            prop_assert_eq!(a.to_string().parse().ok(), Some(a));
            prop_assert_eq!(a < b, a.term < b.term || a.term == b.term && a.sequence < b.sequence);
        }

        #[test]
        fn a_new_term_is_above_those_that_are_known_and_of_one_relay(unix_ms: u64, known: u64, number in 0..StreamPosition::TERMS) {
            let now = 1_780_000_000_000;
            prop_assert_eq!(StreamPosition::next_term(now, 5, number), Some(now * StreamPosition::TERMS + number));
            for unix_ms in [unix_ms, unix_ms % (2 * now), known / StreamPosition::TERMS] {
                match StreamPosition::next_term(unix_ms, known, number) {
                    Some(term) => prop_assert!(term > known && term % StreamPosition::TERMS == number),
                    None => prop_assert!(unix_ms.max(known / StreamPosition::TERMS) >= u64::MAX / StreamPosition::TERMS - 1),
                }
            }
        }
    }
}
