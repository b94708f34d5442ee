//! The floors of all keys: which of them are not known, and the question to the primary that is in flight. Pure, except for
//! the call that asks.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::fence::floor::{Floor, Lsn};
use crate::fence::stripe_set::StripeSet;
use crate::sync::{Mutex, MutexGuard};

pub(crate) type QuestionSink = dyn Fn(FloorQuestion) + Send + Sync;

/// The floors that are not known, and the way to ask for them.
pub(crate) struct Floors {
    /// The floor of each stripe.
    stripes: Box<[Floor]>,
    state: Mutex<FloorState>,
    ask: Box<QuestionSink>,
}

#[derive(Debug, Default)]
struct FloorState {
    /// The floors that the next question asks for.
    marked: MarkedFloors,
    /// The floors that the question in flight asks for.
    asked: Option<MarkedFloors>,
    timeline: Option<u32>,
    channels: HashMap<usize, Arc<Floor>>,
}

/// Floors that are not known.
#[derive(Debug, Default)]
struct MarkedFloors {
    stripes: StripeSet,
    /// Numbers of channels.
    channels: HashSet<usize>,
}

/// A question to the primary: how far is its log? The fence has at most one at a time, and asks it after the invalidations
/// for which it needs the answer. See [standbys](crate::fence#standbys).
///
/// A question that is dropped is asked again when its answer is needed.
#[must_use = "a question that is dropped is not answered, and until then fills from standbys are refused"]
pub struct FloorQuestion {
    floors: Option<Arc<Floors>>,
}

impl FloorQuestion {
    /// The query for the primary. Its columns are the arguments of [`answer`](Self::answer).
    pub const QUERY: &'static str = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int, \
                                     pg_current_wal_insert_lsn()";

    /// Answers with the primary's timeline and the position in its log, both read after the question was asked.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
    /// # fn main() -> Result<(), notifyman::Error> {
    /// # let conf = database();
    /// use notifyman::Connection;
    /// use notifyman::fence::FloorQuestion;
    ///
    /// let mut primary = Connection::connect(conf)?;
    /// let rows = primary.query(FloorQuestion::QUERY)?;
    /// let (timeline, lsn) = (rows[0].get(0).unwrap(), rows[0].get(1).unwrap());
    /// # let parsed = lsn.parse::<notifyman::fence::Lsn>();
    /// # assert!(timeline.parse::<u32>() == Ok(1) && parsed.is_ok());
    /// println!("question.answer({timeline}, {lsn})");
    /// # Ok(()) }
    /// ```
    pub fn answer(mut self, timeline: u32, lsn: Lsn) {
        if let Some(floors) = self.floors.take() {
            floors.answer(timeline, lsn);
            floors.ask();
        }
    }
}

impl Drop for FloorQuestion {
    fn drop(&mut self) {
        if let Some(floors) = &self.floors {
            floors.lock().withdraw_question();
        }
    }
}

impl FloorState {
    /// Lets the next question ask for what the question in flight asked for.
    fn withdraw_question(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.marked.stripes.extend(&asked.stripes);
            self.marked.channels.extend(asked.channels);
        }
    }
}

impl Floors {
    pub(crate) fn new(stripes: usize, ask: Box<QuestionSink>) -> Self {
        Self { stripes: (0..stripes).map(|_| Floor::default()).collect(), state: Mutex::default(), ask }
    }

    /// Returns `true` if a standby that has replayed the log up to a position has reached the floor of a stripe.
    pub(crate) fn is_below(&self, stripe: usize, replayed: Lsn) -> bool {
        self.stripes.get(stripe).is_some_and(|floor| floor.is_below(replayed))
    }

    fn lock(&self) -> MutexGuard<'_, FloorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the floor of a stripe as unknown, after an invalidation was received.
    pub(crate) fn mark_stripe(&self, stripe: usize) {
        let mut state = self.lock();
        state.marked.stripes.insert(stripe);
        self.stripes.get(stripe).into_iter().for_each(|floor| floor.set(None));
    }

    /// Likewise for the floor of a channel.
    pub(crate) fn mark_channel(&self, number: usize, floor: &Arc<Floor>) {
        let mut state = self.lock();
        state.channels.entry(number).or_insert_with(|| Arc::clone(floor));
        state.marked.channels.insert(number);
        floor.set(None);
    }

    /// Asks for the floors that are marked, unless a question is in flight.
    pub(crate) fn ask(self: &Arc<Self>) {
        {
            let mut state = self.lock();
            let is_needed = !state.marked.stripes.is_empty() || !state.marked.channels.is_empty();
            if !is_needed || state.asked.is_some() {
                return;
            }
            state.asked = Some(std::mem::take(&mut state.marked));
        }
        (self.ask)(FloorQuestion { floors: Some(Arc::clone(self)) });
    }

    fn answer(&self, timeline: u32, lsn: Lsn) {
        let mut state = self.lock();
        let FloorState { marked, asked, timeline: known, channels } = &mut *state;
        let asked = asked.take().unwrap_or_default();
        // A floor that was marked again since the question is not answered by it.
        for at in asked.stripes.difference(&marked.stripes) {
            self.stripes.get(at).into_iter().for_each(|floor| floor.set(Some(lsn)));
        }
        for number in asked.channels.difference(&marked.channels) {
            channels.get(number).into_iter().for_each(|floor| floor.set(Some(lsn)));
        }
        if known.replace(timeline).is_some_and(|known| known != timeline) {
            // Positions of another timeline cannot be compared. This one is later than all that was answered before.
            let floors = self.stripes.iter().chain(channels.values().map(|floor| &**floor));
            floors.filter(|floor| floor.is_known()).for_each(|floor| floor.set(Some(lsn)));
        }
    }
}

impl fmt::Debug for Floors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

impl fmt::Debug for FloorQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FloorQuestion").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A change marks one of two stripes or channels (0 to 3), asks (4), answers (5) or drops (6) the question.
        #[test]
        fn f04_a_floor_is_known_only_after_an_answer_to_a_later_question_and_always_then(changes in vec(0..7_usize, 0..40)) {
            let questions: Arc<Mutex<Vec<FloorQuestion>>> = Arc::default();
            let asked = Arc::clone(&questions);
            let floors = Floors::new(2, Box::new(move |question| asked.lock().unwrap().push(question)));
            let (floors, channels) = (Arc::new(floors), [0, 1].map(|_| Arc::<Floor>::default()));
            let reaches = |at: usize, replayed| match at.checked_sub(2) {
                None => floors.is_below(at, Lsn::from(replayed)),
                Some(number) => channels[number].is_below(Lsn::from(replayed)),
            };
            // The position of the log, when each was marked, and when the question was asked.
            let (mut log, mut marked, mut question_at) = (10, [0; 4], 0);
            for change in changes {
                log += 1;
                let was_waiting = change != 5 && !questions.lock().unwrap().is_empty();
                match change {
                    0 | 1 => floors.mark_stripe(change),
                    2 | 3 => floors.mark_channel(change - 2, &channels[change - 2]),
                    4 => floors.ask(),
                    _ => {
                        let question = questions.lock().unwrap().pop();
                        let lsn = Lsn::from(question_at);
                        question.filter(|_| change == 5).into_iter().for_each(|question| question.answer(1, lsn));
                    }
                }
                if change < 4 {
                    marked[change] = log;
                }
                let waiting = questions.lock().unwrap().len();
                prop_assert!(waiting <= 1, "one question at a time");
                if waiting == 1 && !was_waiting {
                    question_at = log;
                }
                for (at, marked) in marked.into_iter().enumerate() {
                    prop_assert!(marked == 0 || !reaches(at, marked - 1), "{} is known too early", at);
                }
            }
            for _ in 0..3 {
                floors.ask();
                let question = questions.lock().unwrap().pop();
                question.into_iter().for_each(|question| question.answer(1, Lsn::from(log)));
            }
            for (at, marked) in marked.into_iter().enumerate() {
                prop_assert!(reaches(at, log), "{at}, marked at {marked}, stays unknown");
            }
        }
    }
}
